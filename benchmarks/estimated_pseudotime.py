"""Networks of simulated cells whose pseudotime is estimated from their expression, beside those with a nearly true one.

The networks and cells of ``simulated_networks.py``, 2000 cells each. Pseudotime is *true*, up to an error of 2 to 5 % as there; of
*diffusion*, one for each cell; or of *curves* in the manner of slingshot, one for each lineage, or their *mean*. Lineages are estimated as well, by
the clusters of the curves; networks without branches have one, and no curves. Everything is ``SparseNODE(adata, objective="transport")`` with its
defaults, but *not centred*, which leaves what the cells of a window have in common in displacements. That it is taken out, and where, was chosen on seeds 0 and 1.
"""

from __future__ import annotations

import _boolean_cells as boolean
import _common
import _estimated_time
import beeline
import numpy as np
import pandas as pd
import simulated_networks
from _timing import silence
from anndata import AnnData
from scipy.stats import spearmanr

from sparsenode import tl
from sparsenode.objectives import Transport

BASELINES = ("genie3", "partial_correlation")
N_CELLS = 2000


def estimates(network: boolean.BooleanNetwork, adata: AnnData, seed: int) -> dict[str, pd.DataFrame]:
    """Pseudotime in each lineage by each method, cells × lineages, missing outside."""
    early = np.argsort(adata.obs["pseudotime"].to_numpy())[: _estimated_time.N_ROOT]
    one = pd.Series(_estimated_time.diffusion(adata, early), adata.obs_names).replace(np.inf, np.nan)
    if not network.branches:
        return {"diffusion": one.to_frame("all")}
    times = _estimated_time.curves(adata, early, adata.obsm["lineages"].shape[1], seed)
    every = {name: times.mean(axis=1).where(times[name].notna()) for name in times}
    return {
        "diffusion": pd.DataFrame({name: one.where(times[name].notna()) for name in times}),
        "curves": times,
        "curves, mean": pd.DataFrame(every),
    }


def run(name: str, network: boolean.BooleanNetwork, seed: int) -> list[dict]:
    """Rows of one data set."""
    adata, reference = boolean.cells(network, N_CELLS, seed), network.edges()
    time = adata.obs["pseudotime"]
    about = {"network": name, "seed": seed, "lineages": adata.obsm["lineages"].shape[1]}
    rows = [about | {"method": "true", "rank_correlation": 1.0} | score(beeline.infer(adata.copy()), reference)]
    for method, times in estimates(network, adata, seed).items():
        members = times.notna().any(axis=1)
        cells = adata[members.to_numpy()].copy()
        cells.obsm["pseudotime"], cells.obsm["lineages"] = times[members], times[members].notna()
        del cells.obs["pseudotime"]
        rank = [spearmanr(own.dropna(), time[own.notna()]).statistic for _, own in times.items()]
        row = about | {"rank_correlation": float(np.mean(rank))}
        rows.append(row | {"method": method} | score(beeline.infer(cells.copy()), reference))
        if method != "curves, mean":
            plain = beeline.infer(cells, objective=Transport(centring=False))
            rows.append(row | {"method": f"{method}, not centred"} | score(plain, reference))
    for method in BASELINES:
        rows.append(about | {"method": method} | score(tl.network_baselines(adata, [method])[method], reference))
    return rows


def score(network: pd.DataFrame, reference: pd.DataFrame) -> dict[str, float]:
    """Scores of a network."""
    found = tl.evaluate_network(network, reference)
    return {name: float(found[name]) for name in beeline.SCORES}


def main() -> None:
    parser = _common.parser(__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3], help="seeds of the cells")
    options = parser.parse_args()
    if options.quick:
        options.seeds = options.seeds[:1]
    silence()
    rows = []
    networks = simulated_networks.networks()
    for name in ["bifurcation, 7"] if options.quick else list(networks):
        for seed in options.seeds:
            rows += run(name, networks[name], seed)
        print(f"done: {name}", flush=True)
    shown = pd.DataFrame(rows).pivot_table(
        index="network", columns="method", values="auprc_ratio", aggfunc="median", sort=False
    )
    print(shown.round(2).to_string())
    _common.save("estimated_pseudotime", rows, options)


if __name__ == "__main__":
    main()
