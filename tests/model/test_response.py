"""Responses to interventions along the network of "both": against closed forms, loops, and the network that is reported."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import sparse
from scipy.interpolate import CubicSpline
from scipy.linalg import expm
from sklearn.linear_model import LinearRegression

import sparsenode as sn
from sparsenode.model._response import interpolated, respond, unshrunk
from sparsenode.regularizers import CNODE

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*leave the range of the training data.*"),
    pytest.mark.filterwarnings("ignore:.*go on after their last cell.*"),
    pytest.mark.filterwarnings("ignore:.*open path leads from.*"),
]
QUICK = {"max_epochs": 10, "steps_per_epoch": 10, "accelerator": "cpu", "enable_progress_bar": False}
TIMES = np.linspace(0.0, 1.5, 7)
EVERYWHERE = np.array([[-1e6], [1e6]])


def matrices(seed: int, n: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(n, n)) * (rng.random((n, n)) < 0.6)
    return effects, rng.uniform(0.1, 1.0, n)


@pytest.mark.parametrize("seed", range(3))
def test_around_a_state_at_rest_it_is_a_matrix_exponential(seed):
    """The held gene is a constant input of the others."""
    effects, decay = matrices(seed)
    rest = np.linspace(1.0, 2.0, 5)
    reach, states = EVERYWHERE * np.ones(5), np.tile(rest, (1, len(TIMES), 1))
    network = sparse.csr_array(effects)
    found = respond(lambda _: rest[None], states, network, decay, {1: 0.0}, reach, TIMES, np.ones(5))[0]
    matrix = effects - np.diag(decay)
    matrix[1] = 0.0
    expected = np.array([expm(matrix * time) @ [0.0, -rest[1], 0.0, 0.0, 0.0] for time in TIMES])
    np.testing.assert_allclose(found - rest, expected, atol=1e-4)
    assert (found[:, 1] == 0.0).all()
    assert np.abs(expected[:, [0, 2, 3, 4]]).max() > 0.1


def test_genes_in_small_and_large_units_are_solved_for_alike():
    """As if all of them had the same unit."""
    effects, decay = matrices(1)
    rest, runs = np.linspace(1.0, 2.0, 5), []
    for u in (np.ones(5), 1e-6 * np.arange(1, 6), 1e6 * np.arange(1, 6)):
        states, network = np.tile(u * rest, (1, len(TIMES), 1)), sparse.csr_array(u[:, None] * effects / u)
        held = {0: 3.0 * u[0], 4: 0.0}
        found = respond(lambda _, s=states: s[:, 0], states, network, decay, held, EVERYWHERE * u, TIMES, u)
        runs.append(found / u)
    np.testing.assert_allclose(runs[1:], np.stack([runs[0]] * 2), atol=1e-5)
    assert np.abs(runs[0][0, -1, 1:4] - rest[1:4]).min() > 0.1


def test_along_a_trajectory_regulators_act_within_their_reach():
    """Small steps of Euler, gene by gene; the held gene is beyond the reach, which it widens. Another start does not matter."""
    effects, decay = matrices(7)
    knots = np.linspace(0.0, 1.5, 40)
    curve = CubicSpline(knots, np.sin(knots[:, None] * np.arange(1, 6)) + 1.5)
    reach = np.array([[0.8, 0.9, 1.0, 0.5, 1.2], [1.9, 2.0, 2.2, 1.8, 2.1]])
    held = {0: 0.3, 3: 4.0}

    def two(time: float) -> np.ndarray:
        return np.stack([curve(time), 0.5 * curve(time) + 1.0])

    network, states = sparse.csr_array(effects), np.stack([two(time) for time in TIMES], 1)
    found = respond(two, states, network, decay, held, reach, TIMES, np.ones(5))[0]
    low, high = reach.copy()
    low[0], high[3] = 0.3, 4.0
    n_steps, state = 6000, curve(0.0).copy()
    step = 1.5 / n_steps
    expected = []
    for k in range(n_steps + 1):
        for gene, value in held.items():
            state[gene] = value
        if k % 1000 == 0:
            expected.append(state.copy())
        plain, slope = curve(k * step), curve(k * step, 1)
        rate = np.zeros(5)
        for i in range(5):
            regulated = 0.0
            for j in range(5):
                acts, acted = (min(max(one[j], low[j]), high[j]) for one in (state, plain))
                regulated += effects[i, j] * (acts - acted)
            rate[i] = slope[i] + regulated - decay[i] * (state[i] - plain[i])
        state = state + step * rate
    np.testing.assert_allclose(found, expected, atol=3e-3)
    free = respond(two, states, network, decay, held, EVERYWHERE * np.ones(5), TIMES, np.ones(5))[0]
    assert np.abs(free - found).max() > 0.1


def test_an_unstable_network_leads_no_further_than_its_reach():
    effects = sparse.csr_array(100.0 * np.eye(3)[[2, 0, 1]])
    reach = np.array([np.zeros(3), np.full(3, 2.0)])
    states = np.ones((1, len(TIMES), 3))
    found = respond(lambda _: states[:, 0], states, effects, np.full(3, 10.0), {0: 0.0}, reach, 20 * TIMES, np.ones(3))
    assert np.abs(found - 1.0).max() <= 100.0 * 1.0 / 10.0 + 1e-3


def test_what_nothing_reaches_has_exactly_no_effect(donors):
    """Not one of rounding either, whose sign would be one of chance."""
    model = copy.copy(donors)
    model.network_ = copy.deepcopy(donors.network_)
    for network in model.network_[0]:
        network[1] = 0.0  # nothing regulates the second gene
    effects = model.simulate(knockout="gene0", replicate=0).effects.set_index("gene")
    assert (effects.loc["gene1", ["final", "mean", "peak"]] == 0.0).all(None)
    assert (effects["final"] != 0.0).any()


@pytest.mark.parametrize("n", [50, 5000])
def test_factors_that_undo_shrinkage_are_those_of_scikit_learn(n):
    """One intercept a gene, two slopes for all; rows without weight do not count, and only the first sample is read."""
    rng = np.random.default_rng(n)
    effects, decay = matrices(3)
    x, weight = rng.normal(size=(n, 5)) + 3.0, rng.uniform(size=(2, n)) * (rng.random((2, n)) < 0.8)
    own, others = np.diag(effects) - decay, effects - np.diag(np.diag(effects))
    v = 2.0 * x @ others.T + 1.3 * own * x + rng.normal(size=(n, 5)) + np.arange(5)
    pairs = {"state": torch.tensor(x), "slope": torch.tensor(np.stack([v, -v])), "weight": torch.tensor(weight)}
    gene = np.tile(np.eye(5), (n, 1))
    inputs = np.column_stack([(x @ others.T).ravel(), (own * x).ravel(), gene])
    fit = LinearRegression(fit_intercept=False).fit(inputs, v.ravel(), np.repeat(weight[0], 5))
    found = unshrunk(sparse.csr_array(effects), decay, pairs)
    assert found == pytest.approx(fit.coef_[:2], rel=1e-6)
    assert found == pytest.approx((2.0, 1.3), rel=0.3 if n == 50 else 0.03)


@pytest.mark.parametrize("what", ["no edges", "other signs", "no decay"])
def test_factors_are_one_where_they_are_not_known(what):
    rng = np.random.default_rng(0)
    effects, decay = matrices(3)
    np.fill_diagonal(effects, 0.0)
    x = rng.normal(size=(100, 5))
    v = -(x @ effects.T) - decay * x
    if what == "no edges":
        effects = np.zeros((5, 5))
    if what == "no decay":
        decay = np.zeros(5)
    pairs = {"state": torch.tensor(x), "slope": torch.tensor(v[None]), "weight": torch.ones(1, 100)}
    assert unshrunk(sparse.csr_array(effects), decay, pairs) == (1.0, 1.0)


@pytest.fixture(scope="module")
def donors(make_adata) -> sn.SparseNODE:
    """Two donors, of which one counts pseudotime in a unit of its own."""
    adata = make_adata(n_obs=240, n_donors=2, seed=1)
    other = adata.obs["donor"] == "donor1"
    adata.obs.loc[other, "dpt_pseudotime"] = 0.5 + 1.4 * (adata.obs.loc[other, "dpt_pseudotime"] - 0.5)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage", batch_key="donor")
    model = sn.SparseNODE(adata, CNODE([0.1, 0.3]), objective="both", hidden=(6,), n_knots=5)
    model.train(**QUICK)
    return model


def test_effects_follow_the_network_that_is_reported(donors):
    """That of each lineage, of which one is turned round here, and in each donor's unit of time."""
    model, replicate = copy.copy(donors), 1
    model.network_ = [[-1.0 * one if place else one for place, one in enumerate(of_one)] for of_one in donors.network_]
    lengths = (model.trajectories["end"] - model.trajectories["start"]).to_numpy(float)
    times = np.linspace(0.0, lengths.min(), 6)
    found = model.simulate(clamp={"gene4": 0.1, "gene1": 2.0}, times=times, replicate=replicate)  # in any order
    np.testing.assert_array_equal(found.unperturbed, model.simulate(times=times, replicate=replicate).unperturbed)
    places = model.genes.get_indexer(["gene1", "gene4"])
    unit, largest = float(model.module.time_unit), 0.0
    for m, row in enumerate(model.trajectories.itertuples()):
        of_lineage = [one for one in model.trajectories.itertuples() if one.lineage == row.lineage]
        mean = np.exp(np.mean([np.log(one.end - one.start) for one in of_lineage]))
        tempo = unit * float(model.module.relative_span[m]) / lengths[m]
        assert tempo == pytest.approx(mean / lengths[m], rel=0.2)
        effects = tempo * model.get_adjacency(row.lineage, weights="jacobian", replicate=replicate).to_numpy()
        of_effects, of_own = model.unshrunk_[replicate]
        effects = np.where(np.eye(8, dtype=bool), of_own, of_effects) * effects
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            knots = np.linspace(0.0, times[-1], 2001)
            run = model.predict(times=row.start + knots, replicate=replicate)[m]
        low, high = model.data_range_.copy()
        low[places], high[places] = np.minimum(low[places], [2.0, 0.1]), np.maximum(high[places], [2.0, 0.1])
        difference, expected = np.zeros(8), []
        for k in range(2001):
            state = run[k] + difference
            state[places] = 2.0, 0.1
            if k % 400 == 0:
                expected.append(state)
            rate = effects @ (np.clip(state, low, high) - np.clip(run[k], low, high))
            rate -= of_own * tempo / unit * model.network_decay_[replicate] * difference
            rate[places] = 0.0
            difference = difference + knots[1] * rate
        np.testing.assert_allclose(found.perturbed[m], expected, atol=3e-3)
        largest = max(largest, np.abs(difference).max())
    assert largest > 0.05
    assert model.unshrunk_.shape == (2, 2)
    assert (model.unshrunk_ > 0).all()
    assert not (model.unshrunk_ == 1.0).any()


