"""Trivial predictors that every fit is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsenode.objectives._statistics import N_BINS, StreamedData

BANDWIDTH = 0.05


@dataclass(frozen=True)
class NullModels:
    """Null models learned from the training cells of each lineage, all batches pooled.

    Parameters
    ----------
    mean
        Mean expression, lineages × variables.
    smoothed
        Kernel-smoothed expression at the centres of equal bins of the lineage's clock, lineages × bins × variables.
    trajectory_mean, last, last_slope
        Mean of every trajectory, its value at its end and its slope there per unit of its length, both by local linear
        regression: trajectories × variables.
    """

    mean: np.ndarray
    smoothed: np.ndarray
    trajectory_mean: np.ndarray
    last: np.ndarray
    last_slope: np.ndarray

    @classmethod
    def fit(
        cls, data: StreamedData, lineages: Sequence[int], n_lineages: int, clocks: np.ndarray | None = None
    ) -> NullModels:
        """Pool the trajectories of each lineage.

        Parameters
        ----------
        data
            Result of the streaming pass.
        lineages
            Lineage of each trajectory.
        n_lineages
            Number of lineages.
        clocks
            First and last time of each trajectory on the clock of its lineage, which goes from 0 to 1: trajectories × 2. By default
            each is stretched to all of it.
        """
        clocks = np.tile([0.0, 1.0], (len(lineages), 1)) if clocks is None else clocks
        pooled = (
            _smooth(data, np.flatnonzero(np.asarray(lineages) == lineage), clocks) for lineage in range(n_lineages)
        )
        mean, smoothed = map(np.stack, zip(*pooled, strict=True))
        last, last_slope = data.edges["last"], data.edges["last_slope"]
        return cls(mean, smoothed, data.training.mean, last, last_slope)

    def forecast(self, trajectory: int, times: np.ndarray) -> dict[str, np.ndarray]:
        """Predictions for cells of one of the training trajectories, beyond its end.

        Parameters
        ----------
        trajectory
            Index of the trajectory.
        times
            Times of the cells in units of the trajectory, n.

        Returns
        -------
        Arrays that broadcast to n × d, by name.
        """
        beyond = np.asarray(times)[:, None] - 1.0
        return {
            "null_persistence": self.last[trajectory],
            "null_linear": self.last[trajectory] + beyond * self.last_slope[trajectory],
            "null_mean": self.trajectory_mean[trajectory],
        }

    def predict(self, lineage: int, times: np.ndarray, initial_state: np.ndarray) -> dict[str, np.ndarray]:
        """Predictions of every null model for cells of one lineage.

        Parameters
        ----------
        lineage
            Index of the lineage.
        times
            Times of the cells on the clock of the lineage, n.
        initial_state
            Initial state of the cells' own trajectory, d.

        Returns
        -------
        Arrays that broadcast to n × d, by name.
        """
        position = np.clip(np.asarray(times) * N_BINS - 0.5, 0.0, N_BINS - 1.0)
        left = np.minimum(position.astype(np.int64), N_BINS - 2)
        share = (position - left)[:, None]
        curve = self.smoothed[lineage]
        return {
            "null_zero": np.zeros_like(initial_state),
            "null_initial": initial_state,
            "null_mean": self.mean[lineage],
            "null_smoothed": (1 - share) * curve[left] + share * curve[left + 1],
        }


def _smooth(data: StreamedData, trajectories: np.ndarray, clocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of some trajectories, variables, and their kernel-smoothed expression, bins × variables."""
    centres = (np.arange(N_BINS) + 0.5) / N_BINS
    weight, total = np.zeros(N_BINS), np.zeros((N_BINS, data.bin_total.shape[2]))
    for clock in np.unique(clocks[trajectories], axis=0):
        same = trajectories[(clocks[trajectories] == clock).all(1)]
        places = clock[0] + (clock[1] - clock[0]) * centres
        kernel = np.exp(-0.5 * ((centres[:, None] - places) / BANDWIDTH) ** 2)
        weight += kernel @ data.bin_weight[same].sum(0)
        total += kernel @ data.bin_total[same].sum(0)
    mean = data.bin_total[trajectories].sum((0, 1)) / data.bin_weight[trajectories].sum()
    # Far from every cell all kernel weights vanish: fall back on the mean there.
    floor = np.finfo(float).tiny
    return mean, (total + floor * mean) / (weight + floor)[:, None]
