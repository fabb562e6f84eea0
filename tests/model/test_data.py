"""From registered cells to the tensors of one step."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sparsenode._input._observations import read_observations
from sparsenode.model._data import (
    Cells,
    full_batch,
    relative_spans,
)


@pytest.fixture
def cells(make_adata) -> Cells:
    adata = make_adata(n_donors=2)
    observations = read_observations(adata, "dpt_pseudotime", "memberships", "donor")
    return Cells.arrange(adata, None, adata.var_names, observations)


def expected_member(cells: Cells, trajectory: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the cells in a trajectory, and their times from its first to its last cell."""
    lineage, donor = trajectory.split(", ")
    obs = cells.adata.obs
    weight = cells.adata.obsm["memberships"][lineage].to_numpy() * (obs["donor"] == donor).to_numpy()
    times = obs["dpt_pseudotime"].to_numpy()
    inside = times[weight > 0]
    return weight, (times - inside.min()) / (inside.max() - inside.min())


def test_cells_are_arranged_by_trajectory(cells):
    assert cells.lineages == [0, 0, 1, 1]
    for m, name in enumerate(cells.trajectories.index):
        weight, times = expected_member(cells, name)
        np.testing.assert_array_equal(cells.weights[:, m], weight)
        np.testing.assert_allclose(cells.times[weight > 0, m], times[weight > 0], atol=1e-12)
    np.testing.assert_allclose(cells.weights.sum(1), 1)


def test_trajectories_of_a_model_keep_their_clock(cells, make_adata):
    """Given the trajectories of a model, the cells of another AnnData are put on its clock, not on their own."""
    other = make_adata(n_donors=2, seed=5)
    observations = read_observations(other, "dpt_pseudotime", "memberships", "donor")
    placed = Cells.arrange(other, None, other.var_names, observations, cells.trajectories)
    row = cells.trajectories.iloc[1]
    expected = (other.obs["dpt_pseudotime"] - row["start"]) / (row["end"] - row["start"])
    np.testing.assert_allclose(placed.times[:, 1], expected, atol=1e-12)


def test_initial_state_is_a_kernel_weighted_mean(cells):
    state = cells.initial_state("kernel", 0.2)
    for m, name in enumerate(cells.trajectories.index):
        weight, times = expected_member(cells, name)
        kernel = weight * np.exp(-0.5 * (times / 0.2) ** 2)
        np.testing.assert_allclose(state[m], np.average(cells.adata.X, axis=0, weights=kernel), rtol=1e-5)


def test_initial_state_of_the_first_five(cells):
    state = cells.initial_state("first", 0.2)
    for m, name in enumerate(cells.trajectories.index):
        weight, times = expected_member(cells, name)
        order = np.argsort(np.where(weight > 0, times, np.inf))
        worth = np.cumsum(weight[order]) ** 2 / np.cumsum(weight[order] ** 2)
        first = order[: np.argmax(worth >= 5 - 1e-9) + 1]
        expected = np.average(cells.adata.X[first], axis=0, weights=weight[first])
        np.testing.assert_allclose(state[m], expected, rtol=1e-5)


def test_cells_to_bootstrap_from_are_drawn_with_the_seed(cells):
    everything = np.ones(120, dtype=bool)
    drawn = [cells.stream(everything, ~everything, 5, "kernel", 0.2, seed).early for seed in (0, 0, 1)]
    for first, again in zip(*drawn[:2], strict=True):
        np.testing.assert_array_equal(first, again)
    assert not all(np.array_equal(first, other) for first, other in zip(*drawn[::2], strict=True))


def test_trajectory_without_training_cells(cells):
    training = np.ones(120, dtype=bool)
    training[cells.weights[:, 2] > 0] = False
    with pytest.raises(ValueError, match=r"\['myeloid, donor0'\]\. Raise `train_size`"):
        cells.stream(training, ~training, 5, "kernel", 0.2, 0)


@pytest.mark.parametrize(
    ("aligned", "expected", "unit"),
    # The second batch has a unit that is half as long: its lineage is as long as in the first one.
    [(False, [0.5, 1.0, 0.75], 4.0), (True, [2 / 3, 2 / 3, 1.0], 3 * 2**0.5)],
)
def test_relative_spans(aligned, expected, unit):
    relative, longest = relative_spans([0, 0, 1], ["a", "b", "a"], np.array([2.0, 4.0, 3.0]), aligned)
    np.testing.assert_allclose(relative, expected)
    assert longest == pytest.approx(unit)


def test_relative_spans_do_not_hang_on_the_unit_of_a_batch():
    """Lineages that not every batch has keep their place, whatever a batch counts time in."""
    lineages, batches = [0, 1, 2, 0, 1], ["a", "a", "a", "b", "b"]
    spans = np.array([2.0, 4.0, 3.0, 2.2, 3.8])
    scaled, _ = relative_spans(lineages, batches, spans * [1, 1, 1, 1e-3, 1e-3], True)
    relative, unit = relative_spans(lineages, batches, spans, True)
    np.testing.assert_allclose(scaled, relative)
    # Balanced lineages: geometric means over the batches.
    assert relative[1] / relative[0] == pytest.approx(np.sqrt(4.0 * 3.8 / (2.0 * 2.2)))


@pytest.mark.parametrize("batches", [["a", "a", "a"], ["a", "b", "c"]])
def test_relative_spans_of_batches_that_share_no_lineage(batches):
    relative, unit = relative_spans([0, 1, 2], batches, np.array([2.0, 4.0, 1.0]), True)
    np.testing.assert_allclose(relative, [0.5, 1.0, 0.25])
    assert unit == pytest.approx(4.0)


def test_full_batch_is_in_units_of_scale_and_null(cells):
    """A constant prediction at the centre has the error one; the early cells are centred."""
    training = np.arange(120) % 4 != 0
    data = cells.stream(training, ~training, 5, "kernel", 0.2, 0)
    centre = data.training.mean
    scale = 2.5
    tensors = full_batch([data.training], centre, (np.zeros(8), np.full(8, scale)), data.early)
    held_out = full_batch([data.validation], centre, (np.zeros(8), np.full(8, scale)), data.early)
    x, weights = cells.adata.X.astype(float), cells.weights * training[:, None]
    means = [np.average(x, axis=0, weights=own) for own in weights.T]
    for batch, own in ((tensors, training), (held_out, ~training)):  # of training means, for both
        residuals = [cells.weights[own, m, None] * (x[own] - means[m]) ** 2 for m in range(4)]
        assert float(batch["square"]) * scale**2 == pytest.approx(sum(map(np.sum, residuals)), rel=1e-5)
    np.testing.assert_allclose(tensors["early"].sum(1), 0, atol=1e-5)
    assert tensors["early_mask"].sum(1).tolist() == [len(rows) for rows in data.early]


def test_table_of_trajectories_is_sorted_by_lineage(cells):
    assert cells.trajectories["lineage"].tolist() == ["erythroid", "erythroid", "myeloid", "myeloid"]
    pd.testing.assert_series_equal(
        cells.trajectories["n_cells"], pd.Series((cells.weights > 0).sum(0), cells.trajectories.index, name="n_cells")
    )
