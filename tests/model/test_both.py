"""The objective "both": the network of transport, and trajectories fitted with its zeros held."""

from __future__ import annotations

import copy
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback
from scipy.integrate import solve_ivp
from scvi.train._logger import SimpleLogger

import sparsenode as sn
from sparsenode.regularizers import CNODE, L0, GroupLasso, LassoNet, PathReg
from sparsenode.training import IterativeSparsification

QUICK = {"max_epochs": 3, "steps_per_epoch": 4, "accelerator": "cpu", "enable_progress_bar": False}
LONGER = QUICK | {"max_epochs": 20, "steps_per_epoch": 10}
SMALL = {"objective": "both", "hidden": (6, 6), "n_knots": 5}


@pytest.fixture
def cells(make_adata):
    adata = make_adata(n_obs=240, seed=2)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    return adata


@pytest.fixture(scope="module")
def trained_on(make_adata):
    adata = make_adata(n_obs=240, seed=2)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    return adata


@pytest.fixture(scope="module")
def model(trained_on):
    """Strong enough to close edges, long enough to find some. Not to be changed."""
    model = sn.SparseNODE(trained_on, CNODE([0.2, 0.5]), n_seeds=2, **SMALL)
    model.train(**LONGER)
    return model


@pytest.fixture(scope="module")
def transport(trained_on):
    model = sn.SparseNODE(trained_on, CNODE([0.2, 0.5]), n_seeds=2, **(SMALL | {"objective": "transport"}))
    model.train(**LONGER, key_added=None)
    return model


@pytest.mark.parametrize("weights", ["balanced", "standardised", "effect", "jacobian"])
def test_the_network_is_that_of_a_transport_fit(model, transport, weights):
    for replicate in range(4):
        expected = transport.get_adjacency(weights=weights, replicate=replicate)
        found = model.get_adjacency(weights=weights, replicate=replicate)
        pd.testing.assert_frame_equal(found, expected, rtol=1e-5)
        for lineage in model.lineages:
            own = [fit.get_adjacency(lineage, weights=weights, replicate=replicate) for fit in (model, transport)]
            pd.testing.assert_frame_equal(*own, rtol=1e-5, atol=1e-7)
            assert weights == "jacobian" or not own[0].equals(found)  # nearly linear: the Jacobian may be the same
        unsigned = model.get_adjacency(signed=False, weights=weights, replicate=replicate)
        pd.testing.assert_frame_equal(unsigned, found.abs())
    pd.testing.assert_frame_equal(model.get_adjacency(), model.get_adjacency(weights="balanced"))


def test_zeros_of_the_network_are_zeros_of_the_field_that_is_integrated(model, cells):
    """Every single Jacobian is zero where the network is, in every lineage; elsewhere some are not."""
    for replicate in range(4):  # the last two of the larger strength
        network = model.get_adjacency(replicate=replicate).to_numpy()
        assert replicate < 2 or 0.1 < (network == 0).mean() < 0.9
        for lineage in model.lineages:
            jacobian = model.get_jacobian([0, 5, 77], lineage, replicate)
            np.testing.assert_array_equal((jacobian == 0).all(0), network == 0)
            paths = model.get_adjacency(lineage, weights="paths", replicate=replicate).to_numpy()
            np.testing.assert_array_equal(paths == 0, network == 0)
    assert model.get_sparsity()["feature"] == (model.get_adjacency() == 0).to_numpy().mean()


def test_a_zero_is_no_influence_on_the_velocity(model, cells):
    """Moving a regulator that has no edge to a target does not move its velocity."""
    network = model.get_adjacency(replicate=3).to_numpy()
    regulator = int(np.argmax((network == 0).sum(0)))
    moved = cells.copy()
    moved.X[:, regulator] += 1.0
    change = np.abs(model.get_velocity(moved, replicate=3) - model.get_velocity(cells, replicate=3)).max(0)
    still = (network[:, regulator] == 0) & (np.arange(8) != regulator)  # decay moves the gene itself
    assert still.any()
    np.testing.assert_array_equal(change[still], 0)


def test_trajectories_are_fitted(model, transport, cells):
    both, one = (m.evaluate(replicate=0).loc["total", ["mse", "null_mean"]] for m in (model, transport))
    assert both["mse"] < 0.7 * both["null_mean"]
    assert both["mse"] < one["mse"]
    assert model.module.n_fields == 2


