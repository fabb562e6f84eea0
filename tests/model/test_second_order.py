"""Second-order models on systems with a known solution, and against the field integrated by scipy."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData, concat
from scipy import sparse
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from scipy.linalg import expm

import sparsenode as sn
from sparsenode.objectives._collocation import smooth

OMEGA = 2 * np.pi / 3.0  # a period of three units of time
PHASES = np.array([0.0, 0.8, 1.6])
POSITION = np.array([[-4.0, 0.0, 2.0], [0.0, -2.0, 0.0], [0.0, -3.0, -5.0]])
VELOCITY = np.array([[-0.4, 0.0, 0.0], [0.9, -0.3, 0.0], [0.0, 0.0, -0.5]])


def trials(states: np.ndarray, times: np.ndarray, first: int = 0) -> AnnData:
    """Trials × times × variables as observations."""
    n, length, d = states.shape
    names = pd.Categorical(np.repeat([f"trial{first + k}" for k in range(n)], length))
    obs = pd.DataFrame({"time": np.tile(times, n), "trial": names}, index=[f"{k}" for k in range(n * length)])
    return AnnData(states.reshape(-1, d), obs, pd.DataFrame(index=[f"x{j}" for j in range(d)]))


def linear(times: np.ndarray, n_trials: int = 4, seed: int = 0) -> np.ndarray:
    """Exact solutions of x'' = POSITION x + VELOCITY x', trials × times × variables."""
    system = np.block([[np.zeros((3, 3)), np.eye(3)], [POSITION, VELOCITY]])
    positions = np.random.default_rng(seed).normal(size=(n_trials, 3))
    starts = np.hstack([positions, positions @ np.array([[0, 1, 0], [0.5, 0, 0], [0, 0, -1.0]])])
    return np.array([[(expm(system * t) @ start)[:3] for t in times] for start in starts])


def fit_second(adata: AnnData, epochs: int = 18, train: dict | None = None, **model) -> sn.SparseNODE:
    sn.SparseNODE.setup_anndata(adata, time_key="time", batch_key="trial")
    fitted = sn.SparseNODE(adata, order=2, **({"hidden": (8,), "n_knots": 9} | model))
    quick = {"max_epochs": epochs, "accelerator": "cpu", "enable_progress_bar": False}
    fitted.train(**(quick | (train or {})))
    return fitted


TIMES = np.linspace(1.0, 3.5, 40)


@pytest.fixture(scope="module")
def model() -> sn.SparseNODE:
    """A linear system with a linear skip and two strengths. Not to be changed."""
    return fit_second(
        trials(linear(TIMES - 1.0, 8), TIMES),
        regularizer=sn.regularizers.CNODE([0.003, 0.3]),
        skip=True,
        decay=False,
        fields="shared",
        train={"plan_kwargs": {"lr": 0.03}},
    )


@pytest.fixture(scope="module")
def oscillator() -> sn.SparseNODE:
    times = np.linspace(0, 3.0, 40)
    states = np.cos(OMEGA * times[None, :, None] + PHASES[:, None, None])
    options = {"skip": True, "decay": False, "hidden": (4,), "train": {"plan_kwargs": {"lr": 0.03}}}
    return fit_second(trials(states, times), regularizer=sn.regularizers.CNODE(0.01), **options)


def test_the_harmonic_oscillator_is_recovered(oscillator):
    position = oscillator.get_adjacency(block="position", weights="jacobian").iloc[0, 0]
    assert position == pytest.approx(-(OMEGA**2), rel=0.05)
    assert abs(oscillator.get_adjacency(block="velocity", weights="jacobian").iloc[0, 0]) < 0.05 * OMEGA
    assert float(oscillator.module.rate[0]) / float(oscillator.module.time_unit) == pytest.approx(OMEGA, rel=0.02)
    with pytest.warns(UserWarning, match="extrapolated"):
        found = oscillator.predict(times=np.linspace(0, 4.5, 10))
    expected = np.cos(OMEGA * np.linspace(0, 4.5, 10)[None] + PHASES[:, None])
    np.testing.assert_allclose(found[..., 0], expected, atol=0.15)
    slopes = -OMEGA * np.sin(OMEGA * np.tile(np.linspace(0, 3.0, 40), 3) + np.repeat(PHASES, 40))
    np.testing.assert_allclose(oscillator.get_velocity()[:, 0], slopes, atol=0.15 * OMEGA)


