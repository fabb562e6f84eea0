"""Tables 1 and 2: linear systems of second order, the network and the coefficients against the truth, and extrapolation.

Every method is fitted to the accelerations of smoothed trajectories (objective 'collocation', adaptive weights where the
method has them), its zeros are then held and the rest is refitted on the trajectories. The strength is chosen by the held-out
error of the refits. 'base' is fitted in the same way without penalty; 'base, paper' is a plain second-order
neural ODE without linear skip, two hidden layers, fitted to the trajectories from the start.

Extrapolation goes from the end of the observations to twice their time, scored against the exact solution. Errors are shares of
the variance of the exact solution there. A support is right if all 2 d² zeros and non-zeros of both blocks are; the diagonals
are free of penalty where a method can do that. Seeds change the trials, the fit and, for random systems, the system.
"""

from __future__ import annotations

import time
from typing import Any

import _paper
import numpy as np
import pandas as pd

import sparsenode as sn
from sparsenode.regularizers import CNODE, L0, GroupLasso, LassoNet, NoRegularizer, PathReg

N_TRIALS, N_TIMES = 6, 100
EPOCHS, REFIT, REFIT_RATE = 30, 20, 0.002  # epochs of ten steps
STEPS = 50  # in an epoch
PLAIN_EPOCHS = 60
SETTINGS: dict[str, Any] = {"order": 2, "objective": "collocation", "n_knots": 65}
PLAIN: dict[str, Any] = {
    "order": 2,
    "objective": "trajectory",
    "n_knots": 33,
    "skip": False,
    "hidden": (20, 20),
    "decay": False,
}
# Noise as a share of the standard deviation, and whether times are irregular.
CONDITIONS = ((0.05, False), (0.0, True), (0.05, True))
STRONG = [0.003, 0.01, 0.03]
METHODS = {
    "base, paper": None,
    "base": NoRegularizer(),
    "L0": L0([0.01, 0.03, 0.1]),
    "C-NODE": CNODE(STRONG, adaptive=2),
    "PathReg": PathReg([0.03, 0.1, 0.3], gates="weight", adaptive=2),
    "LassoNet inner": LassoNet(STRONG, skip="inner"),
    "LassoNet outer": LassoNet(STRONG, skip="outer"),
    "GroupLasso": GroupLasso(STRONG, adaptive=2),
}


