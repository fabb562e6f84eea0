from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lassonet.prox import prox as package_prox
from scipy.optimize import minimize

from sparsenode.regularizers import LassoNet
from sparsenode.regularizers._lassonet import hierarchical_prox


def vectors(seed, n_targets, n_units, shape=()):
    """Skips and weights of very different sizes, so that none, some and all entries meet the bound."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *s: torch.randn(s, generator=generator, dtype=torch.float64)
    return draw(*shape, n_targets) * 10 ** draw(*shape, 1), draw(*shape, n_units) * 10 ** draw(*shape, n_units)


@given(
    seed=st.integers(0, 2**31),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 6)),
    threshold=st.sampled_from([0.0, 1e-3, 0.3, 2.0, 30.0]),
    ratio=st.sampled_from([0.0, 0.1, 1.0, 10.0, 1e3]),
)
@settings(max_examples=150)
def test_it_is_the_operator_of_the_lassonet_package(seed, sizes, threshold, ratio):
    v, u = vectors(seed, *sizes)
    found = hierarchical_prox(v, u, torch.tensor(threshold, dtype=torch.float64), ratio)
    expected = package_prox(v, u, lambda_=threshold, lambda_bar=0.0, M=ratio)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    assert found[1].abs().max() <= ratio * torch.linalg.norm(found[0]) * (1 + 1e-9)


@given(seed=st.integers(0, 2**31), threshold=st.floats(0, 3), ratio=st.sampled_from([0.3, 1.0, 5.0]))
@settings(max_examples=15)
def test_no_point_that_scipy_finds_is_better(seed, threshold, ratio):
    v, u = (t.numpy() for t in vectors(seed, 2, 3))
    v, u = v / np.abs(v).max(), u / np.abs(u).max()

    def objective(z):
        return 0.5 * ((z[:2] - v) ** 2).sum() + 0.5 * ((z[2:] - u) ** 2).sum() + threshold * np.linalg.norm(z[:2])

    bound = {"type": "ineq", "fun": lambda z: np.repeat(ratio * np.linalg.norm(z[:2]), 6) - np.r_[z[2:], -z[2:]]}
    b, w = hierarchical_prox(torch.as_tensor(v), torch.as_tensor(u), torch.tensor(threshold).double(), ratio)
    lowest = objective(np.r_[b, w])
    rng, reached = np.random.default_rng(seed), [objective(np.zeros(5))]
    for start in (np.r_[b, w] + 1e-3, np.r_[v, u], *rng.normal(size=(4, 5))):
        result = minimize(objective, start, constraints=bound, method="SLSQP", options={"ftol": 1e-12, "maxiter": 300})
        if bound["fun"](result.x).min() >= -1e-9:
            reached.append(result.fun)
    assert len(reached) > 1
    assert lowest <= min(reached) + 1e-7


@given(seed=st.integers(0, 2**31), ratio=st.sampled_from([0.0, 1.0, 10.0]))
@settings(max_examples=15)
def test_many_at_once_equal_one_at_a_time(seed, ratio):
    v, u = vectors(seed, 3, 4, (2, 5))
    v[0, 1] = 0.0
    threshold = 3 * torch.rand(2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    b, w = hierarchical_prox(v, u, threshold, ratio)
    for place in np.ndindex(2, 5):
        one_b, one_w = hierarchical_prox(v[place], u[place], threshold[place], ratio)
        np.testing.assert_allclose(b[place], one_b, rtol=1e-12)
        np.testing.assert_allclose(w[place], one_w, rtol=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_zero_skip_stays_zero_and_switches_its_column_off(threshold):
    b, w = hierarchical_prox(torch.zeros(3), torch.tensor([5.0, -1.0]), torch.tensor(threshold), 10.0)
    assert not b.any()
    assert not w.any()


@pytest.mark.parametrize("path_weights", [None, torch.tensor([[0.0, 0.5, 2.0], [1.0, 1.0, 0.5], [3.0, 0.0, 0.8]])])
def test_penalty_and_prox_of_every_column(make_for, path_weights):
    regularizer = LassoNet(ratio=0.5)
    field = make_for(regularizer, path_weights=path_weights)
    first, skip = (field.weights[k].detach().clone() for k in (0, -1))
    column = np.ones(3) if path_weights is None else path_weights.numpy().mean(0)
    expected = [sum(column[j] * float(torch.linalg.norm(s[:, j])) for j in range(3)) / np.sqrt(3) for s in skip]
    found = regularizer.penalty(field, field.effective_weights()).detach()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    generator = torch.Generator().manual_seed(1)
    steps = [0.1 + torch.rand(w.shape, generator=generator, dtype=torch.float64) for w in field.weights]
    strength = torch.tensor([1.0, 8.0], dtype=torch.float64)
    regularizer.prox(field, field.effective_weights(), strength, steps)
    for n, j in np.ndindex(2, 3):
        step = float(torch.cat([steps[0][n, :, j], steps[-1][n, :, j]]).mean())
        threshold = torch.tensor(float(strength[n]) / np.sqrt(3) * step * column[j]).double()
        b, w = package_prox(skip[n, :, j], first[n, :, j], lambda_=threshold, lambda_bar=0.0, M=0.5)
        np.testing.assert_allclose(field.weights[-1][n, :, j].detach(), b, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(field.weights[0][n, :, j].detach(), w, rtol=1e-6, atol=1e-12)
    off = (field.weights[-1] == 0).all(1)
    assert 0 < off.sum() < 6
    assert ((field.path_matrix(field.effective_weights()) == 0).all(1) == off).all()


@pytest.mark.parametrize("argument", [{"skip": "both"}, {"ratio": -1.0}, {"ratio": float("inf")}], ids=str)
def test_wrong_arguments(argument):
    (name,) = argument
    with pytest.raises(ValueError, match=f"`{name}`.*found {argument[name]!r}"):
        LassoNet(**argument)
