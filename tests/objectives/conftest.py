"""Cells whose statistics can be computed one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from sparsenode.objectives._initial import early_cells, initial_weights
from sparsenode.objectives._statistics import CellTable, StreamedData, stream


@dataclass(frozen=True)
class Data:
    """Expression, table and split of all cells."""

    x: np.ndarray
    cells: CellTable
    training: np.ndarray
    validation: np.ndarray

    def stream(self, n_knots: int = 5, sizes=None, x: np.ndarray | None = None, halves=()) -> StreamedData:
        """Stream the cells in chunks of the given sizes, by default all at once."""
        x = self.x if x is None else x
        ends = np.cumsum([len(x)] if sizes is None else sizes)
        chunks = [(int(a), x[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        return stream(chunks, self.cells, self.training, self.validation, n_knots, x.shape[1], halves)


@pytest.fixture(scope="session")
def make_data():
    """Random cells in several trajectories: some in one, some in all, some in none; held out or in neither set."""

    def make(n_cells=60, n_trajectories=3, n_vars=4, seed=0) -> Data:
        rng = np.random.default_rng(seed)
        times = rng.uniform(0, 1, (n_cells, n_trajectories))
        times[:2] = [[0.0], [1.0]]
        weights = rng.uniform(0.1, 2, times.shape) * (rng.uniform(size=times.shape) < 0.7)
        weights[:2] = 1.0
        times[weights == 0] = 7.0  # ignored
        part = rng.choice(3, n_cells, p=[0.6, 0.3, 0.1])
        part[:2] = 0
        x = np.column_stack([np.sin(k * times.clip(0, 1).mean(1)) for k in range(1, n_vars + 1)])
        initial = initial_weights(times, weights, part == 0, "kernel", 0.3)
        table = CellTable(times, weights, initial, early_cells(initial, np.random.default_rng(seed)))
        return Data(x + 0.3 * rng.normal(size=x.shape), table, part == 0, part == 1)

    return make


@pytest.fixture(scope="session")
def data(make_data) -> Data:
    return make_data()
