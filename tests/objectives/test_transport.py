from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from sparsenode.objectives import Transport
from sparsenode.objectives import _transport as module
from sparsenode.objectives._transport import Pairs, couple_cells, noise_to_signal


def couple(first, second, entropy, first_mass, second_mass):
    """Plan of a single pair of windows."""
    return module.couple(first[None], second[None], entropy, first_mass[None], second_mass[None])[0]


@pytest.fixture(scope="module")
def line():
    """Cells of two lineages along a line, and of no lineage; times differ between the lineages."""
    rng = np.random.default_rng(0)
    time = rng.uniform(0, 1, 120)
    weights = np.column_stack([rng.uniform(0.5, 2, 120), rng.uniform(0.5, 2, 120)])
    weights[:50, 1] = 0.0
    weights[100:, 0] = 0.0
    weights[:5] = 0.0
    x = np.column_stack([time, rng.normal(size=(120, 2))])
    return np.column_stack([time, time**2]), weights, x


@pytest.mark.parametrize("sizes", [(7, 7), (9, 6)])
def test_coupling_is_the_optimal_one(sizes):
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(sizes[0], 3)), rng.normal(size=(sizes[1], 3))
    plan = couple(first, second, 0.0, np.ones(sizes[0]), np.ones(sizes[1]))
    np.testing.assert_allclose(plan.sum(1), 1.0)
    np.testing.assert_allclose(plan.sum(0), sizes[0] / sizes[1])  # mass is conserved
    # Cells copied until both sides are equally many make it an assignment problem.
    common = np.lcm(*sizes)
    cost = cdist(np.repeat(first, common // sizes[0], 0), np.repeat(second, common // sizes[1], 0), "sqeuclidean")
    rows, columns = linear_sum_assignment(cost)
    expected = cost[rows, columns].mean()
    assert (plan * cdist(first, second, "sqeuclidean")).sum() / sizes[0] == pytest.approx(expected)


@pytest.mark.parametrize("entropy", [0.0, 0.05])
def test_a_cell_of_weight_three_is_three_cells(entropy):
    rng = np.random.default_rng(7)
    first, second = rng.normal(size=(8, 3)), rng.normal(size=(6, 3))
    mass = [rng.integers(1, 4, n) for n in (8, 6)]
    copies = [np.repeat(np.arange(n), m) for n, m in zip((8, 6), mass, strict=True)]
    plan = couple(first, second, entropy, *(m.astype(float) for m in mass))
    # The penalty is a share of the mean cost, which the copies change.
    mean = [cdist(x, y, "sqeuclidean").mean() for x, y in ((first, second), (first[copies[0]], second[copies[1]]))]
    ones = [np.ones(len(c)) for c in copies]
    copied = couple(first[copies[0]], second[copies[1]], entropy * mean[0] / mean[1], *ones)
    merged = np.zeros_like(plan)
    np.add.at(merged, np.ix_(*copies), copied)
    np.testing.assert_allclose(plan, merged / merged.sum(1, keepdims=True), atol=1e-2 if entropy else 1e-9)
    uniform = couple(first, second, entropy, np.ones(8), np.ones(6))
    assert np.abs(plan - uniform).max() > 0.1


def test_entropic_coupling_is_that_of_scaled_kernels():
    """Sinkhorn's theorem: the plan is diag(u) exp(-cost / regularisation) diag(v) with the right margins."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(20, 2)), rng.normal(size=(25, 2)) + 1
    plan = couple(first, second, 0.5, np.ones(20), np.ones(25))
    np.testing.assert_allclose(plan.sum(1), 1.0)
    np.testing.assert_allclose(plan.sum(0), 20 / 25, rtol=5e-2)
    cost = cdist(first, second, "sqeuclidean")
    # What is left of the logarithm after the cost is a function of the row plus one of the column.
    with np.errstate(divide="ignore"):
        rest = np.where(plan > 0, np.log(plan), np.nan) + cost / (0.5 * cost.mean())
    pieces = rest[:-1, :-1] - rest[1:, :-1] - rest[:-1, 1:] + rest[1:, 1:]
    assert np.isfinite(pieces).sum() > 100
    np.testing.assert_allclose(pieces[np.isfinite(pieces)], 0.0, atol=1e-6)


@pytest.mark.parametrize("distance", [1.0, 1e4])
def test_entropic_coupling_survives_outliers(distance):
    """Far cells would underflow in the kernel; every cell still moves, to finite shares."""
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(30, 2)), rng.normal(size=(30, 2))
    first[0] += distance
    plan = couple(first, second, 0.01, np.ones(30), np.ones(30))
    assert np.isfinite(plan).all()
    np.testing.assert_allclose(plan.sum(1), 1.0)
    same = couple(np.ones((3, 2)), np.ones((4, 2)), 0.05, np.ones(3), np.ones(4))
    np.testing.assert_allclose(same.sum(1), 1.0)


@pytest.mark.parametrize("entropy", [0.0, 0.05])
def test_windows_that_are_solved_together_have_the_plans_of_each_alone(entropy):
    rng = np.random.default_rng(8)
    first, second = rng.normal(size=(6, 9, 3)), rng.normal(size=(6, 7, 3)) * np.arange(1, 7)[:, None, None]
    mass = rng.uniform(0.5, 2, (6, 9)), rng.uniform(0.5, 2, (6, 7))
    together = module.couple(first, second, entropy, *mass)
    alone = [couple(*window[:2], entropy, *window[2:]) for window in zip(first, second, *mass, strict=True)]
    np.testing.assert_allclose(together, alone, atol=2e-3)  # they stop together, so some are closer to convergence


def test_scales_that_overflow_are_solved_for_in_logarithms():
    """The far cell of the second window is a third of its mass, so the near cells of the first send it a third."""
    rng = np.random.default_rng(9)
    first, second = rng.normal(size=(2, 40, 2))
    first[0] += 300
    second[0] += 300
    mass = np.ones((2, 40))
    mass[:, 0] = 1e-12, 20
    plan = couple(first, second, 0.01, *mass)
    np.testing.assert_allclose(plan.sum(1), 1.0)
    assert plan[0, 0] == pytest.approx(1.0)
    assert plan[1:, 0].mean() == pytest.approx(20 / 59, rel=0.02)


def test_one_cell_less_changes_smooth_couplings_less():
    """Mean change of where the other cells move to, when a random cell is removed."""
    rng = np.random.default_rng(4)
    times, x = np.linspace(0, 1, 240)[:, None], rng.normal(size=(240, 8))
    changes = {}
    for name, settings in {"smooth": {}, "exact": {"overlap": 1, "entropy": 0.0}}.items():
        transport = Transport(windows=12, lags=2, **settings)
        moved = []
        for kept in (np.ones((240, 1)), np.ones((240, 1))):
            if moved:
                kept[37] = 0.0
            pairs = couple_cells(times, kept, x, transport)
            ends = np.full(x.shape, np.nan)
            ends[pairs.start] = pairs.coupling @ x
            moved.append(ends)
        changes[name] = np.nanmean(np.abs(moved[0] - moved[1]))
    assert changes["smooth"] < 0.5 * changes["exact"]


def test_large_windows_are_coupled_in_parts(monkeypatch, line):
    times, weights, x = line
    settings = Transport(windows=5, lags=1, overlap=1, entropy=0.0)
    whole = couple_cells(times, weights, x, settings)
    monkeypatch.setattr(module, "MAX_TOGETHER", 10)
    parts = couple_cells(times, weights, x, settings)
    np.testing.assert_array_equal(parts.start, whole.start)
    np.testing.assert_allclose(parts.coupling.sum(1), 1.0)
    # The same windows are coupled: the parts move to where the whole moves to, within the noise of fewer cells.
    moved = [np.asarray(pairs.coupling @ times[:, 0]) - times[pairs.start, 0] for pairs in (whole, parts)]
    first = whole.trajectory == 0
    assert moved[1][first].mean() == pytest.approx(moved[0][first].mean(), rel=0.02)
    assert np.diff(parts.coupling.indptr).max() <= 10


@given(windows=st.integers(3, 15), lag=st.integers(1, 2), overlap=st.integers(1, 3))
def test_pairs_follow_the_order_of_every_trajectory(line, windows, lag, overlap):
    times, weights, x = line
    settings = Transport(windows=windows, lags=lag, min_cells=3, overlap=overlap)
    pairs = couple_cells(times, weights, x, settings)
    assert pairs.coupling.shape == (len(pairs.start), 120)
    np.testing.assert_allclose(pairs.coupling.sum(1), 1.0)
    for m in range(2):
        own = np.flatnonzero(pairs.trajectory == m)
        members = np.flatnonzero(weights[:, m] > 0)
        order = members[np.argsort(times[members, m])]
        rank = np.full(120, -1)
        rank[order] = np.arange(len(order))
        n_windows = min(windows, len(order) // 3)
        span, size = max(1, round(lag * n_windows / windows)), len(order) / n_windows
        first, second = pairs.start[own], pairs.coupling[own].tocoo()
        assert (rank[first] >= 0).all()
        # The mean lag is that of the windows, give or take the place within a window and the rounding of borders.
        passed = rank[second.col] - rank[first[second.row]]
        assert (np.abs(passed - span * size) <= size + 1).all()
        # Every cell starts one pair, but those of the last windows.
        assert sorted(rank[first]) == list(range(round((n_windows - span) * size)))
        np.testing.assert_allclose(pairs.duration[own], span / n_windows)


@pytest.mark.parametrize(
    ("n_cells", "lag", "duration"),
    [(100, 4, 1 / 20), (175, 3, 2 / 35)],
    ids=["1.33 of 20 windows", "1.75 of 35 windows"],
)
def test_lags_span_the_same_share_of_fewer_windows_rounded_to_whole_ones(n_cells, lag, duration):
    rng = np.random.default_rng(0)
    times, x = np.linspace(0, 1, n_cells)[:, None], rng.normal(size=(n_cells, 2))
    pairs = couple_cells(times, np.ones((n_cells, 1)), x, Transport(windows=60, lags=lag, min_cells=5))
    np.testing.assert_allclose(pairs.duration, duration)


def test_cells_receive_mass_in_proportion_to_their_memberships():
    times, x = np.arange(4.0)[:, None], np.array([[0.0], [0.1], [5.0], [5.1]])
    weights = np.array([[1.0], [1.0], [1.0], [9.0]])
    pairs = couple_cells(times, weights, x, Transport(windows=2, lags=1, overlap=1, entropy=0.0, min_cells=2))
    np.testing.assert_allclose(pairs.coupling.toarray().mean(0), [0.0, 0.0, 0.1, 0.9])


def test_defaults():
    """Published results were made with these."""
    assert Transport() == Transport(
        windows=60,
        lags=(2, 3, 4),
        overlap=4,
        entropy=0.05,
        min_cells=6,
        n_pcs=30,
        batch_size=1024,
        ridge=0.5,
        relaxation=0.4,
        centring=True,
    )


@pytest.mark.parametrize("overlap", [1, 2, 4])
def test_windows_of_single_cells(overlap):
    """Borders between halves would round to the same cell."""
    x, times, weights = np.arange(9.0)[:, None], np.arange(9.0)[:, None], np.ones((9, 1))
    pairs = couple_cells(times, weights, x, Transport(windows=60, lags=20, overlap=overlap, min_cells=1))
    assert len(pairs.start) >= 6
    np.testing.assert_allclose(pairs.coupling.sum(1), 1.0)


@pytest.mark.parametrize("name", ["overlap", "min_cells", "n_pcs", "batch_size"])
@pytest.mark.parametrize("value", [0, 2.5, 4.0, True, "4"], ids=repr)
def test_counts_are_integers(name, value):
    with pytest.raises(ValueError, match=f"`{name}` to be an integer of at least 1, found {value!r}"):
        Transport(**{name: value})


def test_overlapping_windows_average_their_couplings():
    """Two places of a window of two cells: the middle cells lie in both."""
    x, times, weights = np.arange(6.0)[:, None], np.arange(6.0)[:, None], np.ones((6, 1))
    settings = Transport(windows=3, lags=1, overlap=2, entropy=0.0, min_cells=2)
    pairs = couple_cells(times, weights, x, settings)
    expected = np.zeros((4, 6))
    expected[np.arange(4), np.arange(4) + 2] = 1.0  # on a line the optimal coupling keeps the order
    np.testing.assert_allclose(pairs.coupling.toarray(), expected)
    np.testing.assert_array_equal(pairs.start, np.arange(4))


def test_several_windows_and_lags_are_combined_once(line):
    times, weights, x = line
    both = couple_cells(times, weights, x, Transport(windows=(6, 12), lags=(1, 2), min_cells=2))
    alone = [
        couple_cells(times, weights, x, Transport(windows=w, lags=lag, min_cells=2)) for w in (6, 12) for lag in (1, 2)
    ]
    assert len(both.start) == sum(len(pairs.start) for pairs in alone)
    assert set(both.kind) == {0, 1, 2, 3}
    # With few cells different wishes come to the same windows and lags, which count once.
    few = couple_cells(times, weights, x, Transport(windows=(60, 61), lags=(2, 3), min_cells=20))
    one = couple_cells(times, weights, x, Transport(windows=60, lags=2, min_cells=20))
    assert len(few.start) == len(one.start)


def test_too_few_cells(line):
    times, weights, x = line
    with pytest.raises(ValueError, match=r"two windows of 80.*Lower `objective=Transport\(min_cells=…\)`"):
        couple_cells(times, weights, x, Transport(min_cells=80))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"windows": 0}, "`windows`.*found 0"),
        ({"windows": 2.5}, "`windows`.*found 2.5"),
        ({"lags": ()}, "`lags`"),
        ({"lags": (60,)}, "`lags` below the number of windows, found 60 with 60"),
        ({"overlap": 0}, "`overlap`.*found 0"),
        ({"entropy": -0.1}, "`entropy`.*found -0.1"),
        ({"entropy": float("nan")}, "`entropy`.*found nan"),
        ({"min_cells": 0}, "`min_cells`.*found 0"),
        ({"n_pcs": 0}, "`n_pcs`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"ridge": -0.5}, "`ridge`.*found -0.5"),
        ({"ridge": float("inf")}, "`ridge`.*found inf"),
        ({"relaxation": -0.8}, "`relaxation`.*found -0.8"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Transport(**settings)


def equals(rng, signal: np.ndarray, n_partners: int) -> Pairs:
    """Every cell is coupled with cells of the same signal."""
    n = len(signal)
    partners = np.empty((n, n_partners), dtype=int)
    for value in np.unique(signal):
        same = np.flatnonzero(signal == value)
        partners[same] = rng.choice(same, (len(same), n_partners))
    row = np.repeat(np.arange(n), n_partners)
    shares = sparse.coo_array((np.full(n * n_partners, 1 / n_partners), (row, partners.ravel())), shape=(n, n))
    return Pairs(np.arange(n), sparse.csr_array(shares), np.ones(n), np.zeros(n, dtype=int), np.arange(n) % 2)


def test_noise_is_what_coupled_cells_do_not_share():
    rng = np.random.default_rng(0)
    signal = rng.integers(0, 10, 4000).astype(float)
    signal = (signal - signal.mean()) / signal.std()
    pairs, weights = equals(rng, signal, 5), rng.uniform(0.5, 2.0, 4000)
    noise = rng.normal(size=(4000, 3))
    for ratio in (0.1, 3.0):
        values = (signal[:, None] + np.sqrt(ratio) * noise) * 7.0 + 2.0
        assert noise_to_signal(pairs, values, weights) == pytest.approx(ratio, rel=0.15)
    assert noise_to_signal(pairs, signal[:, None], weights) == pytest.approx(0.0, abs=1e-9)
    constant = np.column_stack([signal, np.ones(4000)])
    assert noise_to_signal(pairs, constant, weights) == pytest.approx(0.0, abs=1e-9)
    assert noise_to_signal(pairs, noise, weights) > 20.0
    assert np.isfinite(noise_to_signal(pairs, np.ones((4000, 2)), weights))


def moves(start: np.ndarray, end: np.ndarray, kind: np.ndarray | None = None) -> tuple[Pairs, np.ndarray]:
    """Every row of the start is coupled with the same row of the end alone: the pairs, and the values of all cells."""
    n = len(start)
    coupling = sparse.csr_array((np.ones(n), (np.arange(n), n + np.arange(n))), shape=(n, 2 * n))
    trajectory = np.zeros(n, dtype=int)
    pairs = Pairs(np.arange(n), coupling, np.ones(n), trajectory, trajectory if kind is None else kind)
    return pairs, np.concatenate([start, end])


def test_signal_is_the_mean_share_of_the_variables():
    """One is kept and one is lost: half of the variance is signal, whatever the units of the two."""
    start = np.random.default_rng(0).normal(size=(500, 2)) * [1.0, 10.0]
    pairs, values = moves(start, start * [1.0, 0.0])
    assert noise_to_signal(pairs, values, np.ones(500)) == pytest.approx(1.0)


def test_signal_counts_the_pairs_of_every_lag_by_their_number():
    """Nine of ten pairs keep all, the others nothing."""
    kind = np.repeat([0, 1], [900, 100])
    start = np.tile([[-1.0], [1.0]], (500, 1))
    pairs, values = moves(start, start * (kind == 0)[:, None], kind)
    assert noise_to_signal(pairs, values, np.ones(1000)) == pytest.approx(0.1 / 0.9)


def test_signal_is_a_weighted_covariance():
    """Deviations from the weighted mean are -3/4 and 1/4: the covariance is 3/48 and the variance 9/48."""
    pairs, values = moves(np.array([[0.0], [0.0], [0.0], [1.0]]), np.array([[1.0], [0.0], [1.0], [1.0]]))
    assert noise_to_signal(pairs, values, np.array([1.0, 1.0, 1.0, 9.0])) == pytest.approx(2.0)


def test_cells_that_move_apart_have_no_noise():
    start = np.random.default_rng(0).normal(size=(300, 2))
    pairs, values = moves(start, 2 * start)
    assert noise_to_signal(pairs, values, np.ones(300)) == 0.0


def test_cells_of_one_time_are_coupled_in_the_order_of_the_rows():
    """As if each were a little later than the one before."""
    rng = np.random.default_rng(11)
    times, x = rng.integers(0, 8, 200) / 8, rng.normal(size=(200, 3))
    ones, transport = np.ones((200, 1)), Transport(windows=10, lags=2)
    tied, apart = (couple_cells(t[:, None], ones, x, transport) for t in (times, times + 1e-6 * np.arange(200)))
    np.testing.assert_array_equal(tied.start, apart.start)
    np.testing.assert_array_equal(tied.coupling.toarray(), apart.coupling.toarray())


def test_windows_of_more_than_two_hundred_cells_are_coupled_in_parts():
    """Every second cell with every second one; windows of 200 as a whole."""
    for n_cells, together in ((800, False), (400, True)):
        rng = np.random.default_rng(12)
        x, ones = rng.normal(size=(n_cells, 2)), np.ones((n_cells, 1))
        transport = Transport(windows=2, lags=1, overlap=1)
        pairs = couple_cells(np.arange(n_cells)[:, None] / n_cells, ones, x, transport)
        found = pairs.coupling.tocoo()
        mixed = (pairs.start[found.row] - found.col) % 2 == 1
        assert mixed.any() == together


def test_shares_below_a_thousandth_of_the_largest_are_dropped():
    """Or tables of pairs would be dense: cells × cells of every two windows."""
    rng = np.random.default_rng(13)
    first, second = rng.normal(size=(2, 1, 60, 3))
    (plan,) = module.couple(first, second, 0.05, np.ones((1, 60)), np.ones((1, 60)))
    least = np.where(plan > 0, plan, np.inf).min(1) / plan.max(1)
    assert 1e-3 <= least.min() < 1.5e-3