def by_time(cells, lineage):
    """Rows of a lineage in the order of pseudotime, and these pseudotimes."""
    rows = np.flatnonzero(cells.obs["lineage"] == lineage)
    times = cells.obs["dpt_pseudotime"].to_numpy()[rows]
    return rows[np.argsort(times)], np.sort(times)


@pytest.mark.parametrize(("objective", "fields"), [("both", "lineage"), ("both", "shared"), ("trajectory", "lineage")])
def test_regulators_saturate_for_other_donors_only(cells, numpy_field, objective, fields):
    """Oracle: scipy, the field read at the nearest expression that its fitted trajectories have."""
    settings = SMALL | {"objective": objective}
    model = sn.SparseNODE(cells, CNODE(0.01), skip=False, n_seeds=2, fields=fields, **settings)
    model.train(**LONGER, key_added=None)
    shifted = cells.copy()
    shifted.X = shifted.X + 1.0
    found = model.predict(shifted, replicate=1)
    fitted = []
    for lineage in range(2):
        start, end = model.trajectories.iloc[lineage][["start", "end"]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the other lineage ends elsewhere
            fitted.append(model.predict(times=np.linspace(start, end, 101), replicate=1)[lineage])
    moved = 0.0
    for lineage, name in enumerate(model.lineages):
        rows, times = by_time(cells, name)
        own = fitted[lineage] if fields == "lineage" else np.concatenate(fitted)
        low, high = own.min(0), own.max(0)
        field, network = numpy_field(model, lineage, 1), model.module.n_fields + lineage % model.module.n_fields
        rate = model.module.field.decay[network, 0].detach().numpy() / float(model.module.time_unit)

        def saturated(x, field=field, rate=rate, low=low, high=high):
            held = np.clip(x, low, high)
            return field(held)[0] - rate * (x - held)

        begin = found[rows[0]]
        assert (begin > high).any()
        options = {"t_span": times[[0, -1]], "y0": begin, "t_eval": times, "rtol": 1e-8, "atol": 1e-8}
        expected, plain = (
            solve_ivp(lambda _, x, f=f: f(x), **options).y.T for f in (saturated, lambda x, f=field: f(x)[0])
        )
        np.testing.assert_allclose(found[rows], expected, atol=2e-3)
        moved = max(moved, np.abs(plain - expected).max())
        # Interventions may well lead beyond what was fitted.
        simulated = model.simulate(x0=begin, times=times - times[0], lineage=name, replicate=1).unperturbed[0]
        np.testing.assert_allclose(simulated, plain, atol=2e-3)
    assert moved > 0.05


def test_a_skip_after_the_integration_does_not_saturate(cells):
    """Its drift is no part of the field, and the states of the solver lack it."""
    model = sn.SparseNODE(cells, LassoNet(0.01, skip="outer"), **SMALL)
    model.train(**QUICK, schedule="sparse", key_added=None)
    shifted = cells.copy()
    shifted.X = shifted.X + 1.0
    found = model.predict(shifted)
    for name in model.lineages:
        rows, times = by_time(cells, name)
        simulated = model.simulate(x0=found[rows[0]], times=times - times[0], lineage=name).unperturbed[0]
        np.testing.assert_allclose(found[rows], simulated, atol=2e-3)


def test_saved_and_loaded(model, cells, tmp_path):
    model.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=cells)
    for replicate in range(4):
        pd.testing.assert_frame_equal(
            loaded.get_adjacency(replicate=replicate), model.get_adjacency(replicate=replicate)
        )
    np.testing.assert_array_equal(loaded.predict(), model.predict())
    assert set(loaded.network_history_) == set(model.network_history_)
    before = loaded.get_network(), loaded.predict()
    loaded.train(**QUICK, key_added=None)  # goes on with the trajectories
    pd.testing.assert_frame_equal(loaded.get_network(replicate=model.selected_), before[0])
    assert not np.array_equal(loaded.predict(replicate=model.selected_), before[1])


@pytest.mark.parametrize("again", [{}, {"objective": "trajectory"}, {"refit": True}], ids=str)
def test_training_further_holds_the_zeros(cells, again):
    model = sn.SparseNODE(cells, CNODE(0.3), **SMALL)
    model.train(**QUICK, key_added=None)
    zeros = model.get_adjacency(weights="paths").to_numpy() == 0
    network = model.get_network()
    model.train(**QUICK, key_added=None, **again)
    np.testing.assert_array_equal(model.get_adjacency(weights="paths").to_numpy() == 0, zeros)
    pd.testing.assert_frame_equal(model.get_network(), network)


