"""Sparse neural ODEs for gene regulatory networks and trajectories from pseudotime-ordered single cells."""

from importlib.metadata import version

from sparsenode import datasets, pl, pp, regularizers, tl
from sparsenode._errors import DivergenceError
from sparsenode.model import SparseNODE

__all__ = ["DivergenceError", "SparseNODE", "datasets", "pl", "pp", "regularizers", "tl"]

__version__ = version("sparsenode")
