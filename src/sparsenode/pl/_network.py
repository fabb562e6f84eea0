"""The strongest edges of the network as a graph."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend_handler import HandlerPatch
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.textpath import TextPath
from scipy import sparse

from sparsenode import _checks, _keys
from sparsenode.model._edges import Block
from sparsenode.pl import _common
from sparsenode.pl._layout import LAYOUTS, arrange
from sparsenode.tl._export import to_networkx

# As in the heat map of the adjacency, activation is reddish and repression blue; arrow and bar say the same without colour.
_COLORS = {"activation": _common.PALETTE[1], "repression": _common.PALETTE[0]}
_HEADS = {"activation": "-|>, head_length=0.5, head_width=0.25", "repression": "-[, widthB=0.35, lengthB=0"}
# In points
_FONT = 8.0
_CURVE = 0.12  # height of an edge's arc over its length, so that an edge and its reverse stay apart
_GAP = 1.5  # between an edge's end and the node
_DIAMETERS = (7.0, 20.0)
_WIDTHS = (0.6, 3.0)
_MARGIN = 6.0
_PADDING = np.array([6.0, 10.0])  # around a node with its label
_LEGEND = (300.0, 56.0)  # width and height
_POINTS_PER_INCH, _BORDER = 72.0, 0.1
_GREY = "0.3"


@dataclass(frozen=True)
class _Nodes:
    """Where nodes and their labels are, in points.

    Parameters
    ----------
    points
        Centres of the nodes, nodes × 2. Labels hang beneath them.
    diameters
        Diameters of the nodes.
    labels
        Width and height of the labels, nodes × 2.
    """

    points: np.ndarray
    diameters: np.ndarray
    labels: np.ndarray

    def reach(self, node: int, direction: np.ndarray) -> float:
        """Distance from the centre of a node at which a ray has left the node and its label."""
        radius = self.diameters[node] / 2
        across, down = np.abs(direction[0]), -direction[1]
        side, top, bottom = self.labels[node, 0] / 2, radius + _GAP, radius + _GAP + self.labels[node, 1]
        if down <= 0 or across * top >= side * down:
            return radius
        steps = min(bottom / down, side / across if across > 0 else np.inf)
        return float(steps * np.hypot(across, down))


def network(
    adata: AnnData,
    *,
    key: str = _keys.KEY_ADDED,
    lineage: str | None = None,
    block: Block | None = None,
    n_edges: int = 50,
    regulators: str | Sequence[str] | None = None,
    layout: str = "spring",
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | Axes | list[Axes] | None:
    """Strongest edges as a graph: arrows activate, bars repress, and the width of a line shows the magnitude of its weight.

    Dark nodes regulate others; their size grows with the number of targets drawn. Self edges are left out. Do not use it for more than some
    150 edges, or to see what is *not* connected, which :func:`adjacency` shows.

    Parameters
    ----------
    adata
        Cells with the results of a fit.
    key
        Key of the results, ``key_added`` of the fit.
    lineage
        Lineage whose network is drawn, as in :meth:`sparsenode.SparseNODE.get_adjacency`. Default: the mean over lineages.
    block
        Only in second order: ``"position"`` or ``"velocity"``, as in :meth:`sparsenode.SparseNODE.get_adjacency`. Default: their union.
        Weights are always those of the target's acceleration. Not with ``lineage``: blocks are stored as means over lineages.
    n_edges
        Largest number of edges. Default: 50.
    regulators
        Regulators whose edges are drawn: names, or a boolean column of ``adata.var`` that marks the transcription factors. Default: all. A
        warning lists those that you name and that have none of the ``n_edges`` strongest edges.
    layout
        How connected genes are arranged: ``"spring"``, the default, or ``"kamada_kawai"`` (smoother, slow beyond 200 genes), both of
        networkx :cite:p:`hagberg2008exploring`. Labels are moved apart afterwards.
    ax
        Axes to draw on. On small axes nodes and labels are small too; a new figure is as large as the labels need.
    show
        Show the figure and return nothing.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    Axes. Weights are the default ones of :meth:`sparsenode.SparseNODE.get_adjacency`: with transport and ``"both"`` balanced between
    targets, without unit; otherwise bounds on the change of the target's velocity per unit of expression of the regulator, per unit of
    pseudotime.

    Raises
    ------
    KeyError
        If there are no results under ``key``, or none for ``lineage``.
    TypeError
        If ``adata`` is not an AnnData, ``lineage`` is not a name, the column ``regulators`` is not boolean, or ``ax`` holds anything but
        axes of matplotlib.
    ValueError
        If a gene or layout is unknown, the block does not exist, or ``n_edges`` is not positive.
    """
    _checks.at_least("n_edges", n_edges, 1)
    _checks.choice("layout", layout, list(LAYOUTS))
    graph = to_networkx(_strongest(adata, _common.adjacency(adata, key, lineage, block), regulators, n_edges))
    if len(graph) == 0:
        figure, axes = _common.panels(ax, 1, 4, 4)
        axes[0].text(0.5, 0.5, "no edges", ha="center", va="center", transform=axes[0].transAxes)
        axes[0].set_axis_off()
        return _common.finish(figure, axes, show, return_fig)
    degrees = np.array([graph.out_degree(gene) for gene in graph])
    diameters, labels = _between(_DIAMETERS, degrees / degrees.max()), _label_sizes(list(graph))
    boxes = np.column_stack([np.maximum(labels[:, 0], diameters), labels[:, 1] + diameters + _GAP]) + _PADDING
    centres, size = arrange(graph, layout, boxes)
    drawn = _Nodes(
        centres + np.column_stack([0 * diameters, (boxes[:, 1] - _PADDING[1] - diameters) / 2]), diameters, labels
    )
    low, high = _frame(size)
    figure, axes = _common.panels(ax, 1, *((high - low) / _POINTS_PER_INCH + _BORDER))
    factor = 1.0 if ax is None else _fit(axes[0], high - low)
    axes[0].set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes[0].set_axis_off()
    _draw_edges(axes[0], graph, drawn, factor)
    _draw_nodes(axes[0], graph, drawn, factor)
    _draw_legend(axes[0], graph, degrees, diameters, factor)
    return _common.finish(figure, axes, show, return_fig)


def _strongest(adata: AnnData, matrix: Any, regulators: str | Sequence[str] | None, n_edges: int) -> pd.DataFrame:
    """Long table of the strongest edges between different genes."""
    stored = sparse.coo_array(matrix)
    allowed_sources = _common.regulator_columns(adata, regulators)
    allowed = np.isin(stored.col, allowed_sources) & (stored.row != stored.col)
    target, source, weight = stored.row[allowed], stored.col[allowed], stored.data[allowed]
    top = _common.largest(np.abs(weight), n_edges)
    top = top[weight[top] != 0]
    genes = adata.var_names
    if regulators is not None and not (isinstance(regulators, str) and regulators in adata.var):  # each by its name
        idle, alive = np.setdiff1d(allowed_sources, source[top]), source[weight != 0]
        _warn_of_idle(genes[np.intersect1d(idle, alive)], genes[np.setdiff1d(idle, alive)], len(top))
    return pd.DataFrame({"source": genes[source[top]], "target": genes[target[top]], "weight": weight[top]})


def _warn_of_idle(weaker: pd.Index, without: pd.Index, n_edges: int) -> None:
    """Warn of regulators that were named and are not drawn as such: those whose edges are weaker, and those that have none."""
    for idle, why, remedy in (
        (
            weaker,
            f"have none of their {n_edges} strongest edges",
            "Raise `n_edges`, draw them one by one, or see them side by side in `sn.pl.adjacency`.",
        ),
        (without, "have no edge to another gene", "There is none in this network, whatever `n_edges`."),
    ):
        if len(idle):
            warnings.warn(
                f"{len(idle)} of the `regulators` {why}: {_checks.some(list(idle))}. {remedy}",
                UserWarning,
                stacklevel=4,
            )


def _between(limits: tuple[float, float], share: np.ndarray) -> np.ndarray:
    """From the lower limit at 0 to the upper one at 1; areas grow in proportion."""
    return np.sqrt(limits[0] ** 2 + (limits[1] ** 2 - limits[0] ** 2) * share)


def _label_sizes(labels: Sequence[str]) -> np.ndarray:
    """Width and height of labels, in points."""
    font = FontProperties(size=_FONT)
    # Blanks alone have no outline that could be measured.
    shown = [label.replace("$", r"\$") if label.strip() else "x" for label in labels]
    widths = [TextPath((0, 0), label, prop=font).get_extents().width for label in shown]
    return np.column_stack([widths, np.full(len(widths), 1.25 * _FONT)])


def _frame(size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower left and upper right corner of what is drawn: nodes in the middle, the legend beneath."""
    spare = max(_LEGEND[0] - size[0] - 2 * _MARGIN, 0.0) / 2
    low = np.array([-_MARGIN - spare, -_MARGIN - _LEGEND[1]])
    return low, np.array([size[0] + _MARGIN + spare, size[1] + _MARGIN])