def test_factors_are_those_of_the_network_of_every_replicate(make_adata, monkeypatch):
    """Read at all training cells, which their displacements are taken from."""
    adata = make_adata(n_obs=240, seed=2)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    asked = []

    def spy(effects, decay, pairs):
        asked.append((effects.toarray(), decay, pairs))
        return unshrunk(effects, decay, pairs)

    monkeypatch.setattr("sparsenode.model._both.unshrunk", spy)
    model = sn.SparseNODE(adata, CNODE([0.1, 0.3]), objective="both", hidden=(6,), n_knots=5)
    model.train(**QUICK)
    assert len(asked) == 2
    rate = model.network_units_[1]
    for replicate, (effects, decay, pairs) in enumerate(asked):
        expected = np.mean([one.toarray() for one in model.network_[replicate]], 0)
        np.testing.assert_allclose(effects, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(rate * decay, model.network_decay_[replicate], rtol=1e-5)
        assert set(pairs["cell"].tolist()) <= set(model.train_indices)
        assert tuple(model.unshrunk_[replicate]) == unshrunk(sparse.csr_array(effects), decay, pairs)
    assert not np.allclose(asked[0][1], asked[1][1])


def test_another_unit_of_pseudotime_changes_neither_runs_nor_effects(make_adata):
    """Where batches are aligned lengths have no meaning, and edges are per the unit of the last training."""
    adata = make_adata(n_obs=240, seed=1)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    model = sn.SparseNODE(adata, CNODE(0.05), objective="both", hidden=(6,), n_knots=5)
    model.train(**QUICK)
    before, network = model.simulate(clamp={"gene1": 2.0}), model.get_adjacency(weights="jacobian")
    other = adata.copy()
    other.obs_names = "other_" + other.obs_names
    other.obs["dpt_pseudotime"] *= 10.0
    model.adata = other
    model.train(**(QUICK | {"max_epochs": 1, "steps_per_epoch": 1}), plan_kwargs={"lr": 1e-9})
    after = model.simulate(clamp={"gene1": 2.0})
    np.testing.assert_allclose(after.times, 10.0 * before.times)
    np.testing.assert_allclose(after.effects["final"], before.effects["final"], atol=2e-3)
    assert np.abs(before.effects["final"][~before.effects["held"]]).max() > 0.05
    pd.testing.assert_frame_equal(10.0 * model.get_adjacency(weights="jacobian"), network, rtol=1e-4)


def test_a_shared_field_moves_starts_by_the_mean_network(make_adata):
    adata = make_adata(n_obs=240, seed=1)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    model = sn.SparseNODE(adata, CNODE(0.05), objective="both", hidden=(6,), n_knots=5, fields="shared")
    model.train(**QUICK)
    start, arguments = adata.X[:1], {"knockout": "gene1", "times": [1e-3]}

    def slopes(**lineage) -> np.ndarray:
        run = model.simulate(start, **arguments, **lineage)
        return (run.perturbed - run.unperturbed)[0, 0]

    one, other = (slopes(lineage=name) for name in model.lineages)
    np.testing.assert_allclose(slopes(), (one + other) / 2, rtol=1e-3, atol=1e-9)
    assert np.abs(one - other).max() > 1e-6


def test_many_starts_are_solved_for_as_one_by_one(donors):
    starts = donors.adata[:70, donors.genes].to_df()
    arguments = {"knockout": "gene2", "lineage": donors.lineages[1], "times": [0.2, 0.6]}
    found = donors.simulate(starts, **arguments).perturbed
    for row in (0, 31, 32, 69):
        alone = donors.simulate(starts.iloc[[row]], **arguments).perturbed[0]
        np.testing.assert_allclose(found[row], alone, atol=1e-3)


def test_states_do_not_depend_on_what_other_times_are_asked_for(donors):
    """Though the run without intervention is interpolated between them."""
    end = float((donors.trajectories["end"] - donors.trajectories["start"]).min())
    alone, among = (donors.simulate(knockout="gene0", times=times) for times in ([end], np.linspace(0.0, end, 300)))
    np.testing.assert_allclose(alone.perturbed[:, -1], among.perturbed[:, -1], atol=1e-4)
    assert np.abs(alone.perturbed - alone.unperturbed)[:, -1, 1:].max() > 0.01


def test_a_given_start_moves_like_a_trajectory_that_begins_there(donors):
    """In the unit of all donors together, in which a lineage has one length."""
    name = donors.lineages[0]
    trajectory = donors.simulate(knockout="gene2", lineage=name, times=[0.0, 0.4])
    tempo = float(donors.module.time_unit * donors.module.relative_span[0])
    tempo /= donors.trajectories["end"].iloc[0] - donors.trajectories["start"].iloc[0]
    start = trajectory.unperturbed[0, 0]
    found = donors.simulate(start, knockout="gene2", lineage=name, times=[0.0, 0.4 * tempo])
    np.testing.assert_allclose(found.perturbed[0, -1], trajectory.perturbed[0, -1], atol=1e-3)


def test_effects_begin_along_the_edges_of_the_held_gene(donors):
    """With their signs; other genes follow later, by way of these."""
    n_without = 0
    for name in donors.lineages:
        network = donors.get_adjacency(name, weights="jacobian", replicate=1)
        for gene in ("gene0", "gene2", "gene3"):
            others = donors.genes != gene
            own = network[gene][others].to_numpy()
            run = donors.simulate(clamp={gene: 1e3}, lineage=name, times=[1e-3], replicate=1)
            for first in (run.perturbed - run.unperturbed)[:, 0, others]:
                np.testing.assert_array_equal(np.sign(first[own != 0]), np.sign(own[own != 0]))
                assert np.abs(first[own == 0]).max(initial=0.0) <= 0.02 * np.abs(first).max()
            n_without += (own == 0).sum()
    assert n_without > 5


def test_responses_are_saved(donors, tmp_path):
    donors.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=donors.adata)
    arguments = {"knockout": "gene3", "times": [0.0, 0.5]}
    np.testing.assert_array_equal(loaded.simulate(**arguments).perturbed, donors.simulate(**arguments).perturbed)


