"""How much could be won on another donor? The skill of curves, some of which have seen what no forecast has.

For every pair of donors of ``donors.py``, beside the same null models: the mean curve of the donor that was trained on, moved by
what early cells or all cells of the other donor say about genes' levels, and the curve of the other donor itself, from nine
tenths of its cells for the last tenth. No smooth curve of time does much better than that one: bandwidths of 0.05 to 0.2 give it
about the same error. What the earliest cells say hangs on how it is read, so there are several ways: as initial states of a
model are, by half of that, and by half of the mean difference of the first quarter of the cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import _common
import bone_marrow
import numpy as np
import pandas as pd
from _timing import silence
from anndata import AnnData
from donors import DONORS, EARLY

from sparsenode import SparseNODE
from sparsenode.objectives._initial import initial_weights
from sparsenode.objectives._local import local_weights

BANDWIDTH = 0.1  # of the length of a trajectory
EARLY_BANDWIDTH = 0.2  # as for initial states of a model
N_FOLDS = 10
Lineage = tuple[np.ndarray, np.ndarray]


def lineages(adata: AnnData, protocol: str) -> dict[str, Lineage]:
    """Times in units of its length, and expression, of every lineage by name."""
    x = np.asarray(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X, dtype=np.float64)
    time = adata.obs[_common.TIME_KEY].to_numpy(dtype=np.float64)
    found = {}
    for name, cells in bone_marrow.members(adata, protocol).items():
        low, high = time[cells].min(), time[cells].max()
        found[name] = (time[cells] - low) / (high - low), x[cells]
    return found


def curve(cells: Lineage, times: np.ndarray) -> np.ndarray:
    """Local linear regression with a Gaussian kernel."""
    known, x = cells
    everyone = np.ones((len(known), 1))
    at = (local_weights(known[:, None], everyone, everyone[:, 0] > 0, time, 0, 1, BANDWIDTH) for time in times)
    return np.concatenate([weights.T @ x for weights in at])


def initial_state(cells: Lineage) -> np.ndarray:
    """Mean of the early cells, as for initial states of a model."""
    times, x = cells
    everyone = np.ones((len(times), 1))
    return (initial_weights(times[:, None], everyone, everyone[:, 0] > 0, "kernel", EARLY_BANDWIDTH).T @ x)[0]


def own_curve(cells: Lineage) -> np.ndarray:
    """Every cell from the curve of the others that are not in its fold."""
    times, x = cells
    fold = np.random.default_rng(0).permutation(len(times)) % N_FOLDS
    result = np.empty_like(x)
    for f in range(N_FOLDS):
        result[fold == f] = curve((times[fold != f], x[fold != f]), times[fold == f])
    return result


def predictions(trained: Lineage, predicted: Lineage) -> dict[str, np.ndarray]:
    """Predictions of the cells of one lineage of another donor."""
    times, x = predicted
    known = curve(trained, times)
    early = initial_state(predicted) - initial_state(trained)
    first = (x - known)[times <= np.quantile(times, EARLY)].mean(0)
    return {
        "training donor": known,
        "moved by early cells": known + early,
        "moved by half of that": known + early / 2,
        "moved by half of the first quarter": known + first / 2,
        "moved by all cells": known + (x - known).mean(0),
        "own curve": own_curve(predicted),
    }


def score(
    trained: Mapping[str, Lineage], predicted: Mapping[str, Lineage], protocol: str, null: float
) -> dict[str, float]:
    """Skill of every curve: errors are summed over lineages (paper) or over all cells."""
    errors = pd.DataFrame(
        [
            {name: np.square(own[1] - found).mean() for name, found in predictions(trained[lineage], own).items()}
            for lineage, own in predicted.items()
        ]
    )
    cells = np.array([len(times) for times, _ in predicted.values()])
    mse = errors.sum() if protocol == "paper" else cells @ errors / cells.sum()
    return dict(1 - mse / null)


def run(folder: Path, donors: Sequence[str], protocol: str) -> Iterator[dict[str, Any]]:
    """Rows of all pairs of donors."""
    cells = bone_marrow.read_all(folder, donors, protocol)
    curves = {name: lineages(adata, protocol) for name, adata in cells.items()}
    models = {}
    for name, adata in cells.items():
        SparseNODE.setup_anndata(adata, lineage_key=bone_marrow.LINEAGE_KEYS[protocol])
        models[name] = SparseNODE(adata, objective="trajectory")
        models[name].train(1, key_added=None, enable_progress_bar=False)  # for the null models only
    for trained, predicted in permutations(donors, 2):
        found = bone_marrow.score(models[trained].evaluate(cells[predicted]), protocol)
        null = min(found[name] for name in bone_marrow.NULLS)
        for name, skill in score(curves[trained], curves[predicted], protocol, null).items():
            yield {"protocol": protocol, "trained": trained, "predicted": predicted, "curve": name, "skill": skill}


def main() -> None:
    parser = _common.parser(__doc__.splitlines()[0])
    _common.add_data_argument(parser)
    parser.add_argument(
        "--donors", nargs="+", default=list(DONORS), help="donors, files bone_marrow/NAME.h5ad of the data"
    )
    options = parser.parse_args()
    bone_marrow.check_donors(parser, options.data, options.donors)
    if len(options.donors) < 2:
        parser.error(f"Expected two donors or more in --donors, found {options.donors}.")
    silence()
    donors = options.donors[:2] if options.quick else options.donors
    rows = [row for protocol in bone_marrow.PROTOCOLS for row in run(options.data, donors, protocol)]
    print(pd.DataFrame(rows).groupby(["protocol", "curve"])["skill"].mean().round(3))
    _common.save("limits", rows, options)


if __name__ == "__main__":
    main()
