"""Regulators ranked by the edges that leave them, against degrees of networkx."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import sparsenode as sn


def test_degrees_are_those_of_networkx():
    rng = np.random.default_rng(0)
    weights = np.where(rng.random((9, 9)) < 0.4, rng.standard_normal((9, 9)), 0.0)
    genes = [f"gene{i}" for i in range(9)]
    pairs = [(source, target, weights[i, j]) for i, source in enumerate(genes) for j, target in enumerate(genes)]
    found = sn.tl.rank_regulators(pd.DataFrame(pairs, columns=["source", "target", "weight"]))
    graph = nx.DiGraph()
    graph.add_weighted_edges_from((a, b, abs(weight)) for a, b, weight in pairs if weight != 0 and a != b)
    degrees = {name: degree for name, degree in graph.out_degree(weight="weight") if degree > 0}
    assert list(found.index) == sorted(degrees, key=lambda name: -degrees[name])
    np.testing.assert_allclose(found["strength"], [degrees[name] for name in found.index])
    assert found["n_targets"].to_dict() == {name: graph.out_degree(name) for name in found.index}
    signs = np.sign(weights - np.diag(np.diagonal(weights)))
    by_sign = {"n_activated": (signs > 0).sum(1), "n_repressed": (signs < 0).sum(1)}
    for column, counts in by_sign.items():
        assert (found[column] == pd.Series(counts, genes)[found.index]).all()


def test_of_a_fit(fitted):
    """Self edges are the strongest of a fit and do not count; neither do lineages that are not asked for."""
    network = fitted.get_network("erythroid")
    found = sn.tl.rank_regulators(network)
    matrix = fitted.get_adjacency("erythroid").abs()
    np.fill_diagonal(values := matrix.to_numpy(copy=True), 0.0)
    expected = pd.Series(values.sum(0), matrix.columns)
    np.testing.assert_allclose(found["strength"], expected[found.index])
    assert set(found.index) == set(expected[expected > 0].index)


def test_ties_go_by_name_and_no_edges_are_no_rows():
    network = pd.DataFrame({"source": ["b", "a", "c"], "target": ["c", "c", "c"], "weight": [-1, 1, 5]})
    found = sn.tl.rank_regulators(network)
    assert found.index.tolist() == ["a", "b"]
    assert found.index.name == "source"
    assert found.dtypes.astype(str).tolist() == ["float64", "int64", "int64", "int64"]
    empty = sn.tl.rank_regulators(network.iloc[2:])
    assert len(empty) == 0
    assert empty.columns.equals(found.columns)


def test_networks_of_several_lineages_are_refused():
    edges = pd.DataFrame({"source": ["a", "a"], "target": ["b", "b"], "weight": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"every edge of `network` once, found 1 repeated ones, a → b"):
        sn.tl.rank_regulators(edges)
