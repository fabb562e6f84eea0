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
        parameter.unflatten(0, (module.n_replicates, -1))[list(replicates)] = 0.0


@torch.no_grad()
def diverging(module: SparseNODEModule) -> list[int]:
    """Replicates whose trajectories leave the finite numbers, or 1000 units of the module, about as many standard deviations."""
    return _one_by_one(module, lambda replicates: _stays_finite(module, replicates))


@torch.no_grad()
def failing(module: SparseNODEModule, batch: dict[str, torch.Tensor], largest: float) -> list[int]:
    """Replicates whose error of a batch is not finite or beyond the largest, all with the same random numbers."""
    draws = module.generator_states()

    def is_sound(replicates: slice) -> bool:
        module.set_generator_states(draws)
        try:
            _, output = module(batch)
        except DivergenceError:
            return False
        error, penalty = (output.extra_metrics[name][replicates] for name in ("error", "penalty"))
        return bool(((error + penalty).isfinite() & (error <= largest)).all())

    return _one_by_one(module, is_sound)


def _one_by_one(module: SparseNODEModule, is_sound: Callable[[slice], bool]) -> list[int]:
    """Replicates that are not sound while all parameters of the others are zero, if all together are not."""
    if is_sound(slice(None)):
        return []
    kept = [parameter.detach().clone() for parameter in module.parameters()]
    found = []
    for replicate in range(module.n_replicates):
        own = slice(replicate, replicate + 1)
        for parameter, value in zip(module.parameters(), kept, strict=True):
            by_replicate = (module.n_replicates, -1)
            parameter.zero_().unflatten(0, by_replicate)[own] = value.unflatten(0, by_replicate)[own]
        if not is_sound(own):
            found.append(replicate)
    for parameter, value in zip(module.parameters(), kept, strict=True):
        parameter.copy_(value)
    return found


def _stays_finite(module: SparseNODEModule, replicates: slice) -> bool:
    """Whether all trajectories can be integrated, and those of some replicates stay within bounds."""
    knots = torch.linspace(0.0, 1.0, module.n_knots, device=module.device)
    try:
        states, _ = module.trajectories(
            module.field.effective_weights(),
            module.start(),
            module.relative_span,
            module.lineages,
            knots,
            speed=module.start_speed(),
        )
    except DivergenceError:
        return False
    return bool(states[replicates].abs().max() < _LARGEST)


def warn_given_up(module: SparseNODEModule, found: Sequence[int], when: str, stacklevel: int) -> None:
    """Say how many replicates are given up, of which strengths."""
    strengths = sorted({f"{float(module.strength[r]):g}" for r in found})
    warnings.warn(
        f"{when} {len(found)} of {module.n_replicates} replicates diverge (strengths {', '.join(strengths)}): they are given up for "
        "good, their weights are zero and their errors infinite.",
        UserWarning,
        stacklevel=stacklevel + 1,
    )
