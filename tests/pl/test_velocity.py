from __future__ import annotations

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import sparse
from scipy.special import softmax

import sparsenode as sn
from sparsenode.pl import _projection
from sparsenode.pl._common import PALETTE
from sparsenode.pl._projection import on_grid, project

# Numerics


def one_by_one(values, velocity, embedding, n_neighbors, width):
    """The formula, cell by cell."""
    result = np.zeros_like(embedding)
    for i in range(len(values)):
        near = np.argsort(np.linalg.norm(values - values[i], axis=1))[1 : n_neighbors + 1]
        cosines = []
        for j in near:
            apart = values[j] - values[i]
            cosines.append(apart @ velocity[i] / (np.linalg.norm(apart) * np.linalg.norm(velocity[i])))
        for p, j in zip(softmax(np.array(cosines) / width), near, strict=True):
            arrow = embedding[j] - embedding[i]
            result[i] += (p - 1 / n_neighbors) * arrow / np.linalg.norm(arrow)
    return result


@pytest.mark.parametrize("block", [4_000_000, 100])
def test_projection_is_the_formula(monkeypatch, block):
    monkeypatch.setattr(_projection, "_BLOCK", block)
    generator = np.random.default_rng(0)
    values, velocity, embedding = (generator.normal(size=(40, k)) for k in (5, 5, 2))
    for n_neighbors, width in ((6, 0.1), (10, 0.5)):
        expected = one_by_one(values, velocity, embedding, n_neighbors, width)
        np.testing.assert_allclose(project(values, velocity, embedding, n_neighbors, width), expected)
    np.testing.assert_allclose(project(values, velocity, embedding), one_by_one(values, velocity, embedding, 30, 0.1))


def test_directions_survive_where_nothing_bends():
    """On a plane within the genes, with velocities in that plane, arrows point where the velocities do."""
    generator = np.random.default_rng(1)
    plane = generator.uniform(-1, 1, (800, 2))
    axes = np.linalg.qr(generator.normal(size=(10, 2)))[0]
    flow = np.stack([-plane[:, 1], plane[:, 0]], axis=1)
    arrows = project(plane @ axes.T, flow @ axes.T, plane)
    inside = np.abs(plane).max(1) < 0.85
    cosine = (arrows * flow).sum(1) / np.linalg.norm(arrows, axis=1) / np.linalg.norm(flow, axis=1)
    assert cosine[inside].mean() > 0.95
    x, y, u, v = on_grid(plane, arrows, n=20)
    gx, gy = np.meshgrid(x, y)
    cosine = (-gy * u + gx * v) / np.hypot(u, v) / np.hypot(gx, gy)
    radius = np.hypot(gx, gy)
    assert np.nanmin(cosine[(radius > 0.2) & (radius < 0.8)]) > 0.95  # the flow turns about the centre


def test_cells_that_do_not_move_and_doubled_cells():
    generator = np.random.default_rng(0)
    values, embedding = (
        np.repeat(generator.normal(size=(20, 4)), 2, axis=0),
        np.repeat(generator.normal(size=(20, 2)), 2, 0),
    )
    arrows = project(values, np.zeros_like(values), embedding, 8)
    np.testing.assert_allclose(arrows, 0, atol=1e-12)
    assert np.isfinite(project(values, generator.normal(size=values.shape), embedding, 100)).all()


def test_arrows_on_the_grid_are_means_with_a_gaussian_of_its_spacing():
    generator = np.random.default_rng(2)
    places, arrows = generator.normal(size=(30, 2)) * [1.0, 5.0], generator.normal(size=(30, 2))
    x, y, u, v = on_grid(places, arrows, n=9)
    spacing = np.array([x[1] - x[0], y[1] - y[0]])
    for k, value in enumerate(y):
        for m, other in enumerate(x):
            distance = np.linalg.norm((places - [other, value]) / spacing, axis=1)
            near = np.argsort(distance)[:10]
            weight = np.exp(-(distance[near] ** 2) / 2)
            if np.isfinite(u[k, m]):
                np.testing.assert_allclose([u[k, m], v[k, m]], weight @ arrows[near] / weight.sum())
            else:
                assert weight.sum() < 1
    assert np.isfinite(u).mean() > 0.5


