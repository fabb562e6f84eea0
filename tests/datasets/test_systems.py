from __future__ import annotations

import pickle

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.linalg import expm

import sparsenode as sn

MAKERS = [sn.datasets.random_linear_system, sn.datasets.random_hill_system]
both = pytest.mark.parametrize("make", MAKERS, ids=["linear", "hill"])


def jacobians(system, states, step=1e-6):
    """Central differences, states × targets × regulators."""
    shifts = step * np.eye(len(system.genes))
    columns = [(system.velocity(states + shift) - system.velocity(states - shift)) / (2 * step) for shift in shifts]
    return np.stack(columns, axis=2)


def as_matrix(system):
    table = system.network.pivot(index="target", columns="source", values="weight")
    return table.reindex(index=system.genes, columns=system.genes).fillna(0.0).to_numpy()


def trials(adata, layer="noise_free"):
    """States and times by trial."""
    for trial in adata.obs["trial"].cat.categories:
        member = (adata.obs["trial"] == trial).to_numpy()
        yield adata.layers[layer][member], adata.obs["time"].to_numpy()[member]


# The systems


@pytest.mark.parametrize("seed", range(20))
def test_linear_systems_are_sparse_and_stable(seed):
    system = sn.datasets.random_linear_system(seed=seed)
    matrix = system.coefficients.to_numpy()
    off_diagonal = matrix[~np.eye(10, dtype=bool)]
    assert (off_diagonal != 0).sum() == 18
    assert 0.5 <= np.abs(off_diagonal[off_diagonal != 0]).min()
    assert np.abs(off_diagonal).max() <= 1.5
    assert (np.diag(matrix) < 0).all()
    slowest = np.linalg.eigvals(matrix).real.max()
    assert slowest <= -0.2 + 1e-9
    assert system.t_end == pytest.approx(-1 / slowest)
    np.testing.assert_array_equal(as_matrix(system), matrix)
    assert system.coefficients.index.name == "target"
    assert system.coefficients.columns.name == "regulator"


@pytest.mark.parametrize("seed", range(10))
def test_hill_systems_are_sparse_and_positive(seed):
    system = sn.datasets.random_hill_system(seed=seed)
    assert system.coefficients is None
    assert len(system.network) == 18
    assert set(system.network["target"]) == set(system.genes)
    assert set(system.network["weight"]) == {1.0, -1.0}
    assert (system.network["source"] != system.network["target"]).all()
    states = system.simulate(seed=seed).layers["noise_free"]
    assert states.min() > 0
    assert states.max() < 10


def test_linear_systems_that_are_stable_are_left_as_they_are():
    """With one edge the matrix is triangular, and its diagonal are its eigenvalues."""
    systems = [sn.datasets.random_linear_system(n_genes=4, density=0.01, seed=seed) for seed in range(30)]
    diagonals = np.stack([np.diag(system.coefficients) for system in systems])
    assert -1 <= diagonals.min() < -0.9
    assert -0.6 < diagonals.max() <= -0.5
    for system, diagonal in zip(systems, diagonals, strict=True):
        assert system.t_end == pytest.approx(-1 / diagonal.max())


def test_a_changed_table_of_coefficients_does_not_change_the_system():
    system = sn.datasets.random_linear_system(n_genes=3, seed=1)
    before = system.velocity(np.ones((1, 3)))
    system.coefficients.iloc[:, :] = 0.0
    np.testing.assert_array_equal(system.velocity(np.ones((1, 3))), before)


def test_hill_systems_are_drawn_from_the_ranges_of_the_docs():
    systems = [sn.datasets.random_hill_system(n_genes=30, seed=seed) for seed in range(10)]
    fields = [system.field for system in systems]

    def spans(values, low, high):
        values = np.concatenate(list(values))
        edge = 0.02 * (high - low)
        return low <= values.min() < low + edge and high - edge < values.max() <= high

    assert spans((field.degradation for field in fields), 0.5, 1.5)
    assert spans((field.production / field.degradation for field in fields), 1.5, 3.0)
    assert spans((field.threshold for field in fields), 0.5, 1.5)
    assert set(np.concatenate([field.exponent for field in fields])) == {2, 3, 4}
    starts = [s.simulate(n_trials=5, n_times=2, t_end=1e-9).layers["noise_free"][::2].ravel() for s in systems]
    assert spans(starts, 0.0, 2.0)
    for system in systems:
        assert system.t_end == pytest.approx(2 / system.field.degradation.min())