def _fit(axis: Axes, size: np.ndarray) -> float:
    """How much smaller than planned given axes are; at most 1."""
    box = axis.get_window_extent()
    points = _common.in_points(np.array([box.width, box.height]), axis)
    return float(min(1.0, (points / size).min()))


def _draw_edges(axis: Axes, graph: nx.DiGraph, drawn: _Nodes, factor: float) -> None:
    index = {gene: i for i, gene in enumerate(graph)}
    largest = max(abs(weight) for _, _, weight in graph.edges(data="weight"))
    for source, target, edge in sorted(graph.edges(data=True), key=lambda item: abs(item[2]["weight"])):
        start, end = index[source], index[target]
        along = drawn.points[end] - drawn.points[start]
        # Labels hang beneath nodes, so arcs go above; an edge and its reverse go on either side.
        curve = -_CURVE if along[0] > 0 and not graph.has_edge(target, source) else _CURVE
        bend = curve * np.array([along[1], -along[0]])
        axis.add_patch(
            FancyArrowPatch(
                drawn.points[start],
                drawn.points[end],
                connectionstyle=f"arc3, rad={curve}",
                shrinkA=factor * drawn.reach(start, along / 2 + bend),
                shrinkB=factor * (drawn.reach(end, bend - along / 2) + _GAP),
                **_style(edge["sign"], factor * _width(edge["weight"], largest), factor),
            )
        )


