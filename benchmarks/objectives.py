"""Which objective gives the better network, which the better forecast, and whether one fit gives both.

On BEELINE networks: AUPRC ratio, early precision ratio and sign accuracy of the network, and the skill of the trajectories on
the tenth of the cells that was held out; mCAD, which separates no methods, is left out. On bone marrow: the skill on held-out cells of the donor that was fitted, and on the two
donors that were not, in both protocols of ``bone_marrow.py``. Skill is 1 − error / error of the best null model.

``transport, refitted`` is a transport fit whose zeros are held while the rest is fitted on the trajectories, from its weights and
in its units, without penalty; ``transport, fine-tuned`` one that keeps its penalty. ``both`` fits the trajectories anew with the
zeros of transport held, a field per lineage. Where not given, settings are the defaults of the objective.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import _common
import beeline
import bone_marrow
import pandas as pd
from _timing import silence
from anndata import AnnData

from sparsenode import SparseNODE, tl

PARTS = ("networks", "paper", "recommended")
FIRST_SEED = 10  # earlier ones served to choose defaults
QUIET: dict[str, Any] = {
    "key_added": None,
    "accelerator": "cpu",
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
AFTERWARDS: dict[str, Any] = {"objective": "trajectory", "max_epochs": 30, "plan_kwargs": {"lr": 0.005}}
# Settings of the model, of its training, and of a second one.
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]] = {
    "trajectory": ({"objective": "trajectory"}, {}, None),
    "transport": ({"objective": "transport"}, {}, None),
    "both": ({"objective": "both"}, {}, None),
    # The weight decay is that of both fits.
    "both, ridge 1": ({"objective": "both"}, {"plan_kwargs": {"weight_decay": 1.0}}, None),
    "both, one field, ridge 1": (
        {"objective": "both", "fields": "shared"},
        {"plan_kwargs": {"weight_decay": 1.0}},
        None,
    ),
    "transport, refitted": ({"objective": "transport"}, {}, AFTERWARDS | {"refit": True}),
    "transport, fine-tuned": ({"objective": "transport"}, {}, AFTERWARDS),
}


def fit(adata: AnnData, method: str, seed: int, epochs: int | None) -> tuple[SparseNODE, dict[str, float]]:
    """One method on cells that were set up, with its seconds, sparsity and skill on held-out cells."""
    settings, training, afterwards = METHODS[method]
    start = time.perf_counter()
    model = SparseNODE(adata, seed=seed, **settings)
    model.train(epochs, **training, **QUIET)
    if afterwards is not None:
        model.train(**(afterwards if epochs is None else afterwards | {"max_epochs": epochs}), **QUIET)
    return model, {
        "seconds": time.perf_counter() - start,
        "feature_sparsity": float(model.get_sparsity()["feature"]),
    }


def held_out_skill(model: SparseNODE, protocol: str = "recommended") -> float:
    """Skill on the cells that were held out."""
    return bone_marrow.score(model.evaluate(indices=model.validation_indices), protocol)["skill"]


def find_runs(folder: Path, seed: int) -> list[Path]:
    """BEELINE runs of one seed; says which networks lack it."""
    known = [run for run in beeline.find_runs(folder / "beeline") if run.parent.name != "mCAD"]
    runs = beeline.of_seeds(known, [str(seed)])
    if not runs:
        print(f"no network has a run of the seed {seed}, left out")
    return runs


def network(adata: AnnData, reference: pd.DataFrame, method: str, seed: int, epochs: int | None) -> dict[str, Any]:
    """Scores of one method on a BEELINE run."""
    SparseNODE.setup_anndata(adata, time_key="pseudotime", lineage_key="lineages")
    model, found = fit(adata, method, seed, epochs)
    scores = tl.evaluate_network(model.get_network(), reference)
    row = {name: float(scores[name]) for name in ("auprc_ratio", "epr", "sign_accuracy")}
    return row | {"skill": held_out_skill(model)} | found


def networks(
    folder: Path, methods: Sequence[str], seed: int, epochs: int | None, failed: dict[str, Exception]
) -> Iterator[dict[str, Any]]:
    """Rows of the BEELINE networks, whose data have as many seeds as the fits; what fails is kept for the end."""
    for run in find_runs(folder, seed):
        data = beeline.attempt(beeline.label(run), partial(beeline.read, run), failed)
        if data is None:
            continue
        for method in methods:
            name = f"{beeline.label(run)}, {method}"
            row = beeline.attempt(name, partial(network, *data, method, seed, epochs), failed)
            if row is not None:
                yield {"data": run.parent.name, "seed": seed, "method": method} | row


def donors(
    folder: Path, names: Sequence[str], protocol: str, methods: Sequence[str], seed: int, epochs: int | None
) -> Iterator[dict[str, Any]]:
    """Rows of the bone marrow, one per donor; the first is fitted."""
    cells = bone_marrow.read_all(folder, names, protocol)
    fitted, *others = names
    SparseNODE.setup_anndata(cells[fitted], lineage_key=bone_marrow.LINEAGE_KEYS[protocol])
    for method in methods:
        model, found = fit(cells[fitted], method, FIRST_SEED + seed, epochs)
        name = {"seed": FIRST_SEED + seed, "method": method}
        skill = held_out_skill(model, protocol)
        yield {"data": f"{fitted}, held-out cells, {protocol}"} | name | {"skill": skill} | found
        for donor in others:
            skill = bone_marrow.score(model.evaluate(cells[donor]), protocol)["skill"]
            yield {"data": f"{donor}, {protocol}"} | name | {"skill": skill} | found


def check(
    parser: argparse.ArgumentParser, folder: Path, names: Sequence[str], parts: Sequence[str], seeds: Sequence[int]
) -> None:
    """End with a message where data of a part are missing or cannot be used, before anything is fitted."""
    if "networks" in parts:
        with redirect_stdout(None):  # what is left out is said when it is
            found = [find_runs(folder, seed) for seed in seeds]
        if not any(found):
            parser.error(
                f"Expected runs of the seeds {seeds} in {folder / 'beeline'}, found none. Name others in --seeds."
            )
    protocols = [part for part in parts if part != "networks"]
    if protocols:
        bone_marrow.check_donors(parser, folder, names, protocols)


def main() -> None:
    """Run every method and seed, print medians and write a row per run."""
    parser = _common.parser(__doc__.splitlines()[0])
    _common.add_data_argument(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds; bone marrow adds ten")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="BEELINE networks and protocols")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), help="what to fit")
    parser.add_argument(
        "--donors",
        nargs="+",
        default=[bone_marrow.TRAIN, *bone_marrow.TEST],
        help="donors, files bone_marrow/NAME.h5ad of the data; the first is fitted",
    )
    options = parser.parse_args()
    silence()
    seeds, epochs = (options.seeds[:1], 1) if options.quick else (options.seeds, None)
    check(parser, options.data, options.donors, options.parts, seeds)
    rows: list[dict[str, Any]] = []
    failed: dict[str, Exception] = {}
    for seed, part in product(seeds, options.parts):
        arguments = (options.methods, seed, epochs)
        if part == "networks":
            made = networks(options.data, *arguments, failed)
        else:
            made = donors(options.data, options.donors, part, *arguments)
        for row in made:
            rows.append(row)
            print({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
    if rows:
        medians = pd.DataFrame(rows).groupby(["data", "method"], sort=False).median(numeric_only=True)
        print(medians.drop(columns="seed").round(3).to_string())
        _common.save("objectives", rows, options)
    beeline.finish(parser, failed)


if __name__ == "__main__":
    main()
