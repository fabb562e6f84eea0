"""The collocation objective: smoothed trajectories and their derivatives, from the streamed statistics alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsenode.objectives._statistics import TrajectoryStatistics

# Smoothness in powers of ten, relative to the mean number of cells of a trajectory; the best one of every variable is chosen.
_LOWEST, _HIGHEST, _STEP = -16.0, 1.0, 0.5
_RIDGE = 1e-13  # keeps the normal equations regular where a trajectory has gaps, relative to the mean weight of a knot
_LEFT = 1e-4  # share of degrees of freedom that residuals keep; with fewer, where cells can be interpolated, they are rounding


@dataclass(frozen=True)
class SmoothedTrajectories:
    """Penalised regression splines through the cells of every trajectory.

    Parameters
    ----------
    states, derivatives, curvatures
        Values and the first two derivatives at the knots, per length of the trajectory: trajectories × knots × variables.
    precision, curvature_precision
        Inverse variances of the derivatives up to a factor for each variable, of mean one: trajectories × knots ×
        variables. They are small at the ends, where derivatives are hardly determined.
    """

    states: np.ndarray
    derivatives: np.ndarray
    curvatures: np.ndarray
    precision: np.ndarray
    curvature_precision: np.ndarray

    def rate(self, spans: np.ndarray) -> float:
        """How fast trajectories move in the unit of ``spans``: the size of their velocities over that of their deviations.

        It is the angular frequency of an oscillation.

        Parameters
        ----------
        spans
            Length of each trajectory.
        """
        moved = np.square(self.derivatives / spans[:, None, None]).mean()
        deviated = np.square(self.states - self.states.mean(1, keepdims=True)).mean()
        return float(np.sqrt(moved / deviated))


def smooth(statistics: TrajectoryStatistics, spans: np.ndarray) -> SmoothedTrajectories:
    r"""Smooth every trajectory with the strength that generalised cross-validation chooses for each variable.

    Minimises the squared error of all cells plus :math:`\mu \sum_m \int \dddot{y}_m^2`, with jumps of the second derivative
    at the knots penalised alike, over the cubic Hermite splines at the knots. Integrals are over time, not over shares of
    a trajectory: one dynamics is equally smooth in short trajectories and in long ones. The third derivative rather than
    the second, since the second is not small where a trajectory starts: penalising it biases the derivatives there.

    Parameters
    ----------
    statistics
        Statistics of the cells, uncentred.
    spans
        Length of each trajectory, in any unit of time.

    References
    ----------
    Craven and Wahba (1979), *Smoothing noisy data with spline functions*, Numerische Mathematik 31; Ramsay and Silverman
    (2005), *Functional data analysis*, chapter 5.
    """
    mean = statistics.mean
    statistics = statistics.centred(mean)
    gram, cross = statistics.gram, statistics.cross
    n_trajectories, size, n_vars = cross.shape
    data = _data_rows(gram, statistics.weight)
    relative = spans / np.exp(np.log(spans).mean())
    unit = statistics.weight.mean() * relative**-5.0  # third derivatives per time, squared and integrated
    # Up to where the longest one is all but a parabola.
    grid = 10.0 ** np.arange(_LOWEST, _HIGHEST + 5.0 * np.log10(relative.max()) + 0.1, _STEP)
    error = np.empty((len(grid), n_vars))
    for index, smoothness in enumerate(grid):
        root = _inverse_root(data, smoothness * unit)
        solution = root @ (root.mT @ cross)
        fit = (solution * (gram @ solution - 2.0 * cross)).sum((0, 1)) + statistics.square.sum(0)
        freedom = (root * (gram @ root)).sum()
        left = 1.0 - freedom / statistics.weight.sum()
        error[index] = np.maximum(fit, 0.0) / left**2 if left > _LEFT else np.inf
    chosen = error.argmin(0)
    n_knots, second = size // 2, _second_derivative(size // 2)
    solution, variance = np.empty_like(cross), np.empty((2, n_trajectories, n_knots, n_vars))
    for index in np.unique(chosen):
        own = chosen == index
        root = _inverse_root(data, grid[index] * unit)
        solution[:, :, own] = root @ (root.mT @ cross[:, :, own])
        variance[0][:, :, own] = np.square(root[:, n_knots:]).sum(2, keepdims=True)
        variance[1][:, :, own] = np.square(second @ root).sum(2, keepdims=True)
    precision = 1.0 / np.maximum(variance, np.finfo(float).tiny)
    precision /= precision.mean((1, 2), keepdims=True)
    states, derivatives = solution[:, :n_knots] + mean[:, None], solution[:, n_knots:]
    return SmoothedTrajectories(states, derivatives, second @ solution, *precision)


def _rough_rows(n_knots: int) -> np.ndarray:
    """What is squared in the roughness of a cubic Hermite spline on ``[0, 1]``: third derivatives and jumps of the second, of values and slopes."""
    step = 1.0 / (n_knots - 1)
    left, right = _second_derivatives(n_knots)
    return np.concatenate([right - left, left[1:] - right[:-1]]) / np.sqrt(step)


def _second_derivative(n_knots: int) -> np.ndarray:
    """Second derivative at the knots, the mean of both sides: K × 2K."""
    left, right = _second_derivatives(n_knots)
    ends = np.concatenate([left, right[-1:]]), np.concatenate([left[:1], right])
    return 0.5 * (ends[0] + ends[1])


def _second_derivatives(n_knots: int) -> tuple[np.ndarray, np.ndarray]:
    """Second derivatives at the left and at the right end of every interval, intervals × 2K each."""
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
    return left, right


def _data_rows(gram: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What is squared in the error and in the ridge, trajectories × 2K × 2K."""
    return np.linalg.cholesky(gram + _RIDGE * weight[:, None, None] * np.eye(gram.shape[1])).mT


def _inverse_root(data: np.ndarray, smoothness: np.ndarray) -> np.ndarray:
    """Matrices whose products with their transposes are the inverses of the penalised normal equations, trajectories × 2K × 2K.

    From equations that are not squared: with many knots and a strong penalty, the normal equations lose all digits.
    """
    penalty = np.sqrt(smoothness)[:, None, None] * _rough_rows(data.shape[1] // 2)
    return np.linalg.inv(np.linalg.qr(np.concatenate([data, penalty], axis=1), mode="r"))
