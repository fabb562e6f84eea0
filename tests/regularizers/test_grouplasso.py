from __future__ import annotations

import numpy as np
import pytest
import torch

from sparsenode.regularizers import GroupLasso

WEIGHTS = torch.tensor([[0.0, 0.5, 2.0], [1.0, 1.0, 0.3], [3.0, 0.7, 1.0]], dtype=torch.float64)
with_options = pytest.mark.parametrize(
    "options", [{}, {"skip": "inner", "path_weights": WEIGHTS}], ids=["plain", "all"]
)


def columns(field, weight):
    """Every column of the first layer with its replicate, target and regulator."""
    for network, target, regulator in np.ndindex(field.n_networks, 3, weight.shape[2]):
        yield network, target, regulator, weight[3 * network + target, :, regulator].detach()


@with_options
@pytest.mark.parametrize("hidden", [(4,), (5, 2)], ids=str)
def test_penalty_is_the_mean_over_targets_of_scaled_norms(make_for, options, hidden):
    field = make_for(GroupLasso(), hidden=hidden, **options)
    expected = np.zeros(2)
    for network, i, j, column in columns(field, field.weights[0]):
        size = float(torch.sqrt((column**2).mean()))  # the norm over the root of the number of units
        size += abs(field.weights[-1][network, i, j].item()) if "skip" in options else 0.0
        expected[network] += float(options.get("path_weights", torch.ones(3, 3))[i, j]) * size / 3
    found = GroupLasso().penalty(field, field.effective_weights())
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-10)


@with_options
def test_prox_meets_the_optimality_conditions_of_every_column(make_for, options):
    """Of ``|w - v|^2 / (2 step) + limit |w|``: either the gradient is zero, or v is within the limit and w is zero."""
    field = make_for(GroupLasso(), **options)
    before = [w.detach().clone() for w in field.weights]
    generator = torch.Generator().manual_seed(1)
    steps = [0.1 + torch.rand(w.shape, generator=generator, dtype=torch.float64) for w in field.weights]
    strength = torch.tensor([8.0, 20.0], dtype=torch.float64)
    GroupLasso().prox(field, field.effective_weights(), strength, steps)
    zeros = 0
    for (network, i, j, w), (*_, v) in zip(columns(field, field.weights[0]), columns(field, before[0]), strict=True):
        step = float(steps[0][3 * network + i, :, j].mean())
        weight = float(options.get("path_weights", torch.ones(3, 3))[i, j])
        limit = float(strength[network]) / 3 * weight / np.sqrt(4)
        if (w == 0).all():
            assert float(torch.linalg.norm(v)) / step <= limit
            zeros += 1
        else:
            assert (w != 0).all()
            np.testing.assert_allclose((v - w) / step, limit * w / torch.linalg.norm(w), rtol=1e-8, atol=1e-10)
        if "skip" in options:
            v, step = before[-1][network, i, j].item(), steps[-1][network, i, j].item()
            shrunk = np.sign(v) * max(abs(v) - step * float(strength[network]) / 3 * weight, 0.0)
            assert field.weights[-1][network, i, j].item() == pytest.approx(shrunk, abs=1e-12)
    assert 3 <= zeros <= 15
    for layer in range(1, len(field.biases)):
        assert torch.equal(field.weights[layer], before[layer])
