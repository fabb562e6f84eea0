"""One streaming pass over the cells: everything that the trajectory loss needs, independent of their number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from sparsenode.objectives._hermite import hermite_basis

N_BINS = 512
MAX_EARLY = 256
_ROUNDING = 1e-6  # variables that vary less, relative to their values, are constant


@dataclass(frozen=True)
class CellTable:
    """What is known of the cells without their expression.

    Parameters
    ----------
    times
        Time of each cell in each trajectory, scaled to ``[0, 1]``, cells × trajectories; ignored where the weight is
        zero.
    weights
        Weight of each cell in each trajectory, cells × trajectories, non-negative.
    initial_weights
        Weight of each cell in the initial state of each trajectory, cells × trajectories; columns sum to one.
    early
        Cells to bootstrap the initial state of each trajectory from.
    edges
        Weights of each cell in further sums for each trajectory, cells × trajectories, by name.
    """

    times: np.ndarray
    weights: np.ndarray
    initial_weights: np.ndarray
    early: list[np.ndarray]
    edges: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class TrajectoryStatistics:
    r"""Sufficient statistics of the squared error of M trajectories at K knots in d variables.

    With the Hermite basis :math:`H`, knot values and derivatives :math:`Y` and cell weights :math:`W`,

    .. math:: \sum_i w_i \|x_i - H_i Y\|^2 = \mathrm{tr}(Y^\top G Y) - 2\, \mathrm{tr}(Y^\top C) + s

    Parameters
    ----------
    gram
        :math:`G = H^\top W H`, M × 2K × 2K.
    cross
        :math:`C = H^\top W X`, M × 2K × d.
    square
        :math:`s`, per variable, M × d.
    weight
        Total weight of the cells, M.
    total
        Weighted sum of expression, M × d.
    origin
        What was subtracted from expression in these sums, d: a constant near the data guards them against cancellation.
    """

    gram: np.ndarray
    cross: np.ndarray
    square: np.ndarray
    weight: np.ndarray
    total: np.ndarray
    origin: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Weighted mean expression of every trajectory, M × d."""
        return self.origin + self.total / np.maximum(self.weight, np.finfo(float).tiny)[:, None]

    def __sub__(self, other: TrajectoryStatistics) -> TrajectoryStatistics:
        """Statistics of the cells that are not among those of the other."""
        return TrajectoryStatistics(
            self.gram - other.gram,
            self.cross - other.cross,
            self.square - other.square,
            self.weight - other.weight,
            self.total - other.total,
            self.origin,
        )

    def centred(self, centre: np.ndarray) -> TrajectoryStatistics:
        """The statistics of ``X - centre``, for a centre of shape M × d."""
        centre = centre - self.origin
        knots = self.gram.shape[1] // 2
        # The first K columns of the basis sum to one in every row, so G applied to them gives H'W1.
        basis_sum = self.gram[:, :, :knots].sum(2)
        return replace(
            self,
            cross=self.cross - basis_sum[:, :, None] * centre[:, None, :],
            square=self.square - 2 * centre * self.total + self.weight[:, None] * centre**2,
            total=self.total - self.weight[:, None] * centre,
            origin=np.zeros_like(self.origin),
        )


