"""Training plan, loaders of what a fit sees of the cells, and sparsification schedule."""

from sparsenode.training._plan import TrainingPlan
from sparsenode.training._schedule import IterativeSparsification

__all__ = ["IterativeSparsification", "TrainingPlan"]
