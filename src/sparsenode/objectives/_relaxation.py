"""The part of the field that diffusion balances, which displacements of cells at rest do not show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparsenode.objectives._transport import Transport, count_windows

_LEAST_HALF = 3  # cells on either side that a mean is taken over, at least
_NEGLIGIBLE = 1e-9  # masses below it, relative to the largest of the trajectory, would be lost in running sums
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
        """Order cells by trajectory and time; those of next to no weight take no part."""
        order, half = [], []
        for m in np.unique(trajectory[masses > 0]):
            own = np.flatnonzero(trajectory == m)
            own = own[masses[own] > _NEGLIGIBLE * masses[own].max()]
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
    by_state, by_deviation = (_explained(root * x[rows], target, n_free) for x in (whole, within))
    if by_state <= 0:
        return 0.0
    return float(np.clip((by_deviation / by_state - _MOVING) / (1.0 - _MOVING), 0.0, 1.0))


def _explained(x: np.ndarray, y: np.ndarray, n_free: int) -> float:
    """Mean over the columns of y of the share that a linear regression on x explains, beyond what chance would."""
    left, sizes, _ = np.linalg.svd(x, full_matrices=False)
    left = left[:, sizes > len(x) * np.finfo(float).eps * sizes.max()]
    n_left = n_free - left.shape[1]
    total = np.einsum("ij,ij->j", y, y)
    varies = total > 0
    if n_left <= 0 or not varies.any():
        return 0.0
    explained = np.sum((left.T @ y[:, varies]) ** 2, axis=0) / total[varies]
    return float(np.mean(1.0 - (1.0 - explained) * n_free / n_left))


def regression_within(state: np.ndarray, weight: np.ndarray, means: WindowMeans, regulators: np.ndarray) -> np.ndarray:
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
    """
    covariance = np.zeros((len(regulators), state.shape[1]))
    for rows, deviation in means.deviations(state):
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
