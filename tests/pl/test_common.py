from __future__ import annotations

import copy
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, concat
from matplotlib.colors import to_rgb
from mudata import MuData

import sparsenode as sn
from sparsenode.pl import _common


def test_palette_is_valid_and_has_no_repetition():
    colors = [to_rgb(color) for color in _common.PALETTE]
    assert len(set(colors)) == len(_common.PALETTE) == 8


@pytest.mark.parametrize("n", [1, 3, 4, 5, 9])
def test_panels(n):
    figure, axes = _common.panels(None, n, 2.0, 1.5)
    assert len(axes) == n
    assert figure.axes == axes  # no empty ones are left
    columns, rows = min(n, 4), -(-n // 4)
    assert tuple(figure.get_size_inches()) == (2.0 * columns, 1.5 * rows)


def test_given_axes():
    figure, grid = plt.subplots(1, 2)
    assert _common.panels(grid, 2, 1, 1) == (figure, list(grid))
    assert _common.panels(grid[1], 1, 1, 1) == (figure, [grid[1]])
    mosaic = plt.figure().subplot_mosaic("ab")
    assert _common.panels(mosaic.values(), 2, 1, 1)[1] == list(mosaic.values())
    square, axes = plt.subplots(2, 2)
    assert _common.panels(axes, 4, 1, 1) == (square, list(axes.ravel()))
    with pytest.raises(ValueError, match="Expected 1 axes, one per panel, found 2"):
        _common.panels(grid, 1, 1, 1)
    with pytest.raises(ValueError, match="3 axes, one per panel, found 2"):
        _common.panels(grid, 3, 1, 1)


@pytest.mark.parametrize("wrong", ["x", 5, plt.Figure(), [plt.Figure()], {"a": 1}], ids=str)
def test_other_things_than_axes(wrong):
    with pytest.raises(TypeError, match=r"`ax` to be axes of matplotlib.*found \w+\. .*plt.subplots\(\)"):
        _common.panels(wrong, 1, 1, 1)


def test_a_figure_and_its_axes(results):
    with pytest.raises(TypeError, match="`ax` to be axes of matplotlib, one per panel, found Figure"):
        sn.pl.skill(results, ax=plt.subplots())


@pytest.mark.parametrize("wrong", [pd.DataFrame(), MuData({"rna": AnnData(np.ones((2, 3)))})], ids=["table", "MuData"])
def test_other_objects_are_told_what_to_pass(wrong):
    with pytest.raises(
        TypeError, match=rf"found {type(wrong).__name__}.*`model.adata`.*of MuData the modality.*`mdata\['rna'\]`"
    ):
        _common.results(wrong, "sparsenode")


def test_names():
    assert _common.check_names("b", ["a", "b"], "genes") == ["b"]
    assert _common.check_names(["b", "a"], ["a", "b"], "genes") == ["b", "a"]
    with pytest.raises(ValueError, match=r"`genes` to name some of \['a', 'b'\].*found \['c', 'd'\]"):
        _common.check_names(["c", "a", "d"], ["a", "b"], "genes")
    with pytest.raises(ValueError, match=r"found \[\]"):
        _common.check_names([], ["a", "b"], "genes")
    with pytest.raises(ValueError, match=r"`genes` to name some of .*found \[3\]"):
        _common.check_names(3, ["a", "b"], "genes")


def test_largest():
    assert _common.largest(np.array([1.0, 3.0, 3.0, 2.0]), 3).tolist() == [1, 2, 3]
    assert _common.largest(np.array([1.0, 2.0]), 5).tolist() == [1, 0]


def test_colors_fall_back_on_the_palette():
    adata = AnnData(obs=pd.DataFrame({"lineage": pd.Categorical(["x", "y", "y"])}, index=list("abc")))
    colors = partial(_common.category_colors, adata, "lineage", adata.obs)
    palette = dict(zip(["y", "x"], _common.PALETTE, strict=False))
    assert colors(["y", "x"]) == palette
    adata.uns["lineage_colors"] = ["#ff0000"]  # too few, as after a category was added
    assert colors(["y", "x"]) == palette
    adata.uns["lineage_colors"] = np.array(["#ff0000", "#00ff00"])
    assert colors(["y", "x"]) == {"y": "#00ff00", "x": "#ff0000"}
    adata.uns["lineage_colors"] = ["red", "no colour"]  # scanpy, too, takes its own then
    assert colors(["y", "x"]) == palette
    assert _common.category_colors(adata, None, adata.obs, ["all"]) == {"all": _common.PALETTE[0]}


@pytest.mark.parametrize("draw", [sn.pl.trajectory, sn.pl.skill])
def test_results_of_joined_fits(results, draw):
    """anndata keeps what they share: names of trajectories, but neither these nor scores."""
    other = results.copy()
    fit = other.uns["sparsenode"] = copy.deepcopy(other.uns["sparsenode"])
    fit["trajectories"]["values"], fit["scores"] = fit["trajectories"]["values"] + 1, fit["scores"] + 1
    fit["held_out_scores"] = fit["held_out_scores"] + 1
    joined = concat([results, other], uns_merge="same", index_unique="-")
    with pytest.raises(KeyError, match="data sets were joined.*write_results"):
        draw(joined)


def test_colors_by_name():
    """scanpy takes such a dictionary as a palette, so it is found in ``uns`` too."""
    adata = AnnData(np.zeros((2, 1)), obs={"lineage": pd.Categorical(["x", "y"])})
    adata.uns["lineage_colors"] = {"y": "blue", "x": (1.0, 0.0, 0.0)}
    found = _common.category_colors(adata, "lineage", adata.obs, ["x", "y"])
    assert found == {"x": "#ff0000", "y": "#0000ff"}


def test_a_subset_keeps_its_colors():
    """Lineages that are not there have colours of the palette, but none that is taken."""
    adata = AnnData(np.zeros((3, 1)), obs={"lineage": pd.Categorical(["x", "y", "z"])})
    taken = _common.PALETTE[0]
    adata.uns["lineage_colors"] = ["red", taken, "blue"]
    subset = adata[adata.obs["lineage"] == "y"].copy()
    colors = partial(_common.category_colors, subset, "lineage", subset.obs)
    assert colors(["x", "y", "z"]) == {"x": _common.PALETTE[1], "y": taken.lower(), "z": _common.PALETTE[2]}
    subset.uns["lineage_colors"] = {"x": "red", "y": "blue", "z": "lime"}
    assert colors(["z", "x"]) == {"z": "#00ff00", "x": "#ff0000"}


def test_more_lineages_than_colors():
    assert _common.distinct_colors(8) == list(_common.PALETTE)
    adata = AnnData(np.zeros((1, 1)))
    colors = _common.category_colors(adata, None, adata.obs, [f"l{i}" for i in range(10)])
    assert len(set(colors.values())) == 10


@pytest.mark.parametrize("n", [9, 12, 40])
def test_many_colors_differ_in_brightness(n):
    """So that they differ for those who see few hues, too; with relative luminance as in WCAG."""
    rgb = np.array([to_rgb(color) for color in _common.distinct_colors(n)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()
    assert luminance[-1] - luminance[0] > 0.5


def test_main_lineages():
    memberships = np.array([[0.5, 0.5, 0.0], [2.0, 1.0, 0.0], [0.0, 0.1, 0.9], [0.4, 0.3, 0.3], [0.0, 0.2, 0.0]])
    assert _common.main_lineages(memberships).tolist() == [-1, 0, 2, -1, 1]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ((0.95, 2.4), [1, 1.5, 2]),
        ((0.4, 12), [0.5, 1, 2, 5, 10]),
        ((0.01, 100), [0.01, 0.1, 1, 10, 100]),
        ((0.9, 1.1), [0.9, 0.95, 1, 1.05, 1.1]),
    ],
    ids=str,
)
def test_log_ticks(limits, expected):
    _, axis = plt.subplots()
    axis.set(yscale="log", ylim=limits)
    _common.log_ticks(axis.yaxis)
    axis.figure.canvas.draw()
    assert [float(label.get_text()) for label in axis.get_yticklabels()] == pytest.approx(expected)
    assert not any(label.get_text() for label in axis.get_yticklabels(minor=True))


def test_missing_results(adata):
    with pytest.raises(KeyError, match=r"adata.uns\['mine'\].*key_added='mine'.*write_results"):
        _common.results(adata, "mine")


def test_axes_of_a_subfigure(cells):
    """They are those of its figure, also for a colour bar."""
    figure = plt.figure(figsize=(12, 6))
    left, right = figure.subfigures(1, 2)
    one, other = left.subplots(1, 2), right.subplots(1, 2)
    assert sn.pl.adjacency(cells, ax=one[0], return_fig=True) is figure
    assert len(left.axes) == 3  # with the colour bar
    assert sn.pl.network(cells, ax=one[1]) is one[1]
    assert sn.pl.trajectory(cells, list(cells.var_names[:1]), ax=other[0]) is other[0]
    assert sn.pl.skill(cells, ax=other[1]) is other[1]
    assert len(right.axes) == 2


def test_legends_have_rows_that_are_as_full_as_each_other():
    assert _common.columns_that_fit(10.0, ["a"] * 4) == 4
    assert _common.columns_that_fit(4.0, ["donor 0"] * 6) == 3
    assert _common.columns_that_fit(3.5, ["donor 0"] * 4) == 2  # not three and one
    assert _common.columns_that_fit(0.1, ["a", "b"]) == 1


@pytest.mark.parametrize("width", [3.4, 6.8])
@pytest.mark.parametrize(
    "names",
    [
        ["Megakaryocyte–erythroid progenitors of the foetal liver, donor 1", "B"],
        [", ".join(f"donor{k}" for k in range(first, 40, 4)) for first in range(4)],
        ["a" * 70, "B"],
        ["short", "names"],
    ],
    ids=["words", "donors", "one word", "short"],
)
def test_legends_of_labels_that_are_longer_than_the_figure(is_within, names, width):
    """They are cut into lines, and nothing of them is lost."""
    figure, axes = _common.panels(None, 1, width, 2.8)
    handles = [axes[0].plot([0, 1], label=name)[0] for name in names]
    _common.legend(figure, axes[0], handles, beneath=True, title="lineage")
    assert is_within(figure)
    box = figure.legends[0].get_window_extent()
    assert box.y1 <= axes[0].get_tightbbox().y0
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert ["".join(text.split()) for text in shown] == ["".join(name.split()) for name in names]
    assert names[0] != "short" or shown == names


@pytest.mark.usefixtures("looks_of_scanpy")
def test_the_looks_of_scanpy_draw_no_lines_through_heat_maps_and_leave_dashes_in_legends(fitted_donors):
    axis = sn.pl.adjacency(fitted_donors.adata)
    assert not any(line.get_visible() for line in (*axis.get_xgridlines(), *axis.get_ygridlines()))
    figure = sn.pl.trajectory(fitted_donors.adata, return_fig=True)
    lines = [handle for handle in figure.legends[0].legend_handles if handle.get_linestyle() == "--"]
    assert lines
    size = figure.legends[0].get_texts()[0].get_fontsize()
    assert all(np.ptp(line.get_xdata()) > 1.9 * size for line in lines)
