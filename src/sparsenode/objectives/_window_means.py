"""Means of the cells around each cell in time, and what such means or deviations from them explain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparsenode.objectives._transport import Transport, count_windows

_LEAST_HALF = 3  # cells on either side that a mean is taken over, at least
_NEGLIGIBLE = 1e-9  # masses below it, relative to the largest of the trajectory, would be lost in running sums


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

    def wider(self, times: int) -> WindowMeans:
        """The same cells with windows so many times as large."""
        return WindowMeans(self.order, [times * half for half in self.half], self.masses)

    def deviations(self, values: np.ndarray, share: float = 0.0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Cells of each trajectory, and their deviations from a mean that lies a share of the way from that of their window to that of all."""
        for rows, half in zip(self.order, self.half, strict=True):
            own, mass = values[rows].astype(np.float64), self.masses[rows, None]
            total, sums = (np.concatenate([np.zeros_like(a[:1]), np.cumsum(a, axis=0)]) for a in (mass, mass * own))
            place = np.arange(len(rows))
            first, last = np.maximum(place - half, 0), np.minimum(place + half + 1, len(rows))
            of_window, of_all = (sums[last] - sums[first]) / (total[last] - total[first]), sums[-1] / total[-1]
            yield rows, own - of_window - share * (of_all - of_window)


def explained(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, int]:
    """Share of each column of y, of those that vary, which a linear regression on x explains, and the rank of x."""
    left, sizes, _ = np.linalg.svd(x, full_matrices=False)
    left = left[:, sizes > len(x) * np.finfo(float).eps * sizes.max()]
    total = np.einsum("ij,ij->j", y, y)
    varies = total > 0
    return np.sum((left.T @ y[:, varies]) ** 2, axis=0) / total[varies], left.shape[1]
