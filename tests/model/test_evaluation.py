"""Scores, against predictions and null models recomputed with numpy."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import sparsenode as sn
from sparsenode.model._data import Cells

TIME = "dpt_pseudotime"
NULLS = ["null_zero", "null_initial", "null_mean", "null_smoothed"]


def clock(adata: AnnData, weights: np.ndarray) -> np.ndarray:
    """Times from the first to the last cell with a weight, in [0, 1] for these."""
    times = adata.obs[TIME].to_numpy()
    inside = times[weights > 0]
    return (times - inside.min()) / (inside.max() - inside.min())


def recompute(
    model: sn.SparseNODE,
    adata: AnnData,
    members: dict[str, np.ndarray],
    train_members: dict[str, np.ndarray],
    lineages: dict[str, str],
    initial: np.ndarray,
    predicted: Callable[[str], np.ndarray],
    chosen: np.ndarray,
) -> pd.DataFrame:
    """The table of ``evaluate`` from scratch.

    ``members`` has the weights of the cells in every trajectory, ``train_members`` those of the training cells of the
    model in its trajectories, ``lineages`` the lineage of either.
    """
    x = adata.X.astype(float)
    train_x = model.adata.X.astype(float)
    rows, sums = {}, []
    for m, (name, weights) in enumerate(members.items()):
        pool = [other for other in train_members if lineages[other] == lineages[name]]
        train_weights = np.concatenate([train_members[p] for p in pool])
        training = np.isin(np.arange(model.adata.n_obs), model.train_indices)
        train_weights = train_weights * np.tile(training, len(pool))
        train_clock = np.concatenate([clock(model.adata, train_members[p]) for p in pool])
        stacked = np.tile(train_x, (len(pool), 1))
        times = clock(adata, weights)
        kernel = np.exp(-0.5 * ((times[:, None] - train_clock[None, :]) / 0.05) ** 2) * train_weights
        predictions = {
            "mse": predicted(name),
            "null_zero": np.zeros_like(x),
            "null_initial": np.tile(initial[m], (len(x), 1)),
            "null_mean": np.tile(np.average(stacked, axis=0, weights=train_weights), (len(x), 1)),
            "null_smoothed": kernel @ stacked / kernel.sum(1, keepdims=True),
        }
        w = weights * chosen
        errors = {column: float(w @ np.square(x - p).mean(1)) for column, p in predictions.items()}
        rows[name] = {"n_cells": int((w > 0).sum())} | {column: e / w.sum() for column, e in errors.items()}
        sums.append(pd.Series(errors | {"weight": w.sum(), "n_cells": (w > 0).sum()}))
    total = sum(sums)
    table = pd.DataFrame(rows).T
    table.loc["total"] = [total["n_cells"], *(total[c] / total["weight"] for c in ["mse", *NULLS])]
    table["skill"] = 1 - table["mse"] / table[NULLS].min(axis=1)
    return table


def assert_same_table(got: pd.DataFrame, expected: pd.DataFrame, tolerance: float = 1e-4) -> None:
    assert list(got.index) == list(expected.index)
    np.testing.assert_allclose(got["mse"], expected["mse"], rtol=tolerance)
    for column in ["n_cells", "null_zero", "null_initial", "null_mean"]:
        np.testing.assert_allclose(got[column], expected[column], rtol=1e-4, err_msg=column)
    np.testing.assert_allclose(got["null_smoothed"], expected["null_smoothed"], rtol=0.005)
    np.testing.assert_allclose(got["skill"], 1 - got["mse"] / got[NULLS].min(axis=1), rtol=1e-6)


def initial_states(adata: AnnData, members: dict[str, np.ndarray], usable: np.ndarray | float = 1.0) -> np.ndarray:
    return np.stack(
        [
            np.average(adata.X, axis=0, weights=w * usable * np.exp(-0.5 * (clock(adata, w) / 0.2) ** 2))
            for w in members.values()
        ]
    )


def by_lineage(adata: AnnData) -> dict[str, np.ndarray]:
    return {name: (adata.obs["lineage"] == name).to_numpy().astype(float) for name in ("erythroid", "myeloid")}


def by_lineage_and_donor(adata: AnnData) -> dict[str, np.ndarray]:
    table, donor = adata.obsm["memberships"], adata.obs["donor"]
    return {
        f"{lineage}, {d}": (table[lineage] * (donor == d)).to_numpy() for lineage in table for d in sorted(set(donor))
    }


# The table


def test_columns_and_rows(fitted):
    table = fitted.evaluate()
    assert list(table.columns) == ["n_cells", "mse", *NULLS, "skill"]
    assert list(table.index) == ["erythroid", "myeloid", "total"]
    assert table.index.name == "trajectory"
    assert table["n_cells"].dtype == np.int64
    assert (table.dtypes.iloc[1:] == np.float64).all()
    assert table["n_cells"].tolist() == [60, 60, 120]


@pytest.mark.parametrize("indices", [None, [0, 5, 7, 80], "validation"], ids=str)
def test_against_numpy(fitted, indices):
    adata = fitted.adata
    rows = fitted.validation_indices if indices == "validation" else indices
    chosen = np.ones(120) if rows is None else np.isin(np.arange(120), rows).astype(float)
    members = by_lineage(adata)
    training = np.isin(np.arange(120), fitted.train_indices)
    expected = recompute(
        fitted,
        adata,
        members,
        members,
        {name: name for name in members},
        initial_states(adata, members, training),
        lambda _: fitted.predict(),
        chosen,
    )
    assert_same_table(fitted.evaluate(indices=rows), expected)


def test_weights_and_donors_against_numpy(fitted_donors):
    model, adata = fitted_donors, fitted_donors.adata
    members = by_lineage_and_donor(adata)
    training = np.isin(np.arange(160), model.train_indices)

    def predicted(name: str) -> np.ndarray:
        """Prediction of one trajectory, from the interface that takes times."""
        times = adata.obs[TIME].to_numpy()
        m = list(model.trajectories.index).index(name)
        unique, inverse = np.unique(times, return_inverse=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no cell outside a trajectory has a weight in it
            return model.predict(times=unique)[m][inverse]

    expected = recompute(
        model,
        adata,
        members,
        members,
        {name: name.split(", ")[0] for name in members},
        initial_states(adata, members, training),
        predicted,
        np.ones(160),
    )
    # Extrapolated grids are not those of the cells, hence the tolerance.
    assert_same_table(model.evaluate(), expected, tolerance=1e-3)


def test_other_donor_against_numpy(fitted, make_adata):
    """The initial state is the donor's own; the mean and the smoothed curve are those of training."""
    other = make_adata(n_obs=100, seed=11)
    other.X += 0.2
    shuffled = other[:, np.random.default_rng(0).permutation(8)].copy()
    members = by_lineage(other)
    expected = recompute(
        fitted,
        other,
        members,
        by_lineage(fitted.adata),
        {name: name for name in members},
        initial_states(other, members),
        lambda _: fitted.predict(other),
        np.ones(100),
    )
    assert_same_table(fitted.evaluate(other), expected)
    assert_same_table(fitted.evaluate(shuffled), expected)


