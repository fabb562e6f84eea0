"""Objectives turn registered cells into tensors and a loss; plain arrays only."""

from sparsenode.objectives._initial import InitialState, early_cells, initial_weights
from sparsenode.objectives._nulls import NullModels
from sparsenode.objectives._statistics import CellTable, StreamedData, TrajectoryStatistics, stream

__all__ = [
    "CellTable",
    "InitialState",
    "NullModels",
    "StreamedData",
    "TrajectoryStatistics",
    "early_cells",
    "initial_weights",
    "stream",
]
