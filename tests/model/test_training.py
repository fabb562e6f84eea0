"""Training: its arguments, what it leaves in the model, and that a seed fixes everything."""

from __future__ import annotations

import gc
import random
import re
import weakref
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import rich.pretty  # scvi-tools uses it without importing it  # noqa: F401
import scvi
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, LambdaCallback

import sparsenode as sn
from sparsenode.module import Field, SparseNODEModule
from sparsenode.module._solve import Solver
from sparsenode.objectives import Transport
from sparsenode.regularizers import CNODE

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
QUICK = {"max_epochs": 2, "steps_per_epoch": 3} | QUIET


def new(adata, **arguments) -> sn.SparseNODE:
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    return sn.SparseNODE(adata, **({"objective": "trajectory", "hidden": (8, 8), "n_knots": 5} | arguments))


# Training


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"max_epochs": 0}, "`max_epochs`.*at least 1, found 0"),
        ({"max_epochs": 1.5}, "`max_epochs`"),
        ({"steps_per_epoch": 0}, "`steps_per_epoch`"),
        ({"train_size": 0.0}, r"`train_size` to be in \(0, 1\], found 0.0"),
        ({"train_size": 1.2}, "`train_size` .* found 1.2"),
        ({"train_size": None}, "`train_size` .* found None"),
        ({"validation_size": "0.1"}, "`validation_size` .* found '0.1'"),
        ({"train_size": 0.9, "validation_size": 0.2}, "`train_size` and `validation_size` .* found 0.9 and 0.2"),
        ({"devices": 2}, "one device, found `devices=2`"),
        ({"accelerator": "mps"}, "double precision.*found `accelerator='mps'`.*Take `accelerator='cpu'`"),
        ({"devices": [0, 1]}, r"one device, found `devices=\[0, 1\]`"),
        ({"devices": "0,1"}, "one device, found `devices='0,1'`"),
        ({"precision": "64-true"}, "single precision.* found `precision='64-true'`"),
        ({"precision": "bf16-mixed"}, "single precision.* found `precision='bf16-mixed'`"),
        ({"gradient_clip_algorithm": "value"}, "`gradient_clip_algorithm='norm'`, found 'value'"),
        ({"gradient_clip_val": 0.0}, "`gradient_clip_val`.*found 0.0"),
        ({"objective": "collocation"}, r"`objective`.*\['trajectory'\], found 'collocation'"),
        ({"schedule": "iterativ"}, r"`schedule`.*\['sparse', 'iterative'\], found 'iterativ'"),
    ],
    ids=str,
)
def test_wrong_settings_of_training(adata, train, message):
    model = new(adata)
    with pytest.raises(ValueError, match=message):
        model.train(**(QUICK | train))
    assert not model.is_trained_


class Settings(Callback):
    """Notes the settings of every fit, and ends it."""

    seen: ClassVar[list[tuple[float, ...]]] = []

    def on_fit_start(self, trainer, plan):
        self.seen.append((trainer.max_epochs, plan.lr, plan.gate_lr))
        trainer.fit_loop.max_epochs = 1


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("trajectory", [(50, 0.01, 0.05)]),
        ("transport", [(40, 0.02, 0.05)]),
        ("collocation", [(100, 0.03, 1.0)]),
        ("both", [(40, 0.02, 0.05), (50, 0.01, 0.05)]),
    ],
)
def test_settings_by_default(make_adata, monkeypatch, objective, expected):
    monkeypatch.setattr(Settings, "seen", [])
    model = new(make_adata(240), objective=objective)
    model.train(steps_per_epoch=1, callbacks=[Settings()], key_added=None, **QUIET)
    assert Settings.seen == expected


def test_no_callbacks(adata):
    """As scripts pass on that were given none."""
    model = new(adata)
    model.train(callbacks=None, **QUICK)
    assert model.is_trained_


@pytest.fixture
def double():
    """Call it for double precision by default, as other libraries set it."""
    yield lambda: torch.set_default_dtype(torch.float64)
    torch.set_default_dtype(torch.float32)


def test_double_precision_by_default(adata, double):
    model = new(adata)
    double()
    with pytest.raises(ValueError, match=r"single precision.*found torch.float64.*set_default_dtype\(torch.float32\)"):
        model.train(**QUICK)


def test_no_model_of_double_precision(adata, fitted, double, tmp_path):
    """It could be used, but not be trained once the default is single precision again."""
    fitted.save(tmp_path / "model")
    double()
    for make in (lambda: new(adata), lambda: sn.SparseNODE.load(tmp_path / "model", adata=adata)):
        with pytest.raises(ValueError, match="single precision.*found torch.float64"):
            make()


def test_results_with_double_precision_by_default(fitted, double):
    gene = fitted.genes[0]
    expected = fitted.predict(), fitted.get_jacobian(indices=[0, 1]), fitted.simulate(knockout=gene).perturbed
    double()
    found = fitted.predict(), fitted.get_jacobian(indices=[0, 1]), fitted.simulate(knockout=gene).perturbed
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_early_stopping_needs_held_out_cells(adata):
    with pytest.raises(ValueError, match="held-out cells for `early_stopping`, found none. Lower `train_size`"):
        new(adata).train(**QUICK, early_stopping=True, train_size=1.0)


def test_early_stopping(adata):
    model = new(adata)
    train = QUICK | {"max_epochs": 30, "early_stopping_patience": 1, "early_stopping_min_delta": 1e6}
    model.train(**train, early_stopping=True)
    assert len(model.history["validation_loss"]) == 2