def test_grid_is_empty_where_there_are_no_cells():
    generator = np.random.default_rng(0)
    places = np.concatenate([generator.normal(0, 0.1, (200, 2)), generator.normal(3, 0.1, (200, 2))])
    x, y, u, v = on_grid(places, np.ones((400, 2)))
    assert np.isnan(u[np.searchsorted(y, 1.5), np.searchsorted(x, 1.5)])
    near = u[np.searchsorted(y, 3.0), np.searchsorted(x, 3.0)]
    assert near == pytest.approx(1.0)
    np.testing.assert_array_equal(np.isnan(u), np.isnan(v))


# The plot


@pytest.fixture
def embedded(results) -> AnnData:
    results.obsm["X_umap"] = np.asarray(results.X)[:, :2]
    return results


def test_structure(embedded, tmp_path):
    embedded.write_h5ad(tmp_path / "cells.h5ad")
    embedded = anndata.read_h5ad(tmp_path / "cells.h5ad")
    embedded.uns["lineage_colors"] = ["#ff0000", "#0000ff"]
    axis = sn.pl.velocity(embedded)
    points = next(c for c in axis.collections if isinstance(c, PathCollection))
    np.testing.assert_allclose(np.asarray(points.get_offsets()), embedded.obsm["X_umap"], rtol=1e-6)
    expected = np.where(embedded.obs["lineage"] == "erythroid", "#ff0000", "#0000ff")
    assert [to_hex(color) for color in points.get_facecolor()] == list(expected)
    assert any(isinstance(c, LineCollection) and len(c.get_segments()) for c in axis.collections)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("umap 1", "umap 2")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["erythroid", "myeloid"]
    assert axis.get_legend().get_title().get_text() == "lineage"


@pytest.mark.parametrize(("style", "color"), [("default", "#262626"), ("dark_background", "#d9d9d9")])
def test_lines_stand_out_from_the_background(embedded, style, color):
    with plt.style.context(style):
        axis = sn.pl.velocity(embedded)
    lines = next(c for c in axis.collections if isinstance(c, LineCollection))
    assert {to_hex(found) for found in lines.get_color()} == {color}


def test_lines_follow_the_velocities(embedded):
    """All cells move along the first axis of the embedding."""
    velocity = np.zeros(embedded.shape, dtype=np.float32)
    velocity[:, 0] = 1.0
    embedded.layers["sparsenode_velocity"] = velocity
    axis = sn.pl.velocity(embedded)
    lines = next(c for c in axis.collections if isinstance(c, LineCollection))
    steps = np.concatenate([np.diff(segment, axis=0) for segment in lines.get_segments()])
    assert (steps[:, 0] > 0).mean() > 0.9


@pytest.mark.parametrize("color", ["dpt_pseudotime", "donor", "flag"])
def test_colors(embedded, color):
    embedded.obs["flag"] = np.arange(120) % 2 == 0
    axis = sn.pl.velocity(embedded, color=color)
    if color == "dpt_pseudotime":
        assert axis.figure.axes[1].get_ylabel() == color
    else:
        assert axis.get_legend().get_title().get_text() == color


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32])
def test_numbers_have_a_colour_bar(embedded, dtype):
    embedded.obs["depth"] = np.arange(embedded.n_obs).astype(dtype)
    axis = sn.pl.velocity(embedded, color="depth")
    assert axis.get_legend() is None
    points = next(c for c in axis.collections if isinstance(c, PathCollection))
    np.testing.assert_array_equal(points.get_array(), np.arange(embedded.n_obs))


