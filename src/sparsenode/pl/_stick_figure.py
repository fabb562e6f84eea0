"""Motion capture: observed and predicted frames as stick figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sparsenode import _checks, _keys
from sparsenode._input._expression import dense
from sparsenode.pl import _common

_NARROWEST, _MARGIN = 2.4, 0.7  # width of a figure, and of what is beside its axes, in inches
_SLENDER = 0.4  # width that a figure has at the least, in metres: the times beneath them need it
_OBSERVED, _RECONSTRUCTED, _EXTRAPOLATED = "0.65", _common.PALETTE[0], _common.PALETTE[1]


def stick_figure(
    adata: AnnData,
    *,
    predictions: np.ndarray | Mapping[str, np.ndarray] | None = None,
    fitted_until: float | None = None,
    trial: str | None = None,
    n_frames: int = 8,
    azimuth: float = 20.0,
    trial_key: str = "trial",
    time_key: str = "time",
    key: str = _keys.KEY_ADDED,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Figure | Axes | list[Axes] | None:
    """Frames of a motion as stick figures: observed ones in grey, over them what a model reconstructs and extrapolates.

    Do not use it for data without a skeleton, such as gene expression.

    Parameters
    ----------
    adata
        Frames as from :func:`sparsenode.datasets.read_motion_capture`.
    predictions
        Predicted coordinates of all frames of the trial or of ``adata``: frames × coordinates in the order of ``adata.var_names``. Or
        several such arrays by name, one per panel. Default: the results of a fit under ``key``; without a fit, observed frames only.
    fitted_until
        Last time of the frames that the model was fitted to. Later frames are extrapolated, and drawn in another colour. Default: all
        frames are fitted.
    trial
        Trial to show. Default: the first.
    n_frames
        Number of frames, spread evenly over the trial. Default: 8.
    azimuth
        Direction of view in degrees: 0 from the right of someone who walks along ``x``, 90 from the front. Default: 20.
    trial_key, time_key
        Columns of ``adata.obs`` with the trial and the time in seconds.
    key
        Key of the results, ``key_added`` of the fit.
    ax
        Axes to draw on, one per array of predictions.
    show
        Show the figure and return nothing.
    return_fig
        Return the figure instead of the axes.

    Returns
    -------
    Axes, or a list of them if there are several predictions. Figures are drawn side by side, centred on the root of the observed frame.
    Both axes have the same scale, in metres; labels along the horizontal axis are times in seconds. Predictions that leave the frame of the
    observed motion are cut off.

    Raises
    ------
    KeyError
        If columns of ``adata.obs`` or ``adata.var``, or the skeleton in ``adata.uns``, are missing.
    TypeError
        If ``adata`` is not an AnnData, or ``ax`` holds anything but axes of matplotlib.
    ValueError
        If there are no frames, the trial is unknown, ``fitted_until`` or ``azimuth`` is not a finite number, predictions have the wrong
        shape, or the number of axes is wrong.

    Examples
    --------
    >>> times = test.obs["time"]  # doctest: +SKIP
    >>> sn.pl.stick_figure(test, predictions=model.predict(times=times), fitted_until=0.8)  # doctest: +SKIP
    """
    _checks.anndata(adata)
    joints, bones = _skeleton(adata)
    for column in (trial_key, time_key):
        if column not in adata.obs:
            raise KeyError(f"Expected the column {column!r} in `adata.obs`, found {list(adata.obs)}.")
    if adata.n_obs == 0:
        raise ValueError("Expected frames to draw in `adata`, found none. Check the filter that left none.")
    _checks.at_least("n_frames", n_frames, 1)
    _checks.number("azimuth", azimuth)
    if fitted_until is not None:
        _checks.number("fitted_until", fitted_until)
    trials = list(dict.fromkeys(adata.obs[trial_key].astype(str)))
    name = trials[0] if trial is None else _common.check_names(str(trial), trials, "trial")[0]
    times = adata.obs[time_key].to_numpy(dtype=float)
    rows = np.flatnonzero((adata.obs[trial_key].astype(str) == name).to_numpy())
    order = np.argsort(times[rows], kind="stable")
    found = _predictions(adata, predictions, rows, key)
    chosen = order[np.unique(np.linspace(0, len(rows) - 1, n_frames).round().astype(int))]
    times = times[rows][chosen]
    turn = np.radians(azimuth)
    view = np.array([[np.cos(turn), 0], [np.sin(turn), 0], [0, 1]])  # to the right, and up
    observed = dense(adata.X[rows][:, joints.ravel()]).astype(float)
    flat = observed.reshape(len(rows), *joints.shape)[chosen] @ view
    root = flat[:, bones[~np.isin(bones[:, 0], bones[:, 1]), 0][:1]] * [1, 0]  # the joint that is no child
    drawn = {title: values[:, joints][chosen] @ view - root for title, values in found.items()}
    flat = flat - root
    spacing = 1.1 * max(float(np.ptp(flat[..., 0], axis=1).max()), _SLENDER)
    shift = (spacing * np.arange(len(chosen)))[:, None, None] * [1, 0]
    low, high = flat[..., 1].min(), flat[..., 1].max()
    scale = 1.6 / (high - low) if high > low else 1.0
    width = max(_NARROWEST, 0.9 + scale * spacing * len(chosen))
    figure, axes = _common.panels(ax, max(1, len(drawn)), width, 2.6, columns=1)
    late = times > (np.inf if fitted_until is None else fitted_until + 1e-9)
    for axis, title in zip(axes, drawn or [""], strict=True):
        _draw(axis, flat + shift, bones, [_OBSERVED] * len(times), 3.5)
        if title in drawn:
            _draw(
                axis, drawn[title] + shift, bones, [_EXTRAPOLATED if after else _RECONSTRUCTED for after in late], 1.3
            )
        height = high - low
        axis.set(
            xlim=(flat[0, :, 0].min() - 0.25, shift[-1, 0, 0] + flat[-1, :, 0].max() + 0.25),
            ylim=(low - 0.08 * height, high + 0.12 * height),
            aspect="equal",
            ylabel="height (m)",
        )
        axis.set_title(title if len(drawn) > 1 else "", loc="right", fontsize="medium", parse_math=False)
        axis.set_xticks(shift[:, 0, 0], [f"{time:.2f}" for time in times])
        axis.tick_params(axis="x", length=0)
        axis.grid(False, axis="x")  # scanpy.set_figure_params draws one, through every figure
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    axes[-1].set_xlabel(f"time (s), {name}", parse_math=False)
    if drawn:
        _legend(figure, axes[0], late, grows=ax is None)
    return _common.finish(figure, axes, show, return_fig)


def _skeleton(adata: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the coordinates, joints × 3, and the joints at both ends of the bones."""
    if not {"joint", "axis"} <= set(adata.var) or "skeleton" not in adata.uns:
        raise KeyError(
            "Expected `adata.var['joint']`, `adata.var['axis']` and `adata.uns['skeleton']`, as "
            f"`datasets.read_motion_capture` writes them, found {list(adata.var)} and {list(adata.uns)}."
        )
    places = pd.Series(
        np.arange(adata.n_vars), index=pd.MultiIndex.from_frame(adata.var[["joint", "axis"]].astype(str))
    )
    names = list(dict.fromkeys(adata.var["joint"].astype(str)))
    table = adata.uns["skeleton"]
    wanted = [(joint, axis) for joint in names for axis in "xyz"]
    missing = [item for item in wanted if item not in places.index]
    ends = [[names.index(joint) for joint in pair if joint in names] for pair in table[["parent", "child"]].to_numpy()]
    if missing or any(len(pair) < 2 for pair in ends):
        raise KeyError(
            f"Expected all three coordinates of every joint of the skeleton in `adata.var`, found {missing[:5]} and some "
            "joints missing. Keep all coordinates for this plot."
        )
    return places.loc[wanted].to_numpy().reshape(len(names), 3), np.array(ends)


