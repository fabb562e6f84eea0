from __future__ import annotations

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import sparse

import sparsenode as sn


def drawn(axis: Axes) -> tuple[np.ma.MaskedArray, list[str], list[str]]:
    """The picture, the names of its rows and those of its columns."""
    (image,) = axis.images
    rows, columns = ([t.get_text() for t in labels] for labels in (axis.get_yticklabels(), axis.get_xticklabels()))
    return image.get_array(), rows, columns


def test_structure(cells):
    axis = sn.pl.adjacency(cells)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("regulator", "target")
    block, rows, columns = drawn(axis)
    assert sorted(rows) == sorted(columns) == list(cells.var_names)
    matrix = cells.varp["sparsenode_adjacency"].toarray()
    np.fill_diagonal(matrix, 0)
    expected = matrix[np.ix_(cells.var_names.get_indexer(rows), cells.var_names.get_indexer(columns))]
    np.testing.assert_array_equal(block.filled(0), expected)
    np.testing.assert_array_equal(block.mask | np.zeros(block.shape, bool), expected == 0)
    colorbar = axis.figure.axes[1]
    assert colorbar.get_ylabel().startswith("weight (1 / time;")


@pytest.mark.parametrize(
    ("weights", "order", "unit"), [("balanced", 1, "no unit"), ("paths", 1, "1 / time"), ("paths", 2, "1 / time²")]
)
def test_unit_of_the_weights(results, weights, order, unit):
    results.uns["sparsenode"]["parameters"] |= {"weights": weights, "order": order}
    bar = sn.pl.adjacency(results).figure.axes[1]
    assert bar.get_ylabel().startswith(f"weight ({unit};")


def test_rows_are_targets(results):
    """One edge, gene2 to gene5."""
    matrix = np.zeros((8, 8), dtype=np.float32)
    matrix[5, 2] = -1.5
    results.varp["sparsenode_adjacency"] = sparse.csr_matrix(matrix)
    block, rows, columns = drawn(sn.pl.adjacency(results))
    assert block.count() == 1
    assert block[rows.index("gene5"), columns.index("gene2")] == -1.5


def test_colors_are_centred_on_zero(results):
    (image,) = sn.pl.adjacency(results).images
    assert image.norm(0.0) == 0.5
    assert image.norm.vmin == -image.norm.vmax < 0
    red, green, blue, _ = image.cmap(image.norm(image.norm.vmax))
    assert red > blue  # activation is red


def test_zeros_are_grey_and_not_white(results):
    axis = sn.pl.adjacency(results)
    face = axis.get_facecolor()[:3]
    assert face[0] == face[1] == face[2] < 0.95


def test_self_edges_are_hatched_and_choose_nothing(many_genes):
    """A self edge a million times as strong as the others changes neither colours nor rows nor columns."""
    expected, rows, columns = drawn(sn.pl.adjacency(many_genes, n_top=5))
    stored = many_genes.varp["sparsenode_adjacency"].tolil()
    stored[0, 0] = stored[296, 296] = 1e8
    many_genes.varp["sparsenode_adjacency"] = stored.tocsr()
    axis = sn.pl.adjacency(many_genes, n_top=5)
    block, found_rows, found_columns = drawn(axis)
    assert (found_rows, found_columns) == (rows, columns)
    np.testing.assert_array_equal(block.filled(0), expected.filled(0))
    assert axis.images[0].norm.vmax < 300
    (patch,) = axis.patches
    assert patch.get_hatch()
    assert patch.get_xy() == (columns.index("g296") - 0.5, rows.index("g296") - 0.5)
    assert "hatched: self edge" in axis.figure.axes[1].get_ylabel()


def test_without_self_edges_nothing_is_hatched(many_genes):
    axis = sn.pl.adjacency(many_genes)
    assert len(axis.patches) == 0
    assert "hatched" not in axis.figure.axes[1].get_ylabel()


@pytest.mark.parametrize("lineage", ["erythroid", "myeloid"])
def test_lineage(cells, lineage):
    block, rows, columns = drawn(sn.pl.adjacency(cells, lineage=lineage, cluster=False))
    assert rows == columns == list(cells.var_names)
    expected = cells.varp[f"sparsenode_adjacency_{lineage}"].toarray()
    np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(block.filled(0), expected)


