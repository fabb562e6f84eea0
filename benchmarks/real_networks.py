"""Networks of the bone marrow, three donors and three lineages, against TF-target pairs from chromatin and motifs.

One network is inferred from all cells of a donor (log1p of normalised counts, transcription factors as regulators) and scored
among the transcription factors and the targets of each lineage's reference, without self edges: the columns ``source`` and ``target``,
or else the first two, of ``reference_LINEAGE.csv.gz``. Nothing is chosen per donor or lineage. ``sparsenode, shuffled`` has pseudotime shuffled within lineages: what it scores is co-expression, not dynamics. Methods with
``, lineage`` see the lineage: ours reads its network, ``get_network(lineage)``, out of the same fit, and the others are given its cells
alone. Rows ``sparsenode, ridge`` have another ridge than the default. The references were built from markers of cell types, which favours co-expression.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import _common
import anndata
import numpy as np
import pandas as pd
import scanpy as sc
from _timing import silence

from sparsenode import SparseNODE, tl
from sparsenode.objectives import Transport

DONORS = ("S1D2", "S1D1", "S2D1")
BASELINES = ("pearson", "spearman", "genie3")
RIDGES = (0.0, 2.0)
KEYS = {"time_key": _common.TIME_KEY, "lineage_key": "lineages"}


def made(adata: anndata.AnnData, regulators: list[str], **settings) -> SparseNODE:
    """An untrained model, with the defaults of the transport objective unless told otherwise."""
    SparseNODE.setup_anndata(adata, **KEYS)
    return SparseNODE(adata, **{"objective": "transport", "regulators": regulators, **settings})


def fit(adata: anndata.AnnData, regulators: list[str], **settings) -> SparseNODE:
    """The same model, trained."""
    model = made(adata, regulators, **settings)
    model.train(
        train_size=1.0, key_added=None, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False
    )
    return model


def read_reference(folder: Path, lineage: str, genes: pd.Index) -> pd.DataFrame:
    """Pairs of a lineage among the genes of a donor, whose others no network can hold; says how many are left out."""
    reference = pd.read_csv(folder / f"reference_{lineage}.csv.gz")
    if reference.shape[1] < 2:
        raise ValueError(
            f"Expected source and target in reference_{lineage}.csv.gz, found the column {list(reference)}."
        )
    if not {"source", "target"} <= {*reference}:  # then the first two columns are
        reference.columns = ["source", "target", *reference.columns[2:]]
    known = reference[reference[["source", "target"]].isin(list(genes)).all(axis=1)]
    if len(known) == 0:
        raise ValueError(
            f"Expected genes of the donor in the reference of {lineage!r}, found none: they look like {list(genes[:3])}, "
            f"those of the reference like {list(reference['source'][:3])}. Rename them."
        )
    is_true = truth(known)
    if is_true.all() or not is_true.any():
        raise ValueError(
            f"Expected pairs of a source and another target that are in the reference of {lineage!r}, and others that are not, found "
            f"{is_true.sum()} of {len(is_true)} in it: nothing can be told apart. Take another reference."
        )
    if len(known) < len(reference):
        print(
            f"{lineage}: {len(reference) - len(known)} of {len(reference)} pairs have genes that the donor lacks, left out"
        )
    return known


def truth(reference: pd.DataFrame) -> np.ndarray:
    """Which pairs of a transcription factor and another target of the reference are in it."""
    sources, targets = np.unique(reference["source"]), np.unique(reference["target"])
    candidates = pd.MultiIndex.from_product([sources, targets], names=["source", "target"])
    candidates = candidates[candidates.get_level_values(0) != candidates.get_level_values(1)]
    return candidates.isin(pd.MultiIndex.from_frame(reference[["source", "target"]]))


def score(network: pd.DataFrame, reference: pd.DataFrame) -> dict[str, float]:
    """Scores among all pairs of a transcription factor and a target of the reference."""
    sources, targets = reference["source"].unique(), reference["target"].unique()
    scores = tl.evaluate_network(network, reference, sources, targets=targets)
    kinds = {"auprc_ratio": float, "auroc": float, "n_true": int, "n_candidates": int}
    return {name: kind(scores[name]) for name, kind in kinds.items()}


def read(folder: Path, donor: str) -> tuple[anndata.AnnData, dict[str, pd.DataFrame]]:
    """Cells of a donor, and the reference of each of its lineages that has one."""
    adata = _common.read_donor(folder / f"{donor}.h5ad")
    sc.pp.log1p(adata)
    return adata, read_references(folder, donor, list(adata.obsm["lineages"]), adata.var_names)


def read_references(folder: Path, donor: str, own: Sequence[str], genes: pd.Index) -> dict[str, pd.DataFrame]:
    """Reference of each of a donor's lineages that has one, among its genes; says what is left out."""
    found = [path.name.removeprefix("reference_").removesuffix(".csv.gz") for path in folder.glob("reference_*.csv.gz")]
    known = {*found} - {"base"}
    lineages = [name for name in own if name in known]
    if not lineages:
        raise ValueError(
            f"Expected lineages with a reference_LINEAGE.csv.gz in {folder}, {sorted(known)}, found {list(own)}. Rename them."
        )
    for reason, names in (("have no reference", {*own} - known), ("are not in the donor", known - {*own})):
        if names:
            print(f"{donor}: lineages {sorted(names)} {reason}, left out")
    return {name: read_reference(folder, name, genes) for name in lineages}


