"""Motion capture as AnnData: frames are observations, coordinates of joints are variables."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

from sparsenode import _checks
from sparsenode.datasets import _acclaim

AXES = ("x", "y", "z")
_FROM_FILE = (2, 0, 1)  # the file's y points up; a cyclic permutation keeps the coordinates right-handed
_TRUNK = {"root", "lowerback", "upperback", "thorax"}
_HEAD = {"lowerneck", "upperneck", "head"}
_LEG = {"hipjoint", "femur", "tibia", "foot", "toes"}
_ARM = {"clavicle", "humerus", "radius", "wrist", "hand", "fingers", "thumb"}
BODY_PARTS = ("trunk", "head", "left arm", "right arm", "left leg", "right leg", "other")


def read_motion_capture(
    asf: str | Path,
    amc: str | Path | Sequence[str | Path],
    frame_rate: float = 120.0,
    step: int = 1,
    centre_frames: bool = True,
    centre_first: bool = True,
    floor: bool = True,
    incomplete: Literal["error", "drop"] = "error",
) -> AnnData:
    """Read motion capture in the Acclaim format: positions of all joints, one observation per frame.

    Angles become positions by forward kinematics: a bone turns with its parent, then by its own angles about its own axes. The files of the
    Carnegie Mellon database (mocap.cs.cmu.edu) have 31 joints, so 93 coordinates. The third coordinate ``z`` points up; ``x`` and ``y`` are
    ``z`` and ``x`` of the file.

    Parameters
    ----------
    asf
        Skeleton file of the subject.
    amc
        Motion file of one trial, or of several trials of that subject.
    frame_rate
        Frames per second, which the files do not contain. Default: 120, as for most of the database.
    step
        Keep every ``step``-th frame of each trial, starting with the first: 3 turns 120 frames per second into 40. Default: 1.
    centre_frames
        First step of the paper (appendix B.2 of :cite:p:`aliee2022sparsity`): whether to move every frame so that its root is at the
        origin. Default: ``True``. The three coordinates of the root are then constant, and the walk through the room is lost.
    centre_first
        Second step: whether to move each trial as a whole so that the mean over the joints of its first frame is at the origin. Default:
        ``True``.
    floor
        Third step: whether to move each trial as a whole so that its lowest coordinate is at :math:`z = 0`. Default: ``True``.
    incomplete
        What to do with a file that is cut off within its last frame. ``"error"``, the default, refuses it; ``"drop"`` reads the frames
        before, with a warning. Damage anywhere else is always an error.

    Returns
    -------
    Frames × coordinates, in metres and float64, trial after trial, with

    - ``.obs["time"]``: seconds since the first frame of the trial; ``.obs["frame"]``: its number in the file,
    - ``.obs["trial"]``: name of the file, a category to be used as ``batch_key``,
    - ``.var["joint"]``, ``.var["axis"]`` (``x``, ``y`` or ``z``) and ``.var["body_part"]``,
    - ``.obsm["root"]``: position of the root before all steps, frames × 3, in metres,
    - ``.uns["skeleton"]``: one row per bone with the joints at its ends, ``parent`` and ``child``, and its ``length`` in metres;
      ``.uns["frame_rate"]``: frames per second that were kept.

    Raises
    ------
    TypeError
        If a step is not True or False.
    ValueError
        If a file is cut off or damaged, the files do not fit each other, or two trials have the same name. The message names file, line and
        frame.
    FileNotFoundError
        If a file is missing.

    Notes
    -----
    Lengths in the files are inches times the ``length`` of ``:units``, which is 0.45 throughout the database. A motion file of another
    subject is only noticed if its joints or channels differ; a file that is cut off within its very last number is not noticed at all.

    Examples
    --------
    >>> import sparsenode as sn
    >>> adata = sn.datasets.read_motion_capture("07.asf", ["07_01.amc", "07_10.amc"])  # doctest: +SKIP
    >>> sn.SparseNODE.setup_anndata(adata, time_key="time", batch_key="trial")  # doctest: +SKIP
    """
    _checks.positive("frame_rate", frame_rate)
    _checks.at_least("step", step, 1)
    _checks.booleans(centre_frames=centre_frames, centre_first=centre_first, floor=floor)
    _checks.choice("incomplete", incomplete, ("error", "drop"))
    paths = [Path(amc)] if isinstance(amc, str | Path) else [Path(path) for path in amc]
    names = [path.stem for path in paths]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Expected `amc` to be one or more files with different names, found {names}.")
    skeleton = _acclaim.read_skeleton(Path(asf))
    trials = []
    for name, path in zip(names, paths, strict=True):
        motion = _acclaim.read_motion(path, skeleton, keep_complete=incomplete == "drop")
        if motion.cut_off is not None:
            warnings.warn(f"Dropped the last frame. {motion.cut_off}", UserWarning, stacklevel=2)
        places = _acclaim.positions(skeleton, motion)[::step][:, :, _FROM_FILE]
        moved = _move(places, centre_frames, centre_first, floor)
        trials.append(_trial(name, skeleton, motion.numbers[::step], places[:, 0], moved, frame_rate / step))
    adata = anndata.concat(trials, merge="same")
    adata.obs["trial"] = pd.Categorical(adata.obs["trial"], categories=names)
    child = list(skeleton.parents)
    adata.uns["skeleton"] = pd.DataFrame(
        {
            "parent": [skeleton.parents[joint] for joint in child],
            "child": child,
            "length": [float(np.linalg.norm(skeleton.bones[joint].offset)) for joint in child],
        }
    )
    adata.uns["frame_rate"] = frame_rate / step
    return adata


def _move(places: np.ndarray, centre_frames: bool, centre_first: bool, floor: bool) -> np.ndarray:
    """The three steps of preprocessing, frames × joints × 3; the root is the first joint."""
    if centre_frames:
        places = places - places[:, :1]
    if centre_first:
        places = places - places[0].mean(0)
    if floor:
        places = places - np.array([0.0, 0.0, places[:, :, 2].min()])
    return places


def _trial(
    name: str, skeleton: _acclaim.Skeleton, numbers: np.ndarray, root: np.ndarray, places: np.ndarray, rate: float
) -> AnnData:
    joints = skeleton.joints
    var = pd.DataFrame(
        {"joint": np.repeat(joints, 3), "axis": np.tile(AXES, len(joints))},
        index=[f"{joint}_{axis}" for joint in joints for axis in AXES],
    )
    var["body_part"] = pd.Categorical([body_part(joint) for joint in var["joint"]], categories=BODY_PARTS)
    var["body_part"] = var["body_part"].cat.remove_unused_categories()
    obs = pd.DataFrame(
        {"time": np.arange(len(numbers)) / rate, "frame": numbers, "trial": name},
        index=[f"{name}_{number}" for number in numbers],
    )
    return AnnData(places.reshape(len(places), -1), obs=obs, var=var, obsm={"root": root})


def body_part(joint: str) -> str:
    """Part of the body that a joint of the database belongs to, ``other`` for names it does not use."""
    if joint in _TRUNK:
        return "trunk"
    if joint in _HEAD:
        return "head"
    side = {"l": "left", "r": "right"}.get(joint[:1])
    limb = "arm" if joint[1:] in _ARM else "leg" if joint[1:] in _LEG else None
    return "other" if side is None or limb is None else f"{side} {limb}"
