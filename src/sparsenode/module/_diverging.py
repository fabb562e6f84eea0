"""Replicates whose trajectories diverge, and that are given up."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from sparsenode._errors import DivergenceError

if TYPE_CHECKING:
    from sparsenode.module._module import SparseNODEModule

_LARGEST = 1000.0  # states in units of the module beyond which a trajectory is said to diverge


@torch.no_grad()
def give_up(module: SparseNODEModule, replicates: Sequence[int]) -> None:
    """Set all weights of some replicates to zero, so that their trajectories are finite."""
    for parameter in (*module.field.weights, *module.field.biases):
        module.split_replicates(parameter)[list(replicates)] = 0.0


@torch.no_grad()
def diverging(module: SparseNODEModule) -> list[int]:
    """Replicates whose trajectories leave the finite numbers, or 1000 units of the module, about as many standard deviations."""
    knots = torch.linspace(0.0, 1.0, module.n_knots, device=module.device)

    def stay_finite() -> torch.Tensor:
        states, _ = module.trajectories(
            module.field.effective_weights(),
            module.start(),
            module.relative_span,
            module.lineages,
            knots,
            speed=module.start_speed(),
        )
        return states.flatten(1).abs().amax(1) < _LARGEST

    return _unsound(module, stay_finite)


@torch.no_grad()
def failing(module: SparseNODEModule, batch: dict[str, torch.Tensor], largest: torch.Tensor) -> list[int]:
    """Replicates whose loss of a batch is not finite, or whose error is beyond the largest of each, with the next random numbers."""
    draws = module.generator_states()

    def have_losses() -> torch.Tensor:
        module.set_generator_states(draws)
        _, output = module(batch)
        error, penalty = output.extra_metrics["error"], output.extra_metrics["penalty"]
        return (error + penalty).isfinite() & (error <= largest)

    return _unsound(module, have_losses)


def _unsound(module: SparseNODEModule, are_sound: Callable[[], torch.Tensor]) -> list[int]:
    """Replicates that are not sound; where they cannot be integrated together, halves of them with all parameters of the others zero."""
    kept = [parameter.detach().clone() for parameter in module.parameters()]

    def among(replicates: list[int]) -> list[int]:
        for parameter, value in zip(module.parameters(), kept, strict=True):
            own = module.split_replicates(value)[replicates]
            module.split_replicates(parameter.zero_())[replicates] = own
        try:
            sound = are_sound()
        except DivergenceError:
            half = len(replicates) // 2
            return [*among(replicates[:half]), *among(replicates[half:])] if half else replicates
        return [replicate for replicate in replicates if not sound[replicate]]

    found = among(list(range(module.n_replicates)))
    for parameter, value in zip(module.parameters(), kept, strict=True):
        parameter.copy_(value)
    return found


def warn_given_up(module: SparseNODEModule, found: Sequence[int], when: str, stacklevel: int) -> None:
    """Say how many replicates are given up, of which strengths."""
    strengths = sorted({f"{float(module.strength[r]):g}" for r in found})
    warnings.warn(
        f"{when} {len(found)} of {module.n_replicates} replicates diverge (strengths {', '.join(strengths)}): they are given up for "
        "good, their weights are zero and their errors infinite.",
        UserWarning,
        stacklevel=stacklevel + 1,
    )
