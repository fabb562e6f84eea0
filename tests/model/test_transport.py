"""The transport objective through the model."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

import sparsenode as sn
from sparsenode.model._pairs import pair_batch
from sparsenode.module._polish import polish
from sparsenode.objectives import Transport
from sparsenode.objectives._transport import couple_cells
from sparsenode.regularizers import CNODE, GroupLasso, LassoNet, PathReg

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


def simulate(n_cells=800, seed=0) -> AnnData:
    """Ornstein-Uhlenbeck cells of a chain: gene 0 rises, drives gene 1, which represses gene 2; gene 3 is alone."""
    rng = np.random.default_rng(seed)
    steps, dt = 200, 0.02
    # Offsets and scales differ, so mistakes in units show.
    a = np.array([[-1.0, 0, 0, 0], [2.0, -1, 0, 0], [0, -2.0, -1, 0], [0, 0, 0, -1.0]])
    x = np.zeros((n_cells, 4))
    kept = np.empty_like(x)
    stop = rng.integers(0, steps, n_cells)
    for step in range(steps):
        kept[stop == step] = x[stop == step]
        drive = np.array([1.0, 0, 0, 0.3])
        x = x + dt * (x @ a.T + drive) + 0.25 * np.sqrt(dt) * rng.normal(size=x.shape)
    adata = AnnData(kept * [1.0, 3.0, 0.5, 1.0] + [5.0, 0.0, 2.0, 1.0])
    adata.var_names = [f"gene{i}" for i in range(4)]
    adata.obs["time"] = stop * dt + 0.0
    return adata


@pytest.fixture(scope="module")
def cells() -> AnnData:
    adata = simulate()
    sn.SparseNODE.setup_anndata(adata, time_key="time")
    return adata


@pytest.fixture(scope="module")
def few() -> AnnData:
    """Coupled in a tenth of the time, where the fit itself does not matter."""
    adata = simulate(240)
    sn.SparseNODE.setup_anndata(adata, time_key="time")
    return adata


@pytest.fixture(scope="module")
def model(cells) -> sn.SparseNODE:
    model = sn.SparseNODE(cells, objective="transport", n_seeds=2)
    model.train(**QUIET)
    return model


@pytest.mark.parametrize("value", [0.1, 3.0])
def test_a_constant_gene_has_no_edges(value):
    """Also where the mean of as many equal numbers is another number."""
    cells = simulate(240)
    constant = np.full((cells.n_obs, 1), value)
    cells = AnnData(np.hstack([cells.X.astype(np.float64), constant]), cells.obs)
    sn.SparseNODE.setup_anndata(cells, time_key="time")
    model = sn.SparseNODE(cells, objective="transport")
    model.train(**QUIET)
    assert float(model.module.scale[-1]) == float(model.module.rate[-1]) == 1.0
    adjacency = model.get_adjacency().to_numpy()
    assert (adjacency[-1, :-1] == 0).all()
    assert (adjacency[:, -1] == 0).all()
    assert (adjacency != 0).any()


def test_signs_of_the_chain_and_the_gene_that_is_alone(model):
    effect = model.get_adjacency(weights="effect")
    assert effect.loc["gene1", "gene0"] > 0 > effect.loc["gene2", "gene1"]
    alone = pd.concat([effect["gene3"].drop("gene3"), effect.loc["gene3"].drop("gene3")]).abs().max()
    assert min(effect.loc["gene1", "gene0"], -effect.loc["gene2", "gene1"]) > 2 * alone


@pytest.mark.data
def test_a_simulated_bifurcation_of_beeline(data_dir):
    """Median of the best of twelve published methods: AUPRC ratio 2.57, early precision ratio 2.39."""
    run = data_dir / "beeline" / "dyn-BF" / "0"
    expression = pd.read_csv(run / "ExpressionData.csv.gz", index_col=0).T
    times = pd.read_csv(run / "PseudoTime.csv", index_col=0).loc[expression.index]
    adata = AnnData(expression, obs=pd.DataFrame({"time": times.mean(axis=1)}))
    adata.obsm["lineages"] = times.notna()
    sn.SparseNODE.setup_anndata(adata, time_key="time", lineage_key="lineages")
    model = sn.SparseNODE(adata, objective="transport")
    model.train(train_size=1.0, key_added=None, **QUIET)
    reference = pd.read_csv(run / "refNetwork.csv").set_axis(["source", "target", "weight"], axis=1)
    reference["weight"] = np.where(reference["weight"] == "+", 1.0, -1.0)
    scores = sn.tl.evaluate_network(model.get_network(), reference)
    assert scores["auprc_ratio"] > 2.57
    assert scores["epr"] > 2.39
    assert scores["sign_accuracy"] == 1.0


def test_units_of_the_adjacency(model):
    """Effects are Jacobians in standard deviations, and zero exactly where paths are."""
    effect, jacobian, paths = (
        model.get_adjacency(weights=weights).to_numpy() for weights in ("effect", "jacobian", "paths")
    )
    deviation = model.adata.X[model.train_indices].std(0)
    np.testing.assert_allclose(jacobian, effect * deviation[:, None] / deviation, rtol=1e-4)
    np.testing.assert_array_equal(effect == 0, paths == 0)
    assert (np.abs(jacobian) <= np.abs(paths) * (1 + 1e-5)).all()
    np.testing.assert_array_equal(np.sign(effect), np.sign(paths))
    tolerance = float(np.quantile(np.abs(paths), 0.7))
    assert model.get_sparsity(tolerance=tolerance)["feature"] == pytest.approx((np.abs(paths) <= tolerance).mean())
    standardised, rate = model.get_adjacency(weights="standardised").to_numpy(), displacement_deviation(model)
    np.testing.assert_allclose(standardised * rate[:, None] / deviation[:, None], effect, rtol=1e-4)
    others = standardised.copy()
    np.fill_diagonal(others, 0.0)
    share = standardised / np.linalg.norm(others, axis=1, keepdims=True)
    # A self edge is in the norm that it is divided by, or it would outgrow all others where it is the only one.
    np.fill_diagonal(share, np.diagonal(standardised) / np.linalg.norm(standardised, axis=1))
    balanced = model.get_adjacency(weights="balanced")
    np.testing.assert_allclose(balanced, np.sign(standardised) * np.sqrt(standardised * share), rtol=1e-6)
    pd.testing.assert_frame_equal(model.get_adjacency(), balanced)
    pd.testing.assert_frame_equal(model.get_adjacency(signed=False), balanced.abs())


def displacement_deviation(model) -> np.ndarray:
    """Standard deviation over training cells of the displacement, per unit of pseudotime and in units of the data."""
    time, x = model.adata.obs["time"].to_numpy(), model.adata.X
    train = model.train_indices
    deviation = x[train].std(0)
    z = (x - x[train].mean(0)) / deviation
    member = np.zeros((len(x), 1))
    member[train] = 1.0
    pairs = couple_cells(time[:, None], member, z, Transport())
    moved = pairs.coupling @ z - z[pairs.start]
    slope, total = np.zeros_like(z), np.zeros(len(z))
    for kind in np.unique(pairs.kind):
        own = pairs.kind == kind
        rate = moved[own] / pairs.duration[own][:, None]
        slope[pairs.start[own]] += rate / rate.var(0).mean()
        total[pairs.start[own]] += 1.0 / rate.var(0).mean()
    started = total > 0
    slope, total = slope[started] / total[started, None], total[started]
    mean = np.average(slope, axis=0, weights=total)
    span = model.trajectories["end"].iloc[0] - model.trajectories["start"].iloc[0]
    return np.sqrt(np.average((slope - mean) ** 2, axis=0, weights=total)) * deviation / span


def test_fewer_cells_than_components():
    """All the components that there are keep the distances, so couplings are those of the genes themselves."""
    rng = np.random.default_rng(0)
    adata = AnnData(rng.normal(size=(25, 40)), obs=pd.DataFrame({"time": rng.uniform(size=25)}, map(str, range(25))))
    sn.SparseNODE.setup_anndata(adata, time_key="time")
    transport = Transport(relaxation=0, centring=False)
    model = sn.SparseNODE(adata, objective=transport, hidden=(4,))
    splitter = model._prepare((np.arange(25), np.arange(0), np.arange(0)), 1, False, "transport")
    z = (adata.X - adata.X.mean(0)) / adata.X.std(0)
    pairs = couple_cells(adata.obs[["time"]].to_numpy(), np.ones((25, 1)), z, transport)
    expected = pair_batch([pairs], z, model._cells(), np.ones(1), None)[0]["slope"].numpy()
    np.testing.assert_allclose(splitter.batches.training["slope"], expected, rtol=1e-3, atol=1e-3)


def test_ties_are_warned_of(make_adata, recwarn):
    adata = make_adata(n_obs=200)
    quick = {"max_epochs": 1, "steps_per_epoch": 1, "key_added": None} | QUIET

    def train(**arguments) -> list[str]:
        recwarn.clear()
        sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
        model = sn.SparseNODE(adata, hidden=(4,), objective=Transport(windows=12, lags=2), n_seeds=2)
        model.train(**quick, **arguments)
        return [str(warning.message) for warning in recwarn if "distinct times" in str(warning.message)]

    assert train() == []
    late = adata.obs["lineage"] == "myeloid"
    adata.obs.loc[late, "dpt_pseudotime"] = adata.obs.loc[late, "dpt_pseudotime"].round(1).clip(0.6, 1.6)
    (message,) = train()
    assert "in 'myeloid' (11 for 12): windows" in message
    assert "order of the rows" in message
    assert train(half_samples=True) == []  # halves have fewer windows


@pytest.mark.parametrize("weights", ["standardised", "balanced"])
def test_weights_without_unit_need_displacements(cells, weights):
    model = sn.SparseNODE(cells, objective="trajectory", hidden=(4,))
    model.train(max_epochs=1, key_added=None, **QUIET)
    with pytest.raises(ValueError, match=f"transport fit for `weights='{weights}'`.*'effect'"):
        model.get_adjacency(weights=weights)


def test_noise_spreads_effects_over_regulators_that_share_their_signal():
    """Two noisy copies of one regulator: the ridge gives both of them about the same weight, whichever seems better."""
    rng = np.random.default_rng(2)
    time = np.sort(rng.uniform(size=900))
    signal = np.sin(6 * time)[:, None]
    target = 2.0 - 2.0 * np.cos(6 * time)[:, None]
    copies = signal + np.array([0.6, 0.8]) * rng.normal(size=(900, 2))
    adata = AnnData(np.hstack([copies, target + 0.1 * rng.normal(size=(900, 1))]), obs=pd.DataFrame({"time": time}))
    sn.SparseNODE.setup_anndata(adata, time_key="time")
    balance, strength = {}, {}
    for ridge in (0.0, 5.0):
        objective = Transport(ridge=ridge)
        model = sn.SparseNODE(adata, objective=objective, regulators=["0", "1"], hidden=(4,))
        model.train(train_size=1.0, key_added=None, **QUIET)
        first, second = model.get_adjacency().loc["2", ["0", "1"]]
        balance[ridge], strength[ridge] = abs(second / first), model.module.ridge
    assert strength[0.0] == 0.0 < strength[5.0]
    assert balance[0.0] < balance[5.0] <= 1.1


def test_the_linear_part_is_at_its_optimum_after_training(cells):
    """Solving once more changes nothing; with a regularizer of gates nothing is solved."""
    model = sn.SparseNODE(cells, objective="transport")
    model.train(max_epochs=5, train_size=1.0, key_added=None, **QUIET)
    before = model.module.field.weights[-1].detach().clone()
    splitter = model._prepare((np.arange(800), np.arange(0), np.arange(0)), 1, False, "transport")
    polish(model.module, splitter.batches.full)
    torch.testing.assert_close(model.module.field.weights[-1].detach(), before, atol=1e-3, rtol=1e-3)


def decay_rates(model) -> np.ndarray:
    """Decay of the selected replicate per unit of pseudotime, which the velocity holds and the network leaves out."""
    module = model.module
    return (module.field.decay[model.selected_, 0] * module.rate).detach().double().numpy() / float(module.time_unit)


def test_jacobian_is_that_of_the_velocity(model, cells):
    """Finite differences of ``get_velocity`` at the cells whose Jacobian is averaged."""
    module = model.module
    states = module.reference[0].double().numpy() * module.scale.double().numpy() + module.centre.double().numpy()
    expected = np.empty((4, 4))
    for gene in range(4):
        moved = []
        for step in (-1e-2, 1e-2):
            copy = AnnData(states.copy(), var=cells.var)
            copy.X[:, gene] += step
            copy.obs["time"] = np.linspace(*model.trajectories[["start", "end"]].to_numpy()[0], len(states))
            moved.append(model.get_velocity(copy))
        expected[:, gene] = ((moved[1] - moved[0]) / 2e-2).mean(0)
    expected += np.diag(decay_rates(model))
    np.testing.assert_allclose(
        model.get_adjacency(weights="jacobian"), np.where(model.get_adjacency() != 0, expected, 0), atol=2e-2
    )


def test_jacobian_of_single_cells(model, cells):
    """Finite differences of the velocity, of which the decay is no part of the network."""
    jacobian = model.get_jacobian([3, 700])
    for row, cell in enumerate((3, 700)):
        moved = cells[[cell] * 8].copy()
        moved.X = moved.X + 1e-2 * np.vstack([np.eye(4), -np.eye(4)])
        moved.obs["time"] = np.linspace(*model.trajectories[["start", "end"]].to_numpy()[0], 8)
        more = AnnData(np.vstack([moved.X] * 2), obs=pd.concat([moved.obs] * 2).reset_index(drop=True), var=cells.var)
        more.obs["time"] = np.linspace(*model.trajectories[["start", "end"]].to_numpy()[0], 16)
        velocity = model.get_velocity(more)[:8]
        expected = (velocity[:4] - velocity[4:]).T / 2e-2 + np.diag(decay_rates(model))
        np.testing.assert_allclose(jacobian[row], expected, atol=2e-2)
    with pytest.raises(IndexError, match="800"):
        model.get_jacobian([800])


def test_slopes_are_regressed_at_the_start_of_pairs(cells):
    """Without hidden paths and penalty the fit is weighted least squares of the displacements."""
    model = sn.SparseNODE(cells, "none", objective=Transport(windows=20, lags=1), hidden=(2,), decay=False)
    with torch.no_grad():
        model.module.field.weights[1].zero_()
    for weight in model.module.field.weights[:2]:
        weight.requires_grad_(False)
    model.train(max_epochs=60, train_size=1.0, key_added=None, plan_kwargs={"lr": 0.05}, **QUIET)
    splitter = model._prepare((np.arange(800), np.arange(0), np.arange(0)), 1, False, "transport")
    tensors = {name: value.double().numpy() for name, value in splitter.batches.full.items()}
    design = np.column_stack([tensors["state"], np.ones(len(tensors["state"]))])
    root = np.sqrt(tensors["weight"][0])[:, None]
    expected = np.linalg.lstsq(design * root, tensors["slope"][0] * root, rcond=None)[0][:4].T
    found = model.module.field.weights[-1][0].detach().numpy()
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_co_expression_does_not_look_like_repression():
    """Two genes that only share their noise: without a decay, the target's fall to the mean looks like repression."""
    rng = np.random.default_rng(5)
    shared = rng.normal(size=(900, 1))
    adata = AnnData(shared + 0.5 * rng.normal(size=(900, 2)))
    adata.obs["time"] = rng.uniform(size=900)
    sn.SparseNODE.setup_anndata(adata, time_key="time")
    edge = {}
    for decay in (None, False):
        model = sn.SparseNODE(adata, objective="transport", regulators=["0"], decay=decay)
        model.train(train_size=1.0, key_added=None, **QUIET)
        edge[decay] = model.get_adjacency().loc["1", "0"]
    assert edge[False] < 0 < edge[None]


