from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes

import sparsenode as sn


def cells(strengths: list[float]) -> AnnData:
    """Results with a path over these strengths, and nothing else."""
    rising = np.linspace(0, 1, len(strengths))
    names = ["train_error", "validation_error", "validation_se", "feature_sparsity", "weight_sparsity"]
    table = pd.DataFrame(dict.fromkeys(names, rising) | {"strength": strengths, "spurious_sparsity": np.nan})
    stored = {"trajectories": {}, "regularization_path": table, "parameters": {"selected_replicate": 1}}
    return AnnData(np.zeros((1, 1)), uns={"sparsenode": stored})


def labels(axis: Axes) -> list[str]:
    """What is written along the strengths once the figure is drawn, large ticks and small."""
    axis.figure.canvas.draw()
    texts = [*axis.get_xticklabels(), *axis.get_xticklabels(minor=True)]
    return [text.get_text() for text in texts if text.get_text()]


@pytest.mark.parametrize("strengths", [[0.03, 0.1, 0.3], [0.1, 0.12, 0.15, 0.2], [0.0, 0.0123, 0.5]], ids=str)
def test_strengths_are_named(strengths):
    for axis in sn.pl.regularization_path(cells(strengths)):
        assert labels(axis) == [f"{strength:g}" for strength in strengths]


def test_names_of_many_strengths_do_not_touch():
    strengths = np.geomspace(1e-3, 10, 25)
    for axis in sn.pl.regularization_path(cells(list(strengths))):
        assert 4 <= len(labels(axis)) < 25
        boxes = [text.get_window_extent() for text in axis.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))
        ticks = np.sort([*axis.get_xticks(), *axis.get_xticks(minor=True)])
        np.testing.assert_allclose(ticks, strengths)


@pytest.fixture
def seeds() -> AnnData:
    """Three strengths, the smallest zero, with two seeds each; the fourth replicate is selected."""
    adata = cells([0.0, 0.1, 1.0] * 2)
    table = adata.uns["sparsenode"]["regularization_path"]
    generator = np.random.default_rng(0)
    for name in table.columns.drop("strength"):
        table[name] = generator.uniform(0.1, 1.0, 6)
    adata.uns["sparsenode"]["parameters"]["selected_replicate"] = 4
    return adata


def test_replicates_that_were_given_up_are_left_out(seeds):
    """As when a strength is chosen: their errors are infinite, and nothing is open in them."""
    table = seeds.uns["sparsenode"]["regularization_path"]
    table.loc[1, ["train_error", "validation_error"]] = np.inf
    means = table.drop(index=1).groupby("strength").mean()
    for axis in sn.pl.regularization_path(seeds):
        for container in axis.containers:
            name = {"training cells": "train_error", "held-out cells": "validation_error"}.get(container.get_label())
            name = name or {"adjacency": "feature_sparsity", "weights": "weight_sparsity"}.get(container.get_label())
            if name is not None:
                np.testing.assert_allclose(container.lines[0].get_xydata()[:, 1], means[name])


def test_points_are_replicates_and_lines_means_over_seeds(seeds):
    table = seeds.uns["sparsenode"]["regularization_path"]
    means = table.groupby("strength").mean()
    axes = sn.pl.regularization_path(seeds)
    drawn = {container.get_label(): container for axis in axes for container in axis.containers}
    assert list(drawn) == ["training cells", "held-out cells", "adjacency", "weights", "non-regulators"]
    names = ["train_error", "validation_error", "feature_sparsity", "weight_sparsity", "spurious_sparsity"]
    for name, (label, container) in zip(names, drawn.items(), strict=True):
        line = container.lines[0]
        np.testing.assert_allclose(line.get_xydata(), np.c_[means.index, means[name]])
        (points,) = [
            other.get_ydata()
            for axis in axes
            for other in axis.lines
            if other.get_marker() == "." and other.get_color() == line.get_color()
        ]
        np.testing.assert_allclose(points, table[name])
        assert container.has_yerr == (label == "held-out cells")
    segments = np.array(drawn["held-out cells"].lines[2][0].get_segments())
    np.testing.assert_allclose(np.ptp(segments[:, :, 1], axis=1) / 2, means["validation_se"])


def test_zero_is_shown_and_the_selected_strength_marked(seeds):
    for axis in sn.pl.regularization_path(seeds):
        (selected,) = [line for line in axis.lines if line.get_label() == "selected"]
        assert set(selected.get_xdata()) == {0.1}
        places = axis.transData.transform([(strength, 0.5) for strength in (0.0, 0.1, 1.0)])[:, 0]
        assert np.isfinite(places).all()
        np.testing.assert_allclose(places[1] - places[0], places[2] - places[1], rtol=0.15)
        low, high = axis.get_xlim()
        assert low < 0 < 1 < high
    axis = sn.pl.regularization_path(cells([0.1, 0.2, 0.4]))[0]
    assert axis.get_xscale() == "log"


def test_small_errors_can_be_told_apart():
    """As over epochs: errors of 0.001 and 0.003 are not both at the bottom of an axis that reaches to 1."""
    adata = cells([0.01, 0.1, 1.0])
    table = adata.uns["sparsenode"]["regularization_path"]
    table["train_error"] = table["validation_error"] = errors = np.array([0.001, 0.003, 0.1])
    table["validation_se"] = [0.0002, 0.002, 0.2]  # the last one reaches below zero
    axis = sn.pl.regularization_path(adata)[0]
    heights = axis.transAxes.inverted().transform(axis.transData.transform(np.c_[errors, errors]))[:, 1]
    assert (np.diff(heights) > 0.1).all()
    assert heights[0] > 0
    axis.figure.canvas.draw()
    shown = [float(label.get_text()) for label in axis.get_yticklabels()]
    assert 3 <= len(shown) <= 7
    assert 1 in shown


def test_one_strength_is_no_path():
    with pytest.raises(ValueError, match=r"several strengths, found one, 0\.3"):
        sn.pl.regularization_path(cells([0.3, 0.3]))
