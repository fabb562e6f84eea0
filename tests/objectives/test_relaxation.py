from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from sparsenode.objectives import Transport, WindowMeans, couple_cells, relax
from sparsenode.objectives._relaxation import share_at_rest


def everything(n_cells: int, times: np.ndarray, **settings) -> WindowMeans:
    """Windows of cells of one trajectory that weigh the same."""
    return WindowMeans.arrange(times, np.zeros(n_cells, dtype=int), np.ones(n_cells), Transport(**settings))


def displacements(times: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells that start a pair, and their displacements in units of the standard deviation."""
    pairs = couple_cells(times[:, None], np.ones((len(x), 1)), x, Transport(lags=3))
    moved = pairs.coupling @ x - x[pairs.start]
    return pairs.start, moved / moved.std(0)


def test_deviations_are_from_the_weighted_mean_of_the_cells_around():
    rng = np.random.default_rng(0)
    n = 150
    times, masses, x = rng.uniform(size=n), rng.uniform(0.1, 2.0, n), rng.normal(size=(n, 3)) + 50.0
    trajectory = (np.arange(n) >= 60).astype(int)
    masses[::10] = 0.0
    means = WindowMeans.arrange(times, trajectory, masses, Transport(windows=(4, 8), lags=1, min_cells=6))
    found = np.full_like(x, np.nan)
    for rows, deviation in means.deviations(x):
        found[rows] = deviation
    for m, n_cells in ((0, 54), (1, 81)):
        own = np.flatnonzero((trajectory == m) & (masses > 0))
        assert len(own) == n_cells
        half = round(n_cells / 8 / 2)
        order = own[np.argsort(times[own])]
        for place, cell in enumerate(order):
            around = order[max(place - half, 0) : place + half + 1]
            np.testing.assert_allclose(found[cell], x[cell] - np.average(x[around], axis=0, weights=masses[around]))
    assert np.isnan(found[masses == 0]).all()


@pytest.mark.parametrize("n_cells", [1, 2, 11, 13])
def test_a_few_cells_are_one_window_or_two(n_cells):
    x = np.random.default_rng(0).normal(size=(n_cells, 2))
    ((rows, deviation),) = everything(n_cells, np.arange(n_cells)).deviations(x)
    assert len(rows) == n_cells
    if n_cells < 5:
        np.testing.assert_allclose(deviation, x - x.mean(0), atol=1e-12)
    assert np.isfinite(deviation).all()


@pytest.mark.parametrize("regulators", [None, [0, 2, 3]])
def test_the_drift_is_that_of_a_ridge_regression(regulators):
    """Of every gene on the others, as scikit-learn finds it, with a penalty of a tenth of the variance of each."""
    rng = np.random.default_rng(1)
    n, d = 400, 5
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * [1.0, 2.0, 0.5, 1.0, 3.0]
    means, weight = everything(n, rng.uniform(size=n)), rng.uniform(0.5, 1.5, n)
    deviation = np.empty_like(x)
    for rows, own in means.deviations(x):
        deviation[rows] = own
    slope = deviation + 0.01 * rng.normal(size=(n, d))  # cells rest, if their displacements come from deviations
    before = slope.copy()
    chosen = None if regulators is None else np.asarray(regulators)
    matrix = relax(slope, weight, x, x, means, chosen, 0.3)
    np.testing.assert_allclose(slope - before, deviation @ matrix.T, atol=1e-12)
    scale = np.sqrt(np.average(deviation**2, axis=0, weights=weight))
    for target in range(d):
        others = [gene for gene in regulators or range(d) if gene != target]
        model = Ridge(alpha=0.1 * weight.sum(), fit_intercept=False)
        model.fit(deviation[:, others] / scale[others], deviation[:, target], sample_weight=weight)
        expected = np.zeros(d)
        expected[others] = model.coef_ / scale[others]
        np.testing.assert_allclose(matrix[target], 0.3 * expected, atol=1e-9)


def test_at_rest_it_is_the_drift_of_a_reversible_process():
    """Stationary cells of dx = A x dt + dW with a symmetric A have the covariance -A^-1 / 2: edges of A come back, over its diagonal."""
    rng = np.random.default_rng(2)
    drift = -2.0 * np.eye(4)
    drift[0, 1] = drift[1, 0] = 0.8
    drift[2, 3] = drift[3, 2] = -0.6
    x = rng.multivariate_normal(np.zeros(4), np.linalg.inv(-drift) / 2, 6000)
    times = rng.uniform(size=6000)
    start, slope = displacements(times, x)
    means = everything(len(start), times[start])
    at_rest = share_at_rest(slope, np.ones(len(start)), x[start], means)
    assert at_rest > 0.6  # less than 1 by chance, as windows of few cells have other means than their distribution
    matrix = relax(slope, np.ones(len(start)), x[start], x[start], means, None, 1.0)
    np.testing.assert_allclose(matrix / at_rest, drift / 2.0 + np.eye(4), atol=0.06)


def test_cells_that_move_are_left_alone():
    rng = np.random.default_rng(3)
    times = rng.uniform(size=1500)
    x = np.column_stack([np.sin(3 * times), np.cos(3 * times), times]) + 0.02 * rng.normal(size=(1500, 3))
    start, slope = displacements(times, x)
    means, weight = everything(len(start), times[start]), np.ones(len(start))
    assert share_at_rest(slope, weight, x[start], means) == 0.0
    before = slope.copy()
    matrix = relax(slope, weight, x[start], x[start], means, None, 0.8)
    assert (matrix == 0).all()
    np.testing.assert_array_equal(slope, before)


def test_the_share_at_rest_grows_as_cells_slow_down():
    """From motion to rest, with any scale of the displacements."""
    rng = np.random.default_rng(4)
    times, noise = rng.uniform(size=6000), rng.normal(size=(6000, 3))
    shares = []
    for amplitude in (10.0, 4.0, 2.0, 0.0):
        x = amplitude * np.sin(6 * times[:, None] + [0.0, 1.0, 2.0]) + noise
        start, slope = displacements(times, x)
        means, weight = everything(len(start), times[start]), rng.uniform(0.5, 1.5, len(start))
        shares.append(share_at_rest(slope, weight, x[start], means))
        assert share_at_rest(100.0 * slope + 7.0, weight, x[start], means) == pytest.approx(shares[-1], abs=1e-6)
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] > 0.6


def test_the_drift_of_other_cells_is_that_of_the_first():
    rng = np.random.default_rng(5)
    x, slope, matrix = rng.normal(size=(40, 3)), rng.normal(size=(40, 3)), rng.normal(size=(3, 3))
    before, means = slope.copy(), everything(40, rng.uniform(size=40))
    assert relax(slope, np.ones(40), x, x, means, None, 0.8, matrix) is matrix
    for rows, deviation in means.deviations(x):
        np.testing.assert_allclose(slope[rows] - before[rows], deviation @ matrix.T)


def test_constant_genes_neither_drift_nor_regulate():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(300, 3))
    x[:, 1] = 2.0
    means = everything(300, rng.uniform(size=300))
    slope = x - x.mean(0)
    matrix = relax(slope, np.ones(300), x, x, means, None, 0.8)
    assert np.isfinite(matrix).all()
    assert (matrix[[0, 2], 1] == 0).all()
    assert (matrix[1] == 0).all()
    assert (slope[:, 1] == 0).all()
