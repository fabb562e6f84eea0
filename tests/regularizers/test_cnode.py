from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from sparsenode.regularizers import CNODE


@pytest.mark.parametrize("hidden", [(4,), (4, 2), (2, 3, 2)], ids=str)
def test_penalty_is_the_sum_over_all_paths_per_target(make_field, paths, hidden):
    field = make_field(hidden=hidden)
    found = CNODE().penalty(field, field.effective_weights())
    for network in range(2):
        products = paths([w[network].abs() for w in field.weights])
        assert found[network].item() == pytest.approx(sum(products.values()) / 3, rel=1e-10)


def test_penalty_bounds_the_dependencies(make_field):
    """ELU has slopes of at most one: no Jacobian exceeds the paths."""
    field = make_field()
    x = 3 * torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    penalty = CNODE().penalty(field, field.effective_weights())
    for network in range(2):
        jacobian = field.jacobian(x, field.effective_weights(), network)
        assert jacobian.abs().sum().item() / 3 <= penalty[network].item()


def test_nothing_is_left_to_the_gradient(make_field):
    field = make_field()
    smooth = CNODE().gradient_penalty(field, field.effective_weights())
    assert torch.equal(smooth, torch.zeros(2, dtype=torch.float64))


def test_prox_of_one_layer_is_the_lasso(make_field):
    """Without hidden layers the path norm is the L1 norm over d, whose proximal map is known."""
    field = make_field(hidden=())
    before = field.weights[0].detach().numpy().copy()
    step = 0.4 + torch.arange(18, dtype=torch.float64).reshape(2, 3, 3) / 18
    strength = torch.tensor([0.5, 2.0], dtype=torch.float64)
    CNODE().prox(field, field.effective_weights(), strength, [step])
    found = field.weights[0].detach().numpy()
    threshold = step.numpy() * strength.numpy()[:, None, None] / 3
    np.testing.assert_allclose(found, np.sign(before) * np.maximum(np.abs(before) - threshold, 0), rtol=1e-12)
    assert (found == 0).any()
    for place in np.ndindex(2, 3, 3):
        t, v = threshold[place], before[place]
        best = minimize_scalar(lambda w, t=t, v=v: 0.5 * (w - v) ** 2 + t * abs(w), (-3, 3), tol=1e-10).x
        assert found[place] == pytest.approx(best, abs=1e-5)


def test_prox_minimises_the_penalty_of_one_layer_with_the_others_held(make_field):
    """The norm is linear in the magnitudes of each layer, so its proximal map there is exact."""
    field = make_field(n_networks=1, hidden=(4,))
    before = field.weights[1].detach().clone()
    effective = field.effective_weights()
    strength, step = 0.8, 0.3
    CNODE().prox(
        field,
        effective,
        torch.tensor([strength], dtype=torch.float64),
        [torch.zeros_like(field.weights[0]), torch.full_like(before, step)],
    )
    found = field.weights[1].detach().clone()

    def objective(w):
        penalty = CNODE().penalty(field, replace(effective, weights=[field.weights[0], w]))
        return (((w - before) ** 2).sum() / (2 * step) + strength * penalty[0]).item()

    assert not torch.equal(found, before)
    lowest = objective(found)
    generator = torch.Generator().manual_seed(0)
    for size in (1e-3, 1e-2, 0.1):
        for _ in range(20):
            assert objective(found + size * torch.randn(found.shape, generator=generator).double()) >= lowest


def test_it_has_no_gates():
    assert CNODE().gates is None
    assert CNODE().strength.tolist() == [0.01]
