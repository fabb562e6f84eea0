"""Save and load, with and without data."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

import sparsenode as sn

QUICK = {"max_epochs": 2, "steps_per_epoch": 3, "accelerator": "cpu", "enable_progress_bar": False}


@pytest.fixture
def folder(fitted, tmp_path):
    """The saved model, without data."""
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def cells(fitted):
    return fitted.adata.copy()


def assert_same(one: sn.SparseNODE, other: sn.SparseNODE) -> None:
    np.testing.assert_array_equal(one.predict(), other.predict())
    np.testing.assert_array_equal(one.get_velocity(), other.get_velocity())
    np.testing.assert_array_equal(one.get_adjacency(), other.get_adjacency())
    pd.testing.assert_frame_equal(one.evaluate(), other.evaluate())
    pd.testing.assert_series_equal(one.get_sparsity(), other.get_sparsity())


def test_a_path_is_no_data(folder):
    with pytest.raises(
        TypeError, match="`adata` to be an AnnData or MuData object, found str. A file has to be read first"
    ):
        sn.SparseNODE.load(folder, "cells.h5ad")


def test_another_attribute_that_is_missing_is_reported_as_it_is(folder, cells, monkeypatch):
    """Such as that of a module that has lost the class of a regularizer."""

    def fails(*args, **kwargs):
        raise AttributeError("Can't get attribute 'LogPaths' on <module '__main__'>")

    monkeypatch.setattr("scvi.model.base.BaseModelClass.load", fails)
    with pytest.raises(AttributeError, match="LogPaths"):
        sn.SparseNODE.load(folder, cells)


@pytest.mark.parametrize("which", ["fitted", "fitted_donors"])
def test_with_data(which, request, tmp_path):
    model = request.getfixturevalue(which)
    model.save(tmp_path / "model", save_anndata=True)
    loaded = sn.SparseNODE.load(tmp_path / "model")
    assert loaded.is_trained_
    assert_same(loaded, model)
    np.testing.assert_array_equal(loaded.validation_indices, model.validation_indices)
    assert loaded.selected_ == model.selected_
    assert set(loaded.history) == set(model.history)
    assert repr(loaded.module.regularizer) == repr(model.module.regularizer)
    assert list(loaded.genes) == list(model.genes)
    pd.testing.assert_frame_equal(loaded.trajectories, model.trajectories)
    pd.testing.assert_frame_equal(
        loaded.evaluate(indices=loaded.validation_indices), model.evaluate(indices=model.validation_indices)
    )


def test_on_the_same_cells(fitted, folder, cells):
    assert_same(sn.SparseNODE.load(folder, adata=cells), fitted)


def test_loaded_model_can_be_trained_on(folder, cells):
    loaded = sn.SparseNODE.load(folder, adata=cells)
    before = loaded.get_adjacency()
    loaded.train(max_epochs=1, steps_per_epoch=2, accelerator="cpu", enable_progress_bar=False)
    assert not np.array_equal(loaded.get_adjacency(), before)


def test_loaded_model_trains_on_as_the_original_would(adata, fit, tmp_path, same_state):
    """Bit for bit: the random streams start anew with every training."""
    model = fit(adata)
    model.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=adata.copy())
    for each in (model, loaded):
        each.train(max_epochs=2, steps_per_epoch=2, accelerator="cpu", enable_progress_bar=False)
    assert same_state(model, loaded)


@pytest.mark.parametrize("argument", ["prior", "path_weights"])
def test_tables_that_change_later_are_saved_as_they_were(adata, fit, tmp_path, argument):
    edges = pd.DataFrame({"source": ["gene1"], "target": ["gene2"], "weight": [0.9]})
    genes = list(adata.var_names)
    tables = {"prior": edges, "path_weights": pd.DataFrame(np.full((8, 8), 2.0), index=genes, columns=genes)}
    model = fit(adata, regularizer="cnode", **{argument: tables[argument]})
    before = model.module.field.path_weights.clone()
    tables["prior"]["source"] = "gene3"
    tables["path_weights"].iloc[0, 1] = 100.0
    model.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=adata)
    assert torch.equal(loaded.module.field.path_weights, before)


def test_a_trained_model_can_be_copied(adata, fit):
    """With a regularizer whose proximal steps need the weights of the last step."""
    model = fit(adata, regularizer="cnode")
    assert_same(copy.deepcopy(model), model)


@pytest.mark.parametrize("regularizer", ["cnode", "pathreg", "l0"])
def test_a_trained_model_can_be_pickled(adata, fit, regularizer):
    """As joblib and multiprocessing do; gates have a learning rate of their own."""
    model = fit(adata, regularizer=regularizer)
    assert_same(pickle.loads(pickle.dumps(model)), model)


def test_on_permuted_genes(fitted, folder, cells):
    loaded = sn.SparseNODE.load(folder, adata=cells[:, ::-1].copy())
    assert list(loaded.genes) == list(fitted.genes)
    assert_same(loaded, fitted)


def test_on_missing_genes(folder, cells):
    with pytest.raises(ValueError, match=r"1 are missing: \['gene3'\]"):
        sn.SparseNODE.load(folder, adata=cells[:, [0, 1, 2, 4, 5, 6, 7]].copy())


def test_on_expression_that_cannot_be_used(folder, cells):
    cells.X[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        sn.SparseNODE.load(folder, adata=cells)


def test_on_a_new_lineage(folder, cells):
    cells.obs["lineage"] = cells.obs["lineage"].cat.rename_categories({"myeloid": "lymphoid"})
    with pytest.raises(ValueError, match=r"new ones in 'lineage': \['lymphoid'\]"):
        sn.SparseNODE.load(folder, adata=cells)


def test_on_another_donor(fitted, folder, make_adata):
    """Its predictions are those of a query with it, whatever data the model is loaded with."""
    other = make_adata(n_obs=100, seed=5)
    loaded = sn.SparseNODE.load(folder, adata=other)
    np.testing.assert_array_equal(loaded.predict(), fitted.predict(other))
    pd.testing.assert_frame_equal(loaded.evaluate(), fitted.evaluate(other))
    np.testing.assert_array_equal(loaded.get_adjacency(), fitted.get_adjacency())


def test_some_cells_of_another_donor_are_another_donor(fitted, folder, make_adata):
    """With their own start and clock, as without the data that the model was loaded with."""
    other = make_adata(n_obs=100, seed=5)
    some = other[:40].copy()
    loaded = sn.SparseNODE.load(folder, adata=other)
    np.testing.assert_array_equal(loaded.predict(some), fitted.predict(some))


def test_genes_in_another_order_are_matched_without_a_warning(fitted, folder, cells, recwarn):
    loaded = sn.SparseNODE.load(folder, adata=cells[:, ::-1].copy())
    np.testing.assert_array_equal(loaded.predict(), fitted.predict())
    assert not [one for one in recwarn if "var_names" in str(one.message)]


def test_without_cells_none_are_recognised(fitted, folder, cells, caplog):
    loaded = sn.SparseNODE.load(folder, adata=False)
    assert "Loaded without cells: all cells that it is given count as another donor" in caplog.text
    some = cells[cells.obs["dpt_pseudotime"] < cells.obs["dpt_pseudotime"].median()].copy()
    assert not np.allclose(loaded.predict(some), fitted.predict(some), atol=1e-3)
    some.obs_names = "other " + some.obs_names
    np.testing.assert_allclose(loaded.predict(some), fitted.predict(some), atol=1e-6)


def test_some_of_the_cells_are_said_to_be_another_donor(folder, cells, caplog):
    sn.SparseNODE.load(folder, adata=cells[:40].copy())
    assert "pass `indices`: now they count as another donor, whose pseudotime is stretched" in caplog.text


def test_held_out_cells_of_other_data_are_not_known(fitted, folder, cells, make_adata, caplog):
    same = sn.SparseNODE.load(folder, adata=cells)
    np.testing.assert_array_equal(same.validation_indices, fitted.validation_indices)
    assert "other cells" not in caplog.text
    loaded = sn.SparseNODE.load(folder, adata=make_adata(n_obs=100, seed=5))
    assert "`validation_indices` and `test_indices` are empty" in caplog.text
    assert len(loaded.train_indices) == len(loaded.validation_indices) == 0
    with pytest.raises(ValueError, match="given other cells"):
        loaded.evaluate(indices=loaded.validation_indices)


def test_some_of_the_cells_are_stretched_where_batches_are_aligned_alone(adata, fit, tmp_path, caplog):
    fit(adata, align_batches=False).save(tmp_path / "model")
    sn.SparseNODE.load(tmp_path / "model", adata=adata[:40].copy())
    assert "now they count as another donor." in caplog.text


def test_held_out_cells_on_another_clock_are_not_known(folder, cells):
    """They have the same names, but start and end elsewhere: evaluated, they are those of another donor."""
    cells.obs["dpt_pseudotime"] *= 2
    loaded = sn.SparseNODE.load(folder, adata=cells)
    assert len(loaded.train_indices) == len(loaded.validation_indices) == 0


def test_test_cells_of_other_data_are_not_known(adata, fit, make_adata, tmp_path):
    model = fit(adata, train={"train_size": 0.7, "validation_size": 0.1})
    assert len(model.test_indices) > 0
    model.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=make_adata(n_obs=100, seed=5))
    assert len(loaded.test_indices) == 0


def test_held_out_cells_in_another_order_are_not_known(fitted, folder, cells, caplog):
    """Their positions would name cells that were trained on."""
    loaded = sn.SparseNODE.load(folder, adata=cells[::-1].copy())
    assert "in another order" in caplog.text
    assert len(loaded.train_indices) == len(loaded.validation_indices) == 0
    loaded.write_results()
    assert "held_out_scores" not in loaded.adata.uns["sparsenode"]
    np.testing.assert_array_equal(loaded.get_adjacency(), fitted.get_adjacency())


def test_training_on_other_cells_takes_their_clock(fitted, folder, make_adata, tmp_path, cells):
    """Times are those of the new cells, also after saving, and only in the model that was trained."""
    other = make_adata(n_obs=100, seed=5)
    other.obs["dpt_pseudotime"] *= 3
    loaded = sn.SparseNODE.load(folder, adata=other)
    loaded.train(**QUICK)
    seen = other.X[loaded.train_indices]
    np.testing.assert_allclose(loaded.data_range_, [seen.min(0), seen.max(0)], rtol=1e-6)
    times = other.obs.groupby("lineage", observed=True)["dpt_pseudotime"]
    assert loaded.trajectories["n_cells"].tolist() == [50, 50]
    assert loaded.trajectories["end"].tolist() == times.max().tolist()
    assert len(loaded.validation_indices) == 10
    assert "held_out_scores" in other.uns["sparsenode"]
    rows = other.obs["lineage"] == "myeloid"
    first = other[rows].obs["dpt_pseudotime"].argsort().iloc[30]
    time = other[rows].obs["dpt_pseudotime"].iloc[first]
    np.testing.assert_allclose(loaded.predict(times=[time])[1, 0], loaded.predict()[rows][first], atol=1e-5)
    loaded.save(tmp_path / "again")
    again = sn.SparseNODE.load(tmp_path / "again", adata=other)
    pd.testing.assert_frame_equal(again.trajectories, loaded.trajectories)
    assert_same(again, loaded)
    assert not fitted.trajectories.equals(loaded.trajectories)


def test_annotations_that_change_after_set_up(adata, fit, make_adata, tmp_path):
    expected = fit(make_adata())
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    one, other = (sn.SparseNODE(adata, objective="trajectory", hidden=(8, 8), n_knots=5) for _ in range(2))
    adata.obs["dpt_pseudotime"] *= 10
    one.train(**QUICK)
    np.testing.assert_allclose(one.trajectories["end"], 10 * expected.trajectories["end"])
    np.testing.assert_allclose(other.trajectories["end"], expected.trajectories["end"])
    np.testing.assert_allclose(one.predict(), expected.predict(), atol=1e-4)
    np.testing.assert_allclose(one.get_velocity(), expected.get_velocity() / 10, atol=1e-4)
    other.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=adata)
    pd.testing.assert_frame_equal(loaded.trajectories, other.trajectories)


@pytest.mark.parametrize(
    ("donors", "message"),
    [
        (
            ["donor0", "donor2"],
            r"new ones \['erythroid, donor2', 'myeloid, donor2'\] and missing ones \['erythroid, donor1'",
        ),
        (["donor0", "donor0"], r"new ones \[\] and missing ones .* or make a new model"),
    ],
    ids=str,
)
def test_other_trajectories_cannot_be_trained_on(fitted_donors, tmp_path, donors, message):
    fitted_donors.save(tmp_path / "model")
    cells = fitted_donors.adata.copy()
    named = cells.obs["donor"].astype(str).map(dict(zip(["donor0", "donor1"], donors, strict=True)))
    cells.obs["donor"] = pd.Categorical(named, pd.unique(np.array(donors)))
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=cells)
    before = loaded.get_adjacency()
    with pytest.raises(ValueError, match=message):
        loaded.train(**QUICK)
    pd.testing.assert_frame_equal(loaded.get_adjacency(), before)


def test_categories_of_batches_may_have_another_order(fitted_donors, tmp_path):
    """As numbers have that become texts: 2 is before 10, and "10" before "2"."""
    fitted_donors.save(tmp_path / "model")
    cells = fitted_donors.adata.copy()
    cells.obs["donor"] = cells.obs["donor"].cat.reorder_categories(["donor1", "donor0"])
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=cells)
    np.testing.assert_array_equal(loaded.validation_indices, fitted_donors.validation_indices)
    np.testing.assert_array_equal(loaded.predict(), fitted_donors.predict())
    pd.testing.assert_frame_equal(loaded.evaluate(), fitted_donors.evaluate())
    fitted_donors.train(**QUICK)
    loaded.train(**QUICK)
    np.testing.assert_allclose(loaded.predict(), fitted_donors.predict(), rtol=1e-5, atol=1e-5)


def test_times_that_were_trained_on_stay_with_any_further_cells(fitted_donors, tmp_path):
    """The last training tells the clock, and not what was set up when the model was made."""
    other = fitted_donors.adata.copy()
    other.obs_names = "other_" + other.obs_names
    other.obs["dpt_pseudotime"] *= 1.5
    fitted_donors.adata = other
    fitted_donors.train(**QUICK)
    fitted_donors.adata = other.copy()
    fitted_donors.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=other)
    pd.testing.assert_frame_equal(loaded.trajectories, fitted_donors.trajectories)
    np.testing.assert_array_equal(loaded.validation_indices, fitted_donors.validation_indices)
    np.testing.assert_array_equal(loaded.predict(), fitted_donors.predict())


def test_without_data(fitted, folder, make_adata):
    with pytest.warns(UserWarning, match="data"):
        loaded = sn.SparseNODE.load(folder)
    assert loaded.adata is None
    other = make_adata(n_obs=100, seed=5)
    np.testing.assert_array_equal(loaded.predict(other), fitted.predict(other))
    np.testing.assert_array_equal(loaded.get_velocity(other), fitted.get_velocity(other))
    pd.testing.assert_frame_equal(loaded.evaluate(other), fitted.evaluate(other))
    np.testing.assert_array_equal(loaded.get_adjacency(), fitted.get_adjacency())
    times = np.linspace(0.7, 1.5, 4)
    np.testing.assert_array_equal(loaded.predict(times=times), fitted.predict(times=times))
    loaded.write_results(other)
    assert "sparsenode" in other.uns


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", ["predict", "get_velocity", "evaluate", "write_results", "train"])
def test_without_data_some_must_be_given(folder, method):
    loaded = sn.SparseNODE.load(folder)
    with pytest.raises(ValueError, match="data"):
        getattr(loaded, method)()


def test_untrained_model(adata, tmp_path, caplog):
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    model = sn.SparseNODE(adata, objective="trajectory", hidden=(8, 8), seed=4)
    model.save(tmp_path / "model", save_anndata=True)
    loaded = sn.SparseNODE.load(tmp_path / "model")
    assert not loaded.is_trained_
    assert "other cells" not in caplog.text  # no cell was held out that could be forgotten
    assert all(value.equal(loaded.module.state_dict()[key]) for key, value in model.module.state_dict().items())
