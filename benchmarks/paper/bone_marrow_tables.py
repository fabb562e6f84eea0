"""Tables 5 and 6: bone marrow, held-out donors, sparsity, erythroid transcription factors, networks against references.

Train on donor S1D2, predict S1D1 and S2D1 (or other ``--donors``), in the two protocols of ``benchmarks/bone_marrow.py``. All genes may regulate, as in the
paper, so edges from genes that are no transcription factor (TF) are spurious. TFs are ranked among the known ones, 113 here, by
the sum of their column of the erythroid adjacency; of the paper's protocol the field is one for each lineage too. Networks are scored
against the TF-target pairs from chromatin and motifs of each lineage, with TFs as the only regulators, as AUPRC over that of
chance.

Every method is trained with its penalty (``relaxed`` false) and then refitted without it, with its zeros held (``relaxed`` true). All
seeds are replicates of one fit; a row is one seed and donor, or the mean of the trajectories of all seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import _paper
import bone_marrow
import pandas as pd
import real_networks
from _paper import _common  # beside which scripts of the paper do not stand
from matplotlib.axes import Axes

import sparsenode as sn
from sparsenode.regularizers import CNODE, L0, GroupLasso, LassoNet, NoRegularizer, PathReg

ERYTHROID = ("RUNX1", "ETV6", "NFIA", "MAZ", "GATA1")
FIRST_SEED, EPOCHS, REFIT = 10, 50, 20
DONORS = (bone_marrow.TRAIN, *bone_marrow.TEST)
METHODS: dict[str, dict[str, Any]] = {
    "base": {"regularizer": NoRegularizer()},
    "L0": {"regularizer": L0()},
    "C-NODE": {"regularizer": CNODE()},
    "C-NODE, 0.04": {"regularizer": CNODE(0.04)},
    "PathReg": {"regularizer": PathReg()},
    "PathReg, gates by weight": {"regularizer": PathReg(gates="weight")},
    "LassoNet inner": {"regularizer": LassoNet(skip="inner")},
    "LassoNet outer": {"regularizer": LassoNet(skip="outer")},
    # One network per gene: hidden layers of 100 would take a hundred times as long.
    "GroupLasso": {"regularizer": GroupLasso(), "hidden": (5,)},
}


def read_factors(folder: Path, genes: pd.Index) -> list[str]:
    """Known transcription factors among the genes."""
    return [name for name in _common.read_regulators(folder) if name in genes]


def networks(
    model: sn.SparseNODE, factors: list[str], references: dict[str, pd.DataFrame], replicate: int
) -> dict[str, float]:
    """AUPRC ratio of each lineage's network, and ranks of the erythroid TFs, where that is one of them."""
    row: dict[str, float] = {}
    for lineage, reference in references.items():
        found = model.get_network(lineage=lineage, replicate=replicate)
        scores = sn.tl.evaluate_network(found, reference, regulators=factors)
        row[f"auprc_ratio_{lineage}"] = float(scores["auprc_ratio"])
    if "erythroid" not in references:
        return row
    influence = model.get_adjacency(lineage="erythroid", replicate=replicate).abs().sum()[factors]
    ranks = influence.rank(ascending=False, method="average")
    return row | {f"rank_{name}": float(ranks[name]) for name in ERYTHROID if name in ranks}


def score(
    model: sn.SparseNODE,
    donors: dict,
    protocol: str,
    about: dict,
    factors: list[str],
    references: dict[str, pd.DataFrame],
) -> list[dict]:
    """A row per donor and seed, and per donor for the mean of the seeds."""
    rows = []
    seeds = model.module.seeds
    for index in [*range(len(seeds)), *(["mean"] if len(seeds) > 1 else [])]:
        own = about | {"seed": seeds[index] if index != "mean" else "mean"}
        if index in model.given_up_:
            rows.append(own | {"donor": next(iter(donors)), "diverged": True})
            continue
        if index != "mean":
            own |= model.get_sparsity(factors, replicate=index).add_suffix("_sparsity").to_dict()
            own |= networks(model, factors, references, index)
        rows += [
            own | {"donor": name} | bone_marrow.score(model.evaluate(adata, replicate=index), protocol)
            for name, adata in donors.items()
        ]
    return rows


def work(
    data: Path, names: Sequence[str], protocol: str, name: str, n_seeds: int, epochs: int, refit: int
) -> list[dict]:
    """One fit of all seeds to the first donor, and its rows before and after the refit."""
    folder = data / "bone_marrow"
    donors = bone_marrow.read_all(data, names, protocol)
    training = donors[names[0]]
    lineages, factors = list(bone_marrow.members(training, protocol)), read_factors(folder, training.var_names)
    references = real_networks.read_references(folder, names[0], lineages, training.var_names)
    model = made(training, protocol, name, n_seeds)
    rows: list[dict] = []
    for relaxed, count in ((False, epochs), (True, refit)):
        if count == 0:
            continue
        start = time.perf_counter()
        done = _paper.attempt(lambda r=relaxed, n=count: trained(model, n, r, name), False)
        about = {"method": name, "protocol": protocol, "relaxed": relaxed, "diverged": not done}
        about["seconds"] = time.perf_counter() - start
        if not done:
            return [*rows, about | {"donor": names[0], "seed": "all"}]
        rows += score(model, donors, protocol, about, factors, references)
    return rows