@pytest.mark.parametrize("order", [1, 2])
def test_the_smoothed_curve_is_on_the_clock_that_batches_share(make_adata, fit, order):
    """One donor has early cells only: stretched to the whole length its cells would be compared with late ones."""
    adata = make_adata(n_obs=240, n_donors=2, seed=3)
    start, end = adata.obs.groupby("lineage", observed=True)[TIME].agg(["min", "max"]).to_numpy().T
    first = adata.obs["donor"] == adata.obs["donor"].iloc[0]
    adata = adata[~first | (adata.obs[TIME] < np.mean(start + 0.6 * (end - start)))].copy()
    model = fit(adata, {"lineage_key": "lineage", "batch_key": "donor"}, align_batches=False, order=order)
    other = make_adata(n_obs=120, seed=7)
    other = other[other.obs[TIME] < other.obs[TIME].median()].copy()
    other.obs["donor"] = "new"
    for cells, rows in ((adata, model.validation_indices), (other, np.arange(other.n_obs))):
        squares = []
        for lineage in model.lineages:
            own = np.intersect1d(model.train_indices, np.flatnonzero(adata.obs["lineage"] == lineage))
            wanted = np.intersect1d(rows, np.flatnonzero(cells.obs["lineage"] == lineage))
            length = np.ptp(adata.obs[TIME][adata.obs["lineage"] == lineage])
            apart = cells.obs[TIME].to_numpy()[wanted, None] - adata.obs[TIME].to_numpy()[own]
            kernel = np.exp(-0.5 * (apart / length / 0.05) ** 2)
            squares.append(np.square(cells.X[wanted] - kernel @ adata.X[own] / kernel.sum(1, keepdims=True)).mean(1))
        found = model.evaluate(None if cells is adata else cells, indices=rows).loc["total", "null_smoothed"]
        assert found == pytest.approx(np.concatenate(squares).mean(), rel=0.005)


def test_total_is_over_cells_not_over_trajectories(make_adata, fit):
    adata = make_adata()
    first, second = (np.flatnonzero(adata.obs["lineage"] == name) for name in ("erythroid", "myeloid"))
    table = fit(adata[np.r_[first, second[:15]]].copy()).evaluate()
    assert table["n_cells"].tolist() == [60, 15, 75]
    for column in ["mse", *NULLS]:
        weighted = (60 * table[column].iloc[0] + 15 * table[column].iloc[1]) / 75
        assert table.loc["total", column] == pytest.approx(weighted, rel=1e-9)
    assert not np.isclose(table["mse"].iloc[:2].mean(), table.loc["total", "mse"], rtol=1e-3)


