"""Which objective gives the better network, which the better forecast, and whether one fit gives both.

On BEELINE networks: AUPRC ratio, early precision ratio and sign accuracy of the network, and the skill of the trajectories on
the tenth of the cells that was held out. On bone marrow: the skill on held-out cells of the donor that was fitted, and on the two
donors that were not, in both protocols of ``bone_marrow.py``. Skill is 1 − error / error of the best null model.

``transport, refitted`` is a transport fit whose zeros are held while the rest is fitted on the trajectories, from its weights and
in its units, without penalty; ``transport, fine-tuned`` one that keeps its penalty. ``both`` fits the trajectories anew with the
zeros of transport held, a field per lineage. Where not given, settings are the defaults of the objective.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
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


def networks(folder: Path, methods: Sequence[str], seed: int, epochs: int | None) -> Iterator[dict[str, Any]]:
    """Rows of the BEELINE networks; their data have as many seeds as the fits."""
    runs = [run for run in beeline.find_runs(folder / "beeline") if run.name == str(seed) and run.parent.name != "mCAD"]
    if not runs:
        raise SystemExit(f"Expected runs of the seed {seed} in {folder / 'beeline'}, found none.")
    for run in runs:
        adata, reference = beeline.read(run)
        SparseNODE.setup_anndata(adata, time_key="pseudotime", lineage_key="lineages")
        for method in methods:
            model, found = fit(adata, method, seed, epochs)
            scores = tl.evaluate_network(model.get_network(), reference)
            row = {name: float(scores[name]) for name in ("auprc_ratio", "epr", "sign_accuracy")}
            name = {"data": run.parent.name, "seed": seed, "method": method}
            yield name | row | {"skill": held_out_skill(model)} | found


def donors(
    folder: Path, protocol: str, methods: Sequence[str], seed: int, epochs: int | None
) -> Iterator[dict[str, Any]]:
    """Rows of the bone marrow, one per donor."""
    cells = bone_marrow.read_all(folder, (bone_marrow.TRAIN, *bone_marrow.TEST), protocol)
    SparseNODE.setup_anndata(cells[bone_marrow.TRAIN], lineage_key=bone_marrow.LINEAGE_KEYS[protocol])
    for method in methods:
        model, found = fit(cells[bone_marrow.TRAIN], method, FIRST_SEED + seed, epochs)
        name = {"seed": FIRST_SEED + seed, "method": method}
        skill = held_out_skill(model, protocol)
        yield {"data": f"{bone_marrow.TRAIN}, held-out cells, {protocol}"} | name | {"skill": skill} | found
        for donor in bone_marrow.TEST:
            skill = bone_marrow.score(model.evaluate(cells[donor]), protocol)["skill"]
            yield {"data": f"{donor}, {protocol}"} | name | {"skill": skill} | found


def main() -> None:
    """Run every method and seed, print medians and write a row per run."""
    parser = _common.parser(__doc__.splitlines()[0])
    _common.add_data_argument(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds; bone marrow adds ten")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="BEELINE networks and protocols")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), help="what to fit")
    options = parser.parse_args()
    silence()
    epochs = 1 if options.quick else None
    rows: list[dict[str, Any]] = []
    for seed, part in product(options.seeds[: 1 if options.quick else None], options.parts):
        arguments = (options.methods, seed, epochs)
        made = networks(options.data, *arguments) if part == "networks" else donors(options.data, part, *arguments)
        for row in made:
            rows.append(row)
            print({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
    table = pd.DataFrame(rows).groupby(["data", "method"], sort=False).median(numeric_only=True).drop(columns="seed")
    print(table.round(3).to_string())
    _common.save("objectives", rows, options)


if __name__ == "__main__":
    main()
