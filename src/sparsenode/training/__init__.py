"""Training plan, loaders of what a fit sees of the cells, and sparsification schedule."""

from sparsenode.training._messages import without_noise
from sparsenode.training._plan import TrainingPlan, n_rounds
from sparsenode.training._schedule import IterativeSparsification
from sparsenode.training._splitter import Batches, StatisticsSplitter, split_cells, take_rows
from sparsenode.training._threads import limited_threads

__all__ = [
    "Batches",
    "IterativeSparsification",
    "StatisticsSplitter",
    "TrainingPlan",
    "limited_threads",
    "n_rounds",
    "split_cells",
    "take_rows",
    "without_noise",
]