def test_coefficients_are_in_the_units_of_the_data(model):
    position = model.get_adjacency(block="position", weights="jacobian", replicate=0).to_numpy()
    velocity = model.get_adjacency(block="velocity", weights="jacobian", replicate=0).to_numpy()
    assert np.abs(position - POSITION).max() < 0.15 * np.abs(POSITION).max()
    assert np.abs(velocity - VELOCITY).max() < 0.4
    assert model.regularization_path_["train_error"][0] < 5e-3


def test_predictions_solve_the_equation(model):
    """The field at test time, with weights as matrices, integrated by scipy in units of the data."""
    module = model.module
    effective = module.field.effective_weights()
    first, last, skip = (w[0].detach().double().numpy() for w in effective.weights)
    b1, b2 = (b[0].detach().double().numpy() for b in effective.biases)
    scale, unit, rate = float(module.scale[0]), float(module.time_unit), float(module.rate[0])
    centre = module.centre.double().numpy()

    def rhs(_, s):
        z = np.concatenate([(s[:3] - centre) / scale, s[3:] / scale / rate * unit])
        h = z @ first.T + b1
        h = np.where(h > 0, h, np.expm1(np.minimum(h, 0)))
        return np.concatenate([s[3:], scale * rate**2 / unit**2 * ((h @ last.T + b2)[0] + skip @ z)])

    starts = module.start()[0].detach()
    speeds = module.initial_velocity(module.start().detach())[0].detach().double().numpy() * scale * rate / unit
    found = model.predict(times=TIMES, replicate=0)
    for m in range(8):
        start = np.concatenate([starts[m].double().numpy() * scale + centre, speeds[m]])
        solution = solve_ivp(rhs, (TIMES[0], TIMES[-1]), start, t_eval=TIMES, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found[m], solution.y[:3].T, atol=2e-3)
        rows = slice(40 * m, 40 * (m + 1))
        np.testing.assert_allclose(model.predict(replicate=0)[rows], solution.y[:3].T, atol=2e-3)
        np.testing.assert_allclose(model.get_velocity(replicate=0)[rows], solution.y[3:].T, atol=2e-2)


def test_union_and_blocks(model):
    position, velocity, union = (
        model.get_adjacency(block=block, replicate=1).to_numpy() for block in ("position", "velocity", None)
    )
    assert (position == 0).any()
    assert (velocity == 0).any()
    frequency = float(model.module.rate[0]) / float(model.module.time_unit)
    comparable = velocity * frequency
    np.testing.assert_allclose(union, np.where(np.abs(position) >= np.abs(comparable), position, comparable), rtol=1e-6)
    np.testing.assert_array_equal(union == 0, (position == 0) & (velocity == 0))
    for block, matrix in (("position", position), ("velocity", velocity), (None, union)):
        network = model.get_network(replicate=1, block=block)
        assert len(network) == (matrix != 0).sum()
        np.testing.assert_array_equal(model.get_edge_frequency(replicate=1, block=block), matrix != 0)
    zeros = np.concatenate([position, velocity], 1) == 0
    sparsity = model.get_sparsity(replicate=1)
    assert sparsity["feature"] == pytest.approx(zeros.mean())
    assert sparsity["feature"] == pytest.approx(model.regularization_path_["feature_sparsity"][1])
    assert sparsity["regulator"] == pytest.approx((zeros[:, :3] & zeros[:, 3:]).all(0).mean())
    assert model.get_sparsity(replicate=1, block="velocity")["feature"] == pytest.approx((velocity == 0).mean())


@pytest.mark.parametrize("block", ["position", "velocity", None])
def test_jacobians_of_cells(model, block):
    """Central differences of the acceleration; cells move like their trajectory."""
    cells = [3, 77]
    found = model.get_jacobian(cells, replicate=1, block=block)
    assert found.shape == (2, 3, 3)
    mean = model.get_adjacency(weights="jacobian", replicate=1, block=block).to_numpy()
    assert (found[:, mean == 0] == 0).all()
    np.testing.assert_allclose(found.mean(0), mean, atol=0.3 * np.abs(mean).max())


def of_lengths(*lengths: float) -> AnnData:
    """Trials of different lengths, with 26 times each: every fourth of those at which trajectories are integrated."""
    shares = np.linspace(0, 1, 26)
    parts = []
    for k, length in enumerate(lengths):
        times = length * shares
        states = np.column_stack([np.cos(3 * times + 0.7 * k), np.sin(2 * times + 0.7 * k)])
        parts.append(trials(states[None], times, first=k))
    return concat(parts, index_unique="-")


