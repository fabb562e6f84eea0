"""Sparse neural ODEs for gene regulatory networks and trajectories from pseudotime-ordered single cells."""

from importlib.metadata import version

from sparsenode import datasets, objectives, pl, pp, regularizers, tl, training
from sparsenode._errors import DivergenceError
from sparsenode.model import SparseNODE

__all__ = ["DivergenceError", "SparseNODE", "datasets", "objectives", "pl", "pp", "regularizers", "tl", "training"]

__version__ = version("sparsenode")
