"""Save and load, with and without data."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest

import sparsenode as sn


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


def test_a_trained_model_can_be_copied(adata, fit):
    """With a regularizer whose proximal steps need the weights of the last step."""
    model = fit(adata, regularizer="cnode")
    assert_same(copy.deepcopy(model), model)


def test_on_permuted_genes(fitted, folder, cells):
    loaded = sn.SparseNODE.load(folder, adata=cells[:, ::-1].copy())
    assert list(loaded.genes) == list(fitted.genes)
    assert_same(loaded, fitted)


def test_on_missing_genes(folder, cells):
    with pytest.raises(ValueError, match=r"1 are missing: \['gene3'\]"):
        sn.SparseNODE.load(folder, adata=cells[:, [0, 1, 2, 4, 5, 6, 7]].copy())


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


def test_untrained_model(adata, tmp_path):
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    model = sn.SparseNODE(adata, objective="trajectory", hidden=(8, 8), seed=4)
    model.save(tmp_path / "model", save_anndata=True)
    loaded = sn.SparseNODE.load(tmp_path / "model")
    assert not loaded.is_trained_
    assert all(value.equal(loaded.module.state_dict()[key]) for key, value in model.module.state_dict().items())