@pytest.mark.parametrize("monitor", [None, "train_error"])
def test_early_stopping_watches_the_held_out_loss_by_default(adata, monitor):
    model = new(adata)
    chosen = {} if monitor is None else {"early_stopping_monitor": monitor}
    model.train(**QUICK, **chosen, early_stopping=True, key_added=None)
    (stopping,) = (callback for callback in model.trainer.callbacks if isinstance(callback, EarlyStopping))
    assert stopping.monitor == (monitor or "validation_loss")


def test_history(fitted):
    assert isinstance(fitted.history, dict)
    expected = {"train_loss", "train_error", "train_penalty", "feature_sparsity", "weight_sparsity"}
    assert expected | {"validation_loss", "validation_error"} == set(fitted.history)
    for name, frame in fitted.history.items():
        assert isinstance(frame, pd.DataFrame)
        assert frame.shape == (20, 1)
        assert list(frame.columns) == [name]
        assert np.isfinite(frame.to_numpy(dtype=float)).all()
    loss = fitted.history["train_error"]["train_error"] + fitted.history["train_penalty"]["train_penalty"]
    np.testing.assert_allclose(loss.astype(float), fitted.history["train_loss"]["train_loss"].astype(float), rtol=1e-5)


def test_error_falls_and_the_last_sparsity_is_that_of_the_model(fitted):
    errors = fitted.history["train_error"]["train_error"].astype(float)
    assert errors.iloc[-1] < 0.5 * errors.iloc[0]
    shares = fitted.get_sparsity()
    assert fitted.history["feature_sparsity"].iloc[-1, 0] == pytest.approx(shares["feature"])
    assert fitted.history["weight_sparsity"].iloc[-1, 0] == pytest.approx(shares["weight"])


@pytest.mark.parametrize("train", [{}, {"train_size": 0.6, "validation_size": 0.2}], ids=str)
def test_error_of_the_history_is_that_of_the_model(adata, fit, train):
    """The last validation error is the squared error of the held-out cells over their variance around the means."""
    model = fit(adata, n_knots=17, train=train)
    held_out = model.validation_indices
    residual = squares = 0.0
    for lineage in model.lineages:
        own = (adata.obs["lineage"] == lineage).to_numpy()
        rows = held_out[own[held_out]]
        training = model.train_indices[own[model.train_indices]]
        residual += np.square(adata.X[rows] - model.predict()[rows]).sum()
        squares += np.square(adata.X[rows] - adata.X[training].mean(0)).sum()
    assert model.history["validation_error"].iloc[-1, 0] == pytest.approx(residual / squares, rel=2e-3)


def test_without_held_out_cells(adata, fit):
    model = fit(adata, train={"train_size": 1.0})
    assert "validation_error" not in model.history
    assert len(model.validation_indices) == 0
    np.testing.assert_array_equal(model.train_indices, np.arange(120))
    assert "held_out_scores" not in adata.uns["sparsenode"]


@pytest.mark.parametrize(
    ("train", "sizes"),
    [
        ({}, (108, 12, 0)),
        ({"train_size": 0.5}, (60, 60, 0)),
        ({"train_size": 0.5, "validation_size": 0.25}, (60, 30, 30)),
    ],
    ids=str,
)
def test_split(adata, fit, train, sizes):
    model = fit(adata, train={"max_epochs": 1, "key_added": None} | train)
    parts = (model.train_indices, model.validation_indices, model.test_indices)
    assert tuple(map(len, parts)) == sizes
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(120))
    assert (np.diff(model.train_indices) != 1).any()


def test_split_in_order(adata, fit):
    model = fit(adata, train={"shuffle_set_split": False, "key_added": None})
    np.testing.assert_array_equal(model.validation_indices, np.arange(108, 120))


def test_split_that_leaves_a_trajectory_without_cells(adata):
    adata = adata[np.argsort(adata.obs["lineage"].to_numpy(), kind="stable")].copy()
    with pytest.raises(ValueError, match=r"\['myeloid'\]. Raise `train_size`"):
        new(adata).train(**QUICK, train_size=0.5, shuffle_set_split=False)


def test_the_steps_are_those_of_the_last_training(adata, fit, caplog):
    model = fit(adata, train={"schedule": sn.training.IterativeSparsification(1, epochs_per_step=1), "key_added": None})
    assert len(model.sparsification_) == 2
    model.train(**QUICK, key_added=None)
    assert model.sparsification_ is None
    assert "goes back" not in caplog.text


def test_one_epoch(adata, fit):
    model = fit(adata, train={"max_epochs": 1, "steps_per_epoch": 1})
    assert len(model.history["train_error"]) == 1
    assert np.isfinite(model.predict()).all()


def test_held_out_cells_do_not_enter(adata, fit, same_state):
    """Another expression of the held-out cells changes their error and nothing else."""
    first = fit(adata, bootstrap=False)
    changed = adata.copy()
    changed.X[first.validation_indices] += 1.0
    second = fit(changed, bootstrap=False)
    np.testing.assert_array_equal(first.validation_indices, second.validation_indices)
    assert same_state(first, second)
    assert not second.history["validation_error"].equals(first.history["validation_error"])


