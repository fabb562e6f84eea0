"""Networks in the forms of other tools. Edges always point from the regulator to its target."""

from __future__ import annotations

from os import PathLike

import networkx as nx
import numpy as np
import pandas as pd

from sparsenode import _checks

_COLUMNS = ("source", "target", "weight")


def to_networkx(network: pd.DataFrame) -> nx.DiGraph:
    """Network as a directed graph of networkx :cite:p:`hagberg2008exploring`, with edges from regulators to targets.

    Parameters
    ----------
    network
        Long table with the columns ``source``, ``target`` and ``weight``, as from :meth:`sparsenode.SparseNODE.get_network`. Edges of
        weight zero are left out, but not their genes.

    Returns
    -------
    Graph whose nodes are genes. Edges carry

    - ``weight`` and all further columns, such as ``frequency``, as Python numbers, booleans and strings; missing and infinite values are
      left out,
    - ``sign``: ``"activation"`` if the weight is positive, ``"repression"`` if it is negative, even if the table has a column of that name.
      Do not read it if weights have no sign, like those of GENIE3.

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
    Make one graph per lineage: a directed graph holds an edge once.

    Examples
    --------
    >>> import sparsenode as sn
    >>> graph = sn.tl.to_networkx(sn.datasets.krumsiek11_network())
    >>> graph.edges["Gata1", "EKLF"]
    {'weight': 1.0, 'sign': 'activation'}
    """
    _check(network)
    graph = nx.DiGraph()
    ends = [network[name].astype(str).tolist() for name in ("source", "target")]
    graph.add_nodes_from(dict.fromkeys(gene for edge in zip(*ends, strict=True) for gene in edge))
    weights = network["weight"].to_numpy(dtype=float)
    columns = {str(name): _plain(network[name]) for name in network if name not in ("source", "target")}
    for i, (source, target) in enumerate(zip(*ends, strict=True)):
        if weights[i] != 0:
            values = {name: column[i] for name, column in columns.items() if column[i] is not None}
            values["sign"] = "activation" if weights[i] > 0 else "repression"
            graph.add_edges_from([(source, target, values)])  # columns may have any name
    return graph


def write_graphml(network: pd.DataFrame, path: str | PathLike[str]) -> None:
    """Write a network as GraphML, which Cytoscape, Gephi, igraph and networkx open.

    If a text file is enough, use ``network.to_csv("network.csv", index=False)``.

    Parameters
    ----------
    network
        As in :func:`to_networkx`.
    path
        File to write, by convention with the suffix ``.graphml``. An existing file is replaced.

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
    In Cytoscape, map the edge's target arrow to the column ``sign``. Map its width to magnitudes, which
    ``network.assign(magnitude=network["weight"].abs())`` adds as a column: weights of repressions are negative, and ``weight`` would draw
    the strongest of them thinnest. Do not write tens of thousands of edges, which nobody can read, but the strongest ones. These may be self
    edges, which mix decay with self-regulation; without them use ``network.query("source != target").head(1000)``.
    """
    nx.write_graphml(to_networkx(network), path)


def to_decoupler(
    network: pd.DataFrame, min_frequency: float | None = None, *, self_edges: bool = False
) -> pd.DataFrame:
    """Network as a table that the methods of decoupler :cite:p:`badiaimompel2022decoupler` take as ``net``.

    decoupler scores the activity of regulators in cells or samples from the expression of their targets, for instance with
    ``decoupler.mt.ulm(adata, net)``. It leaves out regulators with fewer than five targets (``tmin=5``).

    Parameters
    ----------
    network
        As in :func:`to_networkx`.
    min_frequency
        Smallest share of replicates, in ``[0, 1]``, in which an edge must be open. Default: edges are kept whatever their frequency. Needs
        the column ``frequency``, which :meth:`sparsenode.SparseNODE.get_network` adds for fits with several seeds.
    self_edges
        Whether to keep edges of genes to themselves. Default: ``False``, since they mix decay with self-regulation. They are often the
        strongest, so with them the activity of a regulator would mostly be its own expression.

    Returns
    -------
    Table with the columns ``source`` and ``target`` (strings) and ``weight`` (signed, float), strongest first, without edges of weight zero
    and, by default, without self edges.

    Raises
    ------
    KeyError
        If a column is missing; ``frequency`` only if it is needed.
    TypeError
        If weights are not numbers, or ``self_edges`` is not True or False.
    ValueError
        If an edge is listed more than once, a gene is missing, a weight is not finite, or ``min_frequency`` is outside ``[0, 1]``.

    Notes
    -----
    Activities in the cells that the network was fitted to are circular: do not take them as evidence. Score other cells.
    """
    _checks.booleans(self_edges=self_edges)
    _check(network)
    kept = network["weight"].to_numpy(dtype=float) != 0
    if not self_edges:
        kept &= network["source"].astype(str).to_numpy() != network["target"].astype(str).to_numpy()
    if min_frequency is not None:
        _checks.share("min_frequency", min_frequency)
        if "frequency" not in network:
            raise KeyError(
                f"Expected `network` to have the column 'frequency' for `min_frequency`, found {list(network)}. Fit "
                "several seeds: `SparseNODE(adata, n_seeds=10)`."
            )
        kept &= network["frequency"].to_numpy(dtype=float) >= min_frequency
    table = network.loc[kept, list(_COLUMNS)].astype({"source": str, "target": str, "weight": float})
    return table.sort_values("weight", key=np.abs, ascending=False, kind="stable", ignore_index=True)


def _check(network: pd.DataFrame) -> None:
    """Refuse tables that are no network, or more than one."""
    _checks.columns("network", network, _COLUMNS)
    _checks.genes_of_edges("network", network)
    count = int((~np.isfinite(_checks.weights("network", network))).sum())
    if count:
        raise ValueError(f"Expected finite weights in `network`, found {count} NaN or infinite ones of {len(network)}.")
    repeated = network[network.duplicated(["source", "target"])]
    if len(repeated):
        first = repeated.iloc[0]
        raise ValueError(
            f"Expected every edge of `network` once, found {len(repeated)} repeated ones, {first['source']} → "
            f"{first['target']} for instance. Pass the networks of several lineages one by one."
        )


def _plain(column: pd.Series) -> list[float | int | bool | str | None]:
    """Values that every file format can hold, ``None`` where missing or infinite."""
    if pd.api.types.is_bool_dtype(column):
        return [None if pd.isna(value) else bool(value) for value in column]
    if pd.api.types.is_integer_dtype(column):
        return [None if pd.isna(value) else int(value) for value in column]
    if pd.api.types.is_numeric_dtype(column):
        return [float(value) if pd.notna(value) and np.isfinite(value) else None for value in column]
    return [None if pd.isna(value) else str(value) for value in column]
