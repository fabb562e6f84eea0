"""The transport objective: displacements between coupled cells of windows that follow one another in pseudotime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ot
from scipy import sparse

MAX_EXACT = 1000  # cells in a window up to which the coupling is exact
_REGULARIZATION = 0.05  # of the entropic coupling, as a share of the mean cost


@dataclass(frozen=True)
class Transport:
    r"""Regress the displacement of cells to later cells, coupled by optimal transport, on the state they start from.

    The cells of every trajectory are ordered by pseudotime and cut into windows of equal size. A window is coupled with
    the window ``lag`` places later by optimal transport of squared distances, and the displacement over that lag,

    .. math:: \frac{x' - x}{\Delta t} \approx f(x), \qquad \Delta t = \frac{\text{lag}}{\text{windows}} \, T,

    is regressed on the state at the start of the pair, never in between, which would bias the network. :math:`T` is the
    length of the trajectory: a lag counts cells, not pseudotime, whose local speed is arbitrary. Pairs of all lags and window
    numbers are pooled, weighted by the inverse of the variance of their displacements.

    Parameters
    ----------
    windows
        Number of windows, or several numbers that are combined.
    lags
        Windows from the start to the end of a pair; all of them are combined. What matters is the share of the trajectory,
        ``lag / windows``: 1/30 to 1/15 did well throughout, 1/10 loses the order of long chains.
    min_cells
        Fewest cells in a window. Trajectories with fewer than ``windows * min_cells`` cells have fewer windows, and lags that
        span the same share.
    n_pcs
        Cells are coupled in this many principal components of the standardised genes, where there are more genes than that.
    batch_size
        Pairs in a step.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Windows of up to 1000 cells are coupled exactly, larger ones with an entropic penalty of 0.05 times the mean cost; a
    cell that is coupled with several ones moves to their mean. All pairs are held in memory, lags × cells × genes
    twice. Use it to infer networks; for forecasts the trajectory objective is made. It learns from where cells lie relative to
    later ones, so do not use it with a pseudotime whose order you do not trust, or on expression that was imputed.

    References
    ----------
    Schiebinger, Shu, Tabaka, Cleary and others (2019), *Optimal-transport analysis of single-cell gene expression identifies
    developmental trajectories in reprogramming*, Cell 176; couplings by POT, Flamary and others (2021), JMLR 22.
    """

    windows: int | Sequence[int] = 60
    lags: int | Sequence[int] = (2, 3, 4)
    min_cells: int = 6
    n_pcs: int = 30
    batch_size: int = 128

    def __post_init__(self) -> None:
        for name in ("windows", "lags"):
            values = np.atleast_1d(getattr(self, name))
            if values.ndim != 1 or len(values) == 0 or values.dtype.kind not in "iu" or (values < 1).any():
                raise ValueError(
                    f"Expected `{name}` to be a positive integer or several, found {getattr(self, name)!r}."
                )
        if np.max(self.lags) >= np.min(self.windows):
            raise ValueError(
                f"Expected `lags` below the number of windows, found {np.max(self.lags)} with {np.min(self.windows)}."
            )
        for name in ("min_cells", "n_pcs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"Expected `{name}` to be at least 1, found {getattr(self, name)!r}.")


@dataclass(frozen=True)
class Pairs:
    """Coupled cells.

    Parameters
    ----------
    start
        Cell that a pair starts from, n.
    coupling
        Shares of the cells that it moves to, n × cells, rows sum to one.
    duration
        Time from start to end in units of the trajectory's length, n.
    trajectory
        Trajectory of the pair, n.
    kind
        Index of its combination of window number and lag, n.
    """

    start: np.ndarray
    coupling: sparse.csr_array
    duration: np.ndarray
    trajectory: np.ndarray
    kind: np.ndarray


def couple_cells(times: np.ndarray, weights: np.ndarray, embedding: np.ndarray, transport: Transport) -> Pairs:
    """Couple the cells of all trajectories.

    Parameters
    ----------
    times
        Time of each cell in each trajectory, cells × trajectories.
    weights
        Weight of each cell in each trajectory; cells of weight zero take no part.
    embedding
        Coordinates in which distances are measured, cells × dimensions.
    transport
        Windows and lags.

    Raises
    ------
    ValueError
        If no trajectory has cells enough for two windows.
    """
    starts, blocks, durations, trajectories, kinds = [], [], [], [], []
    combinations = [(w, lag) for w in np.atleast_1d(transport.windows) for lag in np.atleast_1d(transport.lags)]
    for m in range(times.shape[1]):
        members = np.flatnonzero(weights[:, m] > 0)
        order = members[np.argsort(times[members, m], kind="stable")]
        done = set()
        for index, (wanted, wanted_lag) in enumerate(combinations):
            n_windows = int(min(wanted, len(order) // transport.min_cells))
            lag = max(1, round(int(wanted_lag) * n_windows / int(wanted)))
            if n_windows <= lag or (n_windows, lag) in done:
                continue
            done.add((n_windows, lag))
            windows = np.array_split(order, n_windows)
            for first, second in zip(windows[:-lag], windows[lag:], strict=True):
                plan = couple(embedding[first], embedding[second])
                row, column = np.nonzero(plan)
                shape = (len(first), len(times))
                blocks.append(sparse.csr_array((plan[row, column], (row, second[column])), shape=shape))
                starts.append(first)
                durations.append(np.full(len(first), lag / n_windows))
                trajectories.append(np.full(len(first), m))
                kinds.append(np.full(len(first), index))
    if not starts:
        raise ValueError(
            f"Expected a trajectory with cells for at least two windows of {transport.min_cells}, found none. Lower "
            "`min_cells`, or use the trajectory objective."
        )
    coupling = sparse.csr_array(sparse.vstack(blocks))
    start, duration, trajectory, kind = map(np.concatenate, (starts, durations, trajectories, kinds))
    return Pairs(start, coupling, duration, trajectory, kind)


def couple(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Optimal transport plan between two sets of cells of equal weights; rows sum to one.

    Parameters
    ----------
    first, second
        Cells × dimensions.
    """
    cost = ot.dist(first, second)
    mass = [np.full(n, 1.0 / n) for n in cost.shape]
    if max(cost.shape) <= MAX_EXACT:
        plan = ot.emd(*mass, cost)
    else:
        plan = ot.sinkhorn(*mass, cost, _REGULARIZATION * cost.mean(), method="sinkhorn_log")
        plan[plan < 1e-3 * plan.max(1, keepdims=True)] = 0.0
    return plan / plan.sum(1, keepdims=True)
