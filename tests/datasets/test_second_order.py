from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import solve_ivp

import sparsenode as sn

MAKERS = {"fixed": sn.datasets.second_order_system, "random": lambda: sn.datasets.random_second_order_system(5, seed=3)}
both = pytest.mark.parametrize("system", [make() for make in MAKERS.values()], ids=list(MAKERS))


def modes(system):
    """Eigenvalues as roots of the quadratic eigenvalue problem, without the companion matrix of the package."""
    n = len(system.genes)
    s = np.linspace(0.1, 2.0, 2 * n + 1)
    blocks = system.position.to_numpy(), system.velocity.to_numpy()
    values = [np.linalg.det(z * z * np.eye(n) - z * blocks[1] - blocks[0]) for z in s]
    return np.roots(np.polyfit(s, values, 2 * n))


@both
def test_solution_is_that_of_the_equations(system):
    """Against an integration of the accelerations."""
    n, generator = len(system.genes), np.random.default_rng(0)
    times = np.linspace(0, 8, 9)
    x0, v0 = generator.standard_normal((2, n))

    def slope(_, state):
        return np.concatenate([state[n:], system.acceleration(state[None, :n], state[None, n:])[0]])

    for start in (None, v0):
        first = np.concatenate([x0, system.initial_velocity.to_numpy() @ x0 if start is None else v0])
        expected = solve_ivp(slope, (0, 8), first, t_eval=times, rtol=1e-10, atol=1e-12).y.T
        x, v = system.solve(x0, times, start)
        np.testing.assert_allclose(np.hstack([x, v]), expected, atol=1e-7)


@both
def test_acceleration_has_the_listed_derivatives(system):
    n = len(system.genes)
    at_zero, basis = np.zeros((n, n)), np.eye(n)
    table = system.network
    for block, found in (
        ("position", system.acceleration(basis, at_zero).T),
        ("velocity", system.acceleration(at_zero, basis).T),
    ):
        listed = table.pivot(index="target", columns="source", values=block).reindex(system.genes, columns=system.genes)
        np.testing.assert_array_equal(listed.fillna(0.0), found)
        np.testing.assert_array_equal(getattr(system, block), found)
    larger = np.where(table["position"].abs() >= table["velocity"].abs(), table["position"], table["velocity"])
    np.testing.assert_array_equal(table["weight"], larger)
    assert (table["weight"] != 0).all()


def test_written_out_equations():
    """As the docstring has them."""
    system = sn.datasets.second_order_system()
    a, b, c = x = np.array([0.3, -1.2, 2.0])
    da, db, dc = v = np.array([-0.7, 0.4, 1.1])
    expected = [-2 * a + 0.8 * b - 0.4 * da, -1.5 * b - 0.3 * db + 0.5 * dc, 0.5 * a - 3 * c - 0.4 * dc]
    np.testing.assert_allclose(system.acceleration(x[None], v[None])[0], expected)
    np.testing.assert_allclose(system.solve(x, np.zeros(1))[1][0], [b / 2, -c / 2, a / 2])
    zeros = (system.position == 0).sum().sum() + (system.velocity == 0).sum().sum()
    assert zeros == 9
    slowest = modes(system).real.max()
    assert -1 / slowest == pytest.approx(14, abs=0.5)


@pytest.mark.parametrize(("n_genes", "density"), [(2, 0.01), (3, 0.25), (3, 1.0), (6, 0.5), (30, 0.1)])
def test_random_systems_are_sparse_and_stable(n_genes, density):
    for seed in range(5):
        system = sn.datasets.random_second_order_system(n_genes, density, seed)
        off = ~np.eye(n_genes, dtype=bool)
        couplings = np.concatenate([system.position.to_numpy()[off], system.velocity.to_numpy()[off]])
        assert (couplings != 0).sum() == max(1, round(density * len(couplings)))
        assert np.abs(couplings[couplings != 0]).min() >= 0.3
        assert np.abs(couplings).max() <= 0.8
        assert np.diag(system.position).max() <= -1
        assert np.diag(system.velocity).max() <= -0.2
        if n_genes <= 6:
            assert modes(system).real.max() <= -0.05 + 1e-4
        x, _ = system.solve(np.ones(n_genes), np.array([0.0, 400.0]))
        assert np.abs(x[1]).max() < 1e-3