def test_plan_arguments_reach_the_plan(adata, fit, same_state):
    plan = {"lr": 0.003, "gate_lr": 0.004, "weight_decay": 0.005, "max_grad_norm": 6.0}
    model = fit(adata, train={"plan_kwargs": plan})
    used = model.trainer.lightning_module
    assert {name: getattr(used, name) for name in plan} == plan
    rates = [group["initial_lr"] for group in model.trainer.optimizers[0].param_groups]
    assert rates == [0.003, 0.004]
    assert not same_state(model, fit(adata.copy()))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"learning_rate": 0.1},
            TypeError,
            r"\['lr', 'gate_lr', 'weight_decay', 'max_grad_norm'\], found \['learning_rate'\]",
        ),
        ({"refit": True}, TypeError, r"found \['refit'\]"),
        ({"dense_epochs": 99}, TypeError, r"found \['dense_epochs'\]"),
        ({"lr": -1}, ValueError, r"`plan_kwargs\['lr'\]` to be a positive number, found -1"),
        ({"lr": float("nan")}, ValueError, "found nan"),
        ({"max_grad_norm": 0}, ValueError, "'max_grad_norm'.*found 0"),
        ({"gate_lr": -0.1}, ValueError, "'gate_lr'.*non-negative.*found -0.1"),
        ({"weight_decay": "no"}, ValueError, "'weight_decay'.*found 'no'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("objective", ["trajectory", "both"])
def test_plan_arguments_are_checked_before_anything_is_done(
    make_adata, monkeypatch, objective, settings, error, message
):
    model = new(make_adata(240), objective=objective)
    monkeypatch.setattr(model, "_prepare", None)
    with pytest.raises(error, match=message):
        model.train(**QUICK, plan_kwargs=settings)


def test_gradients_may_be_left_as_they_are(adata):
    model = new(adata)
    model.train(**QUICK, plan_kwargs={"max_grad_norm": float("inf")})
    assert model.is_trained_


@pytest.mark.parametrize("name", ["early_stopping", "half_samples", "refit", "shuffle_set_split"])
def test_switches_are_booleans(adata, name):
    with pytest.raises(TypeError, match=f"`{name}` to be True or False, found 'no'"):
        new(adata, n_seeds=2).train(**QUICK, **{name: "no"})


def test_the_network_of_a_trained_model_takes_no_schedule(make_adata, fit):
    model = fit(make_adata(240), objective="both")
    for schedule in ("iterative", "nonsense"):
        with pytest.raises(ValueError, match=f"Expected no `schedule`.*found '{schedule}'.*Make a new model"):
            model.train(**QUICK, schedule=schedule)


def test_trainer_arguments_reach_the_trainer(adata, fit):
    model = fit(adata, train={"check_val_every_n_epoch": 2, "max_epochs": 4})
    assert model.trainer.check_val_every_n_epoch == 2
    assert model.history["validation_error"].dropna().shape[0] == 2


def test_checkpoints_can_be_loaded(adata, tmp_path, monkeypatch):
    monkeypatch.setattr(scvi.settings, "logging_dir", tmp_path)
    model = new(adata)
    model.train(**QUICK, enable_checkpointing=True)
    saved = list(tmp_path.glob("*/*"))
    assert len(saved) == 1
    best = sn.SparseNODE.load(saved[0], adata=adata)
    assert np.isfinite(best.predict()).all()
    assert best.evaluate().loc["total", "mse"] < 10


def test_checkpoint_of_the_last_epoch_is_the_model(adata, tmp_path, same_state):
    callback = scvi.train.SaveCheckpoint(dirpath=str(tmp_path), monitor="epoch", mode="max")
    model = new(adata)
    model.train(**QUICK, callbacks=[callback])
    (saved,) = tmp_path.glob("*")
    assert same_state(sn.SparseNODE.load(saved, adata=adata), model)


def test_checkpointing_does_not_change_the_fit(adata, fit, tmp_path, same_state, monkeypatch):
    monkeypatch.setattr(scvi.settings, "logging_dir", tmp_path)
    assert same_state(fit(adata.copy()), fit(adata.copy(), train={"enable_checkpointing": True}))


def test_training_again_goes_on_from_the_weights(adata, fit):
    model = fit(adata, train={"max_epochs": 10})
    before = model.history["train_error"].iloc[0, 0]
    model.train(**QUICK)
    assert model.is_trained_
    assert model.history["train_error"].iloc[-1, 0] < before
    assert model.history["train_error"].shape[1] == 1
    # The written results are those of the second training.
    np.testing.assert_array_equal(adata.obsm["sparsenode_trajectory"], model.predict())


@pytest.mark.parametrize("objective", ["trajectory", "collocation", "transport", "both"])
def test_training_again_keeps_the_units(make_adata, fit, objective):
    """Weights were learned in them, so other training cells must not change them."""
    units = ("centre", "scale", "rate")
    model = fit(make_adata(240), objective=objective, train={"key_added": None})
    before, deviation = [getattr(model.module, name).clone() for name in units], model.lineage_deviation_.copy()
    model.train(max_epochs=1, steps_per_epoch=1, train_size=0.6, accelerator="cpu", key_added=None)
    np.testing.assert_array_equal(model.lineage_deviation_, deviation)
    for name, unit in zip(units, before, strict=True):
        assert torch.equal(getattr(model.module, name), unit), name


def test_training_again_samples_gates_and_initial_states_again(adata, fit, monkeypatch):
    """Prediction switches the module to evaluation; training must switch it back."""
    model = fit(adata)
    modes = []
    forward = model.module.forward

    def watched(*args, **kwargs):
        modes.append(model.module.training)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.module, "forward", watched)
    model.train(**(QUICK | {"max_epochs": 1, "train_size": 1.0, "key_added": None}))
    assert modes[:3] == [True, True, True]


