from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import sparse

import sparsenode as sn
from sparsenode.pl import _trajectory
from sparsenode.pl._common import PALETTE


def points(axis: Axes) -> list[np.ndarray]:
    """Cells by colour: grey ones, and then in the order of the lines."""
    own = dict.fromkeys(to_hex(line.get_color()) for line in axis.lines)
    found: dict[str, list[np.ndarray]] = {color: [] for color in ["#999999", *own]}
    for collection in axis.collections:
        for color, place in zip(collection.get_facecolor(), np.asarray(collection.get_offsets()), strict=True):
            found[to_hex(color)].append(place)
    return [np.array(places) for places in found.values() if places]


def test_no_lineage_hides_another(results):
    """Cells are drawn in the order of the rows, whatever their lineage."""
    (cells,) = sn.pl.trajectory(results, "gene1").collections
    np.testing.assert_allclose(
        np.asarray(cells.get_offsets()), np.c_[results.obs["dpt_pseudotime"], results[:, "gene1"].X], rtol=1e-6
    )
    places = dict(zip(("erythroid", "myeloid"), PALETTE, strict=False))
    expected = [places[lineage].lower() for lineage in results.obs["lineage"]]
    assert [to_hex(color) for color in cells.get_facecolor()] == expected


def test_the_layer_says_what_values_are(adata, fit):
    adata.layers["log_$x$"] = adata.X.copy()
    fit(adata, {"lineage_key": "lineage", "layer": "log_$x$"})
    axis = sn.pl.trajectory(adata, "gene2")
    assert axis.get_ylabel() == "expression (log_$x$)"
    axis.figure.canvas.draw()


def test_structure(cells):
    axes = sn.pl.trajectory(cells, ["gene5", "gene2"])
    assert [axis.get_title() for axis in axes] == ["gene5", "gene2"]
    for axis, gene in zip(axes, (5, 2), strict=True):
        assert axis.get_xlabel() == "dpt_pseudotime"
        assert axis.get_ylabel() == "expression"
        assert len(axis.lines) == len(points(axis)) == 2
        for k, lineage in enumerate(["erythroid", "myeloid"]):
            member = (cells.obs["lineage"] == lineage).to_numpy()
            expected = np.c_[cells.obs["dpt_pseudotime"][member], np.asarray(cells.X)[member, gene]]
            np.testing.assert_allclose(points(axis)[k], expected, rtol=1e-6)
            line = axis.lines[k]
            fit = cells.uns["sparsenode"]["trajectories"]
            np.testing.assert_array_equal(line.get_xdata(), fit["times"][k])
            np.testing.assert_array_equal(line.get_ydata(), fit["values"][k][:, gene])
            assert line.get_label() == lineage
            assert line.get_linestyle() == "-"
            assert to_hex(line.get_color()) == PALETTE[k].lower()
    (legend,) = axes[0].figure.legends  # beneath all panels, where it hides nothing
    assert [text.get_text() for text in legend.get_texts()] == ["erythroid", "myeloid"]
    assert all(axis.get_legend() is None for axis in axes)


def test_time_key_is_not_taken_for_mathematics(cells):
    adata = cells.copy()
    adata.obs = adata.obs.rename(columns={"dpt_pseudotime": "$\\frac$"})
    adata.uns["sparsenode"]["setup"]["time_key"] = "$\\frac$"
    axis = sn.pl.trajectory(adata, "gene5")
    axis.figure.canvas.draw()
    assert axis.get_xlabel() == "$\\frac$"


def test_some_of_the_genes(cells):
    every = [axis.get_title() for axis in sn.pl.trajectory(cells)]
    some = cells[:, ~cells.var_names.isin(every[:2])].copy()
    shown = [axis.get_title() for axis in sn.pl.trajectory(some)]
    assert shown[:2] == every[2:]
    assert len(shown) == 4
    with pytest.raises(ValueError, match=f"`genes` to name some of .*found \\['{every[0]}'\\]"):
        sn.pl.trajectory(some, every[0])
    some.var_names = [f"other{i}" for i in range(some.n_vars)]
    with pytest.raises(ValueError, match=r"genes of the fit in `adata.var_names`, found none of 8"):
        sn.pl.trajectory(some)


def test_default_genes_vary_most(cells):
    values = np.asarray(cells.uns["sparsenode"]["trajectories"]["values"]).copy()
    values[1, 0, 7] += 100.0  # in one lineage alone
    cells.uns["sparsenode"]["trajectories"]["values"] = values
    spread = np.ptp(values, axis=1).max(0)
    assert spread.argmax() == 7
    expected = [f"gene{i}" for i in np.argsort(-spread)[:4]]
    assert [axis.get_title() for axis in sn.pl.trajectory(cells)] == expected