@pytest.mark.parametrize("block", ["position", "velocity"])
def test_the_mean_jacobian_is_that_of_cells_on_the_trajectories(block):
    """Positions are those of the cells, velocities those of the trajectory on the clock of its trial."""
    model = fit_second(of_lengths(2.0, 1.0), epochs=2, regularizer="none", train={"key_added": None})
    model.adata.X = model.predict()
    expected = model.get_jacobian(np.arange(52), block=block).mean(0)
    found = model.get_adjacency(weights="jacobian", block=block)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_a_zero_in_a_block_is_a_zero_jacobian_everywhere(model):
    rng = np.random.default_rng(0)
    other = trials(20 * rng.normal(size=(1, 12, 3)), np.linspace(0, 1, 12))
    for block in ("position", "velocity"):
        zero = model.get_adjacency(block=block, replicate=1).to_numpy() == 0
        jacobian = model.get_jacobian(np.arange(12), adata=other, replicate=1, block=block)
        assert (jacobian[:, zero] == 0).all()


def test_written_results(model):
    adata = model.adata.copy()
    model.write_results(adata)
    for block, key in ((None, ""), ("position", "position_"), ("velocity", "velocity_")):
        expected = model.get_adjacency(block=block).to_numpy()
        np.testing.assert_allclose(adata.varp[f"sparsenode_{key}adjacency"].toarray(), expected, rtol=1e-6)
    assert adata.uns["sparsenode"]["parameters"]["order"] == 2
    adata.varp["sparsenode_position_adjacency"] = sparse.csr_matrix((3, 3))
    sn.SparseNODE.setup_anndata(adata, time_key="time", batch_key="trial")
    other = sn.SparseNODE(adata, objective="trajectory", hidden=(4,), n_knots=5)
    other.train(max_epochs=1, steps_per_epoch=1, accelerator="cpu", enable_progress_bar=False)
    assert list(adata.varp) == ["sparsenode_adjacency"]
    with pytest.raises(ValueError, match="block"):
        other.get_adjacency(block="position")


def test_saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=model.adata)
    np.testing.assert_array_equal(loaded.predict(), model.predict())
    np.testing.assert_array_equal(loaded.get_adjacency(block="velocity"), model.get_adjacency(block="velocity"))


def test_pruned_saved_and_trained_on(tmp_path):
    model = fit_second(
        trials(linear(TIMES, 2), TIMES),
        epochs=10,
        regularizer=sn.regularizers.GroupLasso([0.5]),
        hidden=(4,),
        regulators=["x0", "x2"],
        self_edges="free",
    )
    before = model.predict()
    model.prune()
    np.testing.assert_allclose(model.predict(), before, atol=1e-4)
    assert (model.get_adjacency()["x1"] == 0).all()
    model.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=model.adata)
    np.testing.assert_array_equal(loaded.predict(), model.predict())
    loaded.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)


def test_new_trials_are_not_stretched(model):
    """A trial of twice the length is predicted on the same clock: its first half is that of the short one."""
    times = np.linspace(0, 2.5, 30)
    states = linear(np.linspace(0, 5.0, 59), 1, seed=7)
    short, long = trials(states[:, :30], times), trials(states, np.linspace(0, 5.0, 59))
    np.testing.assert_allclose(model.predict(long)[:30], model.predict(short), atol=2e-3)


# Forecasts, and trials that were never seen


@pytest.mark.parametrize("initial_velocity", ["network", "observed"])
def test_late_frames_of_own_trials_stay_on_their_trajectories(model, initial_velocity):
    """Initial velocities and the slopes of the null models are those of the early frames, which are not among them."""
    rows = np.flatnonzero(model.adata.obs["time"] > model.adata.obs["time"].median())
    some = model.adata[rows].copy()
    np.testing.assert_allclose(
        model.predict(some, initial_velocity=initial_velocity),
        model.predict(model.adata, initial_velocity=initial_velocity)[rows],
        atol=1e-5,
    )
    pd.testing.assert_frame_equal(
        model.evaluate(some, initial_velocity=initial_velocity),
        model.evaluate(indices=rows, initial_velocity=initial_velocity),
    )


