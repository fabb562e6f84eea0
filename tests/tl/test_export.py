"""Networks as graphs, files and tables of other tools."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import sparsenode as sn

NETWORK = pd.DataFrame(
    {
        "source": ["GATA1", "GATA1", "SPI1", "KLF1"],
        "target": ["KLF1", "SPI1", "GATA1", "KLF1"],
        "weight": [0.5, -2.0, -0.25, 1.0],
        "frequency": [1.0, 0.6, 0.2, 0.5],
    }
)


def same(first: nx.DiGraph, second: nx.DiGraph) -> bool:
    """Same direction, nodes, edges and attributes."""
    assert first.is_directed()
    assert second.is_directed()
    return dict(first.nodes(data=True)) == dict(second.nodes(data=True)) and dict(first.edges) == dict(second.edges)


def test_networkx_of_its_own_table():
    """It has a column ``sign``; other columns may be named like arguments of networkx."""
    graph = sn.tl.to_networkx(NETWORK)
    table = nx.to_pandas_edgelist(graph)
    assert "sign" in table
    assert same(sn.tl.to_networkx(table), graph)
    named = sn.tl.to_networkx(NETWORK.assign(u_of_edge="x", sign="wrong"))
    assert named.edges["GATA1", "KLF1"] == {"weight": 0.5, "frequency": 1.0, "u_of_edge": "x", "sign": "activation"}


def test_networkx():
    graph = sn.tl.to_networkx(NETWORK)
    assert type(graph) is nx.DiGraph
    assert list(graph) == ["GATA1", "KLF1", "SPI1"]
    assert dict(graph.edges) == {
        ("GATA1", "KLF1"): {"weight": 0.5, "frequency": 1.0, "sign": "activation"},
        ("GATA1", "SPI1"): {"weight": -2.0, "frequency": 0.6, "sign": "repression"},
        ("SPI1", "GATA1"): {"weight": -0.25, "frequency": 0.2, "sign": "repression"},
        ("KLF1", "KLF1"): {"weight": 1.0, "frequency": 0.5, "sign": "activation"},
    }
    assert graph.out_degree("GATA1") == 2  # edges leave the regulator
    assert graph.in_degree("SPI1") == 1


def test_networkx_agrees_with_its_own_reader():
    expected = nx.from_pandas_edgelist(NETWORK, edge_attr=["weight", "frequency"], create_using=nx.DiGraph)
    found = sn.tl.to_networkx(NETWORK)
    for _, _, values in found.edges(data=True):
        del values["sign"]
    assert same(found, expected)


def test_plain_types():
    network = NETWORK.astype({"source": "category", "target": "category", "weight": np.float32}).assign(
        count=np.array([1, 2, 3, 4], dtype=np.int16),
        known=[True, False, True, False],
        evidence=pd.Categorical(["chip", None, "motif", "chip"]),
        score=[np.nan, np.inf, 1.0, -np.inf],
        nullable=pd.array([1, None, 2, 3], dtype="Int64"),
        share=pd.array([0.5, None, np.inf, 1.0], dtype="Float64"),
        tested=pd.array([False, None, True, True], dtype="boolean"),
    )
    graph = sn.tl.to_networkx(network)
    assert all(type(gene) is str for gene in graph)
    first, second = graph.edges["GATA1", "KLF1"], graph.edges["GATA1", "SPI1"]
    assert {name: type(value) for name, value in first.items()} == {
        "weight": float,
        "frequency": float,
        "count": int,
        "known": bool,
        "evidence": str,
        "nullable": int,
        "share": float,
        "tested": bool,
        "sign": str,
    }
    assert set(second) == {"weight", "frequency", "count", "known", "sign"}  # missing and infinite values are left out


def test_edges_of_weight_zero():
    network = NETWORK.assign(weight=[0.5, 0.0, 0.0, 1.0])
    graph = sn.tl.to_networkx(network)
    assert list(graph.edges) == [("GATA1", "KLF1"), ("KLF1", "KLF1")]
    assert "SPI1" in graph
    assert len(sn.tl.to_decoupler(network, self_edges=True)) == 2


def test_of_a_fit(fitted):
    network = fitted.get_network()
    graph = sn.tl.to_networkx(network)
    assert graph.number_of_edges() == len(network)
    adjacency = fitted.get_adjacency()
    for source, target, weight in graph.edges(data="weight"):
        assert adjacency.loc[target, source] == pytest.approx(weight)


def test_empty():
    assert len(sn.tl.to_networkx(NETWORK[:0])) == 0
    assert list(sn.tl.to_decoupler(NETWORK[:0]).columns) == ["source", "target", "weight"]


@pytest.mark.parametrize("as_text", [False, True])
def test_graphml_round_trip(tmp_path, as_text):
    network = NETWORK.assign(count=np.array([1, 2, 3, 4]), known=[True, False, True, False], evidence=list("abcd"))
    network = network.astype({"weight": np.float32})
    path = tmp_path / "network.graphml"
    sn.tl.write_graphml(network, str(path) if as_text else path)
    assert same(nx.read_graphml(path), sn.tl.to_networkx(network))


def test_graphml_of_odd_names(tmp_path):
    network = NETWORK.assign(source=["HLA-DRA", "NKX2.5", "a & <b>", "Übergang"], score=[np.nan, 1.0, np.inf, 2.0])
    sn.tl.write_graphml(network, tmp_path / "network.graphml")
    assert same(nx.read_graphml(tmp_path / "network.graphml"), sn.tl.to_networkx(network))


def test_graphml_has_types_that_cytoscape_knows(tmp_path):
    sn.tl.write_graphml(NETWORK.assign(score=[np.nan, 1.0, np.inf, 2.0]), tmp_path / "network.graphml")
    root = ET.parse(tmp_path / "network.graphml").getroot()
    space = root.tag.removesuffix("graphml")
    types = {key.get("attr.name"): key.get("attr.type") for key in root.iter(f"{space}key")}
    assert types == {"weight": "double", "frequency": "double", "sign": "string", "score": "double"}
    assert root.find(f"{space}graph").get("edgedefault") == "directed"
    values = [data.text for data in root.iter(f"{space}data")]
    assert not {"nan", "inf", "-inf"} & set(values)  # Java cannot read them
    edge = next(root.iter(f"{space}edge"))
    assert (edge.get("source"), edge.get("target")) == ("GATA1", "KLF1")


def test_csv_round_trip(tmp_path):
    """What the documentation recommends."""
    NETWORK.to_csv(tmp_path / "network.csv", index=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "network.csv"), NETWORK)


def test_decoupler():
    """What decoupler 2 demands: source and target as text, float weights, no edge twice."""
    table = sn.tl.to_decoupler(NETWORK.astype({"source": "category", "weight": np.float32}), self_edges=True)
    assert list(table.columns) == ["source", "target", "weight"]
    assert table["weight"].tolist() == [-2.0, 1.0, 0.5, -0.25]
    assert table["source"].tolist() == ["GATA1", "KLF1", "GATA1", "SPI1"]
    assert table["weight"].dtype == np.float64
    assert all(type(name) is str for name in table["source"])
    assert list(table.index) == [0, 1, 2, 3]
    assert not table.duplicated(["source", "target"]).any()


@pytest.mark.parametrize("kind", [str, "category"])
def test_decoupler_without_self_edges(kind):
    """By default; columns may be categories of different genes."""
    network = NETWORK.astype({"source": kind, "target": kind})
    table, every = sn.tl.to_decoupler(network), sn.tl.to_decoupler(network, self_edges=True)
    assert list(zip(table["source"], table["target"], strict=True)) == [
        ("GATA1", "SPI1"),
        ("GATA1", "KLF1"),
        ("SPI1", "GATA1"),
    ]
    pd.testing.assert_frame_equal(every.query("source != target").reset_index(drop=True), table)
    assert len(every) == len(NETWORK)


@pytest.mark.parametrize(("minimum", "expected"), [(0, 3), (0.5, 2), (0.6, 2), (1, 1)])
def test_decoupler_frequency(minimum, expected):
    assert len(sn.tl.to_decoupler(NETWORK, min_frequency=minimum)) == expected
    own = minimum <= 0.5  # the frequency of the self edge
    assert len(sn.tl.to_decoupler(NETWORK, min_frequency=minimum, self_edges=True)) == expected + own


def test_whether_self_edges_are_kept_is_a_boolean():
    with pytest.raises(TypeError, match="`self_edges` to be True or False, found 'no'"):
        sn.tl.to_decoupler(NETWORK, self_edges="no")


def test_edges_of_equal_strength_keep_their_order():
    """That of the network, so that what is cut off after the strongest does not change from run to run."""
    weight = np.tile([1.0, -1.0, 2.0], 20)
    network = pd.DataFrame({"source": [f"g{k}" for k in range(60)], "target": "x", "weight": weight})
    expected = sorted(range(60), key=lambda k: -abs(weight[k]))
    assert sn.tl.to_decoupler(network)["source"].tolist() == [f"g{k}" for k in expected]


def test_names_that_are_numbers_in_one_column_alone():
    network = pd.DataFrame({"source": [1, 1], "target": ["1", "2"], "weight": 1.0})
    assert sn.tl.to_decoupler(network)["target"].tolist() == ["2"]
    assert list(nx.selfloop_edges(sn.tl.to_networkx(network))) == [("1", "1")]


def test_inputs_are_not_changed(tmp_path):
    before = NETWORK.copy()
    sn.tl.to_networkx(NETWORK)
    sn.tl.to_decoupler(NETWORK, 0.5)
    sn.tl.write_graphml(NETWORK, tmp_path / "network.graphml")
    pd.testing.assert_frame_equal(NETWORK, before)


@pytest.mark.parametrize("export", [sn.tl.to_networkx, sn.tl.to_decoupler])
@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (NETWORK.drop(columns="weight"), KeyError, r"\['weight'\] not found in"),
        (NETWORK.rename(columns={"source": "regulator"}), KeyError, r"\['source'\] not found in"),
        (
            NETWORK.assign(target=NETWORK["target"].where([True, False, True, True])),
            ValueError,
            "found none in row 1",
        ),
        (NETWORK.assign(weight=[1.0, np.nan, np.inf, 1.0]), ValueError, "found 2 NaN or infinite ones of 4"),
        (NETWORK.assign(weight="+"), TypeError, "numbers in the column `weight` of `network`.*'\\+'"),
        (pd.concat([NETWORK, NETWORK[:1]]), ValueError, "found 1 repeated ones, GATA1 → KLF1 for instance"),
        (pd.concat([NETWORK, NETWORK[1:].assign(weight=0.1)]), ValueError, "found 3 repeated ones, GATA1 → SPI1"),
    ],
    ids=["no weight", "other names", "no gene", "not finite", "no numbers", "twice", "two weights"],
)
def test_errors(export, network, error, message):
    with pytest.raises(error, match=message):
        export(network)


def test_errors_of_frequency():
    with pytest.raises(ValueError, match=r"`min_frequency` to be in \[0, 1\], found 50"):
        sn.tl.to_decoupler(NETWORK, 50)
    with pytest.raises(KeyError, match="'frequency' for `min_frequency`.*n_seeds=10"):
        sn.tl.to_decoupler(NETWORK.drop(columns="frequency"), 0.5)


def test_magnitudes_for_the_width_of_edges_reach_graphml(tmp_path):
    """As the docstring of ``write_graphml`` says: weights of repressions are negative."""
    network = pd.DataFrame({"source": ["a", "b"], "target": ["b", "c"], "weight": [1.0, -8.0]})
    sn.tl.write_graphml(network.assign(magnitude=network["weight"].abs()), tmp_path / "network.graphml")
    read = nx.read_graphml(tmp_path / "network.graphml")
    assert [read.edges[edge]["magnitude"] for edge in (("a", "b"), ("b", "c"))] == [1.0, 8.0]
    assert read.edges["b", "c"]["weight"] == -8.0
