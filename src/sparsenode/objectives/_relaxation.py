"""The part of the field that diffusion balances, which displacements of cells at rest do not show."""

from __future__ import annotations

import numpy as np

from sparsenode.objectives._window_means import WindowMeans, explained

_RIDGE = 0.1  # of the regression within windows, relative to the variances
_MOVING = 0.75  # share of what is explained below which cells are taken to move


def share_at_rest(slope: np.ndarray, weight: np.ndarray, embedding: np.ndarray, means: WindowMeans) -> float:
    """How far cells rest, from 0 to 1, where deviations within windows explain displacements as well as states do.

    Parameters
    ----------
    slope
        Displacements per time, cells × genes.
    weight
        Weight of each cell in the regression.
    embedding
        State of each cell in few dimensions, cells × dimensions.
    means
        Windows of the cells.
    """
    within, whole, target = np.zeros_like(embedding), embedding.astype(np.float64), slope.astype(np.float64)
    for rows, deviation in means.deviations(embedding):
        within[rows] = deviation
        for values in (whole, target):  # how lineages differ is neither motion nor rest
            values[rows] -= np.average(values[rows], axis=0, weights=weight[rows])
    rows = np.concatenate(means.order)
    root = np.sqrt(weight[rows])[:, None]
    target = root * target[rows]
    n_free = len(rows) - len(means.order)
    by_state, by_deviation = (_beyond_chance(root * x[rows], target, n_free) for x in (whole, within))
    if by_state <= 0:
        return 0.0
    return float(np.clip((by_deviation / by_state - _MOVING) / (1.0 - _MOVING), 0.0, 1.0))


def _beyond_chance(x: np.ndarray, y: np.ndarray, n_free: int) -> float:
    """Mean over the columns of y of the share that a linear regression on x explains, beyond what chance would."""
    shares, rank = explained(x, y)
    n_left = n_free - rank
    return float(np.mean(1.0 - (1.0 - shares) * n_free / n_left)) if n_left > 0 and len(shares) else 0.0


def regression_within(
    state: np.ndarray, weight: np.ndarray, means: WindowMeans, regulators: np.ndarray, by_chance: float = 0.0
) -> np.ndarray:
    """Coefficients of a ridge regression of every gene on the other regulators within windows: genes × regulators.

    Parameters
    ----------
    state
        Standardised expression, cells × genes.
    weight
        Weight of each cell in the regression.
    means
        Windows of the cells.
    regulators
        Genes that may regulate.
    by_chance
        How far windows are those of an order by chance, from 0 to 1: deviations are from the mean of the trajectory so far.
    """
    covariance = np.zeros((len(regulators), state.shape[1]))
    for rows, deviation in means.deviations(state, by_chance):
        covariance += (weight[rows, None] * deviation[:, regulators]).T @ deviation
    covariance /= weight.sum()
    among = covariance[:, regulators]
    variance = np.diag(among)
    varies = np.flatnonzero(variance > 0)
    precision = np.linalg.inv((among + _RIDGE * np.diag(variance))[np.ix_(varies, varies)])
    result = np.zeros((state.shape[1], len(regulators)))
    result[:, varies] = covariance[varies].T @ precision
    # Of a regulator on the others: rows of the precision over its diagonal.
    result[np.ix_(regulators[varies], varies)] = -precision / np.diag(precision)[:, None]
    result[regulators, np.arange(len(regulators))] = 0.0
    return result
