"""Motion that the cells of a window share and their states do not explain, as where pseudotime orders cells by chance."""

from __future__ import annotations

import numpy as np

from sparsenode.objectives._window_means import WindowMeans, explained

_WIDER = 5  # times the windows of the coupling, whose means are noisy
# From where on pseudotime tells states apart, and up to where states explain how windows move: each from not at all to in full.
_APART = (0.5, 0.7)
_EXPLAINED = (0.6, 0.25)


def share_by_chance(slope: np.ndarray, weight: np.ndarray, embedding: np.ndarray, means: WindowMeans) -> float:
    """How far the order of the cells is one of chance, from 0 to 1: windows hold states of their own, but these do not say where they move.

    Parameters
    ----------
    slope
        Displacements per time, cells × genes.
    weight
        Weight of each cell in the regression.
    embedding
        State of each cell in few dimensions, cells × dimensions.
    means
        Windows of the cells; five times as large ones are compared.
    """
    means, rows = means.wider(_WIDER), np.concatenate(means.order)
    root = np.sqrt(weight[rows])[:, None]
    (state, of_windows), (_, motion) = (
        (root * part[rows] for part in _parts(v, weight, means)) for v in (embedding, slope)
    )
    total = np.einsum("ij,ij->j", state, state)
    varies = total > 0
    shares, _ = explained(of_windows, motion)
    if not varies.any() or len(shares) == 0:
        return 0.0
    apart = np.mean(np.einsum("ij,ij->j", of_windows, of_windows)[varies] / total[varies])
    sizes = np.repeat([2 * half + 1 for half in means.half], [len(own) for own in means.order])
    by_few = np.average(1.0 / sizes, weights=weight[rows])  # windows of a few cells differ without any order
    apart = (apart - by_few) / (1.0 - by_few)
    by_each = (
        np.clip((value - none) / (full - none), 0.0, 1.0)
        for value, (none, full) in ((apart, _APART), (np.mean(shares), _EXPLAINED))
    )
    return float(np.prod(list(by_each)))


def take_out(slope: np.ndarray, weight: np.ndarray, means: WindowMeans, share: float) -> None:
    """Move displacements by a share of the way from the mean of their window to that of their trajectory, in place."""
    for rows, deviation in means.deviations(slope):
        own = slope[rows]
        slope[rows] = own + share * (deviation + np.average(own, axis=0, weights=weight[rows]) - own)


def _parts(values: np.ndarray, weight: np.ndarray, means: WindowMeans) -> tuple[np.ndarray, np.ndarray]:
    """Values less the mean of their trajectory, and means of their windows less it."""
    whole, of_windows = values.astype(np.float64), np.zeros(values.shape)
    for rows, deviation in means.deviations(values):
        whole[rows] -= np.average(whole[rows], axis=0, weights=weight[rows])
        of_windows[rows] = whole[rows] - deviation
    return whole, of_windows
