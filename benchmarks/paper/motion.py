"""Tables 3 and 4: motion capture, forecasts of trials that were fitted and of trials that were not.

Three of the four walking trials of subject 07 are fitted to their first 100 frames (two thirds of the trial where it has
fewer than 150), and up to 100 more are extrapolated. The fourth trial is predicted from its own first frame: its first
200 frames. Errors are in squared metres, means over frames and the 93 coordinates. Null models of an extrapolation:
persistence (last frame held), linear extrapolation (slope of the last six frames) and the mean of the fitted frames. Those of the
unseen trial: its first frame held, its first frame and the slope of its first eight, and the mean of all fitted frames.

``levers`` switches one thing on after another, ``methods`` compares the regularizers with the best levers. Settings were
chosen with 07_10 held out; the folds with other trials held out were not looked at for that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import _paper
import anndata
import numpy as np
import pandas as pd

import sparsenode as sn
from sparsenode.regularizers import CNODE, L0, GroupLasso, LassoNet, NoRegularizer, PathReg

TRIALS = ("07_01", "07_04", "07_05", "07_10")
CHOSEN_ON, CHECKED_ON = "07_10", ("07_01", "07_05")
FRAMES, SHORTEST = 100, 20
EPOCHS = 20
LAST, FIRST = 5, 8  # frames behind the slopes of the null models
SECOND = {"order": 2, "n_knots": 33}
ONE = {"order": 1, "n_knots": 33, "align_batches": False, "initial_state": "learned", "hidden": (30,)}
SMALL = SECOND | {"hidden": (10,), "decay": True}
PENALTY = CNODE(0.1)
LEVERS: dict[str, dict[str, Any]] = {
    "second order, plain": SECOND | {"regularizer": NoRegularizer(), "decay": False},
    "+ damping": SECOND | {"regularizer": NoRegularizer(), "decay": True},
    "+ sparse, 10 hidden units": SMALL | {"regularizer": PENALTY},
    "+ late starts": SMALL | {"regularizer": PENALTY, "late": True},
    "first order, late starts": ONE | {"regularizer": PENALTY, "late": True},
    "first order, late starts, 8 components": ONE | {"regularizer": CNODE(0.03), "late": True, "n_components": 8},
    "the same, weaker, 60 epochs": ONE | {"regularizer": CNODE(0.01), "late": True, "n_components": 8, "epochs": 60},
}
CHECKED = ("first order, late starts, 8 components", "+ late starts")  # best at 120 and at 40 frames a second
N_SLOW = 3  # the first ones, which are only run with the trial held out that settings were chosen on
METHODS = {
    "base": NoRegularizer(),
    "L0": L0(0.1),
    "C-NODE": PENALTY,
    "PathReg": PathReg(0.1),
    "LassoNet inner": LassoNet(0.1, skip="inner"),
    "LassoNet outer": LassoNet(0.1, skip="outer"),
    "GroupLasso": GroupLasso(0.1),
}


def split(adata: anndata.AnnData, trials: Sequence[str]) -> dict[str, tuple[anndata.AnnData, anndata.AnnData]]:
    """Fitted and extrapolated frames of every trial."""
    parts = {}
    for name in trials:
        frames = adata[(adata.obs["trial"] == name).to_numpy()]
        n = min(FRAMES, frames.n_obs * 2 // 3)
        parts[name] = frames[:n], frames[n : n + FRAMES]
    return parts


class Components:
    """Projection on the first principal components of some frames; without a number of them, the frames themselves."""

    def __init__(self, frames: np.ndarray, n: int | None) -> None:
        self.centre = frames.mean(0) if n else np.zeros(frames.shape[1])
        axes = np.linalg.svd(frames - self.centre, full_matrices=False)[2]
        self.axes = axes[:n].T if n else np.eye(frames.shape[1])

    def to(self, x: np.ndarray) -> np.ndarray:
        """Frames × components."""
        return (x - self.centre) @ self.axes

    def back(self, z: np.ndarray) -> np.ndarray:
        """Frames × coordinates."""
        return z @ self.axes.T + self.centre


def training_set(parts: dict, components: Components, names: pd.Index, every: int | None) -> anndata.AnnData:
    """Fitted frames, and if ``every`` is given the same trials again from every so many frames on.

    Those are trajectories of their own, so that the field and the initial velocities are learned from many starts.
    """
    tables = []
    for trial, (frames, _) in parts.items():
        starts = [0, *(range(every, frames.n_obs - SHORTEST, every) if every else ())]
        for start in starts:
            obs = frames.obs.iloc[start:][["time"]].assign(trial=f"{trial}/{start}")
            tables.append(anndata.AnnData(components.to(frames.X[start:]).astype(np.float32), obs=obs))
    adata = anndata.concat(tables, keys=[str(i) for i in range(len(tables))], index_unique="-")
    adata.obs["trial"] = adata.obs["trial"].astype("category")
    adata.var_names = names if len(names) == adata.n_vars else [f"component {i}" for i in range(adata.n_vars)]
    return adata


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


def unseen(
    model: sn.SparseNODE, frames: anndata.AnnData, fitted: np.ndarray, components: Components, replicate: int
) -> tuple[float, dict[str, float]]:
    """Error and null models on a trial that was not fitted, from its first frame."""
    x, times = frames.X, frames.obs["time"].to_numpy()
    times = times - times[0]
    slope = np.polynomial.polynomial.polyfit(times[:FIRST], x[:FIRST], 2)[1]

    def run() -> np.ndarray:
        runs = model.simulate(components.to(x[0]), times, replicate=replicate)
        return components.back(runs.unperturbed[0])

    guesses = {"persistence": x[0], "linear": x[0] + times[:, None] * slope, "mean": fitted.mean(0)}
    error = _paper.mse(_paper.attempt(run, np.full_like(x, np.inf)), x)
    return error, {name: _paper.mse(guess, x) for name, guess in guesses.items()}


def run(
    adata: anndata.AnnData, held_out: str | None, settings: dict, n_seeds: int, epochs: int
) -> tuple[list, Any, dict]:
    """Fit all seeds at once; one row per seed, the model, and its predictions in the first seed."""
    settings = dict(settings)
    late, n_components = settings.pop("late", False), settings.pop("n_components", None)
    epochs = min(epochs, settings.pop("epochs", EPOCHS)) if epochs < EPOCHS else settings.pop("epochs", epochs)
    trials = [name for name in adata.obs["trial"].unique() if name != held_out]
    parts = split(adata, trials)
    frames = np.concatenate([fitted.X for fitted, _ in parts.values()])
    components = Components(frames, n_components)
    training = training_set(parts, components, adata.var_names, 10 if late else None)
    sn.SparseNODE.setup_anndata(training, time_key="time", batch_key="trial")
    model = sn.SparseNODE(training, n_seeds=n_seeds, seed=0, **settings)
    start = time.perf_counter()
    done = _paper.attempt(lambda: model.train(epochs, schedule="sparse", **_paper.QUIET) or True, False)
    seconds = time.perf_counter() - start
    places = list(model.trajectories["batch"])
    rows, shown = [], {}
    for seed in range(n_seeds):
        predicted = {}
        for trial, (fitted, later) in parts.items():
            times = np.concatenate([fitted.obs["time"], later.obs["time"]])
            failed = np.full((len(places), len(times), training.n_vars), np.inf)
            found = (
                _paper.attempt(lambda t=times, s=seed: model.predict(times=t, replicate=s), failed) if done else failed
            )
            found = found if found.ndim == 3 else found[None]
            predicted[trial] = components.back(found[places.index(f"{trial}/0")])
        fit = np.mean([_paper.mse(predicted[t][: len(parts[t][0])], parts[t][0].X) for t in parts])
        row = {"seed": seed, "diverged": not done, "train_mse": fit}
        row |= _paper.skills(*extrapolation(parts, predicted), "extrapolation")
        if held_out is not None and done:
            new = adata[(adata.obs["trial"] == held_out).to_numpy()][: 2 * FRAMES]
            row |= _paper.skills(*unseen(model, new, frames, components, seed), "unseen")
        if done:
            row |= model.get_sparsity(replicate=seed).add_suffix("_sparsity").to_dict()
        rows.append(row | {"seconds": seconds})
        shown = shown or predicted
    return rows, model, shown


def figures(adata: anndata.AnnData, model: sn.SparseNODE, shown: dict, table: pd.DataFrame, options: Any) -> None:
    """Stick figures and adjacency of one fit, and the levers beside each other."""
    trial = adata[(adata.obs["trial"] == "07_05").to_numpy()]
    trial = trial[: len(shown["07_05"])].copy()
    until = float(model.trajectories["end"].max())
    figure = sn.pl.stick_figure(trial, predictions=shown["07_05"], fitted_until=until, return_fig=True)
    _paper.save_figure(figure, "motion_stick_figure", options)
    model.write_results()
    model.adata.var["body_part"] = adata.var["body_part"].to_numpy()
    _paper.save_figure(sn.pl.adjacency(model.adata, groupby="body_part", return_fig=True), "motion_adjacency", options)
    walking = table[(table["part"] == "levers") & (table["movement"] == "walking")].copy()
    for measure in ("extrapolation_skill", "unseen_skill"):  # those far below have no place on an axis
        walking[measure] = walking[measure].clip(lower=-3)
    walking["frames a second"] = walking["frame_rate"].astype(int).astype(str)
    figure = sn.pl.comparison(
        walking,
        ["extrapolation_skill", "unseen_skill"],
        groupby="frames a second",
        labels={
            "extrapolation_skill": "extrapolation skill",
            "unseen_skill": "skill on the unseen trial",
        },
        reference={"extrapolation_skill": 0, "unseen_skill": 0},
        return_fig=True,
    )
    _paper.save_figure(figure, "motion_levers", options)


def main() -> None:
    """Levers and methods on walking, the levers on the golf swing."""
    parser = _paper.arguments(__doc__.splitlines()[0])
    parser.add_argument("--checks", action="store_true", help="hold out the other trials, and write motion_checks.csv")
    options = parser.parse_args()
    folder = options.data / "motion_capture"
    seeds, epochs = (1, 2) if options.quick else (options.seeds, EPOCHS)
    plan: list[tuple] = []
    light, everything = list(LEVERS)[N_SLOW:], list(LEVERS)
    runs = [(3, CHOSEN_ON, light)]
    if not options.quick:  # what matters first, in case the time is over
        runs += [(1, CHOSEN_ON, light), (2, CHOSEN_ON, light), (3, CHOSEN_ON, everything[:N_SLOW])]
    if options.checks:
        runs = [(step, held_out, CHECKED) for held_out in CHECKED_ON for step in (1, 3)]
    for step, held_out, names in runs:
        plan += [("levers", "walking", step, held_out, name, LEVERS[name]) for name in names]
    compared = []
    for name, regularizer in METHODS.items():
        hidden = (2,) if name == "GroupLasso" else (10,)  # one network per coordinate
        settings = SMALL | {"regularizer": regularizer, "hidden": hidden, "late": True}
        compared.append(("methods", "walking", 3, CHOSEN_ON, name, settings))
    place = 2 * len(light)
    plan[place:place] = compared[:1] if options.quick else compared
    plan += [("levers", "golf", 3, None, name, LEVERS[name]) for name in light]
    if options.checks:
        plan = [entry for entry in plan if entry[3] in CHECKED_ON]
    rows: list[dict] = []
    kept: tuple | None = None
    for part, movement, step, held_out, name, settings in _paper.within(plan, options):
        files = [folder / f"{trial}.amc" for trial in (TRIALS if movement == "walking" else ["golf_01"])]
        skeleton = folder / ("07.asf" if movement == "walking" else "golf.asf")
        adata = sn.datasets.read_motion_capture(skeleton, files, step=step, incomplete="drop")
        found, model, shown = run(adata, held_out, settings, seeds, epochs)
        about = {"part": part, "movement": movement, "frame_rate": 120 / step, "held_out": held_out, "method": name}
        rows += [about | row for row in found]
        keys = ["train_mse", "extrapolation_skill", "unseen_skill", "feature_sparsity", "seconds"]
        means = pd.DataFrame(found).reindex(columns=keys).mean().round(4).to_dict()
        print(*about.values(), means, flush=True)
        if name == "+ late starts" and (movement, step, held_out) == ("walking", 3, CHOSEN_ON):
            kept = adata, model, shown
    name = "motion_checks" if options.checks else "motion"
    _paper.save(name, rows, options, epochs=EPOCHS, chosen_on=CHOSEN_ON, levers=LEVERS, methods=METHODS)
    if kept is not None:
        figures(*kept, pd.DataFrame(rows), options)


if __name__ == "__main__":
    main()
