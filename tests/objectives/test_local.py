"""Values and slopes at the ends of trajectories, against numpy's polynomial fits."""

from __future__ import annotations

import numpy as np
import pytest

from sparsenode.objectives._local import local_weights


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("derivative", [0, 1])
def test_it_is_a_weighted_polynomial_fit(at, degree, derivative):
    rng = np.random.default_rng(0)
    times = rng.uniform(0.1, 0.9, (60, 2))
    times[:2] = [[0.1, 0.1], [0.9, 0.9]]
    times[2:4] = [[0.0, 0.05], [1.0, 0.95]]
    weights = rng.uniform(0, 2, (60, 2)) * (rng.uniform(size=(60, 2)) > 0.2)
    weights[:2] = 1.0
    usable = np.ones(60, dtype=bool)
    usable[2:4] = False
    x = rng.normal(size=60)
    found = local_weights(times, weights, usable, at, derivative, degree, 0.2).T @ x
    for m in range(2):
        kernel = weights[:, m] * usable * np.exp(-0.5 * ((times[:, m] - at) / 0.2) ** 2)
        expected = np.polyfit(times[:, m] - at, x, degree, w=np.sqrt(kernel))[-1 - derivative]
        np.testing.assert_allclose(found[m], expected, rtol=1e-8)


def test_polynomials_of_that_degree_are_exact_whatever_the_bandwidth():
    times = np.linspace(0, 1, 12)[:, None]
    x = 3 + 2 * times[:, 0] - 5 * times[:, 0] ** 2
    arguments = times, np.ones((12, 1)), np.ones(12, dtype=bool)
    assert (local_weights(*arguments, 0.0, 1, 2, 1e-3).T @ x)[0] == pytest.approx(2.0)
    assert (local_weights(*arguments, 1.0, 1, 2, 1e-3).T @ x)[0] == pytest.approx(-8.0)
    assert (local_weights(*arguments, 1.0, 0, 2, 1e-3).T @ x)[0] == pytest.approx(0.0, abs=1e-9)


def test_few_times_lower_the_degree():
    times, ones = np.array([[0.0], [0.0], [1.0]]), np.ones((3, 1))
    usable = np.ones(3, dtype=bool)
    assert (local_weights(times, ones, usable, 0.0, 1, 2, 0.5).T @ [1.0, 3.0, 5.0])[0] == pytest.approx(3.0)
    np.testing.assert_array_equal(local_weights(0 * times, ones, usable, 0.0, 1, 2, 0.5), 0.0)


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("derivative", [0, 1])
def test_a_narrow_kernel_widens_until_enough_times_are_within_twice_of_it(degree, derivative):
    """Twice as many distances as coefficients; times that are equally far count once, and so do those that repeat."""
    rng = np.random.default_rng(0)
    times = np.append(np.sort(rng.uniform(0.0, 1.0, 30)), [0.5, 0.5])
    at = 0.5 * (times[10] + times[11])  # two times lie equally far
    x = rng.normal(size=32)
    distance = np.unique(np.abs(times - at))
    width = distance[2 * (degree + 1) - 1] / 2
    kernel = np.exp(-0.5 * ((times - at) / width) ** 2)
    expected = np.polyfit(times - at, x, degree, w=np.sqrt(kernel))[-1 - derivative]
    ones = np.ones((32, 1))
    found = local_weights(times[:, None], ones, np.ones(32, dtype=bool), at, derivative, degree, 1e-3)[:, 0] @ x
    assert found == pytest.approx(expected, rel=1e-6)
