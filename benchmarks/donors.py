"""Every bone marrow donor predicted by models of each of the two others, and of both: what hangs on the donors that are trained on?

Skill on the donors that were not trained on, for the default and for trajectories alone, in both protocols of ``bone_marrow.py``: on
all their cells, and on the later ones, since trajectories start from early cells, which most null models have not seen.
Settings were chosen with models of S1D2 in view; no setting was chosen on models of the other two, or of several donors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import _common
import anndata
import bone_marrow
import numpy as np
import objectives
import pandas as pd
from _timing import silence

from sparsenode import SparseNODE

DONORS = (bone_marrow.TRAIN, *bone_marrow.TEST)
METHODS = ("both", "trajectory")
EARLY = 0.25  # share of the cells of a lineage


def trained_on(donors: Sequence[str]) -> list[tuple[str, ...]]:
    """Donors to train on: each by itself, and all but one together."""
    together = [tuple(other for other in donors if other != one) for one in donors]
    return [(one,) for one in donors] + (together if len(donors) > 2 else [])


def later(adata: anndata.AnnData, protocol: str) -> np.ndarray:
    """Mask of the cells that are not among the first quarter of any of their lineages."""
    time = adata.obs[_common.TIME_KEY].to_numpy(dtype=float)
    result = np.ones(adata.n_obs, dtype=bool)
    for own in bone_marrow.members(adata, protocol).values():
        result &= ~own | (time > np.quantile(time[own], EARLY))
    return result


def run(
    folder: Path,
    donors: Sequence[str],
    trained: Sequence[str],
    protocol: str,
    seeds: Sequence[int],
    epochs: int | None,
) -> Iterator[dict[str, Any]]:
    """Rows of the models of some donors, each of which is a batch."""
    cells = bone_marrow.read_all(folder, donors, protocol)
    for donor in donors:
        cells[donor].obs["donor"] = donor
    known = cells[trained[0]]
    if len(trained) > 1:
        known = anndata.concat([cells[donor] for donor in trained], keys=trained, index_unique="-", join="inner")
    batch_key = "donor" if len(trained) > 1 else None
    SparseNODE.setup_anndata(known, lineage_key=bone_marrow.LINEAGE_KEYS[protocol], batch_key=batch_key)
    for method, seed in product(METHODS, seeds):
        model, found = objectives.fit(known, method, seed, epochs)
        name = {"trained": "+".join(trained), "protocol": protocol, "method": method, "seed": seed}
        for donor in donors:
            if donor not in trained:
                scores = bone_marrow.score(model.evaluate(cells[donor]), protocol)
                late = model.evaluate(cells[donor], np.flatnonzero(later(cells[donor], protocol)))
                scores["skill_later"] = bone_marrow.score(late, protocol)["skill"]
                yield name | {"predicted": donor} | scores | found


def main() -> None:
    parser = _common.parser(__doc__.splitlines()[0])
    _common.add_data_argument(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12], help="seeds of the fits")
    parser.add_argument(
        "--donors", nargs="+", default=list(DONORS), help="donors, files bone_marrow/NAME.h5ad of the data"
    )
    options = parser.parse_args()
    donors = options.donors
    bone_marrow.check_donors(parser, options.data, donors)
    if len(donors) < 2:
        parser.error(f"Expected two donors or more in --donors, found {donors}.")
    silence()
    seeds, epochs = (options.seeds[:1], 1) if options.quick else (options.seeds, None)
    rows: list[dict[str, Any]] = []
    trainings = trained_on(donors)
    for trained, protocol in product(trainings[::3] if options.quick else trainings, bone_marrow.PROTOCOLS):
        for row in run(options.data, donors, trained, protocol, seeds, epochs):
            rows.append(row)
            print({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}, flush=True)
    table = pd.DataFrame(rows).pivot_table(
        index=["protocol", "trained", "predicted"], columns="method", values=["skill", "skill_later"], aggfunc="median"
    )
    print(table.round(3).to_string())
    _common.save("donors", rows, options)


if __name__ == "__main__":
    main()
