from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsenode.training._splitter import Batches, StatisticsSplitter, split_cells


@given(
    n_cells=st.integers(1, 200),
    percent=st.integers(1, 100),
    held_out=st.none() | st.integers(0, 99),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=80)
def test_splits_are_disjoint_sorted_and_complete(n_cells, percent, held_out, shuffle, seed):
    validation_size = None if held_out is None else min(held_out, 100 - percent) / 100
    if validation_size is not None and percent / 100 + validation_size > 1:
        validation_size = 0.0  # rounding of the sum
    parts = split_cells(n_cells, percent / 100, validation_size, shuffle, seed)
    assert sorted(np.concatenate(parts)) == list(range(n_cells))
    for part in parts:
        assert (np.diff(part) > 0).all()
    training, validation, test = map(len, parts)
    assert abs(training - n_cells * percent / 100) < 1 + 1e-9
    if validation_size is None:
        assert test == 0
    else:
        assert abs(validation - n_cells * validation_size) < 1 + 1e-9


def test_without_shuffling_the_last_cells_are_held_out():
    training, validation, test = split_cells(10, 0.6, 0.3, False, 0)
    assert training.tolist() == [0, 1, 2, 3, 4, 5]
    assert validation.tolist() == [6, 7, 8]
    assert test.tolist() == [9]


def test_the_seed_decides_the_draw():
    first, again, other = (split_cells(100, 0.5, None, True, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, np.arange(50))


def test_the_draw_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    split_cells(100, 0.5, None, True, 0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("train_size", "validation_size"),
    [(0.0, None), (-0.5, None), (1.5, None), (0.5, 1.0), (0.5, -0.1), (0.8, 0.4)],
)
def test_shares_out_of_range(train_size, validation_size):
    with pytest.raises(ValueError, match="_size"):
        split_cells(10, train_size, validation_size, True, 0)


def test_no_cells_leave_no_training_cells():
    with pytest.raises(ValueError, match="empty"):
        split_cells(0, 0.9, None, True, 0)


@pytest.fixture
def tensors():
    return {"a": torch.arange(3.0)}


def test_training_statistics_are_handed_out_once_per_step(tensors):
    splitter = StatisticsSplitter(Batches(tensors, None, tensors), (np.arange(3), np.arange(0), np.arange(0)), 7)
    batches = list(splitter.train_dataloader())
    assert len(batches) == 7
    for batch in batches:
        assert torch.equal(batch["a"], tensors["a"])
    assert splitter.val_dataloader() == []
    assert (splitter.n_train, splitter.n_val) == (3, 0)


def test_held_out_statistics_are_handed_out_once(tensors):
    other = {"a": torch.zeros(2)}
    splitter = StatisticsSplitter(Batches(tensors, other, tensors), (np.arange(3), np.arange(3, 5), np.arange(5, 6)), 7)
    (batch,) = splitter.val_dataloader()
    assert torch.equal(batch["a"], other["a"])
    assert splitter.n_val == 2
    assert splitter.test_idx.tolist() == [5]


@pytest.fixture
def pairs():
    """Five pairs of cells and three samples; the number of a pair stands in all its entries."""
    row = torch.arange(5.0)
    return {"state": row[:, None].expand(5, 2), "slope": row[None, :, None].expand(3, 5, 2), "weight": row.expand(3, 5)}


def test_minibatches_of_pairs_are_drawn_with_replacement_by_the_seed(pairs):
    indices = (np.arange(5), np.arange(0), np.arange(0))
    drawn = {}
    before = torch.get_rng_state()
    for seed, steps, size in ((1, 6, 4), (1, np.int64(6), np.int64(4)), (2, 6, 4)):
        splitter = StatisticsSplitter(Batches(pairs, None, pairs), indices, steps, size, seed)
        batches = list(splitter.train_dataloader())
        assert len(batches) == 6
        for batch in batches:
            rows = batch["state"][:, 0]
            assert len(rows) == 4
            assert torch.equal(batch["weight"], rows.expand(3, 4))
            assert torch.equal(batch["slope"], rows[None, :, None].expand(3, 4, 2))
        rows = torch.cat([batch["state"][:, 0] for batch in batches]).tolist()
        assert drawn.setdefault(seed, rows) == rows
    assert drawn[1] != drawn[2]
    assert any(len(set(drawn[1][first : first + 4])) < 4 for first in range(0, 24, 4))
    assert sorted(drawn[1][:5]) != [0, 1, 2, 3, 4] or sorted(drawn[1][5:10]) != [0, 1, 2, 3, 4]
    assert set(drawn[1]) == {0, 1, 2, 3, 4}
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_go_on_from_epoch_to_epoch(pairs):
    """The same ones in every epoch would leave out some pairs throughout."""
    indices = (np.arange(5), np.arange(0), np.arange(0))
    loader = StatisticsSplitter(Batches(pairs, None, pairs), indices, 6, 4).train_dataloader()
    one, other = ([batch["state"][:, 0].tolist() for batch in loader] for _ in range(2))
    assert one != other


def test_every_step_is_on_the_training_batch_and_the_full_one_is_kept(tensors, pairs):
    full, indices = {"a": torch.zeros(1)}, (np.arange(3), np.arange(0), np.arange(0))
    splitter = StatisticsSplitter(Batches(tensors, None, full), indices, 2)
    assert splitter.batches.full is full
    assert all(torch.equal(batch["a"], tensors["a"]) for batch in splitter.train_dataloader())
    twice = {name: torch.cat([t, t], dim=int(name != "state")) + 5 for name, t in pairs.items()}
    splitter = StatisticsSplitter(Batches(pairs, None, twice), indices, 4, 4)
    assert max(float(batch["state"].max()) for batch in splitter.train_dataloader()) < 5


@pytest.mark.parametrize("size", [5, 6])
def test_pairs_that_fit_into_one_batch_are_taken_whole(pairs, size):
    indices = (np.arange(5), np.arange(0), np.arange(0))
    batches = list(StatisticsSplitter(Batches(pairs, None, pairs), indices, 3, size).train_dataloader())
    assert len(batches) == 3
    assert all(torch.equal(batch["state"], pairs["state"]) for batch in batches)


def test_loaders_leave_the_global_random_state_alone(tensors):
    splitter = StatisticsSplitter(Batches(tensors, tensors, tensors), (np.arange(3), np.arange(0), np.arange(0)), 2)
    before = torch.get_rng_state()
    list(splitter.train_dataloader())
    list(splitter.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)
