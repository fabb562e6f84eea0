from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicHermiteSpline

from sparsenode.objectives._statistics import N_BINS, CellTable, TrajectoryStatistics, stream


def dense_basis(times, n_knots):
    knots, unit = np.linspace(0, 1, n_knots), np.eye(n_knots)
    zero = np.zeros_like(unit)
    return np.hstack([CubicHermiteSpline(knots, unit, zero)(times), CubicHermiteSpline(knots, zero, unit)(times)])


def dense_statistics(data, mask, n_knots, centre=0.0, x=None):
    """The definitions of :class:`TrajectoryStatistics`, one cell at a time."""
    x = data.x if x is None else x
    n, d = data.cells.weights.shape[1], x.shape[1]
    centre = np.broadcast_to(centre, (n, d))
    gram, cross = np.zeros((n, 2 * n_knots, 2 * n_knots)), np.zeros((n, 2 * n_knots, d))
    square, total, weight = np.zeros((n, d)), np.zeros((n, d)), np.zeros(n)
    for m in range(n):
        for i in np.flatnonzero(mask & (data.cells.weights[:, m] > 0)):
            w, y = data.cells.weights[i, m], x[i] - centre[m]
            h = dense_basis(data.cells.times[i : i + 1, m], n_knots)[0]
            gram[m] += w * np.outer(h, h)
            cross[m] += w * np.outer(h, y)
            square[m] += w * y**2
            total[m] += w * y
            weight[m] += w
    return TrajectoryStatistics(gram, cross, square, weight, total, np.zeros(d))


def assert_close(found, expected, rtol=1e-10, atol=1e-10):
    """Statistics are those of the same cells, whatever was subtracted in their sums."""
    found, expected = (one.centred(np.zeros(one.total.shape)) for one in (found, expected))
    for field in fields(expected):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=field.name)


@pytest.mark.parametrize("n_knots", [2, 5, 17])
@pytest.mark.parametrize("n_trajectories", [1, 3])
def test_stream_agrees_with_the_definitions(make_data, n_knots, n_trajectories):
    data = make_data(n_trajectories=n_trajectories)
    found = data.stream(n_knots)
    assert_close(found.training, dense_statistics(data, data.training, n_knots))
    assert_close(found.validation, dense_statistics(data, data.validation, n_knots))


def test_some_cells_are_in_no_set_and_no_trajectory(data):
    assert (~data.training & ~data.validation).any()
    assert (data.cells.weights.sum(1) == 0).any()


@given(cuts=st.sets(st.integers(1, 59)), seed=st.integers(0, 100))
@settings(deadline=None, max_examples=25)
def test_chunks_do_not_matter(make_data, cuts, seed):
    data = make_data(seed=seed)
    edges = [0, *sorted(cuts), 60]
    whole, parts = data.stream(), data.stream(sizes=np.diff(edges))
    for name in ("training", "validation"):
        assert_close(getattr(parts, name), getattr(whole, name))
    for name in ("initial_state", "bin_weight", "bin_total"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-10, atol=1e-10)
    for a, b in zip(parts.early, whole.early, strict=True):
        np.testing.assert_array_equal(a, b)


def test_initial_state_and_early_cells_are_read_from_the_stream(data):
    found = data.stream(sizes=[25, 35])
    np.testing.assert_allclose(found.initial_state, data.cells.initial_weights.T @ data.x)
    for rows, x in zip(data.cells.early, found.early, strict=True):
        np.testing.assert_array_equal(x, data.x[rows])


def test_bins_hold_the_training_cells(data):
    found = data.stream(sizes=[25, 35])
    for m in range(3):
        chosen = data.training & (data.cells.weights[:, m] > 0)
        w, t = data.cells.weights[chosen, m], data.cells.times[chosen, m]
        expected, _ = np.histogram(t, bins=N_BINS, range=(0, 1), weights=w)
        np.testing.assert_allclose(found.bin_weight[m], expected)
        for j in range(4):
            expected, _ = np.histogram(t, bins=N_BINS, range=(0, 1), weights=w * data.x[chosen, j])
            np.testing.assert_allclose(found.bin_total[m, :, j], expected)