def made(training: Any, protocol: str, name: str, n_seeds: int) -> sn.SparseNODE:
    """An untrained model of a method."""
    sn.SparseNODE.setup_anndata(training, lineage_key=bone_marrow.LINEAGE_KEYS[protocol])
    return sn.SparseNODE(training, seed=FIRST_SEED, n_seeds=n_seeds, objective="trajectory", **METHODS[name])


def trained(model: sn.SparseNODE, epochs: int, relaxed: bool, name: str) -> bool:
    """Train or refit."""
    rate = {"plan_kwargs": {"lr": 0.003}} if name.startswith("LassoNet") else {}
    model.train(epochs, refit=relaxed, schedule="sparse", **rate, **_paper.QUIET)
    return True


def figures(table: pd.DataFrame, options: Any) -> None:
    """Methods beside each other, and the network of each lineage among the strongest TFs with the pairs of its reference."""
    fitted = options.donors[0]
    held_out = table[(table["donor"] != fitted) & (table["seed"] != "mean") & ~table["diverged"]].copy()
    held_out["skill"] = held_out["skill"].clip(lower=-1)
    refit = held_out["relaxed"].map({False: "", True: ", refitted"})
    held_out["runs"] = held_out["donor"] + refit
    held_out = held_out[held_out["protocol"] == "recommended"]
    measures = {
        "skill": "skill (cut at −1)",
        "feature_sparsity": "feature sparsity",
    }
    figure = sn.pl.comparison(
        held_out, list(measures), groupby="runs", labels=measures, reference={"skill": 0}, return_fig=True
    )
    _paper.save_figure(figure, "bone_marrow", options)
    training = bone_marrow.read_all(options.data, options.donors, "recommended")[fitted]
    model = made(training, "recommended", "PathReg", 1)
    trained(model, EPOCHS, False, "PathReg")
    model.write_results()
    folder, lineages = options.data / "bone_marrow", list(training.obsm["lineages"])
    factors = read_factors(folder, training.var_names)
    references = real_networks.read_references(folder, fitted, lineages, training.var_names)
    for lineage, reference in references.items():
        strongest = model.get_adjacency(lineage=lineage).abs().sum()[factors].nlargest(25).index.tolist()
        figure = sn.pl.adjacency(model.adata, regulators=strongest, lineage=lineage, return_fig=True)
        mark(figure.axes[0], reference)
        figure.axes[0].set_title(f"{lineage} (dots: pairs of the reference)", fontsize=10)
        _paper.save_figure(figure, f"bone_marrow_{lineage}", options)


def mark(axis: Axes, reference: pd.DataFrame) -> None:
    """A dot on every pair of the reference in a heat map of targets × regulators."""
    targets, sources = (
        [label.get_text() for label in labels] for labels in (axis.get_yticklabels(), axis.get_xticklabels())
    )
    known = reference[reference["target"].isin(targets) & reference["source"].isin(sources)]
    axis.plot(
        [sources.index(name) for name in known["source"]],
        [targets.index(name) for name in known["target"]],
        "k.",
        markersize=4,
    )


def check(parser: argparse.ArgumentParser, data: Path, donors: Sequence[str]) -> list[str]:
    """End with a message where donors or references cannot be used; the known transcription factors otherwise."""
    if len(donors) < 2:
        parser.error(f"Expected two donors or more in --donors, of which the first is fitted, found {donors}.")
    bone_marrow.check_donors(parser, data, donors)
    folder = data / "bone_marrow"
    with redirect_stdout(None):  # what is left out is said with the fits
        cells = bone_marrow.read_all(data, donors, "recommended")[donors[0]]
        lineages = list(cells.obsm["lineages"])
        try:
            factors = read_factors(folder, cells.var_names)
            references = real_networks.read_references(folder, donors[0], lineages, cells.var_names)
            for reference in references.values():
                sn.tl.evaluate_network(reference.assign(weight=1.0), reference, regulators=factors)
        except (ValueError, OSError) as error:
            parser.error(f"{folder}: {error}")
    return factors


def main() -> None:
    """Every method and protocol, with all seeds in one fit."""
    parser = _paper.arguments(__doc__.splitlines()[0])
    parser.add_argument("--donors", nargs="+", default=list(DONORS), help="donors; the first is fitted")
    options = parser.parse_args()
    _paper.check_skip(parser, "bone_marrow", options)
    factors = check(parser, options.data, options.donors)
    if options.quick:
        plan = [(options.data, options.donors, "recommended", name, 1, 3, 2) for name in ("C-NODE", "base")]
    else:
        order = ["C-NODE", "PathReg", "base", "L0", "LassoNet inner", "LassoNet outer", "GroupLasso"]
        pairs = [("recommended", name) for name in order[:4]] + [("paper", name) for name in order[:4]]
        pairs += [(protocol, name) for name in order[4:] for protocol in ("recommended", "paper")]
        pairs += [("recommended", "PathReg, gates by weight"), ("recommended", "C-NODE, 0.04")]
        plan = [
            (options.data, options.donors, protocol, name, options.seeds, EPOCHS, REFIT) for protocol, name in pairs
        ]
    rows = _paper.spread(work, plan, options)
    about = {"epochs": EPOCHS, "refit": REFIT, "rank_by_chance": (len(factors) + 1) / 2}
    table = _paper.save("bone_marrow", rows, options, methods=METHODS, **about)
    if not options.quick:
        figures(table, options)


if __name__ == "__main__":
    main()
