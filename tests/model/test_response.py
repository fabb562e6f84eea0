"""Responses to interventions along the network of "both": against closed forms, loops, and the network that is reported."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.interpolate import CubicSpline
from scipy.linalg import expm
from sklearn.linear_model import LinearRegression

import sparsenode as sn
from sparsenode.model._response import respond, unshrunk
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
    found = respond(
        lambda _: rest, sparse.csr_array(effects), decay, {1: 0.0}, EVERYWHERE * np.ones(5), TIMES, np.ones(5)
    )
    matrix = effects - np.diag(decay)
    matrix[1] = 0.0
    expected = np.array([expm(matrix * time) @ [0.0, -rest[1], 0.0, 0.0, 0.0] for time in TIMES])
    np.testing.assert_allclose(found - rest, expected, atol=1e-4)
    assert (found[:, 1] == 0.0).all()
    assert np.abs(expected[:, [0, 2, 3, 4]]).max() > 0.1


def test_along_a_trajectory_regulators_act_within_their_reach():
    """Small steps of Euler, gene by gene; the held gene is beyond the reach, which it widens."""
    effects, decay = matrices(7)
    knots = np.linspace(0.0, 1.5, 40)
    curve = CubicSpline(knots, np.sin(knots[:, None] * np.arange(1, 6)) + 1.5)
    reach = np.array([[0.8, 0.9, 1.0, 0.5, 1.2], [1.9, 2.0, 2.2, 1.8, 2.1]])
    held = {0: 0.3, 3: 4.0}
    found = respond(curve, sparse.csr_array(effects), decay, held, reach, TIMES, np.ones(5))
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
    free = respond(curve, sparse.csr_array(effects), decay, held, EVERYWHERE * np.ones(5), TIMES, np.ones(5))
    assert np.abs(free - found).max() > 0.1


def test_an_unstable_network_leads_no_further_than_its_reach():
    effects = sparse.csr_array(100.0 * np.eye(3)[[2, 0, 1]])
    reach = np.array([np.zeros(3), np.full(3, 2.0)])
    found = respond(lambda _: np.ones(3), effects, np.full(3, 10.0), {0: 0.0}, reach, 20 * TIMES, np.ones(3))
    assert np.abs(found - 1.0).max() <= 100.0 * 1.0 / 10.0 + 1e-3


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
    """That of each lineage, and in each donor's unit of time."""
    model, replicate = donors, 1
    lengths = (model.trajectories["end"] - model.trajectories["start"]).to_numpy(float)
    times = np.linspace(0.0, lengths.min(), 6)
    found = model.simulate(clamp={"gene1": 2.0, "gene4": 0.1}, times=times, replicate=replicate)
    np.testing.assert_array_equal(found.unperturbed, model.simulate(times=times, replicate=replicate).unperturbed)
    places = model.genes.get_indexer(["gene1", "gene4"])
    largest = 0.0
    for m, row in enumerate(model.trajectories.itertuples()):
        of_lineage = [one for one in model.trajectories.itertuples() if one.lineage == row.lineage]
        mean = np.exp(np.mean([np.log(one.end - one.start) for one in of_lineage]))
        tempo = float(model.module.time_unit) * float(model.module.relative_span[m]) / lengths[m]
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
            rate -= of_own * tempo * model.network_decay_[replicate] * difference
            rate[places] = 0.0
            difference = difference + knots[1] * rate
        np.testing.assert_allclose(found.perturbed[m], expected, atol=3e-3)
        largest = max(largest, np.abs(difference).max())
    assert largest > 0.05
    assert model.unshrunk_.shape == (2, 2)
    assert (model.unshrunk_ > 0).all()
    assert not (model.unshrunk_ == 1.0).any()


def test_a_given_start_moves_like_a_trajectory_that_begins_there(donors):
    """In the unit of all donors together, in which a lineage has one length."""
    name = donors.lineages[0]
    trajectory = donors.simulate(knockout="gene2", lineage=name, times=[0.0, 0.4])
    tempo = float(donors.module.time_unit * donors.module.relative_span[0])
    tempo /= donors.trajectories["end"].iloc[0] - donors.trajectories["start"].iloc[0]
    start = trajectory.unperturbed[0, 0]
    found = donors.simulate(start, knockout="gene2", lineage=name, times=[0.0, 0.4 * tempo])
    np.testing.assert_allclose(found.perturbed[0, -1], trajectory.perturbed[0, -1], atol=1e-3)


def test_what_no_edge_leads_to_stays_as_it_is(donors):
    """Exactly, and signs of what one edge leads to are its own at first."""
    for name in donors.lineages:
        network = donors.get_adjacency(name, weights="jacobian").to_numpy()
        found = donors.simulate(clamp={"gene0": 1e3}, lineage=name, times=[1e-3])
        first = (found.perturbed - found.unperturbed)[:, 0, 1:]
        np.testing.assert_array_equal(np.sign(first), np.tile(np.sign(network[1:, 0]), (len(first), 1)))
        assert (network[1:, 0] != 0).any()


def test_responses_are_saved(donors, tmp_path):
    donors.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=donors.adata)
    arguments = {"knockout": "gene3", "times": [0.0, 0.5]}
    np.testing.assert_array_equal(loaded.simulate(**arguments).perturbed, donors.simulate(**arguments).perturbed)


def test_without_a_decay_there_is_none(cells_without_decay):
    assert (cells_without_decay.network_decay_ == 0).all()
    assert np.isfinite(cells_without_decay.simulate(knockout="gene0").perturbed).all()


@pytest.fixture
def cells_without_decay(make_adata) -> sn.SparseNODE:
    adata = make_adata(n_obs=120)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    model = sn.SparseNODE(adata, objective="both", hidden=(4,), decay=False)
    model.train(**(QUICK | {"max_epochs": 2}))
    return model
