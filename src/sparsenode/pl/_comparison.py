"""Methods beside each other, a panel per measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sparsenode import _checks
from sparsenode.pl import _common

_ROW = 0.3  # height of a method, in inches
_GROUP = 0.16  # and of a group within it
_SHORT = 14  # characters of a method's name, beyond which the figure is wider
_SPREAD = 0.7  # share of a method's height that its groups take


def comparison(
    table: pd.DataFrame,
    measures: str | Sequence[str],
    *,
    method: str = "method",
    groupby: str | None = None,
    labels: dict[str, str] | None = None,
    reference: dict[str, float] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | Axes | list[Axes] | None:
    """Compare methods: one panel per measure, one row per method, a tick per run and a bar for their spread.

    Do not use it if runs differ in more than method, seed and ``groupby``: everything else is averaged over.

    Parameters
    ----------
    table
        One row per run, such as a csv of the benchmarks: a column for the method, one per measure, and usually one for the seed, which need
        not be named. Rows without a value of a measure are left out of its panel.
    measures
        Columns to show.
    method
        Column with the method; if there is none, names in the index are the methods, as in the table of
        :func:`sparsenode.tl.compare_networks`. From top to bottom, methods are in the order of the table, or of the categories.
    groupby
        Column, such as a donor, that separates the runs of a method by colour.
    labels
        Label of each measure, with its unit. Default: the name of the column.
    reference
        Values to mark by a line, by measure: for instance 0 for a skill.
    ax
        Axes to draw on, one per measure.
    show
        Show the figure and return nothing.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    Axes, or a list of them if there are several measures. Points are means over runs, bars one standard deviation of the runs to either
    side.

    Raises
    ------
    KeyError
        If a column is missing.
    TypeError
        If ``table`` is not a data frame, a measure is text, ``labels`` or ``reference`` are not dictionaries, or ``ax`` holds anything but
        axes of matplotlib.
    ValueError
        If the table is empty, a measure has no values or infinite ones, a row has no method or group, or the number of axes is wrong.

    Examples
    --------
    >>> import pandas as pd
    >>> import sparsenode as sn
    >>> runs = pd.DataFrame({"method": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "mse": [1.0, 1.2, 0.8, 0.9]})
    >>> axis = sn.pl.comparison(runs, "mse")
    """
    wanted = [measures] if isinstance(measures, str) else list(measures)
    columns = [*wanted, method, *([groupby] if groupby is not None else [])]
    table = _with_methods(table, method)
    _checks.columns("table", table, columns)
    if not wanted:
        raise KeyError("Expected columns of `table` in `measures`, found no measure.")
    for name, given in {"labels": labels, "reference": reference}.items():
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(
                f"Expected `{name}` to be a dictionary by measure, such as {{{wanted[0]!r}: …}}, found {given!r}."
            )
    _check_rows(table, wanted, columns[len(wanted) :])
    methods, groups = _levels(table[method]), ["all"] if groupby is None else _levels(table[groupby])
    table = table.astype(dict.fromkeys(columns[len(wanted) :], str))
    empty = [measure for measure in wanted if table[measure].notna().sum() == 0]
    if empty or not methods:
        raise ValueError(f"Expected runs with values in `table`, found none for {empty or 'any method'}.")
    colors, band = _common.distinct_colors(len(groups)), "0.15" if _common.on_dark() else "0.95"
    height = 0.9 + max(_ROW, _GROUP * len(groups)) * len(methods)
    longer = _common.overlong(methods, _SHORT)
    figure, axes = _common.panels(ax, len(wanted), 3.2 + longer / min(4, len(wanted)), height)
    for i, (axis, measure) in enumerate(zip(axes, wanted, strict=True)):
        for g, group in enumerate(groups):
            rows = table if groupby is None else table[table[groupby] == group]
            shift = 0.0 if len(groups) == 1 else _SPREAD * (g / (len(groups) - 1) - 0.5)
            _draw(axis, rows[[method, measure]].dropna(), methods, shift, colors[g], group)
        if reference is not None and measure in reference:
            axis.axvline(reference[measure], color="0.5", linewidth=1, linestyle="--", zorder=0)
        for place in range(0, len(methods), 2):
            axis.axhspan(place - 0.5, place + 0.5, color=band, linewidth=0, zorder=-1)
        axis.set_xlabel((labels or {}).get(measure, measure), parse_math=measure in (labels or {}))
        axis.set_ylim(len(methods) - 0.5, -0.5)
        axis.set_yticks(
            np.arange(len(methods)), methods if i % 4 == 0 or ax is not None else [""] * len(methods), parse_math=False
        )
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.tick_params(axis="y", length=0)
        axis.spines[["top", "right", "left"]].set_visible(False)
    if groupby is not None:
        _legend(figure, axes[0], groups, groupby, grows=ax is None)
    return _common.finish(figure, axes, show, return_fig)


def _with_methods(table: pd.DataFrame, method: str) -> pd.DataFrame:
    """The table with names of methods in a column, where they are its index."""
    if not isinstance(table, pd.DataFrame) or method in table or table.index.name not in (None, method):
        return table
    if isinstance(table.index, pd.MultiIndex) or not all(isinstance(name, str) for name in table.index):
        return table
    return table.rename_axis(method).reset_index()


def _check_rows(table: pd.DataFrame, measures: Sequence[str], names: Sequence[str]) -> None:
    """Refuse rows that have no place in the plot."""
    for name in names:
        n_missing = int(table[name].isna().sum())
        if n_missing:
            raise ValueError(
                f"Expected a `{name}` in every row of `table`, found none in {n_missing} of {len(table)} rows. Name them, or leave "
                f"them out: `table.dropna(subset=[{name!r}])`."
            )
    for name in measures:
        text = table[name][pd.to_numeric(table[name], errors="coerce").isna() & table[name].notna()]
        if len(text):
            raise TypeError(
                f"Expected numbers in the column {name!r} of `table`, found {text.iloc[0]!r} in row {text.index[0]} and {len(text)} such rows in "
                "all. Correct them, or name other `measures`."
            )
    infinite = [name for name in measures if np.isinf(pd.to_numeric(table[name], errors="coerce")).any()]
    if infinite:
        raise ValueError(
            f"Expected finite measures in `table`, found infinite ones in {infinite}: no mean can be drawn. Make them missing: "
            "`table.replace([np.inf, -np.inf], np.nan)`."
        )


def _levels(column: pd.Series) -> list[str]:
    """Values of a column that occur, as text, in the order of the categories or of the rows."""
    ordered = column.sort_values(kind="stable") if hasattr(column, "cat") else column
    return list(dict.fromkeys(ordered.astype(str)))


def _legend(figure: Figure, axis: Axes, groups: Sequence[str], title: str, grows: bool) -> None:
    """Legend above given axes, or above all panels of a figure of our own, which grows by its rows."""
    width = figure.get_figwidth() if grows else axis.get_window_extent().width / figure.dpi
    n_columns = _common.columns_that_fit(width, groups)
    looks: dict[str, Any] = {"ncols": n_columns, "frameon": False, "fontsize": 8, "title": title}
    if grows:  # one panel would be moved away from the others for a legend of its own
        handles = axis.get_legend_handles_labels()
        figure.set_figheight(figure.get_figheight() + _common.legend_height(len(groups), n_columns, title=True))
        legend = figure.legend(*handles, loc="outside upper center", **looks)
    else:
        legend = axis.legend(loc="lower left", bbox_to_anchor=(0, 1), **looks)
    _common.take_literally(legend)


def _draw(axis: Axes, runs: pd.DataFrame, methods: list[str], shift: float, color: str, label: str) -> None:
    """Runs of one group as points, means and standard deviations."""
    names, values = runs.iloc[:, 0].to_numpy(), runs.iloc[:, 1].to_numpy(dtype=float)
    places = np.array([methods.index(name) for name in names], dtype=float) + shift
    axis.plot(values, places, "|", color=color, alpha=0.7, markersize=7)
    means = pd.Series(values).groupby(places).agg(["mean", "std"])
    axis.errorbar(
        means["mean"],
        means.index,
        xerr=means["std"].fillna(0.0),
        fmt="o",
        color=color,
        markersize=6,
        markeredgecolor="white",
        markeredgewidth=0.8,
        elinewidth=1.5,
        label=label,
    )