@pytest.mark.parametrize("block", ["position", "velocity"])
def test_block(second_order, block):
    found, *_ = drawn(sn.pl.adjacency(second_order, block=block, cluster=False))
    expected = second_order.varp[f"sparsenode_{block}_adjacency"].toarray()
    np.fill_diagonal(expected, 0)
    assert (expected != 0).any()
    np.testing.assert_array_equal(found.filled(0), expected)
    assert not np.array_equal(drawn(sn.pl.adjacency(second_order, cluster=False))[0].filled(0), expected)


def test_without_clustering_genes_keep_their_order(results):
    _, rows, columns = drawn(sn.pl.adjacency(results, cluster=False))
    assert rows == columns == list(results.var_names)


def test_clustering_puts_similar_rows_together(results):
    matrix = np.zeros((8, 8), dtype=np.float32)
    matrix[::2, :2], matrix[1::2, 6:] = 1.0, -2.0
    results.varp["sparsenode_adjacency"] = sparse.csr_matrix(matrix)
    _, rows, _ = drawn(sn.pl.adjacency(results))
    even = [int(name[4:]) % 2 == 0 for name in rows]
    assert even in ([True] * 4 + [False] * 4, [False] * 4 + [True] * 4)


def test_clustering_puts_similar_columns_together_whatever_their_signs(results):
    matrix = np.zeros((8, 8), dtype=np.float32)
    matrix[:2, ::2], matrix[6:, 1::2] = 1.0, -1.0
    matrix[:2, :4] *= -1
    results.varp["sparsenode_adjacency"] = sparse.csr_matrix(matrix)
    _, _, columns = drawn(sn.pl.adjacency(results))
    even = [int(name[4:]) % 2 == 0 for name in columns]
    assert even in ([True] * 4 + [False] * 4, [False] * 4 + [True] * 4)


def test_columns_by_name(results):
    block, rows, columns = drawn(sn.pl.adjacency(results, regulators=["gene6", "gene1"], targets=["gene0", "gene7"]))
    assert sorted(columns) == ["gene1", "gene6"]
    assert sorted(rows) == ["gene0", "gene7"]
    assert block.shape == (2, 2)


def test_columns_by_a_marker_in_var(cells):
    cells.var["is_tf"] = np.arange(8) < 3
    _, rows, columns = drawn(sn.pl.adjacency(cells, regulators="is_tf"))
    assert sorted(columns) == ["gene0", "gene1", "gene2"]
    assert len(rows) == 8
    cells.var["is_tf"] = False
    with pytest.raises(ValueError, match=r"`adata.var\['is_tf'\]` to mark regulators, found none"):
        sn.pl.adjacency(cells, regulators="is_tf")


@pytest.mark.parametrize(
    "marker", [["True", "False"] * 4, [0.1, 0.0] * 4, [True, None] * 4], ids=["text", "numbers", "missing"]
)
def test_a_marker_that_is_not_boolean(cells, marker):
    cells.var["is_tf"] = pd.array(marker, dtype="boolean") if None in marker else marker
    with pytest.raises(TypeError, match=r"`adata.var\['is_tf'\]` to be boolean"):
        sn.pl.adjacency(cells, regulators="is_tf", show=False)


def test_one_regulator_and_one_target(results):
    block, rows, columns = drawn(sn.pl.adjacency(results, regulators="gene3", targets="gene4"))
    assert (rows, columns, block.shape) == (["gene4"], ["gene3"], (1, 1))


def test_strongest_of_many_genes(many_genes):
    """Gene i drives gene i + 1 with a weight that grows with i."""
    block, rows, columns = drawn(sn.pl.adjacency(many_genes, n_top=5))
    assert sorted(columns) == [f"g{i}" for i in range(294, 299)]
    assert sorted(rows) == [f"g{i}" for i in range(295, 300)]
    assert block.count() == 5
    assert drawn(sn.pl.adjacency(many_genes))[0].shape == (40, 40)
    _, rows, columns = drawn(sn.pl.adjacency(many_genes, regulators="is_tf", n_top=2))
    assert sorted(columns) == ["g280", "g290"]
    assert sorted(rows) == ["g281", "g291"]  # the strongest targets of these, and not of all


