"""What all plots share."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_args

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import is_color_like, to_hex, to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from sparsenode import _checks, _keys
from sparsenode.model._edges import Block

_Length = TypeVar("_Length", float, np.ndarray)

# Okabe and Ito (2008), distinguishable with colour vision deficiencies; black last, which dark backgrounds have in white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")

# Room in a legend of small letters, in inches
CHARACTER, _ENTRY, _LINE = 0.075, 0.6, 0.2
# Length of the line of an entry, in letters: scanpy.set_figure_params leaves too little to see dashes
HANDLE = 2.0
_TITLE = 0.11  # width of a letter of a title, in inches

# Why a fit may have no trajectories, and what to do then
NO_TRAJECTORIES = (
    "the trajectories of this fit diverge, or data sets were joined and what their fits do not share was dropped. Fit them too, with "
    "`train(objective='trajectory')`, or call `model.write_results(adata)`."
)

# Cells that no lineage claims
SEVERAL, SEVERAL_COLOR = "several lineages", "0.6"


def results(adata: AnnData, key: str) -> dict[str, Any]:
    """``adata.uns[key]``, or an error that says how to get it."""
    if not isinstance(adata, AnnData):
        raise TypeError(
            f"Expected `adata` to be an AnnData object with the results of a fit, found {type(adata).__name__}. Of a model pass "
            "`model.adata`, also after a fit of two modalities together; of MuData the modality that was fitted, `mdata['rna']`."
        )
    if key not in adata.uns or "trajectories" not in adata.uns[key]:
        raise KeyError(
            f"Expected results of a fit in `adata.uns[{key!r}]`, found none. Train a model with `key_added={key!r}`, or "
            "call `model.write_results(adata)`."
        )
    return adata.uns[key]


def adjacency(adata: AnnData, key: str, lineage: str | None, block: Block | None = None) -> Any:
    """Adjacency of a fit as it is stored, targets × regulators: the mean over lineages, that of one, or one of two blocks."""
    uns = results(adata, key)
    _check_block(uns, lineage, block)
    known = list(dict.fromkeys(map(str, uns["trajectories"]["lineage"])))
    if not (lineage is None or isinstance(lineage, str)):
        raise TypeError(f"Expected `lineage` to be the name of a lineage, one of {known}, found {lineage!r}.")
    name = _keys.adjacency(key) if lineage is None else _keys.lineage_adjacency(lineage, key)
    name = name if block is None else _keys.block_adjacency(block, key)
    if name not in adata.varp and lineage in known:
        raise KeyError(
            f"Expected an adjacency of lineage {lineage!r} in `adata.varp[{name!r}]`, found none: all lineages of this fit share one "
            "field. Leave `lineage` out, or fit with `objective='both'`, `'transport'` or `fields='lineage'`."
        )
    if lineage is not None and name not in adata.varp:
        raise KeyError(
            f"Expected `lineage` to be one of {known}, found {lineage!r}: there is no `adata.varp[{name!r}]`."
        )
    if name not in adata.varp:
        raise KeyError(f"Expected an adjacency in `adata.varp[{name!r}]`, found {list(adata.varp)}.")
    return adata.varp[name]


def _check_block(uns: dict[str, Any], lineage: str | None, block: Block | None) -> None:
    """Refuse blocks that are not stored."""
    if block is None:
        return
    _checks.choice("block", block, get_args(Block))
    if uns.get("parameters", {}).get("order", 1) == 1:
        raise ValueError(
            f"Expected no `block` of a first-order fit, found {block!r}: it has no velocity block. Leave it out."
        )
    if lineage is not None:
        raise ValueError(
            f"Expected `block` or `lineage`, found {block!r} and {lineage!r}: blocks are stored as means over the lineages. "
            "Leave one out, or read `model.get_adjacency(lineage, block=block)`."
        )


def regulator_columns(adata: AnnData, regulators: str | Sequence[str] | None) -> np.ndarray:
    """Positions of the regulators: all genes, those that a column of ``adata.var`` marks, or those with a name."""
    if regulators is None:
        return np.arange(adata.n_vars)
    if isinstance(regulators, str) and regulators in adata.var:
        chosen = np.flatnonzero(_checks.marked(adata, regulators))
        if len(chosen) == 0:
            raise ValueError(f"Expected `adata.var[{regulators!r}]` to mark regulators, found none.")
        return chosen
    return gene_positions(adata, regulators, "regulators")


def gene_positions(adata: AnnData, names: str | Sequence[str], argument: str) -> np.ndarray:
    """Positions of genes, after refusing those that are not known."""
    return adata.var_names.get_indexer(check_names(names, list(adata.var_names), argument))


def category_colors(adata: AnnData, key: str | None, table: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    """Colour of every name: of categories of a column ``adata.uns[f"{key}_colors"]`` where they fit, otherwise what the palette has left."""
    chosen: dict[str, str] = {}
    if key in table and f"{key}_colors" in adata.uns and hasattr(table[key], "cat"):
        colors, categories = adata.uns[f"{key}_colors"], list(map(str, table[key].cat.categories))
        known = dict(colors if isinstance(colors, Mapping) else zip(categories, colors, strict=False))
        own = [name for name in names if name in {*categories, *known}]  # of a subset, some are not there
        if all(name in known and is_color_like(known[name]) for name in own):
            chosen = {name: to_hex(known[name]) for name in own}
    free = (color for color in distinct_colors(len(names)) if color.lower() not in chosen.values())
    return {name: chosen[name] if name in chosen else next(free) for name in names}


def distinct_colors(n: int) -> list[str]:
    """Colours without repetition that show on the background: those of the palette, or of a colour map where there are more."""
    if n <= len(PALETTE):
        return [*PALETTE[:-1], "#FFFFFF" if on_dark() else PALETTE[-1]][:n]
    places = np.linspace(0.3, 1, n) if on_dark() else np.linspace(0, 0.95, n)
    return [to_hex(color) for color in colormaps["viridis"](places)]


def on_dark() -> bool:
    """Whether letters are light, as in styles with a dark background."""
    return bool(np.mean(to_rgb(plt.rcParams["text.color"])) > 0.5)


def take_literally(legend: Legend) -> Legend:
    """Show dollar signs in the names of a legend, and no mathematics."""
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_parse_math(False)
    return legend


def dot(label: str, color: str, size: float | None = None) -> Line2D:
    """Entry of a legend for points of one colour."""
    return Line2D([], [], linestyle="", marker="o", color=color, label=label, markersize=size)


def main_lineages(memberships: np.ndarray) -> np.ndarray:
    """Lineage that holds two thirds or more of each cell's membership, -1 where none does."""
    shares = memberships / memberships.sum(1, keepdims=True)
    return np.where(shares.max(1) > 2 / 3 - 1e-9, shares.argmax(1), -1)


