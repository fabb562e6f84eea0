"""Cells and fitted trajectories over pseudotime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparsenode import _keys
from sparsenode.model._expression import expression
from sparsenode.model._observations import read_observations
from sparsenode.pl import _common

_N_DEFAULT = 4
_MAX_POINTS = 3000


def trajectory(
    adata: AnnData,
    genes: str | Sequence[str] | None = None,
    *,
    lineages: str | Sequence[str] | None = None,
    key: str = _keys.KEY_ADDED,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | Axes | list[Axes] | None:
    """Expression of cells and the fitted trajectory of every lineage over pseudotime, one panel per gene.

    Parameters
    ----------
    adata
        Cells with the results of a fit.
    genes
        Genes to show; by default the four whose fitted trajectories vary most.
    lineages
        Lineages to show, all by default.
    key
        Key of the results, ``key_added`` of the fit.
    ax
        Axes to draw on, one per gene.
    show
        Show the figure and return nothing.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    Axes, or a list of them if there are several genes. Points are cells, in the units of the data; at most 3000 of each
    lineage are drawn, spread evenly. Lines are fitted trajectories, dashed for further batches.

    Raises
    ------
    KeyError
        If there are no results under ``key``.
    ValueError
        If a gene or lineage is unknown, or if the number of axes is wrong.
    """
    uns = _common.results(adata, key)
    fit, setup = uns["trajectories"], uns["setup"]
    model_genes = [str(gene) for gene in uns["genes"]]
    values = np.asarray(fit["values"])
    names = list(dict.fromkeys(map(str, fit["lineage"])))
    shown = names if lineages is None else _common.check_names(lineages, names, "lineages")
    if genes is None:
        spread = (values.max(1) - values.min(1)).max(0)
        wanted = [model_genes[i] for i in _common.top_range(spread, _N_DEFAULT)]
    else:
        wanted = _common.check_names(genes, model_genes, "genes")
    observations = read_observations(adata, setup["time_key"], setup.get("lineage_key"), setup.get("batch_key"), names)
    colors = _common.lineage_colors(adata, setup, names)
    figure, axes = _common.panels(ax, len(wanted), 3.4, 2.8)
    for axis, gene in zip(axes, wanted, strict=True):
        cells = _gene(adata, setup.get("layer"), gene)
        for lineage in shown:
            members = np.flatnonzero(observations.memberships[:, names.index(lineage)] > 0)
            members = members[:: max(1, -(-len(members) // _MAX_POINTS))]
            axis.scatter(
                observations.times[members],
                cells[members],
                s=6,
                color=colors[lineage],
                alpha=0.25,
                linewidths=0,
                rasterized=True,
            )
        seen: set[str] = set()
        for m, lineage in enumerate(map(str, fit["lineage"])):
            if lineage in shown:
                axis.plot(
                    fit["times"][m],
                    values[m][:, model_genes.index(gene)],
                    color=colors[lineage],
                    linewidth=2,
                    linestyle="--" if lineage in seen else "-",
                    label=None if lineage in seen else lineage,
                )
                seen.add(lineage)
        axis.set(title=gene, xlabel=f"pseudotime ({setup['time_key']})", ylabel="expression")
        axis.spines[["top", "right"]].set_visible(False)
    if len(shown) > 1:
        axes[0].legend(title="lineage", frameon=False, fontsize="small")
    return _common.finish(figure, axes, show, return_fig)


def _gene(adata: AnnData, layer: str | None, gene: str) -> np.ndarray:
    """Expression of one gene in all cells."""
    column = expression(adata, layer)[:, int(adata.var_names.get_loc(gene))]
    column = column.compute() if hasattr(column, "compute") else column
    return np.asarray(column.todense() if hasattr(column, "todense") else column).ravel()
