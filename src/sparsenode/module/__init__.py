"""Tensors only: gates, field, solver, and the module that joins them."""

from sparsenode.module._field import EffectiveWeights, Field
from sparsenode.module._module import SparseNODEModule
from sparsenode.module._solve import Solver

__all__ = ["EffectiveWeights", "Field", "Solver", "SparseNODEModule"]