def _width(weight: float, largest: float) -> float:
    """Width of a line, in points."""
    return _WIDTHS[0] + (_WIDTHS[1] - _WIDTHS[0]) * abs(weight) / largest


def _style(sign: str, width: float, factor: float) -> dict[str, Any]:
    """Looks of an edge."""
    return {
        "arrowstyle": _HEADS[sign],
        "color": _COLORS[sign],
        "linewidth": width,
        "mutation_scale": 8 * factor + 2 * width,
        "alpha": 0.85,
        "joinstyle": "miter",
        "capstyle": "butt",
        "zorder": 1,
    }


def _draw_nodes(axis: Axes, graph: nx.DiGraph, drawn: _Nodes, factor: float) -> None:
    regulates = [graph.out_degree(gene) > 0 for gene in graph]
    axis.scatter(
        drawn.points[:, 0],
        drawn.points[:, 1],
        s=(factor * drawn.diameters) ** 2,
        c=np.where(regulates, _GREY, "1.0"),
        edgecolors=_GREY,
        linewidths=factor,
        zorder=2,
    )
    halo = [patheffects.withStroke(linewidth=3 * factor, foreground="black" if _common.on_dark() else "white")]
    for label, point, diameter in zip(graph, drawn.points, drawn.diameters, strict=True):
        axis.annotate(
            label,
            point,
            (0, -factor * (diameter / 2 + _GAP)),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=factor * _FONT,
            path_effects=halo,
            parse_math=False,
            zorder=3,
        )


def _draw_legend(axis: Axes, graph: nx.DiGraph, degrees: np.ndarray, diameters: np.ndarray, factor: float) -> None:
    weights = [abs(weight) for _, _, weight in graph.edges(data="weight")]
    found = {sign for _, _, sign in graph.edges(data="sign")}
    signs = [
        FancyArrowPatch((0, 0), (1, 0), label=sign, **_style(sign, 1.5 * factor, factor))
        for sign in _COLORS
        if sign in found
    ]
    widths = [
        Line2D([], [], color="0.5", linewidth=factor * _width(weight, max(weights)), label=f"|weight| {weight:.2g}")
        for weight in dict.fromkeys((min(weights), max(weights)))
    ]
    sizes = [
        _common.dot(f"{degree} target{'s' if degree > 1 else ''}", _GREY, factor * diameters[degrees == degree][0])
        for degree in dict.fromkeys((degrees[degrees > 0].min(), degrees.max()))
    ]
    blank = Line2D([], [], linestyle="", label=" ")
    columns: list[list[Any]] = [signs, widths, sizes]
    rows = max(len(column) for column in columns)
    handles = [handle for column in columns for handle in column + [blank] * (rows - len(column))]
    axis.legend(
        handles=handles,
        handler_map={FancyArrowPatch: HandlerPatch(patch_func=_legend_arrow)},
        loc="lower center",
        ncols=3,
        frameon=False,
        fontsize=factor * _FONT,
        handlelength=2.8,
        labelspacing=1.4,
        borderpad=0.8,
    )


def _legend_arrow(*, width: float, height: float, orig_handle: FancyArrowPatch, **_: object) -> FancyArrowPatch:
    """Arrow of the legend, left to right."""
    return FancyArrowPatch(
        (0, height / 2),
        (width, height / 2),
        arrowstyle=orig_handle.get_arrowstyle(),
        mutation_scale=orig_handle.get_mutation_scale(),
        shrinkA=0,
        shrinkB=0,
    )
