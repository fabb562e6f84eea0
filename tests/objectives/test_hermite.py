from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicHermiteSpline

from sparsenode.objectives._hermite import hermite_basis

knots_and_times = st.tuples(
    st.integers(2, 40), st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 2**31)
)


@given(knots_and_times)
@settings(deadline=None, max_examples=60)
def test_hermite_basis_agrees_with_scipy(case):
    n_knots, times, seed = case
    rng = np.random.default_rng(seed)
    values, slopes = rng.normal(size=(2, n_knots, 3))
    basis = hermite_basis(np.array(times), n_knots)
    assert basis.shape == (len(times), 2 * n_knots)
    expected = CubicHermiteSpline(np.linspace(0, 1, n_knots), values, slopes)(times)
    np.testing.assert_allclose(basis @ np.vstack([values, slopes]), expected, rtol=1e-9, atol=1e-9)


@given(knots_and_times)
@settings(deadline=None, max_examples=60)
def test_hermite_basis_rows(case):
    n_knots, times, _ = case
    dense = hermite_basis(np.array(times), n_knots).toarray()
    assert ((dense != 0).sum(1) <= 4).all()
    np.testing.assert_allclose(dense[:, :n_knots].sum(1), 1.0, atol=1e-12)


@given(knots_and_times)
@settings(deadline=None, max_examples=60)
def test_hermite_basis_is_exact_for_cubics(case):
    n_knots, times, seed = case
    cubic = np.polynomial.Polynomial(np.random.default_rng(seed).normal(size=4))
    knots = np.linspace(0, 1, n_knots)
    found = hermite_basis(np.array(times), n_knots) @ np.concatenate([cubic(knots), cubic.deriv()(knots)])
    np.testing.assert_allclose(found, cubic(np.array(times)), atol=1e-10)


def test_hermite_basis_returns_the_knots_themselves():
    basis = hermite_basis(np.linspace(0, 1, 17), 17).toarray()
    np.testing.assert_allclose(basis, np.eye(17, 34), atol=1e-12)
