"""The transport objective: displacements between coupled cells of windows that follow one another in pseudotime."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ot
from scipy import sparse

from sparsenode import _checks

MAX_TOGETHER = 200  # cells of a window that are coupled together; those of larger ones in parts
_NEGLIGIBLE = 1e-3  # shares of a cell's mass below it are dropped, relative to its largest
_CONSTANT = 1e-12  # variance of a constant, relative to the largest
_LEAST_KEPT = 0.01  # share of the variance that is taken for signal where there seems to be less
_TOGETHER = 100_000  # entries of plans that are solved for at a time, few enough for a processor's cache
_TOLERANCE = 1e-4  # of masses, in the norm
_MAX_ITERATIONS = 100  # of Sinkhorn's algorithm: rows are normalised afterwards, so it need not converge fully


@dataclass(frozen=True)
class Transport:
    r"""Regress the displacement of cells to later cells, coupled by optimal transport, on the state they start from.

    **Windows and coupling.** The cells of every trajectory are ordered by pseudotime and cut into overlapping windows of equal numbers of
    cells. Entropic optimal transport of squared distances couples each window with the one ``lag`` places later. Memberships are the masses
    of cells: a cell that belongs to a lineage by a tenth receives a tenth.

    **Displacement.** A cell :math:`x` moves to :math:`\bar x'`, the mean of the cells that it is coupled with in all windows that contain
    it. Its displacement

    .. math:: \frac{\bar x' - x}{\Delta t} \approx f(x), \qquad \Delta t = \frac{\text{lag}}{\text{windows}} \, T,

    is regressed on the state at the start, since one in between would bias the network. :math:`T` is the length of the trajectory: a lag
    counts cells, not pseudotime, whose local speed is arbitrary. The displacements of a cell over all lags and window numbers are averaged,
    weighted by the inverse of their variance.

    **Ridge.** Measurement noise picks at random among co-expressed regulators. Squared effects are therefore penalised in proportion to the
    noise, in addition to the paths, with every regularizer that penalises paths:

    .. math:: \frac{\rho}{d} \, \frac{1 - r}{r} \sum_{ij} B_{ij} A_{ij}^2,

    where :math:`A` is the path matrix in standard deviations, :math:`B` are the path weights, :math:`d` is the number of genes, and
    :math:`r` is the share of the regulators' variance that cells keep on their way to the cells they are coupled with.

    **Cells at rest.** Transport sees how the density :math:`p` of cells moves, but not what keeps it in place. Where cells rest, the field
    balances diffusion, :math:`f = \tfrac{1}{2} D \nabla \log p`, and displacements are chance. Within a window :math:`p` is about normal,
    and this field draws a gene to what a regression on the other regulators predicts. Their contribution is added to the displacement,

    .. math:: \lambda \sqrt{\frac{1000}{n}} \, r \, q \sum_{j \neq i} \beta_{ij} u_j, \qquad
        q = \min \bigl( 1, \max ( 0, 4 \varrho - 3 ) \bigr),

    with one rate for all genes, where

    - :math:`u` is the deviation of a cell from the mean of the window around it, and :math:`\beta` are coefficients of a ridge regression
      on such deviations,
    - :math:`n` is the number of cells: with more of them, less of the displacements is chance,
    - :math:`\varrho` is the share of the displacements within trajectories that deviations explain, relative to what states do. Below 0.75
      nothing is added.

    Noise that is larger than the motion within a lag looks like rest, but then :math:`r` is smaller. A single lineage of a few hundred
    cells at rest looks like motion.

    **An order by chance.** A pseudotime that was computed from expression orders cells even where they rest, along whatever direction they
    happen to scatter. All cells of a window then seem to move alike, though nothing drives them. The symptom is that windows differ in
    their states, but the states do not predict how windows move. Displacements :math:`y` are then moved from the mean :math:`\bar y_w` of
    the window around the cell towards that of the trajectory, :math:`y - \theta (\bar y_w - \bar y)`, by the share

    .. math:: \theta = \min \bigl( 1, \max ( 0, \tfrac{s - 0.5}{0.2} ) \bigr) \,
        \min \bigl( 1, \max ( 0, \tfrac{0.6 - R^2}{0.35} ) \bigr),

    where

    - :math:`s = (s_0 - c) / (1 - c)`, where :math:`s_0` is the share of the variance of states within trajectories that lies between
      windows, and :math:`c` the share that so few cells have by chance: one over the number of cells of a window,
    - :math:`R^2` is the share of the variance of :math:`\bar y_w` that a linear regression on the mean states of windows explains,
    - both are means over dimensions, for windows five times as large as those of the coupling.

    This comes before the correction for cells at rest, whose deviations :math:`u` are then from a mean that lies the share :math:`\theta`
    of the way from that of the window to that of the trajectory, since windows are slices of cells at rest. In noisy cells :math:`s` is
    small and nothing is taken out; with few windows little is left unexplained.

    Parameters
    ----------
    windows
        Number of windows, or several numbers that are combined. Default: 60.
    lags
        Number of windows from the start to the end of a pair; several are combined. Default: 2, 3 and 4. What matters is the share of the
        trajectory, ``lag / windows``: 1/30 to 1/15 did well throughout, 1/10 loses the order of long chains.
    overlap
        Number of windows that a cell lies in: windows begin every ``1 / overlap`` of their size. Default: 4. With few, whether two cells
        can be coupled depends on where borders happen to fall, and removing one cell shifts these. The time grows in proportion.
    entropy
        Entropic penalty of the coupling, as a share of the mean cost. Default: 0.05. With 0 the coupling is exact: it then jumps when a
        cell is added or removed, and so do single edges.
    min_cells
        Smallest number of cells in a window. Default: 6. Trajectories with fewer than ``windows * min_cells`` cells get fewer windows, with
        lags that span the same share.
    n_pcs
        Number of principal components of the standardised genes in which cells are coupled, if there are more genes. Default: 30.
    batch_size
        Number of cells in a step, or all if there are fewer. Default: 1024.
    ridge
        :math:`\rho` above. Default: 0.5; 0 for no penalty on squares. With the L1 norm of paths it forms an elastic net: as far as the
        differences between co-expressed regulators may be noise, it spreads an effect over them instead of picking one. The noise-to-signal
        ratio :math:`(1 - r) / r` is measured on the pairs: about 0.1 in simulated expression, 4 in single cells of the bone marrow.
    relaxation
        :math:`\lambda` above. Default: 0.4; 0 for displacements alone. It is how fast a gene follows its regulators if a thousand cells
        rest entirely: standard deviations of its displacement per standard deviation of the gene. A single lineage at rest is recognised
        only in part: the share that is added is 0.15 to 0.27 with a thousand cells, and 0 with a few hundred.
    centring
        Whether to correct an order by chance as above. Default: ``True``; with ``False`` :math:`\theta` is 0.

    Raises
    ------
    TypeError
        If ``centring`` is not True or False.
    ValueError
        If another argument is out of range.

    Notes
    -----
    Use it to infer networks; for forecasts use the trajectory objective. It learns from where cells lie relative to later ones. So do not
    use it

    - with a pseudotime whose order you do not trust,
    - on imputed expression,
    - on a few hundred cells that rest in some states rather than move on, unless you compare: partial correlations rank edges better there
      on every second network.

    In noisy cells, co-expressed genes come out as positive edges, since cells are coupled with similar ones: compare with
    :func:`sparsenode.tl.shuffle_time`. Cells of the same time are taken in the order of the rows. With fewer distinct times than windows,
    which causes a warning, that order decides who is coupled with whom.

    Time and memory grow with cells × genes, for every trajectory that a cell is in. Windows of more than 200 cells are coupled in parts, of
    every second, third, … of their cells.

    References
    ----------
    Schiebinger, Shu, Tabaka, Cleary and others (2019), *Optimal-transport analysis of single-cell gene expression identifies developmental
    trajectories in reprogramming*, Cell 176; Cuturi (2013), *Sinkhorn distances*, NeurIPS; couplings by POT, Flamary and others (2021),
    JMLR 22; Zou and Hastie (2005), *Regularization and variable selection via the elastic net*, JRSS B 67; the drift that balances
    diffusion as in Tong, Malkin, Fatras and others (2024), *Simulation-free Schrödinger bridges via score and flow matching*, AISTATS.
    """

    windows: int | Sequence[int] = 60
    lags: int | Sequence[int] = (2, 3, 4)
    overlap: int = 4
    entropy: float = 0.05
    min_cells: int = 6
    n_pcs: int = 30
    batch_size: int = 1024
    ridge: float = 0.5
    relaxation: float = 0.4
    centring: bool = True

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
        for name in ("overlap", "min_cells", "n_pcs", "batch_size"):
            _checks.at_least(name, getattr(self, name), 1)
        for name in ("entropy", "ridge", "relaxation"):
            _checks.non_negative(name, getattr(self, name))
        _checks.booleans(centring=self.centring)


@dataclass(frozen=True)
class Pairs:
    """Cells and what they are coupled with.

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
        Index of its combination of window number and lag, n. A cell starts one pair of a kind in a trajectory.
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
        Weight of each cell in each trajectory, its mass in the coupling; cells of weight zero take no part.
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
            n_windows = count_windows(len(order), int(wanted), transport)
            lag = max(1, round(int(wanted_lag) * n_windows / int(wanted)))
            if n_windows <= lag or (n_windows, lag) in done:
                continue
            done.add((n_windows, lag))
            coupling = _couple_windows(embedding[order], weights[order, m], n_windows, lag, transport)
            first = np.flatnonzero(coupling.sum(1) > 0)
            found = coupling[first].tocoo()
            shape = (len(first), len(times))
            blocks.append(sparse.csr_array((found.data, (found.row, order[found.col])), shape=shape))
            starts.append(order[first])
            durations.append(np.full(len(first), lag / n_windows))
            trajectories.append(np.full(len(first), m))
            kinds.append(np.full(len(first), index))
    if not starts:
        raise ValueError(
            f"Expected a trajectory with cells for at least two windows of {transport.min_cells}, found none. Lower "
            "`objective=Transport(min_cells=…)`, or use the trajectory objective."
        )
    coupling = sparse.csr_array(sparse.vstack(blocks))
    start, duration, trajectory, kind = map(np.concatenate, (starts, durations, trajectories, kinds))
    return Pairs(start, coupling, duration, trajectory, kind)


def count_windows(n_cells: int, wanted: int, transport: Transport) -> int:
    """Windows of a trajectory of so many cells: as many as wanted, where cells are enough."""
    return min(wanted, n_cells // transport.min_cells)


def noise_to_signal(pairs: Pairs, values: np.ndarray, weights: np.ndarray) -> float:
    r"""Ratio of what cells lose on their way to the cells they are coupled with to what they keep: :math:`(1 - r) / r`.

    Noise of a measurement is not passed on, so :math:`r`, the covariance between the start and the end of pairs over the
    variance at the start, is the share of the variance that is signal: a lower bound of it, as fast motion is lost too.

    Parameters
    ----------
    pairs
        Coupled cells.
    values
        Variables of the same scale, cells × variables; the mean share is taken over those that vary.
    weights
        Weight of each pair.
    """
    covariance, variance = np.zeros((2, values.shape[1]))
    for kind in np.unique(pairs.kind):
        own = pairs.kind == kind
        share = weights[own] / weights.sum()
        start, end = values[pairs.start[own]], pairs.coupling[own] @ values
        start = start - np.average(start, axis=0, weights=weights[own])
        covariance += share @ (start * end)
        variance += share @ start**2
    varies = variance > _CONSTANT * variance.max()
    kept = float(np.mean(covariance[varies] / variance[varies])) if varies.any() else 1.0
    kept = min(max(kept, _LEAST_KEPT), 1.0)
    return (1.0 - kept) / kept


def _couple_windows(
    embedding: np.ndarray, weights: np.ndarray, n_windows: int, lag: int, transport: Transport
) -> sparse.csr_array:
    """Couple the ordered cells of one trajectory: cells × cells, rows sum to one, or zero where no pair starts."""
    n, size = len(embedding), len(embedding) / n_windows
    n_parts = math.ceil(size / MAX_TOGETHER)
    alike = defaultdict(list)  # windows of the same numbers of cells
    for place in range((n_windows - lag - 1) * transport.overlap + 1):
        begin = place / transport.overlap * size
        ends = np.rint([begin, begin + size, begin + lag * size, begin + (lag + 1) * size]).astype(int)
        ends[1::2] = np.maximum(ends[1::2], ends[::2] + 1)  # a window of a single cell may be rounded away
        for part in range(n_parts):
            first, second = np.arange(ends[0] + part, ends[1], n_parts), np.arange(ends[2] + part, ends[3], n_parts)
            alike[len(first), len(second)].append((first, second))
    row, column, share = [], [], []
    for (n_first, n_second), windows in alike.items():
        step = max(1, _TOGETHER // (n_first * n_second))
        for begin in range(0, len(windows), step):
            first, second = map(np.stack, zip(*windows[begin : begin + step], strict=True))
            plans = couple(embedding[first], embedding[second], transport.entropy, weights[first], weights[second])
            window, i, j = np.nonzero(plans)
            row.append(first[window, i])
            column.append(second[window, j])
            share.append(plans[window, i, j])
    total = sparse.coo_array(
        (np.concatenate(share), (np.concatenate(row), np.concatenate(column))), shape=(n, n)
    ).tocsr()
    return sparse.csr_array(sparse.diags_array(1.0 / np.maximum(total.sum(1), 1.0)) @ total)


def couple(
    first: np.ndarray, second: np.ndarray, entropy: float, first_mass: np.ndarray, second_mass: np.ndarray
) -> np.ndarray:
    """Optimal transport plans between two sets of weighted cells, for several windows; rows sum to one.

    Parameters
    ----------
    first, second
        Windows × cells × dimensions.
    entropy
        Entropic penalty as a share of the mean cost, 0 for none.
    first_mass, second_mass
        Positive weight of each cell, windows × cells.
    """
    costs = ot.dist_batch(first, second)
    masses = [weights / weights.sum(1, keepdims=True) for weights in (first_mass, second_mass)]
    if entropy == 0:
        plans = np.stack([ot.emd(a, b, cost) for a, b, cost in zip(*masses, costs, strict=True)])
    else:
        mean = costs.mean((1, 2), keepdims=True)
        plans = _sinkhorn(costs / (entropy * np.where(mean > 0, mean, 1.0)), *masses)
        plans[plans < _NEGLIGIBLE * plans.max(2, keepdims=True)] = 0.0
    return plans / plans.sum(2, keepdims=True)


def _sinkhorn(costs: np.ndarray, first_mass: np.ndarray, second_mass: np.ndarray) -> np.ndarray:
    """Entropic plans for costs in units of the penalty, windows × cells × cells."""
    # Shifts of rows and columns leave the plan as it is, and keep its exponentials away from zero.
    costs = costs - costs.min(2, keepdims=True)
    costs = costs - costs.min(1, keepdims=True)

    def solve(method: str, which: slice | np.ndarray) -> np.ndarray:
        problem = {"M": costs[which], "a": first_mass[which], "b": second_mass[which]}
        return ot.solve_batch(
            **problem, reg=1.0, method=method, max_iter=_MAX_ITERATIONS, tol=_TOLERANCE, grad="detach"
        ).plan

    with np.errstate(all="ignore"):
        plans = solve("sinkhorn", slice(None))
    lost = ~np.isfinite(plans).all((1, 2)) | (plans.sum(2) == 0).any(1)
    if lost.any():  # masses so unlike, and cells so far apart, that scales overflow; logarithms are slower
        plans[lost] = solve("log_sinkhorn", lost)
    return plans
