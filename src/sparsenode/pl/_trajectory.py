"""Cells and fitted trajectories over pseudotime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sparsenode import _keys
from sparsenode._input._expression import dense, expression
from sparsenode._input._observations import Observations, read_observations
from sparsenode.pl import _common

_N_DEFAULT = 4
_MAX_POINTS = 3000
_SHORT = 24  # letters of a gene's name, beyond which the figure is wider
_STYLES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")


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

    Do not judge the fit by this plot alone if cells scatter widely: any smooth curve through them looks right. :func:`skill` shows the
    error beside those of null models.

    Parameters
    ----------
    adata
        Cells with the results of a fit.
    genes
        Genes to show. Default: the four genes of ``adata`` whose fitted trajectories vary most.
    lineages
        Lineages to show. Default: all.
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
    Axes, or a list of them if there are several genes.

    - Points are cells, in the units of the data; at most 3000 of each lineage are drawn, spread evenly, in the order of the rows. Lines
      are fitted trajectories.
    - Colours are lineages and line styles are batches. With only one lineage, colours are batches.
    - A cell has the colour of the lineage that holds two thirds or more of its membership. All others are "several lineages": each is drawn
      once, in grey, at the mean of its pseudotimes in the lineages shown.

    Raises
    ------
    KeyError
        If there are no results under ``key``, or none with trajectories.
    TypeError
        If ``adata`` is not an AnnData, or ``ax`` holds anything but axes of matplotlib.
    ValueError
        If a gene or lineage is unknown, ``adata`` has no gene of the fit, or the number of axes is wrong.
    """
    uns = _common.results(adata, key)
    fit, setup = uns["trajectories"], uns["setup"]
    if "values" not in fit:
        raise KeyError(
            f"Expected trajectories in `adata.uns[{key!r}]['trajectories']`, found their names alone: {_common.NO_TRAJECTORIES}"
        )
    model_genes = [str(gene) for gene in uns["genes"]]
    values = np.asarray(fit["values"])
    names = list(dict.fromkeys(map(str, fit["lineage"])))
    shown = names if lineages is None else _common.check_names(lineages, names, "lineages")
    wanted = _wanted_genes(adata, genes, model_genes, values)
    observations = read_observations(adata, setup["time_key"], setup.get("lineage_key"), setup.get("batch_key"), names)
    looks = _Looks(adata, setup, names, list(dict.fromkeys([*map(str, fit["batch"]), *observations.batch_names])))
    groups = _groups(observations.memberships, names, shown)
    drawn = _drawn(observations, groups, names, shown, looks)
    figure, axes = _common.panels(ax, len(wanted), 3.4 + _common.overlong(wanted, _SHORT, titles=True), 2.8)
    for axis, gene in zip(axes, wanted, strict=True):
        cells = _gene(adata, setup.get("layer"), gene)
        for members, times, colors in drawn:
            axis.scatter(times, cells[members], s=6, color=colors, alpha=0.25, linewidths=0, rasterized=True)
        _draw_fit(axis, fit, values[..., model_genes.index(gene)], shown, looks)
        axis.set_title(gene, parse_math=False)
        axis.set_xlabel(setup["time_key"], parse_math=False)
        axis.set_ylabel(_value(uns, setup), parse_math=False)
        axis.spines[["top", "right"]].set_visible(False)
    title, handles = looks.legend(shown, _common.SEVERAL in groups)
    if handles:
        _common.legend(figure, axes[0], handles, beneath=ax is None, title=title)
    return _common.finish(figure, axes, show, return_fig)


def _value(uns: dict[str, Any], setup: dict[str, Any]) -> str:
    """Label of the values, with the layer that says what they are."""
    name = "expression" if uns.get("parameters", {}).get("order", 1) == 1 else "value"  # second order is for motion
    layer = setup.get("layer")
    return name if layer is None else f"{name} ({layer})"


def _wanted_genes(
    adata: AnnData, genes: str | Sequence[str] | None, model_genes: list[str], values: np.ndarray
) -> list[str]:
    """Genes of the fit that are in the data: those that are named, or those whose trajectories vary most."""
    kept = [gene for gene in model_genes if gene in adata.var_names]
    if not kept:
        raise ValueError(f"Expected genes of the fit in `adata.var_names`, found none of {len(model_genes)}.")
    if genes is not None:
        return _common.check_names(genes, kept, "genes")
    spread = (values.max(1) - values.min(1)).max(0)
    ranked = [model_genes[i] for i in _common.largest(spread, len(spread))]
    return [gene for gene in ranked if gene in kept][:_N_DEFAULT]