def test_forecasts_of_the_oscillator(oscillator):
    """Against the closed form: what is scored, on which clock, and beside what."""
    times = np.linspace(1.5, 4.5, 31)
    states = np.cos(OMEGA * times[None, :, None] + PHASES[:, None, None])
    later = trials(states, times)
    table = oscillator.evaluate(later, forecast=True)
    assert list(table.columns) == ["n_cells", "mse", "null_persistence", "null_linear", "null_mean", "skill"]
    assert (table["n_cells"] == [15, 15, 15, 45]).all()
    with pytest.warns(UserWarning, match="extrapolated"):
        predicted = oscillator.predict(times=times[16:])
    squares = np.square(predicted - states[:, 16:])[..., 0].mean(1)
    np.testing.assert_allclose(table["mse"], [*squares, squares.mean()], rtol=0.02)
    for k in range(3):
        last = np.cos(OMEGA * 3.0 + PHASES[k])
        before, width = np.linspace(-1, 0, 40), 1.5 / 39
        slope, end = np.polyfit(
            before, oscillator.adata.X[40 * k : 40 * k + 40, 0], 1, w=np.exp(-0.25 * (before / width) ** 2)
        )
        expected = np.square(last - states[k, 16:, 0]).mean()
        assert table["null_persistence"].iloc[k] == pytest.approx(expected, rel=0.15)
        expected = np.square(end + slope * (times[16:] / 3.0 - 1.0) - states[k, 16:, 0]).mean()
        assert table["null_linear"].iloc[k] == pytest.approx(expected, rel=1e-3)
    assert table.loc["total", "skill"] > 0.9
    best = table[["null_persistence", "null_linear", "null_mean"]].min(axis=1)
    np.testing.assert_allclose(table["skill"], 1 - table["mse"] / best)


def test_forecasts_need_cells_that_are_later_and_known_trials(oscillator):
    with pytest.raises(ValueError, match="later than the training trajectories"):
        oscillator.evaluate(forecast=True)
    times = np.linspace(2.0, 5.0, 12)
    with pytest.raises(ValueError, match="new ones: \\['trial7'\\]"):
        oscillator.evaluate(trials(np.cos(times)[None, :, None], times, first=7), forecast=True)
    with pytest.raises(ValueError, match="observed"):
        oscillator.evaluate(forecast=True, initial_velocity="observed")


def test_unseen_trials_start_with_velocities_of_the_network_or_their_own(oscillator):
    """A phase at which the velocity is not what the training trials have at that position."""
    times = np.linspace(10.0, 13.0, 60)
    states = np.cos(OMEGA * (times - 10.0) - 0.4)[None, :, None]
    new = trials(states, times, first=5)
    network = oscillator.evaluate(new)
    observed = oscillator.evaluate(new, initial_velocity="observed")
    assert "null_linear" in network
    linear = states[0, 0] - OMEGA * np.sin(-0.4) * (times - 10.0)[:, None]
    assert network.loc["total", "null_linear"] == pytest.approx(np.square(linear - states[0]).mean(), rel=0.25)
    assert observed.loc["total", "mse"] < 0.1 * network.loc["total", "mse"]
    found = oscillator.predict(new, initial_velocity="observed")
    np.testing.assert_allclose(np.square(found - states[0]).mean(), observed.loc["total", "mse"], rtol=1e-3)


def test_observed_velocities_of_unseen_trials_are_per_unit_of_their_time():
    """A trial half as long as the longest of the model; its first two frames tell the velocity that it starts with."""
    model = fit_second(of_lengths(2.0, 1.0), epochs=2, regularizer="none", train={"key_added": None})
    times = np.r_[0.0, 1e-3, np.linspace(0.02, 1.0, 40)]
    new = trials(np.column_stack([np.cos(3 * times + 0.4), np.sin(2 * times + 0.4)])[None], times, first=7)
    found = model.predict(new, initial_velocity="observed")
    slope = (found[1] - found[0]) / 1e-3
    np.testing.assert_allclose(slope, [-3 * np.sin(0.4), 2 * np.cos(0.4)], rtol=0.2)


@pytest.fixture(scope="module")
def several_speeds() -> sn.SparseNODE:
    """Oscillations from one position with different velocities, which are then no function of the position."""
    times = np.linspace(0.0, 3.0, 40)
    speeds = np.array([-2.0, -1.0, 1.0, 2.0])
    states = np.cos(OMEGA * times) + speeds[:, None] / OMEGA * np.sin(OMEGA * times)
    return fit_second(
        trials(states[:, :, None], times),
        regularizer="none",
        skip=True,
        decay=False,
        initial_velocity="observed",
        initial_bandwidth=0.05,
        hidden=(2,),
        train={"max_epochs": 12, "train_size": 1.0},
    )


