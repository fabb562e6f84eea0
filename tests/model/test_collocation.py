"""The collocation objective, adaptive penalties and refits through the model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import sparsenode as sn
from sparsenode.regularizers import CNODE, GroupLasso, LassoNet, PathReg

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "key_added": None}
SETUP = {"time_key": "time", "batch_key": "trial"}
SERIES = {"n_knots": 33}


@pytest.fixture(scope="module")
def system():
    return sn.datasets.random_linear_system(n_genes=5, seed=100)


@pytest.fixture(scope="module")
def trials(system):
    adata = system.simulate(6, 40, noise=0.0, seed=1)
    sn.SparseNODE.setup_anndata(adata, **SETUP)
    return adata


@pytest.fixture(scope="module")
def make(trials):
    """Model that was fitted by collocation."""

    def build(regularizer, epochs=25, **arguments):
        model = sn.SparseNODE(trials, regularizer, objective="collocation", **SERIES | arguments)
        model.train(epochs, **QUIET)
        return model

    return build


def _edges(matrix, system):
    found = np.abs(matrix.loc[system.genes, system.genes].to_numpy())
    np.fill_diagonal(found, 0.0)
    truth = system.coefficients.to_numpy().copy()
    np.fill_diagonal(truth, 0.0)
    return found, np.abs(truth)


@pytest.mark.parametrize(
    ("regularizer", "within"),
    [
        (CNODE(0.005, adaptive=2), 0.03),
        (PathReg(0.1, gates="weight", adaptive=2), 0.03),
        # Three coefficients of one gene make up for one another: with some seeds and processors it ends 8 % off.
        (GroupLasso(0.02, adaptive=2), 0.1),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_equations_of_a_linear_system(make, system, regularizer, within):
    """Support exactly, and after a refit on the trajectories the coefficients."""
    model = make(regularizer, 20)
    found, truth = _edges(model.get_adjacency(), system)
    np.testing.assert_array_equal(found != 0, truth != 0)
    model.train(6, objective="trajectory", refit=True, plan_kwargs={"lr": 0.005}, **QUIET)
    found, _ = _edges(model.get_adjacency(weights="jacobian"), system)
    np.testing.assert_array_equal(found != 0, truth != 0)
    assert np.linalg.norm(found - truth) < within * np.linalg.norm(truth)
    assert model.evaluate().loc["total", "skill"] > 0.9


def test_gates_do_not_shrink_effects(make, system):
    """Their noise is like a ridge. Without it, and with hardly any penalty, coefficients are those of least squares."""
    model = make(PathReg(1e-5, gates="weight", adaptive=1), 25)
    found = model.get_adjacency(weights="jacobian").loc[system.genes, system.genes]
    truth = system.coefficients
    assert np.linalg.norm(found - truth) < 0.02 * np.linalg.norm(truth)


def test_the_equations_of_a_second_order_system():
    """Both blocks exactly, coefficients within 5 %."""
    system = sn.datasets.second_order_system()
    adata = system.simulate(6, 100, seed=1)
    sn.SparseNODE.setup_anndata(adata, **SETUP)
    penalty = CNODE(0.003, adaptive=2)
    model = sn.SparseNODE(adata, penalty, objective="collocation", order=2, n_knots=65)
    model.train(25, **QUIET)
    model.train(8, objective="trajectory", refit=True, plan_kwargs={"lr": 0.005}, **QUIET)
    for block in ("position", "velocity"):
        truth = getattr(system, block)
        found = model.get_adjacency(block=block, weights="jacobian").loc[truth.index, truth.columns]
        off = ~np.eye(3, dtype=bool)  # self-edges are free by default
        np.testing.assert_array_equal((found.to_numpy() != 0)[off], (truth.to_numpy() != 0)[off], block)
        assert np.linalg.norm(found - truth) < 0.05 * np.linalg.norm(truth)


def test_smoothed_trajectories_start_learned_initial_states(make, trials, system):
    model = make(CNODE(0.01), 1)
    start = model.module.start()[0].detach().numpy() * model.module.scale.numpy() + model.module.centre.numpy()
    first = trials.obs["time"] == 0
    np.testing.assert_allclose(start, trials.X[first], atol=0.05)


def test_learned_initial_states_of_every_seed_start_from_its_own_half(system, monkeypatch):
    adata = system.simulate(3, 80, noise=0.2, seed=1)
    sn.SparseNODE.setup_anndata(adata, **SETUP)
    model = sn.SparseNODE(adata, CNODE([0.01, 0.1]), objective="collocation", n_seeds=2, hidden=(3,), **SERIES)
    curves, smooth = [], model._smooth
    monkeypatch.setattr(model, "_smooth", lambda *known: curves.extend(smooth(*known)) or curves)
    model.train(1, half_samples=True, steps_per_epoch=1, **QUIET)
    module = model.module
    start = module.start().detach().numpy() * module.scale.numpy() + module.centre.numpy()
    assert np.abs(curves[0].states[:, 0] - curves[1].states[:, 0]).max() > 0.05
    for replicate in range(4):  # strengths, then seeds
        np.testing.assert_allclose(start[replicate], curves[replicate % 2].states[:, 0], atol=1e-5)
        simulated = model.simulate(times=[0.0, 0.01], replicate=replicate).unperturbed
        np.testing.assert_allclose(simulated[:, 0], curves[replicate % 2].states[:, 0], atol=1e-5)


def test_the_centre_is_the_mean_over_cells(system):
    """Trials count by their cells: one of two goes on five times as long."""
    adata = system.simulate(2, 60, noise=0.0, seed=1)
    adata = adata[np.r_[:12, 60:120]].copy()
    sn.SparseNODE.setup_anndata(adata, **SETUP)
    model = sn.SparseNODE(adata, CNODE(0.01), objective="collocation", hidden=(3,), n_knots=9)
    model.train(1, steps_per_epoch=1, train_size=1.0, **QUIET)
    np.testing.assert_allclose(model.module.centre, adata.X.mean(0), rtol=1e-4, atol=1e-4)


def test_the_linear_start_is_a_ridge_regression(trials, system):
    """Before any step, the skip holds the linear system itself, in units of the module."""
    model = sn.SparseNODE(trials, CNODE(0.0), objective="collocation", hidden=(4,), **SERIES)
    torch.manual_seed(0)
    model.train(1, steps_per_epoch=1, plan_kwargs={"lr": 1e-12}, **QUIET)
    matrix = model.module.field.weights[-1][0].detach().numpy() / float(model.module.time_unit)
    truth = system.coefficients.to_numpy()
    assert np.linalg.norm(matrix - truth) < 0.05 * np.linalg.norm(truth)


def test_one_field_per_lineage_and_per_seed_starts_from_its_own_cells():
    """Two lineages with opposite coefficients; half-samples give every seed its own curves."""
    t = np.tile(np.linspace(0, 2, 200), 2)
    lineage = np.repeat(["up", "down"], 200)
    x = np.where(lineage == "up", np.exp(0.5 * t), np.exp(-t))[:, None]
    rng = np.random.default_rng(0)
    adata = sn.datasets.random_linear_system(2).simulate(10, 40)
    adata.X = np.hstack([x, x**2]) + 0.001 * rng.normal(size=(400, 2))
    adata.obs["t"], adata.obs["lineage"] = t, lineage
    sn.SparseNODE.setup_anndata(adata, time_key="t", lineage_key="lineage")
    model = sn.SparseNODE(adata, CNODE(0.0), objective="collocation", fields="lineage", hidden=(3,), n_seeds=2)
    model.train(40, half_samples=True, **QUIET)
    velocity = model.get_velocity()[:, 0]
    up = adata.obs["lineage"].to_numpy() == "up"
    inner = (t > 0.2) & (t < 1.8)
    np.testing.assert_allclose(velocity[up & inner], 0.5 * x[up & inner, 0], rtol=0.15)
    np.testing.assert_allclose(velocity[~up & inner], -x[~up & inner, 0], rtol=0.25, atol=0.03)
    one, other = model.module.field.weights[-1][0], model.module.field.weights[-1][2]
    assert not torch.allclose(one, other)
    reference = model.module.reference[..., 0] * model.module.scale[0] + model.module.centre[0]
    up, down = (model.lineages.index(name) for name in ("up", "down"))
    kept = model.module.reference_weight > 0
    assert kept.sum(1).tolist() == [model.module.n_knots] * 2
    assert (reference[up][kept[up]] > 0.95).all()
    assert (reference[down][kept[down]] < 1.05).all()


def test_training_again_adapts_to_what_was_learned_before_its_first_step(make, monkeypatch):
    model = make(CNODE(0.01, adaptive=1), 2)
    module, calls = model.module, []
    before, adapt = module.field.weights[-1].detach().clone(), module.adapt
    monkeypatch.setattr(module, "adapt", lambda: [calls.append(torch.equal(module.field.weights[-1], before)), adapt()])
    model.train(2, **QUIET)
    assert calls == [True]


def test_adaptive_weights_are_the_inverse_of_the_path_matrix(make):
    model = make(CNODE([0.01, 0.1], adaptive=1), 5)
    field = model.module.field
    matrix = torch.rand(2, 5, 5) + 0.1
    field.adapt(matrix)
    own = torch.ones(5, 5).fill_diagonal_(0.0)  # self-edges are free by default
    expected = own / (matrix + 0.01 * matrix.mean((1, 2), keepdim=True))
    expected *= (own * matrix).sum((1, 2), keepdim=True) / (expected * matrix).sum((1, 2), keepdim=True)
    torch.testing.assert_close(field.adapted, expected)
    # Nothing left to compare with: as at the start.
    field.adapt(torch.zeros(2, 5, 5))
    torch.testing.assert_close(field.adapted, own.expand(2, -1, -1))
    field.adapt(None)
    assert field.architecture.path_weights is field.path_weights


def test_adaptive_rounds_lengthen_the_training(make):
    model = make(CNODE(0.01, adaptive=2), 4)
    assert len(model.history["train_loss"]) == 12
    assert model.module.field.adapted is not None
    assert "zou2006adaptive" in model.citation()


def test_a_trained_model_adapts_from_the_start(make):
    """No round without adaptive weights: those of the first are the inverse of what the model has learned."""
    model = make(CNODE([0.001, 0.03], adaptive=1), 20)
    field = model.module.field
    field.adapt(field.path_matrix(field.effective_weights()).detach())
    expected = field.adapted
    field.adapt(None)
    n_epochs = len(model.history["train_loss"])
    model.train(3, objective="trajectory", **QUIET)
    assert len(model.history["train_loss"]) == n_epochs + 3
    torch.testing.assert_close(model.module.field.adapted, expected)
    model.train(2, **QUIET)  # the same objective goes on alike
    assert len(model.history["train_loss"]) == n_epochs + 5


def test_the_trajectories_tell_more_than_their_derivatives_where_there_is_noise(system):
    """False edges that noisy derivatives leave are gone after adaptive rounds on the trajectories; true ones stay."""
    adata = system.simulate(6, 40, noise=0.1, irregular=True, seed=2)
    sn.SparseNODE.setup_anndata(adata, **SETUP)
    model = sn.SparseNODE(adata, CNODE(0.006, adaptive=2), objective="collocation", **SERIES)
    model.train(20, **QUIET)
    before, truth = _edges(model.get_adjacency(), system)
    model.train(12, objective="trajectory", plan_kwargs={"lr": 0.01}, **QUIET)
    after, _ = _edges(model.get_adjacency(), system)
    false = truth == 0
    assert (before[false] != 0).sum() > (after[false] != 0).sum()
    assert (after[~false] != 0).all()


@pytest.mark.parametrize("regularizer", [CNODE(0.1), PathReg(0.3, gates="weight"), PathReg(0.1), LassoNet(0.1)])
def test_a_refit_holds_zeros_and_gates_and_lowers_the_error(make, regularizer):
    model = make(regularizer, 8)
    model.train(2, objective="trajectory", **QUIET)  # as it is, penalised
    before = [weight.detach().clone() for weight in model.module.field.effective_weights().weights]
    zeros = [weight == 0 for weight in before]
    gates = [logits.detach().clone() for logits in model.module.field.gate_logits]
    penalised = model.get_regularization_path()["train_error"].iloc[0]
    model.train(4, objective="trajectory", refit=True, **QUIET)
    after = model.module.field.effective_weights().weights
    assert all((weight[zero] == 0).all() for weight, zero in zip(after, zeros, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(gates, model.module.field.gate_logits, strict=True))
    assert model.get_regularization_path()["train_error"].iloc[0] < penalised
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert model.module.fixed_gates is False


def test_replicates_that_diverge_are_given_up(make):
    model = make(CNODE([0.001, 0.01, 0.1]), 3)
    with torch.no_grad():
        model.module.field.weights[-1][1] += 60 * torch.eye(5)
    with pytest.warns(UserWarning, match=r"1 of 3 replicates diverge \(strengths 0.01\)") as caught:
        model.train(2, objective="trajectory", **QUIET)
    assert [one.filename for one in caught if "given up" in str(one.message)] == [__file__]
    table = model.get_regularization_path()
    assert np.isinf(table.loc[1, ["train_error", "validation_error"]].astype(float)).all()
    assert np.isfinite(table.loc[[0, 2], "validation_error"]).all()
    assert model.selected_ != 1
    assert model.select("best", key_added=None).name != 1
    with torch.no_grad():
        model.module.field.weights[-1][:] += 60 * torch.eye(5)
    with pytest.raises(sn.DivergenceError, match="every replicate diverge"):
        model.train(2, objective="trajectory", **QUIET)


def test_what_was_given_up_stays_so_and_does_not_count(make, trials, tmp_path):
    model = make(CNODE([0.001, 0.01]), 3, n_seeds=2)
    with torch.no_grad():
        model.module.field.weights[-1][3] += 60 * torch.eye(5)
    with pytest.warns(UserWarning, match=r"1 of 4 replicates diverge \(strengths 0.01\): they are given up for good"):
        model.train(2, objective="trajectory", **QUIET)
    model.save(tmp_path / "model")
    for each in (model, sn.SparseNODE.load(tmp_path / "model", adata=trials)):
        each.train(2, **QUIET)
        each.train(1, objective="trajectory", refit=True, **QUIET)
        assert each.given_up_ == [3]
        parameters = (*each.module.field.weights, *each.module.field.biases)
        assert not any(parameter[3].any() for parameter in parameters)
        assert any(parameter[2].any() for parameter in parameters)
        table = each.get_regularization_path()
        assert np.isinf(table["train_error"]).tolist() == [False, False, False, True]
        assert table["feature_sparsity"].iloc[3] == 1
        # Neither the frequency of an edge, nor the mean trajectory, nor a selection counts it.
        alive = (each.get_adjacency(replicate=2) != 0).astype(float)
        np.testing.assert_array_equal(each.get_edge_frequency(replicate=3), alive)
        mean = np.mean([each.predict(replicate=r) for r in range(3)], 0)
        np.testing.assert_allclose(each.predict(replicate="mean"), mean, rtol=1e-5, atol=1e-6)
        assert table["difference_se"].iloc[:3].notna().all()
        with pytest.raises(ValueError, match="Fit larger strengths"):
            each.select("sparsity", sparsity=1.0, key_added=None)
        assert each.select("sparsity", sparsity=table["feature_sparsity"].iloc[2], key_added=None).name != 3


def test_nothing_is_left_to_fine_tune_when_the_last_replicate_diverges(make):
    model = make(CNODE([0.001, 0.01]), 1)
    for replicate in (1, 0):
        with torch.no_grad():
            model.module.field.weights[-1][replicate] += 60 * torch.eye(5)
        if replicate == 1:
            with pytest.warns(UserWarning, match=r"1 of 2 replicates diverge \(strengths 0.01\)"):
                model.train(1, steps_per_epoch=1, objective="trajectory", **QUIET)
    with pytest.raises(sn.DivergenceError, match="every replicate"):
        model.train(1, steps_per_epoch=1, objective="trajectory", **QUIET)


def test_errors_of_every_half_are_shares_of_its_own_derivatives(trials):
    model = sn.SparseNODE(trials, CNODE(0.01), objective="collocation", n_seeds=3, hidden=(4,), **SERIES)
    splitter = model._prepare((np.arange(trials.n_obs), np.arange(0), np.arange(0)), 1, True, "collocation")
    tensors = splitter.batches.training
    assert len(tensors["precision"]) == 3
    null = (tensors["precision"] * tensors["derivatives"] ** 2).sum((1, 2, 3))
    torch.testing.assert_close(null, torch.ones(3))


def test_a_strength_whose_replicates_were_all_given_up_has_no_edge_frequency(make):
    model = make(CNODE([0.001, 0.01]), 1, n_seeds=2)
    with torch.no_grad():
        model.module.field.weights[-1][2:] += 60 * torch.eye(5)
    with pytest.warns(UserWarning, match="given up"):
        model.train(1, objective="trajectory", **QUIET)
    assert np.isfinite(model.get_edge_frequency()).all(axis=None)
    with pytest.raises(ValueError, match=r"found 3: all .* Choose one that is not in `model.given_up_`, \[2, 3\]"):
        model.get_edge_frequency(replicate=3)
    assert model.select("best", key_added=None)["strength"] == pytest.approx(0.001)


def test_sampled_starts_with_an_outer_skip_fit_a_drift(trials):
    """Where the skip is outside, the states of the field are those without the drift."""
    model = sn.SparseNODE(trials, LassoNet(0.0, skip="outer"), objective="collocation", **SERIES)
    model.train(30, schedule="sparse", **QUIET)
    assert model.get_regularization_path()["train_error"].iloc[0] < 0.2


def test_early_stopping_has_no_held_out_error(make):
    model = make("pathreg", 1)
    with pytest.raises(ValueError, match="no `early_stopping` with the collocation objective"):
        model.train(1, early_stopping=True, **QUIET)


def test_a_refit_has_one_round_and_may_stop_early(make):
    model = make(CNODE(0.01, adaptive=1), 1)
    n_epochs = len(model.history["train_loss"])
    stopping = {"early_stopping": True, "early_stopping_patience": 1, "early_stopping_min_delta": 1e6}
    model.train(9, objective="trajectory", refit=True, **stopping, **QUIET)
    assert len(model.history["train_loss"]) == n_epochs + 2


def test_what_cannot_be_combined_is_refused(make, trials):
    model = sn.SparseNODE(trials, CNODE(0.01, adaptive=1), objective="collocation", **SERIES)
    with pytest.raises(RuntimeError, match="trained model"):
        model.train(1, refit=True, **QUIET)
    with pytest.raises(ValueError, match="adaptive regularizer"):
        model.train(1, schedule="iterative", **QUIET)
    with pytest.raises(ValueError, match="no `early_stopping` with an adaptive regularizer"):
        model.train(1, early_stopping=True, **QUIET)
    with pytest.raises(ValueError, match="adaptive regularizer"):
        make(CNODE(0.01), 1).train(1, refit=True, schedule="iterative", **QUIET)
    for wrong in (-1, 0.5, True):
        with pytest.raises(ValueError, match="`adaptive`"):
            CNODE(0.1, adaptive=wrong)
    with pytest.raises(ValueError, match="held-out error .* Collocation has none: refit first"):
        make(CNODE(0.01), 1).select(key_added=None)


@pytest.mark.parametrize("unit", [0.05, 100.0])
def test_the_unit_of_memberships_does_not_matter(system, unit):
    """Shares and per cent are smoothed alike; cross-validation counts cells."""
    errors = []
    for weight in (1.0, unit):
        adata = system.simulate(4, 40, noise=0.1, seed=1)
        adata.obsm["fates"] = pd.DataFrame({"one": np.full(adata.n_obs, weight)}, adata.obs_names)
        sn.SparseNODE.setup_anndata(adata, **SETUP, lineage_key="fates")
        model = sn.SparseNODE(adata, CNODE(0.005), objective="collocation", **SERIES)
        model.train(3, **QUIET)
        errors.append(model.get_regularization_path()["train_error"][0])
    assert errors[1] == pytest.approx(errors[0], rel=1e-3)


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_the_origin_of_the_data_does_not_matter(system, shift):
    """Expression lies far from zero, in units of its deviations, where equations are recovered just as well."""
    adata = system.simulate(6, 40, noise=0.0, seed=1)
    adata.X = adata.X + shift
    sn.SparseNODE.setup_anndata(adata, **SETUP)
    model = sn.SparseNODE(adata, CNODE(0.005, adaptive=2), objective="collocation", **SERIES)
    model.train(20, **QUIET)
    found, truth = _edges(model.get_adjacency(weights="jacobian"), system)
    np.testing.assert_array_equal(found != 0, truth != 0)
    np.testing.assert_allclose(found, truth, atol=0.1 * truth.max())


@pytest.mark.parametrize("arguments", [{"objective": "collocation"}, {"objective": "trajectory", "order": 2}], ids=str)
def test_a_curve_takes_three_times(make_adata, arguments):
    adata = make_adata()
    own = (adata.obs["lineage"] == "myeloid").to_numpy()
    adata.obs.loc[own, "dpt_pseudotime"] = np.arange(own.sum()) % 2
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    model = sn.SparseNODE(adata, hidden=(4,), **arguments)
    with pytest.raises(ValueError, match=r"at least 3 distinct times.*to smooth it.*found \{'myeloid': 2\}.*Take"):
        model.train(1, accelerator="cpu", enable_progress_bar=False)
    assert not model.is_trained_
    adata.obs.loc[own, "dpt_pseudotime"] = np.arange(own.sum()) % 3
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    model = sn.SparseNODE(adata, hidden=(4,), **arguments)
    model.train(1, steps_per_epoch=2, accelerator="cpu", enable_progress_bar=False)
    assert np.isfinite(model.get_adjacency()).all(axis=None)
