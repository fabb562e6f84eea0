"""Bone marrow: train on one donor (S1D2), predict held-out donors (S1D1 and S2D1), beside the null models.

Two protocols:

- ``paper``: that of Aliee et al. (2022). The first 10 and last 20 cells of every trajectory are dropped, every gene is
  scaled to [0, 1] within every trajectory, so is pseudotime, trajectories start from their first five cells, and the
  error is the sum over lineages of the mean squared error. The scaling sees the cells that are predicted, and a stem cell
  has another expression in every lineage: good for comparing with the published numbers, not for users.
- ``recommended``: log1p of library-size normalised counts, all cells, memberships as weights. The error is the mean over
  cells and genes.

Settings are the defaults of the trajectory objective unless a column says otherwise; other objectives are in ``objectives.py``. Seeds 0 and 1 served to choose defaults, on these same donors; the
committed results use seeds 10 to 12.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import _common
import anndata
import numpy as np
import pandas as pd
import scanpy as sc

import sparsenode as sn

TRAIN, TEST = "S1D2", ("S1D1", "S2D1")
PROTOCOLS = ("paper", "recommended")
# The paper has a row per cell and lineage.
LINEAGE_KEYS = {"paper": _common.LINEAGE_KEY, "recommended": "lineages"}
NULLS = ["null_zero", "null_initial", "null_mean", "null_smoothed"]
# Mean squared errors of the published run on S1D2, lambda = 0.01 (summed over lineages).
PUBLISHED = {"S1D2": 0.0353, "S1D1": 0.0366, "S2D1": 0.0384}


def read_all(folder: Path, donors: Sequence[str], protocol: str) -> dict[str, anndata.AnnData]:
    """Several donors, preprocessed for a protocol, with the lineages in ``lineage`` (obs) or ``lineages`` (obsm)."""
    cells = {donor: _common.read_donor(folder / "bone_marrow" / f"{donor}.h5ad") for donor in donors}
    cells = with_common_genes(with_common_lineages(cells))
    return {donor: prepared(adata, donor, protocol) for donor, adata in cells.items()}


def prepared(adata: anndata.AnnData, donor: str, protocol: str) -> anndata.AnnData:
    """Cells of one donor, preprocessed for a protocol."""
    if protocol == "recommended":
        sc.pp.log1p(adata)
        return adata
    try:
        return _common.trajectories(adata)
    except ValueError as error:
        raise ValueError(f"{donor}: {error}") from error


def with_common_lineages(cells: dict[str, anndata.AnnData]) -> dict[str, anndata.AnnData]:
    """Donors with the lineages that have cells in all of them, and these cells; says what is left out."""
    names = {
        donor: [name for name, own in adata.obsm["lineages"].items() if (own > 0).any()]
        for donor, adata in cells.items()
    }
    common = [name for name in next(iter(names.values())) if all(name in own for own in names.values())]
    if not common:
        raise ValueError(f"Expected lineages that all of {list(cells)} have, found none: {names}. Rename them.")
    result = {}
    for donor, adata in cells.items():
        others = [name for name in adata.obsm["lineages"] if name not in common]
        if others:
            kept = (adata.obsm["lineages"][common] > 0).any(axis=1).to_numpy()
            print(
                f"{donor}: lineages {others} are not in every donor, left out with {(~kept).sum()} of {adata.n_obs} cells"
            )
            adata = adata[kept].copy()
            adata.obsm["lineages"] = adata.obsm["lineages"][common]
        result[donor] = adata
    return result


def with_common_genes(cells: dict[str, anndata.AnnData]) -> dict[str, anndata.AnnData]:
    """Donors with the genes that all of them have; says how many others are left out."""
    donors = list(cells)
    first = cells[donors[0]].var_names
    genes = first[np.all([first.isin(adata.var_names) for adata in cells.values()], axis=0)]
    if len(genes) == 0:
        raise ValueError(
            f"Expected genes that all of {donors} have, found none. They look like "
            f"{ {donor: list(adata.var_names[:3]) for donor, adata in cells.items()} }. Rename them."
        )
    for donor, adata in cells.items():
        if adata.n_vars > len(genes):
            print(f"{donor}: {adata.n_vars - len(genes)} of {adata.n_vars} genes are not in every donor, left out")
            cells[donor] = adata[:, genes].copy()
    return cells


def check_donors(
    parser: argparse.ArgumentParser, folder: Path, donors: Sequence[str], protocols: Sequence[str] = PROTOCOLS
) -> None:
    """End with a message where donors cannot be fitted or predicted in these protocols, before anything is."""
    _common.check_donors(parser, folder, donors)
    for protocol in protocols:
        with redirect_stdout(None), warnings.catch_warnings(action="ignore"):  # both come again with the fits
            try:
                cells = read_all(folder, donors, protocol)
            except ValueError as error:
                parser.error(str(error))
            for donor, adata in cells.items():
                try:
                    sn.SparseNODE.setup_anndata(adata, lineage_key=LINEAGE_KEYS[protocol])
                except ValueError as error:
                    parser.error(f"{donor}, protocol {protocol!r}: {error}")


def members(adata: anndata.AnnData, protocol: str) -> dict[str, np.ndarray]:
    """Mask of the cells of every lineage."""
    key = LINEAGE_KEYS[protocol]
    table = pd.get_dummies(adata.obs[key]) if protocol == "paper" else adata.obsm[key]
    return {name: column.to_numpy(dtype=float) > 0 for name, column in table.items()}


def score(table: pd.DataFrame, protocol: str) -> dict[str, float]:
    """Error, null models and skill of one donor: summed over lineages (paper) or over all cells."""
    row = table.drop(index="total")[["mse", *NULLS]].sum() if protocol == "paper" else table.loc["total"]
    result = {name: float(row[name]) for name in ["mse", *NULLS]}
    return result | {"skill": 1 - result["mse"] / min(result[name] for name in NULLS)}


def run(folder: Path, names: Sequence[str], protocol: str, settings: dict, seed: int, epochs: int | None) -> list[dict]:
    """Fit one model to the first donor and score it on every donor."""
    donors = read_all(folder, names, protocol)
    trained = donors[names[0]]
    # Other donors may leave lineages and genes out, and errors are sums over lineages.
    published = PUBLISHED if protocol == "paper" and names[0] == TRAIN and {*names} <= {*PUBLISHED} else {}
    regulators = _common.read_regulators(folder / "bone_marrow")
    if not trained.var_names.isin(regulators).any():
        raise SystemExit(
            f"Expected transcription factors among the {trained.n_vars} genes that all of {list(names)} have, found none of the "
            f"{len(regulators)} in transcription_factors.csv, which look like {regulators[:3]}."
        )
    sn.SparseNODE.setup_anndata(trained, lineage_key=LINEAGE_KEYS[protocol])
    model = sn.SparseNODE(trained, objective="trajectory", seed=seed, **settings)
    start = time.perf_counter()
    model.train(enable_progress_bar=False, key_added=None, **({"max_epochs": epochs} if epochs else {}))
    seconds = time.perf_counter() - start
    sparsity = model.get_sparsity(regulators).add_suffix("_sparsity").to_dict()
    rows = []
    for donor, adata in donors.items():
        row = {"protocol": protocol, "seed": seed, "donor": donor} | score(model.evaluate(adata), protocol)
        row["published_mse"] = published.get(donor, float("nan"))
        rows.append(row | sparsity | {"seconds": seconds})
    return rows


def main() -> None:
    """Run every method and seed, and write one row per donor."""
    parser = _common.parser("Bone marrow: held-out donors beside null models, in two protocols.")
    _common.add_data_argument(parser)
    parser.add_argument("--train", default=TRAIN, help="donor to fit, a file bone_marrow/NAME.h5ad of the data")
    parser.add_argument("--test", nargs="+", default=list(TEST), help="donors to predict")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12], help="seeds of the fits")
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS), help="protocols to run")
    options = parser.parse_args()
    donors = (options.train, *options.test)
    check_donors(parser, options.data, donors, options.protocols)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    methods = {
        name: {"regularizer": name} for name in (["pathreg"] if options.quick else ["pathreg", "cnode", "l0", "none"])
    }
    rows = []
    for protocol in options.protocols:
        # The paper starts trajectories from the first five cells.
        variants: dict[str, dict] = dict(methods)
        if protocol == "paper" and not options.quick:
            variants["pathreg, first five cells"] = {"regularizer": "pathreg", "initial_state": "first"}
        for name, settings in variants.items():
            for seed in options.seeds[: 1 if options.quick else None]:
                fitted = run(options.data, donors, protocol, settings, seed, 5 if options.quick else None)
                rows += [{"method": name} | row for row in fitted]
                print(
                    pd.DataFrame(fitted)[["protocol", "donor", "mse", "skill"]]
                    .assign(method=name)
                    .to_string(index=False)
                )
    table = pd.DataFrame(rows)
    keys = ["protocol", "method", "donor"]
    summary = table.groupby(keys)[["mse", *NULLS, "skill", "feature_sparsity", "spurious_sparsity", "seconds"]].median()
    print(summary.round(4).to_string())
    _common.save("bone_marrow", rows, options)


if __name__ == "__main__":
    main()
