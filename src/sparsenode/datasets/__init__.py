"""Data with known networks, simulated systems, and readers for real data."""

from sparsenode.datasets._bone_marrow import bone_marrow
from sparsenode.datasets._download import download
from sparsenode.datasets._hill_system import random_hill_system
from sparsenode.datasets._krumsiek11 import krumsiek11, krumsiek11_network
from sparsenode.datasets._linear_system import random_linear_system
from sparsenode.datasets._motion_capture import read_motion_capture
from sparsenode.datasets._multiome import simulated_multiome
from sparsenode.datasets._second_order import SecondOrderSystem, random_second_order_system, second_order_system
from sparsenode.datasets._systems import System

__all__ = [
    "SecondOrderSystem",
    "System",
    "bone_marrow",
    "download",
    "krumsiek11",
    "krumsiek11_network",
    "random_hill_system",
    "random_linear_system",
    "random_second_order_system",
    "read_motion_capture",
    "second_order_system",
    "simulated_multiome",
]
