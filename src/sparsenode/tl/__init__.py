"""Tools on networks."""

from sparsenode.tl._compare_networks import compare_networks
from sparsenode.tl._evaluate_network import evaluate_network
from sparsenode.tl._export import to_decoupler, to_networkx, write_graphml
from sparsenode.tl._network_baselines import network_baselines
from sparsenode.tl._rank_regulators import rank_regulators
from sparsenode.tl._shuffle_time import shuffle_time

__all__ = [
    "compare_networks",
    "evaluate_network",
    "network_baselines",
    "rank_regulators",
    "shuffle_time",
    "to_decoupler",
    "to_networkx",
    "write_graphml",
]
