"""The multiome path: reference networks and lineages of simulated data, and time and memory at larger sizes.

``multiome.csv``, one row per seed of ``simulated_multiome``: precision and recall of the reference network against the recoverable
edges (mean over lineages, the lowest over cell types, and of the union), with ``max_pvalue=0.05``; the rank correlation of
diffusion pseudotime with the true time in the worse of the two fates; the share of cells that are kept in the lineage of their
true fate.

``multiome_networks.csv``, one row per seed and method: the AUPRC over chance of networks that ``SparseNODE`` (transport, its defaults) fits to
the prepared cells (100 variable genes), without and with the reference as prior and with pseudotime shuffled within lineages, beside correlations, against
the recoverable edges among the genes that stand in any of them; of all edges, and of those into genes that are no factors, since expression shows
nothing of the others.

``multiome_speed.csv``, one row per task in a fresh process: wall time, and peak resident memory of the whole process. The
erythropoiesis data are logged: ``expm1`` makes them counts-like.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import _common

TASKS = ("reference_network", "scan_motifs", "prepare_trajectories")
BASELINES = ("pearson", "spearman", "partial_correlation")
N_PEAKS, N_CELLS, N_FACTORS, N_GENES = 20_000, 5_000, 400, 5_000


def rates(found, truth) -> tuple[float, float]:
    """Precision and recall of edges."""
    one = set(zip(found["source"], found["target"], strict=True))
    other = set(zip(truth["source"], truth["target"], strict=True))
    return len(one & other) / max(len(one), 1), len(one & other) / max(len(other), 1)


def recover(seed: int) -> tuple[dict[str, float], list[dict[str, object]]]:
    """From counts to scores, for one simulation: of its reference network and lineages, and of networks of its cells."""
    import numpy as np
    import scanpy as sc
    from scipy.stats import spearmanr

    import sparsenode as sn

    mdata = sn.datasets.simulated_multiome(seed=seed)
    lineages, truth = mdata.uns["lineages"], mdata.uns["true_network"].query("recoverable")
    rna = mdata["rna"]
    adata = sn.pp.prepare_trajectories(rna, "stem", lineages, batch_key="donor", n_top_genes=100)
    correlations, right = [], 0
    for name in lineages:
        fate = (adata.obs["true_lineage"] == name).to_numpy()
        correlations.append(spearmanr(adata.obs["dpt_pseudotime"][fate], adata.obs["true_time"][fate])[0])
        right += int(adata.obsm["lineages"][name].to_numpy()[fate].sum())
    for modality in mdata.mod.values():
        sc.pp.normalize_total(modality)
        sc.pp.log1p(modality)
    annotation = mdata.uns["annotation"]
    reference = sn.pp.reference_network(mdata, "cell_type", "motifs", annotation, lineages, max_pvalue=0.05)
    by_lineage = [rates(reference.lineages[k], truth[truth["cell_type"].isin(v)]) for k, v in lineages.items()]
    by_type = [rates(table, truth[truth["cell_type"] == k]) for k, table in reference.cell_types.items()]
    union = rates(reference.union, truth)
    return {
        "seed": seed,
        "lineage_precision": float(np.mean([p for p, _ in by_lineage])),
        "lineage_recall": float(np.mean([r for _, r in by_lineage])),
        "worst_cell_type_precision": min(p for p, _ in by_type),
        "worst_cell_type_recall": min(r for _, r in by_type),
        "union_precision": union[0],
        "union_recall": union[1],
        "time_correlation": min(correlations),
        "cells_in_their_lineage": right / rna.n_obs,
    }, [{"seed": seed} | row for row in compare(adata, reference, truth, seed)]


def compare(adata, reference, truth, seed: int) -> list[dict[str, object]]:
    """Scores of networks of the prepared cells: ours, the same with a prior and with shuffled pseudotime, and correlations."""
    import sparsenode as sn

    shuffled = sn.tl.shuffle_time(adata, lineage_key="lineages", seed=seed)
    networks = {
        "sparsenode": fit(adata, reference.regulators),
        "sparsenode, prior": fit(adata, reference.regulators, reference.union),
        "sparsenode, shuffled": fit(shuffled, reference.regulators),
        **sn.tl.network_baselines(adata, BASELINES, regulators=reference.regulators),
    }

    others = sorted({*truth["target"]} - {*truth["source"]})

    def ratio(network, targets=None) -> float:
        return float(sn.tl.evaluate_network(network, truth, reference.regulators, targets=targets)["auprc_ratio"])

    return [
        {
            "method": name,
            "auprc_ratio": ratio(network),
            "auprc_ratio_targets": ratio(network, others),
        }
        for name, network in networks.items()
    ]


def fit(adata, regulators, prior=None):
    """A network fitted to the prepared cells."""
    import sparsenode as sn

    sn.SparseNODE.setup_anndata(adata, lineage_key="lineages")
    model = sn.SparseNODE(adata, objective="transport", regulators=regulators, prior=prior)
    model.train(accelerator="cpu", key_added=None, enable_progress_bar=False, enable_model_summary=False)
    return model.get_network()


def large_multiome(n_cells: int, n_peaks: int):
    """Random sparse data of a given size: nothing to find, as much to compute."""
    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData
    from scipy import sparse

    generator = np.random.default_rng(0)
    names = [f"gene{k}" for k in range(N_GENES)]
    types = pd.Categorical(generator.choice([f"type{k}" for k in range(8)], n_cells))
    obs = pd.DataFrame({"cell_type": types}, index=[f"cell{k}" for k in range(n_cells)])
    starts = np.sort(generator.choice(np.arange(0, 100_000_000, 500), n_peaks, replace=False))
    peaks = [f"chr1:{s}-{s + 500}" for s in starts]
    values = {}
    for name, labels, density in (("rna", names, 0.1), ("atac", peaks, 0.03)):
        x = sparse.random(n_cells, len(labels), density, format="csr", random_state=1, dtype=np.float32)
        values[name] = AnnData(x, obs=obs.copy(), var=pd.DataFrame(index=labels))
    mdata = MuData(values)
    body = generator.integers(5_000, 50_000, N_GENES)
    first = np.sort(generator.integers(0, 99_900_000, N_GENES))
    rows = [
        ("chr1", s, s + w, "+-"[k % 2], names[k], f)
        for k, (s, w) in enumerate(zip(first, body, strict=True))
        for f in ("gene", "exon")
    ]
    annotation = pd.DataFrame(rows, columns=["chrom", "start", "end", "strand", "gene", "feature"])
    annotation.loc[annotation["feature"] == "exon", "end"] = annotation["start"] + 500
    motifs = pd.DataFrame(generator.random((n_peaks, N_FACTORS)) < 0.03, index=peaks, columns=names[:N_FACTORS])
    return mdata, annotation, motifs


def cells_file(data: Path) -> Path:
    """Where the real cells are."""
    return data / "erythropoiesis" / "mouse_bone_marrow.h5ad"


def measure(task: str, data: Path, quick: bool) -> dict[str, object]:
    """In a fresh process: one task."""
    import resource
    import time

    import numpy as np

    import sparsenode as sn

    n_cells, n_peaks = (500, 2_000) if quick else (N_CELLS, N_PEAKS)
    if task == "prepare_trajectories":
        import anndata

        adata = anndata.read_h5ad(cells_file(data))
        adata.X = adata.X.expm1() if hasattr(adata.X, "expm1") else np.expm1(adata.X)
        root = str(adata.obs_names[int(adata.obs["pseudotime"].argmin())])
        factors = list(adata.var_names[adata.var["is_tf"].astype(bool)])
        started = time.perf_counter()
        result = sn.pp.prepare_trajectories(adata, root, keep_genes=factors)
        seconds = time.perf_counter() - started
        rho = result.obs["dpt_pseudotime"].corr(result.obs["pseudotime"], method="spearman")
        size = f"{adata.n_obs} cells × {adata.n_vars} genes; correlation with the published pseudotime {rho:.2f}"
    else:
        mdata, annotation, motifs = large_multiome(n_cells, n_peaks)
        size = f"{n_peaks} peaks × {n_cells} cells × {N_FACTORS} motifs"
        if task == "reference_network":
            started = time.perf_counter()
            reference = sn.pp.reference_network(mdata, "cell_type", motifs, annotation, n_peaks=n_peaks // 2)
            seconds = time.perf_counter() - started
            size += f"; {len(reference.union)} edges"
        else:
            generator = np.random.default_rng(0)
            counts = {f"TF{k}": 100 * generator.dirichlet([0.2] * 4, 12) for k in range(N_FACTORS)}
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "genome.fa"
                letters = np.frombuffer(b"ACGT", dtype="S1")[generator.integers(0, 4, 1_000_001 * 100)]
                text = letters.tobytes().decode()
                path.write_text(">chr1\n" + "\n".join(text[k : k + 100] for k in range(0, len(text), 100)) + "\n")
                started = time.perf_counter()
                hits = sn.pp.scan_motifs(mdata["atac"], path, counts)
                seconds = time.perf_counter() - started
            size = f"{n_peaks} peaks of 500 bases × {N_FACTORS} motifs; {int(hits.to_numpy().sum())} hits"
    unit = 1e9 if sys.platform == "darwin" else 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {"task": task, "size": size, "seconds": seconds, "peak_gb": peak}


def parse() -> argparse.Namespace:
    """Command line."""
    parser = _common.parser(__doc__.splitlines()[0])
    _common.add_data_argument(parser)
    parser.add_argument("--seeds", type=int, default=5, help="number of simulations")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.seeds = 1
    if not cells_file(options.data).is_file():
        parser.error(
            f"Expected cells of erythropoiesis in {cells_file(options.data)}, found none. Name another --data."
        )
    return options


def main() -> None:
    options = parse()
    if options.task:
        print(json.dumps(measure(options.task, options.data, options.quick)))
        return
    rows = []
    for task in TASKS:
        command = [sys.executable, "-W", "ignore", __file__, "--data", str(options.data), "--task", task]
        result = subprocess.run([*command, *(["--quick"] if options.quick else [])], capture_output=True, text=True)
        if result.returncode:
            sys.exit(result.stderr)
        rows.append(json.loads(result.stdout.strip().splitlines()[-1]))
        print(rows[-1], flush=True)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
    found = [recover(seed) for seed in range(options.seeds)]
    del options.task
    _common.save("multiome_speed", rows, options)
    _common.save("multiome", [row for row, _ in found], options)
    _common.save("multiome_networks", [row for _, rows in found for row in rows], options)


if __name__ == "__main__":
    main()