def test_colors_of_the_annotation(cells):
    cells.uns["lineage_colors"] = ["#ff0000", "#0000ff"]
    axis = sn.pl.trajectory(cells, "gene0")
    assert [to_hex(line.get_color()) for line in axis.lines] == ["#ff0000", "#0000ff"]


def test_one_lineage(cells):
    cells.uns["lineage_colors"] = ["#ff0000", "#0000ff"]
    axis = sn.pl.trajectory(cells, "gene0", lineages="myeloid")
    assert [to_hex(line.get_color()) for line in axis.lines] == ["#0000ff"]
    assert len(points(axis)[0]) == 60
    assert axis.figure.legends == []


def test_legend_in_given_axes(cells):
    figure, grid = plt.subplots(1, 2)
    sn.pl.trajectory(cells, ["gene0", "gene1"], ax=grid)
    assert [text.get_text() for text in grid[0].get_legend().get_texts()] == ["erythroid", "myeloid"]
    assert grid[1].get_legend() is None
    assert figure.legends == []


@pytest.mark.parametrize("n_genes", [1, 4])
def test_a_legend_of_long_names_lies_beneath_the_panels(fitted_donors, n_genes):
    adata = fitted_donors.adata.copy()
    fit, names = adata.uns["sparsenode"]["trajectories"], {}
    for k, name in enumerate(adata.obsm["memberships"]):
        names[name] = f"Megakaryocyte–erythroid progenitors {k}"
    adata.obsm["memberships"] = adata.obsm["memberships"].rename(columns=names)
    fit["lineage"] = np.array([names[str(name)] for name in fit["lineage"]])
    figure = sn.pl.trajectory(adata, [f"gene{i}" for i in range(n_genes)], return_fig=True)
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0 < legend.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= legend.y0
    assert legend.y1 <= min(axis.get_tightbbox().y0 for axis in figure.axes)
    assert all(axis.get_window_extent().height > 0.5 * 2.8 * figure.dpi for axis in figure.axes)


@pytest.mark.parametrize("n_genes", [1, 2])
def test_long_titles_lie_within_the_figure(many_genes, is_within, n_genes):
    long = [f"{gene}|ENSG00000123456.7|ENST00000123456.7" for gene in many_genes.var_names]
    many_genes.var_names = many_genes.uns["sparsenode"]["genes"] = long
    figure = sn.pl.trajectory(many_genes, long[:n_genes], return_fig=True)
    assert is_within(figure)
    titles = [axis.title.get_window_extent() for axis in figure.axes]
    assert n_genes == 1 or titles[0].x1 < titles[1].x0


def test_one_gene_gives_one_axes(results):
    assert isinstance(sn.pl.trajectory(results, "gene0"), Axes)
    assert isinstance(sn.pl.trajectory(results, ["gene0"]), Axes)
    assert isinstance(sn.pl.trajectory(results, ["gene0", "gene1"]), list)


def test_given_axes(results):
    figure, grid = plt.subplots(1, 2)
    returned = sn.pl.trajectory(results, ["gene0", "gene1"], ax=grid)
    assert returned == list(grid)
    assert sn.pl.trajectory(results, "gene3", ax=grid[0], return_fig=True) is figure
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(ValueError, match="2 axes, one per panel, found 1"):
        sn.pl.trajectory(results, ["gene0", "gene1"], ax=grid[0])


def test_show(results, shown):
    assert isinstance(sn.pl.trajectory(results, "gene0", show=False), Axes)
    assert isinstance(sn.pl.trajectory(results, "gene0"), Axes)
    assert isinstance(sn.pl.trajectory(results, "gene0", return_fig=True), Figure)
    assert shown() == 0
    assert sn.pl.trajectory(results, "gene0", show=True) is None
    assert shown() == 1


def test_only_keywords(results):
    with pytest.raises(TypeError, match="positional"):
        sn.pl.trajectory(results, "gene0", "myeloid")


def test_donors_and_memberships(fitted_donors):
    adata = fitted_donors.adata.copy()
    axis = sn.pl.trajectory(adata, "gene1")
    assert [line.get_linestyle() for line in axis.lines] == ["-", "--", "-", "--"]
    assert [to_hex(line.get_color()) for line in axis.lines] == [c.lower() for c in PALETTE[:2] for _ in range(2)]
    (legend,) = axis.figure.legends
    names, handles = [text.get_text() for text in legend.get_texts()], legend.legend_handles
    assert names == ["erythroid", "myeloid", "donor0", "donor1"]  # cells are of 3/4 of a lineage or more
    assert [to_hex(handle.get_color()) for handle in handles[:2]] == [c.lower() for c in PALETTE[:2]]
    assert [handle.get_linestyle() for handle in handles[2:]] == ["-", "--"]
    assert legend.get_title().get_text() == "lineage (colour), donor (line)"
    table = adata.obsm["memberships"]
    assert [len(p) for p in points(axis)] == [(table[name] > 0.5).sum() for name in table]