@pytest.mark.parametrize("convert", [np.array, lambda values: pd.array(values, dtype="Float64")])
def test_cells_without_a_number_are_grey(embedded, convert):
    embedded.obs["depth"] = convert(np.where(np.arange(120) % 3 == 0, np.nan, np.arange(120.0)))
    axis = sn.pl.velocity(embedded, color="depth")
    grey, points = (c for c in axis.collections if isinstance(c, PathCollection))
    assert (len(grey.get_offsets()), len(points.get_offsets())) == (40, 80)
    assert {to_hex(color) for color in grey.get_facecolor()} == {"#cccccc"}
    assert axis.figure.axes[1].get_ylabel() == "depth (grey: missing)"


@pytest.mark.parametrize(("missing", "label"), [(0, "grey: infinite"), (10, "grey: missing or infinite")])
def test_cells_of_infinite_pseudotime_are_grey(embedded, missing, label):
    """As where the root reaches no cell: they would not be drawn at all."""
    embedded.obs["dpt"] = np.where(np.arange(120) < 40, np.inf, np.arange(120.0))
    embedded.obs.loc[embedded.obs_names[:missing], "dpt"] = np.nan
    axis = sn.pl.velocity(embedded, color="dpt")
    grey, points = (c for c in axis.collections if isinstance(c, PathCollection))
    np.testing.assert_array_equal(grey.get_offsets(), embedded.obsm["X_umap"][:40])
    np.testing.assert_array_equal(points.get_array(), np.arange(40.0, 120))
    assert axis.figure.axes[1].get_ylabel() == f"dpt ({label})"


def test_dates_have_a_legend(embedded):
    embedded.obs["day"] = pd.to_datetime(["2024-05-02", None, "2024-05-01"] * 40)
    legend = sn.pl.velocity(embedded, color="day").get_legend()
    assert [text.get_text()[:10] for text in legend.get_texts()] == ["2024-05-01", "2024-05-02", "missing"]


def test_cells_without_a_value_are_grey_and_not_of_several_lineages(embedded):
    embedded.obs["kind"] = pd.Categorical([None, "a", "b"] * 40)
    axis = sn.pl.velocity(embedded, color="kind")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a", "b", "missing"]
    points = next(c for c in axis.collections if isinstance(c, PathCollection))
    assert [to_hex(color) for color in points.get_facecolor()[:3]] == [
        "#cccccc",
        PALETTE[0].lower(),
        PALETTE[1].lower(),
    ]


def test_reads_the_layer_of_the_fit_and_the_first_two_dimensions(embedded, monkeypatch):
    """Of ``X_pca`` rather than ``pca``, where there are both."""
    seen = []

    def remember(values, velocity, places, n_neighbors):
        seen.append((values, velocity, places, n_neighbors))
        return np.zeros_like(places)

    monkeypatch.setattr("sparsenode.pl._velocity.project", remember)
    embedded.obsm["pca"], embedded.obsm["X_pca"] = np.zeros((120, 2)), np.asarray(embedded.X)[:, 2:5]
    embedded.layers["log"] = sparse.csr_matrix(embedded.X * 2)
    embedded.uns["sparsenode"]["setup"]["layer"] = "log"
    sn.pl.velocity(embedded, basis="pca", n_neighbors=7)
    ((values, velocity, places, n_neighbors),) = seen
    np.testing.assert_allclose(values, 2 * np.asarray(embedded.X), rtol=1e-6)
    np.testing.assert_allclose(velocity, embedded.layers["sparsenode_velocity"], rtol=1e-6)
    np.testing.assert_allclose(places, np.asarray(embedded.X)[:, 2:4], rtol=1e-6)
    assert n_neighbors == 7