def fit(adata: Any, method: str, seed: int, epochs: int, refit: int) -> sn.SparseNODE:
    """One method with its strength chosen."""
    sn.SparseNODE.setup_anndata(adata, time_key="time", batch_key="trial")
    if method == "base, paper":
        model = sn.SparseNODE(adata, "none", seed=seed, **PLAIN)
        model.train(min(epochs * PLAIN_EPOCHS // EPOCHS, PLAIN_EPOCHS), **_paper.QUIET)
        return model
    model = sn.SparseNODE(adata, METHODS[method], seed=seed, **SETTINGS)
    train(model, epochs, refit, METHODS[method].schedule)
    model.select("one_standard_error", key_added=None)
    return model


def train(model: sn.SparseNODE, epochs: int, refit: int, schedule: str) -> None:
    """Fit accelerations, hold the zeros, and refit the trajectories."""
    # An epoch costs as much as some steps, so few long ones; an iterative schedule counts epochs.
    length = 10 if schedule == "iterative" else STEPS
    model.train(max(10 * epochs // length, 1), steps_per_epoch=length, schedule=schedule, **_paper.QUIET)
    few = {"steps_per_epoch": STEPS, "objective": "trajectory", "refit": True, "plan_kwargs": {"lr": REFIT_RATE}}
    model.train(max(10 * refit // STEPS, 1), **few, **_paper.QUIET)


def score(model: sn.SparseNODE, system: Any, adata: Any) -> dict[str, float]:
    """Errors, sparsity, and both blocks against the truth."""
    end = system.t_end
    times = np.linspace(0.0, 2 * end, 201)
    found = _paper.attempt(lambda: model.predict(times=times), None)
    exact = np.stack([system.solve(start, times)[0] for start in adata.uns["initial_positions"]])
    found = np.full_like(exact, np.inf) if found is None else found
    row = {}
    for name, part in {"train": times <= end, "extrapolation": times > end}.items():
        row[f"{name}_error"] = _paper.mse(found[:, part], exact[:, part]) / float(exact[:, part].var())
    pairs = [
        (
            model.get_adjacency(block=block, weights="jacobian").loc[system.genes, system.genes].to_numpy(),
            getattr(system, block).to_numpy(),
        )
        for block in ("position", "velocity")
    ]
    fitted, truth = (np.concatenate(blocks, 1) for blocks in zip(*pairs, strict=True))
    wrong = (fitted != 0) != (truth != 0)
    row |= {
        "support_exact": float(not wrong.any()),
        "support_errors": float(wrong.sum()),
        "coefficient_error": float(np.linalg.norm(fitted - truth) / np.linalg.norm(truth)),
        "largest_coefficient_error": float((np.abs(fitted - truth)[truth != 0] / np.abs(truth[truth != 0])).max()),
        "true_feature_sparsity": float((truth == 0).mean()),
    }
    return row | model.get_sparsity()[["feature", "weight"]].add_suffix("_sparsity").to_dict()


def observe(system: Any, noise: float, irregular: bool, seed: int) -> Any:
    """Trials of a system, with the exact initial positions beside them."""
    arguments = {"n_trials": N_TRIALS, "n_times": N_TIMES, "irregular": irregular, "seed": seed}
    clean = system.simulate(noise=0.0, **arguments)
    adata = system.simulate(noise=noise, **arguments)
    trials = adata.obs["trial"].astype("category").cat.categories
    starts = [clean.X[np.flatnonzero((clean.obs["trial"] == name).to_numpy())[0]] for name in trials]
    adata.uns["initial_positions"] = np.asarray(starts, dtype=float)
    return adata


def figures(table: pd.DataFrame, options: Any) -> None:
    """Methods on the fixed system, and under noise."""
    fixed = table[(table["system"] == "fixed") & (table["noise"] == 0) & ~table["irregular"]].copy()
    measures = {
        "log10_extrapolation": "log10 extrapolation error / variance",
        "support_errors": "wrong zeros or non-zeros of 18",
        "feature_sparsity": "feature sparsity (truth 0.5)",
    }
    fixed["log10_extrapolation"] = np.log10(fixed["extrapolation_error"].clip(upper=1e3))
    figure = sn.pl.comparison(
        fixed, list(measures), labels=measures, reference={"feature_sparsity": 0.5}, return_fig=True
    )
    _paper.save_figure(figure, "second_order", options)


def work(kind: str, number: int, noise: float, irregular: bool, method: str, seed: int, quick: bool) -> list[dict]:
    """One fit, and its row."""
    system = (
        sn.datasets.second_order_system() if kind == "fixed" else sn.datasets.random_second_order_system(seed=number)
    )
    adata = observe(system, noise, irregular, seed + 1)
    epochs, refit = (3, 2) if quick else (EPOCHS, REFIT)
    start = time.perf_counter()
    model = _paper.attempt(lambda: fit(adata, method, seed, epochs, refit), None)
    seconds = time.perf_counter() - start
    row = {"system": kind, "number": number, "noise": noise, "irregular": irregular, "method": method, "seed": seed}
    row |= {"diverged": True} if model is None else {"diverged": False} | score(model, system, adata)
    return [row | {"seconds": seconds}]


def main() -> None:
    """Fixed system on five seeds, random systems, and noise and irregular times."""
    parser = _paper.arguments(__doc__.splitlines()[0])
    parser.add_argument("--systems", type=int, default=20, help="number of random systems")
    options = parser.parse_args()
    _paper.check_skip(parser, "second_order", options)
    few = ["C-NODE", "PathReg", "base, paper"]
    if options.quick:
        plan = [("fixed", 0, 0.0, False, method, 0) for method in few]
    else:
        # What matters first, in case the time is over.
        plan = [("fixed", 0, 0.0, False, method, seed) for seed in range(options.seeds) for method in METHODS]
        systems = [("random", number, 0.0, False, method, 0) for number in range(options.systems) for method in METHODS]
        plan += systems[: 10 * len(METHODS)]
        for seed in range(options.seeds):
            for noise, irregular in CONDITIONS:
                plan += [("fixed", 0, noise, irregular, method, seed) for method in (*few[:2], "base", few[2])]
        plan += systems[10 * len(METHODS) :]
    rows = _paper.spread(work, [(*entry, options.quick) for entry in plan], options)
    about = {
        "epochs": EPOCHS,
        "plain_epochs": PLAIN_EPOCHS,
        "refit": REFIT,
        "refit_lr": REFIT_RATE,
        "settings_": SETTINGS,
        "plain": PLAIN,
    }
    table = _paper.save("second_order", rows, options, methods=METHODS, **about)
    if not options.quick:
        figures(table, options)


if __name__ == "__main__":
    main()
