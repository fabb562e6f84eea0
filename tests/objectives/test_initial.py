from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsenode.objectives._initial import early_cells, initial_weights
from sparsenode.objectives._statistics import MAX_EARLY


@pytest.fixture(scope="session")
def make_cells():
    def make(n_cells=80, n_trajectories=2, seed=0):
        rng = np.random.default_rng(seed)
        times = rng.uniform(0, 1, (n_cells, n_trajectories))
        weights = rng.uniform(0.1, 2, times.shape) * (rng.uniform(size=times.shape) < 0.8)
        return times, weights, rng.uniform(size=n_cells) < 0.8

    return make


@given(
    seed=st.integers(0, 2**31), method=st.sampled_from(["kernel", "first", "learned"]), bandwidth=st.floats(0.05, 1.0)
)
@settings(deadline=None, max_examples=40)
def test_weights_sum_to_one_over_usable_cells_of_the_trajectory(make_cells, seed, method, bandwidth):
    times, weights, usable = make_cells(seed=seed)
    found = initial_weights(times, weights, usable, method, bandwidth)
    assert found.shape == times.shape
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(0), 1.0)
    assert (found[~usable] == 0).all()
    assert (found[weights == 0] == 0).all()


def test_kernel_is_half_a_gaussian_times_the_weights(make_cells):
    times, weights, usable = make_cells()
    found = initial_weights(times, weights, usable, "kernel", 0.2)
    for m in range(2):
        raw = [
            w * u * np.exp(-(t**2) / (2 * 0.2**2)) for t, w, u in zip(times[:, m], weights[:, m], usable, strict=True)
        ]
        np.testing.assert_allclose(found[:, m], np.array(raw) / sum(raw))


def test_first_takes_the_five_earliest_usable_cells_alike(make_cells):
    times, weights, usable = make_cells()
    weights = (weights > 0).astype(float)
    found = initial_weights(times, weights, usable, "first", 0.2)
    for m in range(2):
        allowed = np.flatnonzero(usable & (weights[:, m] > 0))
        earliest = sorted(allowed, key=lambda i: times[i, m])[:5]
        assert set(np.flatnonzero(found[:, m])) == set(earliest)
        np.testing.assert_allclose(found[earliest, m], 0.2)


def test_first_counts_memberships():
    """Cells that hardly belong to the lineage do not make up its start: 0.5 + 0.01 + four and a half whole ones."""
    weights = np.array([0.5, 0.01, 1, 1, 1, 1, 1, 1])[:, None]
    found = initial_weights(np.linspace(0, 1, 8)[:, None], weights, np.ones(8, dtype=bool), "first", 0.2)
    np.testing.assert_allclose(found[:, 0], np.array([0.5, 0.01, 1, 1, 1, 1, 1, 0]) / 5.51)


@pytest.mark.parametrize("n_later", [4, 5, 6, 50])
def test_first_does_not_depend_on_how_many_cells_come_later(n_later):
    """Cells of a twentieth are few with whole ones among them, and as good as whole ones among themselves."""
    weights = np.array([0.05] * 6 + [1.0] * n_later)[:, None]
    found = initial_weights(
        np.linspace(0, 1, len(weights))[:, None], weights, np.ones(len(weights), bool), "first", 0.2
    )
    np.testing.assert_allclose(found[:5, 0], 0.2)
    assert (found[5:] == 0).all()


def test_first_takes_all_that_tie_with_the_fifth():
    times = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.5])[:, None]
    found = initial_weights(times, np.ones((8, 1)), np.ones(8, dtype=bool), "first", 0.2)
    np.testing.assert_allclose(found[:, 0], [1 / 7] * 7 + [0])


def test_learned_starts_from_the_earliest_usable_cells_with_their_weights():
    times, weights = np.array([[0.0], [0.1], [0.1], [0.1], [0.7]]), np.array([[1.0], [2.0], [0.0], [6.0], [1.0]])
    found = initial_weights(times, weights, np.array([False, True, True, True, True]), "learned", 0.2)
    np.testing.assert_allclose(found[:, 0], [0, 0.25, 0, 0.75, 0])


def test_first_of_fewer_than_five_cells_takes_them_all():
    found = initial_weights(np.array([[0.0], [0.5], [1.0]]), np.ones((3, 1)), np.ones(3, dtype=bool), "first", 0.2)
    np.testing.assert_allclose(found[:, 0], 1 / 3)


@pytest.mark.parametrize("method", ["kernel", "first"])
def test_a_narrow_kernel_still_finds_a_start(method):
    """The earliest training cell may lie many bandwidths from the start of the trajectory."""
    times = np.linspace(0.1, 1.0, 20)[:, None]
    found = initial_weights(times, np.ones((20, 1)), np.ones(20, dtype=bool), method, 0.002)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(0), 1.0)


@pytest.mark.parametrize("method", ["kernel", "first"])
def test_cells_that_are_held_out_before_the_first_training_cell_do_not_matter(method):
    times = np.concatenate([[0.0, 0.05], np.linspace(0.2, 1.0, 20)])[:, None]
    weights = np.ones((22, 1))
    weights[1] = 0.0  # of another trajectory
    usable = np.arange(22) > 0
    found = initial_weights(times, weights, usable, method, 0.005)
    assert (found[:2] == 0).all()
    np.testing.assert_array_equal(found[2:], initial_weights(times[2:], weights[2:], usable[2:], method, 0.005))


@given(seed=st.integers(0, 2**31), method=st.sampled_from(["kernel", "first", "learned"]), n_cells=st.integers(10, 90))
@settings(deadline=None, max_examples=40)
def test_early_cells_are_cells_with_weight(make_cells, seed, method, n_cells):
    times, weights, _ = make_cells(n_cells, seed=seed)
    initial = initial_weights(times, weights, np.ones(n_cells, dtype=bool), method, 0.2)
    for column, rows in zip(initial.T, early_cells(initial, np.random.default_rng(seed)), strict=True):
        assert (column[rows] > 0).all()
        assert (np.diff(rows) > 0).all()  # sorted, each once
        available = int((column > 0).sum())
        assert min(5, available) <= len(rows) <= min(MAX_EARLY, available)


def test_as_many_early_cells_as_the_weights_are_worth():
    initial = np.zeros((200, 1))
    initial[:50] = 1 / 50
    assert len(early_cells(initial, np.random.default_rng(0))[0]) == 50
    initial = np.geomspace(1, 1e-6, 200)[:, None]
    initial /= initial.sum()
    effective = 1 / (initial**2).sum()  # Kish
    assert len(early_cells(initial, np.random.default_rng(0))[0]) == round(effective)


def test_number_of_early_cells_is_bounded():
    initial = np.full((10 * MAX_EARLY, 1), 1 / (10 * MAX_EARLY))
    assert len(early_cells(initial, np.random.default_rng(0))[0]) == MAX_EARLY


def test_heavier_cells_are_drawn_more_often():
    # Seven cells of equal weight and seven of a tenth of it are worth between seven and fourteen cells.
    initial = np.array([[10.0]] * 7 + [[1.0]] * 7) / 77
    drawn = np.zeros(14)
    for seed in range(200):
        drawn[early_cells(initial, np.random.default_rng(seed))[0]] += 1
    assert drawn[:7].min() > drawn[7:].max()


def test_early_cells_repeat_from_the_seed(make_cells):
    times, weights, usable = make_cells()
    initial = initial_weights(times, weights, usable, "kernel", 0.2)
    first, second = (early_cells(initial, np.random.default_rng(3)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
