"""Recovery benchmark: our methods, each with one setting for all systems.

The field is fitted to the derivatives of smoothed trajectories (objective 'collocation', with adaptive weights where the
method has them) and then, where it has them, to the trajectories themselves, whose effects are known more precisely than
derivatives of noisy curves. What is zero then is held, the rest is refitted without penalty, and the strength is chosen by
the held-out error of the refits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from _recovery import Estimate
from anndata import AnnData

from sparsenode import DivergenceError, SparseNODE
from sparsenode.regularizers import CNODE, L0, GroupLasso, LassoNet, NoRegularizer, PathReg, Regularizer

N_STRENGTHS = 6
EPOCHS = 40  # of ten steps, in each round of the collocation; methods without adaptive rounds have as many in one
FINE = {"max_epochs": 3, "steps_per_epoch": 20, "objective": "trajectory", "plan_kwargs": {"lr": 0.01}}
REFIT = {"max_epochs": 4, "steps_per_epoch": 25, "objective": "trajectory", "refit": True, "plan_kwargs": {"lr": 0.01}}
ADAPTIVE = 3
SETTINGS = {"objective": "collocation", "n_knots": 33}
# The regularizer from its strengths, and the range of these.
MODELS: dict[str, tuple[Callable[[np.ndarray], Regularizer], tuple[float, float]]] = {
    "none": (lambda _: NoRegularizer(), (0.0, 0.0)),
    "cnode": (lambda strength: CNODE(strength, adaptive=ADAPTIVE), (1e-4, 0.03)),
    "l0": (L0, (1e-3, 0.3)),
    "pathreg": (lambda strength: PathReg(strength, gates="weight", adaptive=ADAPTIVE), (2e-3, 0.1)),
    "grouplasso": (lambda strength: GroupLasso(strength, adaptive=ADAPTIVE), (1e-3, 0.1)),
    "lassonet": (lambda strength: LassoNet(strength, skip="inner"), (1e-3, 0.3)),
    "lassonet_outer": (lambda strength: LassoNet(strength, skip="outer"), (1e-3, 0.3)),
}


def fit(adata: AnnData, method: str, epochs: int = EPOCHS) -> Estimate:
    """One of our methods, with its strength chosen by the one-standard-error rule after a refit.

    A fit that diverges says that there is no edge, and has an infinite error.
    """
    make, (low, high) = MODELS[method]
    regularizer = make(np.geomspace(low, high, N_STRENGTHS) if high > 0 else np.zeros(0))
    SparseNODE.setup_anndata(adata, time_key="time", batch_key="trial")
    model = SparseNODE(adata, regularizer, **SETTINGS)
    quiet = {"accelerator": "cpu", "key_added": None, "enable_progress_bar": False, "enable_model_summary": False}
    try:
        epochs *= 1 + ADAPTIVE - regularizer.adaptive
        if regularizer.schedule == "iterative":  # its steps are counted in epochs
            model.train(epochs, **quiet)
        else:  # few long epochs, since every epoch costs as much as four steps
            model.train(-(-epochs // 4), steps_per_epoch=40, **quiet)
        if regularizer.adaptive:
            model.train(**FINE, **quiet)
        model.train(**REFIT, **quiet)
    except DivergenceError:
        nothing = np.zeros((adata.n_vars, adata.n_vars))
        return Estimate(nothing, lambda x, t: np.full((*t.shape, x.shape[1]), np.inf), "diverged")
    chosen = model.select(rule="one_standard_error", key_added=None)
    strength = model.get_adjacency(weights="jacobian").abs().to_numpy()
    return Estimate(strength, lambda initial, times: predict(model, initial, times), f"strength {chosen['strength']:g}")


def predict(model: SparseNODE, initial: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Trajectories from initial states, trials × times × genes.

    The model takes the initial states of another AnnData from its cells, so cells that all are at the initial state of
    their trial start it there.
    """
    n_trials, n_times = times.shape
    obs = pd.DataFrame({"time": times.ravel(), "trial": np.repeat([f"unseen{i}" for i in range(n_trials)], n_times)})
    cells = AnnData(
        np.repeat(initial, n_times, axis=0),
        obs=obs.set_index(obs.index.astype(str)).astype({"trial": "category"}),
        var=pd.DataFrame(index=model.genes),
    )
    try:
        return model.predict(cells).reshape(n_trials, n_times, -1).astype(np.float64)
    except DivergenceError:
        return np.full((n_trials, n_times, initial.shape[1]), np.inf)
