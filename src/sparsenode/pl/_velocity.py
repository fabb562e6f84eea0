"""Fitted velocities on an embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D

from sparsenode import _checks, _keys
from sparsenode._input._expression import dense, expression
from sparsenode._input._observations import read_observations
from sparsenode.pl import _common
from sparsenode.pl._projection import on_grid, project

_MAX_CELLS = 5000
_MISSING, _MISSING_COLOR = "missing", "0.8"
_ROWS = 16  # of a legend beside the axes
_SHARE = 0.4  # of the height of given axes, which the legend takes at most


def velocity(
    adata: AnnData,
    *,
    basis: str = "umap",
    color: str | None = None,
    n_neighbors: int = 30,
    key: str = _keys.KEY_ADDED,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | Axes | list[Axes] | None:
    r"""Fitted velocities as stream lines on an embedding such as a UMAP.

    A velocity has an entry per gene. On the embedding it points to those of the nearest cells in expression that lie in its direction,
    weighted by :math:`\exp(\cos / 0.1)` :cite:p:`lamanno2018rna,bergen2020generalizing`. **Embeddings bend**: read directions along
    well-populated branches only, and do not read speeds. To quantify fates, pass ``adata.layers["sparsenode_velocity"]`` to CellRank.

    Parameters
    ----------
    adata
        Cells with the results of a fit and an embedding. All are drawn; velocities are those of at most 5000, spread evenly.
    basis
        Embedding: ``adata.obsm["X_{basis}"]`` or ``adata.obsm[basis]``; its first two dimensions are shown. Default: ``"umap"``.
    color
        Column of ``adata.obs`` that colours the cells; without a value, or with an infinite one, they are grey. Default: the lineages. If
        these are memberships, or columns of a table of pseudotimes, a cell has the colour of the largest one, if that is two thirds or more
        of them, and is grey otherwise.
    n_neighbors
        Number of nearest cells that a velocity may point to. Default: 30.
    key
        Key of the results, ``key_added`` of the fit.
    ax
        Axes to draw on. The legend is then inside them, beneath the cells, in smaller letters if there are many names; in a new figure it
        is on the right.
    show
        Show the figure and return nothing.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    Axes. Embeddings have no units.

    Raises
    ------
    KeyError
        If there are no results under ``key``, no velocities among them, or the embedding or column does not exist.
    TypeError
        If ``adata`` is not an AnnData, or ``ax`` holds anything but axes of matplotlib.
    ValueError
        If ``n_neighbors`` is not a positive integer, there are fewer than three cells, or the embedding has one dimension or values that
        are not finite.
    """
    _checks.at_least("n_neighbors", n_neighbors, 1)
    uns, layer = _common.results(adata, key), _keys.velocity(key)
    if layer not in adata.layers:
        found = [name for name in adata.layers if name is not None]
        why = "" if "scores" in uns else f" They need trajectories, and {_common.NO_TRAJECTORIES}"
        raise KeyError(f"Expected velocities in `adata.layers[{layer!r}]`, found {found}.{why}")
    places = _embedding(adata, basis)
    setup = uns["setup"]
    if color is not None and not (isinstance(color, str) and color in adata.obs):
        raise KeyError(f"Expected `color` to name a column of `adata.obs`, found {color!r}: {list(adata.obs)}.")
    shades = _lineages(adata, uns) if color is None else adata.obs[color]
    chosen = np.arange(adata.n_obs)[:: max(1, -(-adata.n_obs // _MAX_CELLS))]
    arrows = project(
        dense(expression(adata, setup.get("layer"))[chosen]).astype(float),
        dense(adata.layers[layer][chosen]).astype(float),
        places[chosen],
        n_neighbors,
    )
    figure, axes = _common.panels(ax, 1, 4.6, 4.2)
    axis = axes[0]
    handles = _draw_cells(axis, adata, places, shades)
    x, y, u, v = on_grid(places[chosen], arrows)
    length = np.hypot(u, v)
    largest = np.nanmax(length) if np.isfinite(length).any() else 0.0
    if largest > 0:
        width = 0.4 + 1.2 * np.nan_to_num(length / largest)
        color = "0.85" if _common.on_dark() else "0.15"
        axis.streamplot(x, y, u, v, color=color, linewidth=width, density=1.3, arrowsize=1.0, zorder=2)
    axis.set_xlabel(f"{basis} 1", parse_math=False)
    axis.set_ylabel(f"{basis} 2", parse_math=False)
    axis.set(xticks=[], yticks=[])
    axis.spines[["top", "right"]].set_visible(False)
    if shades is not None and handles:
        if ax is None:
            _legend_beside(figure, axis, handles, str(shades.name))
        else:
            _legend_beneath(axis, handles, str(shades.name), places[:, 1])
    return _common.finish(figure, axes, show, return_fig)


def _embedding(adata: AnnData, basis: str) -> np.ndarray:
    name = f"X_{basis}" if f"X_{basis}" in adata.obsm else basis
    if name not in adata.obsm:
        raise KeyError(f"Expected an embedding in `adata.obsm['X_{basis}']`, found {list(adata.obsm)}.")
    places = np.asarray(adata.obsm[name], dtype=float)
    if places.ndim != 2 or places.shape[1] < 2 or len(places) < 3 or not np.isfinite(places).all():
        raise ValueError(
            f"Expected at least 3 cells with two finite coordinates in `adata.obsm[{name!r}]`, found shape {places.shape}"
            f"{'' if np.isfinite(places).all() else ' with values that are not finite'}."
        )
    for axis in range(2):
        if np.ptp(places[:, axis]) == 0:
            raise ValueError(
                f"Expected cells at different places along both coordinates in `adata.obsm[{name!r}]`, found one value, {places[0, axis]:g}, "
                f"along coordinate {axis}. Take an embedding of two dimensions."
            )
    return places[:, :2]


def _lineages(adata: AnnData, uns: dict[str, Any]) -> pd.Series | None:
    """Lineage of every cell, missing where it is of several; nothing where there is one lineage."""
    setup = uns["setup"]
    lineage_key = setup.get("lineage_key")
    if lineage_key in adata.obs:
        return adata.obs[lineage_key].astype("category")  # lineages may be numbers
    names = list(dict.fromkeys(map(str, uns["trajectories"]["lineage"])))
    if lineage_key is None and len(names) == 1:
        return None
    observations = read_observations(adata, setup["time_key"], lineage_key, setup.get("batch_key"), names)
    main = np.array([*names, None], dtype=object)[_common.main_lineages(observations.memberships)]
    title = lineage_key or setup["time_key"]  # a table of pseudotimes says which cells are in which lineage
    return pd.Series(pd.Categorical(main, categories=names), index=adata.obs_names, name=title)


def _draw_cells(axis: Axes, adata: AnnData, places: np.ndarray, shades: pd.Series | None) -> list[Line2D]:
    """Points in the colours of a column, with a colour bar or what a legend is to name."""
    looks: dict[str, Any] = {
        "s": min(40.0, max(4.0, 2e4 / len(places))),
        "linewidths": 0,
        "rasterized": True,
        "zorder": 1,
    }
    if shades is None:
        axis.scatter(places[:, 0], places[:, 1], color="0.8", **looks)
        return []
    if shades.dtype.kind in "fiu":
        _draw_numbers(axis, places, shades, looks)
        return []
    return _draw_categories(axis, adata, places, shades, looks)


def _draw_numbers(axis: Axes, places: np.ndarray, shades: pd.Series, looks: dict[str, Any]) -> None:
    """Points in the colours of a column of numbers, with a colour bar."""
    values = shades.to_numpy(dtype=float, na_value=np.nan)
    missing, infinite = ~np.isfinite(values), np.isinf(values)  # as diffusion pseudotime where no path leads
    kinds = [kind for kind, cells in (("missing", missing & ~infinite), ("infinite", infinite)) if cells.any()]
    if missing.any():
        axis.scatter(places[missing, 0], places[missing, 1], color=_MISSING_COLOR, **looks)
        places, values = places[~missing], values[~missing]
    points = axis.scatter(places[:, 0], places[:, 1], c=values, cmap="viridis", alpha=0.6, **looks)
    label = str(shades.name) + (f" (grey: {' or '.join(kinds)})" if kinds else "")
    axis.figure.colorbar(points, ax=axis, shrink=0.6).set_label(label, parse_math=False)


def _draw_categories(
    axis: Axes, adata: AnnData, places: np.ndarray, shades: pd.Series, looks: dict[str, Any]
) -> list[Line2D]:
    """Points in the colours of a column of categories, and what a legend is to name."""
    title = str(shades.name)
    names = [str(name) for name in shades.astype("category").cat.categories]
    colors = _common.category_colors(adata, title, adata.obs, names)
    none = (_MISSING, _MISSING_COLOR) if title in adata.obs else (_common.SEVERAL, _common.SEVERAL_COLOR)
    shown = [none[1] if missing else colors[str(name)] for name, missing in zip(shades, shades.isna(), strict=True)]
    axis.scatter(places[:, 0], places[:, 1], c=shown, alpha=0.5, **looks)
    present = set(map(str, shades.dropna()))
    handles = [_common.dot(name, colors[name]) for name in names if name in present]
    return [*handles, _common.dot(*none)] if shades.isna().any() else handles


def _legend_beside(figure: Figure, axis: Axes, handles: list[Line2D], title: str) -> None:
    """Legend at the right of the axes, which keep their size: the figure grows by its width."""
    legend = axis.legend(
        handles=handles,
        title=title,
        frameon=False,
        fontsize="small",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        ncols=-(-len(handles) // _ROWS),
    )
    _common.take_literally(legend)
    figure.set_figwidth(figure.get_figwidth() + legend.get_window_extent().width / figure.dpi)


def _legend_beneath(axis: Axes, handles: list[Line2D], title: str, heights: np.ndarray) -> None:
    """Legend at the bottom of given axes, whose limits make room for it beneath the cells: in as large letters as fit."""
    looks: dict[str, Any] = {"handles": handles, "title": title, "frameon": False, "loc": "lower center"}
    font = FontProperties(size="small").get_size_in_points()
    frame = axis.get_window_extent()
    column = _common.take_literally(axis.legend(**looks, fontsize=font, title_fontsize=font)).get_window_extent()
    columns = np.arange(1, len(handles) + 1)
    lines = 1 + -(-len(handles) // columns)  # with the title
    height = lines * column.height / lines[0]
    factors = np.minimum(frame.width / (columns * column.width), _SHARE * frame.height / height).clip(max=1.0)
    best = np.flatnonzero(factors == factors.max())[-1]  # the fewest lines of those
    font *= factors[best]
    legend = axis.legend(
        **looks,
        fontsize=font,
        title_fontsize=font,
        markerscale=factors[best],
        ncols=int(columns[best]),
        columnspacing=0.8,  # twice the padding, so that columns are as wide as the one that was measured
    )
    _common.take_literally(legend)
    low, high = (heights.max(), heights.min()) if axis.yaxis_inverted() else (heights.min(), heights.max())
    share = legend.get_window_extent().height / frame.height
    axis.update_datalim([(0.0, high - (high - low) / (1 - share))], updatex=False)
    axis.autoscale_view()
