"""Production: displacement and decay, against regressions done by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from sparsenode.objectives import production_deviation


def by_brute_force(state, slope, weight, regulators, ridge):
    """One penalised least-squares problem per gene, as rows of data: the penalty spares the gene itself."""
    share = weight / weight.sum()
    x, v = state - share @ state, slope - share @ slope
    deviation = []
    for gene in range(x.shape[1]):
        others = [r for r in regulators if r != gene]
        design = np.sqrt(share)[:, None] * np.column_stack([x[:, others], x[:, gene]])
        penalty = np.sqrt(ridge) * np.eye(len(others), len(others) + 1)
        response = np.concatenate([np.sqrt(share) * v[:, gene], np.zeros(len(others))])
        own = np.linalg.lstsq(np.vstack([design, penalty]), response, rcond=None)[0][-1]
        production = v[:, gene] + max(-own, 0.0) * x[:, gene]
        deviation.append(np.sqrt(share @ production**2))
    return np.array(deviation)


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    state = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6))
    slope = state @ rng.normal(size=(6, 6)) - 2.0 * state + rng.normal(size=(200, 6))
    slope[:, 0] += 9.0 * state[:, 0]  # grows by itself: nothing decays
    return state, slope, rng.uniform(0.1, 2.0, 200)


@pytest.mark.parametrize("regulators", [[0, 1, 2, 3, 4, 5], [4, 1], [3]])
@pytest.mark.parametrize("ridge", [0.01, 0.5, 30.0])
def test_it_is_the_regression_with_a_free_decay(pairs, regulators, ridge):
    found = production_deviation(*pairs, np.array(regulators), ridge)
    np.testing.assert_allclose(found, by_brute_force(*pairs, regulators, ridge), rtol=1e-8)


def test_a_gene_that_grows_has_the_deviation_of_its_displacement(pairs):
    state, slope, weight = pairs
    share = weight / weight.sum()
    expected = np.sqrt(share @ (slope[:, 0] - share @ slope[:, 0]) ** 2)
    assert production_deviation(*pairs, np.arange(6), 0.01)[0] == pytest.approx(expected)


def test_decay_that_hides_a_regulator_is_added_back():
    """Expression that follows its regulator closely hardly moves; what it is produced at varies all the same."""
    rng = np.random.default_rng(1)
    regulator = rng.normal(size=500)
    target = regulator + 0.3 * rng.normal(size=500)
    slope = np.column_stack([rng.normal(size=500), 5.0 * (regulator - target)])
    found = production_deviation(np.column_stack([regulator, target]), slope, np.ones(500), np.array([0]), 1e-3)
    assert slope[:, 1].std() < 1.6
    assert found[1] == pytest.approx(5.0 * regulator.std(), rel=0.05)


def test_genes_that_do_not_move_or_vary_have_a_unit():
    state, slope = np.ones((50, 3)), np.zeros((50, 3))
    state[:, 0] = np.linspace(-1, 1, 50)
    slope[:, 1] = np.linspace(0, 1, 50)
    found = production_deviation(state, slope, np.ones(50), np.arange(3), 0.0)
    assert np.isfinite(found).all()
    assert found[0] == found[2] == 1.0
