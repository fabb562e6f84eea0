"""From registered cells to the tensors of one step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge

from sparsenode.model._data import (
    Cells,
    full_batch,
    pair_batch,
    relative_spans,
    relax_batch,
    relaxation_strength,
)
from sparsenode.model._observations import read_observations
from sparsenode.objectives import Transport, couple_cells


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
    assert float(tensors["square"] / tensors["null"]) == pytest.approx(1, rel=1e-5)
    x, weights = cells.adata.X.astype(float), cells.weights * training[:, None]
    residuals = [(weights[:, m, None] * (x - np.average(x, axis=0, weights=weights[:, m])) ** 2) for m in range(4)]
    assert float(tensors["null"]) * scale**2 == pytest.approx(np.sum(residuals), rel=1e-5)
    np.testing.assert_allclose(tensors["early"].sum(1), 0, atol=1e-5)
    assert tensors["early_mask"].sum(1).tolist() == [len(rows) for rows in data.early]


def couple(cells: Cells):
    """Expression and the pairs of one lag."""
    x = cells.adata.X.astype(float)
    return x, couple_cells(cells.times, cells.weights, x, Transport(windows=5, lags=1, min_cells=3))


def test_slopes_are_displacements_per_length_of_the_trajectory(cells):
    """Twice the length, half the slope: here of the second lineage."""
    x, pairs = couple(cells)
    lengths = np.array([1.0, 1.2, 0.7, 0.8])
    one, other = (pair_batch([pairs], x, cells, spans, np.ones(8))[0] for spans in (lengths, lengths * [1, 1, 2, 2]))
    factor = torch.where(one["lineage"] == 1, 0.5, 1.0).view(1, -1, 1)
    torch.testing.assert_close(other["slope"], factor * one["slope"])


def test_pairs_count_by_the_membership_of_the_cell_they_start_from(cells):
    x, pairs = couple(cells)
    share = np.random.default_rng(0).uniform(0.1, 1.0, 120)
    less = replace(cells, weights=cells.weights * share[:, None])
    one, other = (pair_batch([pairs], x, of, np.ones(4), np.ones(8))[0] for of in (cells, less))
    rows = np.unique(pairs.trajectory * 120 + pairs.start) % 120
    expected = one["weight"][0] * torch.as_tensor(share[rows], dtype=torch.float32)
    torch.testing.assert_close(other["weight"][0], expected / expected.mean())


def test_regulators_of_the_same_window_are_added_to_slopes(cells):
    """Every trajectory has windows of its own, where cells count by their membership; scikit-learn finds the coefficients."""
    x, pairs = couple(cells)
    share = np.random.default_rng(0).uniform(0.1, 1.0, 120)
    cells = replace(cells, weights=cells.weights * share[:, None])
    transport, chosen = Transport(windows=5, lags=1, min_cells=3), np.array([1, 4, 6])
    batch, plain = (pair_batch([pairs], x, cells, np.ones(4), np.ones(8))[0] for _ in range(2))
    found = relax_batch(batch, [pairs], cells, chosen, 0.3, transport)
    rows = np.unique(pairs.trajectory * 120 + pairs.start)
    start, trajectory = rows % 120, rows // 120
    deviation = np.empty((len(rows), 8))
    for m in range(4):
        own = np.flatnonzero(trajectory == m)
        order = own[np.argsort(cells.times[start[own], m])]
        half = max(3, round(len(own) / min(5, len(own) // 3) / 2))
        for place, row in enumerate(order):
            around = start[order[max(place - half, 0) : place + half + 1]]
            deviation[row] = x[start[row]] - np.average(x[around], axis=0, weights=cells.weights[around, m])
    weight = plain["weight"][0].numpy()
    scale = np.sqrt(np.average(deviation**2, axis=0, weights=weight))
    for target in range(8):
        others = chosen[chosen != target]
        ridge = Ridge(alpha=0.1 * weight.sum(), fit_intercept=False)
        ridge.fit(deviation[:, others] / scale[others], deviation[:, target], sample_weight=weight)
        np.testing.assert_allclose(found[target, chosen != target], ridge.coef_ / scale[others], atol=1e-5)
        assert (found[target, chosen == target] == 0).all()
    added = (batch["slope"] - plain["slope"])[0].numpy()
    np.testing.assert_allclose(added, 0.3 * deviation[:, chosen] @ found.T, atol=1e-5)
    other = relax_batch(plain, [pairs], cells, chosen, 0.3, transport, coefficients=2 * found)
    np.testing.assert_allclose((plain["slope"] - batch["slope"])[0].numpy(), added, atol=1e-5)
    np.testing.assert_array_equal(other, 2 * found)


def test_relaxation_is_as_strong_as_cells_rest_are_few_and_signal(cells, monkeypatch):
    x, pairs = couple(cells)
    batch = pair_batch([pairs], x, cells, np.ones(4), np.ones(8))[0]
    seen = []
    monkeypatch.setattr("sparsenode.model._data.share_at_rest", lambda *given: seen.append(given) or 0.5)
    transport = Transport(relaxation=0.6)
    n_cells = len(np.unique(pairs.start))
    assert n_cells < len(pairs.start)  # some are in two lineages
    found = relaxation_strength(batch, pairs, x[:, :3], cells, transport, 2.0)
    assert found == pytest.approx(0.6 * 0.5 * np.sqrt(1000 / n_cells) / 3.0)
    ((slope, weight, embedding, _),) = seen
    np.testing.assert_array_equal(slope, batch["slope"][0])
    np.testing.assert_array_equal(weight, batch["weight"][0])
    np.testing.assert_allclose(embedding, batch["state"][:, :3], rtol=1e-6)
    assert relaxation_strength(batch, pairs, x, cells, replace(transport, relaxation=0), 2.0) == 0.0
    assert len(seen) == 1


def test_table_of_trajectories_is_sorted_by_lineage(cells):
    assert cells.trajectories["lineage"].tolist() == ["erythroid", "erythroid", "myeloid", "myeloid"]
    pd.testing.assert_series_equal(
        cells.trajectories["n_cells"], pd.Series((cells.weights > 0).sum(0), cells.trajectories.index, name="n_cells")
    )
