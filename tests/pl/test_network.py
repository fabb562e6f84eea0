"""Graphs of the strongest edges: what is drawn, with which sign, and that nothing is hidden or clipped."""

from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import ArrowStyle, FancyArrowPatch
from scipy import sparse

import sparsenode as sn
from sparsenode.pl._network import _Nodes

ACTIVATION, REPRESSION = "#d55e00", "#0072b2"


def drawn(axis: Axes) -> pd.DataFrame:
    """Edges of the picture, read from where the arrows start and end."""
    (nodes,) = axis.collections
    names, points = [text.get_text() for text in axis.texts], np.asarray(nodes.get_offsets())
    nearest = lambda point: names[int(np.linalg.norm(points - point, axis=1).argmin())]
    rows = []
    for patch in axis.patches:
        assert isinstance(patch, FancyArrowPatch)
        start, end = (np.asarray(point) for point in patch._posA_posB)
        bar = isinstance(patch.get_arrowstyle(), ArrowStyle.BracketB)
        rows.append((nearest(start), nearest(end), to_hex(patch.get_edgecolor()), bar, patch.get_linewidth()))
    return pd.DataFrame(rows, columns=["source", "target", "color", "bar", "width"])


@pytest.fixture
def known(results):
    """Edges by hand: gene2 activates three genes, gene5 represses gene2, and gene1 regulates itself most of all."""
    matrix = np.zeros((8, 8), dtype=np.float32)
    matrix[[0, 3, 4], 2] = 1.0, 2.0, 0.5
    matrix[2, 5] = -4.0
    matrix[1, 1] = 9.0
    results.varp["sparsenode_adjacency"] = sparse.csr_matrix(matrix)
    return results


def test_edges(known):
    edges = drawn(sn.pl.network(known)).set_index(["source", "target"])
    assert set(edges.index) == {("gene2", "gene0"), ("gene2", "gene3"), ("gene2", "gene4"), ("gene5", "gene2")}
    assert (edges.loc["gene2", "color"] == ACTIVATION).all()
    assert not edges.loc["gene2", "bar"].any()
    assert edges.loc[("gene5", "gene2"), "color"] == REPRESSION
    assert edges.loc[("gene5", "gene2"), "bar"]
    # Lines are as wide as weights are large, in proportion above the thinnest.
    width = edges["width"] - 0.6
    assert width["gene5", "gene2"] == pytest.approx(2 * width["gene2", "gene3"])
    assert width["gene2", "gene3"] == pytest.approx(4 * width["gene2", "gene4"])
    assert width["gene5", "gene2"] == pytest.approx(3.0 - 0.6)  # of the largest, whatever the unit


def test_nodes(known):
    axis = sn.pl.network(known)
    (nodes,) = axis.collections
    names = [text.get_text() for text in axis.texts]
    assert sorted(names) == ["gene0", "gene2", "gene3", "gene4", "gene5"]  # not gene1, which regulates itself alone
    area = dict(zip(names, nodes.get_sizes(), strict=True))
    assert area["gene2"] > area["gene5"] > area["gene0"] == area["gene3"] == area["gene4"]
    regulators = {name for name, color in zip(names, nodes.get_facecolors(), strict=True) if color[0] < 0.5}
    assert regulators == {"gene2", "gene5"}


def test_legend(known):
    labels = [text.get_text().strip() for text in sn.pl.network(known).get_legend().get_texts()]
    assert labels == ["activation", "repression", "|weight| 0.5", "|weight| 4", "1 target", "3 targets"]
    known.varp["sparsenode_adjacency"] = abs(known.varp["sparsenode_adjacency"])
    labels = [text.get_text().strip() for text in sn.pl.network(known).get_legend().get_texts()]
    assert labels == ["activation", "", "|weight| 0.5", "|weight| 4", "1 target", "3 targets"]


@pytest.mark.parametrize("layout", ["spring", "kamada_kawai"])
def test_of_a_fit(cells, layout):
    axis = sn.pl.network(cells, n_edges=12, layout=layout)
    matrix = cells.varp["sparsenode_adjacency"].toarray()
    np.fill_diagonal(matrix, 0.0)
    flat = pd.DataFrame(matrix, cells.var_names, cells.var_names).T.stack()
    strongest = flat[flat.abs().sort_values(ascending=False).index[:12]]
    edges = drawn(axis).set_index(["source", "target"])
    assert set(edges.index) == set(strongest.index)
    assert ((edges["color"] == ACTIVATION) == (strongest > 0).reindex(edges.index)).all()


@pytest.mark.parametrize("lineage", ["erythroid", "myeloid"])
def test_lineage(cells, lineage):
    edges = drawn(sn.pl.network(cells, lineage=lineage, n_edges=1))
    matrix = cells.varp[f"sparsenode_adjacency_{lineage}"].toarray()
    np.fill_diagonal(matrix, 0)
    target, source = np.unravel_index(np.abs(matrix).argmax(), matrix.shape)
    assert edges.loc[0, ["source", "target"]].tolist() == [f"gene{source}", f"gene{target}"]


