from __future__ import annotations

import numpy as np
import pytest

from sparsenode.objectives._local import local_weights
from sparsenode.objectives._nulls import BANDWIDTH, NullModels
from sparsenode.objectives._statistics import CellTable, stream

LINEAGES = [0, 1, 0]


def at_the_end(times, weights, usable):
    """Weights of the cells in values and slopes at the ends of the trajectories."""
    pairs = (("last", 0), ("last_slope", 1))
    return {name: local_weights(times, weights, usable, 1.0, order, 1, BANDWIDTH) for name, order in pairs}


@pytest.fixture(scope="module")
def cells():
    """Three trajectories of two lineages: times, weights, expression."""
    rng = np.random.default_rng(0)
    n = 400
    times, weights = rng.uniform(0, 1, (n, 3)), rng.uniform(0.1, 2, (n, 3))
    batch = rng.integers(0, 2, n)
    weights[batch == 0, 2] = 0.0
    weights[batch == 1, 0] = 0.0
    x = np.column_stack([np.sin(5 * times[:, 0]), np.exp(-times[:, 1]), 3 + times[:, 2] ** 2])
    return times, weights, x + 0.3 * rng.normal(size=x.shape)


@pytest.fixture(scope="module")
def training():
    return np.random.default_rng(1).uniform(size=400) < 0.8


@pytest.fixture(scope="module")
def nulls(cells, training):
    times, weights, x = cells
    table = CellTable(
        times, weights, weights / weights.sum(0), [np.arange(5)] * 3, at_the_end(times, weights, training)
    )
    return NullModels.fit(stream([(0, x)], table, training, ~training, 5, 3), LINEAGES, 2)


def test_the_kernel_is_a_twentieth_of_a_trajectory_wide():
    """Reported scores of null models depend on it."""
    assert BANDWIDTH == 0.05


def pooled(cells, training, lineage):
    times, weights, x = cells
    columns = np.flatnonzero(np.array(LINEAGES) == lineage)
    t = np.concatenate([times[training, m] for m in columns])
    w = np.concatenate([weights[training, m] for m in columns])
    return t, w, np.concatenate([x[training]] * len(columns))


@pytest.mark.parametrize("lineage", [0, 1])
def test_mean_is_that_of_the_lineage_in_all_batches(nulls, cells, training, lineage):
    _, w, x = pooled(cells, training, lineage)
    np.testing.assert_allclose(nulls.mean[lineage], w @ x / w.sum(), rtol=1e-10)


@pytest.mark.parametrize("lineage", [0, 1])
def test_smoothed_curve_is_a_kernel_mean_of_the_cells(nulls, cells, training, lineage):
    t, w, x = pooled(cells, training, lineage)
    at = np.array([0.0, 0.013, 0.2, 0.5, 0.777, 1.0])
    kernel = w * np.exp(-0.5 * ((at[:, None] - t) / BANDWIDTH) ** 2)
    expected = kernel @ x / kernel.sum(1, keepdims=True)
    found = nulls.predict(lineage, at, np.zeros(3))["null_smoothed"]
    np.testing.assert_allclose(found, expected, atol=1e-2 * x.std(0).min())


@pytest.mark.parametrize("lineage", [0, 1])
def test_trajectories_are_pooled_on_the_clock_of_their_lineage(cells, training, lineage):
    """One of them saw the first two fifths, another began after a quarter."""
    times, weights, x = cells
    clocks = np.array([[0.0, 0.4], [0.0, 1.0], [0.25, 1.0]])
    edges = at_the_end(times, weights, training)
    table = CellTable(times, weights, weights / weights.sum(0), [np.arange(5)] * 3, edges)
    found = NullModels.fit(stream([(0, x)], table, training, ~training, 5, 3), LINEAGES, 2, clocks)
    _, w, stacked = pooled(cells, training, lineage)
    columns = np.flatnonzero(np.array(LINEAGES) == lineage)
    t = np.concatenate([clocks[m, 0] + np.ptp(clocks[m]) * times[training, m] for m in columns])
    at = np.array([0.013, 0.2, 0.4, 0.777, 0.99])
    kernel = w * np.exp(-0.5 * ((at[:, None] - t) / BANDWIDTH) ** 2)
    smoothed = found.predict(lineage, at, np.zeros(3))["null_smoothed"]
    np.testing.assert_allclose(smoothed, kernel @ stacked / kernel.sum(1, keepdims=True), atol=1e-2 * x.std(0).min())
    np.testing.assert_allclose(found.mean[lineage], w @ stacked / w.sum(), rtol=1e-10)


def test_predictions_of_all_null_models(nulls):
    initial = np.array([1.0, 2.0, 3.0])
    found = nulls.predict(1, np.array([0.1, 0.9]), initial)
    assert tuple(found) == ("null_zero", "null_initial", "null_mean", "null_smoothed")
    for prediction in found.values():
        np.broadcast_to(prediction, (2, 3))
    assert not found["null_zero"].any()
    np.testing.assert_array_equal(found["null_initial"], initial)
    np.testing.assert_array_equal(found["null_mean"], nulls.mean[1])


def test_prediction_is_continuous_and_flat_beyond_the_ends(nulls):
    at = np.linspace(-0.5, 1.5, 2001)
    curve = nulls.predict(0, at, np.zeros(3))["null_smoothed"]
    assert np.abs(np.diff(curve, axis=0)).max() < 0.02
    np.testing.assert_array_equal(curve[at < 0], np.broadcast_to(curve[0], (int((at < 0).sum()), 3)))
    np.testing.assert_array_equal(curve[at > 1], np.broadcast_to(curve[-1], (int((at > 1).sum()), 3)))


def test_a_gap_wider_than_the_kernel_is_bridged():
    times = np.concatenate([np.linspace(0, 0.1, 20), np.linspace(0.9, 1, 20)])[:, None]
    x = np.where(times < 0.5, 1.0, 3.0)
    everything, ones = np.ones(40, dtype=bool), np.ones_like(times)
    table = CellTable(times, ones, ones / 40, [np.arange(5)], at_the_end(times, ones, everything))
    nulls = NullModels.fit(stream([(0, x)], table, everything, ~everything, 5, 1), [0], 1)
    found = nulls.predict(0, np.array([0.05, 0.5, 0.95]), np.zeros(1))["null_smoothed"]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[[0, 2], 0], [1.0, 3.0], atol=1e-6)
    assert 1.0 <= found[1, 0] <= 3.0


@pytest.mark.parametrize("trajectory", [0, 1, 2])
def test_forecasts_go_on_from_the_end_of_each_trajectory(nulls, cells, training, trajectory):
    times, weights, x = cells
    kernel = weights[:, trajectory] * training * np.exp(-0.5 * ((times[:, trajectory] - 1) / BANDWIDTH) ** 2)
    slope, last = np.polyfit(times[:, trajectory] - 1, x, 1, w=np.sqrt(kernel))
    found = nulls.forecast(trajectory, np.array([1.0, 1.5, 3.0]))
    assert list(found) == ["null_persistence", "null_linear", "null_mean"]
    np.testing.assert_allclose(found["null_persistence"], last, rtol=1e-8)
    np.testing.assert_allclose(found["null_linear"], last + np.array([[0.0], [0.5], [2.0]]) * slope, rtol=1e-7)
    own = weights[:, trajectory] * training
    np.testing.assert_allclose(found["null_mean"], own @ x / own.sum(), rtol=1e-10)
