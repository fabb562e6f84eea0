from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score

from sparsenode.objectives import Transport
from sparsenode.objectives._relaxation import regression_within, share_at_rest
from sparsenode.objectives._transport import couple_cells
from sparsenode.objectives._window_means import WindowMeans


def everything(n_cells: int, times: np.ndarray, **settings) -> WindowMeans:
    """Windows of cells of one trajectory that weigh the same."""
    return WindowMeans.arrange(times, np.zeros(n_cells, dtype=int), np.ones(n_cells), Transport(**settings))


def displacements(times: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells that start a pair, and their displacements in units of the standard deviation."""
    pairs = couple_cells(times[:, None], np.ones((len(x), 1)), x, Transport(lags=3))
    moved = pairs.coupling @ x - x[pairs.start]
    return pairs.start, moved / moved.std(0)


@pytest.mark.parametrize("regulators", [None, [0, 2, 3]])
def test_coefficients_are_those_of_a_ridge_regression(regulators):
    """Of every gene on the others, as scikit-learn finds it, with a penalty of a tenth of the variance of each."""
    rng = np.random.default_rng(1)
    n, d = 400, 5
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * [1.0, 2.0, 0.5, 1.0, 3.0]
    means, weight = everything(n, rng.uniform(size=n)), rng.uniform(0.5, 1.5, n)
    deviation = np.empty_like(x)
    for rows, own in means.deviations(x):
        deviation[rows] = own
    chosen = np.arange(d) if regulators is None else np.asarray(regulators)
    found = regression_within(x, weight, means, chosen)
    assert found.shape == (d, len(chosen))
    scale = np.sqrt(np.average(deviation**2, axis=0, weights=weight))
    for target in range(d):
        others = chosen[chosen != target]
        model = Ridge(alpha=0.1 * weight.sum(), fit_intercept=False)
        model.fit(deviation[:, others] / scale[others], deviation[:, target], sample_weight=weight)
        expected = np.zeros(d)
        expected[others] = model.coef_ / scale[others]
        np.testing.assert_allclose(found[target], expected[chosen], atol=1e-9)


def test_at_rest_they_are_edges_of_a_reversible_process():
    """Stationary cells of dx = A x dt + dW with a symmetric A have the covariance -A^-1 / 2: edges of A come back, over its diagonal."""
    rng = np.random.default_rng(2)
    drift = np.diag([-2.0, -1.5, -3.0, -2.0])
    drift[0, 1] = drift[1, 0] = 0.8
    drift[2, 3] = drift[3, 2] = -0.6
    x = rng.multivariate_normal(np.zeros(4), np.linalg.inv(-drift) / 2, 6000)
    found = regression_within(x, np.ones(6000), everything(6000, rng.uniform(size=6000)), np.arange(4))
    expected = -drift / np.diag(drift)[:, None] + np.eye(4)
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_cells_that_move_do_not_rest():
    rng = np.random.default_rng(3)
    times = rng.uniform(size=1500)
    x = np.column_stack([np.sin(3 * times), np.cos(3 * times), times]) + 0.02 * rng.normal(size=(1500, 3))
    start, slope = displacements(times, x)
    assert share_at_rest(slope, np.ones(len(start)), x[start], everything(len(start), times[start])) == 0.0


@pytest.mark.parametrize("n_cells", [24, 34, 60])
def test_few_cells_of_many_genes_that_move_do_not_rest(n_cells):
    """What as many dimensions as cells explain is chance."""
    rng = np.random.default_rng(0)
    times = rng.uniform(size=n_cells)
    x = np.sin(3 * times[:, None] + rng.uniform(0, 6, 30)) + 0.02 * rng.normal(size=(n_cells, 30))
    start, slope = displacements(times, x)
    assert share_at_rest(slope, np.ones(len(start)), x[start], everything(len(start), times[start])) < 0.5


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


def test_the_share_at_rest_is_that_of_a_weighted_regression_within_trajectories():
    """As scikit-learn explains the displacements of each gene, adjusted for the number of variables."""
    rng = np.random.default_rng(5)
    n, trajectory = 500, np.repeat([0, 1], [200, 300])
    times, weight = rng.uniform(size=n), rng.uniform(0.1, 2.0, n)
    x = rng.normal(size=(n, 3)) + np.sin(6 * times[:, None]) + 5.0 * trajectory[:, None]
    means = WindowMeans.arrange(times, trajectory, np.ones(n), Transport())
    deviation = np.empty_like(x)
    for rows, own in means.deviations(x):
        deviation[rows] = own
    slope = -deviation - x + 0.2 * rng.normal(size=(n, 3)) * [1, 2, 3] - 40.0 * trajectory[:, None]
    lineage = np.eye(2)[trajectory]
    shares = []
    for variables in (x, deviation):
        both = np.column_stack([variables, lineage]) if variables is x else variables
        own = slope.copy()
        for m in (0, 1):
            own[trajectory == m] -= np.average(own[trajectory == m], axis=0, weights=weight[trajectory == m])
        predicted = LinearRegression(fit_intercept=False).fit(both, own, sample_weight=weight).predict(both)
        explained = [r2_score(own[:, j], predicted[:, j], sample_weight=weight) for j in range(3)]
        shares.append(np.mean(1 - (1 - np.array(explained)) * 498 / 495))
    ratio = shares[1] / shares[0]
    assert 0.8 < ratio < 0.97
    assert share_at_rest(slope, weight, x, means) == pytest.approx(4 * ratio - 3, abs=1e-3)


def test_what_is_asked_about_rest_stays_as_it_is():
    rng = np.random.default_rng(9)
    slope, x, means = rng.normal(size=(60, 3)), rng.normal(size=(60, 3)), everything(60, rng.uniform(size=60))
    before = slope.copy(), x.copy()
    share_at_rest(slope, np.ones(60), x, means)
    regression_within(x, np.ones(60), means, np.arange(3))
    np.testing.assert_array_equal(slope, before[0])
    np.testing.assert_array_equal(x, before[1])


def test_displacements_that_are_all_alike_tell_nothing():
    rng = np.random.default_rng(6)
    x, means = rng.normal(size=(60, 3)), everything(60, rng.uniform(size=60))
    assert share_at_rest(np.full((60, 3), 2.0), np.ones(60), x, means) == 0.0


def test_constant_genes_have_no_coefficients():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(300, 3))
    x[:, 1] = 2.0
    found = regression_within(x, np.ones(300), everything(300, rng.uniform(size=300)), np.arange(3))
    assert np.isfinite(found).all()
    assert (found[[0, 2], 1] == 0).all()
    assert (found[1] == 0).all()


def test_every_trajectory_costs_a_degree_of_freedom():
    """With many small ones the means that are taken out of them explain much by chance."""
    rng = np.random.default_rng(7)
    trajectory = np.repeat(np.arange(25), 8)
    n = len(trajectory)
    times, ones = rng.uniform(size=n), np.ones(n)
    x = rng.normal(size=(n, 6)) + np.sin(6 * times[:, None])
    means = WindowMeans.arrange(times, trajectory, ones, Transport())
    deviation = np.empty_like(x)
    for rows, own in means.deviations(x):
        deviation[rows] = own
    slope = -0.1 * deviation - x + 4.0 * rng.normal(size=(n, 6))
    centred = [v - np.stack([v[trajectory == m].mean(0) for m in range(25)])[trajectory] for v in (x, slope)]
    shares = []
    for variables in (centred[0], deviation):
        predicted = LinearRegression(fit_intercept=False).fit(variables, centred[1]).predict(variables)
        r2 = r2_score(centred[1], predicted, multioutput="raw_values")
        shares.append(np.mean(1 - (1 - r2) * (n - 25) / (n - 25 - 6)))
    ratio = shares[1] / shares[0]
    assert 0.8 < ratio < 0.98
    assert share_at_rest(slope, ones, x, means) == pytest.approx(4 * ratio - 3, abs=1e-6)
    again = np.column_stack([x, x.sum(1)])  # a dimension that says nothing new costs none
    assert share_at_rest(slope, ones, again, means) == pytest.approx(4 * ratio - 3, abs=1e-6)


@pytest.mark.parametrize("by_chance", [0.4, 1.0])
def test_coefficients_where_order_is_by_chance_are_those_of_other_deviations(by_chance):
    """With all of it, of deviations from the mean of all cells: the ridge regression that scikit-learn finds."""
    rng = np.random.default_rng(8)
    n = 400
    times, weight = rng.uniform(size=n), rng.uniform(0.5, 1.5, n)
    x = rng.normal(size=(n, 3)) @ rng.normal(size=(3, 3)) + 5.0 * np.sin(6 * times[:, None] + [0.0, 1.0, 2.0])
    means = WindowMeans.arrange(times, np.zeros(n, dtype=int), np.ones(n), Transport())
    deviation = np.empty_like(x)
    for rows, own in means.deviations(x):
        deviation[rows] = (1 - by_chance) * own + by_chance * (x[rows] - x.mean(0))
    found = regression_within(x, weight, means, np.arange(3), by_chance)
    gram = (weight[:, None] * deviation).T @ deviation
    for target in range(3):
        others = np.delete(np.arange(3), target)
        among = gram[np.ix_(others, others)]
        expected = np.linalg.solve(among + 0.1 * np.diag(np.diag(among)), gram[others, target])
        np.testing.assert_allclose(found[target, others], expected, atol=1e-9)