def log_ticks(axis: Axis) -> None:
    """Some three to seven plain numbers on a logarithmic axis, however short it is."""
    low, high = axis.get_view_interval()
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = np.outer(decades, digits).ravel()
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) >= 3:
            break
    else:
        ticks = np.asarray(MaxNLocator(5).tick_values(low, high))
        ticks = ticks[(ticks >= low) & (ticks <= high)]
    axis.set_ticks(ticks[:: -(-len(ticks) // 7)])
    axis.set_ticks([], minor=True)
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def in_points(length: _Length, axis: Axes) -> _Length:
    """A length on the screen, or several, in points."""
    return length * 72 / axis.figure.dpi


def panels(
    ax: Axes | Sequence[Axes] | None, n: int, width: float, height: float, columns: int = 4
) -> tuple[Figure, list[Axes]]:
    """Axes for ``n`` panels: the given ones, or a new grid of at most so many columns."""
    if ax is not None:
        given = list(ax) if isinstance(ax, Iterable) and not isinstance(ax, str) else [ax]
        axes = list(np.ravel(np.asarray(given, dtype=object)))
        others = [item for item in axes if not isinstance(item, Axes)]
        if others:
            raise TypeError(
                f"Expected `ax` to be axes of matplotlib, one per panel, found {type(others[0]).__name__}. `figure, ax = plt.subplots()` gives "
                "both a figure and its axes."
            )
        if len(axes) != n:
            raise ValueError(f"Expected {n} axes, one per panel, found {len(axes)}.")
        figure = axes[0].get_figure()
        figure = figure.figure if isinstance(figure, SubFigure) else figure
        if not isinstance(figure, Figure):
            raise ValueError("Expected axes that belong to a figure, found some without one.")
        return figure, axes
    columns = min(n, columns)
    rows = -(-n // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, layout="constrained"
    )
    axes = list(grid.ravel())
    for spare in axes[n:]:
        spare.remove()
    return figure, axes[:n]


def overlong(names: Iterable[object], usual: int, titles: bool = False) -> float:
    """Inches that the longest of some names takes beyond so many letters: small ones, or those of titles."""
    return (_TITLE if titles else CHARACTER) * max(0, max(len(str(name)) for name in names) - usual)


def columns_that_fit(width: float, labels: Sequence[str]) -> int:
    """Columns of a legend of small letters in so many inches, with rows that are as full as each other."""
    most = max(1, min(len(labels), int(width / (_ENTRY + CHARACTER * max(map(len, labels))))))
    rows = -(-len(labels) // most)
    return -(-len(labels) // rows)


def legend_height(n_entries: int, columns: int, title: bool) -> float:
    """Height of a legend of small letters, in inches."""
    return _LINE * (-(-n_entries // columns) + title)


def legend(figure: Figure, axis: Axes, handles: Sequence[Any], beneath: bool, title: str | None = None) -> None:
    """Legend in the axes, or beneath all panels: in as many columns as fit the figure, which grows by its rows, and long labels in lines."""
    looks: dict[str, Any] = {
        "frameon": False,
        "fontsize": "small",
        "title_fontsize": "small",
        "title": title,
        "handlelength": HANDLE,
    }
    if not beneath:
        take_literally(axis.legend(handles=handles, ncols=1 + len(handles) // 9, **looks))
        return
    width = figure.get_figwidth()
    letters = max(1, int((width - _ENTRY) / CHARACTER))  # that fit a line
    lines: list[str] = []
    for handle in handles:
        label = str(handle.get_label())
        own = textwrap.wrap(label, letters) if len(label) > letters else [label]
        handle.set_label("\n".join(own))
        lines += own
    columns = columns_that_fit(width, lines) if len(lines) == len(handles) else 1
    figure.set_figheight(figure.get_figheight() + legend_height(len(lines), columns, title is not None))
    take_literally(figure.legend(handles=handles, loc="outside lower center", ncols=columns, **looks))


def finish(
    figure: Figure, axes: Sequence[Axes], show: bool | None, return_fig: bool
) -> Figure | Axes | list[Axes] | None:
    """Show, or return what was asked for: the figure, the axes, or nothing after showing."""
    if return_fig:
        return figure
    if show:
        plt.show()
        return None
    return axes[0] if len(axes) == 1 else list(axes)


def check_names(names: Sequence[str], known: Sequence[str], argument: str) -> list[str]:
    """The names as a list, after refusing those that are not known."""
    wanted = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else [names]
    unknown = [name for name in wanted if name not in set(known)]
    if unknown or not wanted:
        raise ValueError(f"Expected `{argument}` to name some of {list(known)[:10]}…, found {unknown or wanted}.")
    return wanted


def largest(values: np.ndarray, n: int) -> np.ndarray:
    """Indices of the ``n`` largest values, largest first; ties in their order."""
    return np.argsort(-values, kind="stable")[:n]
