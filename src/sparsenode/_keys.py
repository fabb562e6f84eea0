"""AnnData keys of the results of a fit, and of the pseudotime by default."""

from __future__ import annotations

TIME_KEY = "dpt_pseudotime"
KEY_ADDED = "sparsenode"


def adjacency(key_added: str = KEY_ADDED) -> str:
    """Key in ``.varp``: signed adjacency, rows are targets, columns are regulators."""
    return f"{key_added}_adjacency"


def trajectory(key_added: str = KEY_ADDED) -> str:
    """Key in ``.obsm``: predicted expression of each cell at its own pseudotime."""
    return f"{key_added}_trajectory"


def velocity(key_added: str = KEY_ADDED) -> str:
    """Key in ``.layers``: the fitted vector field at each cell."""
    return f"{key_added}_velocity"


def lineage_adjacency(lineage: str, key_added: str = KEY_ADDED) -> str:
    """Key in ``.varp`` for one lineage's adjacency, written where each lineage has its own field."""
    return f"{key_added}_adjacency_{lineage.replace('/', '_')}"  # h5ad reads a slash as a group


def block_adjacency(block: str, key_added: str = KEY_ADDED) -> str:
    """Key in ``.varp`` for the position or the velocity block of a second-order model."""
    return f"{key_added}_{block}_adjacency"


def frequency(key_added: str = KEY_ADDED) -> str:
    """Key in ``.varp``: share of replicates in which an edge is alive, written where there are several seeds."""
    return f"{key_added}_frequency"
