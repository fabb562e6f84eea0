"""Replicates whose trajectories diverge, and that are given up."""

from __future__ import annotations

from collections.abc import Sequence
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
    if _stays_finite(module):
        return []
    kept = {name: parameter.detach().clone() for name, parameter in module.field.named_parameters()}
    found = []
    for replicate in range(module.n_replicates):
        give_up(module, [other for other in range(module.n_replicates) if other != replicate])
        if not _stays_finite(module, slice(replicate, replicate + 1)):
            found.append(replicate)
        module.field.load_state_dict(kept, strict=False)
    return found


def _stays_finite(module: SparseNODEModule, replicates: slice = slice(None)) -> bool:
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