@pytest.mark.parametrize("block", ["position", "velocity"])
def test_block(second_order, block):
    """One edge per block, which the other one and the union do not have."""
    second_order.varp["sparsenode_adjacency"] = sparse.csr_matrix((4, 4), dtype=np.float32)
    for name, place in (("position", (0, 1)), ("velocity", (2, 3))):
        matrix = np.zeros((4, 4), dtype=np.float32)
        matrix[place] = 1.0
        second_order.varp[f"sparsenode_{name}_adjacency"] = sparse.csr_matrix(matrix)
    edges = drawn(sn.pl.network(second_order, block=block))
    expected = {"position": ["gene1", "gene0"], "velocity": ["gene3", "gene2"]}
    assert edges[["source", "target"]].to_numpy().tolist() == [expected[block]]


def test_number_of_edges(many_genes):
    """Gene i drives gene i + 1 with a weight that grows with i."""
    edges = drawn(sn.pl.network(many_genes, n_edges=5))
    assert set(edges["source"]) == {f"g{i}" for i in range(294, 299)}
    assert len(drawn(sn.pl.network(many_genes))) == 50
    edges = drawn(sn.pl.network(many_genes, n_edges=2, regulators="is_tf"))
    assert set(zip(edges["source"], edges["target"], strict=True)) == {("g290", "g291"), ("g280", "g281")}


def test_regulators(known):
    edges = drawn(sn.pl.network(known, regulators=["gene5", "gene2"], n_edges=2))
    assert set(zip(edges["source"], edges["target"], strict=True)) == {("gene5", "gene2"), ("gene2", "gene3")}
    assert len(drawn(sn.pl.network(known, regulators="gene2"))) == 3


def test_warns_of_regulators_that_are_named_and_not_drawn(known, many_genes):
    """More edges help only where there are some."""
    with pytest.warns(UserWarning, match="of the `regulators` have no") as seen:
        edges = drawn(sn.pl.network(known, regulators=["gene5", "gene7", "gene1", "gene2", "gene2"], n_edges=1))
    assert edges[["source", "target"]].to_numpy().tolist() == [["gene5", "gene2"]]
    weaker, without = (str(warning.message) for warning in seen)
    assert weaker.startswith("1 of the `regulators` have none of their 1 strongest edges: ['gene2']. Raise `n_edges`")
    assert without.startswith("2 of the `regulators` have no edge to another gene: ['gene1', 'gene7']. There is none")
    assert {warning.filename for warning in seen} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sn.pl.network(many_genes, n_edges=2, regulators="is_tf")  # a column of all factors names none


def test_dense_adjacency_and_stored_zeros(known):
    expected = drawn(sn.pl.network(known))
    stored = known.varp["sparsenode_adjacency"].copy()
    stored.data[0] = 0.0
    known.varp["sparsenode_adjacency"] = known.varp["sparsenode_adjacency"].toarray()
    pd.testing.assert_frame_equal(drawn(sn.pl.network(known)), expected)
    known.varp["sparsenode_adjacency"] = stored
    axis = sn.pl.network(known)
    assert len(drawn(axis)) == len(expected) - 1
    assert sorted(text.get_text() for text in axis.texts) == ["gene2", "gene3", "gene4", "gene5"]


def test_an_edge_and_its_reverse_are_apart(known):
    matrix = np.zeros((8, 8), dtype=np.float32)
    matrix[0, 1], matrix[1, 0] = 1.0, -1.0
    known.varp["sparsenode_adjacency"] = sparse.csr_matrix(matrix)
    axis = sn.pl.network(known)
    axis.figure.canvas.draw()
    first, second = (patch.get_path().vertices.mean(0) for patch in axis.patches)
    assert np.linalg.norm(first - second) > 4


def hubs(adata, n_hubs: int, per_hub: int):
    generator = np.random.default_rng(0)
    matrix = np.zeros((adata.n_vars, adata.n_vars), dtype=np.float32)
    for hub in range(n_hubs):
        matrix[generator.choice(np.arange(n_hubs, adata.n_vars), per_hub, replace=False), hub] = generator.normal(
            size=per_hub
        )
    adata.varp["sparsenode_adjacency"] = sparse.csr_matrix(matrix)
    adata.var_names = [f"GENE{i}-AS1" for i in range(adata.n_vars)]
    return adata


