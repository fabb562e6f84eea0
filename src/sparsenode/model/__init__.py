"""AnnData in, AnnData out: the only rooms that know the model API of scvi-tools."""

from sparsenode.model._simulation import Simulation
from sparsenode.model._sparsenode import SparseNODE

__all__ = ["Simulation", "SparseNODE"]