def test_negative_states_regulate_like_zero():
    system = sn.datasets.random_hill_system(seed=1)
    states = -np.random.default_rng(0).uniform(0, 2, (3, 10))
    expected = system.velocity(np.zeros((3, 10))) - system.field.degradation * states
    np.testing.assert_allclose(system.velocity(states), expected)


def test_linear_velocity_is_the_matrix_product():
    system = sn.datasets.random_linear_system(n_genes=5, density=0.5, seed=3)
    states = np.random.default_rng(0).standard_normal((7, 5))
    np.testing.assert_allclose(system.velocity(states), states @ system.coefficients.to_numpy().T)


@pytest.mark.parametrize("seed", range(4))
def test_linear_derivatives_are_the_listed_edges(seed):
    system = sn.datasets.random_linear_system(seed=seed)
    states = np.random.default_rng(0).standard_normal((3, 10))
    for jacobian in jacobians(system, states):
        np.testing.assert_allclose(jacobian, as_matrix(system), atol=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_hill_derivatives_are_the_listed_edges(seed):
    """Exactly the edges have non-zero partial derivatives, with their signs, beside the degradation."""
    system = sn.datasets.random_hill_system(seed=seed)
    states = np.random.default_rng(0).uniform(0.3, 1.5, (50, 10))
    regulation = jacobians(system, states) + np.diag(system.field.degradation)
    largest = np.abs(regulation).max(0)
    edges = as_matrix(system)
    np.testing.assert_array_equal(largest > 1e-3, edges != 0)
    assert largest[edges == 0].max() < 1e-8
    assert ((regulation * edges)[:, edges != 0] >= -1e-8).all()


def test_hill_velocity_of_a_written_out_system():
    system = sn.datasets.random_hill_system(n_genes=4, density=0.6, seed=1)
    field, x = system.field, np.random.default_rng(0).uniform(0, 2, 4)
    assert field.multiplies.any()
    assert not field.multiplies.all()
    for gene in range(4):
        terms = []
        for edge in np.flatnonzero(field.target == gene):
            u = (x[field.source[edge]] / field.threshold[edge]) ** field.exponent[edge]
            terms.append(u / (1 + u) if field.activates[edge] else 1 / (1 + u))
        combined = np.prod(terms) if field.multiplies[gene] else np.mean(terms)
        expected = field.production[gene] * combined - field.degradation[gene] * x[gene]
        assert system.velocity(x[None])[0, gene] == pytest.approx(expected)


@both
def test_same_seed_same_system(make):
    states = np.random.default_rng(0).uniform(0, 2, (3, 10))
    one, again, other = make(seed=4), make(seed=4), make(seed=5)
    np.testing.assert_array_equal(one.velocity(states), again.velocity(states))
    pd.testing.assert_frame_equal(one.network, again.network)
    assert not one.network.equals(other.network)


@both
@pytest.mark.parametrize(("n_genes", "density"), [(2, 0.01), (2, 1.0), (3, 0.2), (6, 1.0), (30, 0.1)])
def test_sizes_and_densities(make, n_genes, density):
    system = make(n_genes=n_genes, density=density)
    edges = system.network[system.network["source"] != system.network["target"]]
    least = n_genes if make is sn.datasets.random_hill_system else 1
    assert len(edges) == max(least, round(density * n_genes * (n_genes - 1)))
    assert system.simulate(n_trials=2, n_times=5).shape == (10, n_genes)


@both
def test_systems_go_to_other_processes(make):
    system = make(seed=1)
    copy = pickle.loads(pickle.dumps(system))
    np.testing.assert_array_equal(copy.simulate().X, system.simulate().X)


# Observations


@pytest.mark.parametrize("irregular", [False, True])
def test_linear_simulation_is_the_matrix_exponential(irregular):
    system = sn.datasets.random_linear_system(seed=2)
    matrix = system.coefficients.to_numpy()
    for states, times in trials(system.simulate(n_trials=3, irregular=irregular)):
        expected = np.stack([expm(matrix * t) @ states[0] for t in times])
        np.testing.assert_allclose(states, expected, atol=1e-6)


@both
def test_layout(make, tmp_path):
    system = make(seed=1)
    adata = system.simulate(n_trials=11, n_times=12, t_end=1.5, noise=0.1)
    assert adata.shape == (132, 10)
    assert list(adata.var_names) == system.genes
    assert adata.obs_names.is_unique
    assert list(adata.obs["trial"].cat.categories) == [f"trial{i}" for i in range(11)]
    assert adata.obs["time"].dtype == np.float64
    for _, times in trials(adata):
        np.testing.assert_allclose(times, np.linspace(0, 1.5, 12))
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad").uns["true_network"].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, system.network, check_dtype=False)
    adata.uns["true_network"].loc[0, "weight"] = 7.0
    assert 7.0 not in set(system.network["weight"])


@both
def test_ready_for_the_model(make):
    adata = make().simulate(noise=0.05, irregular=True)
    sn.SparseNODE.setup_anndata(adata, time_key="time", batch_key="trial")


@both
def test_default_length_is_that_of_the_system(make):
    system = make(seed=1)
    assert system.simulate().obs["time"].max() == pytest.approx(system.t_end)


@both
@pytest.mark.parametrize("irregular", [False, True])
def test_trajectories_differ_and_have_not_died_out(make, irregular):
    for seed in range(5):
        adata = make(seed=seed).simulate(irregular=irregular, seed=seed)
        states = [states for states, _ in trials(adata)]
        starts, ends = np.stack([s[0] for s in states]), np.stack([s[-1] for s in states])
        assert starts.std(0).min() > 0.1
        assert ends.std(0).max() > 0.05


@both
def test_irregular_times_are_sorted_and_differ_between_trials(make):
    adata = make().simulate(n_trials=4, irregular=True, t_end=2.0)
    times = np.stack([times for _, times in trials(adata)])
    assert (times[:, 0] == 0).all()
    assert (np.diff(times, axis=1) > 0).all()
    assert 1.5 < times.max() <= 2.0
    assert len(np.unique(times[:, 1:])) == times[:, 1:].size


@both
@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_noise_is_a_share_of_the_spread_of_each_gene(make, noise):
    adata = make().simulate(n_trials=10, n_times=400, noise=noise)
    states = adata.layers["noise_free"]
    spread = (adata.X - states).std(0) / states.std(0)
    np.testing.assert_allclose(spread, noise, rtol=0.06)
    assert abs(np.corrcoef(adata.X - states, rowvar=False) - np.eye(10)).max() < 0.1


@both
def test_without_noise_the_state_is_observed(make):
    adata = make().simulate()
    np.testing.assert_array_equal(adata.X, adata.layers["noise_free"])


@both
def test_noise_and_times_do_not_change_the_trajectories(make):
    system = make(seed=1)
    clean, noisy = system.simulate(seed=3), system.simulate(seed=3, noise=0.1)
    np.testing.assert_array_equal(clean.layers["noise_free"], noisy.layers["noise_free"])
    irregular = system.simulate(seed=3, irregular=True)
    for (one, _), (other, _) in zip(trials(clean), trials(irregular), strict=True):
        np.testing.assert_array_equal(one[0], other[0])


@both
def test_same_seed_same_observations(make):
    system = make(seed=1)
    settings = {"noise": 0.1, "irregular": True}
    one, again, other = (system.simulate(seed=seed, **settings) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.X, again.X)
    pd.testing.assert_frame_equal(one.obs, again.obs)
    assert not np.isclose(one.X, other.X).any(axis=1).any()


# Errors


@both
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_genes": 1}, "`n_genes` to be an integer of at least 2, found 1"),
        ({"n_genes": 4.0}, r"`n_genes`.*found 4\.0"),
        ({"density": 0.0}, r"`density` to be in \(0, 1\], found 0\.0"),
        ({"density": 1.1}, r"`density`.*found 1\.1"),
        ({"density": "high"}, "`density`.*found 'high'"),
        ({"density": float("nan")}, "`density`.*found nan"),
        ({"seed": -1}, "`seed` to be an integer of at least 0, found -1"),
    ],
)
def test_errors_of_systems(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_trials": 0}, "`n_trials` to be an integer of at least 1, found 0"),
        ({"n_times": 1}, "`n_times` to be an integer of at least 2, found 1"),
        ({"t_end": 0.0}, r"`t_end` to be a positive number, found 0\.0"),
        ({"t_end": float("inf")}, "`t_end`.*found inf"),
        ({"noise": -0.1}, r"`noise` to be non-negative and finite, found -0\.1"),
        ({"noise": "low"}, "`noise`.*found 'low'"),
        ({"noise": float("nan")}, "`noise`.*found nan"),
        ({"noise": float("inf")}, "`noise`.*found inf"),
        ({"noise": True}, "`noise`.*found True"),
        ({"seed": 0.5}, r"`seed`.*found 0\.5"),
    ],
)
def test_errors_of_simulations(arguments, message):
    with pytest.raises(ValueError, match=message):
        sn.datasets.random_linear_system().simulate(**arguments)