def test_trajectories_with_velocities_of_their_own(several_speeds, tmp_path):
    model = several_speeds
    assert model.evaluate().loc["total", "mse"] < 5e-3
    speed = model.module.start_speed()[0, :, 0].detach().numpy() * model._velocity_unit[0] / 3.0
    np.testing.assert_allclose(speed, [-2.0, -1.0, 1.0, 2.0], atol=0.15)
    times = np.linspace(0.0, 3.0, 40)
    unseen = np.cos(OMEGA * times) + 1.5 / OMEGA * np.sin(OMEGA * times)
    new = trials(unseen[None, :, None], times, first=7)
    # By default as the model was made.
    own = model.evaluate(new).loc["total", "mse"]
    assert own == model.evaluate(new, initial_velocity="observed").loc["total", "mse"] < 0.02
    assert own < 0.05 * model.evaluate(new, initial_velocity="network").loc["total", "mse"]
    inside = np.linspace(0.0, 3.0, 31)
    np.testing.assert_allclose(model.simulate(times=inside).unperturbed, model.predict(times=inside), atol=1e-4)
    model.save(tmp_path / "model", save_anndata=True)
    loaded = sn.SparseNODE.load(tmp_path / "model", accelerator="cpu")
    np.testing.assert_allclose(loaded.predict(times=inside), model.predict(times=inside), atol=1e-6)


def test_velocities_of_their_own_begin_as_in_the_first_frames():
    """Two thirds of a period: at the end all go elsewhere."""
    times, speeds = np.linspace(5.0, 7.0, 40), np.array([-2.0, -1.0, 1.0, 2.0])
    angle = OMEGA * (times - 5.0)
    states = np.cos(angle) + speeds[:, None] / OMEGA * np.sin(angle)
    train = {"max_epochs": 1, "steps_per_epoch": 1, "train_size": 1.0, "plan_kwargs": {"lr": 1e-12}}
    options = {"initial_velocity": "observed", "hidden": (2,), "train": train}
    model = fit_second(trials(states[:, :, None], times), regularizer="none", **options)
    found = model.module.start_speed()[0, :, 0].detach().numpy() * model._velocity_unit[0] / 2.0
    np.testing.assert_allclose(found, speeds, atol=0.3)


def test_velocities_of_their_own_are_per_unit_of_time_where_trials_differ_in_length():
    train = {"max_epochs": 1, "steps_per_epoch": 1, "train_size": 1.0, "plan_kwargs": {"lr": 1e-12}, "key_added": None}
    options = {"initial_velocity": "observed", "initial_bandwidth": 0.05, "n_knots": 17, "train": train}
    model = fit_second(of_lengths(2.0, 0.5), regularizer="none", **options)
    found = model.simulate(times=[0.0, 1e-3]).unperturbed
    phase = 0.7 * np.arange(2)
    expected = np.column_stack([-3 * np.sin(phase), 2 * np.cos(phase)])
    np.testing.assert_allclose((found[:, 1] - found[:, 0]) / 1e-3, expected, atol=0.35)


def test_own_cells_keep_the_velocities_that_were_learned(several_speeds):
    """What early cells show is where these start from; new trials have nothing else."""
    model = several_speeds
    times = np.linspace(0.0, 3.0, 40)
    expected = model.predict(times=times).reshape(-1, 1)
    for initial_velocity in (None, "observed"):
        np.testing.assert_allclose(model.predict(initial_velocity=initial_velocity), expected, atol=1e-5)
    new = trials(expected.reshape(4, 40, 1), times, first=4)
    assert np.abs(model.predict(new) - expected).max() > 1e-4


def test_results_and_velocities_of_new_trials_are_of_the_trajectories_that_are_predicted(several_speeds):
    times = np.linspace(0.0, 3.0, 40)
    states = np.cos(OMEGA * times) + 1.5 / OMEGA * np.sin(OMEGA * times)
    new = trials(states[None, :, None], times, first=7)
    predicted = several_speeds.predict(new)
    several_speeds.write_results(new)
    np.testing.assert_array_equal(new.obsm["sparsenode_trajectory"], predicted)
    scores = several_speeds.evaluate(new)
    pd.testing.assert_frame_equal(new.uns["sparsenode"]["scores"], scores)
    slopes = CubicSpline(times, predicted[:, 0]).derivative()(times)
    np.testing.assert_allclose(several_speeds.get_velocity(new)[:, 0], slopes, atol=2e-3)
    np.testing.assert_array_equal(new.layers["sparsenode_velocity"], several_speeds.get_velocity(new))


