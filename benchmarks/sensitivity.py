"""How BEELINE scores depend on one setting of the transport objective at a time, the others at their defaults.

``FOLDER`` has the layout that ``beeline.py`` reads; what fails is left out and named at the end. The first rows are the defaults with several seeds of the fit: differences of that size
mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import _common
import beeline
import numpy as np
import pandas as pd
from _timing import silence
from anndata import AnnData

from sparsenode.objectives import Transport
from sparsenode.regularizers import CNODE


def variants() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name of the setting, its value, and the arguments of SparseNODE."""
    for seed in (0, 1, 2):
        yield "seed", seed, {"seed": seed}
    # The lags span the same shares of a trajectory whatever the number of windows.
    for windows in (30, 90, 120):
        lags = tuple(windows * lag // 60 for lag in (2, 3, 4))
        yield "windows", windows, {"objective": Transport(windows=windows, lags=lags)}
    for lags in ((1,), (2,), (4,), (6,), (1, 2, 3)):
        yield "lags", " ".join(map(str, lags)), {"objective": Transport(lags=lags)}
    for overlap in (1, 2, 8):
        yield "overlap", overlap, {"objective": Transport(overlap=overlap)}
    for entropy in (0.0, 0.02, 0.1, 0.2):
        yield "entropy", entropy, {"objective": Transport(entropy=entropy)}
    for ridge in (0.0, 0.25, 1.0, 2.0):
        yield "ridge", ridge, {"objective": Transport(ridge=ridge)}
    for relaxation in (0.0, 0.2, 0.8):
        yield "relaxation", relaxation, {"objective": Transport(relaxation=relaxation)}
    yield "centring", False, {"objective": Transport(centring=False)}
    for strength in (0.05, 0.07, 0.14, 0.2):
        yield "strength", strength, {"regularizer": CNODE(strength)}
    for width in (16, 64):
        yield "width", width, {"hidden": (width, width)}
    yield "decay", False, {"decay": False}


def measure(adata: AnnData, reference: pd.DataFrame, arguments: dict[str, Any]) -> dict[str, float]:
    """Scores of the network of one fit."""
    scores = beeline.score(beeline.infer(adata, **arguments), reference, float("nan"))
    return {name: scores[name] for name in beeline.SCORES}


def summarise(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """AUPRC ratio by variant and network, medians over data seeds, and the mean over networks where none is missing."""
    table = pd.DataFrame(rows)
    table["variant"] = table["setting"] + " " + table["value"].astype(str)
    shown = table.pivot_table(index="variant", columns="network", values="auprc_ratio", aggfunc="median", sort=True)
    shown["geometric mean"] = np.exp(np.log(shown).mean(axis=1, skipna=False))
    return shown


def main() -> None:
    parser = _common.parser(__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with networks, each with a folder per seed")
    parser.add_argument("--seeds", nargs="+", default=["0"], help="data seeds: folders of each network that are used")
    options = parser.parse_args()
    found = beeline.find_runs(options.folder)
    runs = beeline.of_seeds(found, options.seeds)
    if not runs:
        parser.error(
            f"Expected runs such as VSC/0/refNetwork.csv under {options.folder} with --seeds {options.seeds}, found none."
        )
    beeline.say_left_out(options.folder, found)
    silence()
    failed: dict[str, Exception] = {}
    read = {run: beeline.attempt(beeline.label(run), partial(beeline.read, run), failed) for run in runs}
    data = {run: cells for run, cells in read.items() if cells is not None}
    rows = []
    for setting, value, arguments in list(variants())[: 2 if options.quick else None]:
        for run, (adata, reference) in data.items():
            name = f"{beeline.label(run)}, {setting} {value}"
            scores = beeline.attempt(name, partial(measure, adata, reference, arguments), failed)
            if scores is not None:
                about = {"setting": setting, "value": value, "network": run.parent.name, "data_seed": run.name}
                rows.append(about | scores)
        print(f"done: {setting} {value}", flush=True)
    if rows:
        print(summarise(rows).round(2).to_string())
        _common.save("sensitivity", rows, options)
    beeline.finish(parser, failed)


if __name__ == "__main__":
    main()
