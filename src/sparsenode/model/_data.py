"""From a registered AnnData to the arrays of the objective."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from sparsenode._input import _expression
from sparsenode._input._observations import Observations
from sparsenode.objectives._initial import InitialState, early_cells, initial_weights
from sparsenode.objectives._local import local_weights
from sparsenode.objectives._nulls import BANDWIDTH
from sparsenode.objectives._statistics import CellTable, StreamedData, TrajectoryStatistics, stream

_UNEVEN = 1.5  # ratio of lengths of one lineage beyond which batches may not have been seen from start to end
_SLOPE_DEGREE = 2  # of the local polynomials that initial slopes are estimated by
_ROUNDING = 1e-5  # what other precision may change in sums, relative to all that are compared
_FEWEST_TIMES = 3  # of a trajectory that is smoothed: the penalty leaves quadratics free


@dataclass(frozen=True)
class Cells:
    """Cells of one AnnData, arranged by trajectory.

    Parameters
    ----------
    adata, layer, genes
        Where the expression of the model's genes is found: by name, whatever their order.
    trajectories
        One row per trajectory: lineage, batch, n_cells, start, end.
    lineages
        Lineage index of every trajectory.
    times
        Time of each cell in units of each trajectory's length, cells × trajectories, 0 at its start.
    weights
        Weight of each cell in each trajectory, cells × trajectories.
    own
        Whether they are, or are among, the cells of the model's AnnData.
    """

    adata: AnnData
    layer: str | None
    genes: pd.Index
    trajectories: pd.DataFrame
    lineages: list[int]
    times: np.ndarray
    weights: np.ndarray
    own: bool = False

    @classmethod
    def arrange(
        cls,
        adata: AnnData,
        layer: str | None,
        genes: pd.Index,
        observations: Observations,
        trajectories: pd.DataFrame | None = None,
        own: bool = False,
    ) -> Cells:
        """Arrange cells by trajectory, given the trajectories of the model or those of the data."""
        table = observations.trajectories() if trajectories is None else trajectories
        lineages = [observations.lineage_names.index(name) for name in table["lineage"]]
        known = {name: index for index, name in enumerate(observations.batch_names)}
        batches = np.array([known.get(name, -1) for name in table["batch"]])
        in_batch = observations.batches[:, None] == batches[None, :]
        weights = observations.memberships[:, lineages] * in_batch
        start, end = table["start"].to_numpy(float), table["end"].to_numpy(float)
        times = (observations.times[:, lineages] - start) / (end - start)
        return cls(adata, layer, genes, table, lineages, times, weights, own)

    @property
    def spans(self) -> np.ndarray:
        """Length of every trajectory in pseudotime."""
        return (self.trajectories["end"] - self.trajectories["start"]).to_numpy(float)

    def chunks(self, rows: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Expression of the model's genes in all cells, or in some; see :func:`sparsenode._input._expression.chunks`."""
        positions = _expression.gene_positions(self.adata, list(self.genes))
        return _expression.chunks(self.adata, self.layer, positions, rows)

    def expression(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Expression of the model's genes in all cells, or in some, in one table."""
        n_cells = len(self.times) if rows is None else len(rows)
        table = np.empty((n_cells, len(self.genes)))
        for first, x in self.chunks(rows):
            table[first : first + len(x)] = x
        return table

    def fingerprints(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Two numbers for the expression of a cell, which tell cells apart: of all cells, or of some."""
        weights = np.random.default_rng(0).normal(size=(len(self.genes), 2))
        return np.concatenate([x @ weights for _, x in self.chunks(rows)])

    def initial_weights(self, method: InitialState, bandwidth: float, usable: np.ndarray | None = None) -> np.ndarray:
        """Weight of each cell in the initial state of each trajectory, cells × trajectories."""
        everything = np.ones(len(self.times), dtype=bool) if usable is None else usable
        return initial_weights(self.times, self.weights, everything, method, bandwidth)

    def initial_state(self, method: InitialState, bandwidth: float) -> np.ndarray:
        """Initial state of every trajectory from all cells, trajectories × genes."""
        return self._sums(self.initial_weights(method, bandwidth))

    def initial_slope(self, bandwidth: float) -> np.ndarray:
        """Initial slope of every trajectory from all cells, per unit of its length, trajectories × genes."""
        everything = np.ones(len(self.times), dtype=bool)
        return self._sums(local_weights(self.times, self.weights, everything, 0.0, 1, _SLOPE_DEGREE, bandwidth))

    def _sums(self, weights: np.ndarray) -> np.ndarray:
        """Weighted sums of expression over all cells, trajectories × genes."""
        return sum(weights[first : first + len(x)].T @ x for first, x in self.chunks())

    def stream(
        self,
        training: np.ndarray,
        validation: np.ndarray,
        n_knots: int,
        method: InitialState,
        bandwidth: float,
        seed: int,
        halves: Sequence[np.ndarray] = (),
        end_bandwidth: float = BANDWIDTH,
    ) -> StreamedData:
        """Accumulate the statistics of training and held-out cells in one pass over the expression.

        ``end_bandwidth`` is that of values and slopes at the ends of trajectories, for which held-out cells count too.
        """
        lost = list(self.trajectories.index[self.weights[training].sum(0) == 0])
        if lost:
            raise ValueError(f"Expected training cells in every trajectory, found none in {lost}. Raise `train_size`.")
        initial = self.initial_weights(method, bandwidth, training)
        table = CellTable(
            np.clip(self.times, 0.0, 1.0),
            self.weights / self.weights.max(),  # cross-validation counts cells: their unit must not matter
            initial,
            early_cells(initial, np.random.default_rng(seed)),
            {
                "last": local_weights(self.times, self.weights, training | validation, 1.0, 0, 1, end_bandwidth),
                "last_slope": local_weights(self.times, self.weights, training | validation, 1.0, 1, 1, end_bandwidth),
            },
        )
        return stream(self.chunks(), table, training, validation, n_knots, len(self.genes), halves)


def relative_spans(
    lineages: Sequence[int], batches: Sequence[str], spans: np.ndarray, aligned: bool
) -> tuple[np.ndarray, float]:
    """Length of every trajectory in units of the longest, and that unit in pseudotime.

    Parameters
    ----------
    lineages, batches
        Lineage and batch of every trajectory.
    spans
        Length of every trajectory in pseudotime.
    aligned
        Whether a lineage is taken to be equally long in every batch. Batches then have a unit of pseudotime each, so spans are fitted by
        a length for every lineage times a unit for every batch, by least squares of their logarithms. Batches without a lineage in
        common are taken to have the same unit.
    """
    spans = np.asarray(spans, dtype=np.float64)
    if aligned and len(set(batches)) > 1:
        length, same = np.log(spans), np.equal.outer(lineages, lineages)
        mean = same / same.sum(1)  # over the batches of the lineage
        of_batch = np.equal.outer(batches, np.unique(batches)).astype(float)
        units = np.linalg.lstsq(of_batch - mean @ of_batch, length - mean @ length, rcond=None)[0]
        spans = np.exp(mean @ (length - of_batch @ units))
    unit = float(spans.max())
    return spans / unit, unit


def full_batch(
    statistics: Sequence[TrajectoryStatistics],
    centre: np.ndarray,
    units: tuple[np.ndarray, np.ndarray],
    early: Sequence[np.ndarray],
) -> dict[str, torch.Tensor]:
    """Tensors of one full-batch step, in module units.

    Parameters
    ----------
    statistics
        Statistics of the cells, uncentred: of all of them, or of the cells of every seed.
    centre
        Mean expression of the training cells of every trajectory.
    units
        Centre and scale of the module: what is subtracted from expression, and what it is divided by, both genes.
    early
        Cells to bootstrap initial states from.

    Returns
    -------
    Tensors by name. ``gram``, ``cross`` and ``square``, the squared error of ``centre`` as a prediction, by which errors
    are divided, have a leading axis of one or of seeds.
    """
    offset, scale = units
    centred = [s.centred(centre) for s in statistics]
    square = np.array([(c.square / scale**2).sum() for c in centred])
    size = max(len(x) for x in early)
    cells = np.zeros((len(early), size, centre.shape[1]))
    mask = np.zeros((len(early), size))
    for m, x in enumerate(early):
        cells[m, : len(x)] = x - x.mean(0)
        mask[m, : len(x)] = 1.0
    arrays = {
        "gram": np.stack([c.gram for c in centred]),
        "cross": np.stack([c.cross for c in centred]) / scale,
        "square": square,
        "centre": (centre - offset) / scale,
        "early": cells / scale,
        "early_mask": mask,
    }
    return {name: torch.as_tensor(np.asarray(array), dtype=torch.float32) for name, array in arrays.items()}


def standardisation(cells: Cells, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expression of all cells, and mean and standard deviation of every gene over the usable ones.

    Genes that do not vary but for rounding have a deviation of one, and exactly their mean in all cells that do not differ from it.
    """
    x = cells.expression()
    chosen = x[usable & (cells.weights.sum(1) > 0)]
    mean, deviation = chosen.mean(0), chosen.std(0)
    rounding = _expression.ROUNDING * np.abs(chosen).max(0)
    constant = np.flatnonzero(deviation <= rounding)
    x[:, constant] = np.where(
        np.abs(x[:, constant] - mean[constant]) <= rounding[constant], mean[constant], x[:, constant]
    )
    deviation[constant] = 1.0
    return x, mean, deviation


def check_distinct_times(cells: Cells, usable: np.ndarray) -> None:
    """Refuse trajectories that cannot be smoothed: a curve with a slope that varies takes three points.

    Raises
    ------
    ValueError
        If the usable cells of a trajectory have fewer distinct times.
    """
    members = (cells.weights > 0) & usable[:, None]
    counts = [len(np.unique(cells.times[members[:, m], m])) for m in range(members.shape[1])]
    few = {name: n for name, n in zip(cells.trajectories.index, counts, strict=True) if 0 < n < _FEWEST_TIMES}
    if few:
        raise ValueError(
            f"Expected at least {_FEWEST_TIMES} distinct times among the training cells of every trajectory, to smooth it for collocation or "
            f"second order, found {few}. Take `objective='trajectory'` in first order, or a pseudotime that tells cells apart."
        )


def warn_of_lengths(trajectories: pd.DataFrame) -> None:
    """Warn where batches of one lineage have such different lengths that they may share one clock."""
    lengths = (trajectories["end"] - trajectories["start"]).groupby(trajectories["lineage"])
    ratio = (lengths.max() / lengths.min()).sort_values()
    if ratio.iloc[-1] > _UNEVEN:
        warnings.warn(
            f"The pseudotime of {ratio.index[-1]!r} is {ratio.iloc[-1]:.3g} times as long in one batch as in another, and batches are "
            "stretched to the same length. Pass `align_batches=False` if they share one pseudotime, and some saw only part of it; "
            "`align_batches=True` if each has its own.",
            UserWarning,
            stacklevel=3,
        )


def sums_differ(known: np.ndarray, found: np.ndarray | None) -> bool:
    """Whether sums of many numbers, such as fingerprints, differ by more than rounding; not if they are not known."""
    if found is None:
        return False
    # A sum may be near zero by chance: what counts is how large they are in general.
    return known.shape != found.shape or bool((np.abs(found - known) > _ROUNDING * np.sqrt(np.mean(known**2))).any())
