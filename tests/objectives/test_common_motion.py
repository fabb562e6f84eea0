from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from sparsenode.objectives import Transport
from sparsenode.objectives._common_motion import share_by_chance, take_out
from sparsenode.objectives._transport import couple_cells
from sparsenode.objectives._window_means import WindowMeans

N_CELLS = 1500


def everything(n_cells: int, times: np.ndarray) -> WindowMeans:
    """Windows of cells of one trajectory that weigh the same."""
    return WindowMeans.arrange(times, np.zeros(n_cells, dtype=int), np.ones(n_cells), Transport())


def chance(times: np.ndarray, x: np.ndarray) -> float:
    """The share by chance of cells, coupled by the defaults of transport."""
    pairs = couple_cells(times[:, None], np.ones((len(x), 1)), x, Transport(lags=3))
    moved = pairs.coupling @ x - x[pairs.start]
    return share_by_chance(moved, np.ones(len(moved)), x[pairs.start], everything(len(moved), times[pairs.start]))


def test_cells_at_rest_that_are_ordered_by_how_they_scatter():
    """Along the only way that they scatter much, where the order of their windows is one of chance throughout."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N_CELLS, 1)) * [3.0, -2.0, 2.5] + 0.5 * rng.normal(size=(N_CELLS, 3))
    assert 0.8 < chance(x @ [3.0, -2.0, 2.5], x) <= 1.0


def test_cells_at_rest_in_an_order_of_their_own():
    """Windows then hold the same states, and nothing is known of how they move."""
    rng = np.random.default_rng(1)
    assert chance(rng.uniform(size=N_CELLS), rng.normal(size=(N_CELLS, 3))) == 0.0


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.4])
def test_cells_that_follow_an_equation(noise):
    """A spiral: where cells are says how they move, though windows hold states of their own."""
    rng = np.random.default_rng(2)
    times = rng.uniform(size=N_CELLS)
    radius = np.exp(-times)
    x = np.column_stack([radius * np.sin(6 * times), radius * np.cos(6 * times)]) + noise * rng.normal(
        size=(N_CELLS, 2)
    )
    assert chance(times, x) == 0.0


def test_it_is_that_of_a_regression_between_windows():
    """As scikit-learn explains the means of windows of a twelfth of the cells, less those of trajectories, by weighted regression."""
    rng = np.random.default_rng(3)
    n, trajectory, half = 1320, np.repeat([0, 1], [600, 720]), np.array([25, 30])
    times, weight = rng.uniform(size=n), rng.uniform(0.1, 2.0, n)
    x = np.sin(6 * times[:, None] + [0.0, 1.0, 3.0]) + 0.5 * rng.normal(size=(n, 3)) + 5.0 * trajectory[:, None]
    drift = np.sin(18 * times)[:, None] * [0.8, -0.6, 0.9]
    slope = drift - 0.4 * x + 0.5 * rng.normal(size=(n, 3)) - 40.0 * trajectory[:, None]
    means = WindowMeans.arrange(times, trajectory, np.ones(n), Transport())
    parts = []
    for values in (x, slope):
        whole, of_windows = np.empty_like(values), np.empty_like(values)
        for m in (0, 1):
            own = np.flatnonzero(trajectory == m)
            own = own[np.argsort(times[own])]
            whole[own] = values[own] - np.average(values[own], axis=0, weights=weight[own])
            for place, cell in enumerate(own):
                of_windows[cell] = whole[own[max(place - half[m], 0) : place + half[m] + 1]].mean(0)
        parts.append((whole, of_windows))
    (state, states), (_, motion) = parts
    predicted = LinearRegression(fit_intercept=False).fit(states, motion, sample_weight=weight).predict(states)
    explained = np.mean(1 - (weight @ (motion - predicted) ** 2) / (weight @ motion**2))
    by_few = np.average(1 / (2 * half + 1)[trajectory], weights=weight)
    apart = (np.mean((weight @ states**2) / (weight @ state**2)) - by_few) / (1 - by_few)
    assert 0.25 < explained < 0.6
    assert 0.5 < apart < 0.7
    expected = (apart - 0.5) / 0.2 * (0.6 - explained) / 0.35
    assert share_by_chance(slope, weight, x, means) == pytest.approx(expected, rel=1e-9)
    assert share_by_chance(1e3 * slope - 7.0, weight, 1e-3 * x + 2.0, means) == pytest.approx(expected)
    # What does not vary does not count.
    slope, x = (np.column_stack([values, np.zeros(n)]) for values in (slope, x))
    assert share_by_chance(slope, weight, x, means) == pytest.approx(expected, rel=1e-9)


def test_what_does_not_vary_tells_nothing():
    rng = np.random.default_rng(4)
    x, means = rng.normal(size=(60, 3)), everything(60, rng.uniform(size=60))
    assert share_by_chance(np.full((60, 3), 2.0), np.ones(60), x, means) == 0.0
    assert share_by_chance(x, np.ones(60), np.full((60, 3), 2.0), means) == 0.0


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_windows_move_like_their_trajectory(share):
    """By a share of the way, each cell as it differs from its window before; others stay."""
    rng = np.random.default_rng(5)
    n, trajectory = 300, np.repeat([0, 1], [120, 180])
    times, weight, masses = rng.uniform(size=n), rng.uniform(0.1, 2.0, n), rng.uniform(0.5, 1.0, n)
    weight[::7] = masses[::7] = 0.0
    slope = rng.normal(size=(n, 2)) + np.sin(6 * times)[:, None] + 3.0 * trajectory[:, None]
    means = WindowMeans.arrange(times, trajectory, masses, Transport())
    found = slope.copy()
    take_out(found, weight, means, share)
    np.testing.assert_array_equal(found[weight == 0], slope[weight == 0])
    for rows, deviation in means.deviations(slope):
        of_window = slope[rows] - deviation
        of_trajectory = np.average(slope[rows], axis=0, weights=weight[rows])
        np.testing.assert_allclose(found[rows], slope[rows] - share * (of_window - of_trajectory))
