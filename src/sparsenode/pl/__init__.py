"""Plots in the manner of scanpy: they read from AnnData, take ``ax`` and return axes."""

from sparsenode.pl._adjacency import adjacency
from sparsenode.pl._comparison import comparison
from sparsenode.pl._history import history
from sparsenode.pl._intervention import intervention
from sparsenode.pl._network import network
from sparsenode.pl._regularization_path import regularization_path
from sparsenode.pl._skill import skill
from sparsenode.pl._stick_figure import stick_figure
from sparsenode.pl._trajectory import trajectory
from sparsenode.pl._velocity import velocity

__all__ = [
    "adjacency",
    "comparison",
    "history",
    "intervention",
    "network",
    "regularization_path",
    "skill",
    "stick_figure",
    "trajectory",
    "velocity",
]
