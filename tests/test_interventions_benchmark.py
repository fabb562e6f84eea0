"""The truth, the baselines and the scores of ``benchmarks/interventions.py``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def interventions():
    if not BENCHMARKS.exists():  # a source distribution has no benchmarks
        pytest.skip("no benchmarks here")
    sys.path.insert(0, str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module("interventions")
    sys.path.remove(str(BENCHMARKS))
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) + [3.0, 2.0, 5.0, 4.0]


def test_a_chain_goes_out_behind_the_gene_that_is_knocked_out(interventions):
    """And no gene before it changes, but through the repression of the first by the last."""
    network = interventions.boolean.chain(4, 3.0)
    network.repressors.clear()
    effects = interventions.true_effects(network, 300)
    np.testing.assert_array_equal(effects[np.tril_indices(4, -1)], 0.0)
    unperturbed, _ = interventions.boolean.simulate(network, 300, interventions.TRUE_SEED)
    assert (effects[np.triu_indices(4)] < -0.02).all()
    np.testing.assert_allclose(np.diag(effects), -unperturbed.mean(0))


def test_regression_is_that_of_scikit_learn(interventions, x):
    found = interventions.regression(x)
    for gene in range(4):
        fit = LinearRegression().fit(x[:, [gene]], x)
        without = fit.predict([[0.0]])[0] - x.mean(0)
        np.testing.assert_allclose(found[gene], without, atol=1e-9)


def test_ridge_propagates_while_the_gene_is_held(interventions, x):
    found = interventions.ridge(x)
    np.testing.assert_allclose(np.diag(found), -x.mean(0))
    z = (x - x.mean(0)) / x.std(0)
    for held in range(4):
        change = np.zeros(4)
        change[held] = -x[:, held].mean() / x[:, held].std()
        for _ in range(3):
            following = np.zeros(4)
            for target in range(4):
                others = [gene for gene in range(4) if gene != target]
                gram = z[:, others].T @ z[:, others] + np.eye(3)
                following[target] = change[others] @ np.linalg.solve(gram, z[:, others].T @ z[:, target])
            following[held] = change[held]
            change = following
        np.testing.assert_allclose(found[held], change * x.std(0), rtol=1e-6)


def test_scores_of_predictions_that_are_known(interventions):
    true = np.array([[-9.0, 1.0, -2.0], [0.1, -9.0, 3.0], [0.0, -4.0, -9.0]])
    deviation = np.array([1.0, 2.0, 4.0])
    perfect, nothing, half = (interventions.score(share * true, true, deviation) for share in (1.0, 0.0, 0.5))
    assert perfect["skill"] == perfect["sign_accuracy"] == perfect["auroc"] == 1.0
    assert perfect["correlation"] == pytest.approx(1.0)
    assert perfect["rank_correlation"] == pytest.approx(1.0)
    assert nothing["skill"] == nothing["correlation"] == nothing["sign_accuracy"] == 0.0
    assert half["skill"] == pytest.approx(0.75)
    # 0.5, −0.5, 0.75 and −2 of six are above a quarter of a standard deviation, 0.1 and 0 are not.
    assert perfect["large"] == pytest.approx(4 / 6)
    flipped = true * np.array([[1, -1, 1], [1, 1, 1], [1, 1, 1]])
    assert interventions.score(flipped, true, deviation)["sign_accuracy"] == 0.75


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_effects_of_a_model_are_means_over_lineages(interventions, monkeypatch):
    """Weighted by the shares of the later cells, genes in the order of the data."""
    adata = interventions.boolean.cells(interventions.boolean.bifurcation(7, 4.0), 300, 0)
    models = []

    class Kept(interventions.SparseNODE):
        def train(self, **arguments):
            models.append(self)
            super().train(max_epochs=1, **arguments)

    monkeypatch.setattr(interventions, "SparseNODE", Kept)
    found = interventions.model_effects(adata, objective="transport", hidden=(4,))
    late = (adata.obs["pseudotime"] > adata.obs["pseudotime"].median()).to_numpy()
    n = adata.obsm["lineages"].to_numpy()[late].sum(0)
    run = models[0].simulate(knockout="g2")
    assert list(models[0].trajectories["lineage"]) == list(adata.obsm["lineages"].columns)
    difference = np.trapezoid(run.perturbed - run.unperturbed, run.times[..., None], axis=1) / run.times[:, -1:]
    np.testing.assert_allclose(found[2], n @ difference / n.sum(), rtol=1e-5, atol=1e-8)
