"""Which cells make up the initial state of a trajectory, and with what weight."""

from __future__ import annotations

from typing import Literal

import numpy as np

from sparsenode.objectives._statistics import MAX_EARLY

InitialState = Literal["kernel", "first", "learned"]
N_FIRST = 5
_ROUNDING = 1e-9


def initial_weights(
    times: np.ndarray, weights: np.ndarray, usable: np.ndarray, method: InitialState, bandwidth: float
) -> np.ndarray:
    """Weight of each cell in the initial state of each trajectory.

    Parameters
    ----------
    times, weights
        Cells × trajectories; times in ``[0, 1]``.
    usable
        Mask over cells, usually the training cells.
    method
        ``"kernel"``: half a Gaussian of the given bandwidth, centred on the start. ``"first"``: the earliest
        cells whose memberships are worth five, the square of their sum over the sum of their squares, with those that tie with the
        last of them. The paper also drops values with a z score of 3 or more, which five values cannot reach.
        ``"learned"``: the cells at the earliest time, where learning starts from.
    bandwidth
        Standard deviation of the kernel, as a share of the trajectory.

    Returns
    -------
    Cells × trajectories; columns sum to one.
    """
    member = weights * usable[:, None]
    if method == "kernel":
        # Relative to the earliest usable cell, so that a narrow kernel cannot vanish everywhere.
        earliest = np.where(member > 0, times, np.inf).min(0)
        beyond = np.maximum(times**2 - earliest**2, 0.0)  # held-out cells may be earlier still
        result = member * np.exp(-0.5 * beyond / bandwidth**2)
    elif method == "learned":
        earliest = np.where(member > 0, times, np.inf).min(0)
        result = member * (times == earliest)
    else:
        result = np.zeros_like(member)
        for m in range(member.shape[1]):
            candidates = np.flatnonzero(member[:, m] > 0)
            candidates = candidates[np.argsort(times[candidates, m], kind="stable")]
            worth = np.cumsum(member[candidates, m]) ** 2 / np.cumsum(member[candidates, m] ** 2)
            enough = np.flatnonzero(worth >= N_FIRST - _ROUNDING)  # a heavy cell after light ones makes it fall again
            last = enough[0] if len(enough) else len(candidates) - 1
            chosen = candidates[times[candidates, m] <= times[candidates[last], m]]
            result[chosen, m] = member[chosen, m]
    return result / result.sum(0)


def early_cells(initial: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Cells to bootstrap from: as many as the weights are worth, drawn with those weights, without replacement."""
    chosen = []
    for column in initial.T:
        candidates = np.flatnonzero(column > 0)
        effective = int(round(1.0 / float((column**2).sum())))
        size = min(max(effective, N_FIRST), MAX_EARLY, len(candidates))
        chosen.append(np.sort(generator.choice(candidates, size, replace=False, p=column[candidates])))
    return chosen
