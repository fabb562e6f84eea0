"""A training that does not come to its end leaves the model as it was."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback

import sparsenode as sn
from sparsenode.regularizers import CNODE

QUICK = {"max_epochs": 3, "steps_per_epoch": 4, "accelerator": "cpu", "enable_progress_bar": False, "key_added": None}
SMALL = {"hidden": (6, 6), "n_knots": 5}
ALL = pytest.mark.parametrize("objective", ["trajectory", "transport", "collocation", "both"])


class Interrupt(Callback):
    """What pressing Ctrl+C after the first epoch does."""

    def on_train_epoch_end(self, trainer, plan):
        raise KeyboardInterrupt


@pytest.fixture
def cells(make_adata):
    adata = make_adata(n_obs=240, seed=2)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    return adata


@pytest.fixture
def new(cells):
    return lambda objective: sn.SparseNODE(cells, CNODE(0.3), objective=objective, **SMALL)


def interrupted(model: sn.SparseNODE, **arguments) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        model.train(**(QUICK | arguments), callbacks=[Interrupt()])


def everything(model: sn.SparseNODE) -> dict:
    """Attributes of a model, copied, without what is compared otherwise."""
    kept = {name: value for name, value in vars(model).items() if name not in ("module", "trainer")}
    return copy.deepcopy({name: value for name, value in kept.items() if "adata" not in name})


def same(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, pd.DataFrame):
        return one.equals(other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, list | tuple) and len(one) and isinstance(one[0], list | np.ndarray):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "toarray"):
        return np.array_equal(one.toarray(), other.toarray())
    return repr(one) == repr(other)


@ALL
def test_an_interruption_leaves_a_trained_model_as_it_was(new, objective, same_state):
    """Other held-out cells and half of the units would be those of the training that was broken off."""
    model = new(objective)
    model.train(**QUICK)
    module, before, attributes = model.module, copy.deepcopy(model), everything(model)
    error = model.evaluate()
    interrupted(model, train_size=0.5)
    assert model.module is module
    assert not module.training
    assert same_state(model, before)
    changed = everything(model)
    assert [name for name in changed if name not in attributes or not same(changed[name], attributes[name])] == []
    assert list(changed) == list(attributes)
    pd.testing.assert_frame_equal(model.evaluate(), error)


@ALL
def test_after_an_interruption_training_starts_anew(new, objective, same_state):
    """Neither the network nor the weights of the fit that was broken off are left."""
    model, expected = new(objective), new(objective)
    names = list(vars(model))
    interrupted(model)
    assert list(vars(model)) == names
    assert not model.is_trained_
    assert not model.module.training
    with pytest.raises(RuntimeError, match="untrained"):
        model.predict()
    for each in (model, expected):
        each.train(**QUICK)
    assert same_state(model, expected)
    pd.testing.assert_frame_equal(model.get_adjacency(), expected.get_adjacency())


def test_a_fine_tuning_that_is_interrupted_does_not_count(new, same_state):
    model = new("transport")
    model.train(**QUICK)
    before = copy.deepcopy(model)
    interrupted(model, objective="trajectory")
    assert model.fitted_ == "transport"
    assert same_state(model, before)


def test_cells_that_are_refused_late_leave_no_trace(new, cells, same_state):
    """That nothing varies is found after initial states were taken from these cells."""
    model = new("trajectory")
    model.train(**QUICK)
    before, attributes = copy.deepcopy(model), everything(model)
    x = cells.X.copy()
    cells.X[:] = 1.0
    with pytest.raises(ValueError, match="every gene constant"):
        model.train(**QUICK)
    cells.X = x
    assert same_state(model, before)
    assert same(everything(model), attributes)


def test_a_fine_tuning_that_cannot_begin_leaves_no_trace(new, same_state):
    """Where the trajectories of every replicate diverge, nothing was fitted."""
    model = new("collocation")
    model.train(**QUICK)
    model.module.field.biases[-1].data.fill_(1e6)
    before, attributes = copy.deepcopy(model), everything(model)
    with pytest.raises(sn.DivergenceError, match="every replicate diverge"):
        model.train(**QUICK, objective="trajectory", train_size=0.5)
    assert same_state(model, before)
    assert same(everything(model), attributes)


def test_results_that_cannot_be_written_do_not_undo_a_training(new, monkeypatch):
    """A long training is not lost to a full disk."""
    model = new("trajectory")

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(model, "_write", full)
    with pytest.raises(OSError, match="no space"):
        model.train(**(QUICK | {"key_added": "fit"}))
    assert model.is_trained_
    assert np.isfinite(model.predict()).all()


@pytest.mark.parametrize("trained", [False, True])
def test_an_interruption_after_the_last_epoch_leaves_neither_history_nor_attributes(adata, monkeypatch, trained):
    """As while errors are computed: the epochs are in the history by then."""
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    model = sn.SparseNODE(adata, objective="trajectory", hidden=(4,), n_knots=5)
    if trained:
        model.train(**QUICK)
    names, history = set(vars(model)), copy.deepcopy(model.history_)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sn.SparseNODE, "_make_path", interrupt)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            model.train(**QUICK)
    assert set(vars(model)) == names
    if not trained:
        assert model.history_ == history
        return
    assert list(model.history_) == list(history)
    assert all(model.history_[name].equals(history[name]) for name in history)
