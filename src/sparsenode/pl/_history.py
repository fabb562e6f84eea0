"""Error and sparsity over the epochs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sparsenode import _keys
from sparsenode.pl import _common


def history(
    adata: AnnData,
    *,
    key: str = _keys.KEY_ADDED,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | Axes | list[Axes] | None:
    """Training and held-out error, and the shares of zeros, over the epochs.

    Do not compare the errors of two objectives: each is a share of a different variance.

    Parameters
    ----------
    adata
        Cells with the results of a fit.
    key
        Key of the results, ``key_added`` of the fit.
    ax
        Axes to draw on. Two: errors and sparsities. Four with the default objective, which fits a network first: errors of the network and
        of the trajectories, then sparsities of both.
    show
        Show the figure and return nothing.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    List of two axes, or of four: with the default objective the network is in the first column and the trajectories in the second. Errors
    are shares of the variance around the trajectory means (trajectories), of displacements (transport) or of squared slopes (collocation):
    at 1, a constant does as well. With replicates, they are means over those that are not given up.

    Raises
    ------
    KeyError
        If there is no history under ``key``.
    TypeError
        If ``adata`` is not an AnnData, or ``ax`` holds anything but axes of matplotlib.
    ValueError
        If the number of axes is not two, or not four if a network was fitted first.
    """
    uns = _common.results(adata, key)
    if "history" not in uns:
        raise KeyError(f"Expected a history in `adata.uns[{key!r}]`, found none.")
    if "network_history" not in uns:
        figure, axes = _common.panels(ax, 2, 4.0, 3.0)
        _draw(axes, uns["history"])
        return _common.finish(figure, axes, show, return_fig)
    figure, axes = _common.panels(ax, 4, 4.0, 3.0, columns=2)
    # A grid is filled by rows, and each fit has a column.
    for column, (title, name) in enumerate((("network (transport)", "network_history"), ("trajectories", "history"))):
        _draw(axes[column::2], uns[name])
        axes[column].set_title(title)
    return _common.finish(figure, axes, show, return_fig)


def _draw(axes: Sequence[Axes], table: pd.DataFrame) -> None:
    """Errors and sparsities of one fit on two axes."""
    errors = {
        "train_error": ("training cells", _common.PALETTE[0]),
        "validation_error": ("held-out cells", _common.PALETTE[1]),
    }
    zeros = {"feature_sparsity": ("adjacency", _common.PALETTE[2]), "weight_sparsity": ("weights", _common.PALETTE[3])}
    for axis, curves, label in ((axes[0], errors, "error / variance"), (axes[1], zeros, "share of exact zeros")):
        for column, (name, color) in curves.items():
            if column in table:
                curve = table[column].dropna()
                axis.plot(curve.index, curve, color=color, label=name, marker="o" if len(curve) == 1 else None)
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    axes[0].axhline(1.0, color="0.6", linewidth=1, linestyle=":")
    axes[0].set_yscale("log")
    _common.log_ticks(axes[0].yaxis)
    axes[1].set_ylim(-0.02, 1.02)
