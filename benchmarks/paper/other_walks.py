"""How far may walks differ from those that the recipe of ``motion.py`` was chosen on? The same walks, altered.

``backwards`` plays all trials from their last frame to their first, and holds each out in turn: walks that no setting was chosen on. ``altered``
fits three trials as they are. The fourth is played at other speeds, or with movements that are larger or smaller about their mean posture,
and is predicted from its own start. Errors, null models and skills are those of ``motion.py``; a row is a seed, or the mean of the
trajectories of all seeds. Nothing was chosen with these results.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from typing import Any

import _paper
import _recordings
import anndata
import motion
import numpy as np
import pandas as pd
from _recordings import Recordings

import sparsenode as sn

FACTORS = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
STEPS = (3, 2, 1)  # 40, 60 and 120 frames a second
KEYS = ["part", "factor", "frame_rate"]


@dataclass(frozen=True)
class Backwards(Recordings):
    """Trials whose frames come in the opposite order, at the times of the original ones."""

    def read(self, step: int = 1) -> anndata.AnnData:
        """Every so many frames of all trials, reversed."""
        frames = super().read(step)
        for trial in self.trials:
            own = np.flatnonzero((frames.obs["trial"] == trial).to_numpy())
            frames.X[own] = frames.X[own[::-1]]
        return frames


def faster(frames: anndata.AnnData, factor: float) -> anndata.AnnData:
    """One trial, so many times as fast: its frames interpolated at times that are as far apart as before."""
    times = frames.obs["time"].to_numpy(dtype=float)
    wanted = times[0] + factor * (times - times[0])
    kept = wanted <= times[-1] * (1 + 1e-12)
    result = frames[kept].copy()
    result.X = np.column_stack([np.interp(wanted[kept], times, column) for column in frames.X.T])
    return result


def larger(frames: anndata.AnnData, factor: float) -> anndata.AnnData:
    """One trial that moves so many times as far from its mean posture."""
    result = frames.copy()
    mean = frames.X.mean(0)
    result.X = mean + factor * (frames.X - mean)
    return result


ALTERATIONS = {"faster": faster, "larger": larger}


def work(part: str, walks: Recordings, step: int, held_out: str, n_seeds: int, epochs: int) -> list[dict[str, Any]]:
    """One fit, and a row for each seed and for the mean of all; of an altered trial, for each way in which it is altered."""
    if part == "backwards":
        return motion.work(part, walks, step, held_out, "recipe", n_seeds, epochs)
    adata = walks.read(step)
    parts = motion.split(adata, [trial for trial in walks.trials if trial != held_out])
    fitted = anndata.concat([first for first, _ in parts.values()], merge="same")
    model, training, seconds = motion.fit(fitted, motion.PREPARE, motion.SETTINGS, n_seeds, epochs)
    about = {"movement": walks.movement, "frame_rate": walks.frame_rate / step, "held_out": held_out}
    about |= {"method": "recipe", "diverged": model is None, "seconds": seconds}
    if model is None:
        return [{"part": name, **about, "seed": "all"} for name in ALTERATIONS]
    trial = adata[(adata.obs["trial"] == held_out).to_numpy()]
    rows = []
    for name, alter in ALTERATIONS.items():
        for factor in FACTORS:
            new = alter(trial, factor)[: 2 * motion.FRAMES].copy()
            ready = sn.pp.prepare_motion(new, reference=training)
            for seed in [*range(n_seeds), *(["mean"] if n_seeds > 1 else [])]:
                found = _paper.attempt(lambda r=ready, s=seed: model.predict(r, replicate=s), None)
                guess = np.full(new.shape, np.inf) if found is None else sn.pp.restore_motion(found, training)
                scores = _paper.skills(*motion.unseen(guess, new, fitted.X), "unseen")
                rows.append({"part": name, **about, "factor": factor, "seed": seed, **scores})
    return rows


def planned(walks: Recordings) -> list[tuple[str, Recordings, int, str]]:
    """Arguments of all fits."""
    backwards = Backwards(**{field.name: getattr(walks, field.name) for field in fields(walks)})
    parts = {"backwards": backwards, "altered": walks}
    return [(part, own, step, trial) for part, own in parts.items() for step in STEPS for trial in walks.trials]


def summary(table: pd.DataFrame) -> str:
    """Skill of every part: mean over the trials, and the lowest."""
    table = table[~table["diverged"]].drop_duplicates([*KEYS, "held_out"], keep="last").fillna({"factor": 1.0})
    if table.empty:
        return "all fits diverged"
    return table.groupby(KEYS)["unseen_skill"].agg(["mean", "min"]).round(3).to_string()


def main() -> None:
    """Walks backwards, and trials that differ from those that were fitted."""
    parser: argparse.ArgumentParser = _paper.arguments(__doc__.splitlines()[0])
    options = parser.parse_args()
    _paper.check_skip(parser, "other_walks", options)
    folder = options.data / "motion_capture"
    files = tuple(folder / f"{name}.amc" for name in _recordings.TRIALS)
    walks = Recordings("walks", folder / "07.asf", files)
    _recordings.check(parser, walks, max(STEPS), motion.PREPARE)
    n_seeds, epochs = (1, 2) if options.quick else (options.seeds, motion.EPOCHS)
    plan = planned(walks)
    plan = [plan[0], plan[-1]] if options.quick else plan
    rows = _paper.spread(work, [(*entry, n_seeds, epochs) for entry in plan], options)
    about = {"epochs": motion.EPOCHS, "prepare": motion.PREPARE, "settings_": motion.SETTINGS, "train": motion.TRAIN}
    table = _paper.save("other_walks", rows, options, **about)
    print(summary(table))


if __name__ == "__main__":
    main()
