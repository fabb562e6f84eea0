"""Data with known networks."""

from sparsenode.datasets._hill_system import random_hill_system
from sparsenode.datasets._krumsiek11 import krumsiek11, krumsiek11_network
from sparsenode.datasets._linear_system import random_linear_system
from sparsenode.datasets._multiome import simulated_multiome
from sparsenode.datasets._systems import System

__all__ = [
    "System",
    "krumsiek11",
    "krumsiek11_network",
    "random_hill_system",
    "random_linear_system",
    "simulated_multiome",
]