def test_small_data_are_fitted_in_full_batches(cells):
    def loader(batch_size):
        model = sn.SparseNODE(cells, objective=Transport(batch_size=batch_size), hidden=(4,))
        everything = (np.arange(800), np.arange(0), np.arange(0))
        splitter = model._prepare(everything, 2, False, "transport")
        return [len(batch["state"]) for batch in splitter.train_dataloader()], len(splitter.batches.full["state"])

    sizes, n = loader(800)
    assert sizes == [n, n]
    assert 700 < n < 800  # every cell but the last ones starts once
    assert loader(100)[0] == [100, 100]


def test_minibatches_are_drawn_with_the_seed(few):
    states = []
    for seed in (0, 0, 1):
        model = sn.SparseNODE(few, objective=Transport(batch_size=20), hidden=(4,), seed=seed)
        splitter = model._prepare((np.arange(240), np.arange(0), np.arange(0)), 1, False, "transport")
        states.append(next(iter(splitter.train_dataloader()))["state"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_jacobians_are_averaged_over_training_cells(few):
    model = sn.SparseNODE(few, objective="transport", hidden=(4,))
    model.train(max_epochs=1, train_size=0.8, key_added=None, **QUIET)
    module = model.module
    kept = module.reference[0][module.reference_weight[0] > 0]
    assert len(kept) == len(model.train_indices) == 192
    states = (kept * module.scale + module.centre).numpy()
    distances = np.abs(states[:, None] - few.X[model.train_indices]).max(2).min(1)
    assert distances.max() < 1e-5


def test_jacobians_of_few_cells_are_averaged_over_all_of_them(few):
    """By their memberships."""
    cells = few.copy()
    cells.obsm["fates"] = pd.DataFrame({"a": np.linspace(0, 1, 240), "b": np.linspace(1, 0, 240)}, few.obs_names)
    sn.SparseNODE.setup_anndata(cells, time_key="time", lineage_key="fates")
    model = sn.SparseNODE(cells, "none", objective="transport", hidden=(4,))
    model.train(max_epochs=2, train_size=1.0, key_added=None, **QUIET)
    single = model.get_jacobian(range(240))
    for lineage in "ab":
        expected = np.average(single, axis=0, weights=cells.obsm["fates"][lineage])
        np.testing.assert_allclose(model.get_adjacency(lineage, weights="jacobian"), expected, rtol=1e-4, atol=1e-4)


def test_noise_is_that_of_the_regulators():
    """Two genes are noise alone; the penalty on squares is smaller where they may not regulate."""
    adata = simulate(240)
    adata.X[:, 2:] = np.random.default_rng(0).normal(size=(240, 2))
    sn.SparseNODE.setup_anndata(adata, time_key="time")
    ridge = []
    for regulators in (None, ["gene0", "gene1"]):
        model = sn.SparseNODE(adata, objective="transport", regulators=regulators, hidden=(4,))
        model.train(max_epochs=1, key_added=None, **QUIET)
        ridge.append(model.module.ridge)
    assert 0 < ridge[1] < 0.9 * ridge[0]


def test_everything_else_works_as_with_trajectories(model, cells):
    assert model.predict().shape == cells.shape
    assert np.isfinite(model.get_velocity()).all()
    assert {"mse", "skill"} <= set(model.evaluate().columns)
    path = model.get_regularization_path()
    assert path[["train_error", "validation_error", "validation_se"]].notna().all().all()
    assert "sparsenode_adjacency" in cells.varp
    assert "frequency" in model.get_network()


def test_saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", model.adata)
    pd.testing.assert_frame_equal(loaded.get_adjacency(), model.get_adjacency())
    np.testing.assert_array_equal(loaded.predict(), model.predict())


def test_same_seed_same_network(few):
    networks = []
    for _ in range(2):
        model = sn.SparseNODE(few, objective="transport", seed=3)
        model.train(max_epochs=3, key_added=None, **QUIET)
        networks.append(model.get_adjacency())
    pd.testing.assert_frame_equal(*networks)


def test_strong_edges_outlive_the_loss_of_a_hundredth_of_the_cells():
    """Of the 100 strongest of 1560 edges, more stay than with windows side by side."""
    cells = sn.datasets.random_hill_system(40, density=0.1, seed=0).simulate(n_trials=40, n_times=20, noise=0.3, seed=0)

    def strongest(kept: np.ndarray, transport: Transport) -> set[tuple[str, str]]:
        adata = cells[kept].copy()
        sn.SparseNODE.setup_anndata(adata, time_key="time")
        model = sn.SparseNODE(adata, objective=transport)
        model.train(train_size=1.0, key_added=None, **QUIET)
        network = model.get_network().query("source != target").head(100)
        return set(zip(network["source"], network["target"], strict=True))

    fewer = [np.sort(np.random.default_rng(seed).permutation(800)[:792]) for seed in range(2)]
    settings = {"default": {}, "side by side": {"overlap": 1}}
    kept = {}
    for name, arguments in settings.items():
        everything = strongest(np.arange(800), Transport(**arguments))
        kept[name] = np.mean([len(everything & strongest(rows, Transport(**arguments))) for rows in fewer])
    assert kept["default"] >= 85
    assert kept["default"] > kept["side by side"]


def test_fine_tuning_on_trajectories_lowers_their_error(cells):
    model = sn.SparseNODE(cells, objective="transport")
    model.train(key_added=None, **QUIET)
    before, scale = model.evaluate().loc["total", "mse"], model.module.scale.clone()
    model.train(objective="trajectory", max_epochs=15, key_added=None, **QUIET)
    assert model.evaluate().loc["total", "mse"] < before
    assert torch.equal(model.module.scale, scale)


def test_transport_again_does_not_solve_for_what_was_given_up(few):
    model = sn.SparseNODE(few, CNODE([0.1, 0.5]), objective="transport", hidden=(4,))
    model.train(max_epochs=2, key_added=None, **QUIET)
    with torch.no_grad():
        model.module.field.weights[-1][1] += 60 * torch.eye(4)
    with pytest.warns(UserWarning, match="given up"):
        model.train(max_epochs=1, objective="trajectory", key_added=None, **QUIET)
    model.train(max_epochs=1, key_added=None, **QUIET)
    assert not model.module.field.weights[-1][1].any()
    assert model.module.field.weights[-1][0].any()


def test_of_a_fit_whose_trajectories_diverge_the_network_is_written(few, tmp_path):
    """As after training: the choice holds, and the network can be read and drawn, but nothing that needs trajectories."""
    model = sn.SparseNODE(few, CNODE([0.1, 0.5]), objective="transport", hidden=(4,))
    model.train(max_epochs=2, **QUIET)
    assert {"sparsenode_trajectory"} <= set(few.obsm)
    with torch.no_grad():
        model.module.field.weights[-1] += 60 * torch.eye(4)
    message = (
        "trajectories of this transport fit diverge: its network was written, but neither predictions.*get_network"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        chosen = model.select("sparsity", sparsity=0.0)
    assert caught[0].filename == __file__
    assert chosen.name == model.selected_
    adjacency = model.get_adjacency()
    assert (np.diag(adjacency) > 5).all()
    few.write_h5ad(tmp_path / "cells.h5ad")
    read = anndata.read_h5ad(tmp_path / "cells.h5ad")
    for adata in (few, read):
        np.testing.assert_allclose(adata.varp["sparsenode_adjacency"].toarray(), adjacency, rtol=1e-6)
        assert not {"sparsenode_trajectory"} & set(adata.obsm)
        np.testing.assert_array_equal(
            adata.layers["sparsenode_velocity"], model.get_velocity()
        )  # needs no trajectories
        assert not {"scores", "held_out_scores"} & set(adata.uns["sparsenode"])
        assert {"sparsity", "history", "regularization_path", "parameters"} <= set(adata.uns["sparsenode"])
        sn.pl.adjacency(adata, return_fig=True)
        with pytest.raises(KeyError, match="Expected trajectories.*this fit diverge"):
            sn.pl.trajectory(adata, return_fig=True)
        with pytest.raises(KeyError, match="Expected scores.*this fit diverge"):
            sn.pl.skill(adata, return_fig=True)


def test_velocities_that_need_trajectories_are_left_out_where_these_diverge(few, monkeypatch):
    few.obsm["X_umap"] = np.asarray(few.X)[:, :2]
    regularizer = LassoNet(0.01, skip="outer")
    model = sn.SparseNODE(few, regularizer, objective="transport", hidden=(4,))
    model.train(max_epochs=2, schedule="sparse", **QUIET)
    assert "sparsenode_velocity" in few.layers

    def diverge(*_, **__):
        raise sn.DivergenceError("The solution diverged.")

    monkeypatch.setattr(model.module, "trajectories", diverge)
    with pytest.warns(UserWarning, match="neither predictions nor scores") as caught:
        model.write_results()
    assert caught[0].filename == __file__
    assert not {"sparsenode_velocity"} & set(few.layers)
    with pytest.raises(KeyError, match="need trajectories, and the trajectories of this fit diverge"):
        sn.pl.velocity(few)


def test_going_back_from_fine_tuning_is_logged(few, caplog):
    model = sn.SparseNODE(few, objective="transport", hidden=(4,))
    for arguments in ({}, {"objective": "trajectory"}):
        model.train(max_epochs=1, key_added=None, **arguments, **QUIET)
    assert "goes back" not in caplog.text
    model.train(max_epochs=1, key_added=None, **QUIET)
    assert "Training goes back to the transport objective" in caplog.text


def test_other_training_cells_are_brought_into_the_units_of_the_model(few):
    """States are those of the cells, and slopes of the same size as in a new model, which has units of its own."""
    rows = np.arange(240)
    split = rows[rows % 3 > 0], rows[rows % 3 == 0], np.arange(0)
    displaced = Transport(relaxation=0)  # what it adds is in units of the rate, which is another one here
    trained, new = (sn.SparseNODE(few, objective=displaced, hidden=(4,)) for _ in range(2))
    trained.train(max_epochs=1, key_added=None, **QUIET)
    trained.module.rate *= torch.tensor([0.5, 1.0, 2.0, 4.0])
    sizes = []
    for model in (trained, new):
        splitter, module = model._prepare(split, 1, False, "transport"), model.module
        for tensors, kept in zip((splitter.batches.training, splitter.batches.validation), split, strict=False):
            states = (tensors["state"] * module.scale + module.centre).numpy()
            distances = np.abs(states[:, None] - few.X[kept]).max(2).min(1)
            assert distances.max() < 1e-5
            sizes.append((tensors["slope"][0] * module.scale * module.rate).std(0))
    assert not torch.equal(trained.module.scale, new.module.scale)
    torch.testing.assert_close(torch.stack(sizes[:2]), torch.stack(sizes[2:]), rtol=0.05, atol=0)


def test_only_a_fit_can_be_fine_tuned(cells):
    with pytest.raises(RuntimeError, match="trained model"):
        sn.SparseNODE(cells, objective="transport").train(objective="trajectory", **QUIET)


@pytest.mark.parametrize(
    "regularizer",
    [PathReg(0.05, gates="weight"), GroupLasso(0.05), LassoNet(0.05), LassoNet(0.05, skip="outer"), "l0", "none"],
    ids=repr,
)
def test_every_regularizer(few, regularizer):
    model = sn.SparseNODE(few, regularizer, objective="transport", hidden=(4,))
    model.train(max_epochs=20, key_added=None, **QUIET)
    assert np.isfinite(model.get_adjacency()).all().all()
    assert model.regularization_path_["train_error"].item() < 0.65  # of the displacements; 1 without a field


def test_lineages_of_their_own_fields(few):
    adata = AnnData(few.X.copy(), obs=few.obs.copy(), var=few.var.copy())
    adata.obs["side"] = pd.Categorical(np.where(np.arange(240) % 2 == 0, "left", "right"))
    sn.SparseNODE.setup_anndata(adata, time_key="time", lineage_key="side")
    model = sn.SparseNODE(adata, objective="transport", fields="lineage", hidden=(4,))
    model.train(max_epochs=5, key_added=None, **QUIET)
    assert not model.get_adjacency("left").equals(model.get_adjacency("right"))


@pytest.fixture(scope="module")
def sided() -> sn.SparseNODE:
    """A fit of one field to two lineages; on the right gene 3 is constant."""
    adata = simulate(600)
    adata.obs["side"] = pd.Categorical(np.where(np.arange(600) % 2 == 0, "left", "right"))
    adata.X[1::2, 3] = 2.5
    sn.SparseNODE.setup_anndata(adata, time_key="time", lineage_key="side")
    model = sn.SparseNODE(adata, CNODE(0.02), objective="transport", hidden=(8,))
    model.train(train_size=1.0, max_epochs=20, key_added=None, **QUIET)
    return model


@pytest.mark.parametrize("side", ["left", "right"])
def test_network_of_a_lineage_in_a_shared_field(sided, side):
    """Mean over its cells, per standard deviation of the regulator among them."""
    own = np.flatnonzero(sided.adata.obs["side"] == side)
    x, scale = sided.adata.X, sided.adata.X.std(0)
    jacobian = sided.get_adjacency(side, weights="jacobian").to_numpy()
    mean = sided.get_jacobian(own).mean(0)
    np.testing.assert_allclose(jacobian, mean, atol=0.05 * np.abs(mean).max())  # it averages over 256 of 300 cells
    effect = sided.get_adjacency(side, weights="effect").to_numpy()
    np.testing.assert_allclose(effect, jacobian * x[own].std(0) / scale[:, None], rtol=1e-4, atol=1e-12)
    rate = np.divide(*(sided.get_adjacency(weights=weights).to_numpy() for weights in ("effect", "standardised")))
    standardised = sided.get_adjacency(side, weights="standardised").to_numpy()
    np.testing.assert_allclose(standardised * rate, effect, rtol=1e-4, atol=1e-12)
    norms = np.tile(
        np.linalg.norm(standardised - np.diag(np.diagonal(standardised)), axis=1)[:, None], len(standardised)
    )
    np.fill_diagonal(norms, np.linalg.norm(standardised, axis=1))
    balanced = standardised / np.sqrt(norms)
    np.testing.assert_allclose(sided.get_adjacency(side), balanced, rtol=1e-6)


def test_memberships_weight_the_network_of_a_lineage():
    """Its Jacobian is the mean over cells, each with its membership, and not that of all cells that belong to it a little."""
    adata = simulate(600)
    late = adata.obs["time"].rank(pct=True).to_numpy()
    adata.obsm["fates"] = pd.DataFrame({"early": np.where(late < 0.5, 0.98, 0.02), "late": 0.0}, adata.obs_names)
    adata.obsm["fates"]["late"] = 1.0 - adata.obsm["fates"]["early"]
    sn.SparseNODE.setup_anndata(adata, time_key="time", lineage_key="fates")
    model = sn.SparseNODE(adata, "none", objective="transport", hidden=(16,))
    model.train(train_size=1.0, max_epochs=10, key_added=None, **QUIET)
    jacobians = model.get_jacobian(range(600))
    plain = jacobians.mean(0)
    for name in model.lineages:
        weighted = np.average(jacobians, axis=0, weights=adata.obsm["fates"][name])
        found = model.get_adjacency(name, weights="jacobian").to_numpy()
        distance = [np.linalg.norm(found - other) for other in (weighted, plain)]
        assert distance[0] < 0.5 * distance[1]


def small_lineage() -> AnnData:
    """A lineage of 200 cells and one of 12, which are too few for two windows once a tenth is held out."""
    adata = simulate(212)
    adata.obs["side"] = pd.Categorical(np.where(np.arange(212) % 18 == 17, "small", "large"))
    sn.SparseNODE.setup_anndata(adata, time_key="time", lineage_key="side")
    return adata


def test_a_lineage_without_pairs_is_named():
    adata = small_lineage()
    assert (adata.obs["side"] == "small").sum() == 11
    model = sn.SparseNODE(adata, objective="transport", hidden=(4,))
    with pytest.warns(UserWarning, match=r"too few in \['small'\]: these trajectories do not count"):
        model.train(max_epochs=1, key_added=None, **QUIET)
    model = sn.SparseNODE(adata, objective="transport", hidden=(4,), fields="lineage")
    with pytest.raises(ValueError, match=r"every trajectory of \['small'\]: their fields have nothing"):
        model.train(max_epochs=1, key_added=None, **QUIET)


def test_a_lineage_without_pairs_in_a_half_is_named():
    adata = simulate(216)
    adata.obs["side"] = pd.Categorical(np.where(np.arange(216) % 12 == 11, "small", "large"))
    sn.SparseNODE.setup_anndata(adata, time_key="time", lineage_key="side")
    model = sn.SparseNODE(adata, objective="transport", hidden=(4,), fields="lineage", n_seeds=2)
    halves = {"max_epochs": 1, "train_size": 1.0, "half_samples": True, "key_added": None, **QUIET}
    with pytest.raises(ValueError, match=r"in every half, found too few in.*\['small'\].*without `half_samples`"):
        model.train(**halves)
    model.train(**halves | {"half_samples": False})  # 18 cells are enough for two windows of 6
    model = sn.SparseNODE(adata, objective="transport", hidden=(4,), n_seeds=2)
    with pytest.warns(
        UserWarning, match=r"\['small'\]: these trajectories do not count for the network with every seed"
    ):
        model.train(**halves)


def test_halves_that_are_too_small_are_named():
    adata = simulate(20)
    sn.SparseNODE.setup_anndata(adata, time_key="time")
    model = sn.SparseNODE(adata, objective="transport", hidden=(4,), n_seeds=2)
    with pytest.raises(ValueError, match="two windows of 6, found none") as raised:
        model.train(max_epochs=1, train_size=1.0, half_samples=True, key_added=None, **QUIET)
    assert "Without `half_samples`" in raised.value.__notes__[0]
    adata = simulate(11)
    sn.SparseNODE.setup_anndata(adata, time_key="time")
    with pytest.raises(ValueError, match="two windows of 6, found none") as raised:
        sn.SparseNODE(adata, objective="transport", hidden=(4,)).train(max_epochs=1, key_added=None, **QUIET)
    assert not hasattr(raised.value, "__notes__")


def test_halves_of_several_strengths_are_those_of_the_seeds(few):
    """Replicates come strength by strength, three seeds each."""
    settings = {"objective": Transport(windows=20, lags=(1, 2)), "hidden": (4,), "n_seeds": 3}
    training = {"max_epochs": 5, "half_samples": True, "key_added": None, **QUIET}
    both, single = sn.SparseNODE(few, CNODE([0.05, 0.2]), **settings), sn.SparseNODE(few, CNODE(0.2), **settings)
    both.train(**training)
    single.train(**training)
    own = [single.get_adjacency(replicate=seed).to_numpy() for seed in range(3)]
    for seed in range(3):
        found = both.get_adjacency(replicate=3 + seed).to_numpy()
        distances = [np.abs(found - other).max() for other in own]
        assert np.argmin(distances) == seed
        assert distances[seed] < 0.1 * min(np.delete(distances, seed))


@pytest.mark.parametrize(
    ("regularizer", "train", "expected"),
    [
        (CNODE(0.1), {}, 1),
        (CNODE(0.1), {"schedule": sn.training.IterativeSparsification(1, epochs_per_step=1)}, 0),
        (GroupLasso(0.1), {}, 0),
        (PathReg(0.1, gates="weight"), {}, 0),
        (LassoNet(0.1), {"schedule": "sparse"}, 0),
    ],
    ids=["cnode", "schedule", "grouplasso", "gates", "lassonet"],
)
def test_the_linear_part_is_solved_for_where_the_penalty_is_that_of_its_entries(
    few, monkeypatch, regularizer, train, expected
):
    """And after the end of a training with that penalty: neither in a schedule nor in a refit."""
    calls = []
    monkeypatch.setattr(
        "sparsenode.model._training.polish", lambda module, tensors: calls.append(len(tensors["state"]))
    )
    model = sn.SparseNODE(few, regularizer, objective="transport", hidden=(4,))
    model.train(max_epochs=1, steps_per_epoch=1, key_added=None, **train, **QUIET)
    assert len(calls) == expected
    model.train(max_epochs=1, steps_per_epoch=1, key_added=None, refit=True, **QUIET)
    assert len(calls) == expected


def test_squares_are_penalised_where_paths_are(few):
    found = []
    for regularizer in ("cnode", "l0"):
        model = sn.SparseNODE(few, regularizer, objective="transport", hidden=(4,))
        model.train(max_epochs=1, steps_per_epoch=1, key_added=None, **QUIET)
        found.append(model.module.ridge)
    assert found[0] > 0
    assert found[1] == 0


def test_minibatches_may_miss_a_half(few):
    model = sn.SparseNODE(few, objective=Transport(batch_size=2), hidden=(4,), n_seeds=4)
    model.train(max_epochs=3, half_samples=True, key_added=None, **QUIET)
    assert np.isfinite(model.regularization_path_["train_error"]).all()


def test_a_regulator_that_is_constant_in_a_lineage_has_no_edge_there(sided):
    assert (sided.get_adjacency("right")["gene3"] == 0).all()
    assert (sided.get_adjacency("left")["gene3"] != 0).any()
    assert "gene3" not in set(sided.get_network("right")["source"])


def test_one_lineage_is_the_network(model):
    np.testing.assert_allclose(model.get_adjacency(model.lineages[0]), model.get_adjacency(), rtol=1e-6)


def test_half_samples_are_coupled_with_their_own_cells_alone(few):
    """Every seed has the displacements that there are if the other half is removed, in the units of all cells."""
    transport = Transport(windows=10, lags=1)
    model = sn.SparseNODE(few, objective=transport, n_seeds=3, hidden=(4,))
    everything = np.ones(240, dtype=bool)
    splitter = model._prepare((np.arange(240), np.arange(0), np.arange(0)), 1, True, "transport")
    tensors = splitter.batches.training
    assert len(splitter.batches.full["weight"]) == 1  # seeds are compared on all cells
    first, second = model._half_samples(model._cells(), everything)
    z = (few.X - model.module.centre.numpy()) / model.module.scale.numpy()
    for seed, half in enumerate((first, ~first, second)):
        own = tensors["weight"][seed] > 0
        pairs = couple_cells(few.obs[["time"]].to_numpy()[half], np.ones((120, 1)), z[half], transport)
        order = np.argsort(np.flatnonzero(half)[pairs.start])
        moved = (pairs.coupling @ z[half] - z[half][pairs.start])[order]
        np.testing.assert_allclose(tensors["state"][own], z[half][pairs.start][order], rtol=1e-5, atol=1e-5)
        found = (tensors["slope"][seed, own] * model.module.rate).numpy()
        np.testing.assert_allclose(found / found.std(), moved / moved.std(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1000, 20])
def test_halves_have_no_held_out_cells(few, batch_size):
    """Also where minibatches are drawn from them; replicates are compared on all training cells."""
    rows = np.arange(240)
    training = rows[rows % 3 > 0]
    model = sn.SparseNODE(few, objective=Transport(batch_size=batch_size), n_seeds=3, hidden=(4,))
    splitter = model._prepare((training, rows[rows % 3 == 0], rows[:0]), 1, True, "transport")
    module = model.module
    for tensors, n_samples in ((splitter.batches.training, 3), (splitter.batches.full, 1)):
        assert tensors["weight"].shape == (n_samples, len(tensors["state"]))
        states = (tensors["state"] * module.scale + module.centre).numpy()
        distances = np.abs(states[:, None] - few.X[training]).max(2).min(1)
        assert distances.max() < 1e-5


def test_the_linear_part_of_every_seed_is_solved_for_with_its_half(few, monkeypatch):
    shapes = []
    monkeypatch.setattr("sparsenode.model._training.polish", lambda _, tensors: shapes.append(len(tensors["weight"])))
    model = sn.SparseNODE(few, CNODE(0.1), objective="transport", hidden=(4,), n_seeds=2)
    model.train(max_epochs=1, steps_per_epoch=1, half_samples=True, key_added=None, **QUIET)
    assert shapes == [2]


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_held_out_displacements_are_over_the_lags_of_training(few, share):
    """Coupled among themselves few cells have few windows, whose lags span a large part of the trajectory."""
    rows = np.arange(240)
    validation = np.sort(np.random.default_rng(1).choice(rows, int(240 * share), replace=False))
    model = sn.SparseNODE(few, objective=Transport(relaxation=0), hidden=(4,))
    splitter = model._prepare((np.setdiff1d(rows, validation), validation, rows[:0]), 1, False, "transport")
    held_out = splitter.batches.validation
    assert set(held_out["cell"].numpy()) <= set(validation)
    assert len(held_out["cell"]) > 0.7 * len(validation)  # the last ones go nowhere
    z = (few.X - few.X[np.setdiff1d(rows, validation)].mean(0)) / few.X[np.setdiff1d(rows, validation)].std(0)
    whole = couple_cells(few.obs[["time"]].to_numpy(), np.ones((240, 1)), z, Transport())
    rate = model.module.rate.double().numpy()
    expected = pair_batch([whole], z, model._cells(), np.ones(1), rate)[0]
    own = np.isin(expected["cell"].numpy(), validation)
    np.testing.assert_allclose(held_out["slope"][0], expected["slope"][0][own], rtol=1e-3, atol=1e-3)


def test_a_closed_network_explains_no_held_out_displacements(few):
    """So that errors of training and of held-out cells can be compared, and no strength is chosen for the wrong reason."""
    sn.SparseNODE.setup_anndata(few, time_key="time")
    objective, edges = Transport(relaxation=0), {"decay": False, "self_edges": "penalised"}
    model = sn.SparseNODE(few, CNODE(100.0), objective=objective, hidden=(4,), **edges)
    model.train(train_size=0.8, max_epochs=20, key_added=None, **QUIET)
    assert model.get_sparsity()["feature"] == 1.0
    path = model.get_regularization_path().iloc[0]
    assert path["train_error"] == pytest.approx(1.0, abs=0.05)
    assert path["validation_error"] == pytest.approx(1.0, abs=0.3)


def test_cells_are_coupled_in_their_principal_components(few):
    model = sn.SparseNODE(few, objective=Transport(n_pcs=2, relaxation=0), hidden=(4,))
    splitter = model._prepare((np.arange(240), np.arange(0), np.arange(0)), 1, False, "transport")
    z = (few.X - few.X.mean(0)) / few.X.std(0)
    left, sizes, _ = np.linalg.svd(z, full_matrices=False)
    pairs = couple_cells(few.obs[["time"]].to_numpy(), np.ones((240, 1)), left[:, :2] * sizes[:2], Transport(n_pcs=2))
    expected = pair_batch([pairs], z, model._cells(), np.ones(1), None)[0]["slope"].numpy()
    np.testing.assert_allclose(splitter.batches.training["slope"], expected, rtol=1e-3, atol=1e-3)


N_RESTING = 2000


@pytest.fixture(scope="module")
def resting() -> AnnData:
    """Stationary cells of a reversible process with four edges among six genes; time tells nothing."""
    rng = np.random.default_rng(0)
    drift = -np.eye(6)
    drift[0, 1] = drift[1, 0] = 0.6
    drift[2, 3] = drift[3, 2] = -0.6
    x = rng.multivariate_normal(np.zeros(6), np.linalg.inv(-drift) / 2, N_RESTING)
    obs = pd.DataFrame({"time": rng.uniform(size=N_RESTING)}, map(str, range(N_RESTING)))
    adata = AnnData(x, obs=obs)
    sn.SparseNODE.setup_anndata(adata, time_key="time")
    return adata


def test_cells_at_rest_have_the_edges_of_what_keeps_them_there(resting):
    edges = []
    for relaxation in (0.0, 0.8):
        model = sn.SparseNODE(resting, objective=Transport(relaxation=relaxation))
        model.train(train_size=1.0, max_epochs=20, key_added=None, **QUIET)
        edges.append(model.get_adjacency(weights="standardised").to_numpy())
    true = [(0, 1), (1, 0), (2, 3), (3, 2)]
    others = [(i, j) for i in range(6) for j in range(6) if i != j and (i, j) not in true]
    without, found = (np.array([abs(matrix[pair]) for pair in true]) for matrix in edges)
    assert (found > 1.3 * without).all()
    assert found.min() > 2 * max(abs(edges[1][pair]) for pair in others)
    assert edges[1][0, 1] > 0 > edges[1][2, 3]


@pytest.fixture(scope="module")
def by_chance() -> AnnData:
    """Stationary cells of a reversible chain of four genes, ordered along the way that they scatter most."""
    rng, drift = np.random.default_rng(0), -np.eye(4)
    for one, other, weight in ((0, 1, 0.55), (1, 2, -0.55), (2, 3, 0.55)):
        drift[one, other] = drift[other, one] = weight
    x = rng.multivariate_normal(np.zeros(4), np.linalg.inv(-drift) / 2, N_RESTING)
    slowest = np.linalg.eigh(drift)[1][:, -1]
    adata = AnnData(x, obs=pd.DataFrame({"time": x @ slowest}, map(str, range(N_RESTING))))
    sn.SparseNODE.setup_anndata(adata, time_key="time")
    return adata


def test_an_order_by_chance_makes_edges(by_chance, caplog):
    """Of genes that are two and three steps apart, until what windows have in common is taken out, which a message says."""
    genes = np.arange(4)
    steps = np.abs(genes[:, None] - genes)
    for centring in (False, True):
        caplog.clear()
        model = sn.SparseNODE(by_chance, objective=Transport(centring=centring))
        model.train(train_size=1.0, max_epochs=20, key_added=None, **QUIET)
        assert ("taken out of displacements" in caplog.text) is centring
        found = model.get_adjacency(weights="standardised").abs().to_numpy()
        if centring:
            assert found[steps == 1].min() > 1.5 * found[steps > 1].max()
        else:
            assert found[steps == 1].min() < found[steps > 1].max()


@pytest.mark.parametrize("halves", [False, True])
def test_held_out_cells_and_halves_are_centred_alike(by_chance, halves):
    """By the share that all training cells tell, each in windows of its own."""
    rows = np.arange(N_RESTING)
    split = rows[rows % 3 > 0], rows[rows % 3 == 0], rows[:0]
    prepared = []
    for centring in (False, True):
        objective = Transport(relaxation=0, centring=centring)
        model = sn.SparseNODE(by_chance, objective=objective, hidden=(4,), n_seeds=2)
        prepared.append(model._prepare(split, 1, halves, "transport"))
    for name in ("training", "full", "validation"):
        plain, centred = ({k: v.double().numpy() for k, v in getattr(p.batches, name).items()} for p in prepared)
        np.testing.assert_array_equal(plain["state"], centred["state"])
        taken = plain["slope"] - centred["slope"]
        for sample, weight in enumerate(plain["weight"]):
            own = weight > 0
            assert (taken[sample][~own] == 0).all()
            left = np.average(taken[sample][own], axis=0, weights=weight[own])
            assert 0.1 < taken[sample][own].std() < plain["slope"][sample][own].std()
            assert np.abs(left).max() < 0.1 * taken[sample][own].std()


def test_halves_that_lack_a_lineage_relax_without_it(resting):
    """Where its cells are too few to be coupled in one of them, which a warning says."""
    adata, rows = resting.copy(), np.arange(N_RESTING)
    adata.obs["side"] = pd.Categorical(np.where(rows < N_RESTING - 23, "left", "right"))
    sn.SparseNODE.setup_anndata(adata, time_key="time", lineage_key="side")
    model = sn.SparseNODE(adata, objective="transport", hidden=(4,), n_seeds=2)
    with pytest.warns(UserWarning, match="right"):
        splitter = model._prepare((rows, rows[:0], rows[:0]), 1, True, "transport")
    assert np.isfinite(splitter.batches.training["slope"].numpy()).all()


@pytest.mark.parametrize(("halves", "regulators"), [(False, None), (True, None), (False, ["1", "2", "5"])])
def test_held_out_cells_relax_as_those_that_were_trained_on(resting, halves, regulators):
    """What is added is linear in deviations from windows, here nearly those from the mean, and halves have matrices of their own."""
    rows = np.arange(N_RESTING)
    split = rows[rows % 3 > 0], rows[rows % 3 == 0], rows[:0]

    def prepare(relaxation: float) -> dict[str, dict[str, np.ndarray]]:
        objective = Transport(relaxation=relaxation)
        model = sn.SparseNODE(resting, objective=objective, hidden=(4,), n_seeds=2, regulators=regulators)
        splitter = model._prepare(split, 1, halves, "transport")
        names = ("training", "full", "validation")
        return {name: {k: v.numpy() for k, v in getattr(splitter.batches, name).items()} for name in names}

    without, relaxed = prepare(0.0), prepare(0.8)
    matrices = {}
    for name, tensors in relaxed.items():
        np.testing.assert_array_equal(tensors["state"], without[name]["state"])
        for sample, weight in enumerate(tensors["weight"]):
            own = weight > 0
            added = (tensors["slope"] - without[name]["slope"])[sample]
            assert (added[~own] == 0).all()
            matrices[name, sample] = np.linalg.lstsq(tensors["state"][own], added[own], rcond=None)[0]
    assert np.abs(matrices["full", 0]).max() > 0.05
    if regulators is not None:
        assert np.abs(matrices["full", 0][[0, 3, 4]]).max() < 0.01
    np.testing.assert_allclose(matrices["validation", 0], matrices["full", 0], atol=0.02)
    if halves:
        assert np.abs(matrices["training", 0] - matrices["training", 1]).max() > 0.005
    else:
        np.testing.assert_array_equal(matrices["training", 0], matrices["full", 0])


def test_trajectories_start_from_early_training_cells(few):
    model = sn.SparseNODE(few, objective="transport", hidden=(4,))
    model.train(max_epochs=1, steps_per_epoch=1, key_added=None, **QUIET)
    training = np.isin(np.arange(240), model.train_indices)
    weights = model._cells().initial_weights(model._initial_state, model._initial_bandwidth, training)
    start = model.predict(times=model.trajectories["start"].to_numpy())
    np.testing.assert_allclose(start, weights.T @ few.X, rtol=1e-4)


def test_noise_is_weighted_by_memberships():
    """Cells of noise alone hardly count where they hardly belong to a lineage."""
    ridge = []
    for membership in (1.0, 0.01):
        adata = simulate(480)
        adata.X[1::2] = np.random.default_rng(0).normal(size=(240, 4)) * adata.X.std(0) + adata.X.mean(0)
        clean = np.arange(480) % 2 == 0
        fates = {"clean": np.where(clean, 1.0, 0.0), "noise": np.where(clean, 0.0, membership)}
        adata.obsm["fates"] = pd.DataFrame(fates, adata.obs_names)
        sn.SparseNODE.setup_anndata(adata, time_key="time", lineage_key="fates")
        model = sn.SparseNODE(adata, objective="transport", hidden=(4,))
        model._prepare((np.arange(480), np.arange(0), np.arange(0)), 1, False, "transport")
        ridge.append(model.module.ridge)
    assert 0 < ridge[1] < 0.7 * ridge[0]


@pytest.mark.parametrize("objective", ["velocity", "none", 3])
def test_wrong_objective(cells, objective):
    with pytest.raises(ValueError, match="`objective`.*'trajectory', 'collocation', 'transport', 'both'"):
        sn.SparseNODE(cells, objective=objective)


@pytest.mark.parametrize("lags", [2, (1, 3)])
def test_the_error_is_that_of_displacements_to_cells_that_are_assigned(few, lags):
    """Without entropy and overlap, cells of equal weight are coupled one to one; all the rest is written down from the user guide."""
    transport = Transport(windows=8, lags=lags, overlap=1, entropy=0.0, relaxation=0.0, centring=False)
    model = sn.SparseNODE(few, CNODE([0.01, 0.3]), objective=transport, hidden=(4,))
    model.train(2, train_size=1.0, steps_per_epoch=5, key_added=None, **QUIET)
    deviation = few.X.std(0)
    z = (few.X - few.X.mean(0)) / deviation
    windows = np.split(np.argsort(few.obs["time"].to_numpy(), kind="stable"), 8)
    displacement, precision = np.zeros_like(z), np.zeros(len(z))
    for lag in np.atleast_1d(lags):
        moved = {}
        for first, later in zip(windows, windows[lag:], strict=False):
            i, j = linear_sum_assignment(cdist(z[first], z[later], "sqeuclidean"))
            moved |= dict(zip(first[i], (z[later[j]] - z[first[i]]) / (lag / 8), strict=True))
        share = 1.0 / np.array(list(moved.values())).var(0).mean()
        for cell, step in moved.items():
            displacement[cell] += share * step
            precision[cell] += share
    rows = precision > 0
    v, w = displacement[rows] / precision[rows, None], precision[rows]
    sigma = np.sqrt(np.cov(v.T, aweights=w, ddof=0).diagonal())
    for replicate, error in enumerate(model.get_regularization_path()["train_error"]):
        field = model.get_velocity(replicate=replicate)[rows] * np.ptp(few.obs["time"]) / deviation
        assert error == pytest.approx(np.average(np.square((v - field) / sigma).mean(1), weights=w), rel=1e-4)


@pytest.mark.parametrize("objective", ["transport", "both"])
def test_cells_count_once_in_deviations_over_all_and_by_membership_in_those_of_a_lineage(objective):
    """Also where memberships do not add up to one, as where an only lineage has little of the early cells."""
    adata = simulate(240)
    share = np.where(adata.obs["time"] < 2, 0.2, 1.0)
    adata.obsm["lineages"] = pd.DataFrame({"only": share}, index=adata.obs_names)
    sn.SparseNODE.setup_anndata(adata, time_key="time", lineage_key="lineages")
    model = sn.SparseNODE(adata, objective=objective, hidden=(4,))
    model.train(2, train_size=1.0, steps_per_epoch=5, key_added=None, **QUIET)
    over_all, own = (np.sqrt(np.cov(adata.X.T, aweights=w, ddof=0).diagonal()) for w in (np.ones_like(share), share))
    jacobian = model.get_adjacency("only", weights="jacobian")
    for lineage, of_regulators in ((None, over_all), ("only", own)):
        effect = model.get_adjacency(lineage, weights="effect")
        np.testing.assert_allclose(effect, jacobian * of_regulators / over_all[:, None], rtol=1e-4)