@pytest.mark.parametrize(
    "regularizer",
    [
        "none",
        PathReg(1.0, gates="weight"),
        PathReg(1.0),
        L0(1.0),
        GroupLasso(0.3),
        LassoNet(1.0),
        LassoNet(1.0, skip="outer"),
    ],
    ids=repr,
)
def test_every_regularizer(cells, regularizer, tmp_path):
    model = sn.SparseNODE(cells, regularizer, **SMALL)
    is_path = isinstance(regularizer, LassoNet)
    train = {"schedule": IterativeSparsification(n_steps=2, epochs_per_step=2)} if is_path else {}
    model.train(**QUICK, **train)
    network = model.get_adjacency().to_numpy()
    paths = model.get_adjacency(weights="paths").to_numpy()
    assert (network[paths == 0] == 0).all()
    assert (model.sparsification_ is not None) == is_path
    for lineage in model.lineages:
        jacobian = model.get_jacobian([0, 1], lineage)
        assert (jacobian[:, paths == 0] == 0).all()
    before = model.predict()
    model.prune()
    np.testing.assert_allclose(model.predict(), before, atol=1e-3)
    assert "schiebinger2019optimal" in model.citation()


def test_steps_of_the_network_stay_when_trajectories_are_fitted_further(cells):
    model = sn.SparseNODE(cells, LassoNet(1.0), **SMALL)
    model.train(**QUICK, schedule=IterativeSparsification(n_steps=2, epochs_per_step=2), key_added=None)
    steps = model.sparsification_
    assert len(steps) == 3
    model.train(**QUICK, key_added=None)
    pd.testing.assert_frame_equal(model.sparsification_, steps)


def test_written_results(model, cells):
    adata = cells.copy()
    model.write_results(adata)
    keys = {lineage: f"sparsenode_adjacency_{lineage}" for lineage in model.lineages} | {None: "sparsenode_adjacency"}
    assert set(adata.varp) == {*keys.values(), "sparsenode_frequency"}
    for lineage, key in keys.items():
        np.testing.assert_allclose(adata.varp[key].toarray(), model.get_adjacency(lineage), rtol=1e-6)
    assert adata.uns["sparsenode"]["parameters"]["objective"] == "both"


def test_select_and_simulate(cells):
    model = sn.SparseNODE(cells, CNODE([0.01, 1.0]), **SMALL)
    model.train(**QUICK, key_added=None)
    assert len(model.get_regularization_path()) == 2
    chosen = model.select("sparsity", sparsity=0.0, key_added=None)
    assert chosen["strength"] == pytest.approx(0.01)
    assert np.isfinite(model.simulate(knockout="gene0").perturbed).all()
    row = model.evaluate(cells[::2].copy()).loc["total"]
    assert np.isfinite(row).all()


def test_regulators_and_prior(cells):
    prior = pd.DataFrame({"source": ["gene0"], "target": ["gene1"]})
    model = sn.SparseNODE(cells, CNODE(0.05), regulators=["gene0", "gene3"], prior=prior, **SMALL)
    model.train(**QUICK, key_added=None)
    assert set(model.get_network()["source"]) <= {"gene0", "gene3"}
    jacobian = model.get_jacobian([4])[0]
    assert (np.delete(jacobian, [0, 3], axis=1) == 0).all()


def test_arguments_of_training_reach_both_fits(cells):
    model = sn.SparseNODE(cells, CNODE([0.05]), n_seeds=2, **SMALL)
    model.train(**QUICK, half_samples=True, train_size=0.8, key_added=None)
    assert len(model.network_history_["train_loss"]) == len(model.history["train_loss"]) == 3
    assert len(model.train_indices) == 192


@pytest.mark.parametrize(
    "argument",
    [
        {"half_samples": True},
        {"plan_kwargs": {"lr": 0.001}},
        {"train_size": 0.6},
        {"train_size": 0.6, "shuffle_set_split": False},
        {"steps_per_epoch": 1},
    ],
    ids=str,
)
def test_arguments_of_training_reach_the_fit_of_the_network(trained_on, argument):
    """The network is that of a transport fit with them, and another one than without."""
    fits = []
    for objective, arguments in (("both", argument), ("transport", argument), ("transport", {})):
        model = sn.SparseNODE(trained_on, CNODE(0.2), n_seeds=2, **(SMALL | {"objective": objective}))
        model.train(**(QUICK | arguments), key_added=None)
        fits.append(model.get_adjacency(replicate=1))
    pd.testing.assert_frame_equal(fits[0], fits[1], rtol=1e-5)
    assert not np.allclose(fits[0], fits[2], rtol=1e-2)


