"""The collocation objective: smoothed trajectories and their derivatives, from the streamed statistics alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsenode.objectives._statistics import TrajectoryStatistics

# Smoothness, relative to the number of cells; the best one of every variable is chosen.
_GRID = 10.0 ** np.arange(-16.0, 1.1, 0.5)
_RIDGE = 1e-13  # keeps the normal equations regular where a trajectory has gaps, relative to the mean weight of a knot


@dataclass(frozen=True)
class SmoothedTrajectories:
    """Penalised regression splines through the cells of every trajectory.

    Parameters
    ----------
    states, derivatives
        Values and derivatives at the knots, per length of the trajectory: trajectories × knots × variables.
    precision
        Inverse variance of the derivatives up to a factor for each variable, of mean one: trajectories × knots ×
        variables. It is small at the ends, where derivatives are hardly determined.
    """

    states: np.ndarray
    derivatives: np.ndarray
    precision: np.ndarray


def smooth(statistics: TrajectoryStatistics) -> SmoothedTrajectories:
    r"""Smooth every trajectory with the strength that generalised cross-validation chooses for each variable.

    Minimises the squared error plus :math:`\mu \int \dddot{y}^2`, with jumps of the second derivative at the knots
    penalised alike, over the cubic Hermite splines at the knots. The third derivative rather than the second, since the
    second is not small where a trajectory starts: penalising it biases the derivatives there.

    Parameters
    ----------
    statistics
        Statistics of the cells.

    References
    ----------
    Craven and Wahba (1979), *Smoothing noisy data with spline functions*, Numerische Mathematik 31; Ramsay and Silverman
    (2005), *Functional data analysis*, chapter 5.
    """
    gram, cross = statistics.gram, statistics.cross
    n_trajectories, size, n_vars = cross.shape
    penalty = roughness(size // 2)
    error = np.empty((len(_GRID), n_vars))
    for index, smoothness in enumerate(_GRID):
        inverse = _inverse(gram, statistics.weight, smoothness, penalty)
        solution = inverse @ cross
        fit = (solution * (gram @ solution - 2.0 * cross)).sum((0, 1)) + statistics.square.sum(0)
        freedom = np.einsum("mij,mji->", inverse, gram)
        left = 1.0 - freedom / statistics.weight.sum()
        error[index] = np.maximum(fit, 0.0) / left**2 if left > 1e-6 else np.inf
    chosen = error.argmin(0)
    solution, variance = np.empty_like(cross), np.empty((n_trajectories, size // 2, n_vars))
    for index in np.unique(chosen):
        own = chosen == index
        inverse = _inverse(gram, statistics.weight, _GRID[index], penalty)
        solution[:, :, own] = inverse @ cross[:, :, own]
        variance[:, :, own] = np.diagonal(inverse, axis1=1, axis2=2)[:, size // 2 :, None]
    precision = 1.0 / variance
    return SmoothedTrajectories(
        solution[:, : size // 2], solution[:, size // 2 :], precision / precision.mean((0, 1), keepdims=True)
    )


def roughness(n_knots: int) -> np.ndarray:
    """Quadratic form of the roughness of a cubic Hermite spline on ``[0, 1]``, 2K × 2K for values and derivatives."""
    step, n = 1.0 / (n_knots - 1), n_knots - 1
    left, right = np.zeros((2, n, 2 * n_knots))
    rows = np.arange(n)
    columns = (rows, rows + 1, n_knots + rows, n_knots + rows + 1)
    for column, start, end in zip(
        columns,
        (-6.0 / step**2, 6.0 / step**2, -4.0 / step, -2.0 / step),
        (6.0 / step**2, -6.0 / step**2, 2.0 / step, 4.0 / step),
        strict=True,
    ):
        left[rows, column], right[rows, column] = start, end
    third = (right - left) / step
    jump = left[1:] - right[:-1]
    return step * third.T @ third + jump.T @ jump / step


def _inverse(gram: np.ndarray, weight: np.ndarray, smoothness: float, penalty: np.ndarray) -> np.ndarray:
    """Inverse of the penalised normal equations of every trajectory."""
    size = len(penalty)
    total = weight[:, None, None]
    return np.linalg.inv(gram + total * (smoothness * penalty + _RIDGE * np.eye(size)))