def test_new_trials_with_the_velocities_of_the_network_do_not_take_those_of_others(several_speeds):
    """From one position the network gives one velocity, whatever was learned for the trials of the model."""
    times = np.linspace(0.0, 3.0, 40)
    states = np.cos(OMEGA * times) + np.array([[-1.0], [1.0]]) * np.sin(OMEGA * times)
    states[:, :5] = 1.0
    new = trials(states[:, :, None], times, first=4)
    one, other = several_speeds.predict(new, initial_velocity="network").reshape(2, 40)
    np.testing.assert_allclose(one, other, atol=0.05)
    one, other = several_speeds.predict(new, initial_velocity="observed").reshape(2, 40)
    assert np.abs(one - other).max() > 0.2


def test_accelerations_are_fitted_with_their_own_precision(several_speeds):
    """In module units, in which those of all trajectories together have a weighted square of one."""
    model, rng = several_speeds, np.random.default_rng(0)
    names = ("states", "derivatives", "precision", "curvatures", "curvature_precision")
    curves = SimpleNamespace(**{name: rng.uniform(0.5, 2.0, (4, 6, 1)) for name in names})
    spans = np.array([1.0, 0.5, 2.0, 1.5])
    batch = {name: tensor[0].numpy() for name, tensor in model._collocation_batch([curves], spans).items()}
    scale, rate = float(model.module.scale[0]), float(model.module.rate[0])
    clock = (spans * rate)[:, None, None]
    np.testing.assert_allclose(batch["states"][..., 1:], curves.derivatives / scale / clock, rtol=1e-5)
    np.testing.assert_allclose(batch["derivatives"], curves.curvatures / scale / clock, rtol=1e-5)
    share = batch["precision"] / (curves.curvature_precision * clock**2)  # of a velocity's change over the trajectory
    np.testing.assert_allclose(share, np.full_like(share, share[0, 0, 0]), rtol=1e-5)
    np.testing.assert_allclose((batch["precision"] * batch["derivatives"] ** 2).sum(), 1.0, rtol=1e-5)


def test_the_error_of_accelerations_is_per_time_where_trials_differ_in_length():
    """The documented sum over knots, of accelerations in the units of the data."""
    train = {"train_size": 1.0, "key_added": None}
    adata = of_lengths(5.0, 1.0)
    adata.X = adata.X + np.random.default_rng(0).normal(0, 0.02, adata.shape)  # else rounding chooses the smoothness
    model = fit_second(adata, epochs=2, regularizer="none", objective="collocation", n_knots=17, train=train)
    module, cells, everything = model.module, model._cells(), np.ones(model.adata.n_obs, dtype=bool)
    data = cells.stream(everything, ~everything, 17, model._initial_state, model._initial_bandwidth, 0)
    curves, (offset, scale) = smooth(data.training, module.relative_span.double().numpy()), model._units
    unit = float(module.time_unit)
    squares = np.zeros(2)
    for m, span in enumerate(cells.spans):
        z = np.hstack([(curves.states[m] - offset) / scale, curves.derivatives[m] / span / model._velocity_unit * unit])
        z = torch.as_tensor(z[None], dtype=torch.float32)
        found = module.field.evaluate(z, module.field.effective_weights())[0].detach().numpy()
        found = found * scale * (module.rate.numpy() / unit) ** 2
        observed, precision = curves.curvatures[m] / span**2, curves.curvature_precision[m] * span**4
        squares += (precision * (observed - found) ** 2).sum(), (precision * observed**2).sum()
    assert model.get_regularization_path()["train_error"][0] == pytest.approx(squares[0] / squares[1], rel=1e-3)