@pytest.mark.parametrize(
    ("train", "error"),
    [
        ({"early_stopping": True, "train_size": 1.0}, ValueError),
        ({"plan_kwargs": {"learning_rate": 0.1}}, TypeError),
        ({"accelerator": "abacus"}, ValueError),
    ],
    ids=["early stopping", "plan", "accelerator"],
)
def test_refused_training_leaves_a_trained_model_as_it_was(adata, fit, train, error):
    model = fit(adata)
    before = model.predict()
    with pytest.raises(error):
        model.train(**(QUICK | train))
    np.testing.assert_array_equal(model.predict(), before)


def test_data_that_went_bad_after_set_up(adata):
    model = new(adata)
    adata.obs.iloc[0, adata.obs.columns.get_loc("dpt_pseudotime")] = np.nan
    with pytest.raises(ValueError, match="found 1 of 120 cells missing"):
        model.train(**QUICK)


def test_constant_genes(adata, fit):
    adata.X[:, 2] = 0.0
    adata.X[:, 5] = 3.0
    with pytest.warns(UserWarning, match=r"2 of 8 genes in `adata.X` do not vary between cells: \['gene2', 'gene5'\]"):
        model = fit(adata, train={"max_epochs": 10})
    assert np.isfinite(model.get_adjacency().to_numpy()).all()
    assert np.isfinite(model.evaluate().to_numpy()).all()
    assert np.isfinite(adata.layers["sparsenode_velocity"]).all()


def test_only_constant_genes(adata):
    adata.X[:] = 1.0
    with pytest.warns(UserWarning, match="8 of 8 genes"), pytest.raises(ValueError, match="regulators that vary"):
        new(adata)


def test_one_gene(make_adata, fit):
    model = fit(make_adata(n_vars=1))
    assert model.get_adjacency().shape == (1, 1)
    assert model.predict().shape == (120, 1)


@pytest.mark.parametrize("regularizer", ["none", "cnode", "l0", "pathreg", "grouplasso", "lassonet"])
@pytest.mark.parametrize("fields", ["shared", "lineage"])
@pytest.mark.parametrize("skip", [False, True])
def test_every_combination_trains_and_predicts(adata, fit, regularizer, fields, skip):
    train = {
        "max_epochs": 1,
        "schedule": sn.training.IterativeSparsification(1, epochs_per_step=1) if skip else "sparse",
    }
    model = fit(adata, regularizer=regularizer, fields=fields, decay=fields == "shared", skip=skip, train=train)
    assert np.isfinite(model.predict()).all()
    assert model.get_adjacency().shape == (8, 8)


@pytest.mark.parametrize("solver", ["dopri8", "bosh3", "adaptive_heun", "euler", "midpoint", "heun3", "rk4"])
def test_other_solvers(adata, fit, solver):
    """They solve the same equation; Euler's method with its fixed steps less exactly."""
    model = fit(adata, solver=solver, train={"max_epochs": 1})
    found = model.predict()
    model.module.solver = Solver("dopri5", 1e-9, 1e-9)
    np.testing.assert_allclose(found, model.predict(), atol=2e-3 if solver == "euler" else 1e-5)


@pytest.mark.parametrize(
    "make",
    [
        *(sn.regularizers.PathReg, sn.regularizers.CNODE, sn.regularizers.GroupLasso, sn.regularizers.LassoNet),
        lambda strength: sn.regularizers.LassoNet(strength, "outer"),
    ],
    ids=["pathreg", "cnode", "grouplasso", "lassonet", "lassonet-outer"],
)
def test_strengths_times_seeds(adata, fit, make):
    """Replicates are strengths × seeds, and none of them knows of the others."""
    strengths = [0.01, 5.0]
    common = {"rtol": 1e-5, "atol": 1e-5, "seed": 3}
    if make(0.1).schedule == "iterative":
        common["train"] = {"schedule": sn.training.IterativeSparsification(2, epochs_per_step=1)}
    model = fit(adata, regularizer=make(strengths), n_seeds=2, **common)
    assert (model.module.n_replicates, model.module.seeds) == (4, [3, 4])
    for replicate, strength in enumerate(np.repeat(strengths, 2)):
        assert float(model.module.strength[replicate]) == pytest.approx(strength)
        if replicate in (0, 2):  # seed 3 also draws the split, so that the single fit sees the same cells
            single = fit(adata.copy(), regularizer=make(strength), **common)
            np.testing.assert_allclose(
                model.predict(replicate=replicate), single.predict(), rtol=5e-3, atol=5e-3, err_msg=str(replicate)
            )
    assert not np.allclose(model.get_adjacency(replicate=0), model.get_adjacency(replicate=1), rtol=0.05)
    assert not np.allclose(model.get_adjacency(replicate=0), model.get_adjacency(replicate=2), rtol=0.01)


def test_selected_replicate_has_the_smallest_held_out_error(fitted_donors):
    held_out = fitted_donors.validation_indices
    errors = [fitted_donors.evaluate(indices=held_out, replicate=r).loc["total", "mse"] for r in (0, 1)]
    assert abs(errors[0] - errors[1]) > 1e-3 * min(errors)
    assert fitted_donors.selected_ == int(np.argmin(errors))
    np.testing.assert_array_equal(fitted_donors.predict(), fitted_donors.predict(replicate=fitted_donors.selected_))


