"""Time, peak memory and stability of networks, with GENIE3 on the same regulators timed beside ours.

Data sets: one BEELINE network, one donor of the bone marrow, and erythropoiesis (3105 cells, 3025 genes, 149 regulators). Every fit runs in a process of
its own, whose peak memory includes the imports. Stability is the number of the 100 strongest edges that are the same after 1 % of
the cells were removed at random, and ``repeat`` after nothing was changed; GENIE3 and Pearson are measured alike, GENIE3
with another seed too, which its trees depend on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

import _common
import anndata
import numpy as np
import scanpy as sc

DATASETS = ("beeline", "bone_marrow", "erythropoiesis")
KEPT = 0.99
TOP = 100


def source(options: argparse.Namespace, name: str) -> Path:
    """File, or folder of a BEELINE run, of a data set."""
    return (
        options.data
        / {
            "beeline": f"beeline/{options.network}",
            "bone_marrow": f"bone_marrow/{options.donor}.h5ad",
            "erythropoiesis": "erythropoiesis/mouse_bone_marrow.h5ad",
        }[name]
    )


def read(options: argparse.Namespace, name: str) -> tuple[anndata.AnnData, dict, list[str] | str | None]:
    """Cells, the keys of their annotation, and the regulators."""
    path = source(options, name)
    if name == "beeline":
        import beeline

        adata, _ = beeline.read(path)
        return adata, {"time_key": "pseudotime", "lineage_key": "lineages"}, None
    if name == "bone_marrow":
        adata = _common.read_donor(path)
        sc.pp.log1p(adata)
        regulators = _common.read_regulators(path.parent)
        return adata, {"time_key": _common.TIME_KEY, "lineage_key": "lineages"}, regulators
    return anndata.read_h5ad(path), {"time_key": "pseudotime"}, "is_tf"


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a message where a data set is missing or cannot be fitted, before anything is."""
    missing = [str(source(options, name)) for name in options.datasets if not source(options, name).exists()]
    if missing:
        parser.error(f"Expected data in {missing}, found none. Name others in --data, --network or --donor.")
    if "bone_marrow" in options.datasets:
        _common.check_donors(parser, options.data, [options.donor])
    import beeline

    from sparsenode import SparseNODE

    for name in options.datasets:
        try:
            with redirect_stdout(None), warnings.catch_warnings(action="ignore"):  # both come again with the fits
                adata, keys, regulators = read(options, name)
                SparseNODE.setup_anndata(adata, **keys)
                SparseNODE(adata, objective="transport", regulators=regulators)
        except beeline.FAILURES as error:
            parser.error(f"{source(options, name)}: {error}")


def fit(options: argparse.Namespace, name: str, method: str, removal: int | None) -> tuple[list, float, float]:
    """Infer one network: its strongest edges, seconds and peak memory in GB."""
    from _timing import silence

    from sparsenode import SparseNODE, tl

    silence(options.threads)
    adata, keys, regulators = read(options, name)
    if removal is not None:
        kept = np.random.default_rng(removal).permutation(adata.n_obs)[: round(KEPT * adata.n_obs)]
        adata = adata[np.sort(kept)].copy()
    start = time.perf_counter()
    if method == "sparsenode":
        SparseNODE.setup_anndata(adata, **keys)
        model = SparseNODE(adata, objective="transport", regulators=regulators)
        settings = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
        model.train(train_size=1.0, key_added=None, **settings)
        network = model.get_network()
    else:
        trees, threads = options.trees, options.threads
        network = tl.network_baselines(adata, method, regulators=regulators, n_trees=trees, n_jobs=threads)[method]
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    network = network[network["source"] != network["target"]].head(TOP)
    return list(zip(network["source"], network["target"], network["weight"], strict=True)), seconds, memory


def measure(options: argparse.Namespace, name: str, method: str, removal: int | None) -> tuple[list, float, float]:
    """The same in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(fit, options, name, method, removal).result()


def edges(found: list) -> set:
    """Ends of the strongest edges."""
    return {edge[:2] for edge in found}


def main() -> None:
    parser = _common.parser(__doc__.splitlines()[0])
    _common.add_data_argument(parser)
    parser.add_argument("--threads", type=int, default=2, help="threads of a fit")
    parser.add_argument("--trees", type=int, default=200, help="trees per gene of GENIE3")
    parser.add_argument("--removals", type=int, default=3, help="random removals of 1 %% of the cells")
    parser.add_argument("--genie3-removals", type=int, default=0, help="the same for GENIE3, which takes long")
    parser.add_argument("--datasets", nargs="+", default=DATASETS, choices=DATASETS, help="what to measure on")
    parser.add_argument("--network", default="dyn-TF/0", help="BEELINE run, a folder beeline/NETWORK/SEED of the data")
    _common.add_donor_argument(parser)
    options = parser.parse_args()
    if options.quick:
        options.datasets, options.removals, options.trees = ["beeline"], 1, 10
    check(parser, options)
    rows = []
    for name in options.datasets:
        for method in ("sparsenode", "pearson", "genie3"):
            found, seconds, memory = measure(options, name, method, None)
            row = {"dataset": name, "method": method, "seconds": seconds, "peak_gb": memory}
            n_removals = options.genie3_removals if method == "genie3" else options.removals
            # A network with fewer candidates than TOP has nothing to lose.
            if len(found) == TOP and n_removals > 0:
                kept = [len(edges(found) & edges(measure(options, name, method, i)[0])) for i in range(n_removals)]
                row |= {"same_after_removal": float(np.median(kept)), "same_after_removal_min": min(kept)}
            if method == "sparsenode":
                row["repeat_identical"] = measure(options, name, method, None)[0] == found
            rows.append(row)
            print(
                {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()}, flush=True
            )
    _common.save("network_speed", rows, options)


if __name__ == "__main__":
    main()
