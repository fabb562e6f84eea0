"""Error and sparsity against the strength of the regularizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparsenode import _keys
from sparsenode.pl import _common


def regularization_path(
    adata: AnnData,
    *,
    key: str = _keys.KEY_ADDED,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | Axes | list[Axes] | None:
    """Training and held-out error, and shares of zeros, against the strength; table 7 of Aliee et al. (2022).

    Do not choose a strength for other donors by it: held-out cells are of the fitted trajectories.

    Parameters
    ----------
    adata
        Cells with the results of a fit with several strengths.
    key
        Key of the results, ``key_added`` of the fit.
    ax
        Two axes to draw on: errors, sparsities.
    show
        Show the figure and return nothing.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    List of two axes. Points are replicates, lines their means over seeds; bars are one standard error over the held-out
    cells, and the vertical line marks the selected strength. Errors are shares of the variance around the trajectory
    means.

    Raises
    ------
    KeyError
        If there is no regularization path under ``key``.
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
    figure, axes = _common.panels(ax, 2, 4.0, 3.0)
    errors = {"train_error": "training cells", "validation_error": "held-out cells"}
    zeros = {"feature_sparsity": "adjacency", "weight_sparsity": "weights", "spurious_sparsity": "non-regulators"}
    for axis, columns, label, first in (
        (axes[0], errors, "error / variance", 0),
        (axes[1], zeros, "share of exact zeros", 2),
    ):
        for place, (column, name) in enumerate(columns.items()):
            _draw(axis, table, column, name, _common.PALETTE[first + place])
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
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    axes[0].axhline(1.0, color="0.6", linewidth=1, linestyle=":")
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