def test_velocities_of_a_collocation_fit_are_the_slopes_of_the_smoothed_trajectories():
    times = np.linspace(0.0, 1.0, 60)
    states = np.stack([[np.cos((6 + k) * times), np.sin((6 + k) * times)] for k in range(4)]).transpose(0, 2, 1)
    noise = np.random.default_rng(0).normal(0, 0.15, states.shape)
    options = {"objective": "collocation", "initial_velocity": "observed", "n_knots": 17, "regularizer": "none"}
    model = fit_second(trials(states + noise, times), epochs=2, train={"train_size": 1.0, "key_added": None}, **options)
    everything = np.ones(240, dtype=bool)
    data = model._cells().stream(everything, ~everything, 17, model._initial_state, model._initial_bandwidth, 0)
    for _ in range(2):
        found = model.get_velocity(indices=[0, 60, 120, 180])
        np.testing.assert_allclose(found, smooth(data.training, np.ones(4)).derivatives[:, 0], rtol=1e-3)
        model.train(1, train_size=1.0, key_added=None, accelerator="cpu", enable_progress_bar=False)


def test_own_cells_may_start_with_the_velocities_of_the_network(several_speeds):
    """All trials start in one position, from which the network gives one velocity."""
    model, times = several_speeds, np.linspace(0.0, 3.0, 40)
    along = model.predict(times=times, initial_velocity="network")
    np.testing.assert_allclose(np.ptp(along[:, 1] - along[:, 0]), 0.0, atol=0.01)
    found = model.predict(model.adata, initial_velocity="network").reshape(4, 40)
    np.testing.assert_allclose(found, along[..., 0], atol=1e-5)
    error = np.square(found.ravel() - model.adata.X[:, 0]).mean()
    assert model.evaluate(initial_velocity="network").loc["total", "mse"] == pytest.approx(error, rel=1e-3)
    assert error > 10 * model.evaluate().loc["total", "mse"]
    assert np.abs(along - model.predict(times=times)).max() > 0.3


def test_velocities_that_are_given_are_taken_before_those_that_were_learned(several_speeds):
    found = several_speeds.simulate(times=[0.0, 1e-3], v0=np.full((4, 1), 3.0)).unperturbed[..., 0]
    np.testing.assert_allclose(np.diff(found, axis=1) / 1e-3, 3.0, atol=0.1)


def test_the_linear_null_model_has_the_slope_of_each_trajectory(several_speeds):
    """All start at one; from there they go on with the speeds of their early cells."""
    times, speeds = np.linspace(0.0, 3.0, 40), np.array([-2.0, -1.0, 1.0, 2.0])
    states = np.cos(OMEGA * times) + speeds[:, None] / OMEGA * np.sin(OMEGA * times)
    expected = np.square(1.0 + speeds[:, None] * times - states).mean(1)
    np.testing.assert_allclose(several_speeds.evaluate()["null_linear"].iloc[:4], expected, rtol=0.35)


def test_velocities_are_those_of_the_replicate(model, monkeypatch):
    found = [model.get_velocity(replicate=replicate) for replicate in (0, 1)]
    assert np.abs(found[0] - found[1]).max() > 1e-3
    for replicate in (0, 1):
        monkeypatch.setattr(model, "selected_", replicate)
        np.testing.assert_array_equal(model.get_velocity(), found[replicate])
    some = [70, 3, 150]
    np.testing.assert_allclose(model.get_velocity(indices=some), found[1][some], rtol=1e-6)


def test_first_order_forecasts_but_has_no_initial_velocities(adata, fit):
    early = adata[adata.obs["dpt_pseudotime"] < 1.6].copy()
    model = fit(early)
    table = model.evaluate(adata, forecast=True)
    assert table.loc["total", "n_cells"] == (
        (adata.obs["dpt_pseudotime"] > model.trajectories["end"].reindex(adata.obs["lineage"]).to_numpy()).sum()
    )
    with pytest.raises(ValueError, match="first order"):
        model.evaluate(initial_velocity="observed")


METHODS = [
    *("none", "l0", "pathreg", "grouplasso", "lassonet"),
    sn.regularizers.LassoNet(0.01, skip="outer"),
    sn.regularizers.PathReg(0.1, gates="weight"),
]


@pytest.mark.parametrize("regularizer", METHODS, ids=str)
def test_every_method_fits_with_lineages_and_replicates(regularizer):
    adata = trials(linear(TIMES, 2), TIMES)
    adata.obs["kind"] = pd.Categorical(np.repeat(["a", "b"], 40))
    sn.SparseNODE.setup_anndata(adata, time_key="time", lineage_key="kind", batch_key="trial")
    model = sn.SparseNODE(adata, regularizer, order=2, hidden=(4,), n_knots=5, n_seeds=2)
    model.train(max_epochs=1, steps_per_epoch=2, accelerator="cpu", enable_progress_bar=False, schedule="sparse")
    assert np.isfinite(model.evaluate()["mse"]).all()
    assert adata.varp["sparsenode_adjacency_a"].shape == (3, 3)
    assert model.get_adjacency("a", block="velocity").shape == (3, 3)


