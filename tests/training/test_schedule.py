from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sparsenode as sn
from sparsenode.training import IterativeSparsification


@given(n_steps=st.integers(2, 30), first=st.floats(1e-6, 1.0))
def test_shares_rise_geometrically_from_the_first_to_the_full_strength(n_steps, first):
    dense, *shares = IterativeSparsification(n_steps, first).shares
    assert dense == 0.0
    assert len(shares) == n_steps
    expected = [first ** (1 - k / (n_steps - 1)) for k in range(n_steps)]
    np.testing.assert_allclose(shares, expected, rtol=1e-9)


def test_an_error_that_may_not_rise_or_at_will_and_settings_by_default():
    assert IterativeSparsification(max_error_increase=0).max_error_increase == 0
    assert IterativeSparsification(max_error_increase=float("inf")).max_error_increase == float("inf")
    assert IterativeSparsification() == IterativeSparsification(10, 0.01, 5, 0.1)


def test_a_single_step_has_the_full_strength():
    assert IterativeSparsification(n_steps=1, first=0.1).shares == [0.0, 1.0]


@given(n_steps=st.integers(1, 6), per_step=st.integers(1, 5), dense=st.integers(1, 7))
def test_every_epoch_belongs_to_one_step(n_steps, per_step, dense):
    schedule = IterativeSparsification(n_steps, epochs_per_step=per_step)
    expected = [0] * dense + [k for k in range(1, n_steps + 1) for _ in range(per_step)]
    assert dense + schedule.n_epochs == len(expected)
    assert [schedule.step(epoch, dense) for epoch in range(len(expected))] == expected
    last = [epoch for epoch in range(len(expected)) if expected[epoch : epoch + 2] != [expected[epoch]] * 2]
    assert [epoch for epoch in range(len(expected)) if schedule.ends_step(epoch, dense)] == last


@pytest.mark.parametrize(
    "setting",
    [
        *({"n_steps": 0}, {"epochs_per_step": 0}, {"first": 0.0}, {"first": -0.1}, {"first": 1.1}),
        *({"first": "a"}, {"max_error_increase": None}),
        *({"n_steps": 2.5}, {"n_steps": True}, {"epochs_per_step": 2.0}),
        *({"first": float("nan")}, {"max_error_increase": -0.1}, {"max_error_increase": float("nan")}),
        {"max_error_increase": True},
    ],
    ids=str,
)
def test_settings_out_of_range(setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f"`{name}`.*found {setting[name]!r}"):
        IterativeSparsification(**setting)


@pytest.mark.parametrize("argument", [{"early_stopping": True}, {"check_val_every_n_epoch": 3}])
def test_a_schedule_stops_by_itself(argument):
    adata = sn.datasets.krumsiek11()
    sn.SparseNODE.setup_anndata(adata, time_key="simulation_time", lineage_key="lineage")
    model = sn.SparseNODE(adata, objective="trajectory", hidden=(4,))
    with pytest.raises(ValueError, match="`early_stopping` nor `check_val_every_n_epoch`"):
        model.train(max_epochs=1, schedule="iterative", **argument)


def test_numpy_integers_give_epochs_that_lightning_takes():
    assert type(IterativeSparsification(n_steps=np.int64(3), epochs_per_step=np.int64(2)).n_epochs) is int
