"""Smaller fields: without the hidden units and regulators that no open path goes through."""

from __future__ import annotations

import torch
from torch.nn import functional

from sparsenode.module._field import EffectiveWeights, Field


@torch.no_grad()
def prune_field(field: Field) -> tuple[Field, dict[str, list[int]]]:
    """Field with the same values, and the sizes and inputs from which it can be built again.

    Parameters
    ----------
    field
        Left as it is.

    Returns
    -------
    The smaller field, and ``hidden``: its widths, and ``inputs``: the coordinates of the state that it
    reads.
    """
    effective = field.effective_weights()
    layers = effective.weights[: len(field.biases)]
    alive, constants = _alive(layers, list(field.biases))
    # Networks on the leading axis share the shape of a tensor: each keeps as many units as the largest needs.
    widths = [max(1, int(units.sum(1).max())) for units in alive]
    units = [
        torch.argsort((~live).to(torch.int8), dim=1, stable=True)[:, :width]
        for live, width in zip(alive, widths, strict=True)
    ]
    inputs = _used_inputs(field, effective)
    positions = torch.arange(field.architecture.n_state, device=inputs.device) if field.inputs is None else field.inputs
    names = [int(i) for i in positions[inputs]]
    new = resized(field, widths, names)
    rows = [*units, None]
    columns = [inputs.expand(len(layers[0]), -1), *units]
    for layer, (row, column) in enumerate(zip(rows, columns, strict=True)):
        weight = field.weights[layer].clone()
        bias = field.biases[layer].clone()
        if layer > 0:
            # Outgoing weights of dead units go; what constant ones contributed is in the bias from here on.
            dead = ~alive[layer - 1].unsqueeze(1)
            bias += (layers[layer] * constants[layer - 1].unsqueeze(1) * dead).sum(2).unsqueeze(1)
            weight.mul_(~dead)
        new.weights[layer].copy_(_take(weight, row, column))
        new.biases[layer].copy_(bias if row is None else bias.gather(2, row.unsqueeze(1)))
        if field.gates is not None:
            new.gate_logits[layer].copy_(_take(field.gate_logits[layer], row, column))
    if field.skip is not None:
        new.weights[-1].copy_(field.weights[-1][..., inputs])
        if field.gates is not None:
            new.gate_logits[-1].copy_(field.gate_logits[-1][..., inputs])
    if field.raw_decay is not None and new.raw_decay is not None:
        new.raw_decay.copy_(field.raw_decay)
    return new, {"hidden": widths, "inputs": names}


def resized(field: Field, hidden: list[int], inputs: list[int]) -> Field:
    """New field like another one, with other widths and inputs."""
    weights = field.path_weights
    if weights is not None:
        n_state = field.architecture.n_state
        known = range(n_state) if field.inputs is None else field.inputs.tolist()
        full = weights.new_ones(field.n_vars, n_state)
        full[:, list(known)] = weights
        weights = full
    new = Field(
        field.n_vars,
        hidden,
        [0] * field.n_networks,
        gates=field.gates,
        decay=field.raw_decay is not None,
        skip=field.skip,
        per_target=field.per_target,
        inputs=inputs,
        path_weights=weights,
        order=field.order,
    )
    return new.to(device=field.weights[0].device, dtype=field.weights[0].dtype)


def _alive(layers: list[torch.Tensor], biases: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Hidden units that depend on the input and act on the output, and the values of those that are constant."""
    varying, constants = [], []
    below = torch.ones(len(layers[0]), layers[0].shape[2], dtype=torch.bool, device=layers[0].device)
    value = torch.zeros_like(below, dtype=layers[0].dtype)
    for weight, bias in zip(layers[:-1], biases, strict=False):
        value = functional.elu((weight @ value.unsqueeze(2)).squeeze(2) + bias.squeeze(1))
        below = ((weight != 0) & below.unsqueeze(1)).any(2)
        value = torch.where(below, torch.zeros_like(value), value)
        varying.append(below)
        constants.append(value)
    above = torch.ones(len(layers[0]), layers[-1].shape[1], dtype=torch.bool, device=layers[0].device)
    alive: list[torch.Tensor] = []
    for weight, depends in zip(layers[:0:-1], varying[::-1], strict=True):
        above = ((weight != 0) & above.unsqueeze(2)).any(1) & depends
        alive.insert(0, above)
    return alive, constants


def _used_inputs(field: Field, effective: EffectiveWeights) -> torch.Tensor:
    """Positions among the inputs of those that any network uses, at least one."""
    matrix = Field.path_matrix(effective)
    if field.inputs is not None:
        matrix = matrix[..., field.inputs]
    used = (matrix != 0).flatten(0, 1).any(0)
    return torch.nonzero(used).flatten() if used.any() else torch.zeros(1, dtype=torch.long, device=matrix.device)


def _take(matrix: torch.Tensor, rows: torch.Tensor | None, columns: torch.Tensor) -> torch.Tensor:
    """Rows and columns of every matrix of a batch; a matrix of one row for all keeps it."""
    if rows is not None and matrix.shape[1] > 1:
        matrix = matrix.gather(1, rows.unsqueeze(2).expand(-1, -1, matrix.shape[2]))
    return matrix.gather(2, columns.unsqueeze(1).expand(-1, matrix.shape[1], -1))
