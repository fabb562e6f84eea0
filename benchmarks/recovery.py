"""Which method recovers the network: random systems with known equations, every regularizer, PySINDy and least squares.

Random sparse stable linear systems and Hill-type regulation (10 genes, 18 edges, 8 trials of 40 observations), with noise and
with regular or irregular times. Every method chooses its strength or threshold by itself, with the same settings for all
systems. ``pysindy`` and ``least_squares`` regress on polynomials of degree one for linear systems and two for Hill
systems; ``pysindy_linear`` and ``least_squares_linear`` take degree one for Hill systems too (and are skipped for linear
ones, where that is the same).

A row per system, noise, sampling and method. ``auprc`` (average precision), ``auprc_ratio`` (over the density), ``f1`` and
``support_exact`` concern directed edges between different genes; ``f1`` and ``support_exact`` take the zeros as the method
left them. ``coefficient_error``: relative Frobenius norm of the difference of magnitudes, linear systems only, off the
diagonal and in full. ``extrapolation_error``: squared error on noise-free trials from unseen initial states, over their
variance; infinite where the solution diverges. ``chosen`` is what the method chose by itself.

Rows are appended to ``recovery.csv`` as they come. ``--resume`` keeps the rows that are there and runs what is missing, so
methods can be run one after the other; ``--redo`` names methods whose rows are dropped before.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch; worker processes inherit it

import argparse
import multiprocessing
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import _common
import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from _recovery import SAMPLINGS, Task, score
from _recovery_baselines import BASELINES
from _recovery_models import EPOCHS, MODELS, N_STRENGTHS, fit
from _tables import METHODS as LABELS

METHODS = (*MODELS, *BASELINES)
KEYS = ["kind", "system", "noise", "sampling", "method"]
GROUPS = ["kind", "noise", "sampling", "method"]
MEASURES = [
    "auprc",
    "auprc_ratio",
    "f1",
    "n_edges",
    "support_exact",
    "coefficient_error",
    "coefficient_error_full",
    "extrapolation_error",
    "seconds",
]
COLUMNS = [*KEYS, *MEASURES, "chosen"]
PLOTTED = {"auprc_ratio": "AUPRC ratio", "f1": "F1 of the zero pattern"}


def run(task: Task, method: str, epochs: int) -> dict[str, Any]:
    """One row: fit a method to a data set and score it."""
    system, adata = task.make()
    start = time.perf_counter()
    estimate = BASELINES[method](adata, task.kind) if method in BASELINES else fit(adata, method, epochs)
    seconds = time.perf_counter() - start
    return asdict(task) | {"method": method} | score(estimate, system) | {"seconds": seconds, "chosen": estimate.chosen}


def prepare_worker() -> None:
    """One torch thread in every process, and no advice from Lightning and scvi-tools."""
    import torch
    from _timing import quiet

    torch.set_num_threads(1)
    quiet()
    warnings.filterwarnings("ignore", module="pysindy|derivative")


def plan(options: argparse.Namespace, done: pd.DataFrame) -> list[tuple[Task, str]]:
    """The runs that are asked for and not done, all methods of a data set together."""
    finished = set(done[KEYS].itertuples(index=False, name=None))
    systems = [("linear", i) for i in range(options.systems_linear)]
    for i in range(options.systems_hill):  # in between, so that a run that is cut short has both kinds
        systems.insert(3 * i + 2, ("hill", i))
    data_sets = [Task(*system, noise, how) for system, noise, how in product(systems, options.noise, options.sampling)]
    return [
        (task, method)
        for task, method in product(data_sets, options.methods)
        if (*asdict(task).values(), method) not in finished
        and not (task.kind == "linear" and method.endswith("_linear"))
    ]


def results(runs: Sequence[tuple[Task, str]], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows in the order in which they are finished."""
    work = partial(run, epochs=options.epochs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context, initializer=prepare_worker) as pool:
        pending = [pool.submit(work, *item) for item in runs]
        try:
            for future in as_completed(pending):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def earlier_rows(path: Path, options: argparse.Namespace) -> pd.DataFrame:
    """Rows of an earlier run that are kept."""
    if options.quick or not options.resume or not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    rows = pd.read_csv(path, keep_default_na=False, na_values={name: ["", "nan"] for name in MEASURES})
    if list(rows.columns) != COLUMNS:
        raise SystemExit(
            f"Expected the columns {COLUMNS} in {path.name}, found {list(rows.columns)}. Remove `--resume`."
        )
    return rows[~rows["method"].isin(options.redo)]


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Medians over systems; for ``support_exact``, the share of them."""
    rows = rows.assign(support_exact=rows["support_exact"].astype(float))
    groups = rows.assign(method=pd.Categorical(rows["method"], METHODS)).groupby(GROUPS, observed=True)
    table = groups[MEASURES].median()
    table["support_exact"] = groups["support_exact"].mean()
    table.insert(0, "systems", groups.size())
    return table.reset_index()


def plot(summary: pd.DataFrame, path: Path) -> None:
    """Medians against noise: a row per measure, a column per kind and sampling, a line per method."""
    panels = [pair for pair in product(("linear", "hill"), SAMPLINGS) if _panel(summary, *pair).size]
    figure, axes = plt.subplots(
        len(PLOTTED), len(panels), figsize=(3.2 * len(panels) + 1.6, 5.6), sharex=True, sharey="row", squeeze=False
    )
    colours = dict(zip(METHODS, matplotlib.colormaps["tab20"].colors[::2] + ("black",), strict=False))
    for (measure, label), row in zip(PLOTTED.items(), axes, strict=True):
        for (kind, sampling), ax in zip(panels, row, strict=True):
            for method, line in _panel(summary, kind, sampling).groupby("method", observed=True, sort=False):
                style = "--" if method in BASELINES else "-"
                ax.plot(
                    100 * line["noise"], line[measure], style, marker="o", ms=3, c=colours[method], label=LABELS[method]
                )
            ax.set_title(f"{kind.capitalize()}, {sampling} times", fontsize=10)
        row[0].set_ylabel(label)
    for ax in axes[-1]:
        ax.set_xlabel("Noise, % of standard deviation")
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    names = [name for name in LABELS.values() if name in handles]
    figure.legend([handles[name] for name in names], names, loc="center right", frameon=False)
    figure.tight_layout(rect=(0, 0, 1 - 2.0 / figure.get_figwidth(), 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _panel(summary: pd.DataFrame, kind: str, sampling: str) -> pd.DataFrame:
    return summary[(summary["kind"] == kind) & (summary["sampling"] == sampling)].sort_values("noise")


def parse() -> argparse.Namespace:
    """Command line; ``--quick`` overrides sizes."""
    parser = _common.parser(__doc__.splitlines()[0])
    parser.add_argument("--systems-linear", type=int, default=20, help="number of random linear systems")
    parser.add_argument("--systems-hill", type=int, default=10, help="number of random Hill systems")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.01, 0.05, 0.1], help="shares of the spread")
    parser.add_argument("--sampling", nargs="+", default=list(SAMPLINGS), choices=SAMPLINGS, help="times")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="methods to run")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="epochs of ten steps, in a round")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--resume", action="store_true", help="keep the rows of recovery.csv and run what is missing")
    parser.add_argument(
        "--redo", nargs="+", default=[], choices=METHODS, help="with --resume: methods whose rows are dropped first"
    )
    options = parser.parse_args()
    if options.redo and not options.resume:
        parser.error("Expected `--resume` with `--redo`: without it all rows are dropped.")
    if options.quick:
        options.systems_linear, options.systems_hill = 1, 1
        options.noise, options.sampling, options.epochs = [0.0, 0.05], ["regular"], 5
    return options


def main() -> None:
    """Run what is missing, then write the summary and the plot."""
    options = parse()
    path = options.output / "recovery.csv"
    kept = earlier_rows(path, options)
    runs = plan(options, kept)
    needing = sorted({method for _, method in runs if method.startswith("pysindy")})
    if needing and find_spec("pysindy") is None:
        raise SystemExit(f"Expected PySINDy for {needing}, found none. Install it, or leave these out of `--methods`.")
    rows = kept.to_dict("records")
    if not options.quick:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept.to_csv(path, index=False)
    start = time.perf_counter()
    for i, row in enumerate(results(runs, options), 1):
        rows.append(row)
        if not options.quick:
            pd.DataFrame([row], columns=COLUMNS).to_csv(path, mode="a", header=False, index=False, float_format="%.5g")
        if i % 20 == 0 or i == len(runs):
            print(f"{i} of {len(runs)} runs, {time.perf_counter() - start:.0f} s", flush=True)
    finish(pd.DataFrame(rows, columns=COLUMNS), options)


def finish(rows: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print the medians, and unless ``--quick`` write rows, medians and plot."""
    if rows.empty:
        raise SystemExit("Expected at least one run, found none. Check the numbers of systems and `--methods`.")
    summary = summarise(rows)
    print(summary.round(3).to_string(index=False))
    if options.quick:
        print("--quick: nothing written")
        return
    order = rows.assign(method=pd.Categorical(rows["method"], METHODS)).sort_values(KEYS).index
    settings = {key: value for key, value in vars(options).items() if key != "quick"} | {"strengths": N_STRENGTHS}
    _common.write_results(rows.loc[order], options.output / "recovery.csv", settings)
    summary.to_csv(options.output / "recovery_summary.csv", index=False, float_format="%.4g")
    plot(summary, options.output / "recovery.png")
    print("wrote recovery_summary.csv and recovery.png")


if __name__ == "__main__":
    main()