@pytest.mark.parametrize("system", [sn.datasets.random_linear_system(), sn.datasets.second_order_system()])
def test_words_are_no_switches(system):
    with pytest.raises(TypeError, match="Expected `irregular` to be True or False, found 'no'"):
        system.simulate(irregular="no")


def test_states_of_another_shape():
    system = sn.datasets.random_linear_system()
    with pytest.raises(ValueError, match=r"\(points, 10\), found \(10,\)"):
        system.velocity(np.zeros(10))
    with pytest.raises(ValueError, match=r"found \(3, 9\)"):
        system.velocity(np.zeros((3, 9)))


def test_failed_integration_says_when():
    system = sn.datasets.System(
        genes=["a", "b"],
        field=lambda x: x**2,
        draw_initial=lambda generator, n_trials: np.ones((n_trials, 2)),
        t_end=2.0,
        network=pd.DataFrame({"source": ["a", "b"], "target": ["a", "b"], "weight": [1.0, 1.0]}),
    )
    with pytest.raises(RuntimeError, match="integration stopped at time"):
        system.simulate(n_trials=1)


def test_held_genes_of_a_linear_system_in_closed_form():
    """With gene 1 held at c, the others follow dx/dt = A' x + c a, whose solution the matrix exponential gives."""
    system = sn.datasets.random_linear_system(n_genes=4, density=0.5, seed=3)
    natural, held = (system.simulate(n_trials=2, n_times=6, seed=1, clamp=c) for c in (None, {"gene1": 1.5}))
    matrix = system.coefficients.to_numpy().copy()
    matrix[1] = 0.0
    for trial in range(2):
        rows = slice(6 * trial, 6 * trial + 6)
        start = natural.X[rows][0].copy()
        start[1] = 1.5
        expected = [expm(matrix * t) @ start for t in held.obs["time"].iloc[rows]]
        np.testing.assert_allclose(held.X[rows], expected, atol=1e-6)


@pytest.mark.parametrize("clamp", [{"gene9": 1.0}, {"gene1": np.inf}, {"gene1": "1"}, ["gene1"]])
def test_held_genes_that_are_refused(clamp):
    with pytest.raises(ValueError if isinstance(clamp, dict) else TypeError, match="clamp"):
        sn.datasets.random_linear_system(n_genes=4, seed=3).simulate(clamp=clamp)


def test_held_genes_of_a_series():
    """As a row of `quantile` is one."""
    system = sn.datasets.random_linear_system(n_genes=4, seed=3)
    runs = [system.simulate(n_trials=2, n_times=4, clamp=held) for held in ({"gene1": 1.5}, pd.Series({"gene1": 1.5}))]
    np.testing.assert_array_equal(runs[0].X, runs[1].X)