def test_random_systems_are_stiffened_only_as_far_as_it_takes():
    """By steps of a tenth, and not at all where they are stable: then the diagonals are in the ranges of the docs."""
    stiffened = 0
    for seed in range(60):
        system = sn.datasets.random_second_order_system(3, 1.0, seed)
        position, velocity = (np.diag(np.diag(block)) for block in (system.position, system.velocity))
        if np.diag(position).min() >= -3 and np.diag(velocity).min() >= -0.6:
            continue
        stiffened += 1
        softer = [
            block - (1 - 1 / 1.1) * own for block, own in ((system.position, position), (system.velocity, velocity))
        ]
        matrix = np.block([[np.zeros((3, 3)), np.eye(3)], [softer[0].to_numpy(), softer[1].to_numpy()]])
        assert np.linalg.eigvals(matrix).real.max() > -0.05
    assert stiffened > 5
    # One coupling leaves the modes of the single oscillators.
    single = [sn.datasets.random_second_order_system(3, 0.01, seed) for seed in range(30)]
    for block, low, high in (("position", -3.0, -1.0), ("velocity", -0.6, -0.2)):
        diagonals = np.concatenate([np.diag(getattr(system, block)) for system in single])
        assert low <= diagonals.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < diagonals.max() <= high


def test_initial_velocities_are_as_large_as_positions():
    matrix = sn.datasets.random_second_order_system(40, 0.05).initial_velocity.to_numpy()
    assert matrix.var() == pytest.approx(1 / 40, rel=0.1)


@both
def test_simulation(system):
    adata = system.simulate(n_trials=3, n_times=15, noise=0.1, irregular=True, seed=2)
    n = len(system.genes)
    assert adata.shape == (45, n)
    assert adata.obs["time"].max() <= system.t_end == 5.0
    for trial in adata.obs["trial"].cat.categories:
        part = adata[adata.obs["trial"] == trial]
        x, v = system.solve(part.layers["noise_free"][0], part.obs["time"].to_numpy())
        np.testing.assert_allclose(part.layers["noise_free"], x)
        np.testing.assert_allclose(part.layers["velocity"], v)
    pd.testing.assert_frame_equal(adata.uns["true_network"], system.network)
    noise = (adata.X - adata.layers["noise_free"]).std(0) / adata.layers["noise_free"].std(0)
    np.testing.assert_allclose(noise, 0.1, rtol=0.4)
    later = system.simulate(n_trials=3, t_end=10.0)
    assert (later[later.obs["time"] > 8].X.std(0) > 0.03).all()  # there is something left to extrapolate


@both
def test_ready_for_the_model(system, tmp_path):
    adata = system.simulate()
    adata.write_h5ad(tmp_path / "a.h5ad")
    sn.SparseNODE.setup_anndata(adata, time_key="time", batch_key="trial")


def test_seeds_and_other_processes():
    make = sn.datasets.random_second_order_system
    one, again, other = make(4, seed=4), make(4, seed=4), make(4, seed=5)
    pd.testing.assert_frame_equal(one.network, again.network)
    assert not one.network.equals(other.network)
    copy = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(copy.simulate(seed=1).X, one.simulate(seed=1).X)
    assert (one.simulate(seed=1).X != one.simulate(seed=2).X).all()


def test_network_is_scored():
    network = sn.datasets.second_order_system().network
    assert sn.tl.evaluate_network(network, network)["auprc"] == 1.0


def test_errors():
    system = sn.datasets.second_order_system()
    with pytest.raises(ValueError, match=r"\(points, 3\), found \(3,\) and \(3,\)"):
        system.acceleration(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"found \(2, 3\) and \(1, 3\)"):
        system.acceleration(np.zeros((2, 3)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"shape \(3,\), found \(2,\)"):
        system.solve(np.zeros(2), np.zeros(1), np.zeros(3))
    with pytest.raises(ValueError, match=r"shape \(3,\), found \(2,\)"):
        system.solve(np.zeros(2), np.zeros(1))
    with pytest.raises(ValueError, match=r"shape \(3,\), found \(3,\) and \(2,\)"):
        system.solve(np.zeros(3), np.zeros(1), np.zeros(2))
    with pytest.raises(ValueError, match="`n_genes` to be an integer of at least 2, found 1"):
        sn.datasets.random_second_order_system(1)
    with pytest.raises(ValueError, match="`noise`"):
        system.simulate(noise=-1.0)


def test_times_that_are_refused():
    system = sn.datasets.random_second_order_system(n_genes=3, seed=0)
    for times in (1.0, [[0.0, 1.0]], [0.0, np.inf]):
        with pytest.raises(ValueError, match="Expected `times` to be finite numbers in one dimension"):
            system.solve(np.ones(3), times)