def test_the_schedule_is_that_of_the_regularizer_by_default(adata):
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    for name, expected in {"lassonet": True, "cnode": False}.items():
        schedule = sn.SparseNODE(adata, name, objective="trajectory")._schedule(None)
        assert isinstance(schedule, sn.training.IterativeSparsification) == expected
    model = sn.SparseNODE(adata, "cnode", objective="trajectory")
    assert model._schedule("iterative") == sn.training.IterativeSparsification()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_expression_that_is_constant_in_every_lineage_is_refused(adata, fit):
    adata.X[:] = 1.0 + (adata.obs["lineage"] == "myeloid").to_numpy(np.float32)[:, None]
    with pytest.raises(ValueError, match="vary between the cells of a trajectory, found every gene constant"):
        fit(adata)


@pytest.mark.parametrize(("train_size", "expected"), [(0.9, 1), (1.0, 0)])
def test_held_out_errors_decide_where_there_are_any(adata, fit, monkeypatch, train_size, expected):
    make = sn.SparseNODE._make_path

    def crossed(model, *arguments):
        table = make(model, *arguments)
        table["train_error"] = [0.1, 0.2]
        if train_size < 1:
            table["validation_error"] = [0.4, 0.3]
        return table

    monkeypatch.setattr(sn.SparseNODE, "_make_path", crossed)
    model = fit(adata, n_seeds=2, train={"max_epochs": 1, "train_size": train_size})
    assert model.selected_ == expected


def test_the_unit_of_the_module_is_the_deviation_from_the_means_of_trajectories(fitted):
    adata = fitted.adata[fitted.train_indices]
    lineage = adata.obs["lineage"].to_numpy()
    squares = [np.square(adata.X[lineage == k] - adata.X[lineage == k].mean(0)) for k in fitted.lineages]
    expected = np.sqrt(np.concatenate(squares).mean())
    np.testing.assert_allclose(fitted.module.scale, np.full(8, expected), rtol=1e-5)


# Seeds


@pytest.mark.parametrize("objective", ["trajectory", "both"])
def test_expression_far_from_zero_is_fitted_as_well(make_adata, fit, objective):
    """A decay to zero would pull trajectories there, however the units are chosen."""
    errors = {}
    for shift in (0.0, 30.0, 3000.0):
        adata = make_adata()
        adata.X = adata.X.astype(np.float64) - adata.X.mean(0) + shift
        model = fit(adata, objective=objective, train={"max_epochs": 10, "steps_per_epoch": 5})
        errors[shift] = model.evaluate().loc["total", "mse"]
        expected = adata.X.mean(0) if shift > 0 else np.zeros(adata.n_vars)
        held = model.module.centre.numpy()
        np.testing.assert_allclose(held, expected, atol=0.2 * adata.X.std())  # of training cells, by lineage
    assert errors[30.0] == pytest.approx(errors[0.0], rel=0.2)
    assert errors[3000.0] == pytest.approx(errors[0.0], rel=0.2)


@pytest.mark.parametrize("decay", [True, False])
def test_trajectories_alone_are_fitted_around_the_mean(make_adata, fit, decay):
    """With the zeros of a network they are not, where the mean is no more than three times the spread."""
    adata = make_adata()
    adata.X = adata.X - adata.X.mean(0) + adata.X.std()
    training = {"max_epochs": 1, "steps_per_epoch": 1, "train_size": 1.0}
    alone, both = (fit(adata, objective=name, decay=decay, train=training) for name in ("trajectory", "both"))
    np.testing.assert_allclose(alone.module.centre, adata.X.mean(0), rtol=0.1)  # lineages weigh alike
    assert (both.module.centre == 0).all()


def test_whole_numbers_of_numpy_and_a_single_callback(adata):
    """As of `n_seeds` and others; callbacks as in Lightning."""
    for settings in ({"order": np.int64(1)}, {"order": np.int64(2)}, {"objective": "both"}):
        model, epochs = new(adata, **settings), []
        model.train(
            np.int64(2),
            steps_per_epoch=np.int64(3),
            callbacks=LambdaCallback(on_train_epoch_end=lambda *_, seen=epochs: seen.append(1)),
            key_added=f"order {settings.get('order')}",
            **QUIET,
        )
        assert len(epochs) == (4 if "objective" in settings else 2)  # two fits
        assert f"order {settings.get('order')}_adjacency" in adata.varp


def test_same_seed_same_network_bit_for_bit(adata, fit, same_state):
    one, other = fit(adata.copy(), seed=5), fit(adata.copy(), seed=5)
    assert same_state(one, other)
    np.testing.assert_array_equal(one.get_adjacency(), other.get_adjacency())
    np.testing.assert_array_equal(one.predict(), other.predict())
    np.testing.assert_array_equal(one.get_velocity(), other.get_velocity())
    np.testing.assert_array_equal(one.validation_indices, other.validation_indices)


def test_another_seed_another_network(adata, fit, same_state):
    one, other = fit(adata.copy(), seed=5), fit(adata.copy(), seed=6)
    assert not same_state(one, other)
    assert not np.array_equal(one.get_adjacency(), other.get_adjacency())
    assert not np.array_equal(one.validation_indices, other.validation_indices)


