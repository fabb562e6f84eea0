"""Velocities, against the same field evaluated with numpy, and slopes of trajectories."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import sparsenode as sn

TIME = "dpt_pseudotime"


@pytest.mark.parametrize("lineage", [0, 1])
def test_velocity_is_the_field_at_the_cells(fitted, numpy_field, lineage, times_of):
    rows, _ = times_of(fitted, fitted.lineages[lineage])
    expected = numpy_field(fitted, lineage)(fitted.adata.X[rows].astype(float))
    got = fitted.get_velocity()[rows]
    assert np.abs(got).max() > 0.1
    np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("replicate", [0, 1])
def test_velocity_with_a_shared_field_and_memberships(fitted_donors, numpy_field, replicate):
    """Aligned: a lineage runs through one span in every donor, so each trajectory has its own clock."""
    model, spans = fitted_donors, fitted_donors.trajectories["end"] - fitted_donors.trajectories["start"]
    slopes = numpy_field(model, 0, replicate)(model.adata.X.astype(float))
    # Every donor has every lineage: the mean is that of the logarithms.
    mean = np.exp(np.log(spans).groupby(model.trajectories["lineage"]).transform("mean"))
    rate = (mean / spans).to_dict()
    table, donor = model.adata.obsm["memberships"], model.adata.obs["donor"]
    clock = sum(
        table[lineage].to_numpy() * np.array([rate[f"{lineage}, {d}"] for d in donor]) for lineage in table.columns
    )
    np.testing.assert_allclose(model.get_velocity(replicate=replicate), clock[:, None] * slopes, atol=1e-4)


def test_cells_are_evaluated_in_their_own_fields_only(make_adata, fit, numpy_field, monkeypatch):
    """Some belong to one lineage, others to several: the mean over all fields is the oracle."""
    adata = make_adata(n_obs=120, n_donors=2, seed=2)
    table = adata.obsm["memberships"]
    model = fit(adata, {"lineage_key": "memberships", "batch_key": "donor"}, align_batches=False)
    assert 0 < (table > 0).to_numpy().sum() - len(table) < len(table)
    share = table.div(table.sum(1), axis=0)[model.lineages].to_numpy()
    x = adata.X.astype(float)
    expected = sum(share[:, [m]] * numpy_field(model, m)(x) for m in range(len(model.lineages)))
    evaluate, points = model.module.field.evaluate, []

    def counting(states, effective):
        points.append(states.shape[0] * states.shape[1])
        return evaluate(states, effective)

    monkeypatch.setattr(model.module.field, "evaluate", counting)
    np.testing.assert_allclose(model.get_velocity(), expected, atol=1e-4)
    assert sum(points) == (table > 0).to_numpy().sum()


@pytest.mark.parametrize("initial_state", ["kernel", "learned"])
def test_velocity_has_the_drift_of_a_skip_after_the_integration(adata, fit, quietly, initial_state):
    """The skip times the initial state of the trajectory of each cell, for the replicate that is asked for."""
    penalty, train = sn.regularizers.LassoNet(0.01, skip="outer"), {"schedule": "sparse", "plan_kwargs": {"lr": 0.1}}
    model = fit(adata, regularizer=penalty, n_seeds=2, train=train, initial_state=initial_state)
    plain = copy.deepcopy(model)
    with torch.no_grad():
        plain.module.field.weights[-1].zero_()
    centre, scale = model.module.centre.double().numpy(), model.module.scale.double().numpy()
    unit = float(model.module.time_unit)
    for replicate in (0, 1):
        drift = model.get_velocity(replicate=replicate) - plain.get_velocity(replicate=replicate)
        for m, (lineage, row) in enumerate(model.trajectories.iterrows()):
            skip = model.module.field.weights[-1][2 * replicate + m].detach().double().numpy()
            start = quietly(model, [row["start"]], replicate=replicate)[m, 0]
            expected = scale * (skip @ ((start - centre) / scale)) / unit
            own = (adata.obs["lineage"] == lineage).to_numpy()
            np.testing.assert_allclose(drift[own], np.broadcast_to(expected, (own.sum(), 8)), rtol=1e-3, atol=1e-4)
            assert np.abs(expected).max() > 0.01


def test_velocity_is_the_derivative_of_the_trajectory(fitted, quietly):
    """At predicted states, against finite differences of the predictions."""
    start, end = fitted.trajectories.loc["myeloid", ["start", "end"]]
    times = np.linspace(start, end, 201)
    states = quietly(fitted, times)[1]
    on_curve = AnnData(
        states.astype(np.float32),
        pd.DataFrame({TIME: times, "lineage": "myeloid"}, index=[f"c{i}" for i in range(201)]),
        pd.DataFrame(index=fitted.genes),
    )
    slopes = np.gradient(states, times, axis=0)
    np.testing.assert_allclose(fitted.get_velocity(on_curve)[2:-2], slopes[2:-2], atol=5e-3)


@pytest.mark.parametrize(
    "indices",
    [[5], [3, 1, 119], np.arange(10, 40), [-1, 0], [7, 7, 2, 7], []],
    ids=["one", "any order", "array", "from the end", "repeated", "none"],
)
def test_velocity_of_some_cells(fitted, indices):
    expected = fitted.get_velocity()[np.asarray(indices, dtype=int)]
    got = fitted.get_velocity(indices=indices)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_velocity_of_a_mask(fitted):
    mask = np.arange(120) % 3 == 0
    np.testing.assert_allclose(fitted.get_velocity(indices=mask), fitted.get_velocity()[mask], atol=1e-5)


def test_velocity_in_second_order_is_the_slope_of_the_trajectories_of_a_cell(make_adata, fit, quietly):
    """By its memberships, which need not sum to one, against differences of predictions at times on either side."""
    adata, step = make_adata(), 1e-3
    adata.obsm["memberships"] *= np.random.default_rng(0).uniform(0.2, 1.0, (adata.n_obs, 1))
    model = fit(adata, {"lineage_key": "memberships"}, order=2)
    times, shares = adata.obs[TIME].to_numpy(), adata.obsm["memberships"].to_numpy()
    shares = shares / shares.sum(1, keepdims=True)
    inside = (times > 0.6) & (times < 1.9)
    rows = np.append(*(np.flatnonzero(inside & ((shares.min(1) > 0) == shared))[:10] for shared in (True, False)))
    assert len(rows) == 20
    grid = np.unique(np.concatenate([times[rows] - step, times[rows] + step]))
    states = quietly(model, grid)
    before, after = (states[:, np.searchsorted(grid, times[rows] + shift)] for shift in (-step, step))
    expected = np.einsum("cm,mcg->cg", shares[rows], (after - before) / (2 * step))
    np.testing.assert_allclose(model.get_velocity(indices=rows), expected, rtol=0.01, atol=0.01)