@dataclass(frozen=True)
class StreamedData:
    """Result of the streaming pass.

    Parameters
    ----------
    training, validation
        Statistics of the training and of the held-out cells.
    halves
        Statistics of half-samples of the training cells, complementary ones one after the other.
    initial_state
        Weighted mean of the early training cells, M × d.
    early
        Expression of the cells to bootstrap from, one array per trajectory.
    bin_weight, bin_total
        Weight and weighted sum of the training cells in ``N_BINS`` time bins: M × bins and M × bins × d.
    edges
        The further sums, M × d, by name.
    range
        Smallest and largest value of each variable among the training cells, 2 × d.
    """

    training: TrajectoryStatistics
    validation: TrajectoryStatistics
    halves: list[TrajectoryStatistics]
    initial_state: np.ndarray
    early: list[np.ndarray]
    bin_weight: np.ndarray
    bin_total: np.ndarray
    edges: dict[str, np.ndarray]
    range: np.ndarray

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation of each variable over the training cells of all trajectories, one where constant, d."""
        deviation = self.deviation_within(slice(None))
        return np.where(deviation > 0, deviation, 1.0)

    def deviation_within(self, trajectories: np.ndarray | slice) -> np.ndarray:
        """Standard deviation of each variable over the training cells of some trajectories, zero where constant, d."""
        weight = self.training.weight[trajectories].sum()
        mean = self.training.total[trajectories].sum(0) / weight
        variance = self.training.square[trajectories].sum(0) / weight - mean**2
        deviation = np.sqrt(np.maximum(variance, 0.0))
        return np.where(deviation > _ROUNDING * np.abs(self.range).max(0), deviation, 0.0)


class _Accumulator:
    """Sums that make up :class:`TrajectoryStatistics`."""

    def __init__(self, n_trajectories: int, n_knots: int, n_vars: int) -> None:
        self.gram = np.zeros((n_trajectories, 2 * n_knots, 2 * n_knots))
        self.cross = np.zeros((n_trajectories, 2 * n_knots, n_vars))
        self.square = np.zeros((n_trajectories, n_vars))
        self.weight = np.zeros(n_trajectories)
        self.total = np.zeros((n_trajectories, n_vars))

    def add(self, trajectory: int, times: np.ndarray, weights: np.ndarray, x: np.ndarray) -> None:
        """Add cells of one trajectory; ``x`` is cells × variables."""
        if len(weights) == 0:
            return
        basis = hermite_basis(times, self.gram.shape[1] // 2)
        weighted = (sparse.diags_array(weights) @ basis).T.tocsr()
        self.gram[trajectory] += (weighted @ basis).toarray()
        self.cross[trajectory] += weighted @ x
        self.square[trajectory] += weights @ (x * x)
        self.total[trajectory] += weights @ x
        self.weight[trajectory] += weights.sum()

    def result(self, origin: np.ndarray) -> TrajectoryStatistics:
        """Statistics of the data from which ``origin`` was subtracted."""
        return TrajectoryStatistics(self.gram, self.cross, self.square, self.weight, self.total, origin)


def _weights_in_bins(times: np.ndarray, weights: np.ndarray) -> sparse.csr_array:
    """Weight of each cell in the time bin that it falls into, bins × cells."""
    bins = np.minimum((times * N_BINS).astype(np.int64), N_BINS - 1)
    return sparse.csr_array((weights, (bins, np.arange(len(bins)))), shape=(N_BINS, len(bins)))


def stream(
    chunks: Iterable[tuple[int, np.ndarray]],
    cells: CellTable,
    training: np.ndarray,
    validation: np.ndarray,
    n_knots: int,
    n_vars: int,
    halves: Sequence[np.ndarray] = (),
) -> StreamedData:
    """Accumulate the statistics of training and held-out cells in one pass.

    Parameters
    ----------
    chunks
        Pairs of the index of the first cell and the expression of consecutive cells, in float64.
    cells
        Times and weights of all cells.
    training, validation
        Masks over cells.
    n_knots
        Number of knots, K.
    n_vars
        Number of variables, d.
    halves
        Masks over cells, each of half of the training cells; the other half is used as well.
    """
    n_trajectories = cells.weights.shape[1]
    masks = [training, validation, *halves]
    accumulators = [_Accumulator(n_trajectories, n_knots, n_vars) for _ in masks]
    initial = np.zeros((n_trajectories, n_vars))
    edges = {name: np.zeros((n_trajectories, n_vars)) for name in cells.edges}
    bin_weight = np.zeros((n_trajectories, N_BINS))
    bin_total = np.zeros((n_trajectories, N_BINS, n_vars))
    early = [np.zeros((len(rows), n_vars)) for rows in cells.early]
    origin: np.ndarray | None = None
    low, high = np.full(n_vars, np.inf), np.full(n_vars, -np.inf)
    for first, x in chunks:
        rows = slice(first, first + len(x))
        origin = x.mean(0) if origin is None else origin
        shifted = x - origin
        initial += cells.initial_weights[rows].T @ x
        low = np.minimum(low, x[training[rows]].min(0, initial=np.inf))
        high = np.maximum(high, x[training[rows]].max(0, initial=-np.inf))
        for name, edge_weights in cells.edges.items():
            edges[name] += edge_weights[rows].T @ x
        for m in range(n_trajectories):
            times, weights = cells.times[rows, m], cells.weights[rows, m]
            for mask, accumulator in zip(masks, accumulators, strict=True):
                chosen = (weights > 0) & mask[rows]
                accumulator.add(m, times[chosen], weights[chosen], shifted[chosen])
            chosen = (weights > 0) & training[rows]
            in_bins = _weights_in_bins(times[chosen], weights[chosen])
            bin_weight[m] += in_bins.sum(1)
            bin_total[m] += in_bins @ x[chosen]
            here = (cells.early[m] >= first) & (cells.early[m] < first + len(x))
            early[m][here] = x[cells.early[m][here] - first]
    if origin is None:
        raise ValueError("Expected at least one cell, found none.")
    whole, held_out, *first_halves = (accumulator.result(origin) for accumulator in accumulators)
    return StreamedData(
        training=whole,
        validation=held_out,
        halves=[half for first in first_halves for half in (first, whole - first)],
        initial_state=initial,
        early=early,
        bin_weight=bin_weight,
        bin_total=bin_total,
        edges=edges,
        range=np.stack([low, high]),
    )
