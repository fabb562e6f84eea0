"""Error and sparsity against the strength of the regularizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from sparsenode import _keys
from sparsenode.pl import _common

_CHARACTER, _SPACE = 6.5, 6.0  # width of a character of a tick label, and between labels, in points


def regularization_path(
    adata: AnnData,
    *,
    key: str = _keys.KEY_ADDED,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | Axes | list[Axes] | None:
    """Training and held-out error, and shares of zeros, against the strength; table 7 of Aliee et al. (2022).

    Do not choose a strength for other donors by it: held-out cells belong to the fitted trajectories.

    Parameters
    ----------
    adata
        Cells with the results of a fit with several strengths.
    key
        Key of the results, ``key_added`` of the fit.
    ax
        Two axes to draw on: errors and sparsities.
    show
        Show the figure and return nothing.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    List of two axes. Points are replicates, lines their means over seeds. Bars are one standard error over the held-out cells, and the
    vertical line marks the selected strength. Ticks are strengths, with numbers where there is room. Errors, on a logarithmic axis, are
    those of :meth:`sparsenode.SparseNODE.get_regularization_path`: at 1, a constant does as well.

    Raises
    ------
    KeyError
        If there is no regularization path under ``key``.
    TypeError
        If ``adata`` is not an AnnData, or ``ax`` holds anything but axes of matplotlib.
    ValueError
        If there is only one strength, or the number of axes is not two.
    """
    uns = _common.results(adata, key)
    if "regularization_path" not in uns:
        raise KeyError(f"Expected a regularization path in `adata.uns[{key!r}]`, found none.")
    table: pd.DataFrame = uns["regularization_path"]
    strengths = np.unique(table["strength"])
    if len(strengths) < 2:
        raise ValueError(f"Expected several strengths, found one, {strengths[0]:g}. Fit a sequence of strengths.")
    kept = table[np.isfinite(table["train_error"])]  # others were given up
    figure, axes = _common.panels(ax, 2, 4.0, 3.0)
    errors = {"train_error": "training cells", "validation_error": "held-out cells"}
    zeros = {"feature_sparsity": "adjacency", "weight_sparsity": "weights", "spurious_sparsity": "non-regulators"}
    for axis, columns, label, first in (
        (axes[0], errors, "error / variance", 0),
        (axes[1], zeros, "share of exact zeros", 2),
    ):
        for place, (column, name) in enumerate(columns.items()):
            _draw(axis, kept, column, name, _common.PALETTE[first + place])
        if strengths[0] == 0:
            axis.set_xscale("symlog", linthresh=strengths[1])
        else:
            axis.set_xscale("log")
        axis.axvline(
            table["strength"].iloc[int(uns["parameters"]["selected_replicate"])],
            color="0.4",
            linestyle="--",
            linewidth=1,
            label="selected",
        )
        axis.set(xlabel="strength", ylabel=label)
        _label_strengths(axis, strengths)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    axes[0].axhline(1.0, color="0.6", linewidth=1, linestyle=":")
    axes[0].set_yscale("log")
    _common.log_ticks(axes[0].yaxis)
    axes[1].set_ylim(-0.02, 1.02)
    return _common.finish(figure, axes, show, return_fig)


def _draw(axis: Axes, table: pd.DataFrame, column: str, label: str, color: str) -> None:
    """Points of all replicates, and the mean over seeds as a line; nothing where nothing was measured."""
    values = table[column].to_numpy(float)
    if np.isnan(values).all():
        return
    mean = table.groupby("strength")[column].mean()
    bars = table.groupby("strength")["validation_se"].mean() if column == "validation_error" else None
    axis.errorbar(mean.index, mean, bars, color=color, label=label, linewidth=1.5, capsize=2)
    axis.plot(table["strength"], values, ".", color=color, markersize=4, alpha=0.6)


def _label_strengths(axis: Axes, strengths: np.ndarray) -> None:
    """A tick at every strength, with its number unless that would touch the one before."""
    labels = [f"{strength:.3g}" for strength in strengths]
    places = axis.transData.transform(np.column_stack([strengths, np.ones(len(strengths))]))[:, 0]
    kept: list[int] = []
    end = -np.inf
    for i, (place, label) in enumerate(zip(_common.in_points(places, axis), labels, strict=True)):
        left = place - _CHARACTER * len(label) / 2
        if left > end:
            kept.append(i)
            end = place + _CHARACTER * len(label) / 2 + _SPACE
    axis.set_xticks(strengths[kept], [labels[i] for i in kept])
    axis.set_xticks(np.delete(strengths, kept), minor=True)
    axis.xaxis.set_minor_formatter(NullFormatter())
