"""Tables 5 and 6: bone marrow, held-out donors, sparsity, erythroid transcription factors, networks against references.

Train on donor S1D2, predict S1D1 and S2D1, in the two protocols of ``benchmarks/bone_marrow.py``. All genes may regulate, as in the
paper, so edges from genes that are no transcription factor (TF) are spurious. TFs are ranked among the 113 known ones by
the sum of their column of the erythroid adjacency; of the paper's protocol the field is one for each lineage too. Networks are scored
against the TF-target pairs from chromatin and motifs of each lineage, with TFs as the only regulators, as AUPRC over that of
chance.
"""

from __future__ import annotations

import time
from typing import Any

import _paper
import bone_marrow
import pandas as pd

import sparsenode as sn
from sparsenode.regularizers import CNODE, L0, GroupLasso, LassoNet, NoRegularizer, PathReg

ERYTHROID = ("RUNX1", "ETV6", "NFIA", "MAZ", "GATA1")
LINEAGES = ("erythroid", "monocyte", "b_cell")
FIRST_SEED, EPOCHS = 10, 50
METHODS: dict[str, dict[str, Any]] = {
    "base": {"regularizer": NoRegularizer()},
    "L0": {"regularizer": L0()},
    "C-NODE": {"regularizer": CNODE()},
    "PathReg": {"regularizer": PathReg()},
    "PathReg, gates by weight": {"regularizer": PathReg(gates="weight")},
    "LassoNet inner": {"regularizer": LassoNet(skip="inner")},
    "LassoNet outer": {"regularizer": LassoNet(skip="outer")},
    # One network per gene: hidden layers of 100 would take a hundred times as long.
    "GroupLasso": {"regularizer": GroupLasso(), "hidden": (5,)},
}


def networks(model: sn.SparseNODE, factors: list[str], folder: Any) -> dict[str, float]:
    """AUPRC ratio of each lineage's network, and ranks of the erythroid TFs."""
    row: dict[str, float] = {}
    for lineage in LINEAGES:
        reference = pd.read_csv(folder / f"reference_{lineage}.csv.gz")
        scores = sn.tl.evaluate_network(model.get_network(lineage=lineage), reference, regulators=factors)
        row[f"auprc_ratio_{lineage}"] = float(scores["auprc_ratio"])
    influence = model.get_adjacency(lineage="erythroid").abs().sum()[factors]
    ranks = influence.rank(ascending=False, method="average")
    return row | {f"rank_{name}": float(ranks[name]) for name in ERYTHROID if name in ranks}


def figures(model: sn.SparseNODE, table: pd.DataFrame, options: Any) -> None:
    """Methods beside each other, and the erythroid network among the strongest TFs."""
    held_out = table[table["donor"] != bone_marrow.TRAIN].copy()
    held_out["skill"] = held_out["skill"].clip(lower=-1)
    held_out["runs"] = held_out["protocol"] + ", " + held_out["donor"]
    measures = {
        "skill": "skill (cut at −1)",
        "feature_sparsity": "feature sparsity",
        "spurious_sparsity": "spurious sparsity",
    }
    figure = sn.pl.comparison(
        held_out, list(measures), groupby="runs", labels=measures, reference={"skill": 0}, return_fig=True
    )
    _paper.save_figure(figure, "bone_marrow", options)
    model.write_results()
    factors = pd.read_csv(options.data / "bone_marrow" / "transcription_factors.csv")["gene"]
    strongest = model.get_adjacency(lineage="erythroid").abs().sum()[factors].nlargest(25).index.tolist()
    figure = sn.pl.adjacency(model.adata, regulators=strongest, lineage="erythroid", return_fig=True)
    _paper.save_figure(figure, "bone_marrow_erythroid", options)


def main() -> None:
    """Every method, protocol and seed; one row per donor."""
    options = _paper.arguments(__doc__.splitlines()[0]).parse_args()
    folder = options.data / "bone_marrow"
    factors = pd.read_csv(folder / "transcription_factors.csv")["gene"].tolist()
    seeds = range(FIRST_SEED, FIRST_SEED + (1 if options.quick else options.seeds))
    names = (
        ["PathReg", "base"] if options.quick else [*dict.fromkeys(["PathReg", "LassoNet inner", "C-NODE", *METHODS])]
    )
    plan = [(seed, name, protocol) for seed in seeds for protocol in ("paper", "recommended") for name in names]
    rows: list[dict] = []
    kept = None
    for seed, name, protocol in _paper.within(plan, options):
        donors = {d: bone_marrow.read(options.data, d, protocol) for d in (bone_marrow.TRAIN, *bone_marrow.TEST)}
        training = donors[bone_marrow.TRAIN]
        sn.SparseNODE.setup_anndata(training, lineage_key="lineage" if protocol == "paper" else "lineages")
        model = sn.SparseNODE(training, objective="trajectory", seed=seed, **METHODS[name])
        start = time.perf_counter()
        epochs = 3 if options.quick else EPOCHS
        done = _paper.attempt(lambda m=model, n=epochs: m.train(n, schedule="sparse", **_paper.QUIET) or True, False)
        about = {"method": name, "protocol": protocol, "seed": seed}
        if not done:
            rows.append(about | {"donor": bone_marrow.TRAIN, "diverged": True})
            continue
        about |= {"seconds": time.perf_counter() - start}
        about |= model.get_sparsity(factors).add_suffix("_sparsity").to_dict() | networks(model, factors, folder)
        for donor, adata in donors.items():
            rows.append(about | {"donor": donor} | bone_marrow.score(model.evaluate(adata), protocol))
            print({key: round(v, 4) if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True)
        kept = kept or model
    _paper.save("bone_marrow", rows, options, epochs=EPOCHS, methods=METHODS, rank_by_chance=(len(factors) + 1) / 2)
    if not options.quick and kept is not None:
        figures(kept, pd.DataFrame(rows), options)


if __name__ == "__main__":
    main()
