from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sparsenode.objectives import Transport, couple_cells
from sparsenode.objectives import _transport as module
from sparsenode.objectives._transport import couple


@pytest.fixture(scope="module")
def line():
    """Cells of two lineages along a line, and of no lineage; times differ between the lineages."""
    rng = np.random.default_rng(0)
    time = rng.uniform(0, 1, 120)
    weights = np.column_stack([rng.uniform(0.5, 2, 120), rng.uniform(0.5, 2, 120)])
    weights[:50, 1] = 0.0
    weights[100:, 0] = 0.0
    weights[:5] = 0.0
    x = np.column_stack([time, rng.normal(size=(120, 2))])
    return np.column_stack([time, time**2]), weights, x


@pytest.mark.parametrize("sizes", [(7, 7), (9, 6)])
def test_coupling_is_the_optimal_one(sizes):
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(sizes[0], 3)), rng.normal(size=(sizes[1], 3))
    plan = couple(first, second)
    np.testing.assert_allclose(plan.sum(1), 1.0)
    np.testing.assert_allclose(plan.sum(0), sizes[0] / sizes[1])  # mass is conserved
    # Cells copied until both sides are equally many make it an assignment problem.
    common = np.lcm(*sizes)
    cost = cdist(np.repeat(first, common // sizes[0], 0), np.repeat(second, common // sizes[1], 0), "sqeuclidean")
    rows, columns = linear_sum_assignment(cost)
    expected = cost[rows, columns].mean()
    assert (plan * cdist(first, second, "sqeuclidean")).sum() / sizes[0] == pytest.approx(expected)


def test_large_windows_are_coupled_entropically(monkeypatch):
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(40, 2)), rng.normal(size=(50, 2)) + 1
    exact = couple(first, second)
    monkeypatch.setattr(module, "MAX_EXACT", 10)
    smooth = couple(first, second)
    np.testing.assert_allclose(smooth.sum(1), 1.0)
    assert np.count_nonzero(smooth) > np.count_nonzero(exact)
    np.testing.assert_allclose(smooth @ second, exact @ second, atol=0.7)
    assert np.corrcoef((smooth @ second).ravel(), (exact @ second).ravel())[0, 1] > 0.95


@given(windows=st.integers(3, 15), lag=st.integers(1, 2))
def test_pairs_follow_the_order_of_every_trajectory(line, windows, lag):
    times, weights, x = line
    pairs = couple_cells(times, weights, x, Transport(windows=windows, lags=lag, min_cells=3))
    assert pairs.coupling.shape == (len(pairs.start), 120)
    np.testing.assert_allclose(pairs.coupling.sum(1), 1.0)
    for m in range(2):
        own = np.flatnonzero(pairs.trajectory == m)
        members = np.flatnonzero(weights[:, m] > 0)
        order = members[np.argsort(times[members, m])]
        rank = np.full(120, -1)
        rank[order] = np.arange(len(order))
        n = min(windows, len(order) // 3)
        window = np.concatenate([np.full(len(w), i) for i, w in enumerate(np.array_split(np.arange(len(order)), n))])
        first, second = pairs.start[own], pairs.coupling[own].tocoo()
        assert (rank[first] >= 0).all()
        assert (window[rank[second.col]] - window[rank[first[second.row]]] == max(1, round(lag * n / windows))).all()
        # Every cell starts one pair, but those of the last windows.
        assert sorted(first) == sorted(order[window < n - max(1, round(lag * n / windows))])
        np.testing.assert_allclose(pairs.duration[own], max(1, round(lag * n / windows)) / n)


def test_several_windows_and_lags_are_combined_once(line):
    times, weights, x = line
    both = couple_cells(times, weights, x, Transport(windows=(6, 12), lags=(1, 2), min_cells=2))
    alone = [
        couple_cells(times, weights, x, Transport(windows=w, lags=lag, min_cells=2)) for w in (6, 12) for lag in (1, 2)
    ]
    assert len(both.start) == sum(len(pairs.start) for pairs in alone)
    assert set(both.kind) == {0, 1, 2, 3}
    # With few cells different wishes come to the same windows and lags, which count once.
    few = couple_cells(times, weights, x, Transport(windows=(60, 61), lags=(2, 3), min_cells=20))
    one = couple_cells(times, weights, x, Transport(windows=60, lags=2, min_cells=20))
    assert len(few.start) == len(one.start)


def test_too_few_cells(line):
    times, weights, x = line
    with pytest.raises(ValueError, match="two windows of 80.*Lower `min_cells`"):
        couple_cells(times, weights, x, Transport(min_cells=80))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"windows": 0}, "`windows`.*found 0"),
        ({"windows": 2.5}, "`windows`.*found 2.5"),
        ({"lags": ()}, "`lags`"),
        ({"lags": (60,)}, "`lags` below the number of windows, found 60 with 60"),
        ({"min_cells": 0}, "`min_cells`.*found 0"),
        ({"n_pcs": 0}, "`n_pcs`"),
        ({"batch_size": 0}, "`batch_size`"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Transport(**settings)
