"""Smoothed trajectories against splines of scipy, closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline, make_smoothing_spline

from sparsenode.objectives._collocation import _rough_rows, smooth
from sparsenode.objectives._hermite import hermite_basis
from sparsenode.objectives._statistics import CellTable, stream

N_KNOTS = 33


def _statistics(times, x, weights=None, n_knots=N_KNOTS):
    """Statistics of trajectories given as lists of times and expression."""
    counts = [len(t) for t in times]
    starts = np.cumsum([0, *counts])
    table = np.zeros((starts[-1], len(times)))
    weight = np.zeros_like(table)
    for m, t in enumerate(times):
        rows = slice(starts[m], starts[m + 1])
        table[rows, m], weight[rows, m] = t, 1.0 if weights is None else weights[m]
    initial = weight / weight.sum(0)
    cells = CellTable(table, weight, initial, [np.arange(starts[m], starts[m] + 2) for m in range(len(times))])
    everything, stacked = np.ones(starts[-1], dtype=bool), np.concatenate(x)
    return stream([(0, stacked)], cells, everything, ~everything, n_knots, stacked.shape[1]).training


def roughness(n_knots):
    """Quadratic form of the roughness on ``[0, 1]``, of values and derivatives."""
    rows = _rough_rows(n_knots)
    return rows.T @ rows


def _smooth(statistics):
    """Smoothed trajectories that are all as long."""
    return smooth(statistics, np.ones(len(statistics.weight)))


def test_roughness_is_the_integral_of_the_squared_third_derivative_and_the_jumps():
    rng = np.random.default_rng(0)
    n_knots = 6
    values, slopes = rng.normal(size=(2, n_knots))
    knots = np.linspace(0, 1, n_knots)
    spline, step = CubicHermiteSpline(knots, values, slopes), knots[1]
    middles = knots[:-1] + step / 2
    third = (spline.derivative(3)(middles) ** 2).sum() * step
    second = spline.derivative(2)
    jumps = [second(k + 1e-9) - second(k - 1e-9) for k in knots[1:-1]]
    y = np.concatenate([values, slopes])
    assert y @ roughness(n_knots) @ y == pytest.approx(third + np.square(jumps).sum() / step, rel=1e-5)


def test_exact_curves_give_exact_derivatives():
    """Quadratics cost nothing, and smooth curves without noise are hardly smoothed."""
    t = np.linspace(0, 1, 60)
    knots = np.linspace(0, 1, N_KNOTS)
    found = _smooth(_statistics([t], [np.column_stack([1 + 2 * t - 3 * t**2, np.exp(-3 * t)])]))
    np.testing.assert_allclose(found.states[0, :, 0], 1 + 2 * knots - 3 * knots**2, atol=1e-5)
    np.testing.assert_allclose(found.derivatives[0, :, 0], 2 - 6 * knots, atol=3e-3)
    np.testing.assert_allclose(found.states[0, :, 1], np.exp(-3 * knots), atol=1e-5)
    np.testing.assert_allclose(found.derivatives[0, :, 1], -3 * np.exp(-3 * knots), atol=0.02)


def test_curvatures_and_the_frequency_of_an_oscillation():
    t, omega = np.linspace(0, 1, 200), 9.0
    found = _smooth(_statistics([t], [5 + np.column_stack([np.sin(omega * t), np.cos(omega * t)])]))
    knots = np.linspace(0, 1, N_KNOTS)
    np.testing.assert_allclose(found.curvatures[0, :, 0] / omega**2, -np.sin(omega * knots), atol=0.03)
    np.testing.assert_allclose(found.derivatives[0, :, 1] / omega, -np.sin(omega * knots), atol=0.01)
    assert (found.curvature_precision[0, [0, -1]] < found.curvature_precision[0, 16]).all()
    for span in (1.0, 2.5):
        # Not a whole number of turns, so the spread is not quite that of a circle.
        circle = np.column_stack([np.sin(omega * knots), np.cos(omega * knots)])
        spread = np.square(circle - circle.mean(0)).mean()
        assert found.rate(np.array([span])) == pytest.approx(omega / span * np.sqrt(0.5 / spread), rel=0.01)


def test_fewer_cells_than_knots():
    t = np.linspace(0, 1, 10)
    found = _smooth(_statistics([t], [np.column_stack([2 * t, 1 - t])]))
    np.testing.assert_allclose(found.derivatives[0], np.tile([2.0, -1.0], (N_KNOTS, 1)), atol=1e-3)
    np.testing.assert_allclose(found.curvatures[0], 0.0, atol=0.1)


@pytest.mark.parametrize("origin", [5.0, -30.0, 1000.0])
def test_the_origin_does_not_matter_where_cells_can_be_interpolated(origin):
    """With fewer cells than coefficients next to nothing is left of squared errors, and rounding grows with the values."""
    rng = np.random.default_rng(2)
    times = [np.sort(rng.uniform(0, 1, 12)) for _ in range(3)]
    curves = [np.column_stack([np.exp(-2 * t), np.sin(3 * t), t]) + rng.normal(0, 0.02, (12, 3)) for t in times]
    plain = _smooth(_statistics(times, curves, n_knots=17))
    moved = _smooth(_statistics(times, [x + origin for x in curves], n_knots=17))
    np.testing.assert_allclose(moved.states - origin, plain.states, atol=1e-6)
    np.testing.assert_allclose(moved.derivatives, plain.derivatives, atol=1e-6)
    np.testing.assert_allclose(moved.precision, plain.precision, rtol=1e-6)


def test_the_minimum_is_that_of_the_penalised_error():
    """Against the normal equations of the cells themselves, at the smoothness that brute force finds best."""
    rng = np.random.default_rng(1)
    t = np.sort(rng.uniform(size=80))
    x = np.sin(5 * t)[:, None] + 0.2 * rng.normal(size=(80, 1))
    basis = hermite_basis(t, N_KNOTS).toarray()
    best = (np.inf, None)
    for smoothness in 10.0 ** np.arange(-16.0, 1.1, 0.5):
        inverse = np.linalg.inv(basis.T @ basis + len(t) * (smoothness * roughness(N_KNOTS) + 1e-13 * np.eye(66)))
        hat = basis @ inverse @ basis.T
        score = np.square(x - hat @ x).sum() / (1 - np.trace(hat) / len(t)) ** 2
        if score < best[0]:
            best = (score, inverse @ basis.T @ x, 1 / np.diag(inverse)[N_KNOTS:])
    found = _smooth(_statistics([t], [x]))
    np.testing.assert_allclose(np.concatenate([found.states[0], found.derivatives[0]]), best[1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.precision[0, :, 0], best[2] / best[2].mean(), rtol=1e-4)


@pytest.mark.parametrize("n_knots", [9, 33, 129, 301])
def test_precision_of_curves_that_are_all_but_parabolas_is_that_of_a_regression(n_knots):
    """The strongest smoothing leaves parabolas; rounding must not grow with the number of knots."""
    rng = np.random.default_rng(0)
    times = rng.uniform(size=400)
    times[:2] = 0, 1
    x = (times * (1 - times))[:, None] + rng.normal(0, 1, (400, 40))
    found = _smooth(_statistics([times], [x], n_knots=n_knots))
    flat = np.ptp(found.curvatures[0], axis=0) < 1e-3 * np.abs(found.curvatures[0]).max(0)
    assert flat.any()
    knots = np.linspace(0, 1, n_knots)
    inverse = np.linalg.inv(np.vander(times, 3, increasing=True).T @ np.vander(times, 3, increasing=True))
    slope = np.column_stack([np.zeros(n_knots), np.ones(n_knots), 2 * knots])
    expected = 1 / np.einsum("ki,ij,kj->k", slope, inverse, slope)
    for gene in np.flatnonzero(flat):
        np.testing.assert_allclose(found.precision[0, :, gene], expected / expected.mean(), rtol=0.05)
        np.testing.assert_allclose(found.curvature_precision[0, :, gene], 1.0, rtol=0.05)
        fit = np.polynomial.Polynomial.fit(times, x[:, gene], 2).convert()
        np.testing.assert_allclose(found.states[0, :, gene], fit(knots), atol=1e-2)
        np.testing.assert_allclose(found.derivatives[0, :, gene], fit.deriv()(knots), atol=5e-2)


def test_noise_is_smoothed_as_well_as_by_scipy():
    rng = np.random.default_rng(2)
    t = np.sort(rng.uniform(size=150))
    knots = np.linspace(0, 1, N_KNOTS)[2:-2]
    errors = []
    for _ in range(5):
        x = np.sin(6 * t) + 0.1 * rng.normal(size=150)
        found = _smooth(_statistics([t], [x[:, None]])).derivatives[0, 2:-2, 0]
        other = make_smoothing_spline(t, x).derivative()(knots)
        truth = 6 * np.cos(6 * knots)
        errors.append([np.sqrt(np.square(d - truth).mean()) for d in (found, other)])
    ours, scipys = np.mean(errors, 0)
    assert ours < 1.1 * scipys
    assert ours < 0.6


def test_derivatives_at_the_ends_count_less_and_trajectories_do_not_mix():
    rng = np.random.default_rng(3)
    times = [np.sort(rng.uniform(size=n)) for n in (60, 90)]
    x = [
        np.column_stack([np.cos((m + 2) * t), t**2]) + 0.05 * rng.normal(size=(len(t), 2)) for m, t in enumerate(times)
    ]
    both = _smooth(_statistics(times, x))
    assert both.states.shape == both.derivatives.shape == both.precision.shape == (2, N_KNOTS, 2)
    assert (both.precision[:, [0, -1]] < 0.5 * both.precision[:, [16]]).all()
    np.testing.assert_allclose(both.precision.mean((0, 1)), 1.0)
    truth = np.cos(3 * np.linspace(0, 1, N_KNOTS))
    assert np.abs(both.states[1, :, 0] - truth).max() < 0.1


def test_weights_count_like_repeated_cells():
    rng = np.random.default_rng(4)
    t = np.sort(rng.uniform(size=50))
    x = np.sin(4 * t)[:, None] + 0.1 * rng.normal(size=(50, 1))
    weights = rng.integers(1, 4, 50).astype(float)
    repeated = np.repeat(np.arange(50), weights.astype(int))
    one, other = _smooth(_statistics([t], [x], [weights])), _smooth(_statistics([t[repeated]], [x[repeated]]))
    np.testing.assert_allclose(one.states, other.states, atol=1e-8)


def _roughness_in_time(n_knots, span):
    """Roughness of splines over a time ``span``, with derivatives per share of it, by scipy."""
    knots, step = np.linspace(0, span, n_knots), span / (n_knots - 1)
    units = np.eye(2 * n_knots)
    spline = CubicHermiteSpline(knots, units[:, :n_knots], units[:, n_knots:] / span, axis=1)
    third, second = spline.derivative(3)(knots[:-1] + step / 2), spline.derivative(2)
    jumps = second(knots[1:-1] + 1e-9 * span) - second(knots[1:-1] - 1e-9 * span)
    return step * third @ third.T + jumps @ jumps.T / step


def test_the_smoothness_is_one_for_all_trajectories_in_their_time():
    """Against the normal equations of all cells, with knots at their times, at the smoothness that brute force finds best."""
    rng = np.random.default_rng(5)
    spans, counts = np.array([0.5, 3.0]), (25, 60)
    shares = [np.sort(rng.uniform(size=n)) for n in counts]
    x = [
        np.sin(4 * span * t)[:, None] + 0.1 * rng.normal(size=(len(t), 1))
        for span, t in zip(spans, shares, strict=True)
    ]
    bases = [hermite_basis(t, 9).toarray() for t in shares]
    rough = [_roughness_in_time(9, span) for span in spans]
    unit = np.mean(counts) * np.exp(np.log(spans).mean()) ** 5
    best = (np.inf, None)
    for smoothness in 10.0 ** np.arange(-16.0, 1.1, 0.5):
        error, left, found = 0.0, float(sum(counts)), []
        for basis, own, penalty in zip(bases, x, rough, strict=True):
            inverse = np.linalg.inv(basis.T @ basis + smoothness * unit * penalty + len(own) * 1e-13 * np.eye(18))
            hat = basis @ inverse @ basis.T
            error += np.square(own - hat @ own).sum()
            left -= np.trace(hat)
            found.append(inverse @ basis.T @ own)
        if error / left**2 < best[0]:
            best = (error / left**2, found)
    smoothed = smooth(_statistics(shares, x, n_knots=9), spans)
    for m in range(2):
        ours = np.concatenate([smoothed.states[m], smoothed.derivatives[m]])
        np.testing.assert_allclose(ours, best[1][m], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e4])
def test_a_piece_of_a_trajectory_is_smoothed_like_the_whole(unit):
    """Slopes of short trials among long ones of the same dynamics are as exact as of the long ones, in any unit of time."""
    rng = np.random.default_rng(8)
    spans, knots = np.array([1.0, 6.0]), np.linspace(0, 1, N_KNOTS)
    errors = []
    for _ in range(4):
        times = [np.sort(rng.uniform(size=n)) for n in (50, 300)]
        phases = rng.uniform(0, 6, (2, 5))
        x = [
            np.sin(2 * span * t[:, None] + phase) + 0.1 * rng.normal(size=(len(t), 5))
            for span, t, phase in zip(spans, times, phases, strict=True)
        ]
        found = smooth(_statistics(times, x), spans * unit).derivatives / spans[:, None, None]
        truth = 2 * np.cos(2 * spans[:, None, None] * knots[:, None] + phases[:, None])
        errors.append(np.sqrt(np.square(found - truth).mean((1, 2))))
    short, long = np.mean(errors, 0)
    assert long < 0.3
    assert short < 3 * long  # it has more ends, where slopes are hardly known


def test_a_long_trajectory_among_many_short_ones_is_smoothed_too():
    """The strongest smoothness is one at which the longest trajectory is all but a parabola."""
    rng = np.random.default_rng(9)
    spans = np.array([1.0] * 20 + [1000.0])
    times = [np.sort(rng.uniform(size=60)) for _ in spans]
    x = [span * t[:, None] / 1000 + 0.2 * rng.normal(size=(60, 3)) for span, t in zip(spans, times, strict=True)]
    found = smooth(_statistics(times, x), spans)
    assert np.sqrt(np.square(found.derivatives[-1] - 1.0).mean()) < 0.5
    assert np.isfinite(found.precision).all()


def test_curvatures_do_not_depend_on_the_direction_of_time():
    """At a knot they are the mean of both sides, which are not equal."""
    rng = np.random.default_rng(6)
    t = np.sort(rng.uniform(size=40))
    x = np.sin(6 * t)[:, None] + 0.1 * rng.normal(size=(40, 1))
    forth, back = _smooth(_statistics([t], [x], n_knots=5)), _smooth(_statistics([1 - t], [x], n_knots=5))
    np.testing.assert_allclose(forth.curvatures[0], back.curvatures[0, ::-1], rtol=1e-4)


def test_the_rate_does_not_depend_on_how_far_trajectories_lie_apart():
    t = np.linspace(0, 1, 80)
    x = np.sin(7 * t)[:, None]
    near, far = (_smooth(_statistics([t, t], [x, x + gap], n_knots=9)).rate(np.ones(2)) for gap in (0.0, 10.0))
    assert near == pytest.approx(far, rel=1e-3)


def _statistics_of(t, x, n_knots=33):
    ones, everything = np.ones((len(t), 1)), np.ones(len(t), dtype=bool)
    cells = CellTable(t[:, None], ones, ones / len(t), [np.arange(2)])
    return stream([(0, x)], cells, everything, ~everything, n_knots, x.shape[1]).training


def test_every_variable_is_smoothed_as_if_it_were_alone():
    """A noisy line beside a fast oscillation: one strength for both would fit noise, or nothing."""
    rng = np.random.default_rng(4)
    t = np.sort(rng.uniform(0, 1, 300))
    x = np.column_stack([t + 0.5 * rng.normal(size=300), 100 * np.sin(25 * t) + 0.1 * rng.normal(size=300)])
    together = smooth(_statistics_of(t, x), np.ones(1))
    for variable in range(2):
        alone = smooth(_statistics_of(t, x[:, [variable]]), np.ones(1))
        for name in ("states", "derivatives", "curvatures", "precision", "curvature_precision"):
            found, expected = getattr(together, name)[..., variable], getattr(alone, name)[..., 0]
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
