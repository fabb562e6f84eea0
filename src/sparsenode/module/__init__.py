"""Tensors only: gates, field, solver, and the module that joins them."""

from sparsenode.module._field import Architecture, EffectiveWeights, Field
from sparsenode.module._module import SparseNODEModule

__all__ = ["Architecture", "EffectiveWeights", "Field", "SparseNODEModule"]
