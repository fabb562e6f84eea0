"""Tensors only: gates, field, solver, and the module that joins them."""

from sparsenode.module._field import Architecture, EffectiveWeights, Field
from sparsenode.module._module import N_REFERENCE, SparseNODEModule
from sparsenode.module._prune import prune_field
from sparsenode.module._solve import Solver

__all__ = ["N_REFERENCE", "Architecture", "EffectiveWeights", "Field", "Solver", "SparseNODEModule", "prune_field"]