def test_the_fit_of_the_network_writes_no_results(cells):
    sn.SparseNODE(cells, **SMALL).train(**QUICK, key_added="mine")
    assert "mine" in cells.uns
    assert "sparsenode" not in cells.uns


def test_both_fits_stop_early(cells):
    model = sn.SparseNODE(cells, **SMALL)
    stopping = {"early_stopping": True, "early_stopping_patience": 1, "early_stopping_min_delta": 1e6}
    model.train(**QUICK | {"max_epochs": 10}, **stopping, key_added=None)
    assert len(model.network_history_["train_loss"]) == len(model.history["train_loss"]) == 2


class Recorder(Callback):
    """Counts epochs, in the list that a logger would be."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, plan):
        self.epochs.append(plan.refit)


class CountingLogger(SimpleLogger):
    """Counts the epochs that are logged."""

    n_epochs = 0

    def log_metrics(self, metrics, step=None):
        super().log_metrics(metrics, step)
        self.n_epochs += "train_loss" in metrics


class Interrupt(Callback):
    """Breaks off the fit of the trajectories."""

    def on_train_epoch_end(self, trainer, plan):
        if plan.refit:
            raise RuntimeError("broken off")


def test_callbacks_do_not_carry_their_state_from_one_fit_to_the_other(cells):
    callbacks = [Recorder()]
    model = sn.SparseNODE(cells, **SMALL)
    model.train(**QUICK, callbacks=callbacks, early_stopping=True, key_added=None)
    assert callbacks[0].epochs == [True] * 3  # only those of the trajectories
    assert len(callbacks) == 1
    assert len(model.network_history_["train_loss"]) == len(model.history["train_loss"]) == 3


def test_a_logger_sees_one_fit(cells):
    logger = CountingLogger()
    model = sn.SparseNODE(cells, **SMALL)
    model.train(**QUICK, logger=logger, key_added=None)
    assert logger.n_epochs == 3
    assert len(model.network_history_["train_loss"]) == len(model.history["train_loss"]) == 3


def test_after_an_interruption_training_starts_anew(cells, same_state):
    """Neither the network nor the weights of the fit that was broken off are left."""
    model = sn.SparseNODE(cells, CNODE(0.3), **SMALL)
    with pytest.raises(RuntimeError, match="broken off"):
        model.train(**QUICK, callbacks=[Interrupt()], key_added=None)
    assert not model.is_trained_
    expected = sn.SparseNODE(cells, CNODE(0.3), **SMALL)
    for each in (model, expected):
        each.train(**QUICK, key_added=None)
    assert same_state(model, expected)
    pd.testing.assert_frame_equal(model.get_adjacency(), expected.get_adjacency())
    pd.testing.assert_frame_equal(model.get_adjacency(weights="paths") == 0, model.get_adjacency() == 0)


@pytest.mark.filterwarnings("ignore:Training diverged in epoch")
def test_where_the_network_diverges_nothing_is_kept(cells, same_state):
    model = sn.SparseNODE(cells, **SMALL)
    before = copy.deepcopy(model)
    with pytest.raises(sn.DivergenceError, match="Lower the learning rate") as raised:
        model.train(**QUICK, plan_kwargs={"lr": 1e30})
    assert "leaves the model as it was" in raised.value.__notes__[0]
    assert not model.is_trained_
    assert same_state(model, before)


def test_not_in_second_order(cells):
    with pytest.raises(ValueError, match="`order=2`, found 'both'"):
        sn.SparseNODE(cells, order=2, objective="both")


def test_nothing_is_trained_where_settings_are_wrong(cells):
    model = sn.SparseNODE(cells, **SMALL)
    with pytest.raises(ValueError, match="`max_epochs`"):
        model.train(max_epochs=0)
    assert model.network_ is None
    assert not model.is_trained_


def test_a_run_without_history(cells):
    """Lightning's dry run keeps no history."""
    model = sn.SparseNODE(cells, **SMALL)
    model.train(fast_dev_run=True, accelerator="cpu", enable_progress_bar=False, key_added=None)
    assert model.is_trained_
    assert model.network_history_ == {}


def test_backed(cells, tmp_path):
    memory = sn.SparseNODE(cells, **SMALL)
    memory.train(**QUICK, key_added=None)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    model = sn.SparseNODE(adata, **SMALL)
    model.train(**QUICK, key_added=None)
    np.testing.assert_allclose(model.get_adjacency(), memory.get_adjacency(), rtol=1e-5, atol=1e-6)
