"""Data with known networks."""

from sparsenode.datasets._krumsiek11 import krumsiek11, krumsiek11_network

__all__ = ["krumsiek11", "krumsiek11_network"]