def test_without_a_decay_there_is_none(cells_without_decay):
    assert (cells_without_decay.network_decay_ == 0).all()
    network = cells_without_decay.get_adjacency(cells_without_decay.lineages[0], weights="jacobian")
    run = cells_without_decay.simulate(clamp={"gene0": 1.0}, lineage=cells_without_decay.lineages[0], times=[0.0, 1e-3])
    held = 1.0 - run.unperturbed[0, 0, 0]
    slope = (run.perturbed - run.unperturbed)[0, 1, 1:] / 1e-3
    factor = cells_without_decay.unshrunk_[0, 0]
    np.testing.assert_allclose(slope, factor * held * network["gene0"].iloc[1:], rtol=0.02, atol=1e-4)


@pytest.fixture
def cells_without_decay(make_adata) -> sn.SparseNODE:
    adata = make_adata(n_obs=120)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    model = sn.SparseNODE(adata, objective="both", hidden=(4,), decay=False)
    model.train(**(QUICK | {"max_epochs": 2}))
    return model


@given(st.sets(st.integers(1, 999)), st.floats(0.0, 3.0))
@example(set(range(10, 1000, 10)), 0.35)
def test_runs_are_interpolated_between_times_that_differ(wanted, longest):
    """By more than rounding, at least as densely as in predictions, and at all times that are wanted."""
    shares = np.array([*sorted(wanted), 1000]) / 1000
    found = interpolated(shares, longest)
    assert np.isin(shares, found).all()
    assert np.diff(found).min() > 1e-10
    steps = np.diff(np.append(0.0, found))
    assert steps.max() * longest < 0.01 + 1e-8
    assert (found[0], found[-1]) == (0.0, 1.0)


def test_responses_of_trajectories_of_unlike_lengths_are_those_of_each_alone(make_adata):
    """Also at times that are given."""
    adata = make_adata(n_obs=240, seed=1)
    adata.obs.loc[adata.obs["lineage"] == "myeloid", "dpt_pseudotime"] *= 0.5
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    model = sn.SparseNODE(adata, CNODE(0.05), objective="both", hidden=(6,), n_knots=5)
    model.train(**QUICK)
    found = model.simulate(clamp={"gene1": 2.0})
    assert found.times[:, -1].max() > 1.8 * found.times[:, -1].min()
    for m, name in enumerate(model.trajectories["lineage"]):
        for times in (None, found.times[m]):
            alone = model.simulate(clamp={"gene1": 2.0}, lineage=name, times=times)
            np.testing.assert_allclose(alone.perturbed[0], found.perturbed[m], atol=2e-3)
    assert np.abs(found.perturbed - found.unperturbed)[:, -1].max() > 0.05
