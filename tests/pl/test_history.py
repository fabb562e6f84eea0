from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import sparsenode as sn


def curves(axis: Axes) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in axis.lines if not line.get_label().startswith("_")}


def test_structure(cells):
    axes = sn.pl.history(cells)
    history = cells.uns["sparsenode"]["history"]
    assert [axis.get_xlabel() for axis in axes] == ["epoch", "epoch"]
    assert [axis.get_ylabel() for axis in axes] == ["error / variance", "share of exact zeros"]
    expected = [
        {"training cells": "train_error", "held-out cells": "validation_error"},
        {"adjacency": "feature_sparsity", "weights": "weight_sparsity"},
    ]
    for axis, columns in zip(axes, expected, strict=True):
        drawn = curves(axis)
        assert list(drawn) == list(columns)
        assert [text.get_text() for text in axis.get_legend().get_texts()] == list(columns)
        for label, column in columns.items():
            np.testing.assert_array_equal(drawn[label], np.c_[np.arange(20), history[column]])
    assert len({line.get_color() for axis in axes for line in axis.lines if line.get_label() in curves(axis)}) == 4
    low, high = axes[1].get_ylim()
    assert low < 0 < 1 < high
    assert any((np.asarray(line.get_ydata()) == 1.0).all() for line in axes[0].lines)  # a constant prediction


def test_fit_of_the_network_has_a_column_of_its_own(results):
    history = results.uns["sparsenode"]["history"]
    results.uns["sparsenode"]["network_history"] = history.iloc[:7] / 2
    axes = sn.pl.history(results)
    assert [axis.get_title() for axis in axes] == ["network (transport)", "trajectories", "", ""]
    for axis, column, table in (
        (axes[0], "train_error", history.iloc[:7] / 2),
        (axes[1], "train_error", history),
        (axes[2], "feature_sparsity", history.iloc[:7] / 2),
        (axes[3], "feature_sparsity", history),
    ):
        np.testing.assert_array_equal(next(iter(curves(axis).values()))[:, 1], table[column])
    left, right = axes[0].get_position(), axes[1].get_position()
    assert left.x1 < right.x0
    assert axes[2].get_position().y1 < left.y0
    with pytest.raises(ValueError, match="4 axes, one per panel, found 2"):
        sn.pl.history(results, ax=axes[:2])


def test_ticks_of_errors_are_plain_numbers(results):
    history = results.uns["sparsenode"]["history"]
    history["train_error"] = history["validation_error"] = np.linspace(2.3, 0.96, len(history))
    axis = sn.pl.history(results)[0]
    axis.figure.canvas.draw()
    assert [label.get_text() for label in axis.get_yticklabels()] == ["1", "1.5", "2"]
    assert axis.get_yticklabels(minor=True) == []


def test_without_held_out_cells(adata, fit):
    fit(adata, train={"train_size": 1.0})
    assert list(curves(sn.pl.history(adata)[0])) == ["training cells"]


def test_validation_of_every_other_epoch(adata, fit):
    """A curve with holes is drawn through them, not broken into invisible points."""
    fit(adata, train={"check_val_every_n_epoch": 2, "max_epochs": 6})
    held_out = curves(sn.pl.history(adata)[0])["held-out cells"]
    assert held_out[:, 0].tolist() == [1, 3, 5]
    assert np.isfinite(held_out).all()


def test_one_epoch_is_visible(adata, fit):
    """A line through one point shows nothing, unless it has a marker."""
    fit(adata, train={"max_epochs": 1})
    for axis in sn.pl.history(adata):
        for line in axis.lines:
            if not line.get_label().startswith("_"):
                assert len(line.get_xdata()) > 1 or line.get_marker() not in ("", "None", None)


def test_epochs_are_whole_numbers(adata, fit):
    fit(adata, train={"max_epochs": 3})
    errors, zeros = sn.pl.history(adata)
    for axis in (errors, zeros):
        ticks = axis.get_xticks()
        assert (ticks == np.round(ticks)).all()
        assert {0, 1, 2} <= set(ticks)


def test_given_axes(results):
    figure, grid = plt.subplots(1, 2)
    assert sn.pl.history(results, ax=grid) == list(grid)
    assert sn.pl.history(results, ax=grid, return_fig=True) is figure
    with pytest.raises(ValueError, match="2 axes, one per panel, found 1"):
        sn.pl.history(results, ax=grid[0])


def test_show(results, shown):
    assert isinstance(sn.pl.history(results, return_fig=True), Figure)
    assert len(sn.pl.history(results, show=False)) == 2
    assert shown() == 0
    assert sn.pl.history(results, show=True) is None
    assert shown() == 1


def test_errors(results, adata):
    with pytest.raises(KeyError, match=r"adata.uns\['sparsenode'\]"):
        sn.pl.history(adata)
    del results.uns["sparsenode"]["history"]
    with pytest.raises(KeyError, match="history"):
        sn.pl.history(results)
