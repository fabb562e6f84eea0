"""Trajectories, against the same field evaluated and integrated with numpy and scipy."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse
from scipy.integrate import solve_ivp

import sparsenode as sn
from sparsenode.model._prediction import FittedTrajectories

TIME = "dpt_pseudotime"


def initial_states(model: sn.SparseNODE) -> np.ndarray:
    """Initial states of a model in the units of the data, trajectories × genes."""
    module = model.module
    return module.initial_state.numpy() * module.scale.numpy() + module.centre.numpy()


# Predictions of cells and at times


@pytest.mark.parametrize("lineage", [0, 1])
def test_predictions_solve_the_equation(fitted, numpy_field, lineage, times_of):
    rows, times = times_of(fitted, fitted.lineages[lineage])
    start = initial_states(fitted)[lineage]
    field = numpy_field(fitted, lineage)
    solution = solve_ivp(lambda _, x: field(x)[0], times[[0, -1]], start, t_eval=times, rtol=1e-8, atol=1e-8)
    got = fitted.predict()[rows]
    assert np.ptp(got, axis=0).max() > 0.2  # it moves, so that staying would not pass
    np.testing.assert_allclose(got, solution.y.T, atol=1e-3)


@pytest.mark.parametrize("lineage", [0, 1])
def test_cells_and_times_agree(fitted, lineage, times_of, quietly):
    rows, times = times_of(fitted, fitted.lineages[lineage])
    along = quietly(fitted, times)
    assert along.shape == (2, 60, 8)
    np.testing.assert_allclose(along[lineage], fitted.predict()[rows], atol=1e-3)


def test_one_trajectory_has_no_leading_axis(adata, fit):
    model = fit(adata, setup={})
    start, end = model.trajectories.iloc[0][["start", "end"]]
    times = np.linspace(start, end, 7)
    assert model.predict(times=times).shape == (7, 8)
    assert model.predict(times=[start]).shape == (1, 8)
    order = np.argsort(adata.obs[TIME].to_numpy())
    np.testing.assert_allclose(
        model.predict(times=adata.obs[TIME].to_numpy()[order]), model.predict()[order], atol=1e-3
    )


def test_start_is_the_initial_state(fitted, times_of):
    for lineage in (0, 1):
        rows, _ = times_of(fitted, fitted.lineages[lineage])
        expected = initial_states(fitted)[lineage]
        np.testing.assert_allclose(fitted.predict()[rows[0]], expected, rtol=1e-5)


def test_initial_state_is_that_of_early_training_cells(fitted):
    training = np.isin(np.arange(120), fitted.train_indices)
    for k, (name, row) in enumerate(fitted.trajectories.iterrows()):
        own = (fitted.adata.obs["lineage"] == name).to_numpy() & training
        share = (fitted.adata.obs[TIME].to_numpy() - row["start"]) / (row["end"] - row["start"])
        expected = np.average(fitted.adata.X, axis=0, weights=own * np.exp(-0.5 * (share / 0.2) ** 2))
        np.testing.assert_allclose(initial_states(fitted)[k], expected, rtol=1e-4)


def test_memberships_weight_the_predictions(fitted_donors, quietly):
    model = fitted_donors
    table, donor = model.adata.obsm["memberships"], model.adata.obs["donor"]
    shared = np.flatnonzero((table > 0).all(axis=1).to_numpy() & (donor == "donor1").to_numpy())
    assert len(shared) > 5
    shared = shared[np.argsort(model.adata.obs[TIME].to_numpy()[shared])]
    along = quietly(model, model.adata.obs[TIME].to_numpy()[shared])
    names = list(model.trajectories.index)
    weights = table.iloc[shared].to_numpy()
    assert not np.allclose(weights, 0.5)
    expected = sum(
        weights[:, [k]] * along[names.index(f"{lineage}, donor1")] for k, lineage in enumerate(table.columns)
    )
    np.testing.assert_allclose(model.predict()[shared], expected, atol=1e-3)


def test_scale_of_the_memberships_does_not_matter_at_query(fitted_donors):
    cells, scaled = fitted_donors.adata.copy(), fitted_donors.adata.copy()
    scaled.obsm["memberships"] = scaled.obsm["memberships"] * 3.0
    np.testing.assert_allclose(fitted_donors.predict(scaled), fitted_donors.predict(cells), atol=1e-4)


def test_replicates_differ_and_are_checked(fitted_donors):
    one, other = (fitted_donors.predict(replicate=r) for r in (0, 1))
    assert not np.allclose(one, other, rtol=1e-3)
    for method in (fitted_donors.predict, fitted_donors.get_velocity, fitted_donors.evaluate):
        for wrong in (2, -1):
            with pytest.raises(ValueError, match=rf"`replicate` to be in \[0, 1\], found {wrong}"):
                method(replicate=wrong)


def test_mean_of_the_replicates(fitted_donors):
    mean = fitted_donors.predict(replicate="mean")
    np.testing.assert_allclose(mean, np.mean([fitted_donors.predict(replicate=r) for r in (0, 1)], 0), atol=1e-5)
    errors = [fitted_donors.evaluate(replicate=r)["mse"] for r in (0, 1, "mean")]
    assert (errors[2] <= 0.5 * (errors[0] + errors[1]) + 1e-9).all()  # the square is convex
    with pytest.raises(ValueError, match="found 'median'"):
        fitted_donors.predict(replicate="median")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_mean_goes_on_beyond_the_last_cell(fitted_donors):
    times = [1.0, 2.0, 3.0, 3.6]
    expected = np.mean([fitted_donors.predict(times=times, replicate=r) for r in (0, 1)], 0)
    np.testing.assert_allclose(fitted_donors.predict(times=times, replicate="mean"), expected, atol=1e-5)


def test_replicates_that_were_given_up_are_no_part_of_the_mean(fitted_donors, monkeypatch):
    monkeypatch.setattr(fitted_donors, "given_up_", [0])
    np.testing.assert_allclose(fitted_donors.predict(replicate="mean"), fitted_donors.predict(replicate=1), atol=1e-6)


def test_between_the_times_of_the_grid_cubics_are_exact_wherever_it_ends():
    cubics = [np.polynomial.Polynomial([0.3, -1.0, 2.0, 0.7]), np.polynomial.Polynomial([1.0, 0.5, -0.4, 0.1])]
    grid, times = np.linspace(0.0, 1.7, 6), np.array([-0.2, 0.0, 0.5, 1.6, 1.7, 2.0])
    states = np.stack([cubic(grid)[:, None] for cubic in cubics])
    slopes = np.stack([cubic.deriv()(grid)[:, None] for cubic in cubics])
    fitted = FittedTrajectories(1.7, states, slopes, states[:, 0])
    for m, cubic in enumerate(cubics):
        inside = times.clip(0.0, 1.7)
        np.testing.assert_allclose(fitted.at(m, times)[:, 0], cubic(inside))
        np.testing.assert_allclose(fitted.slope_at(m, times)[:, 0], cubic.deriv()(inside))


# Times


@pytest.mark.parametrize(
    "times",
    [[], [1.0, 1.0], [1.0, 0.9], [np.nan], [1.0, np.inf], 1.0, [[1.0, 1.1]]],
    ids=str,
)
def test_wrong_times(fitted, times):
    with pytest.raises(ValueError, match="`times` to be a non-empty sequence of finite, increasing numbers"):
        fitted.predict(times=times)


def test_times_that_are_no_numbers(fitted):
    with pytest.raises(TypeError, match=r"`times` to be numbers, found \['a'\]"):
        fitted.predict(times=["a"])
    with pytest.raises(TypeError, match=r"`times` to be numbers, found \['1', '2'\]"):
        fitted.predict(times=["1", "2"])
    with pytest.raises(ValueError, match=r"increasing numbers, found \[0.5, 0.2\]"):
        fitted.predict(times=[0.5, 0.2])
    with pytest.raises(ValueError, match="`replicate` to be in .*found True"):
        fitted.predict(replicate=True)


def test_cells_and_times_together(fitted, adata):
    with pytest.raises(ValueError, match="one of `adata` and `times`, found both"):
        fitted.predict(adata, times=[1.0])


def test_extrapolation_warns_how_far(fitted, numpy_field):
    start, end = fitted.trajectories.loc["erythroid", ["start", "end"]]
    beyond = end + 0.25 * (end - start)
    with pytest.warns(
        UserWarning,
        match=r"2 of 2 trajectories are extrapolated beyond their last cell.*{'erythroid': '25%', 'myeloid': '[0-9]+%'}",
    ) as seen:
        values = fitted.predict(times=[start, end, beyond])
    assert [warning.filename for warning in seen] == [__file__]  # one for both
    initial = initial_states(fitted)[0]
    field = numpy_field(fitted, 0)
    solution = solve_ivp(lambda _, x: field(x)[0], (start, beyond), initial, t_eval=[end, beyond], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(values[0, 1:], solution.y.T, atol=1e-3)


def test_before_the_start_is_the_initial_state(fitted):
    first = fitted.trajectories["start"].min()
    with pytest.warns(
        UserWarning, match=r"before the start of 2 of 2 trajectories, as many of 3: {'erythroid': 2, 'myeloid': 2}"
    ) as seen:
        values = fitted.predict(times=[first - 1.0, first - 0.5, fitted.trajectories["end"].min()])
    assert len(seen) == 1
    initial = initial_states(fitted)
    np.testing.assert_allclose(values[:, 0], initial, rtol=1e-5)
    np.testing.assert_allclose(values[:, 1], initial, rtol=1e-5)


def test_within_the_data_nothing_is_warned(fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fitted.predict(times=np.linspace(fitted.trajectories["start"].max(), fitted.trajectories["end"].min(), 3))


def test_explosion_is_named(adata, fit):
    model = fit(adata, decay=False, regularizer="none")
    with torch.no_grad():
        for weight in model.module.field.weights:
            weight.fill_(5.0)
        model.module.field.biases[0].fill_(1e3)  # beyond the bend of the activation: growth without a limit
    with pytest.raises(
        sn.DivergenceError, match="integration failed.*Predict less far ahead, or train again with a stronger"
    ):
        model.predict()
    with pytest.raises(sn.DivergenceError, match="integration failed.*Predict less far ahead"):
        model.simulate()
    model.fitted_ = "collocation"
    with pytest.raises(
        sn.DivergenceError, match=r"only collocation: .*or fit the trajectories too with `train\(objective="
    ):
        model.predict()


# Other cells


def test_new_donor_starts_from_its_own_early_cells(fitted, make_adata):
    other = make_adata(n_obs=100, seed=7)
    other.X += 0.3
    predicted = fitted.predict(other)
    for name in fitted.lineages:
        rows = np.flatnonzero(other.obs["lineage"] == name)
        times = other.obs[TIME].to_numpy()[rows]
        share = (times - times.min()) / np.ptp(times)
        start = np.average(other.X[rows], axis=0, weights=np.exp(-0.5 * (share / 0.2) ** 2))
        np.testing.assert_allclose(predicted[rows[times.argmin()]], start, rtol=1e-5)


@pytest.mark.parametrize("aligned", [True, False])
def test_new_donor_follows_the_field(make_adata, fit, numpy_field, aligned):
    """One that stays where trajectories were fitted; for others see :func:`test_regulators_saturate_for_other_donors_only`."""
    model = fit(make_adata(), align_batches=aligned, train={"max_epochs": 20})
    other = make_adata(n_obs=100, seed=7)
    other = other[other.obs[TIME] < 1.6].copy()
    rows = np.flatnonzero(other.obs["lineage"] == "myeloid")
    rows = rows[np.argsort(other.obs[TIME].to_numpy()[rows])]
    predicted, clock = model.predict(other)[rows], other.obs[TIME].to_numpy()[rows]
    clock = clock - clock[0]
    if aligned:  # the lineage takes as long as in training, whatever the span of the new donor
        row = model.trajectories.loc["myeloid"]
        clock = clock / clock[-1] * (row["end"] - row["start"])
    field = numpy_field(model, 1)
    solution = solve_ivp(lambda _, x: field(x)[0], clock[[0, -1]], predicted[0], t_eval=clock, rtol=1e-8, atol=1e-8)
    assert np.ptp(predicted, axis=0).max() > 0.2
    np.testing.assert_allclose(predicted, solution.y.T, atol=2e-3)


@pytest.mark.parametrize("aligned", [True, False])
def test_unit_of_pseudotime(make_adata, fit, aligned):
    """Aligned batches: another unit of pseudotime changes velocities only. Otherwise time has the unit of training."""
    model = fit(make_adata(), align_batches=aligned, train={"max_epochs": 5})
    other = make_adata(n_obs=100, seed=7)
    slow = other.copy()
    slow.obs[TIME] = slow.obs[TIME] * 2.0
    if aligned:
        np.testing.assert_allclose(model.predict(slow), model.predict(other), atol=1e-4)
        np.testing.assert_allclose(model.get_velocity(slow), model.get_velocity(other) / 2, atol=1e-4)
    else:
        assert np.abs(model.predict(slow) - model.predict(other)).max() > 0.05
        np.testing.assert_allclose(model.get_velocity(slow), model.get_velocity(other), atol=1e-4)


@pytest.mark.parametrize("aligned", [True, False])
def test_lengths_of_batches_in_training(make_adata, fit, aligned):
    """Aligned batches of a lineage have one length; otherwise every batch has its own in pseudotime."""
    adata = make_adata(n_donors=2)
    adata.obs.loc[adata.obs["donor"] == "donor1", TIME] *= 1.2
    setup = {"lineage_key": "lineage", "batch_key": "donor"}
    model = fit(adata, setup, {"max_epochs": 1, "key_added": None}, align_batches=aligned)
    table, module = model.trajectories, model.module
    lengths = pd.Series((module.relative_span * module.time_unit).numpy(), table.index)
    if aligned:
        assert (lengths.groupby(table["lineage"]).std() < 1e-5).all()
    else:
        np.testing.assert_allclose(lengths, table["end"] - table["start"], rtol=1e-5)


def test_some_of_the_own_cells_stay_on_the_trajectories_of_the_model(fitted_donors):
    """Whatever part of the trajectories they are, and however few."""
    adata = fitted_donors.adata
    late = np.flatnonzero(adata.obs[TIME] > np.median(adata.obs[TIME]))
    for rows in (late, late[::-7], late[:3], late[:1]):
        some = adata[rows].copy()
        some.obsm["memberships"] = some.obsm["memberships"] * 2.0
        np.testing.assert_allclose(fitted_donors.predict(some), fitted_donors.predict()[rows], atol=1e-5)
        np.testing.assert_allclose(
            fitted_donors.get_velocity(some), fitted_donors.get_velocity(indices=rows), atol=1e-5
        )
        np.testing.assert_allclose(
            fitted_donors.get_jacobian(range(len(rows)), adata=some), fitted_donors.get_jacobian(rows), atol=1e-5
        )
        pd.testing.assert_frame_equal(fitted_donors.evaluate(some), fitted_donors.evaluate(indices=rows))


def test_own_cells_with_rounded_times_are_still_their_own(fitted_donors):
    """As where pseudotime was stored in single precision."""
    some = fitted_donors.adata[:50].copy()
    some.obs[TIME] = some.obs[TIME].astype(np.float32)
    assert fitted_donors._cells(some).own
    np.testing.assert_allclose(fitted_donors.predict(some), fitted_donors.predict()[:50], atol=1e-5)


def test_own_cells_with_rounded_times_of_batches_in_unlike_units(make_adata, fit):
    """On the clock of the other batch their times are large, and so is rounding."""
    adata = make_adata(n_donors=2)
    adata.obs.loc[adata.obs["donor"] == "donor1", TIME] *= 100
    model = fit(adata, {"lineage_key": "lineage", "batch_key": "donor"})
    some = adata[:50].copy()
    some.obs[TIME] = some.obs[TIME].astype(np.float32)
    assert model._cells(some).own


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_some_of_the_own_cells_in_a_file(fitted, tmp_path, kind):
    import anndata

    cells = fitted.adata.copy()
    cells.uns, cells.X = {}, {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[kind](cells.X)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    rows = np.arange(60, 100)
    some = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")[rows]
    np.testing.assert_allclose(fitted.predict(some), fitted.predict()[rows], atol=1e-5)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(-1, None), slice(40, 90)])
def test_a_change_of_any_cell_makes_another_donor(fitted_donors, rows):
    other = fitted_donors.adata.copy()
    other.X[rows] += 2.0
    cells = fitted_donors._cells(other)
    assert not cells.own
    assert fitted_donors._cells(fitted_donors.adata.copy()).own


@pytest.mark.parametrize("change", ["names", "times", "expression", "donor"])
def test_other_cells_of_the_same_names_are_another_donor(fitted_donors, change):
    other = fitted_donors.adata.copy()
    if change == "names":
        other.obs_names = "other " + other.obs_names
    elif change == "times":
        other.obs[TIME] = other.obs[TIME] * 2.0
    elif change == "expression":
        other.X = other.X + 1.0
    else:
        other.obs["donor"] = other.obs["donor"].cat.rename_categories({"donor0": "donor1", "donor1": "donor0"})
    assert np.abs(fitted_donors.predict(other) - fitted_donors.predict()).max() > 1e-3


@pytest.mark.parametrize("change", ["time of one", "memberships", "one more"])
def test_cells_that_were_trained_on_are_known_by_time_and_memberships(fitted_donors, change):
    """Also where start and end of every trajectory stay."""
    cells = fitted_donors.adata
    some = cells[40:].copy()
    assert fitted_donors._cells(some).own
    if change == "time of one":
        inner = np.argsort(some.obs[TIME].to_numpy())[len(some) // 3]
        some.obs.loc[some.obs_names[inner], TIME] += 1e-3
    elif change == "memberships":
        shared = np.flatnonzero(some.obsm["memberships"].to_numpy().min(1) > 0)[0]
        some.obsm["memberships"].iloc[shared] = some.obsm["memberships"].iloc[shared].to_numpy()[::-1]
    else:
        some.obs_names = [*some.obs_names[:-1], "new"]
    assert not fitted_donors._cells(some).own


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_cells_need_no_names_of_their_own(fitted, make_adata, fit):
    other = make_adata(n_obs=100, seed=7)
    expected = fitted.predict(other)
    other.obs_names = ["cell"] * 100
    np.testing.assert_array_equal(fitted.predict(other), expected)
    own = make_adata()
    own.obs_names = ["cell"] * 120
    model = fit(own)
    assert model.predict(other).shape == (100, 8)
    assert model.predict(own[:50].copy()).shape == (50, 8)


def test_new_batch_is_a_new_donor(fitted_donors, make_adata):
    other = make_adata(n_obs=100, n_donors=2, seed=9)
    other.obs["donor"] = other.obs["donor"].cat.rename_categories(["donor8", "donor9"])
    predicted = fitted_donors.predict(other)
    assert np.isfinite(predicted).all()
    assert list(fitted_donors.evaluate(other).index) == [
        "erythroid, donor8",
        "erythroid, donor9",
        "myeloid, donor8",
        "myeloid, donor9",
        "total",
    ]
    alone = other[other.obs["donor"] == "donor9"].copy()
    np.testing.assert_allclose(
        predicted[(other.obs["donor"] == "donor9").to_numpy()], fitted_donors.predict(alone), atol=2e-3
    )


def test_one_lineage_alone(fitted, make_adata):
    other = make_adata(n_obs=100, seed=7)
    alone = other[other.obs["lineage"] == "myeloid"].copy()
    both = fitted.predict(other)[(other.obs["lineage"] == "myeloid").to_numpy()]
    np.testing.assert_allclose(fitted.predict(alone), both, atol=1e-4)
    assert list(fitted.evaluate(alone).index) == ["myeloid", "total"]


@pytest.mark.parametrize("options", [{"order": 2}, {"objective": "transport"}])
def test_fields_of_lineages_without_cells_disturb_nothing(make_adata, fit, options):
    """They would be integrated from starts of another lineage, where they may diverge."""
    model = fit(make_adata(240), fields="lineage", train={"max_epochs": 1}, **options)
    other = make_adata(seed=7)
    alone = other[other.obs["lineage"] == "erythroid"].copy()
    start = pd.Series(0.5, index=model.genes)
    predicted, simulated = model.predict(alone), model.simulate(start, lineage="erythroid", times=[0.1, 0.2])
    with torch.no_grad():
        model.module.field.weights[0][1] = 100.0
        model.module.field.weights[-1][1] = 100.0
    np.testing.assert_array_equal(model.predict(alone), predicted)
    again = model.simulate(start, lineage="erythroid", times=[0.1, 0.2])
    np.testing.assert_array_equal(again.unperturbed, simulated.unperturbed)


QUERIES = {
    "predict": lambda model, adata: model.predict(adata),
    "velocity": lambda model, adata: model.get_velocity(adata),
    "evaluate": lambda model, adata: model.evaluate(adata),
    "write_results": lambda model, adata: model.write_results(adata),
}


@pytest.fixture(params=QUERIES)
def query(request):
    return QUERIES[request.param]


def test_missing_genes_are_listed(fitted, make_adata, query):
    other = make_adata()[:, ["gene0", "gene3", "gene5", "gene1", "gene2", "gene7"]].copy()
    with pytest.raises(ValueError, match=r"all 8 genes of the fitted model, 2 are missing: \['gene4', 'gene6'\]"):
        query(fitted, other)


def test_new_lineage(fitted, make_adata, query):
    other = make_adata()
    other.obs["lineage"] = other.obs["lineage"].cat.rename_categories({"myeloid": "lymphoid"})
    with pytest.raises(ValueError, match=r"\['erythroid', 'myeloid'\], found new ones in 'lineage': \['lymphoid'\]"):
        query(fitted, other)


@pytest.mark.parametrize("key", [TIME, "lineage"])
def test_missing_keys(fitted, make_adata, query, key):
    other = make_adata()
    del other.obs[key]
    with pytest.raises(KeyError, match=f"found '{key}'"):
        query(fitted, other)


def test_missing_batch_key(fitted_donors, make_adata, query):
    other = make_adata()
    del other.obs["donor"]
    with pytest.raises(KeyError, match="`batch_key`.*found 'donor'"):
        query(fitted_donors, other)


def test_bad_expression_at_query(fitted, make_adata, query):
    other = make_adata()
    other.X[3, 4] = np.nan
    with pytest.raises(ValueError, match="found 1 NaN or infinite"):
        query(fitted, other)


@pytest.mark.parametrize(
    "numbers",
    [np.arange(8), pd.RangeIndex(8), np.linspace(0, 1, 8), pd.Index(range(8), dtype=object)],
    ids=["int", "range", "float", "object"],
)
def test_numbers_as_names_of_genes(fitted, make_adata, query, numbers):
    cells = make_adata()
    cells.var.index = pd.Index(numbers)
    for refuse in (sn.SparseNODE.setup_anndata, lambda other: query(fitted, other)):
        with pytest.raises(TypeError, match=r"names of genes that are strings.*var_names.astype\(str\)"):
            refuse(cells)
    cells.var_names = cells.var_names.astype(str)
    sn.SparseNODE.setup_anndata(cells)


def test_repeated_genes_at_query(fitted, make_adata, query):
    other = make_adata(n_vars=9)
    other.var_names = [*(f"gene{i}" for i in range(8)), "gene0"]
    with pytest.raises(ValueError, match="var_names_make_unique"):
        query(fitted, other)


@pytest.mark.parametrize("other", [np.zeros((20, 8)), pd.DataFrame(np.zeros((20, 8)))], ids=["array", "frame"])
def test_query_that_is_not_anndata(fitted, query, other):
    with pytest.raises(TypeError, match=f"AnnData.*found {type(other).__name__}"):
        query(fitted, other)


def test_further_genes_are_ignored(fitted, make_adata):
    other = make_adata()
    extra = AnnData(
        np.c_[np.full((120, 2), np.pi, dtype=np.float32), other.X],
        other.obs,
        pd.DataFrame(index=["x", "y", *other.var_names]),
    )
    np.testing.assert_array_equal(fitted.predict(extra), fitted.predict(other))
    np.testing.assert_array_equal(fitted.get_velocity(extra), fitted.get_velocity(other))


def test_predictions_change_nothing(fitted, adata):
    before = {key: value.clone() for key, value in fitted.module.state_dict().items()}
    x = fitted.adata.X.copy()
    fitted.predict()
    fitted.predict(adata)
    fitted.get_velocity()
    fitted.evaluate()
    assert all(before[key].equal(value) for key, value in fitted.module.state_dict().items())
    np.testing.assert_array_equal(fitted.adata.X, x)


# Replicates


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"fields": "shared"},
        {"objective": "both"},
        {"order": 2},
        {"order": 2, "initial_velocity": "observed"},
        {"regularizer": "grouplasso"},
        {"regularizer": sn.regularizers.LassoNet(skip="outer"), "train": {"schedule": "sparse"}},
    ],
    ids=str,
)
def test_a_replicate_that_diverges_does_not_disturb_the_others(make_adata, fit, arguments):
    adata, other = (make_adata(n_obs=240, seed=seed) for seed in (2, 3))
    model = fit(adata, n_seeds=2, **({"objective": "trajectory"} | arguments))
    model.selected_ = 1
    calls = [
        lambda: model.predict(),
        lambda: model.predict(other),
        lambda: model.predict(times=[0.0, 0.5, 1.0]),
        lambda: model.get_velocity(),
        lambda: model.simulate(knockout="gene0").perturbed,
        lambda: model.simulate(x0=model.predict()[:2], lineage=model.lineages[0], times=[0.5, 1.0]).perturbed,
        lambda: model.get_adjacency(),
        lambda: model.evaluate(other).to_numpy(),
    ]
    before = [call() for call in calls]
    with torch.no_grad():  # a field that sends everything away, ever faster
        for weight in model.module.field.weights:
            weight.unflatten(0, (2, -1))[0].abs_().mul_(1e3)
    after = [call() for call in calls]
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)
    model.write_results()
    np.testing.assert_array_equal(adata.obsm["sparsenode_trajectory"], before[0])
    for which in (0, "mean"):
        with pytest.raises(sn.DivergenceError, match="^Replicate 0 diverged"):
            model.predict(replicate=which)


def test_other_trajectories_that_are_solved_along_hardly_matter(make_adata):
    """All share the steps of the solver, so what its tolerance allows would show in a donor without its other lineage."""
    adata, donor = make_adata(n_obs=240, n_donors=2, seed=1), make_adata(n_obs=200, seed=5)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage", batch_key="donor")
    model = sn.SparseNODE(adata, objective="trajectory", hidden=(8,))
    model.train(max_epochs=20, accelerator="cpu", enable_progress_bar=False)
    own = (donor.obs["lineage"] == donor.obs["lineage"].iloc[0]).to_numpy()
    whole, alone = model.predict(donor)[own], model.predict(donor[own].copy())
    assert np.abs(whole - alone).max() < 1e-3 * whole.std(0).mean()