def test_cells_of_several_lineages_are_grey_and_drawn_once(fitted_donors):
    adata = fitted_donors.adata.copy()
    adata.obsm["memberships"].iloc[:30] = [0.6, 0.4]
    table = adata.obsm["memberships"].to_numpy()
    axis = sn.pl.trajectory(adata, "gene1")
    grey, own = ({to_hex(color) for color in c.get_facecolor()} for c in axis.collections)
    assert (grey, own) == ({"#999999"}, {color.lower() for color in PALETTE[:2]})  # own ones over grey ones
    assert len(points(axis)[0]) == 30
    assert sum(map(len, points(axis))) == adata.n_obs
    names = [text.get_text() for text in axis.figure.legends[0].get_texts()]
    assert names == ["erythroid", "myeloid", "several lineages", "donor0", "donor1"]
    # Of one lineage, all its cells are there: those of the other that it has a part of are grey too.
    axis = sn.pl.trajectory(adata, "gene1", lineages="myeloid")
    own = table[:, 1] > 2 / 3
    assert [len(p) for p in points(axis)] == [((table[:, 1] > 0) & ~own).sum(), own.sum()]


def test_cells_stand_at_their_pseudotime_in_the_lineage(fitted_donors):
    """Those of several lineages at the mean of theirs."""
    adata = fitted_donors.adata.copy()
    table = adata.obsm["memberships"]
    table.iloc[:30] = [0.6, 0.4]
    times = pd.DataFrame({"erythroid": adata.obs["dpt_pseudotime"], "myeloid": adata.obs["dpt_pseudotime"] + 1.0})
    adata.obsm["times"] = times.where(table > 0)
    adata.uns["sparsenode"]["setup"]["time_key"] = "times"
    axis = sn.pl.trajectory(adata, "gene1")
    assert axis.get_xlabel() == "times"
    several, *own = (found[:, 0] for found in points(axis))
    np.testing.assert_allclose(several, adata.obs["dpt_pseudotime"][:30] + 0.4)
    for name, shown in zip(table, own, strict=True):
        np.testing.assert_allclose(shown, times[name][table[name] > 2 / 3])
    several, _ = (found[:, 0] for found in points(sn.pl.trajectory(adata, "gene1", lineages="myeloid")))
    of_others = (table["myeloid"] > 0) & (table["myeloid"] < 2 / 3)
    np.testing.assert_allclose(several, times["myeloid"][of_others])


def test_one_of_several_lineages_of_two_donors(fitted_donors):
    axis = sn.pl.trajectory(fitted_donors.adata.copy(), "gene1", lineages="myeloid")
    assert {to_hex(line.get_color()) for line in axis.lines} == {PALETTE[1].lower()}
    assert [text.get_text() for text in axis.figure.legends[0].get_texts()] == [
        "myeloid",
        "several lineages",
        "donor0",
        "donor1",
    ]
    assert axis.figure.legends[0].get_title().get_text() == "lineage (colour), donor (line)"


def test_batches_that_share_a_line_style_are_named_together():
    adata = AnnData(np.zeros((1, 1)))
    looks = _trajectory._Looks(adata, {"batch_key": "donor"}, ["a", "b"], [f"d{i}" for i in range(6)])
    title, handles = looks.legend(["a", "b"], several=False)
    assert title == "lineage (colour), donor (line)"
    assert [handle.get_label() for handle in handles] == ["a", "b", "d0, d4", "d1, d5", "d2", "d3"]
    assert [handle.get_linestyle() for handle in handles[2:]] == [looks.style(f"d{i}") for i in range(4)]
    assert looks.style("d4") == looks.style("d0")


@pytest.mark.parametrize("n", [2, 12])
def test_one_lineage_of_many_batches(n):
    """Colours are batches, of the cells too."""
    names = [f"trial{i}" for i in range(n)]
    trial, times = np.repeat(names, 20), np.tile(np.linspace(0, 1, 20), n)
    adata = AnnData(
        np.repeat(np.arange(n, dtype=np.float32), 20)[:, None],
        pd.DataFrame(
            {"time": times, "trial": pd.Categorical(trial, categories=names)}, index=np.arange(20 * n).astype(str)
        ),
        pd.DataFrame(index=["x"]),
        uns={
            "trial_colors": [f"#0000{10 + i}" for i in range(n)],
            "sparsenode": {
                "setup": {"time_key": "time", "batch_key": "trial"},
                "genes": np.array(["x"]),
                "trajectories": {
                    "name": np.array([f"all, {name}" for name in names]),
                    "lineage": np.array(["all"] * n),
                    "batch": np.array(names),
                    "times": np.tile(np.linspace(0, 1, 5), (n, 1)),
                    "values": np.ones((n, 5, 1)) * np.arange(n)[:, None, None],
                },
            },
        },
    )
    axis = sn.pl.trajectory(adata, "x")
    assert [to_hex(line.get_color()) for line in axis.lines] == adata.uns["trial_colors"]
    assert {line.get_linestyle() for line in axis.lines} == {"-"}
    (cells,) = axis.collections
    for color, (_, level) in zip(cells.get_facecolor(), np.asarray(cells.get_offsets()), strict=True):
        assert to_hex(color) == adata.uns["trial_colors"][int(level)]
    assert [text.get_text() for text in axis.figure.legends[0].get_texts()] == names
    assert axis.figure.legends[0].get_title().get_text() == "trial"


