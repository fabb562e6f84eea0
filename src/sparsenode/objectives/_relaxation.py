"""The part of the field that diffusion balances, which displacements of cells at rest do not show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparsenode.objectives._transport import Transport, count_windows

_LEAST_HALF = 3  # cells on either side that a mean is taken over, at least
_RIDGE = 0.1  # of the regression within windows, relative to the variances
_MOVING = 0.75  # share of what is explained below which cells are taken to move


@dataclass(frozen=True)
class WindowMeans:
    """Weighted means of the cells around each cell in time, in windows as large as those of the coupling.

    Parameters
    ----------
    order
        Cells of every trajectory in the order of time, by position among all values.
    half
        Cells on either side that the mean of each trajectory is taken over, fewer at its ends.
    masses
        Weight of each cell.
    """

    order: list[np.ndarray]
    half: list[int]
    masses: np.ndarray

    @classmethod
    def arrange(
        cls, times: np.ndarray, trajectory: np.ndarray, masses: np.ndarray, transport: Transport
    ) -> WindowMeans:
        """Order cells by trajectory and time; those of weight zero take no part."""
        order, half = [], []
        for m in np.unique(trajectory):
            own = np.flatnonzero((trajectory == m) & (masses > 0))
            n_windows = count_windows(len(own), int(np.max(transport.windows)), transport)
            order.append(own[np.argsort(times[own], kind="stable")])
            half.append(max(_LEAST_HALF, round(len(own) / max(n_windows, 1) / 2)))
        return cls(order, half, masses)

    def deviations(self, values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Cells of each trajectory, and their deviations from the mean of their window."""
        for rows, half in zip(self.order, self.half, strict=True):
            own, mass = values[rows].astype(np.float64), self.masses[rows, None]
            total, sums = (np.concatenate([np.zeros_like(a[:1]), np.cumsum(a, axis=0)]) for a in (mass, mass * own))
            place = np.arange(len(rows))
            first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(rows))
            yield rows, own - (sums[last] - sums[first]) / (total[last] - total[first])


def relax(
    slope: np.ndarray,
    weight: np.ndarray,
    state: np.ndarray,
    embedding: np.ndarray,
    means: WindowMeans,
    regulators: np.ndarray | None,
    strength: float,
    matrix: np.ndarray | None = None,
) -> np.ndarray:
    r"""Add to the displacements what regulators contribute to the drift that diffusion balances, as far as cells rest.

    Parameters
    ----------
    slope
        Displacements per time in units of their deviation, cells × genes, changed in place.
    weight
        Weight of each cell in the regression.
    state
        Standardised expression, cells × genes.
    embedding
        The same in few dimensions, in which displacements are explained.
    means
        Windows of the cells.
    regulators
        Genes that may regulate; all by default.
    strength
        :math:`\lambda` of :class:`Transport`.
    matrix
        What was returned for other cells; by default it is found on these.

    Returns
    -------
    Drift of each gene per deviation of each regulator from the mean of the window, genes × genes.
    """
    if matrix is None:
        at_rest = share_at_rest(slope, weight, embedding, means)
        matrix = strength * at_rest * _coefficients(_covariance(state, weight, means), regulators)
    for rows, deviation in means.deviations(state):
        slope[rows] += deviation @ matrix.T
    return matrix


def share_at_rest(slope: np.ndarray, weight: np.ndarray, embedding: np.ndarray, means: WindowMeans) -> float:
    """How far cells rest, from 0 to 1, where deviations within windows explain displacements as well as states do.

    Parameters
    ----------
    slope, weight, embedding, means
        As in :func:`relax`.
    """
    within, whole, target = np.zeros_like(embedding), embedding.astype(np.float64), slope.astype(np.float64)
    for rows, deviation in means.deviations(embedding):
        within[rows] = deviation
        for values in (whole, target):  # how lineages differ is neither motion nor rest
            values[rows] -= np.average(values[rows], axis=0, weights=weight[rows])
    root = np.sqrt(weight)[:, None]
    by_state, by_deviation = _explained(root * whole, root * target), _explained(root * within, root * target)
    if by_state <= 0:
        return 0.0
    return float(np.clip((by_deviation / by_state - _MOVING) / (1.0 - _MOVING), 0.0, 1.0))


def _explained(x: np.ndarray, y: np.ndarray) -> float:
    """Mean over the columns of y of the share that a linear regression on x explains."""
    total = np.sum(y**2, axis=0)
    left = np.sum((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2, axis=0)
    varies = total > 0
    return float(np.mean(1.0 - left[varies] / total[varies])) if varies.any() else 0.0


def _covariance(state: np.ndarray, weight: np.ndarray, means: WindowMeans) -> np.ndarray:
    """Covariance of genes within windows."""
    total = np.zeros((state.shape[1], state.shape[1]))
    for rows, deviation in means.deviations(state):
        total += (weight[rows, None] * deviation).T @ deviation
    return total / weight.sum()


def _coefficients(covariance: np.ndarray, regulators: np.ndarray | None) -> np.ndarray:
    """Coefficients of a ridge regression of every gene on the other regulators: genes × genes, zero on the diagonal."""
    n = len(covariance)
    chosen = np.arange(n) if regulators is None else regulators
    variance = np.diag(covariance)
    varies = chosen[variance[chosen] > 0]
    result = np.zeros((n, n))
    among = covariance[np.ix_(varies, varies)] + _RIDGE * np.diag(variance[varies])
    precision = np.linalg.inv(among)
    result[:, varies] = covariance[:, varies] @ precision
    # Of a regulator on the others: rows of the precision over its diagonal.
    result[np.ix_(varies, varies)] = -precision / np.diag(precision)[:, None]
    np.fill_diagonal(result, 0.0)
    return result