def test_global_random_state_does_not_matter(adata, fit, same_state):
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        models.append(fit(adata.copy()))
    assert same_state(*models)


def test_setting_of_scvi_does_not_matter(adata, fit, same_state, monkeypatch):
    first = fit(adata.copy())
    monkeypatch.setattr(type(scvi.settings), "seed", 7)
    assert same_state(first, fit(adata.copy()))


def test_global_random_state_is_left_alone(adata, fit):
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    fit(adata)
    assert random.getstate() == before[2]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.get_rng_state().equal(before[0])


def test_threads_of_torch_are_left_alone(adata, fit, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    fit(adata, train={"max_epochs": 1})
    assert seen[-1] == 3


@pytest.mark.parametrize("objective", ["trajectory", "transport", "both"])
def test_a_trained_model_keeps_no_batches(adata, fit, monkeypatch, objective):
    """Those of transport are twice the expression."""
    prepare, kept = sn.SparseNODE._prepare, []

    def watched(*args):
        splitter = prepare(*args)
        kept.extend(weakref.ref(tensor) for batch in splitter.batches if batch for tensor in batch.values())
        return splitter

    monkeypatch.setattr(sn.SparseNODE, "_prepare", watched)
    model = fit(adata, objective=objective, train={"key_added": None})
    gc.collect()
    assert kept
    assert all(tensor() is None for tensor in kept)
    assert np.isfinite(model.trainer.callback_metrics["train_loss"])  # what users may ask the trainer for
    model.train(max_epochs=1, steps_per_epoch=1, key_added=None, enable_progress_bar=False)  # from new ones


# Half-samples


def test_half_samples_give_every_seed_other_cells(adata, fit):
    model = fit(adata, n_seeds=3, train={"half_samples": True})
    adjacencies = [model.get_adjacency(replicate=replicate) for replicate in range(3)]
    assert not any(np.allclose(adjacencies[r], adjacencies[(r + 1) % 3], rtol=0.01) for r in range(3))
    splitter = model._prepare(
        (model.train_indices, model.validation_indices, model.test_indices), 1, True, "trajectory"
    )
    for name in ("gram", "cross", "square"):
        halves, full = splitter.batches.training[name], splitter.batches.full[name]
        assert len(halves) == 3
        np.testing.assert_allclose(halves[0] + halves[1], full[0], rtol=1e-4, atol=1e-3)
        assert not np.allclose(halves[0], halves[2], rtol=0.01)
        assert not np.allclose(halves[1], halves[2], rtol=0.01)
    # The values among the basis functions sum to one for every cell, so this is their number.
    np.testing.assert_allclose(splitter.batches.training["gram"][..., :5, :5].sum((1, 2, 3)), [54] * 3, rtol=1e-4)


def test_half_samples_have_half_of_every_lineage(adata):
    model = new(adata, n_seeds=4)
    training = np.random.default_rng(0).random(adata.n_obs) < 0.8
    for mask in model._half_samples(model._cells(), training):
        assert not (mask & ~training).any()
        for lineage in adata.obs["lineage"].cat.categories:
            own = (adata.obs["lineage"] == lineage).to_numpy()
            assert abs(int((mask & own).sum()) - int((training & own).sum()) / 2) <= 0.5


def test_half_samples_are_drawn_with_the_seed(adata):
    models = [new(adata, n_seeds=2, seed=seed) for seed in (0, 0, 1)]
    first, same, other = (model._half_samples(model._cells(), np.ones(120, dtype=bool))[0] for model in models)
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_half_samples_need_several_seeds(adata):
    with pytest.raises(ValueError, match="at least two seeds for `half_samples`, found one. Raise `n_seeds`"):
        new(adata).train(**QUICK, half_samples=True)


def test_learned_initial_states_undo_noise_in_the_first_observations(fit):
    """Closer to the states without noise, at the first observation of every trial and at all later ones."""
    adata = sn.datasets.random_linear_system(n_genes=3, seed=1).simulate(n_trials=5, n_times=15)
    first = adata.obs["time"].to_numpy() == 0
    adata.X[first] += np.random.default_rng(0).normal(0, 0.7, (5, 3))
    common = {"regularizer": "none", "skip": True, "fields": "shared", "initial_bandwidth": 1e-3, "bootstrap": False}
    common["setup"] = {"time_key": "time", "batch_key": "trial"}
    common["train"] = {"max_epochs": 5, "steps_per_epoch": 10, "train_size": 1.0, "plan_kwargs": {"lr": 0.05}}
    noisy, learned = (
        np.square(fit(adata.copy(), initial_state=name, **common).predict() - adata.layers["noise_free"]).mean(1)
        for name in ("kernel", "learned")
    )
    assert noisy[first].mean() == pytest.approx(np.square(adata.X - adata.layers["noise_free"])[first].mean(), rel=1e-4)
    for rows in (first, ~first):
        assert learned[rows].mean() < 0.8 * noisy[rows].mean()


# Divergence


@pytest.mark.filterwarnings("ignore:Training diverged in epoch")
@pytest.mark.parametrize("lr", [1e4, 1e6])
def test_divergence_says_what_to_lower_and_leaves_a_usable_model(adata, lr):
    model = new(adata)
    # Three setbacks have left a 27th of it, which was too much.
    advice = f"Lower the learning rate, for instance `plan_kwargs={{'lr': {lr / 81:.2g}}}`"
    with pytest.raises(sn.DivergenceError, match=re.escape(advice)):
        model.train(**(QUICK | {"max_epochs": 5}), plan_kwargs={"lr": lr})
    assert all(torch.isfinite(value).all() for value in model.module.state_dict().values())
    assert not model.module.training
    assert np.isfinite(model.predict()).all()
    assert np.isfinite(model.get_adjacency().to_numpy()).all()


@pytest.fixture
def diverge_after(monkeypatch):
    """Let the loss of a model become NaN after some training steps."""

    def arrange(model: sn.SparseNODE, n_steps: int) -> SimpleNamespace:
        seen = SimpleNamespace(steps=0)
        forward = model.module.forward

        def broken(*args, **kwargs):
            effective, output = forward(*args, **kwargs)
            if model.module.training:
                seen.steps += 1
                if seen.steps > n_steps:
                    output.loss = output.loss * float("nan")
            return effective, output

        monkeypatch.setattr(model.module, "forward", broken)
        return seen

    return arrange


def test_a_learning_rate_that_is_too_large_is_lowered(adata):
    model = new(adata)
    with pytest.warns(UserWarning, match="goes on from an earlier state with `lr="):
        model.train(**(QUICK | {"max_epochs": 5}), plan_kwargs={"lr": 10.0})
    assert np.isfinite(model.predict()).all()


@pytest.mark.filterwarnings("ignore:Training diverged in epoch")
def test_divergence_later_keeps_the_best_state(adata, diverge_after):
    model = new(adata)
    diverge_after(model, 3 * 4 + 1)
    with pytest.raises(sn.DivergenceError, match="The loss became nan"):
        model.train(**(QUICK | {"max_epochs": 6}))
    assert model.is_trained_
    kept = [float(v) for v in model.history["validation_error"]["validation_error"]]
    assert len(kept) == 4
    # The best of the four epochs: its error on the held-out cells is the smallest of the history.
    held_out = np.sort(np.random.default_rng(0).permutation(120)[108:])
    mse = model.evaluate(indices=held_out).loc["total", "mse"]
    training = np.setdiff1d(np.arange(120), held_out)
    squares = n = 0.0
    for lineage in model.lineages:
        own = (adata.obs["lineage"] == lineage).to_numpy()
        rows = held_out[own[held_out]]
        squares += np.square(adata.X[rows] - adata.X[training[own[training]]].mean(0)).sum()
        n += len(rows) * 8
    assert mse * n / squares == pytest.approx(min(kept), rel=0.02)


@pytest.mark.filterwarnings("ignore:Training diverged in epoch")
def test_training_works_after_divergence(adata, diverge_after, monkeypatch):
    model = new(adata)
    diverge_after(model, 4)
    with pytest.raises(sn.DivergenceError):
        model.train(**QUICK)
    monkeypatch.undo()
    model.train(**QUICK)
    assert np.isfinite(model.predict()).all()


@pytest.mark.filterwarnings("ignore:Training diverged in epoch")
def test_errors_of_an_earlier_training_are_not_those_of_a_state_that_divergence_left(adata, fit, diverge_after):
    model = fit(adata, train={"schedule": sn.training.IterativeSparsification(1, epochs_per_step=1), "key_added": None})
    before = model.predict()
    diverge_after(model, 4)
    with pytest.raises(sn.DivergenceError):
        model.train(**QUICK, key_added=None)
    assert not np.array_equal(model.predict(), before)
    assert model.sparsification_ is None
    with pytest.raises(RuntimeError, match="found none: the training diverged"):
        model.select()


@pytest.mark.filterwarnings("ignore:Training diverged in epoch")
def test_cells_that_were_held_out_of_a_training_that_diverged_are_known(adata, fit, diverge_after):
    model = fit(adata, train={"train_size": 0.5, "key_added": None})
    before = set(model.train_indices)
    diverge_after(model, 4)
    with pytest.raises(sn.DivergenceError):
        model.train(**QUICK, train_size=0.8, key_added=None)
    trained, held_out = set(model.train_indices), set(model.validation_indices)
    assert len(trained) == round(0.8 * adata.n_obs)
    assert trained != before
    assert trained | held_out == set(range(adata.n_obs))
    assert not trained & held_out
    means = model.evaluate()["null_mean"]  # of the cells that were trained on
    assert means.drop("total").to_numpy() == pytest.approx(mean_errors(adata, model.train_indices), rel=1e-4)


def mean_errors(adata, training: np.ndarray) -> list[float]:
    """Error of the mean of the training cells of every lineage, on all of its cells."""
    known = np.isin(np.arange(adata.n_obs), training)
    members = [(adata.obs["lineage"] == name).to_numpy() for name in adata.obs["lineage"].cat.categories]
    return [np.square(adata.X[own] - adata.X[own & known].mean(0)).mean() for own in members]


class Spoil(Callback):
    """Spoils a replicate of four strengths or seeds before the last steps of a training, four times."""

    def __init__(self):
        self.left = 4

    def on_train_batch_start(self, trainer, plan, batch, batch_idx):
        if self.left and 1 not in plan.given_up and trainer.global_step >= 6:
            self.left -= 1
            with torch.no_grad():
                for weight in plan.module.field.weights:
                    weight.unflatten(0, (4, -1))[1] = float("nan")


@pytest.mark.filterwarnings("ignore:Training diverged in epoch", "ignore:The weakest of 2 strengths")
@pytest.mark.parametrize("objective", ["trajectory", "transport", "both"])
def test_the_others_go_on_without_a_replicate_that_diverges(adata, objective):
    model = new(adata, regularizer=CNODE([0.1, 0.3]), n_seeds=2, objective=objective)
    with pytest.warns(UserWarning, match=r"1 of 4 replicates diverge \(strengths 0.1\): they are given up for good"):
        model.train(**(QUICK | {"max_epochs": 6}), callbacks=Spoil())
    assert model.given_up_ == [1]
    assert np.isinf(model.get_regularization_path()["train_error"]).tolist() == [False, True, False, False]
    assert not model.get_adjacency(replicate=1).to_numpy().any()
    for replicate in (0, 2, 3):
        assert model.get_adjacency(replicate=replicate).to_numpy().any()
        assert np.isfinite(model.predict(replicate=replicate)).all()
    assert model.select("best", key_added=None).name != 1


@pytest.mark.filterwarnings("ignore:Training diverged in epoch")
def test_after_divergence_of_all_what_was_given_up_before_is_known(adata):
    class SpoilAll(Spoil):
        def on_train_batch_start(self, trainer, plan, batch, batch_idx):
            super().on_train_batch_start(trainer, plan, batch, batch_idx)
            if trainer.global_step >= 10:
                with torch.no_grad():
                    plan.module.field.weights[0].fill_(float("nan"))

    model = new(adata, regularizer=CNODE([0.1, 0.3]), n_seeds=2)
    with (
        pytest.warns(UserWarning, match="1 of 4 replicates"),
        pytest.raises(sn.DivergenceError, match="Lower the learning rate"),
    ):
        model.train(**(QUICK | {"max_epochs": 6}), callbacks=SpoilAll())
    assert model.given_up_ == [1]
    assert not model.get_adjacency(replicate=1).to_numpy().any()
    assert model.get_adjacency(replicate=0).to_numpy().any()


def test_divergence_is_a_runtime_error():
    assert issubclass(sn.DivergenceError, RuntimeError)


# Keys


@pytest.mark.parametrize("name", ["a/b", "", 1])
def test_names_that_a_file_cannot_hold(adata, fitted, name):
    with pytest.raises(ValueError, match=f"`key_added` to be a name without a slash.*found {name!r}"):
        new(adata).train(key_added=name)
    with pytest.raises(ValueError, match="`key_added`"):
        fitted.write_results(adata, key_added=name)
    assert not adata.uns.keys() & {name, "sparsenode"}


# Arguments of the trainer


@pytest.mark.parametrize("argument", ["epochs", "lr", "batch_size", "datasplitter_kwargs"])
def test_arguments_that_no_trainer_has_are_named(adata, argument):
    model = new(adata)
    with pytest.raises(TypeError, match=rf"found \['{argument}'\].*`max_epochs`.*plan_kwargs"):
        model.train(**QUICK, **{argument: 1})
    assert not model.is_trained_


def test_training_resumes_from_a_checkpoint(adata, tmp_path, monkeypatch):
    """An argument that only the runner of scvi-tools takes."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    monkeypatch.chdir(tmp_path)  # scvi-tools writes checkpoints of its own to the working directory
    model = new(adata)
    model.train(**QUICK, callbacks=[ModelCheckpoint(tmp_path, filename="kept")], enable_checkpointing=True)
    again = new(adata)
    again.train(**(QUICK | {"max_epochs": 2 * QUICK["max_epochs"]}), ckpt_path=str(tmp_path / "kept.ckpt"))
    assert len(again.history["train_loss"]) == QUICK["max_epochs"]


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("method", ["_prepare", "_select_best", "_mean_jacobian", "_velocities"])
def test_small_fields_are_computed_on_one_thread_from_the_first_step_to_the_network(
    adata, fit, four_threads, monkeypatch, method
):
    """Many threads wait for one another, also before and after the steps."""
    threads, original = [], getattr(sn.SparseNODE, method)

    def counted(function):
        def count(*args, **kwargs):
            threads.append(torch.get_num_threads())
            return function(*args, **kwargs)

        return count

    def watched(self, *args, **kwargs):
        with monkeypatch.context() as patch:
            for name in ("evaluate", "jacobian"):
                patch.setattr(Field, name, staticmethod(counted(getattr(Field, name))))
            patch.setattr(SparseNODEModule, "trajectories", counted(SparseNODEModule.trajectories))
            return original(self, *args, **kwargs)

    monkeypatch.setattr(sn.SparseNODE, method, watched)
    order = 2 if method == "_prepare" else 1  # which starts from accelerations
    fit(adata, order=order, train={"max_epochs": 1})
    assert threads
    assert set(threads) == {1}
    assert torch.get_num_threads() == 4


def test_simulations_are_computed_on_one_thread(adata, fit, four_threads, monkeypatch):
    model, threads, original = fit(adata, train={"max_epochs": 1}), [], SparseNODEModule.trajectories

    def counted(*args, **kwargs):
        threads.append(torch.get_num_threads())
        return original(*args, **kwargs)

    monkeypatch.setattr(SparseNODEModule, "trajectories", counted)
    model.simulate(knockout="gene0")
    assert set(threads) == {1}


def test_numpy_integers_are_numbers_of_steps_and_pairs(adata, fit):
    settings = {"max_epochs": np.int64(2), "steps_per_epoch": np.int64(2)}
    model = fit(adata, objective=Transport(batch_size=np.int64(16)), train=settings)
    assert len(model.history_["validation_loss"]) == 2