def test_mean_is_the_weighted_mean(data):
    mean = data.stream().training.mean
    for m in range(3):
        w = data.cells.weights[:, m] * data.training
        np.testing.assert_allclose(mean[m], np.average(data.x, axis=0, weights=w))


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("own", [[0], [0, 2], [0, 1, 2]], ids=str)
def test_deviation_is_the_weighted_deviation(data, own, offset):
    x = data.x + offset
    x[:, 1] = 0.1 + offset
    found = data.stream(x=x)
    weights = (data.cells.weights[:, own] * data.training[:, None]).T.ravel()
    expected = np.sqrt(np.cov(np.tile(x, (len(own), 1)).T, aweights=weights, ddof=0).diagonal())
    expected[1] = 0.0
    np.testing.assert_allclose(found.deviation_within(np.array(own)), expected, rtol=1e-6)
    if len(own) == 3:
        expected[1] = 1.0
        np.testing.assert_allclose(found.deviation, expected, rtol=1e-6)


@given(seed=st.integers(0, 2**31), sizes=st.sampled_from([None, [25, 35]]))
@settings(deadline=None, max_examples=10)
def test_complementary_halves_hold_every_training_cell_once(make_data, seed, sizes):
    data, rng = make_data(seed=seed % 7), np.random.default_rng(seed)
    masks = [data.training & (rng.uniform(size=60) < 0.5) for _ in range(2)]
    found = data.stream(sizes=sizes, halves=masks)
    assert len(found.halves) == 4
    expected = [half for mask in masks for half in (mask, data.training & ~mask)]
    for half, mask in zip(found.halves, expected, strict=True):
        assert_close(half, dense_statistics(data, mask, 5))
    for name in ("gram", "cross", "square", "weight", "total"):
        one, other = (getattr(half, name) for half in found.halves[:2])
        np.testing.assert_allclose(one + other, getattr(found.training, name), rtol=1e-10, atol=1e-10)


@given(seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=20)
def test_centred_statistics_are_those_of_centred_data(data, seed):
    centre = np.random.default_rng(seed).normal(size=(3, 4))
    expected = dense_statistics(data, data.training, 5, centre)
    assert_close(data.stream().training.centred(centre), expected)


def quadratic(statistics, y):
    """Squared error of curves with knot values and derivatives ``y``, M × 2K × d."""
    return float(
        np.einsum("mkd,mkl,mld->", y, statistics.gram, y)
        - 2 * np.einsum("mkd,mkd->", y, statistics.cross)
        + statistics.square.sum()
    )


def test_quadratic_form_is_the_weighted_squared_error(data):
    y = np.random.default_rng(0).normal(size=(3, 10, 4))
    expected = 0.0
    for m in range(3):
        chosen = data.validation & (data.cells.weights[:, m] > 0)
        residual = data.x[chosen] - dense_basis(data.cells.times[chosen, m], 5) @ y[m]
        expected += data.cells.weights[chosen, m] @ (residual**2).sum(1)
    assert quadratic(data.stream().validation.centred(np.zeros((3, 4))), y) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("sizes", [None, [1, 59], [20, 20, 20]], ids=str)
def test_a_large_offset_does_not_drown_the_error(data, sizes):
    """The published trap: sums of squares of data far from zero cancel."""
    offset, centre = 1e4, data.stream().training.mean
    y = 0.1 * np.random.default_rng(0).normal(size=(3, 10, 4))
    expected = quadratic(dense_statistics(data, data.training, 5, centre), y)
    far = data.stream(x=data.x + offset, sizes=sizes).training
    assert quadratic(far.centred(far.mean), y) == pytest.approx(expected, rel=1e-6)


def test_a_trajectory_without_held_out_cells_has_zeros(make_data):
    data = make_data()
    data.cells.weights[data.validation, 1] = 0.0
    found = data.stream().validation
    assert found.weight[1] == 0
    assert not found.gram[1].any()
    assert np.isfinite(found.mean).all()


def test_no_cells_is_an_error():
    empty = np.zeros((0, 1))
    table = CellTable(empty, empty, empty, [np.zeros(0, dtype=int)])
    with pytest.raises(ValueError, match="at least one cell"):
        stream([], table, np.zeros(0, dtype=bool), np.zeros(0, dtype=bool), 5, 2)


def test_the_range_is_that_of_the_training_cells(data):
    x = data.x.copy()
    others = np.flatnonzero(~data.training)
    x[others[0]], x[others[1]] = 50.0, -50.0
    expected = x[data.training].min(0), x[data.training].max(0)
    np.testing.assert_array_equal(data.stream(x=x).range, expected)


def test_a_small_variable_beside_a_large_one_is_not_constant(data):
    scale = np.array([1e-4, 1.0, 1.0, 1e4])
    np.testing.assert_allclose(data.stream(x=scale * data.x).deviation, scale * data.stream().deviation, rtol=1e-6)
