"""Heat map of the adjacency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import ScaledTranslation
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist

from sparsenode import _checks, _keys
from sparsenode._input._expression import dense
from sparsenode.model._edges import Block
from sparsenode.pl import _common

_MAX_LABELS = 60
_FEWEST_ROWS = 3  # that a figure has room for: the label of the colour bar needs it
_SMALLEST, _LARGEST = 6.0, 10.0  # letters of the label of the colour bar, in points
_LABEL = 8.0  # height of a label with its margin, in points
_SHORT = 8  # letters of a gene's name, beyond which the figure is larger
_STRIP = 5  # colours of groups stand this far from the heat map, in points


def adjacency(
    adata: AnnData,
    *,
    regulators: str | Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    lineage: str | None = None,
    block: Block | None = None,
    n_top: int = 40,
    cluster: bool = True,
    groupby: str | None = None,
    key: str = _keys.KEY_ADDED,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | Axes | list[Axes] | None:
    """Signed adjacency as a heat map: rows are targets, columns are regulators, exact zeros are grey.

    Self edges are hatched, not coloured: they are often far larger than the edges between genes. They influence neither the colour scale
    nor the choice of rows and columns. ``adata.varp`` holds their values.

    Do not use it for whole networks of hundreds of genes: it shows the ``n_top`` strongest rows and columns.

    Parameters
    ----------
    adata
        Cells with the results of a fit.
    regulators
        Columns to show: names, or a boolean column of ``adata.var`` that marks the transcription factors. Default: all genes. If there are
        more than ``n_top``, the strongest are shown; those without any edge only if they are named.
    targets
        Rows to show. Default: the ``n_top`` strongest; if there are more genes, without those that have no edge.
    lineage
        Lineage whose network is drawn, as in :meth:`sparsenode.SparseNODE.get_adjacency`. Default: the mean over lineages.
    block
        Only in second order: ``"position"`` or ``"velocity"``, as in :meth:`sparsenode.SparseNODE.get_adjacency`. Default: their union.
        Weights are always those of the target's acceleration. Not with ``lineage``: blocks are stored as means over lineages.
    n_top
        Largest number of rows and of columns that are chosen. Default: 40.
    cluster
        Whether to order rows and columns by hierarchical clustering of their magnitudes. Default: ``True``.
    groupby
        Column of ``adata.var`` such as a body part or a pathway. Rows and columns of one group are placed together, in the order of the
        categories, and clustered within it. Raise ``n_top`` to see whole groups.
    key
        Key of the results, ``key_added`` of the fit.
    ax
        Axes to draw on.
    show
        Show the figure and return nothing.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    Axes. Colours are the default weights of :meth:`sparsenode.SparseNODE.get_adjacency`: with transport and ``"both"`` balanced between
    targets, without unit; otherwise bounds on the change of the target's velocity per unit of expression of the regulator, per unit of
    pseudotime. The colour scale ends at the 98th percentile of the magnitudes between different genes.

    Raises
    ------
    KeyError
        If there are no results under ``key``, none for ``lineage``, or no column ``groupby``.
    TypeError
        If ``adata`` is not an AnnData, ``lineage`` is not a name, ``cluster`` or the column ``regulators`` is not boolean, or ``ax`` holds
        anything but axes of matplotlib.
    ValueError
        If a gene is unknown or in no group, the block does not exist, or ``n_top`` is not a positive integer.
    """
    _checks.at_least("n_top", n_top, 1)
    _checks.booleans(cluster=cluster)
    matrix = _common.adjacency(adata, key, lineage, block)
    matrix = dense(matrix).copy()
    self_edges = np.diag(np.diag(matrix) != 0)
    np.fill_diagonal(matrix, 0.0)
    columns = _common.regulator_columns(adata, regulators)
    rows = np.arange(adata.n_vars) if targets is None else _common.gene_positions(adata, targets, "targets")
    named = not (regulators is None or isinstance(regulators, str) and regulators in adata.var)
    columns = columns[_strongest(np.abs(matrix[np.ix_(rows, columns)]).sum(0), n_top, named)]
    if targets is None:
        rows = _strongest(np.abs(matrix[:, columns]).sum(1), n_top)
    magnitudes = np.abs(matrix[np.ix_(rows, columns)])
    groups = _Groups(adata, groupby)
    row_order = groups.order(rows, magnitudes, cluster)
    column_order = groups.order(columns, magnitudes.T, cluster)
    rows, columns = rows[row_order], columns[column_order]
    size = 2.5 + 0.16 * np.clip([len(columns), len(rows)], _FEWEST_ROWS, _MAX_LABELS)
    names = adata.var_names[rows], adata.var_names[columns]
    beyond = [_common.overlong(own, _SHORT) for own in names]
    figure, axes = _common.panels(ax, 1, size[0] + 1.2 + beyond[0], size[1] + beyond[1])
    shown = np.ix_(rows, columns)
    label = f"weight ({_unit(_common.results(adata, key))}; grey: exactly zero)"
    _draw(axes[0], figure, matrix[shown], self_edges[shown], *names, label)
    groups.draw(axes[0], rows, columns)
    return _common.finish(figure, axes, show, return_fig)


def _strongest(sums: np.ndarray, n_top: int, named: bool = False) -> np.ndarray:
    """Positions of the largest sums, in their order; where some are left out, so are zeros, unless they were asked for by name."""
    if not named and len(sums) > n_top:
        n_top = min(n_top, max(1, int((sums > 0).sum())))
    return np.sort(_common.largest(sums, n_top))


class _Groups:
    """Groups of the genes; without a column, one group that is not drawn."""

    def __init__(self, adata: AnnData, groupby: str | None) -> None:
        self.names: list[str] = []
        self.of_gene = np.zeros(adata.n_vars, dtype=np.int64)
        if groupby is None:
            return
        if not isinstance(groupby, str) or groupby not in adata.var:
            raise KeyError(f"Expected `groupby` to name a column of `adata.var`, found {groupby!r}: {list(adata.var)}.")
        column = adata.var[groupby].astype("category").cat
        self.of_gene = column.codes.to_numpy(dtype=np.int64)
        if (self.of_gene < 0).any():
            missing = list(adata.var_names[self.of_gene < 0][:5])
            raise ValueError(f"Expected a group of every gene in `adata.var[{groupby!r}]`, found none for {missing}.")
        self.names = [str(name) for name in column.categories]
        self.colors = _common.category_colors(adata, groupby, adata.var, self.names)

    def order(self, genes: np.ndarray, values: np.ndarray, cluster: bool) -> np.ndarray:
        """Positions of the genes in the order of their groups, within each by clustering the rows of ``values``."""
        members = [np.flatnonzero(self.of_gene[genes] == group) for group in np.unique(self.of_gene[genes])]
        return np.concatenate([member[_leaves(values[member])] if cluster else member for member in members])

    def draw(self, axis: Axes, rows: np.ndarray, columns: np.ndarray) -> None:
        """Separate the groups by lines, and name them at the top and at the right."""
        if not self.names:
            return
        top, right = axis.secondary_xaxis("top"), axis.secondary_yaxis("right")
        self._draw_side(axis, top.xaxis, columns, is_top=True)
        self._draw_side(axis, right.yaxis, rows, is_top=False)
        for spine in (*top.spines.values(), *right.spines.values()):
            spine.set_visible(False)

    def _draw_side(self, axis: Axes, side: Axis, genes: np.ndarray, is_top: bool) -> None:
        groups = self.of_gene[genes]
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        ends = np.append(starts[1:], len(genes))
        names = [self.names[groups[start]] for start in starts]
        for start in starts[1:]:
            (axis.axvline if is_top else axis.axhline)(start - 0.5, color="black", linewidth=0.8)
        width = _common.in_points(axis.get_window_extent().width, axis) / len(genes)  # of a column, in points
        narrow = any(
            5 * len(name) > width * (end - start) for name, start, end in zip(names, starts, ends, strict=True)
        )
        side.set_ticks((starts + ends - 1) / 2, names, parse_math=False)
        side.set_tick_params(length=0, labelsize=8, labelrotation=90 if is_top and narrow else 0, pad=2 * _STRIP)
        shift = ScaledTranslation(0, _STRIP / 72, axis.figure.dpi_scale_trans)
        transform = axis.get_xaxis_transform() + shift
        if not is_top:
            shift = ScaledTranslation(_STRIP / 72, 0, axis.figure.dpi_scale_trans)
            transform = axis.get_yaxis_transform() + shift
        for name, start, end in zip(names, starts, ends, strict=True):
            span = (start - 0.4, end - 0.6)
            axis.add_artist(
                Line2D(
                    *(span, (1, 1)) if is_top else ((1, 1), span),
                    color=self.colors[name],
                    linewidth=0.8 * _STRIP,
                    solid_capstyle="butt",
                    transform=transform,
                    clip_on=False,
                )
            )


def _leaves(values: np.ndarray) -> np.ndarray:
    """Order of the rows in a dendrogram."""
    if len(values) <= 2:
        return np.arange(len(values))
    return leaves_list(linkage(pdist(values), "average", optimal_ordering=len(values) <= 200))


def _unit(results: dict[str, Any]) -> str:
    """Unit of the weights that are stored, those of ``get_adjacency`` by default."""
    parameters = results.get("parameters", {})
    if parameters.get("weights") == "balanced":
        return "no unit"
    return "1 / time²" if parameters.get("order") == 2 else "1 / time"


def _draw(
    axis: Axes,
    figure: Figure,
    weights: np.ndarray,
    self_edges: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
) -> None:
    limit = float(np.quantile(np.abs(weights[weights != 0]), 0.98)) if (weights != 0).any() else 1.0
    shown = np.ma.masked_equal(weights, 0.0)
    axis.set_facecolor("0.7")
    axis.grid(False)  # scanpy.set_figure_params draws one, through the middle of every row and column
    image = axis.imshow(
        shown, cmap="RdBu_r", norm=TwoSlopeNorm(0.0, -limit, limit), aspect="auto", interpolation="nearest"
    )
    axis.set(xlabel="regulator", ylabel="target")
    frame = axis.get_window_extent()
    sides = ((axis.set_xticks, columns, 90, frame.width), (axis.set_yticks, rows, 0, frame.height))
    for setter, names, rotation, length in sides:
        n_labels = min(_MAX_LABELS, max(1, int(_common.in_points(length, axis) / _LABEL)))
        step = -(-len(names) // n_labels)
        setter(
            np.arange(0, len(names), step),
            list(names)[::step],
            rotation=rotation,
            fontsize=7,
            parse_math=False,
        )
    for row, column in np.argwhere(self_edges):
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="1.0", edgecolor="0.4", hatch="////", lw=0))
    if self_edges.any():
        label = label.replace(")", "; hatched: self edge)")
    bar = figure.colorbar(image, ax=axis, shrink=0.6, extend="both")
    bar.set_label(label, size=_LARGEST)
    if figure.get_layout_engine() is not None:  # which makes room for the names of genes only now
        figure.draw_without_rendering()
    room, text = axis.get_window_extent().height, bar.ax.yaxis.label
    if room < text.get_window_extent().height:
        text.set_text(label.replace("; ", ";\n"))
    text.set_fontsize(min(_LARGEST, max(_SMALLEST, _LARGEST * room / text.get_window_extent().height)))