def _predictions(
    adata: AnnData, predictions: np.ndarray | Mapping[str, np.ndarray] | None, rows: np.ndarray, key: str
) -> dict[str, np.ndarray]:
    """Predicted coordinates of the trial's frames, by name."""
    if predictions is None:
        name = _keys.trajectory(key)
        predictions = {"model": adata.obsm[name]} if name in adata.obsm else {}
    arrays = dict(predictions) if isinstance(predictions, Mapping) else {"model": predictions}
    result = {}
    for name, values in arrays.items():
        array = np.asarray(values, dtype=float)
        if array.shape not in {(len(rows), adata.n_vars), adata.shape}:
            raise ValueError(
                f"Expected predictions of the {len(rows)} frames of the trial × {adata.n_vars} coordinates, or of all "
                f"{adata.n_obs} frames, found the shape {array.shape} for {name!r}."
            )
        result[str(name)] = array[rows] if len(array) == adata.n_obs else array
    return result


def _draw(axis: Axes, places: np.ndarray, bones: np.ndarray, colors: Sequence[str], width: float) -> None:
    """Draw frames × joints × 2, a collection of bones per frame."""
    for frame, color in zip(places, colors, strict=True):
        axis.add_collection(LineCollection(frame[bones], colors=color, linewidths=width, capstyle="round"))


def _legend(figure: Figure, axis: Axes, late: np.ndarray, grows: bool) -> None:
    """Legend above the axes, in as many columns as fit; a figure of our own grows by its rows."""
    entries = [("observed", _OBSERVED, 3.5)]
    entries += [("reconstructed", _RECONSTRUCTED, 1.3)] if not late.all() else []
    entries += [("extrapolated", _EXTRAPOLATED, 1.3)] if late.any() else []
    handles = [Line2D([], [], color=color, linewidth=width, label=label) for label, color, width in entries]
    width = figure.get_figwidth() - _MARGIN if grows else axis.get_window_extent().width / figure.dpi
    columns = _common.columns_that_fit(width, [label for label, _, _ in entries])
    if grows:
        figure.set_figheight(figure.get_figheight() + _common.legend_height(len(entries), columns, title=False))
    axis.legend(handles=handles, ncols=columns, frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0))