def test_all_of_300_genes(many_genes):
    axis = sn.pl.adjacency(many_genes, n_top=300)
    block, rows, _ = drawn(axis)
    matrix = many_genes.varp["sparsenode_adjacency"].toarray()
    assert block.shape == (300, 300)
    assert len(rows) <= 60
    # Thinned labels still stand at their rows.
    for name, tick in zip(rows, axis.get_yticks(), strict=True):
        target = many_genes.var_names.get_loc(name)
        np.testing.assert_allclose(np.sort(block[int(tick)].filled(0)), np.sort(matrix[target]))


def test_where_genes_are_chosen_those_without_edges_are_left_out_unless_they_are_named(results):
    matrix = np.zeros((8, 8), dtype=np.float32)
    matrix[[2, 3, 5], [1, 1, 6]] = [1.0, -1.0, 0.5]
    matrix[4, 4] = 2.0
    results.varp["sparsenode_adjacency"] = sparse.csr_matrix(matrix)
    assert drawn(sn.pl.adjacency(results))[0].shape == (8, 8)  # zeros are news where all fit
    _, rows, columns = drawn(sn.pl.adjacency(results, cluster=False, n_top=5))
    assert (rows, columns) == (["gene2", "gene3", "gene5"], ["gene1", "gene6"])
    results.var["tf"] = np.arange(8) < 5
    assert drawn(sn.pl.adjacency(results, regulators="tf", n_top=4))[2] == ["gene1"]
    _, rows, columns = drawn(sn.pl.adjacency(results, regulators=["gene0", "gene1"], targets=["gene7"], cluster=False))
    assert (rows, columns) == (["gene7"], ["gene0", "gene1"])


def test_labels_do_not_overlap_on_given_axes(many_genes):
    figure, axis = plt.subplots(figsize=(4, 4))
    sn.pl.adjacency(many_genes, n_top=40, ax=axis)
    figure.canvas.draw()
    for labels, side in ((axis.get_yticklabels(), 1), (axis.get_xticklabels(), 0)):
        places = np.sort([label.get_window_extent().get_points()[:, side] for label in labels], axis=0)
        assert len(labels) >= 10
        assert (places[1:, 0] >= places[:-1, 1] - 1).all()


