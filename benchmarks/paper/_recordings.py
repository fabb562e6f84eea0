"""Recordings of ``motion.py``: the walks and the swing of the data, or those of a user, checked before anything is fitted."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np

import sparsenode as sn

TRIALS = ("07_01", "07_04", "07_05", "07_10")
PARTS = ("folds", "methods", "levers", "golf", "coordinates")
SHORTEST = 15  # frames that are kept: two thirds of them are fitted, and a fit needs ten
FIXES = {
    "walking": "Name another folder with --data, or recordings of your own with --skeleton and --trials.",
    "walks": "Name another folder with --data.",
    "golf": "Name another folder with --data, or leave golf out with --parts.",
    "other": "Correct --skeleton, or leave trials out of --trials.",
}


@dataclass(frozen=True)
class Recordings:
    """Trials of one movement of one subject. Those that have a side are not mirrored."""

    movement: str
    skeleton: Path
    files: tuple[Path, ...]
    frame_rate: float = 120.0
    mirror: bool = True

    @property
    def trials(self) -> list[str]:
        """Names of the trials."""
        return [path.stem for path in self.files]

    def read(self, step: int = 1) -> anndata.AnnData:
        """Every so many frames of all trials; a last frame that is cut off is dropped."""
        return sn.datasets.read_motion_capture(
            self.skeleton, self.files, frame_rate=self.frame_rate, step=step, incomplete="drop"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which recordings are fitted, which of them are held out, and what is done with them."""
    add = parser.add_argument
    add("--skeleton", type=Path, metavar="FILE.asf", help="skeleton of other recordings than the walks of --data")
    add(
        "--trials",
        type=Path,
        nargs="+",
        metavar="FILE.amc",
        help="two or more trials of that skeleton; a file's name without its ending is the trial's",
    )
    add(
        "--held-out",
        nargs="+",
        metavar="TRIAL",
        help="names of trials to hold out, one at a time, all (the last first) if none are given; with the first of "
        "them held out, other methods and parts of the recipe are compared",
    )
    add("--frame-rate", type=float, default=120.0, help="frames a second of the files, which do not say")
    add(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fit mirror images too; not for movements that have a side",
    )
    add("--parts", nargs="+", choices=PARTS, help="what to do; all if not given, without golf for other recordings")


def chosen(parser: argparse.ArgumentParser, options: Any) -> tuple[Recordings, Recordings]:
    """Walks, or other recordings in their place, and golf. Options that were not given are filled in."""
    folder = options.data / "motion_capture"
    other = options.trials is not None
    if other != (options.skeleton is not None):
        parser.error("Expected --skeleton and --trials together, found one of them. Trials belong to a skeleton.")
    if not 0 < options.frame_rate < math.inf:
        parser.error(f"Expected a positive --frame-rate, found {options.frame_rate:g}.")
    if other and not options.quick and options.output == parser.get_default("output"):
        parser.error("Expected an --output with --trials: without it the results of the walks are replaced.")
    skeleton = options.skeleton or folder / "07.asf"
    files = options.trials or [folder / f"{name}.amc" for name in TRIALS]
    name = "other" if other else "walking"
    walks = Recordings(name, skeleton, tuple(files), options.frame_rate, options.mirror)
    golf = Recordings("golf", folder / "golf.asf", (folder / "golf_01.amc",), mirror=False)
    options.parts = options.parts or [part for part in PARTS if part != "golf" or not other]
    _check_names(parser, "--trials", walks.trials)
    if len(walks.trials) < 2:
        parser.error(f"Expected two or more --trials, of which each is held out in turn, found {walks.trials}.")
    options.held_out = options.held_out or walks.trials[::-1]
    _check_names(parser, "--held-out", options.held_out)
    unknown = [trial for trial in options.held_out if trial not in walks.trials]
    if unknown:
        parser.error(f"Expected names of trials in --held-out, {walks.trials}, found {unknown}.")
    options.trials = walks.trials  # names: paths are of one machine
    return walks, golf


def _check_names(parser: argparse.ArgumentParser, option: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        parser.error(f"Expected every name once in {option}, found {list(names)}.")


def check(parser: argparse.ArgumentParser, recordings: Recordings, step: int, prepare: dict[str, Any]) -> None:
    """End with a message where a file is missing or damaged, or a trial is still, or too short at the lowest frame rate."""
    fix = FIXES[recordings.movement]
    missing = [str(path) for path in (recordings.skeleton, *recordings.files) if not path.is_file()]
    if missing:
        parser.error(f"Expected the files of {recordings.movement!r} recordings, found none at {missing}. {fix}")
    try:
        frames = _read(recordings, prepare)
    except (OSError, ValueError) as error:
        parser.error(f"{error} {'Fit no mirror images: --no-mirror.' if 'mirror' in str(error) else fix}")
    trials = frames.obs["trial"]
    still = [trial for trial in recordings.trials if not np.ptp(frames.X[(trials == trial).to_numpy()], axis=0).any()]
    if still:
        parser.error(f"Expected every trial to move, found {still} still: all of their frames are the same. {fix}")
    counts = trials.value_counts(sort=False)
    needed = step * (SHORTEST - 1) + 1
    short = counts[counts < needed].to_dict()
    if short:
        parser.error(
            f"Expected {needed} or more frames in every trial, of which {SHORTEST} are kept at "
            f"{recordings.frame_rate / step:g} a second, found {short}. {fix}"
        )


def _read(recordings: Recordings, prepare: dict[str, Any]) -> anndata.AnnData:
    """All frames, once they can be prepared; says what was dropped, and which joints have no counterpart."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        frames = recordings.read()
        # late starts change nothing of what can be wrong, and take time
        sn.pp.prepare_motion(frames, **prepare | {"start_every": None, "mirror": recordings.mirror})
    for warning in caught:
        print(f"{recordings.movement}: {warning.message}")
    return frames