def test_fields_start_from_the_accelerations_of_smoothed_trajectories():
    """Without a linear part, which would start from a regression; an untrained field goes off in straight lines."""
    train = {"max_epochs": 1, "steps_per_epoch": 1, "train_size": 1.0, "plan_kwargs": {"lr": 1e-12}, "key_added": None}
    options = {"regularizer": "none", "skip": False, "decay": False, "initial_velocity": "observed", "train": train}
    model = fit_second(trials(linear(TIMES, 8), TIMES), hidden=(16,), **options)
    row = model.evaluate().loc["total"]
    assert row["mse"] < 0.5 * row["null_mean"]


def test_fields_start_from_the_half_that_their_seed_sees(monkeypatch):
    seen = []
    monkeypatch.setattr("sparsenode.model._preparation.start_accelerations", lambda module, batch: seen.append(batch))
    train = {"max_epochs": 1, "steps_per_epoch": 1, "half_samples": True, "key_added": None}
    cells = trials(linear(TIMES, 8), TIMES)
    cells.X = cells.X + np.random.default_rng(0).normal(0, 0.1, cells.shape).astype(np.float32)
    model = fit_second(cells, regularizer="none", n_seeds=2, skip=True, decay=False, fields="shared", train=train)
    states = seen[0]["states"]
    assert states.shape[0] == 2
    assert (states[0] - states[1]).abs().max() > 0.01
    # before any step the linear part is that of the regression on each half, and these differ
    whole = fit_second(
        cells,
        regularizer="none",
        n_seeds=2,
        skip=True,
        decay=False,
        fields="shared",
        train=train | {"half_samples": False},
    )
    skips = [fit.module.field.weights[-1].detach() for fit in (model, whole)]
    assert (skips[0][0] - skips[0][1]).abs().max() > 10 * (skips[1][0] - skips[1][1]).abs().max()


def test_training_goes_on_from_what_was_learned(oscillator):
    adata = oscillator.adata.copy()
    model = fit_second(adata, epochs=2, regularizer="none")
    before = model.module.initial_velocity.bias.detach().clone()
    model.train(max_epochs=1, steps_per_epoch=1, accelerator="cpu", enable_progress_bar=False, plan_kwargs={"lr": 1e-9})
    np.testing.assert_allclose(model.module.initial_velocity.bias.detach(), before, atol=1e-6)


def test_what_cannot_be_combined(oscillator):
    adata = oscillator.adata
    with pytest.raises(ValueError, match="velocities of cells are not observed"):
        sn.SparseNODE(adata, order=2, objective="transport")
    for order in (0, 3, "2", True, None):
        with pytest.raises(ValueError, match="Expected `order` to be 1 or 2"):
            sn.SparseNODE(adata, order=order)
    with pytest.raises(ValueError, match="`order=2` with `initial_velocity='observed'`"):
        sn.SparseNODE(adata, initial_velocity="observed")
    with pytest.raises(ValueError, match="`initial_velocity`"):
        sn.SparseNODE(adata, order=2, initial_velocity="first")
    for name in ("start_noise", "clock_noise"):
        for wrong in (-0.1, np.nan, np.inf):
            with pytest.raises(ValueError, match=f"`{name}` to be non-negative and finite"):
                sn.SparseNODE(adata, **{name: wrong})
        with pytest.raises(ValueError, match=f"no `{name}` with transport"):
            sn.SparseNODE(adata, objective="transport", **{name: 0.1})
    with pytest.raises(ValueError, match="block"):
        oscillator.get_network(block="positions")


def test_defaults_of_first_order_are_as_before(adata):
    sn.SparseNODE.setup_anndata(adata)
    first, second = sn.SparseNODE(adata, objective="trajectory"), sn.SparseNODE(adata, order=2)
    assert (first._initial_state, first._initial_bandwidth, first._align_batches) == ("kernel", 0.2, True)
    assert (second._initial_state, second._initial_bandwidth, second._align_batches) == ("learned", 0.1, False)
    assert inspect.signature(sn.SparseNODE).parameters["order"].default == 1
