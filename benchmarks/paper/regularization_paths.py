"""Table 7: error and sparsity against the strength, all strengths of a method in one fit, on three data sets.

The data sets are the fixed system of second order with 5 % noise, four walking trials of subject 07 (40 frames a second, 8 principal
components, all frames), and donor S1D2 of the bone marrow. Errors are shares of the variance around the trajectory means, on
training and held-out observations; extrapolation is the business of the other scripts.
"""

from __future__ import annotations

import time
from typing import Any

import _paper
import anndata
import motion
import numpy as np
import pandas as pd

import sparsenode as sn
from sparsenode.regularizers import CNODE, L0, LassoNet, PathReg

N_STRENGTHS, EPOCHS = 6, 30
METHODS = {
    "L0": L0,
    "C-NODE": CNODE,
    "PathReg": lambda strength: PathReg(strength, gates="weight"),
    "LassoNet": lambda strength: LassoNet(strength, skip="inner"),
}
RANGE = (1e-3, 1.0)


def second_order(options: Any) -> tuple[anndata.AnnData, dict, dict]:
    """Noisy trials of the fixed system."""
    adata = sn.datasets.second_order_system().simulate(6, 100, noise=0.05, seed=1)
    return adata, {"time_key": "time", "batch_key": "trial"}, {"order": 2, "hidden": (20, 20), "decay": False}


def walking(options: Any) -> tuple[anndata.AnnData, dict, dict]:
    """Principal components of all walking trials."""
    folder = options.data / "motion_capture"
    files = [folder / f"{trial}.amc" for trial in motion.TRIALS]
    frames = sn.datasets.read_motion_capture(folder / "07.asf", files, step=3)
    components = motion.Components(frames.X, 8)
    adata = anndata.AnnData(components.to(frames.X).astype(np.float32), obs=frames.obs)
    settings = {"align_batches": False, "initial_state": "learned", "hidden": (30,)}
    return adata, {"time_key": "time", "batch_key": "trial"}, settings


def bone_marrow(options: Any) -> tuple[anndata.AnnData, dict, dict]:
    """The training donor, log-transformed."""
    adata = anndata.read_h5ad(options.data / "bone_marrow" / "S1D2.h5ad")
    adata.X = adata.X.log1p()
    return adata, {"lineage_key": "lineages"}, {}


def main() -> None:
    """One fit per data set and method."""
    options = _paper.arguments(__doc__.splitlines()[0]).parse_args()
    data = {"second order": second_order, "walking": walking, "bone marrow": bone_marrow}
    plan = [(name, method) for name in data for method in METHODS]
    rows: list[pd.DataFrame] = []
    for name, method in _paper.within(plan[:1] + plan[4:6] if options.quick else plan, options):
        adata, keys, settings = data[name](options)
        strengths = np.geomspace(*RANGE, 2 if options.quick else N_STRENGTHS)
        sn.SparseNODE.setup_anndata(adata, **keys)
        model = sn.SparseNODE(adata, METHODS[method](strengths), objective="trajectory", seed=0, **settings)
        start = time.perf_counter()
        epochs = 2 if options.quick else EPOCHS
        if not _paper.attempt(lambda m=model, n=epochs: m.train(n, schedule="sparse", **_paper.QUIET) or True, False):
            print(name, method, "diverged", flush=True)
            continue
        table = model.get_regularization_path().assign(seconds=time.perf_counter() - start)
        table.insert(0, "method", method)
        table.insert(0, "data", name)
        rows.append(table)
        print(table.round(3).to_string(), flush=True)
        if method == "PathReg":
            model.write_results()
            figure = sn.pl.regularization_path(adata, return_fig=True)
            _paper.save_figure(figure, f"path_{name.replace(' ', '_')}", options)
    found = pd.concat(rows).to_dict("records")
    _paper.save("regularization_paths", found, options, epochs=EPOCHS, range=RANGE, n_strengths=N_STRENGTHS)


if __name__ == "__main__":
    main()
