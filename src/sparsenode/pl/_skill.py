"""Errors of a model beside those of null models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparsenode import _keys
from sparsenode.pl import _common

_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
_ROW = 0.28  # height of a row, in inches
_SHORT = 20  # characters of a row's name, beyond which the figure is wider
_FAR = 4.0  # null models further from the best one stand at the edge
_APART = 0.22  # between null models at the edge, in rows
_HUGE = 1000.0  # ratio of errors from which the skill is written in powers of ten
_MAX_TEXT = 40  # rows beyond which nothing is written beside them
_LETTERS = 8  # size of the legend and of numbers, in points
_WIDEST = 5  # entries in a row of the legend
_COLUMNS = (52, 92)  # right ends of the numbers beside a row, in points


def skill(
    scores: AnnData | pd.DataFrame,
    *,
    key: str = _keys.KEY_ADDED,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | Axes | list[Axes] | None:
    r"""Mean squared error of the model beside the null models, one row per trajectory.

    To make rows comparable, errors are divided by that of the best null model of the row. Left of the line at 1 the model is better than
    every null model. The skill is one minus this ratio, :math:`1 - \mathrm{mse} / \mathrm{best\ null}`; the axis is logarithmic, so read it
    in the column on the right.

    Do not use it on the training cells, where the smoothed null model has seen the answer.

    Parameters
    ----------
    scores
        Result of :meth:`sparsenode.SparseNODE.evaluate` for held-out cells or another donor. Or cells with the results of a fit: their
        scores on held-out cells are shown, or on all cells if none were held out.
    key
        Key of the results, ``key_added`` of the fit. Only with cells.
    ax
        Axes to draw on.
    show
        Show the figure and return nothing.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    Axes, with a logarithmic axis of ratios, without unit. Null models that are more than four times worse than the best one are drawn at
    the right edge, with an arrow, unless the model is as bad. The columns on the right are the error, in squared units of the data, and the
    skill.

    Raises
    ------
    KeyError
        If there are no results under ``key``, none with scores, or a column of the table is missing.
    TypeError
        If ``scores`` is neither a table nor AnnData, or ``ax`` holds anything but axes of matplotlib.
    ValueError
        If an error is not a positive number.

    Examples
    --------
    >>> sn.pl.skill(model.evaluate(other_donor))  # doctest: +SKIP
    """
    table, nulls = _read(scores, key)
    errors = table[["mse", *nulls]].to_numpy(dtype=float)
    ratios = errors / errors[:, 1:].min(1, keepdims=True)
    low, high = min(ratios.min(), 0.8) / 1.15, min(ratios.max(), max(_FAR, ratios[:, 0].max())) * 1.15
    places = np.arange(len(errors))[::-1]
    width = 6.0 + _common.overlong(table.index, _SHORT)
    figure, axes = _common.panels(ax, 1, width, 1.3 + _ROW * min(len(errors), 2 * _MAX_TEXT))
    axis = axes[0]
    _draw(axis, ratios, places, [str(name).removeprefix("null_") for name in nulls], high)
    axis.set_xscale("log", base=2)
    axis.set_xlim(low, high)
    _label(axis, table, errors, ratios, places)
    if ax is not None and len(places) <= _MAX_TEXT:  # given axes have no room beside them
        _make_room(axis)
    for place in places[(ratios > high).any(1)]:
        axis.annotate("→", (high, place), (5, 0), textcoords="offset points", va="center", annotation_clip=False)
    _legend(axis, 1.0 if len(places) > _MAX_TEXT else 1.08, shrinks=ax is not None)
    if ax is None:  # in a figure of our own there is room beside the axes, as the layout places them
        figure.draw_without_rendering()
    label, room = axis.xaxis.label.get_window_extent(), (axis if ax is not None else figure).get_window_extent()
    if label.width > room.width or (ax is None and not room.x0 <= label.x0 < label.x1 <= room.x1):
        axis.set_xlabel(axis.get_xlabel().replace("  (", "\n("))
    return _common.finish(figure, axes, show, return_fig)


def _read(scores: AnnData | pd.DataFrame, key: str) -> tuple[pd.DataFrame, list[Any]]:
    """Table of errors, after refusing what is none, and its null models."""
    if isinstance(scores, AnnData):
        uns = _common.results(scores, key)
        if "scores" not in uns:
            raise KeyError(f"Expected scores in `adata.uns[{key!r}]`, found none: {_common.NO_TRAJECTORIES}")
        scores = pd.DataFrame(uns.get("held_out_scores", uns["scores"]))
    if not isinstance(scores, pd.DataFrame):
        raise TypeError(
            f"Expected `scores` to be a table of `model.evaluate()`, or an AnnData object with results, found {type(scores).__name__}. "
            "Of a model pass `model.adata`."
        )
    nulls = [column for column in scores if str(column).startswith("null_")]
    if "mse" not in scores or not nulls:
        raise KeyError(
            f"Expected the columns `mse` and `null_…` of `model.evaluate()` in `scores`, found {list(scores)}."
        )
    errors = scores[["mse", *nulls]].to_numpy(dtype=float)
    wrong = ~(np.isfinite(errors) & (errors > 0)).all(1)
    if len(errors) == 0 or wrong.any():
        raise ValueError(
            f"Expected rows of finite, positive errors in `scores`, found {list(scores.index[wrong][:5]) or 'none'}. Leave out those that a null "
            "model predicts exactly: `scores.drop(index=[…])`."
        )
    return scores, nulls


def _draw(axis: Axes, ratios: np.ndarray, places: np.ndarray, nulls: list[str], high: float) -> None:
    """Ratios of the model, first column, and of the null models; those beyond ``high`` stand there, above each other."""
    blue = _common.PALETTE[0]
    axis.axvline(1.0, color="0.5", linewidth=1, zorder=0)
    axis.hlines(places, ratios[:, 0], 1.0, color=blue, linewidth=2, zorder=1)
    beyond = ratios[:, 1:] > high
    spread = _APART * (beyond.cumsum(1) - (beyond.sum(1, keepdims=True) + 1) / 2)
    for i, name in enumerate(nulls):
        axis.plot(
            np.minimum(ratios[:, 1 + i], high),
            places + np.where(beyond[:, i], spread[:, i], 0.0),
            linestyle="",
            marker=_MARKERS[i % len(_MARKERS)],
            color="none",
            markeredgecolor="0.35",
            markersize=6,
            zorder=4,
            clip_on=False,
            label=name,
        )
    # A ring, so that a null model at the same place is seen within.
    looks: dict[str, Any] = {"color": blue, "mfc": "white", "mew": 2.5, "markersize": 11}
    axis.plot(ratios[:, 0], places, "o", label="model", zorder=3, clip_on=False, **looks)


def _legend(axis: Axes, height: float, shrinks: bool) -> None:
    """Legend above the axes; if it ``shrinks``, in letters that are small enough for their width, where neighbours begin."""
    looks: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, height), "frameon": False}
    looks["handlelength"] = _common.HANDLE
    n_entries = len(axis.get_legend_handles_labels()[0])
    looks["ncols"] = -(-n_entries // -(-n_entries // _WIDEST))  # rows that are as full as each other
    legend = axis.legend(**looks, fontsize=_LETTERS)
    share = axis.get_window_extent().width / legend.get_window_extent().width
    if shrinks and share < 1:
        axis.legend(**looks, fontsize=_LETTERS * share, columnspacing=1.0)


def _label(axis: Axes, scores: pd.DataFrame, errors: np.ndarray, ratios: np.ndarray, places: np.ndarray) -> None:
    """Ticks, and the numbers beside the rows."""
    _common.log_ticks(axis.xaxis)
    arrow = ", →: off the scale" if (ratios > axis.get_xlim()[1]).any() else ""
    axis.set_xlabel(f"error / best null model  (left of 1: better{arrow})")
    axis.set_ylim(-0.7, len(places) - 0.3)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    step = -(-len(places) // (2 * _MAX_TEXT))
    axis.set_yticks(places[::step], [str(name) for name in scores.index[::step]], parse_math=False)
    if len(places) > _MAX_TEXT:
        axis.tick_params(axis="y", labelsize=7)
        return
    rows = [
        (place, f"{error:#.2g}", f"{1 - ratio:+.2f}" if ratio < _HUGE else f"{1 - ratio:+.0e}")
        for place, error, ratio in zip(places, errors[:, 0], ratios[:, 0], strict=True)
    ]
    for place, *texts in [(len(places) - 0.3, "error", "skill"), *rows]:
        for text, right in zip(texts, _COLUMNS, strict=True):
            axis.annotate(
                text,
                (axis.get_xlim()[1], place),
                (right, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=_LETTERS,
                annotation_clip=False,
            )


def _make_room(axis: Axes) -> None:
    """Move the right end of the scale, so that the numbers beside it are within the axes."""
    low, high = axis.get_xlim()
    ticks = axis.get_xticks()
    width = _common.in_points(axis.get_window_extent().width, axis)
    kept = max(1 - (_COLUMNS[-1] + 4) / width, 0.3)  # of the width, for the scale
    axis.set_xlim(low, low * (high / low) ** (1 / kept))
    axis.set_xticks(ticks[(ticks >= low) & (ticks <= high)])
    axis.set_xticks([], minor=True)