@pytest.mark.parametrize("n_edges", [1, 10, 50, 100])
@pytest.mark.parametrize("kind", ["chain", "hubs"])
def test_labels_are_readable(many_genes, n_edges, kind):
    """No two labels overlap, and nodes, labels and legend lie within the figure."""
    adata = hubs(many_genes, 4, 30) if kind == "hubs" else many_genes
    figure = sn.pl.network(adata, n_edges=n_edges, return_fig=True)
    figure.canvas.draw()
    (axis,) = figure.axes
    boxes = [text.get_window_extent() for text in axis.texts]
    for i, first in enumerate(boxes):
        assert not any(first.overlaps(second) for second in boxes[:i])
    frame = figure.bbox
    for box in (*boxes, axis.collections[0].get_window_extent(), axis.get_legend().get_window_extent()):
        assert box.x0 >= frame.x0
        assert box.x1 <= frame.x1
        assert box.y0 >= frame.y0
        assert box.y1 <= frame.y1
    legend = axis.get_legend().get_window_extent()
    assert not any(legend.overlaps(box) for box in boxes)
    assert max(figure.get_size_inches()) < 20


@pytest.mark.parametrize(("style", "halo"), [("default", "#ffffff"), ("dark_background", "#000000")])
def test_labels_stand_out_from_their_halo(known, style, halo):
    with plt.style.context(style):
        labels = sn.pl.network(known).texts
    assert {to_hex(label.get_path_effects()[0]._gc["foreground"]) for label in labels} == {halo}
    assert halo not in {to_hex(label.get_color()) for label in labels}


def test_edges_end_where_nodes_and_labels_begin():
    nodes = _Nodes(np.zeros((1, 2)), np.array([10.0]), np.array([[40.0, 10.0]]))
    assert nodes.reach(0, np.array([0.0, 1.0])) == 5  # from above: at the node
    assert nodes.reach(0, np.array([1.0, 0.0])) == 5
    assert nodes.reach(0, np.array([0.0, -1.0])) == pytest.approx(5 + 1.5 + 10)  # from below: beneath the label
    assert nodes.reach(0, np.array([-1.0, -1.0])) == pytest.approx(16.5 * np.sqrt(2))
    assert nodes.reach(0, np.array([1.0, -0.1])) == 5  # passes above the label


def test_names_are_not_taken_for_mathematics(known):
    known.var_names = ["a$b$c", "x_1", "$", "y^2", "\\alpha", "e", "f", "g"]
    axis = sn.pl.network(known)
    axis.figure.canvas.draw()
    assert "$" in [text.get_text() for text in axis.texts]


def test_nothing_but_zeros(results):
    results.varp["sparsenode_adjacency"] = sparse.csr_matrix((8, 8), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        axis = sn.pl.network(results)
        axis.figure.canvas.draw()
    assert [text.get_text() for text in axis.texts] == ["no edges"]


def test_given_axes(known):
    figure, grid = plt.subplots(1, 2, figsize=(5, 2))
    axis = sn.pl.network(known, ax=grid[1])
    assert axis is grid[1]
    assert len(drawn(axis)) == 4
    assert not grid[0].patches
    assert axis.texts[0].get_fontsize() < 8  # all of it shrinks
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axis.texts]
    for i, first in enumerate(boxes):
        assert not any(first.overlaps(second) for second in boxes[:i])


def test_same_picture_twice(known):
    first, second = (np.asarray(sn.pl.network(known).collections[0].get_offsets()) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_data_are_not_changed(known):
    before = known.varp["sparsenode_adjacency"].toarray()
    sn.pl.network(known)
    np.testing.assert_array_equal(known.varp["sparsenode_adjacency"].toarray(), before)


def test_what_is_returned(results, shown):
    assert isinstance(sn.pl.network(results), Axes)
    assert isinstance(sn.pl.network(results, show=False), Axes)
    assert isinstance(sn.pl.network(results, return_fig=True), Figure)
    assert shown() == 0
    assert sn.pl.network(results, show=True) is None
    assert shown() == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"regulators": ["SOX2"]}, ValueError, r"`regulators`.*found \['SOX2'\]"),
        (
            {"lineage": "lymphoid"},
            KeyError,
            r"`lineage` to be one of \[.*myeloid.*\], found 'lymphoid'.*sparsenode_adjacency_lymphoid",
        ),
        ({"key": "other"}, KeyError, r"adata.uns\['other'\]"),
        ({"block": "velocity"}, ValueError, "no `block` of a first-order fit, found 'velocity'.*Leave it out"),
        ({"block": "speed"}, ValueError, r"`block` to be one of \['position', 'velocity'\], found 'speed'"),
        ({"n_edges": 0}, ValueError, "`n_edges` to be an integer of at least 1, found 0"),
        ({"layout": "dot"}, ValueError, r"`layout` to be one of \['spring', 'kamada_kawai'\], found 'dot'"),
    ],
    ids=str,
)
def test_errors(results, arguments, error, message):
    with pytest.raises(error, match=message):
        sn.pl.network(results, **arguments)


def test_a_gene_whose_name_is_blank(results):
    results.var_names = [" ", *results.var_names[1:]]
    figure = sn.pl.network(results, return_fig=True)
    assert " " in [text.get_text() for text in figure.axes[0].texts]
    figure.canvas.draw()
