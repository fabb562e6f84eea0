"""Plots in the manner of scanpy: they read from AnnData, take ``ax`` and return axes."""

from sparsenode.pl._adjacency import adjacency
from sparsenode.pl._history import history
from sparsenode.pl._network import network
from sparsenode.pl._regularization_path import regularization_path
from sparsenode.pl._trajectory import trajectory

__all__ = ["adjacency", "history", "network", "regularization_path", "trajectory"]