def test_best_null_model_is_chosen_row_by_row(make_adata, fit):
    adata = make_adata()
    model = fit(adata)
    shrunk = adata.copy()
    shrunk.X *= 1e-3  # now zero is hard to beat
    table = model.evaluate(shrunk)
    assert (table[NULLS].idxmin(axis=1).isin(["null_zero", "null_initial"])).all()
    np.testing.assert_allclose(table["skill"], 1 - table["mse"] / table[NULLS].min(axis=1))


def test_a_good_fit_is_close_to_the_noise(make_adata, fit):
    """On another sample of the same system, after a longer training without a penalty."""
    train = {"max_epochs": 25, "steps_per_epoch": 4, "plan_kwargs": {"lr": 0.05}, "key_added": None}
    model = fit(make_adata(noise=0.1), train=train, regularizer="none", bootstrap=False)
    table = model.evaluate(make_adata(noise=0.1, seed=1))
    assert (table["mse"] < 2 * 0.1**2).all()


def test_persistence_goes_on_from_a_smoothed_end(make_adata, fit):
    """Not from the last noisy cells."""
    adata = make_adata(n_obs=800, noise=0.5)
    model = fit(adata, train={"max_epochs": 1, "key_added": None})
    last = adata.obs.groupby("lineage", observed=True)["dpt_pseudotime"].idxmax()
    clean = make_adata(n_obs=800, noise=0.0)[last[model.lineages]].X
    assert np.sqrt(np.square(model.null_models_.last - clean).mean()) < 0.2


def test_trajectories_without_chosen_cells_are_left_out(fitted):
    rows = np.flatnonzero(fitted.adata.obs["lineage"] == "myeloid")[:4]
    table = fitted.evaluate(indices=rows)
    assert list(table.index) == ["myeloid", "total"]
    np.testing.assert_allclose(table.iloc[0], table.iloc[1])


def test_no_other_cells_are_read_than_those_that_are_scored(fitted, monkeypatch):
    """Of a large file, some cells take no longer than so many."""
    chunks, read = Cells.chunks, []

    def counted(cells, rows=None):
        for first, x in chunks(cells, rows):
            read.append(len(x))
            yield first, x

    monkeypatch.setattr(Cells, "chunks", counted)
    monkeypatch.setattr(type(fitted), "_warn_of_other_expression", lambda *_: None)  # reads some cells
    fitted.evaluate(indices=[3, 50])
    assert read == [2]


def test_no_cells(fitted):
    with pytest.raises(ValueError, match="found none in `indices`"):
        fitted.evaluate(indices=[])


@pytest.mark.parametrize("method", ["evaluate", "get_velocity"])
@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 120], r"`indices` in \[-120, 119\], found 0 to 120"),
        ([-121, 3], r"found -121 to 3"),
        (np.ones(60, dtype=bool), r"mask over 120 cells in `indices`, found shape \(60,\)"),
    ],
    ids=["too large", "too small", "short mask"],
)
def test_indices_out_of_range(fitted, method, indices, message):
    with pytest.raises(IndexError, match=message):
        getattr(fitted, method)(indices=indices)


def test_mask_as_indices(fitted):
    mask = np.arange(120) % 4 == 0
    pd.testing.assert_frame_equal(fitted.evaluate(indices=mask), fitted.evaluate(indices=np.flatnonzero(mask)))


def test_whether_to_forecast_is_a_boolean(fitted):
    with pytest.raises(TypeError, match="`forecast` to be True or False, found 'no'"):
        fitted.evaluate(forecast="no")


def test_replicates(fitted_donors):
    one, other = (fitted_donors.evaluate(replicate=r) for r in (0, 1))
    assert not np.allclose(one["mse"], other["mse"], rtol=1e-3)
    np.testing.assert_array_equal(one[NULLS], other[NULLS])


# Forecasts


def test_cells_after_the_end_of_another_lineage_alone_are_no_forecasts(fitted):
    """Cells of the longer lineage are later than the end of the shorter one."""
    with pytest.raises(ValueError, match="later than the training trajectories"):
        fitted.evaluate(forecast=True)


def test_chosen_cells_that_are_not_later_are_no_forecasts(make_adata, fit):
    adata = make_adata()
    early = adata.obs[TIME].to_numpy() < 1.6
    model = fit(adata[early].copy())
    assert model.evaluate(adata, forecast=True, indices=~early).loc["total", "n_cells"] == (~early).sum()
    with pytest.raises(ValueError, match="later than the training trajectories"):
        model.evaluate(adata, forecast=True, indices=early)


def test_forecasts_are_those_of_the_replicate(make_adata, fit):
    adata = make_adata()
    early = adata[adata.obs[TIME] < 1.6].copy()
    model = fit(early, n_seeds=2)
    other = 1 - model.selected_
    by_default, expected = model.evaluate(adata, forecast=True), model.evaluate(adata, forecast=True, replicate=other)
    assert not np.allclose(by_default["mse"], expected["mse"], rtol=1e-3)
    model.selected_ = other
    pd.testing.assert_frame_equal(model.evaluate(adata, forecast=True), expected)