def test_nothing_but_zeros(results):
    results.varp["sparsenode_adjacency"] = sparse.csr_matrix((8, 8), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        axis = sn.pl.adjacency(results)
    assert drawn(axis)[0].count() == 0
    axis.figure.canvas.draw()


# Groups


def sides(axis: Axes) -> list[tuple[list[str], np.ndarray]]:
    """Names of groups and where they stand, at the top and at the right."""
    top, right = axis.child_axes
    named = ((top.get_xticklabels(), top.get_xticks()), (right.get_yticklabels(), right.get_yticks()))
    return [([label.get_text() for label in labels], ticks) for labels, ticks in named]


@pytest.mark.parametrize("cluster", [True, False])
def test_groups_stand_together(many_genes, cluster):
    parts = np.array(["leg", "arm", "head"])[np.arange(300) % 3]
    many_genes.var["part"] = pd.Categorical(parts, categories=["head", "leg", "tail", "arm"])
    axis = sn.pl.adjacency(many_genes, groupby="part", cluster=cluster, n_top=30)
    block, rows, columns = drawn(axis)
    matrix = many_genes.varp["sparsenode_adjacency"].toarray()
    found = matrix[np.ix_(many_genes.var_names.get_indexer(rows), many_genes.var_names.get_indexer(columns))]
    np.testing.assert_array_equal(block.filled(0), found)
    for genes, (names, centres) in zip((columns, rows), sides(axis), strict=True):
        groups = list(many_genes.var.loc[genes, "part"])
        assert names == list(dict.fromkeys(groups)) == ["head", "leg", "arm"]
        assert groups == sorted(groups, key=names.index)
        for name, centre in zip(names, centres, strict=True):
            assert centre == np.mean([i for i, group in enumerate(groups) if group == name])
        if not cluster:
            numbers = [int(gene[1:]) for gene in genes]
            assert numbers == sorted(numbers, key=lambda i: (names.index(many_genes.var["part"].iloc[i]), i))


def test_colors_of_groups(results):
    results.var["part"] = pd.Categorical(["a"] * 3 + ["b"] * 5)
    results.uns["part_colors"] = ["#ff0000", "#00ff00"]
    axis = sn.pl.adjacency(results, groupby="part")
    strips = [artist for artist in axis.get_children() if isinstance(artist, Line2D) and not artist.get_clip_on()]
    assert [to_hex(line.get_color()) for line in strips] == ["#ff0000", "#00ff00"] * 2
    limits = [tuple(line.get_xdata()) for line in strips[:2]]
    np.testing.assert_allclose(limits, [(-0.4, 2.4), (2.6, 7.4)])
    assert axis.get_xlim() == (-0.5, 7.5)
    across, down = [line for line in axis.lines if line.get_clip_on()]
    np.testing.assert_array_equal([across.get_xdata(), down.get_ydata()], [[2.5, 2.5]] * 2)
    # Rows and columns have groups of their own.
    axis = sn.pl.adjacency(results, groupby="part", regulators=["gene0", "gene1", "gene4"], targets=["gene5", "gene6"])
    (names, centres), (row_names, row_centres) = sides(axis)
    assert (names, row_names) == (["a", "b"], ["b"])
    np.testing.assert_array_equal([*centres, *row_centres], [0.5, 2.0, 0.5])
    assert not any(isinstance(artist, Line2D) for artist in sn.pl.adjacency(results).get_children())


def test_names_are_not_taken_for_mathematics(results):
    """Names and dollar signs are drawn as they are: an unfinished formula would raise when the figure is drawn."""
    names = ["$x_1$", "a$b^c$", "$\\frac$", "x_1", "$", "y^2", "\\alpha", "g"]
    results.var_names = names
    results.var["part"] = pd.Categorical(["$\\frac$"] * 3 + ["$b_1$"] * 5)
    axis = sn.pl.adjacency(results, groupby="part", cluster=False)
    axis.figure.canvas.draw()
    top, right = axis.child_axes
    for side in (axis.get_xticklabels(), axis.get_yticklabels(), top.get_xticklabels(), right.get_yticklabels()):
        assert not any(label.get_parse_math() for label in side)
    assert sorted(drawn(axis)[1]) == sorted(names)


def test_genes_without_a_group(results):
    with pytest.raises(KeyError, match=r"`groupby` to name a column of `adata.var`, found 'part'"):
        sn.pl.adjacency(results, groupby="part")
    results.var["part"] = ["a"] * 7 + [None]
    with pytest.raises(ValueError, match=r"`adata.var\['part'\]`, found none for \['gene7'\]"):
        sn.pl.adjacency(results, groupby="part")


def test_one_gene(make_adata, fit):
    adata = make_adata(n_vars=1)
    fit(adata, train={"max_epochs": 1})
    axis = sn.pl.adjacency(adata)
    assert drawn(axis)[0].shape == (1, 1)
    axis.figure.canvas.draw()


def test_given_axes(results):
    figure, axis = plt.subplots()
    assert sn.pl.adjacency(results, ax=axis) is axis
    assert sn.pl.adjacency(results, ax=axis, return_fig=True) is figure
    assert plt.get_fignums() == [figure.number]


def test_show(results, shown):
    assert isinstance(sn.pl.adjacency(results, show=False), Axes)
    assert isinstance(sn.pl.adjacency(results, return_fig=True), Figure)
    assert shown() == 0
    assert sn.pl.adjacency(results, show=True) is None
    assert shown() == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"regulators": ["SOX2"]}, ValueError, r"`regulators`.*found \['SOX2'\]"),
        ({"regulators": "SOX2"}, ValueError, r"`regulators`.*found \['SOX2'\]"),
        ({"targets": ["gene0", "SOX2"]}, ValueError, r"`targets`.*found \['SOX2'\]"),
        (
            {"lineage": "lymphoid"},
            KeyError,
            r"`lineage` to be one of \[.*myeloid.*\], found 'lymphoid'.*sparsenode_adjacency_lymphoid",
        ),
        ({"lineage": 0}, TypeError, r"`lineage` to be the name of a lineage, one of \[.*myeloid.*\], found 0"),
        ({"groupby": ["part"]}, KeyError, r"`groupby` to name a column of `adata.var`, found \['part'\]"),
        ({"key": "other"}, KeyError, r"adata.uns\['other'\]"),
        ({"block": "position"}, ValueError, "no `block` of a first-order fit, found 'position'.*Leave it out"),
        ({"n_top": 0}, ValueError, "`n_top` to be an integer of at least 1, found 0"),
        ({"cluster": "no"}, TypeError, "`cluster` to be True or False, found 'no'"),
        ({"n_top": 2.5}, ValueError, "`n_top` to be an integer of at least 1, found 2.5"),
        ({"block": "union"}, ValueError, r"`block` to be one of \['position', 'velocity'\], found 'union'"),
    ],
    ids=str,
)
def test_errors(results, arguments, error, message):
    with pytest.raises(error, match=message):
        sn.pl.adjacency(results, **arguments)


