"""Where trajectories start in training: at random, around their initial states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from sparsenode.module._module import SparseNODEModule


def bootstrapped_start(module: SparseNODEModule, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Initial values, replicates × trajectories × variables; bootstrapped from early cells while training."""
    start = module.start()
    if not (module.training and module.bootstrap):
        return start
    weights = module.draw(tensors["early_mask"].shape, "exponential") * tensors["early_mask"]
    weights = weights / weights.sum(2, keepdim=True)
    uniform = tensors["early_mask"] / tensors["early_mask"].sum(1, keepdim=True)
    # Early cells are centred on their mean, so the draws are centred on the initial state.
    drawn = torch.einsum("sme,med->smd", weights - uniform, tensors["early"])
    return start + module.by_replicate(drawn)


def noisy_start(module: SparseNODEModule, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Initial values and velocities, with noise while training; no velocities where those of the network serve."""
    speed = module.start_speed()
    if not (module.training and module.start_noise > 0):
        return start, speed
    noise = module.start_noise * module.draw((module.order, *start.shape[1:]), "normal")
    noise = module.by_replicate(noise)
    if module.initial_velocity is None:
        return start + noise[:, 0], None
    speed = module.network_velocity(start, module.lineages) if speed is None else speed
    return start + noise[:, 0], speed + noise[:, 1]
