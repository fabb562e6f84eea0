"""Fixtures that all tests share: simulated cells with a known system, small fits, and reference data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from hypothesis import settings
from scipy.integrate import solve_ivp

import sparsenode as sn

mpl.use("agg")
settings.register_profile("reproducible", derandomize=True, deadline=None)  # the same examples in every run
settings.load_profile("reproducible")

REPOSITORY = Path(__file__).resolve().parents[1]
LINEAGES = ("erythroid", "myeloid")
START, SPANS = 0.5, (2.0, 1.5)  # neither starts at zero nor lasts one unit: mistakes in units show


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small fits are fastest on one thread, and machines that run tests are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_open_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Reference data outside the repository: the folder that SPARSENODE_DATA names, or ../shared/data."""
    folder = Path(os.environ.get("SPARSENODE_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder}: set SPARSENODE_DATA")
    return folder


@pytest.fixture(scope="session")
def true_slope() -> Callable[[np.ndarray, int], np.ndarray]:
    """The system behind the simulated cells: gene i - 1 drives gene i; the signs alternate and depend on the lineage."""

    def slope(x: np.ndarray, lineage: int) -> np.ndarray:
        drive = np.ones_like(x)
        signs = np.where((np.arange(1, len(x)) + lineage) % 2 == 0, 1.5, -1.0)
        drive[1:] += signs * np.tanh(x[:-1])
        return drive - x

    return slope


@pytest.fixture(scope="session")
def make_adata(true_slope) -> Callable[..., AnnData]:
    """Factory of simulated cells, in no order of time: a chain of genes that differs between the lineages.

    obs has ``dpt_pseudotime``, ``lineage`` and ``donor``; obsm has ``memberships``, in which early cells belong to every
    lineage. Values are exact in float32, so that both precisions hold the same data.
    """

    def make(
        n_obs: int = 120, n_vars: int = 8, n_lineages: int = 2, n_donors: int = 1, seed: int = 0, noise: float = 0.05
    ) -> AnnData:
        generator = np.random.default_rng(seed)
        lineage, donor = np.arange(n_obs) % n_lineages, (np.arange(n_obs) // n_lineages) % n_donors
        share = generator.uniform(size=n_obs)
        x = np.empty((n_obs, n_vars))
        times = np.empty(n_obs)
        for k in range(n_lineages):
            rows = np.flatnonzero(lineage == k)
            start = np.linspace(0.2, 1.0, n_vars)
            solution = solve_ivp(lambda _, y, k=k: true_slope(y, k), (0, SPANS[k]), start, dense_output=True, rtol=1e-6)
            times[rows] = START + SPANS[k] * share[rows]
            x[rows] = solution.sol(SPANS[k] * share[rows]).T
        x += generator.normal(0, noise, x.shape) + 0.1 * donor[:, None]
        obs = pd.DataFrame(
            {
                "dpt_pseudotime": times,
                "lineage": pd.Categorical(np.array(LINEAGES)[lineage], categories=LINEAGES[:n_lineages]),
                "donor": pd.Categorical([f"donor{d}" for d in donor]),
            },
            index=[f"cell{i}" for i in range(n_obs)],
        )
        adata = AnnData(x.astype(np.float32), obs, pd.DataFrame(index=[f"gene{j}" for j in range(n_vars)]))
        own = np.eye(n_lineages)[lineage]
        memberships = np.where((share < 0.3)[:, None], 0.5 * own + 0.5 / n_lineages, own)
        adata.obsm["memberships"] = pd.DataFrame(memberships, adata.obs_names, list(LINEAGES[:n_lineages]))
        return adata

    return make


@pytest.fixture
def adata(make_adata) -> AnnData:
    """120 cells × 8 genes in two lineages of one donor, to do with as one likes."""
    return make_adata()


@pytest.fixture(scope="session")
def fit() -> Callable[..., sn.SparseNODE]:
    """Set up and fit in a fraction of a second; ``setup``, ``train`` and keyword arguments of the model change it."""

    def run(adata: AnnData, setup: dict | None = None, train: dict | None = None, **model) -> sn.SparseNODE:
        sn.SparseNODE.setup_anndata(adata, **({"lineage_key": "lineage"} if setup is None else setup))
        fitted = sn.SparseNODE(adata, **({"objective": "trajectory", "hidden": (8, 8), "n_knots": 5} | model))
        quick = {"max_epochs": 2, "steps_per_epoch": 3, "accelerator": "cpu", "enable_progress_bar": False}
        fitted.train(**(quick | (train or {})))
        return fitted

    return run


@pytest.fixture(scope="session")
def fitted(make_adata, fit) -> sn.SparseNODE:
    """A model of two lineages in one donor with one field each. Not to be changed: make copies of its data."""
    return fit(make_adata(), train={"max_epochs": 20})


@pytest.fixture(scope="session")
def fitted_donors(make_adata, fit) -> sn.SparseNODE:
    """A model of two lineages × two donors with memberships, a shared field and two replicates. Not to be changed."""
    setup = {"lineage_key": "memberships", "batch_key": "donor"}
    regularizer = sn.regularizers.PathReg(strength=[0.01, 1.0], gates="weight")
    adata = make_adata(n_obs=160, n_donors=2, seed=1)
    return fit(adata, setup, {"max_epochs": 4}, regularizer=regularizer, fields="shared")


@pytest.fixture
def results(fitted) -> AnnData:
    """The cells of ``fitted`` with the results of the fit, to do with as one likes."""
    return fitted.adata.copy()


@pytest.fixture
def refused() -> Callable[..., str]:
    """Assert that setting up fails, with a message that holds all of the parts."""

    def check(adata: AnnData, error: type[Exception], *parts: str, **setup) -> str:
        with pytest.raises(error) as caught:
            sn.SparseNODE.setup_anndata(adata, **setup)
        message = str(caught.value)
        assert [part for part in parts if part not in message] == [], message
        return message

    return check


@pytest.fixture
def same_state() -> Callable[[sn.SparseNODE, sn.SparseNODE], bool]:
    """Whether two models have the same parameters and buffers, bit for bit."""

    def check(one: sn.SparseNODE, other: sn.SparseNODE) -> bool:
        first, second = one.module.state_dict(), other.module.state_dict()
        assert list(first) == list(second)
        return all(first[key].equal(second[key]) for key in first)

    return check