@pytest.mark.parametrize("plot", [sn.pl.adjacency, sn.pl.network])
def test_blocks_that_are_not_stored(second_order, plot):
    with pytest.raises(
        ValueError, match="`block` or `lineage`, found 'velocity' and 'myeloid'.*means over the lineages"
    ):
        plot(second_order, block="velocity", lineage="myeloid")
    del second_order.varp["sparsenode_velocity_adjacency"]
    with pytest.raises(KeyError, match=r"`adata.varp\['sparsenode_velocity_adjacency'\]`, found"):
        plot(second_order, block="velocity")


@pytest.mark.parametrize("plot", [sn.pl.adjacency, sn.pl.network])
def test_lineages_that_share_one_field(results, plot):
    for lineage in ("erythroid", "myeloid"):
        del results.varp[f"sparsenode_adjacency_{lineage}"]
    with pytest.raises(
        KeyError, match="lineage 'myeloid' .*all lineages of this fit share one field.*Leave `lineage` out"
    ):
        plot(results, lineage="myeloid")


@pytest.mark.parametrize("n_targets", [1, 2])
def test_the_colour_bar_has_room_beside_few_targets(cells, is_within, n_targets):
    assert is_within(sn.pl.adjacency(cells, targets=list(cells.var_names[:n_targets]), return_fig=True))


@pytest.mark.parametrize("prefix", ["", "ENSMUSG0000001234", "atac:chr10-100027800-10002830"])
@pytest.mark.parametrize("n", [3, 8])
def test_long_names_take_nothing_from_the_heat_map(cells, is_within, prefix, n):
    some = cells[:, :n].copy()
    some.var_names = [f"{prefix}{index}" for index in range(n)]
    figure = sn.pl.adjacency(some, return_fig=True)
    assert is_within(figure)
    frame = figure.axes[0].get_window_extent()
    size = 2.5 + 0.16 * n
    assert min(frame.width, frame.height) / figure.dpi > 0.65 * size
    letters = figure.axes[1].yaxis.label
    assert letters.get_window_extent().height <= frame.height * 1.2
    assert letters.get_size() >= 6


def test_on_given_axes_the_label_of_the_colour_bar_is_as_long_as_they_are_after_the_layout(cells):
    figure, axes = plt.subplots(2, 1, layout="constrained", figsize=(5, 6))
    cells = cells.copy()
    cells.var_names = [f"ENSMUSG000000{index:05d}" for index in range(cells.n_vars)]
    sn.pl.adjacency(cells, ax=axes[0])
    sn.pl.adjacency(cells, ax=axes[1])
    figure.canvas.draw()
    labels = [axis.yaxis.label.get_window_extent() for axis in figure.axes[2:]]
    assert labels[0].y0 > labels[1].y1
