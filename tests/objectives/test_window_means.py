from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from sparsenode.objectives import Transport
from sparsenode.objectives._window_means import WindowMeans, explained


def everything(n_cells: int, times: np.ndarray, **settings) -> WindowMeans:
    """Windows of cells of one trajectory that weigh the same."""
    return WindowMeans.arrange(times, np.zeros(n_cells, dtype=int), np.ones(n_cells), Transport(**settings))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_deviations_are_from_the_weighted_mean_of_the_cells_around(share):
    rng = np.random.default_rng(0)
    n = 150
    times, masses, x = rng.uniform(size=n), rng.uniform(0.1, 2.0, n), rng.normal(size=(n, 3)) + 50.0
    trajectory = (np.arange(n) >= 60).astype(int)
    masses[::10] = 0.0
    means = WindowMeans.arrange(times, trajectory, masses, Transport(windows=(4, 8), lags=1, min_cells=6))
    found = np.full_like(x, np.nan)
    for rows, deviation in means.deviations(x, share):
        found[rows] = deviation
    for m, n_cells in ((0, 54), (1, 81)):
        own = np.flatnonzero((trajectory == m) & (masses > 0))
        assert len(own) == n_cells
        half = round(n_cells / 8 / 2)
        order = own[np.argsort(times[own])]
        of_all = np.average(x[own], axis=0, weights=masses[own])
        for place, cell in enumerate(order):
            around = order[max(place - half, 0) : place + half + 1]
            of_window = np.average(x[around], axis=0, weights=masses[around])
            np.testing.assert_allclose(found[cell], x[cell] - (1 - share) * of_window - share * of_all)
    assert np.isnan(found[masses == 0]).all()


@pytest.mark.parametrize("n_cells", [1, 2, 11, 13])
def test_a_few_cells_are_one_window_or_two(n_cells):
    x = np.random.default_rng(0).normal(size=(n_cells, 2))
    ((rows, deviation),) = everything(n_cells, np.arange(n_cells)).deviations(x)
    assert len(rows) == n_cells
    if n_cells < 5:
        np.testing.assert_allclose(deviation, x - x.mean(0), atol=1e-12)
    assert np.isfinite(deviation).all()


def test_cells_of_next_to_no_mass_have_no_windows():
    """Fate probabilities that vanish: their running sums would be lost to rounding. Trajectories without cells are left out."""
    rng = np.random.default_rng(0)
    n = 200
    times, x = np.sort(rng.uniform(size=n)), rng.normal(size=(n, 2))
    masses = np.where(times < 0.5, 0.5, 1e-15)
    trajectory = np.where(np.arange(n) < 10, 0, 1)
    masses[trajectory == 0] = 0.0
    means = WindowMeans.arrange(times, trajectory, masses, Transport())
    ((rows, deviation),) = means.deviations(x)
    np.testing.assert_array_equal(rows, np.flatnonzero(masses == 0.5))
    assert np.isfinite(deviation).all()


def test_cells_of_one_time_stay_in_their_order():
    """As Python sorts them: other orders would hang on the machine."""
    times = np.random.default_rng(7).integers(0, 4, 300) / 4
    (order,) = everything(300, times).order
    assert order.tolist() == sorted(range(300), key=times.__getitem__)


def test_what_a_regression_explains():
    """Of the columns that vary, as scikit-learn has it; a column that follows from others counts once."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(50, 3))
    x[:, 2] = x[:, 0] - 2 * x[:, 1]
    y = np.column_stack([x[:, 0] + rng.normal(size=50), np.zeros(50), rng.normal(size=50)])
    shares, rank = explained(x, y)
    assert rank == 2
    predicted = LinearRegression(fit_intercept=False).fit(x, y).predict(x)
    expected = 1 - ((y - predicted) ** 2).sum(0)[[0, 2]] / (y**2).sum(0)[[0, 2]]
    np.testing.assert_allclose(shares, expected)


def test_windows_hold_three_cells_on_either_side_at_least():
    """However small the windows of the coupling are: a mean of fewer is noise."""
    x = np.random.default_rng(0).normal(size=(40, 2))
    means = WindowMeans.arrange(np.arange(40), np.zeros(40, dtype=int), np.ones(40), Transport(windows=20, min_cells=2))
    ((rows, deviation),) = means.deviations(x)
    np.testing.assert_array_equal(rows, np.arange(40))
    for cell in range(40):
        around = x[max(cell - 3, 0) : cell + 4]
        np.testing.assert_allclose(deviation[cell], x[cell] - around.mean(0), atol=1e-12)
