"""Knock-outs of simulated cells: which genes rise and fall without each gene, and by how much.

The networks and cells of ``simulated_networks.py``. A model sees 2000 cells in which nothing is held, and predicts what happens to
the mean of every gene over pseudotime where one of the others is knocked out from the start on. The truth is simulated anew. Models
are ``SparseNODE(adata)`` with the defaults of their objective; effects of lineages are averaged with the shares of the later cells.
Baselines are static: ``regression`` of each gene on the one that is knocked out, and ``ridge``, a regression of each gene on all
others whose predictions are propagated three times, in the manner of CellOracle (Kamimoto et al. 2023). ``shuffled`` is the default
with pseudotime shuffled within lineages.

Effects are in standard deviations of the gene. ``skill`` is 1 − squared error / that of predicting no effect, ``correlation`` that over
all pairs of a gene that is knocked out and another, ``rank_correlation`` that of Spearman, ``sign_accuracy`` the share of right signs
among true effects above a quarter of a standard deviation, and ``auroc`` says whether the predicted size tells which these are.
"""

from __future__ import annotations

import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import _boolean_cells as boolean
import _common
import beeline
import numpy as np
import pandas as pd
from _timing import silence
from anndata import AnnData
from scipy import stats
from simulated_networks import networks
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from sparsenode import SparseNODE

N_CELLS, N_TRUE = 2000, 1000
TRUE_SEED = 100  # of the cells that effects are measured on
LARGE = 0.25
ROUNDS = 3
QUIET = {"key_added": None, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def true_effects(network: boolean.BooleanNetwork, n_cells: int) -> np.ndarray:
    """Change of the mean of every gene over pseudotime, knocked-out genes × genes; the noise is the same with and without."""
    unperturbed, _ = boolean.simulate(network, n_cells, TRUE_SEED)
    perturbed = [boolean.simulate(network, n_cells, TRUE_SEED, (gene,))[0] for gene in range(network.n_genes)]
    return np.array([one.mean(0) for one in perturbed]) - unperturbed.mean(0)


def model_effects(adata: AnnData, **settings) -> np.ndarray:
    """Mean effect over pseudotime of every knock-out on every gene."""
    SparseNODE.setup_anndata(adata, time_key="pseudotime", lineage_key="lineages")
    model = SparseNODE(adata, **settings)
    model.train(**QUIET)
    late = adata.obs["pseudotime"] > adata.obs["pseudotime"].median()
    share = adata.obsm["lineages"][late].mean()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of genes that leave the range
        found = [model.simulate(knockout=gene).effects for gene in adata.var_names]
    lineage = model.trajectories["lineage"].astype(str)
    weight = pd.Series((share[lineage] / share[lineage].sum()).to_numpy(), lineage.index.astype(str))
    tables = [one.pivot(index="start", columns="gene", values="mean")[list(adata.var_names)] for one in found]
    return np.array([table.mul(weight[table.index], axis=0).sum() for table in tables])


def regression(x: np.ndarray) -> np.ndarray:
    """What is left of every gene without another, by a regression on that one alone."""
    z = x - x.mean(0)
    return -(z.T @ z) / np.square(z).sum(0)[:, None] * x.mean(0)[:, None]


def ridge(x: np.ndarray) -> np.ndarray:
    """A regression of every gene on all others, propagated while the knocked-out gene is held."""
    deviation, n = x.std(0), x.shape[1]
    z, coefficients = (x - x.mean(0)) / deviation, np.zeros((n, n))
    for target in range(n):
        others = np.delete(np.arange(n), target)
        coefficients[others, target] = Ridge(1.0).fit(z[:, others], z[:, target]).coef_
    start = -np.diag(x.mean(0) / deviation)
    effect = start
    for _ in range(ROUNDS):
        effect = effect @ coefficients
        np.fill_diagonal(effect, np.diag(start))
    return effect * deviation


def score(predicted: np.ndarray, true: np.ndarray, deviation: np.ndarray) -> dict[str, float]:
    """Scores over all pairs of different genes."""
    pairs = ~np.eye(len(true), dtype=bool)
    found, real = (predicted / deviation)[pairs], (true / deviation)[pairs]
    large, varies = np.abs(real) > LARGE, found.std() > 0
    return {
        "skill": 1 - np.square(found - real).sum() / np.square(real).sum(),
        "correlation": float(np.corrcoef(found, real)[0, 1]) if varies else 0.0,
        "rank_correlation": float(stats.spearmanr(found, real).statistic) if varies else 0.0,
        "sign_accuracy": float((np.sign(found[large]) == np.sign(real[large])).mean()),
        "auroc": float(roc_auc_score(large, np.abs(found))) if 0 < large.sum() < len(large) else np.nan,
        "large": float(large.mean()),
    }


def run(name: str, network: boolean.BooleanNetwork, true: np.ndarray, n_cells: int, seed: int) -> list[dict]:
    """Rows of one data set. Genes that are never expressed are left out: to knock them out is nothing."""
    adata = boolean.cells(network, n_cells, seed)
    varies = adata.X.std(0) > 0
    adata, true = adata[:, varies].copy(), true[np.ix_(varies, varies)]
    x = adata.X.astype(np.float64)
    makers: dict[str, Callable[[], np.ndarray]] = {
        "both": lambda: model_effects(adata.copy(), seed=seed),
        "transport": lambda: model_effects(adata.copy(), objective="transport", seed=seed),
        "trajectory": lambda: model_effects(adata.copy(), objective="trajectory", seed=seed),
        "both, shuffled": lambda: model_effects(beeline.shuffled(adata, seed), seed=seed),
        "ridge": lambda: ridge(x),
        "regression": lambda: regression(x),
    }
    rows = []
    for method, make in makers.items():
        start = time.perf_counter()
        found = make()
        about = {"network": name, "cells": n_cells, "seed": seed, "method": method}
        rows.append({**about, **score(found, true, x.std(0)), "seconds": time.perf_counter() - start})
    return rows


def run_network(name: str, n_cells: int, n_true: int, seeds: Sequence[int]) -> list[dict]:
    """Rows of one network."""
    silence()
    network = networks()[name]
    true = true_effects(network, n_true)
    rows = [row for seed in seeds for row in run(name, network, true, n_cells, seed)]
    print(f"done: {name}", flush=True)
    return rows


def main() -> None:
    parser = _common.parser(__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(networks()), help="names of the networks")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[2], help="seeds of the cells; 0 and 1 served to choose"
    )
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time, each with one thread")
    options = parser.parse_args()
    unknown = sorted(set(options.networks) - set(networks()))
    if unknown:
        parser.error(f"Expected networks among {list(networks())}, found {unknown}.")
    n_cells, n_true = (300, 100) if options.quick else (N_CELLS, N_TRUE)
    names, seeds = (options.networks[:1], options.seeds[:1]) if options.quick else (options.networks, options.seeds)
    work = partial(run_network, n_cells=n_cells, n_true=n_true, seeds=seeds)
    # Not forked: torch has threads.
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        rows = [row for found in pool.map(work, names) for row in found]
    table = pd.DataFrame(rows)
    for value in ("skill", "sign_accuracy"):
        print(value)
        shown = table.pivot_table(index="network", columns="method", values=value, aggfunc="median", sort=False)
        print(shown.round(2).to_string())
    _common.save("interventions", rows, options)


if __name__ == "__main__":
    main()
