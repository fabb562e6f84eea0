"""Command line: ``python -m sparsenode demo`` and ``python -m sparsenode fit``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata
import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from anndata import AnnData

from sparsenode import SparseNODE, _keys, datasets, pl, regularizers, tl


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    options = _parser().parse_args(arguments)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        options.command(options)
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"sparsenode: {message}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sparsenode", description="Sparse neural ODEs on pseudotime-ordered cells.")
    parser.add_argument("--version", action="version", version=f"sparsenode {version('sparsenode')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="fit simulated myeloid differentiation and compare with its true network")
    demo.add_argument("--out", type=Path, default=Path("sparsenode_demo"), help="folder for results (%(default)s)")
    demo.set_defaults(command=_demo)

    fit = commands.add_parser("fit", help="fit an h5ad file and write the results into another")
    fit.add_argument("input", type=Path, metavar="IN.h5ad")
    fit.add_argument("output", type=Path, metavar="OUT.h5ad")
    fit.add_argument(
        "--time", default=_keys.TIME_KEY, help="column of .obs, or table in .obsm, with the pseudotime (%(default)s)"
    )
    fit.add_argument("--lineages", help="column of .obs, or table in .obsm, with the lineages")
    fit.add_argument("--batch", help="column of .obs with the batch")
    fit.add_argument("--layer", help="layer with the expression (.X)")
    fit.add_argument("--objective", help="both, trajectory, transport or collocation (as in SparseNODE)")
    fit.add_argument("--regularizer", help="pathreg, cnode, l0, grouplasso, lassonet or none (as in SparseNODE)")
    fit.add_argument(
        "--regulators", help="genes that may regulate: a file with a name a line, or a column of .var (all)"
    )
    fit.add_argument("--prior", type=Path, help="csv file of likely edges: source,target[,weight], weights in [0, 1]")
    fit.add_argument("--fields", help="lineage or shared (as in SparseNODE)")
    fit.add_argument("--epochs", type=int, help="number of epochs (as in SparseNODE.train)")
    fit.add_argument("--seed", type=int, default=0, help="seed (%(default)s)")
    fit.add_argument("--key-added", default=_keys.KEY_ADDED, help="prefix of the result keys (%(default)s)")
    fit.add_argument("--figures", type=Path, help="folder for PNG figures (beside OUT.h5ad)")
    fit.set_defaults(command=_fit)
    return parser


def _demo(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    adata = datasets.krumsiek11()
    print(f"krumsiek11: {adata.n_obs} simulated cells × {adata.n_vars} genes, lineages Mo, Ery, Mk and Neu")
    SparseNODE.setup_anndata(adata, time_key="simulation_time", lineage_key="lineage")
    # Simulated cells are all but free of noise: few are needed for the start, and a weak penalty is enough.
    model = SparseNODE(
        adata, regularizer=regularizers.PathReg(strength=0.01), objective="trajectory", initial_state="first"
    )
    _train_and_report(model, max_epochs=100, plan_kwargs={"gate_lr": 0.2})
    correlations = tl.network_baselines(adata, methods=("pearson", "spearman"))
    networks = {"this network": model.get_network(), **{name.capitalize(): correlations[name] for name in correlations}}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        table = tl.compare_networks(networks, adata.uns["true_network"])
    scores = table.iloc[0]
    print("\nNetwork against the true one (11 genes, self edges left out; a random ranking has ratio 1):")
    print(
        f"  AUPRC ratio {scores['auprc_ratio']:.2f}, early precision ratio {scores['epr']:.2f}, "
        f"AUROC {scores['auroc']:.2f}, signs right {scores['sign_accuracy']:.0%}"
    )
    print(f"  {scores['precision']:.0%} of its edges are true, {scores['recall']:.0%} of the true edges are found")
    ratios = table["average_precision_ratio"].items()
    print("  Average precision ratio: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios))
    for each in said:
        print(f"  {each.message}")
    _write(adata, options.out / "krumsiek11.h5ad", options.out, _keys.KEY_ADDED)


def _fit(options: argparse.Namespace) -> None:
    if options.output.suffix != ".h5ad" or not options.output.parent.is_dir():
        raise ValueError(f"Expected an .h5ad file in an existing folder to write to, found '{options.output}'.")
    place = options.output if options.output.exists() else options.output.parent
    if options.output.is_dir() or not os.access(place, os.W_OK):
        raise ValueError(
            f"Expected to be allowed to write an .h5ad file, found '{place}', which is a folder or read-only. Name another."
        )
    if options.output.exists() and options.input.exists() and options.output.samefile(options.input):
        raise ValueError(f"Expected OUT.h5ad to be another file than IN.h5ad, found '{options.output}' for both.")
    if not options.input.is_file():
        raise FileNotFoundError(f"Expected an h5ad file to read, found no file at '{options.input}'.")
    try:
        adata = anndata.read_h5ad(options.input)
    except Exception as error:  # whatever is in files of other kinds
        raise OSError(
            f"Expected an h5ad file to read, found '{options.input}': {error}. If it holds a MuData, write one modality: `mdata['rna'].write_h5ad(…)`."
        ) from error
    print(f"{options.input}: {adata.n_obs} cells × {adata.n_vars} genes")
    SparseNODE.setup_anndata(
        adata, layer=options.layer, time_key=options.time, lineage_key=options.lineages, batch_key=options.batch
    )
    model = SparseNODE(
        adata,
        regularizer=options.regularizer,
        objective=options.objective,
        fields=options.fields,
        regulators=None if options.regulators is None else _regulators(options.regulators, adata),
        prior=None if options.prior is None else _prior(options.prior),
        seed=options.seed,
    )
    print(f"objective {model._objective_name!r}, {model.module.regularizer!r}")
    figures = options.figures or options.output.parent
    figures.mkdir(parents=True, exist_ok=True)
    _train_and_report(
        model, key_added=options.key_added, **({} if options.epochs is None else {"max_epochs": options.epochs})
    )
    _write(adata, options.output, figures, options.key_added)


def _regulators(given: str, adata: AnnData) -> str | list[str]:
    """Names in a file, or the column of ``.var``."""
    if Path(given).is_file():
        try:
            return [line.strip() for line in Path(given).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise ValueError(f"Expected a text file in UTF-8, a name a line, in {given!r}: {error}") from error
    if given not in adata.var:
        raise ValueError(
            f"Expected `--regulators` to be a file with a name a line or a column of .var, found {given!r}. Columns: "
            f"{list(adata.var)}."
        )
    return given


def _prior(path: Path) -> pd.DataFrame:
    """Table of edges, whose genes may be called NA or nan."""
    if not path.is_file():
        raise FileNotFoundError(f"Expected `--prior` to be a csv file of edges, found no file at '{path}'.")
    missing = {"source": [""], "target": [""], "weight": ["", "NA", "NaN", "nan"]}
    try:
        return pd.read_csv(path, keep_default_na=False, na_values=missing, encoding="utf-8-sig")
    except ValueError as error:
        raise ValueError(f"Expected a table of edges in {str(path)!r}, found none: {error}") from error


def _train_and_report(model: SparseNODE, key_added: str = _keys.KEY_ADDED, **train: Any) -> None:
    """Train, and print fit, skill, sparsity and the strongest edges."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        model.train(enable_progress_bar=sys.stdout.isatty(), key_added=key_added, **train)
    print(f"trained in {time.perf_counter() - start:.0f} s")
    results = model.adata.uns[key_added]
    if "scores" in results:  # there are none where trajectories diverge
        _report_scores(results["scores"], results["held_out_scores"])
    sparsity = model.get_sparsity()
    print(
        f"\nExact zeros: {sparsity['feature']:.0%} of the lineages' adjacencies, {sparsity['weight']:.0%} of the weights"
    )
    print("Strongest edges between different genes, to be compared with those of correlations (tl.network_baselines):")
    # Self edges mix decay with self-regulation, and are often the strongest.
    edges = model.get_network().query("source != target").head(10)
    print(edges.to_string(index=False, float_format=lambda value: f"{value:+.3f}") if len(edges) else "none")


