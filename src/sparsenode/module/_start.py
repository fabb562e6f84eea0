"""Where the field starts from: regressions on smoothed trajectories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sparsenode.module._diverging import diverging

if TYPE_CHECKING:
    from sparsenode.module._module import SparseNODEModule

_RIDGE = 1e-4  # of the linear start, as a share of the mean square of an input
# Steps and learning rate of the regression that second-order fields start from.
_WARM_UP_STEPS, _WARM_UP_LR = 300, 0.01
_HALVINGS = 20  # of accelerations that lead nowhere; a millionth of them is next to none


@torch.no_grad()
def start_linear(module: SparseNODEModule, tensors: dict[str, torch.Tensor]) -> None:
    """Start a skip inside the field from the ridge regression of the derivatives of smoothed trajectories.

    What is linear is then found before training, given the decay, but for what the untrained layers add to it.
    """
    if module.field.skip != "inner":
        return
    layout, architecture = module.layout(module.lineages), module.field.architecture
    span = module.relative_span.view(-1, 1, 1) * module.rate
    states, slopes, precision = (
        layout.spread(module.by_replicate(tensor).expand(module.n_replicates, -1, -1, -1)).flatten(1, 2).double()
        for tensor in (tensors["states"], tensors["derivatives"] / span, tensors["precision"] * span**2)
    )
    n_times = tensors["states"].shape[-2]
    precision = precision * layout.used.repeat(module.n_replicates, 1).repeat_interleave(n_times, 1).unsqueeze(2)
    if module.field.decay is not None:
        slopes = slopes + module.field.decay * architecture.top(states)
    inputs = torch.cat([architecture.read(states), torch.ones_like(states[..., :1])], 2)
    weighted = inputs * precision.mean(2, keepdim=True)
    gram = weighted.mT @ inputs
    ridge = _RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1)
    # What noise on the inputs amounts to.
    ridge = ridge + module.start_noise**2 * weighted[..., -1:].sum(1, keepdim=True)
    eye = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    solution = torch.linalg.solve(gram + ridge * eye, weighted.mT @ slopes).mT.float()
    module.field.weights[-1].copy_(solution[..., :-1])
    module.field.biases[-1].copy_(solution[..., -1].reshape(module.field.biases[-1].shape))


def start_accelerations(module: SparseNODEModule, tensors: dict[str, torch.Tensor]) -> None:
    """Start a field of accelerations from those of smoothed trajectories.

    A trajectory from an untrained field of accelerations flies off in a straight line, and takes long to come back.
    So the field is regressed on smooth curves first, without penalty and without solving an equation. Where many variables
    were seen for a short time it fits them and flies off all the same; training could not begin there. The accelerations of
    such replicates are halved until their trajectories stay within bounds.

    Parameters
    ----------
    module
        Module whose field starts there.
    tensors
        As for a collocation fit.
    """
    module.seed_generators()
    optimizer = torch.optim.Adam(module.field.parameters(), _WARM_UP_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _WARM_UP_STEPS)
    for _ in range(_WARM_UP_STEPS):
        optimizer.zero_grad()
        states = tensors["states"]
        if module.start_noise > 0:
            draw = module.draw(states.shape[1:], "normal")
            states = module.by_replicate(states + module.start_noise * draw)
        module.collocation_error(module.sample_weights(), tensors | {"states": states}).sum().backward()
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()
    _calm(module)


@torch.no_grad()
def _calm(module: SparseNODEModule) -> None:
    """Halve the fields of replicates whose trajectories diverge, until none does."""
    last = module.field.architecture.n_layers - 1
    for _ in range(_HALVINGS):
        found = diverging(module)
        if not found:
            return
        for parameter in (*module.field.weights[last:], module.field.biases[-1]):
            module.split_replicates(parameter)[found] *= 0.5
