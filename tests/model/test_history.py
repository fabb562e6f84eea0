"""Metrics of several trainings stand at the epochs that they are of."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sparsenode as sn
from sparsenode.model._history import continued, history_table

QUICK = {"steps_per_epoch": 2, "accelerator": "cpu", "enable_progress_bar": False}


@pytest.fixture
def model(make_adata):
    adata = make_adata(n_obs=200)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    return sn.SparseNODE(adata, objective="trajectory", hidden=(4,))


def table(model: sn.SparseNODE) -> pd.DataFrame:
    return model.adata.uns["sparsenode"]["history"]


def test_epochs_are_counted_on(model):
    model.train(3, **QUICK)
    first = table(model).copy()
    model.train(4, **QUICK)
    assert list(table(model).index) == list(range(7))
    pd.testing.assert_frame_equal(table(model).iloc[:3], first)
    assert table(model).notna().all(None)


def test_held_out_cells_that_are_not_scored_in_every_epoch(model):
    model.train(3, check_val_every_n_epoch=2, **QUICK)
    model.train(4, check_val_every_n_epoch=2, **QUICK)
    scored = table(model)["validation_error"].dropna()
    assert list(scored.index) == [1, 4, 6]
    assert table(model)["train_error"].notna().all()


def test_a_training_without_held_out_cells_between_two_others(model):
    for n_epochs, train_size in ((3, 0.9), (4, 1.0), (2, 0.9)):
        model.train(n_epochs, train_size=train_size, **QUICK)
    assert list(table(model)["validation_error"].dropna().index) == [0, 1, 2, 7, 8]
    assert list(table(model).index) == list(range(9))


def test_metrics_that_only_the_later_training_has(model):
    model.train(2, train_size=1.0, **QUICK)
    assert "validation_error" not in model.history
    model.train(3, **QUICK)
    assert list(model.history["validation_error"].index) == [2, 3, 4]


@pytest.mark.filterwarnings("ignore:Training diverged in epoch")
def test_a_training_that_diverges_counts_up_to_there(model, monkeypatch):
    model.train(2, **QUICK)
    before, calls = table(model).copy(), iter(range(100))
    solve = sn.module.SparseNODEModule.trajectories

    def diverge(*args, **keywords):  # in the fourth step, and ever after
        if next(calls) >= 4:
            raise sn.DivergenceError("The solution diverged.")
        return solve(*args, **keywords)

    monkeypatch.setattr(sn.module.SparseNODEModule, "trajectories", diverge)
    with pytest.raises(sn.DivergenceError):
        model.train(3, train_size=1.0, **QUICK)
    monkeypatch.undo()
    n_epochs = len(model.history["train_loss"])
    assert 2 < n_epochs < 5
    pd.testing.assert_frame_equal(history_table(model.history).iloc[:2], before)
    model.train(1, **QUICK)
    assert list(table(model).index) == list(range(n_epochs + 1))


def test_another_logger_leaves_the_history(model):
    model.train(2, **QUICK)
    before = table(model).copy()
    model.train(1, logger=False, **QUICK)
    pd.testing.assert_frame_equal(history_table(model.history), before)


def test_tables_that_were_there_are_not_changed():
    earlier = {"loss": pd.DataFrame({"loss": [3.0, 2.0]}, index=pd.Index([0, 1], name="epoch"))}
    later = {name: pd.DataFrame({name: [1.0]}, index=pd.Index([0], name="epoch")) for name in ("loss", "error")}
    found = continued(earlier, later)
    assert [len(frames["loss"]) for frames in (earlier, later)] == [2, 1]
    np.testing.assert_array_equal(history_table(found), [[3, np.nan], [2, np.nan], [1, 1]])