def _report_scores(scores: pd.DataFrame, held_out: pd.DataFrame) -> None:
    """Print how well cells are fitted and predicted."""
    total = scores.loc["total"]
    print(f"{1 - total['mse'] / total['null_mean']:.0%} of the variance around the lineage means fitted\n")
    print("Mean squared error of held-out cells, beside trivial predictors (skill: 1 - mse / best of them):")
    print(held_out.to_string(float_format=lambda value: f"{value:.4f}"))
    if not held_out["skill"].iloc[-1] > 0:
        print(
            "Skill is not positive: one of the trivial predictors does as well on these cells. The smoothed curve has seen\n"
            "their neighbours in time, so the fairer test is another donor (SparseNODE.evaluate). Without skill there, do\n"
            "not use the trajectories for forecasts or knock-outs."
        )


def _write(adata: AnnData, path: Path, figures: Path, key: str) -> None:
    """Write the h5ad file and the figures."""
    matplotlib.use("agg")
    adata.write_h5ad(path)
    written = [path]
    drawn = ("trajectory", "adjacency", "history") if "scores" in adata.uns[key] else ("adjacency", "history")
    for name in drawn:  # there are no scores where trajectories diverge
        figure = getattr(pl, name)(adata, key=key, return_fig=True)
        written.append(figures / f"{path.stem}_{name}.png")
        figure.savefig(written[-1], dpi=150)
        plt.close(figure)
    print("\nwrote " + ", ".join(map(str, written)))
