"""From coupled cells to the tensors of a transport fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from sparsenode._input._observations import read_observations
from sparsenode.model._data import Cells
from sparsenode.model._pairs import centre_batch, chance_of_order, pair_batch, relax_batch, relaxation_strength, rows_of
from sparsenode.objectives import Transport
from sparsenode.objectives._transport import couple_cells


@pytest.fixture
def cells(make_adata) -> Cells:
    adata = make_adata(n_donors=2)
    observations = read_observations(adata, "dpt_pseudotime", "memberships", "donor")
    return Cells.arrange(adata, None, adata.var_names, observations)


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


@pytest.mark.parametrize("by_chance", [0.0, 0.4, 1.0])
def test_regulators_of_the_same_window_are_added_to_slopes(cells, by_chance):
    """Every trajectory has windows of its own, where cells count by their membership; scikit-learn finds the coefficients.

    As far as the order of cells is one of chance, the whole trajectory is their window.
    """
    x, pairs = couple(cells)
    share = np.random.default_rng(0).uniform(0.1, 1.0, 120)
    cells = replace(cells, weights=cells.weights * share[:, None])
    transport, chosen = Transport(windows=5, lags=1, min_cells=3), np.array([1, 4, 6])
    batch, plain = (pair_batch([pairs], x, cells, np.ones(4), np.ones(8))[0] for _ in range(2))
    found = relax_batch(batch, cells, chosen, 0.3, by_chance, transport)
    rows = np.unique(pairs.trajectory * 120 + pairs.start)
    start, trajectory = rows % 120, rows // 120
    deviation = np.empty((len(rows), 8))
    for m in range(4):
        own = np.flatnonzero(trajectory == m)
        order = own[np.argsort(cells.times[start[own], m])]
        half = max(3, round(len(own) / min(5, len(own) // 3) / 2))
        of_all = np.average(x[start[own]], axis=0, weights=cells.weights[start[own], m])
        for place, row in enumerate(order):
            around = start[order[max(place - half, 0) : place + half + 1]]
            of_window = np.average(x[around], axis=0, weights=cells.weights[around, m])
            deviation[row] = x[start[row]] - (1 - by_chance) * of_window - by_chance * of_all
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


def test_coefficients_of_others(cells):
    x, pairs = couple(cells)
    transport, chosen = Transport(windows=5, lags=1, min_cells=3), np.array([1, 4, 6])
    plain, own, others = (pair_batch([pairs], x, cells, np.ones(4), np.ones(8))[0] for _ in range(3))
    found = relax_batch(own, cells, chosen, 0.3, 0.2, transport)
    np.testing.assert_array_equal(relax_batch(others, cells, chosen, 0.3, 0.2, transport, 2 * found), 2 * found)
    torch.testing.assert_close(
        others["slope"] - plain["slope"], 2 * (own["slope"] - plain["slope"]), atol=1e-5, rtol=1e-4
    )


def test_windows_of_each_trajectory_are_centred(cells):
    """What is left of the means of windows are those of trajectories; the rest of a slope stays."""
    x, pairs = couple(cells)
    transport = Transport(windows=5, lags=1, min_cells=3)
    batch, plain = (pair_batch([pairs], x, cells, np.ones(4), np.ones(8))[0] for _ in range(2))
    centre_batch(batch, cells, 0.4, transport)
    rows = np.unique(pairs.trajectory * 120 + pairs.start)
    start, trajectory = rows % 120, rows // 120
    slope, weight = plain["slope"][0].double().numpy(), plain["weight"][0].double().numpy()
    expected = slope.copy()
    for m in range(4):
        own = np.flatnonzero(trajectory == m)
        order = own[np.argsort(cells.times[start[own], m])]
        half = max(3, round(len(own) / min(5, len(own) // 3) / 2))
        mean = np.average(slope[own], axis=0, weights=weight[own])
        for place, row in enumerate(order):
            around = order[max(place - half, 0) : place + half + 1]
            of_window = np.average(slope[around], axis=0, weights=cells.weights[start[around], m])
            expected[row] -= 0.4 * (of_window - mean)
    np.testing.assert_allclose(batch["slope"][0], expected, atol=1e-5)
    for name in ("state", "weight", "lineage", "cell"):
        torch.testing.assert_close(batch[name], plain[name])


def test_chance_is_asked_for_the_cells_that_pairs_start_from(cells, monkeypatch):
    x, pairs = couple(cells)
    batch = pair_batch([pairs], x, cells, np.ones(4), np.ones(8))[0]
    seen = []
    monkeypatch.setattr("sparsenode.model._pairs.share_by_chance", lambda *given: seen.append(given) or 0.5)
    assert chance_of_order(batch, x[:, :3], cells, Transport()) == 0.5
    ((slope, weight, embedding, _),) = seen
    np.testing.assert_array_equal(slope, batch["slope"][0])
    np.testing.assert_array_equal(weight, batch["weight"][0])
    np.testing.assert_allclose(embedding, batch["state"][:, :3], rtol=1e-6)
    assert chance_of_order(batch, x, cells, Transport(centring=False)) == 0.0
    assert len(seen) == 1


def test_rows_of_some_cells(cells):
    x, pairs = couple(cells)
    chosen = np.random.default_rng(0).uniform(size=120) < 0.1
    whole = pair_batch([pairs], x, cells, np.ones(4), np.ones(8))[0]
    found, own = rows_of(whole, chosen), chosen[whole["cell"].numpy()]
    assert 0 < own.sum() < len(own) / 4
    torch.testing.assert_close(found["state"], torch.as_tensor(x[found["cell"]], dtype=torch.float32))
    for name in ("state", "lineage", "cell"):
        torch.testing.assert_close(found[name], whole[name][own])
    torch.testing.assert_close(found["slope"], whole["slope"][:, own])
    torch.testing.assert_close(found["weight"], whole["weight"][:, own] / whole["weight"][:, own].mean())
    assert rows_of(whole, np.zeros(120, dtype=bool)) is None


def test_relaxation_is_as_strong_as_cells_rest_are_few_and_signal(cells, monkeypatch):
    x, pairs = couple(cells)
    batch = pair_batch([pairs], x, cells, np.ones(4), np.ones(8))[0]
    seen = []
    monkeypatch.setattr("sparsenode.model._pairs.share_at_rest", lambda *given: seen.append(given) or 0.5)
    transport = Transport(relaxation=0.6)
    n_cells = len(np.unique(pairs.start))
    assert n_cells < len(pairs.start)  # some are in two lineages
    found = relaxation_strength(batch, x[:, :3], cells, transport, 2.0)
    assert found == pytest.approx(0.6 * 0.5 * np.sqrt(1000 / n_cells) / 3.0)
    ((slope, weight, embedding, _),) = seen
    np.testing.assert_array_equal(slope, batch["slope"][0])
    np.testing.assert_array_equal(weight, batch["weight"][0])
    np.testing.assert_allclose(embedding, batch["state"][:, :3], rtol=1e-6)
    assert relaxation_strength(batch, x, cells, replace(transport, relaxation=0), 2.0) == 0.0
    assert len(seen) == 1


def test_slopes_over_lags_and_windows_are_averaged_by_the_inverse_of_their_variance(cells):
    """Pair by pair, and so are the weights of cells and the rate of every gene, a weighted standard deviation."""
    x, spans = cells.adata.X.astype(float) + 3.0, np.array([1.0, 1.2, 0.7, 0.8])
    transport = Transport(windows=(5, 9), lags=(1, 3), min_cells=3)
    pairs = couple_cells(cells.times, cells.weights, x, transport)
    assert len(np.unique(pairs.kind)) > 2
    moved = [
        (pairs.coupling[[i]].toarray()[0] @ x - x[pairs.start[i]]) / (pairs.duration[i] * spans[pairs.trajectory[i]])
        for i in range(len(pairs.start))
    ]
    variance = {k: np.stack(moved)[pairs.kind == k].var(0).mean() for k in np.unique(pairs.kind)}
    assert max(variance.values()) > 2 * min(variance.values())
    of_row: dict[tuple[int, int], list[int]] = {}
    for i, row in enumerate(zip(pairs.trajectory, pairs.start, strict=True)):
        of_row.setdefault(row, []).append(i)
    rows = sorted(of_row)
    shares = [[1 / variance[pairs.kind[i]] for i in of_row[row]] for row in rows]
    slope = np.stack([np.average([moved[i] for i in of_row[row]], 0, s) for row, s in zip(rows, shares, strict=True)])
    weight = np.array([sum(s) * cells.weights[cell, m] for (m, cell), s in zip(rows, shares, strict=True)])
    deviation = np.sqrt(np.cov(slope.T, aweights=weight, ddof=0).diagonal())
    batch, rate = pair_batch([pairs], x, cells, spans, None)
    np.testing.assert_array_equal(batch["cell"], [cell for _, cell in rows])
    np.testing.assert_array_equal(batch["trajectory"], [m for m, _ in rows])
    np.testing.assert_allclose(rate, deviation, rtol=1e-5)
    np.testing.assert_allclose(batch["slope"][0], slope / deviation, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(batch["weight"][0], weight / weight.mean(), rtol=1e-5)


@pytest.mark.parametrize("what", ["centred", "relaxed"])
def test_windows_of_a_half_hold_its_own_cells_only(cells, what):
    """What each seed makes of its half is what it would make of it were there no other."""
    x, transport = cells.adata.X.astype(float), Transport(windows=5, lags=1, min_cells=3)
    halves = [
        couple_cells(cells.times, cells.weights * (np.arange(120) // 4 % 2 == half)[:, None], x, transport)
        for half in (0, 1)
    ]
    arguments = x, cells, np.ones(4), np.ones(8)

    def change(batch):
        if what == "centred":
            centre_batch(batch, cells, 0.7, transport)
        else:
            relax_batch(batch, cells, np.arange(8), 0.5, 0.2, transport)
        return batch

    together = change(pair_batch(halves, *arguments)[0])
    for sample, pairs in enumerate(halves):
        alone = change(pair_batch([pairs], *arguments)[0])
        has = together["weight"][sample] > 0
        assert 0 < int(has.sum()) < len(has)
        torch.testing.assert_close(together["cell"][has], alone["cell"])
        torch.testing.assert_close(together["slope"][sample, has], alone["slope"][0], rtol=1e-4, atol=1e-5)