def test_pseudotimes_of_the_lineages_colour_cells_by_lineage(fitted_donors):
    adata = fitted_donors.adata.copy()
    adata.obsm["pca"] = np.asarray(adata.X)[:, :3]
    own = adata.obs["lineage"] == "erythroid"
    times = {"erythroid": adata.obs["dpt_pseudotime"].where(own), "myeloid": adata.obs["dpt_pseudotime"].where(~own)}
    adata.obsm["times"] = pd.DataFrame(times)
    adata.obsm["times"].iloc[:30] = 0.5
    setup = adata.uns["sparsenode"]["setup"]
    setup["time_key"] = "times"
    del setup["lineage_key"]
    axis = sn.pl.velocity(adata, basis="pca")
    points = next(c for c in axis.collections if isinstance(c, PathCollection))
    expected = np.where(own, PALETTE[0].lower(), PALETTE[1].lower())
    expected[:30] = "#999999"
    assert [to_hex(color) for color in points.get_facecolor()] == list(expected)
    legend = axis.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["erythroid", "myeloid", "several lineages"]
    assert legend.get_title().get_text() == "times"


def test_lineages_that_are_numbers_have_a_legend(embedded):
    adata = embedded.copy()
    adata.obs["lineage"] = pd.factorize(adata.obs["lineage"])[0]
    axis = sn.pl.velocity(adata)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["0", "1"]
    assert len(axis.figure.axes) == 1


def test_memberships_colour_cells_by_the_largest(fitted_donors):
    adata = fitted_donors.adata.copy()
    adata.obsm["memberships"].iloc[:30] = [0.6, 0.4]
    adata.obsm["pca"] = np.asarray(adata.X)[:, :3]
    axis = sn.pl.velocity(adata, basis="pca")
    points = next(c for c in axis.collections if isinstance(c, PathCollection))
    expected = np.where(adata.obsm["memberships"]["erythroid"] > 0.5, PALETTE[0].lower(), PALETTE[1].lower())
    expected[:30] = "#999999"
    assert [to_hex(color) for color in points.get_facecolor()] == list(expected)
    legend = axis.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["erythroid", "myeloid", "several lineages"]
    assert legend.get_title().get_text() == "memberships"
    assert axis.get_xlabel() == "pca 1"


def test_sparse_and_dask(embedded):
    def lines():
        axis = sn.pl.velocity(embedded)
        return next(c for c in axis.collections if isinstance(c, LineCollection)).get_segments()

    expected = lines()
    da = pytest.importorskip("dask.array")
    dense = embedded.X
    for values in (sparse.csr_matrix(dense), da.from_array(dense, chunks=(50, 8))):
        embedded.X = values
        np.testing.assert_allclose(np.concatenate(lines()), np.concatenate(expected), rtol=1e-4)


def test_many_cells_are_thinned(monkeypatch):
    n = 11_000
    adata = AnnData(
        sparse.csr_matrix((n, 3), dtype=np.float32),
        pd.DataFrame(index=np.arange(n).astype(str)),
        obsm={"X_umap": np.random.default_rng(0).normal(size=(n, 2))},
        layers={"sparsenode_velocity": np.zeros((n, 3), dtype=np.float32)},
        uns={"sparsenode": {"setup": {}, "trajectories": {"lineage": np.array(["all"])}}},
    )
    seen = []

    def count(values, velocity, embedding, n_neighbors):
        seen.append((values.shape, velocity.shape, embedding.shape))
        return np.zeros_like(embedding)

    gridded = []
    monkeypatch.setattr("sparsenode.pl._velocity.project", count)
    monkeypatch.setattr(
        "sparsenode.pl._velocity.on_grid", lambda places, arrows: gridded.append(places) or on_grid(places, arrows)
    )
    axis = sn.pl.velocity(adata)
    ((shape, *_),) = seen
    assert shape == (3667, 3)
    np.testing.assert_array_equal(gridded[0], adata.obsm["X_umap"][::3])
    assert len(axis.collections[0].get_offsets()) == n


# The legend


def of_lineages(names: list[str]) -> AnnData:
    """Cells in rows by lineage, which do not move."""
    generator, n = np.random.default_rng(0), 10 * len(names)
    obs = pd.DataFrame(
        {"lineage": pd.Categorical(np.repeat(names, 10), categories=names)}, index=np.arange(n).astype(str)
    )
    return AnnData(
        generator.normal(size=(n, 3)).astype(np.float32),
        obs,
        obsm={"X_umap": np.column_stack([generator.uniform(size=n), np.repeat(np.arange(len(names)), 10.0)])},
        layers={"sparsenode_velocity": np.zeros((n, 3), dtype=np.float32)},
        uns={"sparsenode": {"setup": {"lineage_key": "lineage"}, "trajectories": {"lineage": np.array(names)}}},
    )


