"""Smooth curves through the cells of trajectories, and their first two derivatives, from the statistics alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsenode.objectives._statistics import TrajectoryStatistics

_GAUSS = np.array([0.5 - np.sqrt(1 / 12), 0.5 + np.sqrt(1 / 12)])  # points in each interval between knots
_SMOOTH, _ROUGHNESS = 1.0, 1e-5  # penalties on jumps of the second derivative, and on the second derivative


@dataclass(frozen=True)
class Curves:
    """Curves of M trajectories at P times in d variables.

    Parameters
    ----------
    states
        Values, M × P × d.
    slopes, curvatures
        First and second derivatives per length of the trajectory, M × P × d.
    """

    states: np.ndarray
    slopes: np.ndarray
    curvatures: np.ndarray

    @classmethod
    def fit(cls, statistics: TrajectoryStatistics) -> Curves:
        """Cubic regression splines: the least-squares curves whose first two derivatives are continuous.

        The Hermite basis of the statistics is continuous in the first derivative; jumps of the second are penalised
        until they vanish. A small penalty on the second derivative decides where there are fewer cells than knots.

        Parameters
        ----------
        statistics
            Of the training cells, uncentred.
        """
        mean = statistics.mean
        centred = statistics.centred(mean)
        n_knots = centred.gram.shape[1] // 2
        left, right = (_second(n_knots, u) for u in (0.0, 1.0))
        jumps = left[1:] - right[:-1]
        penalty = _SMOOTH * jumps.T @ jumps + _ROUGHNESS * (left.T @ left + right.T @ right)
        weight = centred.weight[:, None, None]
        knots = np.linalg.solve(centred.gram / weight + penalty, centred.cross / weight)
        step = 1.0 / (n_knots - 1)
        points = [np.stack([basis(n_knots, u) for u in _GAUSS], 1) for basis in (_value, _first, _second)]
        values, first, second = (p.reshape(-1, 2 * n_knots) @ knots for p in points)
        return cls(values + mean[:, None, :], first / step, second / step**2)

    def rate(self, spans: np.ndarray) -> float:
        """How fast trajectories move in the unit of ``spans``: the size of their velocities over that of their deviations.

        It is the angular frequency of an oscillation.

        Parameters
        ----------
        spans
            Length of each trajectory.
        """
        moved = np.square(self.slopes / spans[:, None, None]).mean()
        deviated = np.square(self.states - self.states.mean(1, keepdims=True)).mean()
        return float(np.sqrt(moved / deviated))


def _rows(n_knots: int, coefficients: list[float]) -> np.ndarray:
    """A row per interval: coefficients of the values at its ends, then of the derivatives per interval."""
    result = np.zeros((n_knots - 1, 2 * n_knots))
    rows, step = np.arange(n_knots - 1), 1.0 / (n_knots - 1)
    for place, coefficient in zip((0, 1, n_knots, n_knots + 1), coefficients, strict=True):
        result[rows, place + rows] = coefficient if place < 2 else step * coefficient
    return result


def _value(n_knots: int, u: float) -> np.ndarray:
    """Values at the share ``u`` of every interval between knots, as in :func:`~sparsenode.module._solve.hermite_basis`."""
    return _rows(n_knots, [(1 + 2 * u) * (1 - u) ** 2, u**2 * (3 - 2 * u), u * (1 - u) ** 2, u**2 * (u - 1)])


def _first(n_knots: int, u: float) -> np.ndarray:
    """First derivatives per interval."""
    return _rows(n_knots, [6 * u * (u - 1), 6 * u * (1 - u), (1 - u) * (1 - 3 * u), u * (3 * u - 2)])


def _second(n_knots: int, u: float) -> np.ndarray:
    """Second derivatives per squared interval."""
    return _rows(n_knots, [12 * u - 6, 6 - 12 * u, 6 * u - 4, 6 * u - 2])
