"""Networks of every BEELINE run under a folder, with one default setting, beside the published methods and baselines.

The folder has the layout ``network/seed/`` with ``ExpressionData.csv`` (genes x cells), ``PseudoTime.csv`` (a column per lineage,
NaN where a cell is no member) and ``refNetwork.csv`` (Gene1, Gene2 and, where signs are known, Type with + or -), each of which may be
compressed, ``.csv.gz``, and may hold ``published_methods.csv``. Lineages of fewer than ten cells, cells in no lineage, and folders of
another layout are left out, which is printed, as are genes of the reference that the expression lacks; a run that fails is named at the
end, and the status is 1. Nothing is chosen per network: every run is ``SparseNODE(adata, objective="transport")`` with its defaults,
trained on all cells.

Columns of the table: ``network, seed, method, auprc_ratio, epr, auroc, sign_accuracy, seconds``. Ours is ``sparsenode``;
``sparsenode, shuffled`` is the same with pseudotime shuffled within lineages, as a control.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import _common
import anndata
import numpy as np
import pandas as pd
from _timing import silence

from sparsenode import SparseNODE, tl
from sparsenode._input._observations import MIN_CELLS

COLUMNS = ["network", "seed", "method", "auprc_ratio", "epr", "auroc", "sign_accuracy", "seconds"]
SCORES = ["auprc_ratio", "epr", "auroc", "sign_accuracy"]
PUBLISHED_SCORES = ["auprc_ratio", "epr", "auroc"]
BASELINES = ("pearson", "spearman", "partial_correlation", "genie3")
# Signs of the column Type, and what stands for none.
MISSING = ["", "NA", "NaN", "nan"]
SIGNS = {"+": 1.0, "-": -1.0, **dict.fromkeys(MISSING, 0.0)}
# What is wrong with a run, compressed files that are cut off among it; the others are of use without it.
FAILURES = (ValueError, TypeError, LookupError, OSError, EOFError, RuntimeError, zlib.error)
# Not one method: every score is the largest of any.
BEST = "best published, score by score"
T = TypeVar("T")


def find_runs(folder: Path) -> list[Path]:
    """Folders of runs, in the order of their names."""
    return sorted({path.parent for name in names_of("refNetwork") for path in folder.glob(f"*/*/{name}")})


def left_out(folder: Path, runs: list[Path]) -> list[str]:
    """Folders with expression that are no runs: they have no reference, or do not lie in ``network/seed/``."""
    found = {path.parent for path in folder.rglob("ExpressionData.csv*")}
    return [str(path.relative_to(folder)) for path in sorted(found - set(runs))]


def of_seeds(runs: Sequence[Path], seeds: Sequence[str]) -> list[Path]:
    """Runs of some seeds; says which networks have others only, unless all have."""
    chosen = [run for run in runs if run.name in seeds]
    without = sorted({run.parent.name for run in runs} - {run.parent.name for run in chosen})
    if chosen and without:
        print(f"without a run of the seeds {list(seeds)}, left out: {without}")
    return chosen


def say_left_out(folder: Path, runs: list[Path]) -> None:
    """Name folders with expression that are no runs."""
    skipped = left_out(folder, runs)
    if skipped:
        print(f"Expected network/seed/ with refNetwork.csv, left out: {skipped}")


def label(run: Path) -> str:
    """Network and seed of a run."""
    return f"{run.parent.name}/{run.name}"


def attempt(name: str, call: Callable[[], T], failed: dict[str, Exception]) -> T | None:
    """Result of a call, or nothing where it fails, which is kept for ``finish``."""
    try:
        return call()
    except FAILURES as error:
        failed[name] = error
        return None


def finish(parser: argparse.ArgumentParser, failed: Mapping[str, Exception]) -> None:
    """Name what failed, and end with status 1, if anything did."""
    if failed:
        parser.exit(1, "".join(f"failed: {name}: {error}\n" for name, error in failed.items()))


def names_of(table: str) -> tuple[str, str]:
    """Names that the file of a table may have, plain or compressed."""
    return f"{table}.csv", f"{table}.csv.gz"


def file_of(run: Path, table: str) -> Path:
    """The only file of a table, plain or compressed."""
    names = names_of(table)
    files = [run / name for name in names if (run / name).exists()]
    if not files:
        raise FileNotFoundError(f"Expected {' or '.join(names)} in {run}, found neither.")
    if len(files) > 1:
        raise ValueError(
            f"Expected one of {' and '.join(names)} in {run}, found both. Remove the one that is not meant."
        )
    return files[0]


def read(run: Path) -> tuple[anndata.AnnData, pd.DataFrame]:
    """Cells of lineages with pseudotime and lineages, and the reference network with signs as weights."""
    file = file_of(run, "ExpressionData")
    expression = read_table(file).T
    genes = expression.columns.str.strip()
    twice = list(genes[genes.duplicated()].unique())
    if twice:
        raise ValueError(
            f"Expected every gene once in {file}, found {len(twice)} more than once: {twice[:3]}. Rename them."
        )
    reference = read_reference(file_of(run, "refNetwork"))
    named = pd.unique(reference[["source", "target"]].to_numpy().ravel())
    lacking = [gene for gene in named if gene not in genes]
    if len(lacking) == len(named):
        raise ValueError(
            f"Expected genes of refNetwork.csv in {file}, found none. They look like {lacking[:3]}, those of the expression "
            f"(genes x cells) like {list(genes[:3])}."
        )
    if lacking:
        print(
            f"{label(run)}: not in the expression are {lacking}. Their pairs count as not predicted, which raises ratios where few of "
            "them are true. Remove their edges from refNetwork.csv to score the genes that are there."
        )
    times = read_times(run, expression.index)
    values = expression.loc[times.index].to_numpy(np.float32)
    adata = anndata.AnnData(values, obs=pd.DataFrame(index=times.index), var=pd.DataFrame(index=genes))
    adata.obsm["pseudotime"], adata.obsm["lineages"] = times, times.notna()
    return adata, reference


def read_csv(path: Path, **settings) -> pd.DataFrame:
    """A table with commas, whose path is named where it cannot be read."""
    try:
        return pd.read_csv(path, **settings)
    except ValueError as error:  # pandas' own, and text of another encoding
        raise ValueError(f"{path}: {error}") from error


def read_table(path: Path) -> pd.DataFrame:
    """Numbers with names, which stay as they are written: 007 is no number there, and NA is a gene."""
    table = read_csv(path, index_col=0)
    if table.shape[1] == 0:
        raise ValueError(
            f"Expected names and columns of numbers, with commas between them, in {path}, found one column."
        )
    wrong = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    if wrong:
        raise ValueError(f"Expected numbers in {path}, found others in {len(wrong)} columns: {wrong[:3]}. Remove them.")
    names = pd.read_csv(path, header=None, skiprows=1, usecols=[0], dtype=str, keep_default_na=False)[0]
    return table.set_axis(pd.Index(names, name=None), axis=0)


def read_times(run: Path, cells: pd.Index) -> pd.DataFrame:
    """Pseudotime, cells x lineages, of lineages that are large enough and the cells in them; says what it leaves out."""
    times = read_table(file_of(run, "PseudoTime"))
    twice = times.index[times.index.duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"Expected every cell once in PseudoTime.csv of {run}, found {len(twice)} more than once: {list(twice[:3])}."
        )
    missing = cells.difference(times.index)
    if len(missing):
        raise ValueError(
            f"Expected all cells of the expression (genes x cells) in PseudoTime.csv of {run}, {len(missing)} of {len(cells)} are "
            f"missing: {list(missing[:3])}. Cells there look like {list(times.index[:3])}."
        )
    others = times.index.difference(cells)
    if len(others):
        print(f"{label(run)}: {len(others)} cells of PseudoTime.csv have no expression, left out")
    times = times.loc[cells]
    small = times.columns[times.notna().sum() < MIN_CELLS]
    if len(small):
        print(f"{label(run)}: fewer than {MIN_CELLS} cells in {list(small)}, left out")
    times = times.drop(columns=small).dropna(how="all")
    if times.empty:
        raise ValueError(f"Expected lineages of {MIN_CELLS} cells or more in PseudoTime.csv of {run}, found none.")
    if len(times) < len(cells):
        print(f"{label(run)}: {len(cells) - len(times)} of {len(cells)} cells are in no lineage, left out")
    return times


def read_reference(path: Path) -> pd.DataFrame:
    """Edges ``source, target, weight``; a weight is the sign, 0 where there is none."""
    table = read_csv(path, dtype=str, keep_default_na=False).fillna("")  # NA is a gene
    missing = [column for column in ("Gene1", "Gene2") if column not in table]
    if missing:
        raise ValueError(f"Expected the columns Gene1, Gene2 and Type in {path}, found {list(table)}.")
    if table.empty:
        raise ValueError(f"Expected edges in {path}, found none.")
    table = table.apply(lambda column: column.str.strip())
    kind = table["Type"] if "Type" in table else pd.Series("", index=table.index)
    unknown = kind[~kind.isin(SIGNS)].unique()
    if len(unknown):
        raise ValueError(f"Expected '+', '-' or nothing in the column Type of {path}, found {list(unknown[:5])}.")
    empty = int((table[["Gene1", "Gene2"]] == "").any(axis=1).sum())
    if empty:
        raise ValueError(f"Expected two genes in every row of {path}, found {empty} rows without. Remove them.")
    return pd.DataFrame({"source": table["Gene1"], "target": table["Gene2"], "weight": kind.map(SIGNS)})


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
            if method == "genie3":
                rows[-1]["sign_accuracy"] = float("nan")  # importances have no sign
    return rows


def published(folder: Path) -> pd.DataFrame:
    """Rows of the published methods, if the folder has them. Names are read as they are written, and scores may be missing."""
    path = folder / "published_methods.csv"
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    numbers = [*SCORES, "seconds"]
    names = dict.fromkeys(("dataset", "network", "seed", "method"), str)
    table = pd.read_csv(path, dtype=names, keep_default_na=False, na_values=dict.fromkeys(numbers, MISSING))
    if {"dataset", "network"} <= {*table}:
        raise ValueError("Expected one of the columns 'dataset' and 'network', found both. Remove one.")
    network = "network" if "network" in table else "dataset"
    missing = [column for column in (network, "seed", "method", *PUBLISHED_SCORES) if column not in table]
    if missing:
        raise ValueError(f"Expected the columns {missing}, found {list(table)}. Add them.")
    if table.empty:
        raise ValueError("Expected rows of published methods, found none. Remove the file, or add them.")
    for column in table.columns.intersection(numbers):
        wrong = table[column][pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna()]
        if len(wrong):
            raise ValueError(f"Expected numbers in the column {column!r}, found {list(wrong.unique()[:3])}.")
    # Theirs may have the name of one of our baselines.
    table["method"] = "published " + table["method"]
    return table.rename(columns={network: "network"}).reindex(columns=COLUMNS)


def same_runs(theirs: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """Published rows of the networks and seeds that were run; says which have none, if there are any."""
    keys = ["network", "seed"]
    done = pd.MultiIndex.from_frame(ours[keys].drop_duplicates())
    known = pd.MultiIndex.from_frame(theirs[keys])
    without = ["/".join(run) for run in done[~done.isin(known)]]
    if without and len(theirs):
        print(f"without published methods: {without}")
    return theirs[known.isin(done)]


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Medians over seeds, a row per network and method, and the best published value of each network and score by itself."""
    medians = table.groupby(["network", "method"], sort=False)[[*SCORES, "seconds"]].median().reset_index()
    ours = ["sparsenode", "sparsenode, shuffled", *BASELINES]
    others = medians[~medians["method"].isin(ours)]
    best = others.groupby("network", sort=False)[PUBLISHED_SCORES].max().reset_index()
    best["method"] = BEST
    order = {name: i for i, name in enumerate([*ours, *others["method"].unique(), BEST])}
    return pd.concat([medians, best]).sort_values(
        ["network", "method"], key=lambda c: c.map(order) if c.name == "method" else c
    )


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
    if options.out is not None:
        try:
            _common.folder(options.out.parent)
        except argparse.ArgumentTypeError as error:
            parser.error(f"--out: {error}")
    try:
        theirs = published(options.folder)
    except (ValueError, OSError) as error:
        parser.error(f"{options.folder / 'published_methods.csv'}: {error}")
    say_left_out(options.folder, runs)
    silence()
    rows: list[dict] = []
    failed: dict[str, Exception] = {}
    for run in runs:
        name = label(run)
        found = attempt(name, partial(run_one, run, not options.no_baselines), failed)
        if found is None:
            continue
        rows += found
        shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()}
        print(shown if options.no_baselines else {"done": name}, flush=True)
    if rows:
        ours = pd.DataFrame(rows)[COLUMNS]
        if options.out is not None:
            done = [name for name in map(label, runs) if name not in failed]
            _common.write_results(ours, options.out, {"runs": done})
        table = pd.concat([ours, same_runs(theirs, ours)])
        print(summarise(table).to_string(index=False, float_format="%.3f"))
    finish(parser, failed)


if __name__ == "__main__":
    main()