FEW, MANY, MORE = (
    ["erythroid", "myeloid", "lymphoid"],
    [f"common lymphoid progenitor {i}" for i in range(16)],
    [f"common lymphoid progenitor {i}" for i in range(40)],
)


def texts(axis: Axes) -> list[str]:
    return [text.get_text() for text in axis.get_legend().get_texts()]


@pytest.mark.parametrize("names", [FEW, MANY, MORE], ids=["few", "many", "more"])
def test_the_legend_of_a_new_figure_takes_nothing_from_the_axes(names):
    def axes_inches(figure):
        figure.canvas.draw()
        box = figure.axes[0].get_window_extent()
        return box.width / figure.dpi, box.height / figure.dpi

    adata = of_lineages(names)
    plain = adata.copy()
    plain.uns["sparsenode"] = {"setup": {}, "trajectories": {"lineage": np.array(["all"])}}
    figure = sn.pl.velocity(adata, return_fig=True)
    np.testing.assert_allclose(
        axes_inches(figure), axes_inches(sn.pl.velocity(plain, return_fig=True)), rtol=0.05, atol=0
    )
    (axis,) = figure.axes
    legend, frame = axis.get_legend().get_window_extent(), figure.bbox
    assert texts(axis) == names
    assert legend.x0 >= axis.get_window_extent().x1
    assert legend.x1 <= frame.x1
    assert legend.y0 >= frame.y0


@pytest.mark.parametrize("layout", [None, "constrained"])
@pytest.mark.parametrize("names", [FEW, MANY, MORE], ids=["few", "many", "more"])
def test_the_legend_of_given_axes_is_in_them_and_hides_no_cells(names, layout):
    figure, grid = plt.subplots(1, 3, figsize=(12, 4), layout=layout)
    before = figure.get_size_inches().copy()
    axis = sn.pl.velocity(of_lineages(names), ax=grid[1])
    figure.canvas.draw()
    np.testing.assert_array_equal(figure.get_size_inches(), before)
    legend, frame = axis.get_legend().get_window_extent(), axis.get_window_extent()
    assert texts(axis) == names
    assert (legend.x0 >= frame.x0, legend.x1 <= frame.x1, legend.y0 >= frame.y0) == (True, True, True)
    points = next(c for c in axis.collections if isinstance(c, PathCollection))
    lowest = axis.transData.transform(np.asarray(points.get_offsets()))[:, 1].min()
    assert legend.y1 <= lowest
    assert lowest < frame.y0 + 0.5 * frame.height  # most of the axes is left to the cells
    assert axis.get_legend().get_texts()[0].get_fontsize() > 3


def test_axes_of_several_plots_keep_one_range():
    """Room for the legend is made once, whatever the number of plots with shared axes."""
    _, grid = plt.subplots(1, 3, sharex=True, sharey=True, figsize=(12, 4))
    limits = [sn.pl.velocity(of_lineages(FEW), ax=axis).get_ylim() for axis in (*grid, grid[0])]
    np.testing.assert_allclose(limits, [limits[0]] * 4)


def test_legend_beneath_cells_of_an_inverted_axis():
    _, axis = plt.subplots()
    axis.invert_yaxis()
    sn.pl.velocity(of_lineages(FEW), ax=axis)
    bottom, top = axis.get_ylim()
    assert bottom > 2.2  # cells are at 0 to 2
    assert top > -0.2


def test_lineages_are_not_taken_for_mathematics():
    adata = of_lineages(["$\\frac$", "$x_1$"])
    figure, axis = plt.subplots()
    for drawn in (figure, sn.pl.velocity(adata, return_fig=True)):
        axis = sn.pl.velocity(adata, ax=axis) if drawn is figure else drawn.axes[0]
        drawn.canvas.draw()
        assert not any(text.get_parse_math() for text in axis.get_legend().get_texts())


