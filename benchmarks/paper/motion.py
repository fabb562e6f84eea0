"""Tables 3 and 4: motion capture, forecasts of trials that were fitted and of trials that were not.

Three of the four walking trials of subject 07 are fitted to their first 100 frames (two thirds of the trial where it has
fewer than 150), and up to 100 more are extrapolated. The fourth trial is predicted from its own start, which is its first
frame and the slope of its first ones: its first 200 frames. Errors are in squared metres, means over frames and the 93
coordinates. Null models of an extrapolation: persistence (last frame held), linear extrapolation (slope of the last six
frames) and the mean of the fitted frames. Those of the unseen trial: its first frame held, its first frame and the slope of
its first eight, and the mean of all fitted frames.

``folds`` holds each trial out in turn, at three frame rates (40, 60 and 120 a second), with one recipe, the same one as in the user guide. It was chosen on
these four trials. ``levers`` leaves one part of it out at a time, ``methods`` exchanges the regularizer, ``coordinates`` fits all 93
coordinates as in the paper, and ``golf`` extrapolates a golf swing. A row is a seed, or the mean of the trajectories of all seeds.
``--skeleton`` and ``--trials`` do the same with other recordings.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import _paper
import _recordings
import anndata
import numpy as np
import pandas as pd
from _recordings import Recordings

import sparsenode as sn
from sparsenode.regularizers import CNODE, L0, GroupLasso, LassoNet, NoRegularizer, PathReg

FRAMES, EPOCHS = 100, 20
LAST, FIRST = 5, 8  # frames behind the slopes of the null models
# The recipe, as in the user guide.
PREPARE: dict[str, Any] = {"n_components": 6, "start_every": 0.2, "mirror": True}
SETTINGS: dict[str, Any] = {
    "objective": "trajectory",
    "order": 2,
    "regularizer": NoRegularizer(),
    "hidden": (16,),
    "skip": True,
    "decay": False,
    "initial_velocity": "observed",
    "initial_bandwidth": 0.02,
    "start_noise": 0.2,
    "clock_noise": 0.1,
    "solver": "rk4",
    "n_knots": 33,
}
TRAIN: dict[str, Any] = {"train_size": 1.0, "plan_kwargs": {"lr": 0.03}}
LEVERS: dict[str, tuple[dict, dict]] = {
    "no mirror images": ({"mirror": False}, {}),
    "no late starts": ({"start_every": None}, {}),
    "no noise on starts": ({}, {"start_noise": 0.0}),
    "no noise on clocks": ({}, {"clock_noise": 0.0}),
    "velocities from the network": ({}, {"initial_velocity": "network"}),
    "first order": (
        {},
        {"order": 1, "initial_velocity": "network", "initial_state": "learned", "align_batches": False},
    ),
    "no hidden layer to speak of": ({}, {"hidden": (1,)}),
}
METHODS = {
    "C-NODE": CNODE(0.01),
    "PathReg": PathReg(0.01, gates="weight"),
    "L0": L0(0.01),
    "LassoNet inner": LassoNet(0.01, skip="inner"),
    "LassoNet outer": LassoNet(0.01, skip="outer"),
    "GroupLasso": GroupLasso(0.01),
}
# As in the paper: all coordinates, one start per trial, initial velocities from a network, two hidden layers of 100 units
# (GroupLasso, with a network per coordinate: one of 10).
PAPER: dict[str, Any] = {"objective": "trajectory", "order": 2, "n_knots": 33, "decay": False}
COORDINATES: dict[str, dict[str, Any]] = {
    f"{name}, 93 coordinates": PAPER
    | {"regularizer": regularizer, "hidden": (10,) if name == "GroupLasso" else (100, 100)}
    for name, regularizer in ({"base": NoRegularizer()} | METHODS).items()
}
COORDINATES["C-NODE 0.1, small and damped, 93 coordinates"] = PAPER | {
    "regularizer": CNODE(0.1),
    "hidden": (10,),
    "decay": True,
}


def split(adata: anndata.AnnData, trials: Sequence[str]) -> dict[str, tuple[anndata.AnnData, anndata.AnnData]]:
    """Fitted and extrapolated frames of every trial."""
    parts = {}
    for name in trials:
        frames = adata[(adata.obs["trial"] == name).to_numpy()]
        n = min(FRAMES, frames.n_obs * 2 // 3)
        parts[name] = frames[:n], frames[n : n + FRAMES]
    return parts


def extrapolation(parts: dict, predicted: dict[str, np.ndarray]) -> tuple[float, dict[str, float]]:
    """Error and null models on the frames after the fitted ones, means over trials."""
    errors: list[dict[str, float]] = []
    for trial, (fitted, later) in parts.items():
        x, y = fitted.X, later.X
        slope = (x[-1] - x[-1 - LAST]) / LAST
        line = x[-1] + np.arange(1, len(y) + 1)[:, None] * slope
        guesses = {"error": predicted[trial][len(x) :], "persistence": x[-1], "linear": line, "mean": x.mean(0)}
        errors.append({name: _paper.mse(guess, y) for name, guess in guesses.items()})
    table = pd.DataFrame(errors).mean()
    return float(table.pop("error")), table.to_dict()


def unseen(predicted: np.ndarray, frames: anndata.AnnData, fitted: np.ndarray) -> tuple[float, dict[str, float]]:
    """Error and null models on a trial that was not fitted, from its start."""
    x, times = frames.X, frames.obs["time"].to_numpy()
    times = times - times[0]
    slope = np.polynomial.polynomial.polyfit(times[:FIRST], x[:FIRST], 2)[1]
    guesses = {"persistence": x[0], "linear": x[0] + times[:, None] * slope, "mean": fitted.mean(0)}
    return _paper.mse(predicted, x), {name: _paper.mse(guess, x) for name, guess in guesses.items()}


def fit(
    fitted: anndata.AnnData, prepare: dict | None, settings: dict, n_seeds: int, epochs: int
) -> tuple[sn.SparseNODE | None, anndata.AnnData, float]:
    """All seeds at once: the model, or nothing where training diverged, its data, and seconds."""
    training = fitted.copy() if prepare is None else sn.pp.prepare_motion(fitted, **prepare)
    sn.SparseNODE.setup_anndata(training, time_key="time", batch_key="trial")
    model = sn.SparseNODE(training, n_seeds=n_seeds, seed=0, **settings)
    train = {} if prepare is None else TRAIN
    start = time.perf_counter()
    done = _paper.attempt(lambda: model.train(epochs, schedule="sparse", **train, **_paper.QUIET) or True, False)
    return model if done else None, training, time.perf_counter() - start


def work(
    part: str, recordings: Recordings, step: int, held_out: str | None, name: str, n_seeds: int, epochs: int
) -> list[dict]:
    """One fit, and a row for each seed and for the mean of all."""
    adata = recordings.read(step)
    changed, other = LEVERS.get(name, ({}, {}))
    prepare: dict | None = PREPARE | {"mirror": recordings.mirror} | changed
    settings = SETTINGS | other
    if name in METHODS:
        settings = settings | {"regularizer": METHODS[name]} | ({"hidden": (4,)} if name == "GroupLasso" else {})
    if name in COORDINATES:
        prepare, settings = None, COORDINATES[name]
    parts = split(adata, [trial for trial in recordings.trials if trial != held_out])
    fitted = anndata.concat([first for first, _ in parts.values()], merge="same")
    model, training, seconds = fit(fitted, prepare, settings, n_seeds, epochs)
    about = {"part": part, "movement": recordings.movement, "frame_rate": recordings.frame_rate / step}
    about |= {"held_out": held_out, "method": name.replace("93 coord", f"{adata.n_vars} coord")}
    if model is None:
        return [about | {"seed": "all", "diverged": True, "seconds": seconds}]

    def back(values: np.ndarray) -> np.ndarray:
        return values if prepare is None else sn.pp.restore_motion(values, training)

    places = list(model.trajectories["batch"])
    rows = []
    for seed in [*range(n_seeds), *(["mean"] if n_seeds > 1 else [])]:
        if seed in model.given_up_:
            rows.append(about | {"seed": seed, "diverged": True, "seconds": seconds})
            continue
        predicted = {}
        for trial, (first, later) in parts.items():
            times = np.concatenate([first.obs["time"], later.obs["time"]])
            found = _paper.attempt(lambda t=times, s=seed: model.predict(times=t, replicate=s), None)
            found = np.full((len(places), len(times), training.n_vars), np.inf) if found is None else found
            predicted[trial] = back(found if found.ndim == 2 else found[places.index(trial)])
        error = np.mean([_paper.mse(predicted[t][: len(parts[t][0])], parts[t][0].X) for t in parts])
        row = about | {"seed": seed, "diverged": False, "train_mse": float(error)}
        row |= _paper.skills(*extrapolation(parts, predicted), "extrapolation")
        if held_out is not None:
            new = adata[(adata.obs["trial"] == held_out).to_numpy()][: 2 * FRAMES].copy()
            ready = new if prepare is None else sn.pp.prepare_motion(new, reference=training)
            found = _paper.attempt(lambda r=ready, s=seed: model.predict(r, replicate=s), None)
            guess = np.full(new.shape, np.inf) if found is None else back(found)
            row |= _paper.skills(*unseen(guess, new, fitted.X), "unseen")
        if seed != "mean":
            row |= model.get_sparsity(replicate=seed).add_suffix("_sparsity").to_dict()
        rows.append(row | {"seconds": seconds, "trajectories": len(places)})
    return rows


def planned(walks: Recordings, golf: Recordings, held_out: Sequence[str], parts: Sequence[str]) -> list[tuple]:
    """Arguments of all fits, what matters first, in case the time is over."""

    def compared(part: str, names: Sequence[str], steps: Sequence[int]) -> list[tuple]:
        return [(part, walks, step, held_out[0], name) for name in names for step in steps]

    methods = list(METHODS)
    levers = [name for name in LEVERS if walks.mirror or name != "no mirror images"]
    plan = [("folds", walks, step, trial, "recipe") for trial in held_out for step in (3, 1)]
    plan += compared("methods", methods[:2], (3,)) + compared("levers", levers[:-2], (3, 1))
    plan += compared("methods", methods[2:], (3,)) + [("golf", golf, 3, None, "recipe")]
    plan += compared("levers", levers[-2:], (3, 1))
    plan += [("folds", walks, 2, trial, "recipe") for trial in held_out]
    plan += compared("coordinates", list(COORDINATES), (3, 1))
    return [entry for entry in plan if entry[0] in parts]


def stick_figure(walks: Recordings, options: Any) -> None:
    """One fit with the recipe, and the last of its trials."""
    adata = walks.read(3)
    parts = split(adata, [trial for trial in walks.trials if trial != options.held_out[0]])
    fitted = anndata.concat([first for first, _ in parts.values()], merge="same")
    model, training, _ = fit(fitted, PREPARE | {"mirror": walks.mirror}, SETTINGS, options.seeds, EPOCHS)
    if model is None:
        return
    name, (first, later) = list(parts.items())[-1]
    trial = anndata.concat([first, later], merge="same")
    trial.uns = adata.uns
    found = model.predict(times=trial.obs["time"].to_numpy(), replicate="mean")
    found = found if found.ndim == 2 else found[list(model.trajectories["batch"]).index(name)]
    predicted = sn.pp.restore_motion(found, training)
    until = float(first.obs["time"].max())
    figure = sn.pl.stick_figure(trial, predictions=predicted, fitted_until=until, return_fig=True)
    _paper.save_figure(figure, "motion_stick_figure", options)


def figures(table: pd.DataFrame, options: Any) -> None:
    """Skills of all folds, and of the parts of the recipe."""
    walking = table[(table["part"] != "golf") & (table["seed"] != "mean") & ~table["diverged"]].copy()
    walking["frames a second"] = walking["frame_rate"].astype(int).astype(str)
    measures = {"extrapolation_skill": "extrapolation skill", "unseen_skill": "skill on the unseen trial"}
    for part, label in (("folds", "held_out"), ("levers", "method")):
        own = walking[walking["part"].isin([part, "folds"]) if part == "levers" else walking["part"] == part].copy()
        if part not in set(own["part"]):
            continue  # left out, or all fits diverged
        if part == "levers":
            own = own[own["held_out"] == options.held_out[0]]
        for measure in measures:  # those far below have no place on an axis
            own[measure] = own[measure].clip(lower=-2)
        own["method"] = own[label]
        figure = sn.pl.comparison(
            own,
            list(measures),
            groupby="frames a second",
            labels=measures,
            reference=dict.fromkeys(measures, 0),
            return_fig=True,
        )
        _paper.save_figure(figure, f"motion_{part}", options)


def summary(table: pd.DataFrame) -> str:
    """Skill of the recipe in every fold: mean of the seeds, or the only one."""
    keys = ["frame_rate", "held_out"]
    folds = table[table["part"] == "folds"]
    if folds.empty:
        return "Skills of the folds are not among the results: they are a part of their own, `--parts folds`."
    folds = folds[~folds["diverged"]].drop_duplicates(keys, keep="last")
    if folds.empty:
        return "All fits of the folds diverged."
    return folds[[*keys, "extrapolation_skill", "unseen_skill"]].sort_values(keys).round(3).to_string(index=False)


def main() -> None:
    """The folds, then what depends on parts of the recipe."""
    parser = _paper.arguments(__doc__.splitlines()[0])
    _recordings.add_arguments(parser)
    options = parser.parse_args()
    _paper.check_skip(parser, "motion", options)
    walks, golf = _recordings.chosen(parser, options)
    n_seeds, epochs = (1, 2) if options.quick else (options.seeds, EPOCHS)
    plan = planned(walks, golf, options.held_out, options.parts)[: 1 if options.quick else None]
    for recordings in dict.fromkeys(entry[1] for entry in plan):
        step = max(entry[2] for entry in plan if entry[1] == recordings)
        _recordings.check(parser, recordings, step, PREPARE)
    rows = _paper.spread(work, [(*entry, n_seeds, epochs) for entry in plan], options)
    about = {"epochs": EPOCHS, "prepare": PREPARE, "settings_": SETTINGS, "train": TRAIN, "levers": LEVERS}
    table = _paper.save("motion", rows, options, methods=METHODS, coordinates=COORDINATES, **about)
    print(summary(table))
    if not options.quick:
        figures(table, options)
        if "folds" in options.parts:
            stick_figure(walks, options)


if __name__ == "__main__":
    main()