def run(folder: Path, donor: str, n_shuffles: int, n_trees: int) -> list[dict]:
    """Rows of one donor."""
    adata, references = read(folder, donor)
    lineages = list(references)
    regulators = _common.read_regulators(folder)
    rows = []

    def add(method: str, networks: dict[str, pd.DataFrame], start: float, seed: int = 0) -> None:
        """Score one network for each lineage; ``start`` is when the method was given the cells."""
        seconds = time.perf_counter() - start
        for lineage, network in networks.items():
            scores = score(network, references[lineage])
            rows.append(
                {"donor": donor, "lineage": lineage, "method": method, "seed": seed, **scores, "seconds": seconds}
            )

    start = time.perf_counter()
    model = fit(adata.copy(), regulators)
    add("sparsenode", dict.fromkeys(lineages, model.get_network()), start)
    add("sparsenode, lineage", {name: model.get_network(name) for name in lineages}, start)
    for ridge in RIDGES:
        start = time.perf_counter()
        other = fit(adata.copy(), regulators, objective=Transport(ridge=ridge))
        add(f"sparsenode, ridge {ridge:g}", dict.fromkeys(lineages, other.get_network()), start)
    for seed in range(n_shuffles):
        copy, start = tl.shuffle_time(adata, seed=seed, **KEYS), time.perf_counter()
        add("sparsenode, shuffled", dict.fromkeys(lineages, fit(copy, regulators).get_network()), start, seed)
    cells = {name: adata[adata.obsm["lineages"][name].to_numpy() > 0].copy() for name in lineages}
    for method in BASELINES:
        find = partial(tl.network_baselines, methods=method, regulators=regulators, n_trees=n_trees)
        start = time.perf_counter()
        add(method, dict.fromkeys(lineages, find(adata)[method]), start)
        start = time.perf_counter()
        add(f"{method}, lineage", {name: find(own)[method] for name, own in cells.items()}, start)
    return rows


def main() -> None:
    parser = _common.parser(__doc__.splitlines()[0])
    _common.add_data_argument(parser)
    parser.add_argument("--shuffles", type=int, default=3, help="permutations of pseudotime")
    parser.add_argument("--trees", type=int, default=200, help="trees per gene of GENIE3")
    parser.add_argument(
        "--donors", nargs="+", default=list(DONORS), help="donors, files bone_marrow/NAME.h5ad of the data"
    )
    options = parser.parse_args()
    if options.quick:
        options.shuffles, options.trees = 1, 10
    donors = options.donors[: 1 if options.quick else None]
    _common.check_donors(parser, options.data, donors)
    silence()
    folder = options.data / "bone_marrow"
    for donor in donors:
        try:
            with redirect_stdout(None):  # what is left out is said when it is
                made(read(folder, donor)[0], _common.read_regulators(folder))
        except (ValueError, TypeError, OSError) as error:
            parser.error(f"{donor}: {error}")
    rows = []
    for donor in donors:
        rows += run(folder, donor, options.shuffles, options.trees)
        print(f"done: {donor}", flush=True)
    table = pd.DataFrame(rows).pivot_table(
        index=["donor", "lineage"], columns="method", values="auprc_ratio", aggfunc="median", sort=True
    )
    print(table.round(2).to_string())
    _common.save("real_networks", rows, options)


if __name__ == "__main__":
    main()