def test_layer_and_sparse(make_adata, fit):
    adata = make_adata()
    adata.layers["log"] = sparse.csr_matrix(adata.X * 2)
    fit(adata, {"lineage_key": "lineage", "layer": "log"}, {"max_epochs": 1})
    axis = sn.pl.trajectory(adata, "gene3", lineages="erythroid")
    member = (adata.obs["lineage"] == "erythroid").to_numpy()
    np.testing.assert_allclose(points(axis)[0][:, 1], 2 * adata.X[member, 3], rtol=1e-6)


def test_dask(results):
    da = pytest.importorskip("dask.array")
    expected = points(sn.pl.trajectory(results, "gene3"))
    results.X = da.from_array(results.X, chunks=(50, 8))
    for got, wanted in zip(points(sn.pl.trajectory(results, "gene3")), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_permuted_genes(fitted, make_adata):
    adata = make_adata()[:, ::-1].copy()
    fitted.write_results(adata)
    axis = sn.pl.trajectory(adata, "gene1", lineages="myeloid")
    member = (adata.obs["lineage"] == "myeloid").to_numpy()
    np.testing.assert_allclose(points(axis)[0][:, 1], adata[member, "gene1"].X.ravel(), rtol=1e-6)
    line = axis.lines[0]
    at_cells = np.interp(adata.obs["dpt_pseudotime"][member], line.get_xdata(), line.get_ydata())
    np.testing.assert_allclose(
        at_cells, adata.obsm["sparsenode_trajectory"][member, list(adata.var_names).index("gene1")], atol=1e-3
    )


def test_many_genes(many_genes):
    axes = sn.pl.trajectory(many_genes)
    assert [axis.get_title() for axis in axes] == ["g299", "g298", "g297", "g296"]
    assert axes[0].figure.legends == []
    assert len(sn.pl.trajectory(many_genes, [f"g{i}" for i in range(9)])) == 9


@pytest.mark.parametrize("n", [2999, 3000, 3001, 5999, 6001])
def test_at_most_3000_points(many_genes, n):
    """Spread evenly over the cells."""
    adata = AnnData(
        np.zeros((n, 300), dtype=np.float32),
        pd.DataFrame({"time": np.arange(n, dtype=float)}, index=np.arange(n).astype(str)),
        pd.DataFrame(index=many_genes.var_names),
        uns=many_genes.uns.copy(),
    )
    (drawn,) = points(sn.pl.trajectory(adata, "g0"))
    assert min(n, 1500) <= len(drawn) <= 3000
    assert np.ptp(np.diff(drawn[:, 0])) == 0
    assert drawn[-1, 0] > 0.99 * n


def test_another_key(adata, fit):
    fit(adata, train={"key_added": "mine", "max_epochs": 1})
    assert isinstance(sn.pl.trajectory(adata, "gene0", key="mine"), Axes)
    with pytest.raises(KeyError, match=r"`adata.uns\['sparsenode'\]`.*key_added='sparsenode'"):
        sn.pl.trajectory(adata, "gene0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"genes": "SOX2"}, r"`genes` to name some of \['gene0'.*found \['SOX2'\]"),
        ({"genes": ["gene0", "SOX2"]}, r"found \['SOX2'\]"),
        ({"genes": []}, "`genes`"),
        ({"lineages": "lymphoid"}, r"`lineages` to name some of \['erythroid', 'myeloid'\].*found \['lymphoid'\]"),
    ],
    ids=str,
)
def test_unknown_names(results, arguments, message):
    with pytest.raises(ValueError, match=message):
        sn.pl.trajectory(results, **arguments)


def test_cells_without_pseudotime(results):
    del results.obs["dpt_pseudotime"]
    with pytest.raises(KeyError, match="dpt_pseudotime"):
        sn.pl.trajectory(results)


def test_the_cells_are_not_changed(results):
    before = results.copy()
    sn.pl.trajectory(results)
    assert list(results.uns) == list(before.uns)
    pd.testing.assert_frame_equal(results.obs, before.obs)
