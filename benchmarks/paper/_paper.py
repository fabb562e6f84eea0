"""What the scripts of this folder share: the methods of the paper, quiet training, errors beside null models, figures."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # for `_common`, which all benchmarks share

import _common  # noqa: E402
import matplotlib  # noqa: E402
import pandas as pd  # noqa: E402

from sparsenode import DivergenceError  # noqa: E402

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "key_added": None,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def quiet() -> None:
    """No chatter of the trainer, and no windows."""
    matplotlib.use("Agg")
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def arguments(description: str | None) -> Any:
    """Parser of a script: ``--quick``, ``--output`` and ``--data``."""
    quiet()
    parser = _common.parser(description)
    parser.set_defaults(output=HERE / "results")
    parser.add_argument("--minutes", type=float, default=28.0, help="start no fit later than this")
    parser.add_argument("--seeds", type=count, default=5, help="number of seeds")
    parser.add_argument(
        "--skip",
        type=partial(count, lowest=0),
        default=0,
        help="go on after so many fits, and add to the table that is there",
    )
    parser.add_argument("--jobs", type=count, default=2, help="fits at a time, each with one thread")
    _common.add_data_argument(parser)
    return parser


def check_skip(parser: argparse.ArgumentParser, name: str, options: Any) -> None:
    """End with a message where there is no table to add to, before anything is fitted."""
    if options.skip and not options.quick and not (options.output / f"{name}.csv").exists():
        parser.error(f"Expected the table to add to with --skip, {name}.csv in {options.output}, found none.")


def count(text: str, lowest: int = 1) -> int:
    """A whole number from the command line that is not too small."""
    if not text.isdecimal() or int(text) < lowest:
        raise argparse.ArgumentTypeError(f"Expected a whole number from {lowest} on, found {text!r}.")
    return int(text)


def spread(work: Callable[..., list[dict]], plan: Sequence[tuple], options: Any) -> list[dict]:
    """Rows of all entries of a plan, ``--jobs`` at a time, until ``--minutes`` are over; says how many were left out.

    ``work`` takes an entry as arguments, and must be a function of a module, since it runs in processes of their own.
    """
    call = partial(_alone, work, time.time() + 60 * options.minutes)
    plan = plan[options.skip :]
    rows: list[dict] = []
    left_out = 0
    if options.jobs == 1:
        pool, results = None, map(call, plan)
    else:
        pool = ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn"))
        results = pool.map(call, plan)
    for found in results:
        left_out += found is None
        for row in found or []:
            rows.append(row)
            shown = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
            print(shown, flush=True)
    if pool is not None:
        pool.shutdown()
    if left_out:
        print(f"time is over: {left_out} of {len(plan)} fits left out", flush=True)
    return rows


def _alone(work: Callable[..., list[dict]], deadline: float, entry: tuple) -> list[dict] | None:
    if time.time() > deadline:
        return None
    quiet()
    torch.set_num_threads(1)
    return work(*entry)


def save(name: str, rows: list[dict], options: Any, **settings: Any) -> pd.DataFrame:
    """Write the rows, after those of the run that ``--skip`` goes on with, and return all of them; end without rows."""
    if not rows:
        sys.exit(
            f"Expected one fit or more, found none, and nothing was written: --minutes {options.minutes:g} were over before "
            f"the first, or --skip {options.skip} left none."
        )
    if options.skip and not options.quick:
        before = pd.read_csv(options.output / f"{name}.csv", dtype={"held_out": str})  # names may look like numbers
        rows = [*before.to_dict("records"), *rows]
    _common.save(name, rows, options, **settings)
    return pd.DataFrame(rows)


def within(plan: Sequence[Any], options: Any) -> Iterator[Any]:
    """Entries of a plan, in its order, until the time is over; says how many were left out."""
    start = time.monotonic()
    for index, entry in enumerate(plan):
        if time.monotonic() - start > 60 * options.minutes:
            print(f"time is over: {len(plan) - index} of {len(plan)} fits left out", flush=True)
            return
        yield entry


def attempt(call: Callable[[], Any], otherwise: Any) -> Any:
    """Result of a call, or something else where the solution or the training diverges."""
    try:
        return call()
    except DivergenceError:
        return otherwise


def mse(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared error, infinite where the prediction is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        value = float(np.square(np.asarray(prediction, dtype=float) - truth).mean())
    return value if np.isfinite(value) else float("inf")


def skills(error: float, nulls: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Error, null models, and the skill over each and over the best of them."""
    result = {f"{prefix}_mse": error} | {f"{prefix}_{name}": value for name, value in nulls.items()}
    result |= {f"{prefix}_skill_{name}": skill(error, value) for name, value in nulls.items()}
    return result | {f"{prefix}_skill": skill(error, min(nulls.values()))}


def skill(error: float, null: float) -> float:
    """One minus the error over that of a null model; none is left over one that is exact, such as a pose that is held."""
    return 1 - error / null if null > 0 else float("-inf")


def save_figure(figure: Any, name: str, options: Any) -> None:
    """Write a figure beside the table, unless ``--quick``."""
    if not options.quick:
        options.output.mkdir(parents=True, exist_ok=True)
        figure.savefig(options.output / f"{name}.png", dpi=110, bbox_inches="tight")
