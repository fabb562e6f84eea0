"""Networks of every BEELINE run under a folder, with one default setting, beside the published methods and baselines.

The folder has the layout ``network/seed/`` with ``ExpressionData.csv[.gz]`` (genes x cells), ``PseudoTime.csv`` (a column per lineage,
NaN where a cell is no member) and ``refNetwork.csv`` (Gene1, Gene2 and, where signs are known, Type with + or -), and may hold
``published_methods.csv``. Lineages of fewer than ten cells and cells in no lineage are left out, which is printed; a run that fails
is named at the end, and the status is 1. Nothing is chosen per network: every run is ``SparseNODE(adata, objective="transport")``
with its defaults, trained on all cells.

Columns of the table: ``network, seed, method, auprc_ratio, epr, auroc, sign_accuracy, seconds``. Ours is ``sparsenode``;
``sparsenode, shuffled`` is the same with pseudotime shuffled within lineages, as a control.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import _common
import anndata
import numpy as np
import pandas as pd
from _timing import silence

from sparsenode import SparseNODE, tl
from sparsenode.model._observations import MIN_CELLS

COLUMNS = ["network", "seed", "method", "auprc_ratio", "epr", "auroc", "sign_accuracy", "seconds"]
SCORES = ["auprc_ratio", "epr", "auroc", "sign_accuracy"]
BASELINES = ("pearson", "spearman", "partial_correlation", "genie3")


def find_runs(folder: Path) -> list[Path]:
    """Folders of runs, in the order of their names."""
    return sorted(path.parent for path in folder.glob("*/*/refNetwork.csv"))


def label(run: Path) -> str:
    """Network and seed of a run."""
    return f"{run.parent.name}/{run.name}"


def read(run: Path) -> tuple[anndata.AnnData, pd.DataFrame]:
    """Cells of lineages with pseudotime and lineages, and the reference network with signs as weights."""
    files = sorted(run.glob("ExpressionData.csv*"))
    if not files:
        raise FileNotFoundError(f"Expected ExpressionData.csv or ExpressionData.csv.gz in {run}, found neither.")
    expression = pd.read_csv(files[0], index_col=0).T
    times = read_times(run, expression.index)
    # A cell of several lineages has one pseudotime: the mean, where they differ.
    obs = pd.DataFrame({"pseudotime": times.mean(axis=1)}, index=times.index)
    genes = pd.DataFrame(index=expression.columns.map(str))
    adata = anndata.AnnData(expression.loc[times.index].to_numpy(np.float32), obs=obs, var=genes)
    adata.obsm["lineages"] = times.notna()
    return adata, read_reference(run / "refNetwork.csv")


def read_times(run: Path, cells: pd.Index) -> pd.DataFrame:
    """Pseudotime, cells x lineages, of lineages that are large enough and the cells in them; says what it leaves out."""
    times = pd.read_csv(run / "PseudoTime.csv", index_col=0)
    times.index = times.index.map(str)  # numbers in a column, but words in the header of the expression
    missing = cells.difference(times.index)
    if len(missing):
        raise ValueError(
            f"Expected all cells of the expression (genes x cells) in PseudoTime.csv of {run}, {len(missing)} of {len(cells)} are "
            f"missing: {list(missing[:3])}. Cells there look like {list(times.index[:3])}."
        )
    times = times.loc[cells]
    small = times.columns[times.notna().sum() < MIN_CELLS]
    if len(small):
        print(f"{label(run)}: fewer than {MIN_CELLS} cells in {list(small)}, left out")
    times = times.drop(columns=small).dropna(how="all")
    if len(times) < len(cells):
        print(f"{label(run)}: {len(cells) - len(times)} of {len(cells)} cells are in no lineage, left out")
    return times


def read_reference(path: Path) -> pd.DataFrame:
    """Edges ``source, target, weight``; a weight is the sign, 0 where there is none."""
    table = pd.read_csv(path, dtype=str)
    missing = [column for column in ("Gene1", "Gene2") if column not in table]
    if missing:
        raise ValueError(f"Expected the columns Gene1, Gene2 and Type in {path}, found {list(table)}.")
    kind = table["Type"].str.strip() if "Type" in table else pd.Series(np.nan, index=table.index)
    unknown = kind[kind.notna() & ~kind.isin(["+", "-"])].unique()
    if len(unknown):
        raise ValueError(f"Expected '+', '-' or nothing in the column Type of {path}, found {list(unknown[:5])}.")
    weights = kind.map({"+": 1.0, "-": -1.0}).astype(float).fillna(0.0)
    return pd.DataFrame({"source": table["Gene1"], "target": table["Gene2"], "weight": weights})


def fit(adata: anndata.AnnData, half_samples: bool = False, **settings) -> SparseNODE:
    """Our model, with the defaults unless told otherwise."""
    SparseNODE.setup_anndata(adata, time_key="pseudotime", lineage_key="lineages")
    model = SparseNODE(adata, **{"objective": "transport", **settings})
    model.train(
        train_size=1.0,
        half_samples=half_samples,
        key_added=None,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return model


def infer(adata: anndata.AnnData, **settings) -> pd.DataFrame:
    """The network of a fit to all cells."""
    return fit(adata, **settings).get_network()


def score(network: pd.DataFrame, reference: pd.DataFrame, seconds: float) -> dict[str, float]:
    """Scores of one network."""
    found = tl.evaluate_network(network, reference)
    return {name: float(found[name]) for name in SCORES} | {"seconds": seconds}


def shuffled(adata: anndata.AnnData, seed: int) -> anndata.AnnData:
    """The cells with their pseudotimes permuted among those of the same lineages."""
    return tl.shuffle_time(adata, time_key="pseudotime", lineage_key="lineages", seed=seed)


def run_one(run: Path, baselines: bool) -> list[dict]:
    """Rows of one run."""
    name = {"network": run.parent.name, "seed": run.name}
    adata, reference = read(run)
    start = time.perf_counter()
    network = infer(adata)
    rows = [{**name, "method": "sparsenode", **score(network, reference, time.perf_counter() - start)}]
    if baselines:
        start = time.perf_counter()
        network = infer(shuffled(adata, 0))
        rows.append(
            {**name, "method": "sparsenode, shuffled", **score(network, reference, time.perf_counter() - start)}
        )
        for method in BASELINES:
            start = time.perf_counter()
            network = tl.network_baselines(adata, methods=[method])[method]
            rows.append({**name, "method": method, **score(network, reference, time.perf_counter() - start)})
    return rows


def published(folder: Path) -> pd.DataFrame:
    """Rows of the published methods, if the folder has them."""
    path = folder / "published_methods.csv"
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    table = pd.read_csv(path, dtype={"dataset": str, "network": str}).rename(columns={"dataset": "network"})
    missing = [column for column in ("network", "seed", "method", "auprc_ratio", "epr", "auroc") if column not in table]
    if missing:
        raise ValueError(f"Expected the columns {missing} in {path}, found {list(table)}.")
    # Theirs may have the name of one of our baselines.
    return table.assign(method="published " + table["method"].astype(str)).reindex(columns=COLUMNS)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Medians over seeds, a row per network and method, and the best published method of each network and score."""
    medians = table.groupby(["network", "method"], sort=False)[[*SCORES, "seconds"]].median().reset_index()
    ours = ["sparsenode", "sparsenode, shuffled", *BASELINES]
    others = medians[~medians["method"].isin(ours)]
    best = others.groupby("network", sort=False)[["auprc_ratio", "epr", "auroc"]].max().reset_index()
    best["method"] = "best published"
    shown = pd.concat([medians[medians["method"].isin(ours)], best])
    order = {name: i for i, name in enumerate([*ours, "best published"])}
    return shown.sort_values(["network", "method"], key=lambda c: c.map(order) if c.name == "method" else c)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder with networks, each with a folder per seed")
    parser.add_argument("--out", type=Path, default=None, help="csv file for a row per run and method")
    parser.add_argument("--no-baselines", action="store_true", help="only ours and what the folder has")
    options = parser.parse_args()
    runs = find_runs(options.folder)
    if not runs:
        parser.error(f"Expected runs such as VSC/0/refNetwork.csv under {options.folder}, found none.")
    if options.out is not None and (options.out.suffix != ".csv" or options.out.is_dir()):
        parser.error(f"Expected a csv file to write to in --out, found {options.out}.")
    theirs = published(options.folder)
    silence()
    rows, failed = [], {}
    for run in runs:
        name = label(run)
        try:
            rows += run_one(run, not options.no_baselines)
        except (ValueError, KeyError, OSError) as error:  # what is wrong with a run; the others are of use without it
            failed[name] = error
            continue
        shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()}
        print(shown if options.no_baselines else {"done": name}, flush=True)
    if rows:
        ours = pd.DataFrame(rows)[COLUMNS]
        table = pd.concat([ours, theirs[theirs["network"].isin(ours["network"])]])
        print(summarise(table).to_string(index=False, float_format="%.3f"))
        if options.out is not None:
            done = [name for name in map(label, runs) if name not in failed]
            _common.write_results(ours, options.out, {"runs": done})
    if failed:
        parser.exit(1, "".join(f"failed: {name}: {error}\n" for name, error in failed.items()))


if __name__ == "__main__":
    main()
