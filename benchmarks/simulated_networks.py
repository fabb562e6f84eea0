"""Networks of simulated cells, beside baselines; no setting was chosen on those with a *c*.

Stochastic mRNA and protein kinetics of Boolean networks (``_boolean_cells.py``): chains, a ring, bifurcations, mutual repression,
networks with several attractors, random networks, and the myeloid network of Krumsiek et al. (2011). Everything is
``SparseNODE(adata, objective="transport")`` with its defaults; nothing is chosen per network. ``sparsenode, shuffled`` has pseudotime
shuffled within lineages: what it scores is static. The column ``regulators`` is the rank correlation of the strengths of all genes
(``tl.rank_regulators``) with their true numbers of targets, and is empty where these are all the same.
"""

from __future__ import annotations

import time
from itertools import product

import _boolean_cells as boolean
import _common
import anndata
import beeline
import pandas as pd
from _timing import silence

from sparsenode import datasets, tl

BASELINES = ("genie3", "partial_correlation", "pearson")
N_CELLS = (2000, 500, 200)


def networks() -> dict[str, boolean.BooleanNetwork]:
    """All networks by name; of those that are drawn at random there are three of each size."""
    result = {
        "chain, 7 genes": boolean.chain(7, 7.0),
        "chain, 12": boolean.chain(12, 9.0),
        "chain, 18": boolean.chain(18, 12.0),
        "ring, 6": boolean.cycle(6, 8.0),
        "bifurcation, 7": boolean.bifurcation(7, 6.0),
        "bifurcation, 10": boolean.bifurcation(10, 8.0),
    }
    drawn = (
        ("random", boolean.random, 8.0, {8: (11, 51, 501), 10: (12, 52, 502), 14: (13, 53, 503), 19: (14, 54, 504)}),
        ("repression", boolean.repressions, 5.0, {6: (21, 61, 505), 8: (22, 62, 506), 10: (23, 63, 507)}),
        ("attractors", boolean.attractors, 6.0, {8: (31, 71, 508), 10: (32, 72, 509), 12: (33, 73, 510)}),
    )
    for family, draw, end, sizes in drawn:
        for size, seeds in sizes.items():
            for seed, which in zip(seeds, ("a", "b", "c"), strict=True):
                result[f"{family}, {size}{which}"] = draw(size, seed, end)
    return result | {"myeloid, 11": boolean.myeloid(datasets.krumsiek11_network(), 6.0)}


def regulators(found: pd.DataFrame, reference: pd.DataFrame, genes: pd.Index) -> float:
    """Spearman correlation of the strengths of genes in a network with their numbers of targets other than themselves in the reference."""
    targets = reference.query("source != target")["source"].value_counts().reindex(genes, fill_value=0)
    strength = tl.rank_regulators(found)["strength"].reindex(genes, fill_value=0.0)
    return (
        float("nan") if targets.nunique() == 1 or strength.nunique() == 1 else strength.corr(targets, method="spearman")
    )


def score(name: str, network: boolean.BooleanNetwork, adata: anndata.AnnData, seed: int) -> list[dict]:
    """Rows of one data set."""
    reference = network.edges()
    makers = {
        "sparsenode": lambda: beeline.infer(adata.copy()),
        "sparsenode, shuffled": lambda: beeline.infer(beeline.shuffled(adata, seed)),
        **{method: lambda method=method: tl.network_baselines(adata, [method])[method] for method in BASELINES},
    }
    rows = []
    for method, make in makers.items():
        start = time.perf_counter()
        found = make()
        scores = beeline.score(found, reference, time.perf_counter() - start)
        lineages = adata.obsm["lineages"].shape[1]
        about = {"network": name, "cells": adata.n_obs, "seed": seed, "lineages": lineages}
        ranks = {"regulators": regulators(found, reference, adata.var_names)}
        rows.append({**about, "method": method, **scores, **ranks})
    return rows


def main() -> None:
    parser = _common.parser(__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=N_CELLS, help="numbers of cells")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the cells")
    options = parser.parse_args()
    if options.quick:
        options.cells, options.seeds = [200], options.seeds[:1]
    silence()
    rows = []
    for name, network in list(networks().items())[: 1 if options.quick else None]:
        for n_cells, seed in product(options.cells, options.seeds):
            rows += score(name, network, boolean.cells(network, n_cells, seed), seed)
        print(f"done: {name}", flush=True)
    table = pd.DataFrame(rows)
    shown = table.pivot_table(
        index=["cells", "network"], columns="method", values="auprc_ratio", aggfunc="median", sort=False
    )
    print(shown.round(2).to_string())
    _common.save("simulated_networks", rows, options)


if __name__ == "__main__":
    main()
