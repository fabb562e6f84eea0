"""Heat map of the adjacency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist

from sparsenode import _keys
from sparsenode.pl import _common

_MAX_LABELS = 60


def adjacency(
    adata: AnnData,
    *,
    regulators: str | Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    lineage: str | None = None,
    n_top: int = 40,
    cluster: bool = True,
    key: str = _keys.KEY_ADDED,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | Axes | list[Axes] | None:
    """Signed adjacency as a heat map: rows are targets, columns are regulators, exact zeros are grey.

    Parameters
    ----------
    adata
        Cells with the results of a fit.
    regulators
        Columns to show: names, or a boolean column of ``adata.var`` that marks the transcription factors. Of them, or of
        all genes, the ``n_top`` with the strongest edges are shown.
    targets
        Rows to show; by default the ``n_top`` with the strongest edges.
    lineage
        Lineage, where every lineage has its own field; by default the mean over lineages.
    n_top
        Largest number of rows and of columns that are chosen.
    cluster
        Order rows and columns by hierarchical clustering of their magnitudes.
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
    Axes. Colours are change of the target's velocity per unit of expression of the regulator, and per unit of
    pseudotime.

    Raises
    ------
    KeyError
        If there are no results under ``key``, or none for ``lineage``.
    ValueError
        If a gene is unknown.
    """
    matrix = _common.adjacency(adata, key, lineage)
    matrix = np.asarray(matrix.todense() if hasattr(matrix, "todense") else matrix)
    columns = _common.regulator_columns(adata, regulators)
    rows = np.arange(adata.n_vars) if targets is None else _common.gene_positions(adata, targets, "targets")
    columns = columns[np.sort(_common.top_range(np.abs(matrix[np.ix_(rows, columns)]).sum(0), n_top))]
    if targets is None:
        rows = np.sort(_common.top_range(np.abs(matrix[:, columns]).sum(1), n_top))
    block = matrix[np.ix_(rows, columns)]
    if cluster:
        row_order, column_order = _leaves(np.abs(block)), _leaves(np.abs(block).T)
        block, rows, columns = block[np.ix_(row_order, column_order)], rows[row_order], columns[column_order]
    size = 2.5 + 0.16 * np.array([min(len(columns), _MAX_LABELS), min(len(rows), _MAX_LABELS)])
    figure, axes = _common.panels(ax, 1, size[0] + 1.2, size[1])
    _draw(axes[0], figure, block, adata.var_names[rows], adata.var_names[columns])
    return _common.finish(figure, axes, show, return_fig)


def _leaves(values: np.ndarray) -> np.ndarray:
    """Order of the rows in a dendrogram."""
    if len(values) <= 2:
        return np.arange(len(values))
    return leaves_list(linkage(pdist(values), "average", optimal_ordering=len(values) <= 200))


def _draw(axis: Axes, figure: Figure, block: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    limit = float(np.quantile(np.abs(block[block != 0]), 0.98)) if (block != 0).any() else 1.0
    shown = np.ma.masked_equal(block, 0.0)
    axis.set_facecolor("0.7")
    image = axis.imshow(
        shown, cmap="RdBu_r", norm=TwoSlopeNorm(0.0, -limit, limit), aspect="auto", interpolation="nearest"
    )
    axis.set(xlabel="regulator", ylabel="target")
    for setter, names, rotation in ((axis.set_xticks, columns, 90), (axis.set_yticks, rows, 0)):
        step = -(-len(names) // _MAX_LABELS)
        setter(np.arange(0, len(names), step), list(names)[::step], rotation=rotation, fontsize=7)
    figure.colorbar(image, ax=axis, label="weight (grey: exactly zero)", shrink=0.6, extend="both")
