"""Effects of an intervention against the run without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sparsenode import _checks
from sparsenode.model import Simulation
from sparsenode.pl import _common

_N_DEFAULT = 3
_MAX_NAMED = 10  # trajectories beyond which colours are not named
_SHORT = 20  # letters of a gene's name, beyond which its panel is wider
_SHORT_LABEL = 8  # and beside a bar
_ROUNDING = 1e-5  # changes below it, relative to the gene's largest value, are none


def intervention(
    simulation: Simulation,
    *,
    genes: str | Sequence[str] | None = None,
    trajectories: str | Sequence[str] | None = None,
    n_top: int = 20,
    colors: dict[str, str] | None = None,
    ax: Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | Axes | list[Axes] | None:
    """Effects of an intervention: the genes that change most, and their courses with and without it.

    Genes that the intervention holds are left out, except for courses of ``genes`` that name them.

    Do not read an effect of zero as evidence of none in the cell, or an effect far outside the training data as a forecast; see
    :meth:`sparsenode.SparseNODE.simulate`.

    Parameters
    ----------
    simulation
        Result of :meth:`sparsenode.SparseNODE.simulate`.
    genes
        Genes whose courses are shown. Default: the three with the largest effects, of those that are not held.
    trajectories
        Starts to show: trajectories of the model, or rows of ``x0``. Default: all.
    n_top
        Number of genes in the first panel, of those that are not held. Default: 20. Genes that do not change are left out.
    colors
        Colour of each trajectory. Default: the palette, or a colour map for more than eight.
    ax
        Axes to draw on: one for the effects and one per gene.
    show
        Show the figure and return nothing.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    List of axes. In the first, an effect is the change at the last time, in the units of the data: positive if the intervention raises the
    gene. The others show courses over time, dashed lines without and solid ones with the intervention; of a single time, rings and
    dots. The legend names up to ten trajectories; more are coloured, but not named.

    Raises
    ------
    TypeError
        If ``simulation`` is not the result of a simulation, or ``ax`` holds anything but axes of matplotlib.
    ValueError
        If the arrays do not fit each other, a name is unknown, ``n_top`` is not a positive integer, or the number of axes is wrong.
    """
    _checks.at_least("n_top", n_top, 1)
    if not hasattr(simulation, "effects"):
        raise TypeError(
            f"Expected `simulation` to be the result of `model.simulate(knockout=…)`, found {type(simulation).__name__}."
        )
    times, table = np.atleast_2d(np.asarray(simulation.times, dtype=float)), simulation.effects
    names, known = ([str(name) for name in table[column].unique()] for column in ("gene", "start"))
    states, baseline = (np.asarray(values, dtype=float) for values in (simulation.perturbed, simulation.unperturbed))
    shape = (len(known), times.shape[-1], len(names))
    if states.shape != shape or baseline.shape != shape or times.shape != shape[:2]:
        raise ValueError(
            f"Expected `perturbed` and `unperturbed` as starts × times × genes, {shape}, and `times` as starts × times, found "
            f"{states.shape}, {baseline.shape} and {times.shape}."
        )
    shown = known if trajectories is None else _common.check_names(trajectories, known, "trajectories")
    rows = [known.index(name) for name in shown]
    effects = (states[:, -1] - baseline[:, -1])[rows]
    held = set(table["gene"][table["held"]].astype(str)) if "held" in table else set()
    order = _common.largest(np.abs(effects).max(0), len(names))
    free = np.array([i for i in order if names[i] not in held], dtype=np.int64)
    changed = np.abs(effects).max(0) > _ROUNDING * np.maximum(np.abs(states[rows]), np.abs(baseline[rows])).max((0, 1))
    top = free[changed[free]][:n_top]
    wanted = [names[i] for i in free[:_N_DEFAULT]] if genes is None else _common.check_names(genes, names, "genes")
    if colors and not set(colors) & set(known):  # others may be those of another simulation
        _common.check_names(list(colors), known, "colors")
    palette = dict(zip(known, _common.distinct_colors(len(known)), strict=True)) | (colors or {})
    longer = _common.overlong(["", *(names[i] for i in top)], _SHORT_LABEL)  # the first column takes it from all panels
    width = 3.2 + _common.overlong(["", *wanted], _SHORT, titles=True) + longer / min(4, 1 + len(wanted))
    dot = "o" if times.shape[1] == 1 else None  # of one time there is no line
    before: dict[str, Any] = {"linestyle": "--", "linewidth": 1.2, "marker": dot, "markerfacecolor": "none"}
    after: dict[str, Any] = {"linewidth": 2, "marker": dot}
    figure, axes = _common.panels(ax, 1 + len(wanted), width, max(2.8, 0.8 + 0.19 * len(top)))
    _draw_effects(axes[0], effects[:, top], [names[i] for i in top], [palette[name] for name in shown])
    for axis, gene in zip(axes[1:], wanted, strict=True):
        for name, row in zip(shown, rows, strict=True):
            column = names.index(gene)
            axis.plot(times[row], baseline[row, :, column], color=palette[name], alpha=0.8, **before)
            axis.plot(times[row], states[row, :, column], color=palette[name], **after)
        axis.set(xlabel="time since the start", ylabel="value\n(units of the data)")
        axis.set_title(gene, parse_math=False)
        axis.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], color="0.3", label="intervention", **after),
        Line2D([], [], color="0.3", label="unperturbed", **before),
    ]
    if 1 < len(shown) <= _MAX_NAMED:
        handles += [Line2D([], [], color=palette[name], linewidth=2, label=name) for name in shown]
    _common.legend(figure, axes[-1], handles, beneath=ax is None)
    return _common.finish(figure, axes, show, return_fig)


def _draw_effects(axis: Axes, effects: np.ndarray, names: list[str], colors: list[str]) -> None:
    """Effects of trajectories × genes, a row per gene, the largest at the top."""
    if not names:
        axis.text(0.5, 0.5, "no effects", ha="center", va="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    places, size = np.arange(len(names)), 4 if len(effects) <= _MAX_NAMED else 2
    axis.axvline(0.0, color="0.5", linewidth=1, zorder=0)
    for i, (values, color) in enumerate(zip(effects, colors, strict=True)):
        shifted = places + 0.6 * ((i + 0.5) / len(effects) - 0.5)
        axis.hlines(shifted, 0.0, values, color=color, linewidth=0.375 * size)
        axis.plot(values, shifted, "o", color=color, markersize=size)
    axis.set_yticks(places, names, fontsize=8, parse_math=False)
    axis.set(
        ylim=(len(names) - 0.4, -0.6), xlabel="change at the last time\n(units of the data)", title="largest effects"
    )
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
