"""The linear part of a regression of pairs at its optimum, given the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sparsenode.module import _paths
from sparsenode.module._field import EffectiveWeights

if TYPE_CHECKING:
    from sparsenode.module import SparseNODEModule

_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-6  # change of an iteration, relative to the largest entry
_LEAST_DECAY = 1e-4
_LEAST_LIPSCHITZ = 1e-12  # where nothing varies
_ROWS = 4096  # pairs that are held in double precision at once


@torch.no_grad()
def polish(module: SparseNODEModule, tensors: dict[str, torch.Tensor]) -> None:
    r"""Solve for the skip, the decay and the last biases of all networks, with the layers as they are.

    Given the layers, loss and penalty are convex in these:

    .. math:: \min_{S, \gamma \ge 0, b} \; \sum_c w_c \| y_c - S x_c + \gamma \odot x_c - b \|^2 + \lambda \sum_{ij} B_{ij} |S_{ij}|
              + \rho \sum_{ij} B_{ij} (|S_{ij}| + H_{ij})^2

    with what the layers leave of the displacements, :math:`y`, and their path matrix :math:`H`. Adam and minibatches only come
    near the minimum, and rankings of edges depend on how near; accelerated proximal gradients on the moments of all pairs reach it
    (Beck and Teboulle 2009, with the restarts of O'Donoghue and Candès 2015).

    Parameters
    ----------
    module
        Module with a skip inside the field and a regularizer that penalises the magnitudes of its entries, without gates.
    tensors
        All pairs, as for a transport fit.
    """
    effective = module.field.effective_weights()
    for network in range(module.field.n_networks):
        replicate, field = divmod(network, module.n_fields)
        sample = replicate % len(tensors["weight"])  # seeds come last in the order of replicates
        weight = tensors["weight"][sample].cpu().double()
        weight = weight / weight.sum()
        if module.n_fields > 1:
            weight = weight * (tensors["lineage"].cpu() == field)
        _solve(
            module,
            effective.take(slice(network, network + 1)),
            network,
            tensors | {"slope": tensors["slope"][sample]},
            weight,
            float(module.strength[replicate]),
        )


def _solve(
    module: SparseNODEModule,
    effective: EffectiveWeights,
    network: int,
    tensors: dict[str, torch.Tensor],
    weight: torch.Tensor,
    strength: float,
) -> None:
    """Solve for one network, given its weights alone."""
    field = module.field
    means, moments = _moments(module, effective, tensors, weight)
    share = float(weight.sum())
    gram, cross, own_input, own, own_slope = moments
    path_weights = effective.architecture.path_weights
    if path_weights is not None and path_weights.dim() == 3:
        path_weights = path_weights[0]
    free = torch.ones_like(cross) if path_weights is None else path_weights.double().cpu().mT
    skip = effective.weights[-1][0].double().cpu().mT
    layers = _layer_paths(effective).double().cpu().mT
    decay = None if effective.decay is None else effective.decay[0, 0].double().cpu()
    threshold = (strength + 2.0 * module.ridge * layers) * free / module.n_fields
    ridge = module.ridge * free / module.n_fields
    lipschitz = max(2.0 * float(torch.linalg.eigvalsh(gram)[-1] + own.max()), _LEAST_LIPSCHITZ)
    x, g = skip.clone(), torch.zeros_like(own) if decay is None else decay.clone()
    ahead_x, ahead_g, momentum = x, g, 1.0
    for _ in range(_MAX_ITERATIONS):
        step_x = ahead_x - 2.0 / lipschitz * (gram @ ahead_x - own_input * ahead_g - cross)
        # The ridge is part of the proximal step: in the gradient one heavy path would shorten the steps of all.
        new_x = (step_x - step_x.clamp(-threshold / lipschitz, threshold / lipschitz)) / (1.0 + 2.0 * ridge / lipschitz)
        new_g = g
        if decay is not None:
            slope = own * ahead_g + own_slope - (own_input * ahead_x).sum(0)
            new_g = (ahead_g - 2.0 / lipschitz * slope).clamp_min(_LEAST_DECAY)
        uphill = ((ahead_x - new_x) * (new_x - x)).sum() + ((ahead_g - new_g) * (new_g - g)).sum()
        if float(uphill) > 0:
            momentum = 1.0  # it leads uphill: start anew
        following = 0.5 * (1.0 + (1.0 + 4.0 * momentum**2) ** 0.5)
        pull = (momentum - 1.0) / following
        ahead_x, ahead_g = new_x + pull * (new_x - x), new_g + pull * (new_g - g)
        change = max(float((new_x - x).abs().max()), float((new_g - g).abs().max()))
        x, g, momentum = new_x, new_g, following
        if change <= _TOLERANCE * max(float(x.abs().max()), float(g.abs().max())):
            break
    field.weights[-1][network] = x.mT.to(field.weights[-1])
    if field.raw_decay is not None:
        field.raw_decay[network, 0] = torch.log(torch.expm1(g)).to(field.raw_decay)
    if share > 0:
        mean_input, mean_own, mean_slope = (mean / share for mean in means)
        field.biases[-1][network, 0] += (mean_slope - mean_input @ x + mean_own * g).to(field.biases[-1])


def _moments(
    module: SparseNODEModule,
    effective: EffectiveWeights,
    tensors: dict[str, torch.Tensor],
    weight: torch.Tensor,
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Weighted sums of inputs, variables and what the layers leave of the slopes; and their central moments.

    The moments are those of the inputs, of inputs and slopes, of inputs and variables, of every variable, and of it and its slope.
    """
    totals: list[torch.Tensor] = []
    for first in range(0, len(weight), _ROWS):
        rows = slice(first, first + _ROWS)
        state, slope = tensors["state"][rows].to(module.device), tensors["slope"][rows].to(module.device)
        left = (slope - _layers_alone(module, effective, state)).cpu().double()
        inputs, variables = effective.architecture.read(state).cpu().double(), state.cpu().double()
        w = weight[rows, None]
        parts = [
            (w * inputs).sum(0),
            (w * variables).sum(0),
            (w * left).sum(0),
            (w * inputs).mT @ inputs,
            (w * inputs).mT @ left,
            (w * inputs).mT @ variables,
            (w * variables.square()).sum(0),
            (w * variables * left).sum(0),
        ]
        totals = parts if not totals else [total + part for total, part in zip(totals, parts, strict=True)]
    mean_input, mean_own, mean_slope, gram, cross, own_input, own, own_slope = totals
    share = max(float(weight.sum()), torch.finfo(torch.float64).tiny)
    central = (
        gram - torch.outer(mean_input, mean_input) / share,
        cross - torch.outer(mean_input, mean_slope) / share,
        own_input - torch.outer(mean_input, mean_own) / share,
        own - mean_own.square() / share,
        own_slope - mean_own * mean_slope / share,
    )
    return (mean_input, mean_own, mean_slope), central


def _layers_alone(module: SparseNODEModule, effective: EffectiveWeights, state: torch.Tensor) -> torch.Tensor:
    """What the layers give at some states, with their biases: points × variables."""
    found = module.field.evaluate(state.unsqueeze(0), effective)[0]
    found = found - effective.architecture.read(state) @ effective.weights[-1][0].mT
    return found if effective.decay is None else found + effective.decay[0] * state


def _layer_paths(effective: EffectiveWeights) -> torch.Tensor:
    """Path matrix of the layers: targets × inputs."""
    return _paths.product([weight.abs() for weight in effective.weights[: effective.architecture.n_layers]])[0]