def test_names_of_the_basis_and_of_a_column_are_not_taken_for_mathematics():
    adata = of_lineages(FEW)
    adata.obsm["X_$\\frac$"] = adata.obsm["X_umap"]
    adata.obs["$x_1$"] = np.arange(adata.n_obs, dtype=float)
    figure = sn.pl.velocity(adata, basis="$\\frac$", color="$x_1$", return_fig=True)
    figure.canvas.draw()
    assert figure.axes[0].get_xlabel() == "$\\frac$ 1"
    assert figure.axes[1].get_ylabel() == "$x_1$"


# Errors and results


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"basis": "tsne"}, r"adata.obsm\['X_tsne'\].*found \['memberships'"),
        ({"color": "batch"}, "`color`.*found 'batch'"),
        ({"color": ["donor"]}, r"`color` to name a column of `adata.obs`, found \['donor'\]"),
        ({"key": "other"}, r"adata.uns\['other'\]"),
    ],
    ids=str,
)
def test_missing_keys(embedded, arguments, message):
    with pytest.raises(KeyError, match=message):
        sn.pl.velocity(embedded, **arguments)


@pytest.mark.parametrize("n_neighbors", [0, 3.5])
def test_numbers_of_neighbours(embedded, n_neighbors):
    with pytest.raises(ValueError, match=f"`n_neighbors` to be an integer of at least 1, found {n_neighbors}"):
        sn.pl.velocity(embedded, n_neighbors=n_neighbors)


def test_other_errors(results):
    with pytest.raises(KeyError, match=r"adata.obsm\['X_umap'\]"):
        sn.pl.velocity(results)
    results.obsm["X_umap"] = np.asarray(results.X)[:, :1]
    with pytest.raises(ValueError, match=r"two finite coordinates.*\(120, 1\)"):
        sn.pl.velocity(results)
    two = results[:2].copy()
    two.obsm["X_umap"] = np.asarray(two.X)[:, :2]
    with pytest.raises(ValueError, match=r"at least 3 cells.*\(2, 2\)"):
        sn.pl.velocity(two)
    results.obsm["X_umap"] = np.c_[np.asarray(results.X)[:, 0], np.full(120, 2.5)]
    with pytest.raises(
        ValueError, match=r"different places.*adata.obsm\['X_umap'\].*found one value, 2.5, along coordinate 1"
    ):
        sn.pl.velocity(results)
    results.obsm["X_umap"] = np.full((120, 2), np.nan)
    with pytest.raises(ValueError, match="not finite"):
        sn.pl.velocity(results)
    del results.layers["sparsenode_velocity"]
    with pytest.raises(KeyError, match=r"adata.layers\['sparsenode_velocity'\]"):
        sn.pl.velocity(results)


def test_given_axes_and_show(monkeypatch, results, shown):
    monkeypatch.setattr(Axes, "streamplot", lambda *_, **__: None)  # takes most of the time
    results.obsm["X_umap"] = np.asarray(results.X)[:, :2]
    figure, axis = plt.subplots()
    assert sn.pl.velocity(results, ax=axis) is axis
    assert sn.pl.velocity(results, ax=axis, return_fig=True) is figure
    assert isinstance(sn.pl.velocity(results, return_fig=True), Figure)
    assert shown() == 0
    assert sn.pl.velocity(results, show=True) is None
    assert shown() == 1


def test_the_legend_names_the_categories_that_cells_have(embedded):
    """In the colours that all of them have."""
    embedded.obs["type"] = pd.Categorical(np.where(np.arange(embedded.n_obs) % 2, "a", "c"), categories=["a", "b", "c"])
    embedded.uns["type_colors"] = ["#ff0000", "#00ff00", "#0000ff"]
    legend = sn.pl.velocity(embedded, color="type").get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["a", "c"]
    assert [to_hex(handle.get_color()) for handle in legend.legend_handles] == ["#ff0000", "#0000ff"]
