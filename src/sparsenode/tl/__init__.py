"""Tools on networks."""

from sparsenode.tl._evaluate_network import evaluate_network

__all__ = ["evaluate_network"]
