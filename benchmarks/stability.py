"""What it says that an edge is in every half of the cells: BEELINE networks of half-samples, with pseudotime and without its order.

``FOLDER`` has the layout that ``beeline.py`` reads; a run that fails is left out and named at the end. A row per network and
seed, for the pseudotime as given and for a permuted one, where nothing drives anything: ``density``, the share of edges between different genes that are in the reference;
``in_all``, the share that is in the networks of all halves, and ``precision_in_all``, how many of these are in the reference;
``precision_strongest``, how many of as many edges of one fit to all cells, by strength; ``precision_others``, how many of those that
some half lacks; ``correlation``, the median rank correlation between strengths of complementary halves.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import _common
import anndata
import beeline
import numpy as np
import pandas as pd
from _timing import silence
from scipy.stats import spearmanr


def measure(adata: anndata.AnnData, reference: pd.DataFrame, n_halves: int) -> dict[str, float]:
    """Fit every half, and compare their edges with one another, with a fit to all cells and with the reference."""
    model = beeline.fit(adata, half_samples=True, n_seeds=n_halves)
    genes = [str(gene) for gene in adata.var_names]
    between = ~np.eye(len(genes), dtype=bool)
    known = set(zip(reference["target"], reference["source"], strict=True))
    true = np.array([[(target, source) in known for source in genes] for target in genes])[between]
    strengths = [model.get_adjacency(replicate=half).abs().to_numpy()[between] for half in range(n_halves)]
    correlations = [spearmanr(*strengths[half : half + 2])[0] for half in range(0, n_halves, 2)]
    in_all = model.get_edge_frequency().to_numpy()[between] == 1.0
    strength = beeline.fit(adata).get_adjacency().abs().to_numpy()[between]
    strongest = np.argsort(-strength, kind="stable")[: in_all.sum()]
    return {
        "density": true.mean(),
        "in_all": in_all.mean(),
        "precision_in_all": true[in_all].mean() if in_all.any() else np.nan,
        "precision_strongest": true[strongest].mean() if in_all.any() else np.nan,
        "precision_others": true[~in_all].mean() if (~in_all).any() else np.nan,
        "correlation": float(np.median(correlations)),
    }


def rows_of(run: Path, n_halves: int) -> list[dict]:
    """A row for the pseudotime as given and one for a permuted one."""
    adata, reference = beeline.read(run)
    name = {"network": run.parent.name, "seed": run.name}
    cells = {"as given": adata, "permuted": beeline.shuffled(adata, 0)}
    return [name | {"pseudotime": order} | measure(own, reference, n_halves) for order, own in cells.items()]


def main() -> None:
    parser = _common.parser(__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with networks, each with a folder per seed")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of complementary halves")
    options = parser.parse_args()
    runs = beeline.find_runs(options.folder)
    if not runs:
        parser.error(f"Expected runs such as VSC/0/refNetwork.csv under {options.folder}, found none.")
    beeline.say_left_out(options.folder, runs)
    silence()
    rows: list[dict] = []
    failed: dict[str, Exception] = {}
    for run in runs[: 1 if options.quick else None]:
        name = beeline.label(run)
        found = beeline.attempt(name, partial(rows_of, run, 2 * options.pairs), failed)
        if found is not None:
            rows += found
            print(f"done: {name}", flush=True)
    if rows:
        _common.save("stability", rows, options)
    beeline.finish(parser, failed)


if __name__ == "__main__":
    main()
