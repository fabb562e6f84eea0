"""Table 7: error and sparsity against the strength, all strengths of a method in one fit, on three data sets.

The data sets are the fixed system of second order with 5 % noise, fitted to accelerations and refitted to trajectories as in
``second_order.py``; four walking trials of subject 07, 40 frames a second, with the recipe of ``motion.py``; and donor S1D2 of the
bone marrow, or another ``--donor``. Errors are shares of the variance around the trajectory means, on training and held-out
observations; extrapolation is the business of the other scripts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Container
from typing import Any

import _paper
import _recordings
import anndata
import matplotlib.pyplot as plt
import motion
import numpy as np
import pandas as pd
import scanpy as sc
import second_order as system
from _paper import _common  # beside which scripts of the paper do not stand
from bone_marrow import check_donors

import sparsenode as sn
from sparsenode.regularizers import CNODE, L0, LassoNet, PathReg

N_STRENGTHS, EPOCHS = 6, 20
# From the strengths and the number of adaptive rounds.
METHODS = {
    "L0": lambda strength, _: L0(strength),
    "C-NODE": lambda strength, adaptive: CNODE(strength, adaptive=adaptive),
    "PathReg": lambda strength, adaptive: PathReg(strength, gates="weight", adaptive=adaptive),
    "LassoNet": lambda strength, _: LassoNet(strength, skip="inner"),
}
RANGE = (1e-3, 1.0)


def second_order(options: Any) -> tuple[anndata.AnnData, dict, dict]:
    """Noisy trials of the fixed system."""
    adata = sn.datasets.second_order_system().simulate(6, 100, noise=0.05, seed=1)
    return adata, {"time_key": "time", "batch_key": "trial"}, system.SETTINGS


def walks(options: Any) -> _recordings.Recordings:
    """The walking trials."""
    folder = options.data / "motion_capture"
    files = tuple(folder / f"{trial}.amc" for trial in _recordings.TRIALS)
    return _recordings.Recordings("walks", folder / "07.asf", files)


def walking(options: Any) -> tuple[anndata.AnnData, dict, dict]:
    """Components of all walking trials, with mirror images and late starts."""
    settings = {name: value for name, value in motion.SETTINGS.items() if name != "regularizer"}
    frames = walks(options).read(3)
    return sn.pp.prepare_motion(frames, **motion.PREPARE), {"time_key": "time", "batch_key": "trial"}, settings


def bone_marrow(options: Any) -> tuple[anndata.AnnData, dict, dict]:
    """The training donor, log-transformed."""
    adata = _common.read_donor(options.data / "bone_marrow" / f"{options.donor}.h5ad")
    sc.pp.log1p(adata)
    return adata, {"lineage_key": "lineages"}, {"objective": "trajectory"}


DATA = {"second order": second_order, "walking": walking, "bone marrow": bone_marrow}


def train(model: sn.SparseNODE, name: str, quick: bool) -> None:
    """All strengths at once, with the settings of the script that the data come from."""
    if name == "second order":
        system.train(model, *((3, 2) if quick else (system.EPOCHS, system.REFIT)), schedule="sparse")
        return
    rate = {"walking": motion.TRAIN["plan_kwargs"]["lr"], "bone marrow": 0.01}[name]
    model.train(2 if quick else EPOCHS, schedule="sparse", plan_kwargs={"lr": rate}, **_paper.QUIET)


def work(name: str, method: str, options: Any) -> list[dict]:
    """A row for every strength and seed of one fit of all; draws the path of the first seed of PathReg."""
    adata, keys, settings = DATA[name](options)
    strengths = np.geomspace(*RANGE, 2 if options.quick else N_STRENGTHS)
    sn.SparseNODE.setup_anndata(adata, **keys)
    regularizer = METHODS[method](strengths, 2 if name == "second order" else 0)
    start = time.perf_counter()
    model = sn.SparseNODE(adata, regularizer, seed=0, n_seeds=1 if options.quick else options.seeds, **settings)
    about = {"data": name, "method": method}
    if not _paper.attempt(lambda: train(model, name, options.quick) or True, False):
        return [about | {"diverged": True, "seconds": time.perf_counter() - start}]
    about["seconds"] = time.perf_counter() - start
    if method == "PathReg" and not options.quick:
        model.write_results()
        figure = sn.pl.regularization_path(adata, return_fig=True)
        _paper.save_figure(figure, f"path_{name.replace(' ', '_')}", options)
    # Of the second-order systems and of motion every coordinate may regulate.
    factors = _common.read_regulators(options.data / "bone_marrow") if name == "bone marrow" else None
    table = model.get_regularization_path(factors)
    table.insert(0, "diverged", table.index.isin(model.given_up_))
    return [about | row for row in table.to_dict("records")]


def check(parser: argparse.ArgumentParser, options: Any, names: Container[str]) -> None:
    """End with a message where a data set is missing or cannot be used, before anything is fitted."""
    _paper.check_skip(parser, "regularization_paths", options)
    if "walking" in names:
        _recordings.check(parser, walks(options), 3, motion.PREPARE)
    if "bone marrow" in names:
        check_donors(parser, options.data, [options.donor], protocols=["recommended"])


def figure(table: pd.DataFrame, options: Any) -> None:
    """Held-out error against sparsity along the paths: medians over seeds, bars from the lowest to the highest."""
    names = [name for name in DATA if name in set(table["data"])]
    drawn, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3.4), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        own = table[(table["data"] == name) & ~table["diverged"]]
        for place, method in enumerate(METHODS):
            measures = own[own["method"] == method].groupby("strength")[["feature_sparsity", "validation_error"]]
            path, lowest, highest = measures.median(), measures.min(), measures.max()
            bars = np.stack([(path - lowest).to_numpy().T, (highest - path).to_numpy().T], 1)
            style = {"marker": "osD^"[place], "color": f"C{place}", "label": method, "elinewidth": 1, "capsize": 2}
            axis.errorbar(path["feature_sparsity"], path["validation_error"], bars[1], bars[0], **style)
        axis.set(title=name, xlabel="feature sparsity", xlim=(-0.05, 1.05), yscale="log")
    axes[0, 0].set_ylabel("held-out error / variance")
    axes[0, 0].legend(frameon=False)
    _paper.save_figure(drawn, "regularization_paths", options)


def main() -> None:
    """One fit per data set and method."""
    parser = _paper.arguments(__doc__.splitlines()[0])
    _common.add_donor_argument(parser)
    options = parser.parse_args()
    plan = [(name, method, options) for name in DATA for method in METHODS]
    plan = plan[:1] + plan[4:6] if options.quick else plan
    check(parser, options, {name for name, *_ in plan})
    rows = _paper.spread(work, plan, options)
    about = {"epochs": EPOCHS, "range": RANGE, "n_strengths": N_STRENGTHS}
    table = _paper.save("regularization_paths", rows, options, **about)
    if not options.quick:
        figure(table, options)


if __name__ == "__main__":
    main()
