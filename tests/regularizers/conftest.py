"""Small fields, and penalties by brute force: one path, one weight at a time."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
import torch

from sparsenode.module import EffectiveWeights, Field


@pytest.fixture(scope="session")
def make_field():
    """Field in float64 with random parameters; the logits are wide enough for gates that are exactly 0 or 1."""

    def make(n_vars=3, hidden=(4, 2), n_networks=2, gates=None, seed=0, **architecture) -> Field:
        field = Field(n_vars, hidden, range(n_networks), gates, decay=True, **architecture).double()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in field.parameters():
                parameter.normal_(generator=generator)
            for logits in field.gate_logits:
                logits.mul_(2.0)
        return field

    return make


@pytest.fixture(scope="session")
def make_for(make_field):
    """Field with the gates, the skip and the networks per target that a regularizer asks for."""

    def make(regularizer, **options) -> Field:
        skip = regularizer.skip or options.pop("skip", None)
        return make_field(**options | {"gates": regularizer.gates, "skip": skip, "per_target": regularizer.per_target})

    return make


@pytest.fixture(scope="session")
def sampled():
    """Effective weights with sampled gates; the same sample for every call."""

    def sample(field: Field, seed=5) -> EffectiveWeights:
        generator = torch.Generator().manual_seed(seed)
        return field.effective_weights([torch.rand(g.shape, generator=generator).double() for g in field.gate_logits])

    return sample


@pytest.fixture(scope="session")
def paths():
    """Product along every path of one network, as a dictionary from (input, hidden units …, output)."""

    def enumerate_paths(matrices) -> dict[tuple[int, ...], float]:
        layers = [m.detach().numpy() for m in matrices]
        sizes = [layers[0].shape[1], *(m.shape[0] for m in layers)]
        return {
            path: prod(float(m[path[k + 1], path[k]]) for k, m in enumerate(layers))
            for path in product(*map(range, sizes))
        }

    return enumerate_paths


def _select(parameter: torch.Tensor, axis: int, units: torch.Tensor) -> torch.Tensor:
    """Rows or columns of a weight, or of logits, which may be shared by all rows."""
    return parameter if parameter.shape[axis] == 1 else parameter.index_select(axis, units)


@pytest.fixture(scope="session")
def rewire():
    """New field whose hidden units are those of the old one in the given order, possibly more than once.

    Outgoing weights are divided by the number of copies, so the function stays the same. (Logits that are shared by
    all rows have one row; a layer of one unit is not supported.)
    """

    def change(field: Field, orders: list[list[int]]) -> Field:
        hidden = [len(order) for order in orders]
        decay = field.raw_decay is not None
        new = Field(
            field.n_vars, hidden, range(field.n_networks), field.gates, decay, field.skip, field.per_target
        ).double()
        into = [list(range(field.n_vars)), *orders]
        out_of = [*orders, list(range(field.biases[-1].shape[2]))]
        with torch.no_grad():
            if field.skip is not None:
                new.weights[-1].copy_(field.weights[-1])
            for layer, weight in enumerate(field.weights[: len(field.biases)]):
                columns, rows = torch.tensor(into[layer]), torch.tensor(out_of[layer])
                copies = torch.bincount(columns)[columns]
                new.weights[layer].copy_(_select(_select(weight, 1, rows), 2, columns) / copies)
                new.biases[layer].copy_(field.biases[layer].index_select(2, rows))
                if field.gates is not None:
                    logits = field.gate_logits[layer]
                    new.gate_logits[layer].copy_(_select(_select(logits, 1, rows), 2, columns))
            if new.raw_decay is not None:
                new.raw_decay.copy_(field.raw_decay)
        return new

    return change


@pytest.fixture(scope="session")
def finite_difference():
    """Central differences of a function of a field's parameters, in a few random directions."""

    def check(field: Field, function, parameters, seed=0, h=1e-5) -> None:
        parameters = list(parameters)
        gradients = torch.autograd.grad(function().sum(), parameters, allow_unused=True)
        generator = torch.Generator().manual_seed(seed)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            for _ in range(3):
                direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                values = []
                with torch.no_grad():
                    for sign in (1, -2, 1):
                        parameter += sign * h * direction
                        values.append(float(function().sum()))
                expected = (values[0] - values[1]) / (2 * h)
                found = 0.0 if gradient is None else float((gradient * direction).sum())
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)

    return check