def _draw_fit(axis: Axes, fit: dict[str, Any], values: np.ndarray, shown: list[str], looks: _Looks) -> None:
    """Trajectories of one gene, trajectories × times, in the lineages that are shown."""
    for m, (lineage, batch) in enumerate(zip(map(str, fit["lineage"]), map(str, fit["batch"]), strict=True)):
        if lineage in shown:
            axis.plot(
                fit["times"][m],
                values[m],
                color=looks.color(lineage, batch),
                linewidth=2,
                linestyle=looks.style(batch),
                label=fit["name"][m],
            )


def _times(observations: Observations, names: list[str], shown: list[str], lineage: str) -> np.ndarray:
    """Pseudotime of the cells in a lineage, or its mean over those of the lineages of each cell that are shown."""
    if lineage in names:
        return observations.times[:, names.index(lineage)]
    positions = [names.index(name) for name in shown]
    weights = observations.memberships[:, positions]
    total = np.sum(observations.times[:, positions] * weights, axis=1)
    return total / np.where(weights.any(1), weights.sum(1), 1.0)


def _groups(memberships: np.ndarray, names: list[str], shown: list[str]) -> dict[str, np.ndarray]:
    """Cells that are drawn of every lineage, after those that are of several."""
    main, positions = _common.main_lineages(memberships), [names.index(lineage) for lineage in shown]
    shared = (memberships[:, positions] > 0).any(1) & ~np.isin(main, positions)
    groups = {_common.SEVERAL: np.flatnonzero(shared)} if shared.any() else {}
    groups |= {lineage: np.flatnonzero(main == k) for lineage, k in zip(shown, positions, strict=True)}
    return {name: members[:: max(1, -(-len(members) // _MAX_POINTS))] for name, members in groups.items()}


def _drawn(
    observations: Observations, groups: dict[str, np.ndarray], names: list[str], shown: list[str], looks: _Looks
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Cells, their times and colours: those of several lineages, and over them the others in the order of the rows."""
    members = np.concatenate(list(groups.values()))
    times = np.concatenate([_times(observations, names, shown, name)[cells] for name, cells in groups.items()])
    lineages = np.repeat(list(groups), [len(cells) for cells in groups.values()])
    batches = [observations.batch_names[batch] for batch in observations.batches[members]]
    colors = np.array([looks.color(*look) for look in zip(lineages, batches, strict=True)], dtype=object)
    several = lineages == _common.SEVERAL
    # One lineage after the other, the last would hide all others where they lie at the same place.
    orders = [np.flatnonzero(several), np.flatnonzero(~several)[np.argsort(members[~several], kind="stable")]]
    return [(members[order], times[order], colors[order]) for order in orders if len(order)]


class _Looks:
    """Colours and line styles: of lineages and batches, or of batches alone where there is one lineage."""

    def __init__(self, adata: AnnData, setup: dict[str, Any], lineages: list[str], batches: list[str]) -> None:
        self.batch_key = setup.get("batch_key", "batch")
        self.batches = batches
        self.by_batch = len(lineages) == 1 and len(batches) > 1
        key, names = (self.batch_key, batches) if self.by_batch else (setup.get("lineage_key"), lineages)
        self.colors = _common.category_colors(adata, key, adata.obs, names)

    def color(self, lineage: str, batch: str) -> str:
        """Colour of a trajectory and its cells, or of cells in several."""
        if lineage == _common.SEVERAL:
            return _common.SEVERAL_COLOR
        return self.colors[batch if self.by_batch else lineage]

    def style(self, batch: str) -> str:
        """Line style of a trajectory."""
        return "-" if self.by_batch else _STYLES[self.batches.index(batch) % len(_STYLES)]

    def legend(self, lineages: list[str], several: bool) -> tuple[str, list[Line2D]]:
        """Title and entries that name what differs: colours, and line styles with the batches that share them."""
        colors = self.batches if self.by_batch else lineages if len(lineages) > 1 or several else []
        handles = [Line2D([], [], color=self.colors[name], linewidth=2, label=name) for name in colors]
        if several:
            handles.append(_common.dot(_common.SEVERAL, _common.SEVERAL_COLOR, size=4))
        title = self.batch_key if self.by_batch else "lineage"
        if not self.by_batch and len(self.batches) > 1:
            title = f"lineage (colour), {self.batch_key} (line)" if handles else self.batch_key
            for i, style in enumerate(_STYLES[: len(self.batches)]):
                label = ", ".join(self.batches[i :: len(_STYLES)])
                handles.append(Line2D([], [], color="0.3", linestyle=style, linewidth=1.5, label=label))
        return title, handles


def _gene(adata: AnnData, layer: str | None, gene: str) -> np.ndarray:
    """Expression of one gene in all cells."""
    place = int(adata.var_names.get_loc(gene))
    return dense(expression(adata, layer)[:, place : place + 1]).ravel()
