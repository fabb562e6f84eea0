"""Curves through cells from their statistics, against closed forms and scipy's regression splines."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import make_lsq_spline

from sparsenode.objectives import Curves
from sparsenode.objectives import _curves as curves_module
from sparsenode.objectives._statistics import _Accumulator


def statistics(times, weights, x, n_knots):
    """One trajectory."""
    accumulator = _Accumulator(1, n_knots, x.shape[1])
    accumulator.add(0, times, weights, x)
    return accumulator.result(np.zeros(x.shape[1]))


def points(n_knots):
    share = np.array([0.5 - np.sqrt(1 / 12), 0.5 + np.sqrt(1 / 12)])
    return ((np.arange(n_knots - 1)[:, None] + share) / (n_knots - 1)).ravel()


def test_derivatives_of_a_known_curve():
    times = np.linspace(0, 1, 200)
    omega = 9.0
    found = Curves.fit(statistics(times, np.ones(200), 5 + np.sin(omega * times)[:, None], 17))
    at = points(17)
    np.testing.assert_allclose(found.states[0, :, 0], 5 + np.sin(omega * at), atol=2e-3)
    np.testing.assert_allclose(found.slopes[0, :, 0] / omega, np.cos(omega * at), atol=2e-2)
    np.testing.assert_allclose(found.curvatures[0, :, 0] / omega**2, -np.sin(omega * at), atol=1e-1)


def test_it_is_the_least_squares_spline(monkeypatch):
    rng = np.random.default_rng(0)
    times, weights = np.sort(rng.uniform(0, 1, 150)), rng.uniform(0.5, 2.0, 150)
    x = np.column_stack([np.exp(-3 * times), np.sin(5 * times)]) + 0.2 * rng.normal(size=(150, 2))
    monkeypatch.setattr(curves_module, "_ROUGHNESS", 0.0)
    monkeypatch.setattr(curves_module, "_SMOOTH", 1e4)
    found = Curves.fit(statistics(times, weights, x, 8))
    knots = np.concatenate([np.zeros(4), np.linspace(0, 1, 8)[1:-1], np.ones(4)])
    spline = make_lsq_spline(times, x, knots, k=3, w=np.sqrt(weights))
    for values, order in ((found.states, 0), (found.slopes, 1), (found.curvatures, 2)):
        expected = spline(points(8), order)
        np.testing.assert_allclose(values[0], expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_fewer_cells_than_knots():
    times = np.linspace(0, 1, 10)
    found = Curves.fit(statistics(times, np.ones(10), np.column_stack([2 * times, 1 - times]), 33))
    np.testing.assert_allclose(found.slopes[0], np.tile([2.0, -1.0], (64, 1)), atol=1e-6)
    np.testing.assert_allclose(found.curvatures[0], 0.0, atol=1e-5)


@pytest.mark.parametrize("span", [1.0, 2.5])
def test_rate_is_the_frequency_of_an_oscillation(span):
    times = np.linspace(0, 1, 300)
    x = np.column_stack([np.cos(4 * np.pi * times), 3 * np.sin(4 * np.pi * times)])
    found = Curves.fit(statistics(times, np.ones(300), x, 17))
    assert found.rate(np.array([span])) == pytest.approx(4 * np.pi / span, rel=0.01)
