"""Which regulators a network gives the strongest edges."""

from __future__ import annotations

import pandas as pd

from sparsenode.tl._export import to_decoupler


def rank_regulators(network: pd.DataFrame) -> pd.DataFrame:
    """Regulators of a network by the summed magnitude of their edges, the strongest first.

    Parameters
    ----------
    network
        Long table with the columns ``source``, ``target`` and ``weight``, as from :meth:`sparsenode.SparseNODE.get_network`, of one
        lineage for instance. Self edges and edges of weight zero do not count.

    Returns
    -------
    A row per regulator with an edge, indexed by its name (``source``), with the columns

    - ``strength``: sum of the magnitudes of its weights, in their unit,
    - ``n_targets``: number of targets,
    - ``n_activated``, ``n_repressed``: how many of them have a positive and a negative weight.

    Ties are in the order of names.

    Raises
    ------
    KeyError
        If a column is missing.
    TypeError
        If weights are not numbers.
    ValueError
        If an edge is listed more than once, a gene is missing, or a weight is not finite.

    Notes
    -----
    A factor that is expressed together with many genes ranks high in a correlation network too: rank that of :func:`network_baselines` beside
    it. Do not use it on weights whose unit differs between genes, as of ``get_adjacency(weights="jacobian")``, or to compare strengths of
    networks that were fitted with other penalties: compare ranks.

    Examples
    --------
    >>> import sparsenode as sn
    >>> sn.tl.rank_regulators(sn.datasets.krumsiek11_network()).head(3).reset_index()
      source  strength  n_targets  n_activated  n_repressed
    0  Gata1       7.0          7            4            3
    1   Pu.1       5.0          5            2            3
    2  Cebpa       2.0          2            2            0
    """
    edges = to_decoupler(network)
    weights = edges["weight"]
    table = edges.assign(strength=weights.abs(), n_targets=1, n_activated=weights > 0, n_repressed=weights < 0)
    sums = table.groupby("source")[["strength", "n_targets", "n_activated", "n_repressed"]].sum()
    return sums.sort_values("strength", ascending=False, kind="stable")
