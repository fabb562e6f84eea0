"""Interventions: against scipy on the same field with held genes, and against systems never seen under intervention."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from scipy.integrate import solve_ivp

import sparsenode as sn

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*leave the range of the training data.*"),
    pytest.mark.filterwarnings("ignore:.*go on after their last cell.*"),
]


def oscillations(*phases: float) -> AnnData:
    """Two coordinates at 30 times in each trial."""
    times, n = np.linspace(0, 2, 30), len(phases)
    states = np.stack([np.column_stack([np.cos(3 * times + p), np.sin(2 * times + p)]) for p in phases])
    obs = pd.DataFrame({"time": np.tile(times, n), "trial": pd.Categorical(np.repeat(list("abc")[:n], 30))})
    obs.index = obs.index.astype(str)
    return AnnData(states.reshape(-1, 2), obs, pd.DataFrame(index=["p", "q"]))


@pytest.fixture(scope="module")
def second_order() -> sn.SparseNODE:
    """In order two, with damping and an inner skip."""
    adata = oscillations(0.0, 0.7)
    sn.SparseNODE.setup_anndata(adata, time_key="time", batch_key="trial")
    model = sn.SparseNODE(adata, "none", order=2, hidden=(6,), n_knots=9, skip=True)
    model.train(max_epochs=10, accelerator="cpu", enable_progress_bar=False)
    return model


def test_without_an_intervention_it_is_the_fitted_trajectory(fitted):
    simulation = fitted.simulate()
    assert simulation.perturbed.shape == simulation.unperturbed.shape == (2, 101, 8)
    np.testing.assert_array_equal(simulation.perturbed, simulation.unperturbed)
    assert (simulation.effects[["final", "mean", "peak"]] == 0).all(None)
    assert len(simulation.held) == 0
    for m, (_, row) in enumerate(fitted.trajectories.iterrows()):
        times = np.linspace(0, row["end"] - row["start"], 5)
        simulation = fitted.simulate(times=times)
        np.testing.assert_allclose(simulation.unperturbed[m], fitted.predict(times=row["start"] + times)[m], atol=1e-3)


def test_a_gene_without_targets_is_said_to_have_no_effect(adata, fit):
    model = fit(adata, regulators=["gene0", "gene1"])
    with pytest.warns(
        UserWarning, match=r"No open path leads from \['gene5'\].* all effects are zero in this fit, by construction"
    ):
        found = model.simulate(knockout="gene5")
    assert (found.effects.query("not held")["peak"].abs() < 1e-6).all()
    with pytest.warns(
        UserWarning, match=r"Of the held genes, no open path leads from \['gene5'\].* they have no effect"
    ):
        model.simulate(knockout=["gene5", "gene0"])
    with warnings.catch_warnings(record=True) as caught:
        model.simulate(knockout="gene0")
    assert not any("open path" in str(warning.message) for warning in caught)


def test_text_of_a_simulation(fitted):
    text = repr(fitted.simulate(knockout="gene1", clamp={"gene2": 0.25}))
    assert text == "Simulation of 2 starts × 101 times × 8 genes that holds gene1 at 0, gene2 at 0.25"
    assert repr(fitted.simulate()).endswith("that holds nothing")


def test_starts_that_are_not_finite_are_named(fitted):
    x0 = np.ones((2, 8))
    x0[1, [2, 5]] = np.nan
    with pytest.raises(ValueError, match=r"finite, found 2 NaN or infinite values, of \['gene2', 'gene5'\]"):
        fitted.simulate(x0, lineage=fitted.lineages[0])


def test_times_need_not_begin_at_the_start(fitted):
    later, whole = fitted.simulate(times=[0.5, 1.0]), fitted.simulate(times=[0.0, 0.5, 1.0])
    np.testing.assert_allclose(later.perturbed, whole.perturbed[:, 1:], atol=1e-4)


def test_every_batch_runs_on_its_own_clock(make_adata, fit):
    """A lineage takes the same time of the module in both, though one counts it in a unit that is smaller."""
    adata = make_adata(n_obs=160, n_donors=2, seed=1)
    other = adata.obs["donor"] == "donor1"
    adata.obs.loc[other, "dpt_pseudotime"] = 0.5 + 1.4 * (adata.obs.loc[other, "dpt_pseudotime"] - 0.5)
    model = fit(adata, {"lineage_key": "lineage", "batch_key": "donor"}, align_batches=True)
    times = np.array([0.0, 0.5, 1.0])
    found = model.simulate(times=times).unperturbed
    for m, start in enumerate(model.trajectories["start"]):
        np.testing.assert_allclose(found[m], model.predict(times=start + times)[m], atol=1e-3)
    rows = (model.trajectories["lineage"] == "myeloid").to_numpy()
    np.testing.assert_allclose(model.simulate(times=times, lineage="myeloid").unperturbed, found[rows], atol=1e-5)


@pytest.mark.parametrize("solver", ["euler", "rk4"])
def test_with_fixed_steps_the_times_do_not_matter(adata, fit, solver):
    """Whichever are asked for, in any distance, and the same as those of predictions of the longest trajectory."""
    model = fit(adata, solver=solver, train={"max_epochs": 10})
    longest = int(np.argmax(model.trajectories["end"] - model.trajectories["start"]))
    start, end = model.trajectories.iloc[longest][["start", "end"]]
    arguments = {"clamp": {"gene2": 0.9}}
    times = np.array([0.013, 0.2, 0.7001, 1.0, end - start])
    found = model.simulate(times=times, **arguments)
    alone = [model.simulate(times=[time], **arguments).perturbed[:, 0] for time in times]
    np.testing.assert_allclose(found.perturbed, np.stack(alone, 1), atol=1e-5)
    default = model.simulate(**arguments).perturbed[longest, -1]
    np.testing.assert_allclose(found.perturbed[longest, -1], default, atol=1e-5)
    assert found.perturbed[..., 2] == pytest.approx(0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the other lineage ends earlier
        expected = model.predict(times=start + times)[longest]
    np.testing.assert_allclose(found.unperturbed[longest], expected, atol=1e-5)


@pytest.mark.parametrize("lineage", [0, 1])
def test_held_genes_against_scipy(fitted, numpy_field, lineage):
    field, name = numpy_field(fitted, lineage), fitted.lineages[lineage]
    start = fitted.simulate(times=[0.0, 1.0], lineage=name).unperturbed[0, 0]
    held = {"gene1": 0.0, "gene2": 0.9, "gene4": 2.0 * fitted.predict()[:, 4].max()}
    free = np.array([gene not in held for gene in fitted.genes])
    begin = np.where(free, start, [held.get(gene, 0.0) for gene in fitted.genes])
    times = np.linspace(0, 1.5, 7)
    solution = solve_ivp(lambda _, x: free * field(x)[0], (0, 1.5), begin, t_eval=times, rtol=1e-8, atol=1e-8)
    found = fitted.simulate(
        times=times, knockout="gene1", clamp={"gene2": 0.9}, overexpress={"gene4": 2.0}, lineage=name
    )
    np.testing.assert_allclose(found.perturbed[0], solution.y.T, atol=2e-3)
    pd.testing.assert_series_equal(
        found.held, pd.Series(held, name="held"), rtol=1e-3, check_index=True, check_like=True
    )
    assert np.ptp(found.perturbed[0][:, ~free], axis=0).max() < 1e-6
    # The same from given starts, two at once, and with columns in another order
    starts = pd.DataFrame([start, start + 0.1], index=["one", "two"], columns=fitted.genes)[fitted.genes[::-1]]
    given = fitted.simulate(starts, times, knockout="gene1", clamp={"gene2": 0.9, "gene4": held["gene4"]}, lineage=name)
    np.testing.assert_allclose(given.perturbed[0], found.perturbed[0], atol=2e-3)
    assert given.effects["start"].unique().tolist() == ["one", "two"]


def test_effects_are_differences(fitted):
    found = fitted.simulate(clamp={"gene0": 3.0}, times=np.linspace(0.0, 1.4, 30))
    difference = found.perturbed - found.unperturbed
    table = found.effects
    assert list(table.columns) == ["start", "gene", "held", "final", "mean", "peak"]
    assert table["start"].tolist() == [name for name in fitted.trajectories.index for _ in range(8)]
    assert table["gene"].tolist() == [*fitted.genes, *fitted.genes]
    np.testing.assert_array_equal(table["final"].to_numpy().reshape(2, 8), difference[:, -1])
    np.testing.assert_array_equal(np.abs(table["peak"]).to_numpy().reshape(2, 8), np.abs(difference).max(1))
    expected = [np.trapezoid(one, np.linspace(0.0, 1.4, 30), axis=0) / 1.4 for one in difference]
    np.testing.assert_allclose(table["mean"].to_numpy().reshape(2, 8), expected)
    assert table.loc[table["held"], "gene"].unique().tolist() == ["gene0"]
    at_once = fitted.simulate(clamp={"gene0": 3.0}, times=[1.0]).effects
    np.testing.assert_array_equal(at_once["mean"], at_once["final"])
    assert (at_once["mean"] != 0).any()


def test_genes_are_overexpressed_at_the_highest_value_of_the_replicate(adata, fit):
    """Under the stronger of two penalties they hardly rise."""
    model = fit(adata, regularizer=sn.regularizers.CNODE([0.0, 100.0]), train={"max_epochs": 20})
    values = []
    for replicate in (0, 1):
        highest = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # one trajectory ends earlier
            for m, row in enumerate(model.trajectories.itertuples()):
                times = np.linspace(row.start, row.end, 101)
                highest.append(model.predict(times=times, replicate=replicate)[m].max(0))
        found = model.simulate(overexpress=list(model.genes), replicate=replicate, times=[0.0, 0.1]).held
        np.testing.assert_allclose(found[model.genes], np.max(highest, 0), rtol=1e-3)
        values.append(found)
    assert not np.allclose(*values, rtol=0.01)


def test_a_gene_without_edges_has_no_effect(adata, fit):
    model = fit(adata, regulators=["gene0", "gene1"])
    found = model.simulate(clamp={"gene5": 2.0}).effects
    assert (found.loc[found["gene"] != "gene5", ["final", "mean", "peak"]].abs() < 1e-6).all(None)
    assert (model.simulate(clamp={"gene0": 2.0}).effects.loc[lambda t: ~t["held"], "peak"].abs() > 1e-4).any()


def test_what_no_path_reaches_stays_as_it_is(adata, fit):
    model = fit(adata, regularizer=sn.regularizers.CNODE(1.0), fields="shared", skip=True, train={"max_epochs": 60})
    arrows = model.get_adjacency(weights="paths").to_numpy() != 0
    reached = np.linalg.matrix_power((arrows | np.eye(len(arrows), dtype=bool)).astype(int), len(arrows)) > 0
    assert 0.2 < reached.mean() < 0.9
    for j, gene in enumerate(model.genes):
        effects = model.simulate(clamp={gene: 2.0}).effects
        peaks = effects["peak"].to_numpy().reshape(-1, len(arrows))
        assert np.abs(peaks[:, ~reached[:, j]]).max(initial=0.0) < 1e-6  # rounding, and not the tolerance of the solver
        assert (np.abs(peaks[:, reached[:, j]]).max(1) > 1e-2).all()


def test_second_order_against_scipy(second_order):
    model, module = second_order, second_order.module
    effective = module.field.effective_weights()
    first, last, skip = (w[0].detach().double().numpy() for w in effective.weights)
    b1, b2 = (b[0].detach().double().numpy() for b in effective.biases)
    decay = effective.decay[0].detach().double().numpy()
    scale, clock = float(module.scale[0]), float(module.rate[0]) / float(module.time_unit)
    centre = module.centre.double().numpy()

    def rhs(_, s):
        z = np.concatenate([s[:2] - centre, s[2:] / clock]) / scale
        h = z @ first.T + b1
        h = np.where(h > 0, h, np.expm1(np.minimum(h, 0)))
        slope = scale * clock**2 * ((h @ last.T + b2)[0] + skip @ z - (decay * z[2:])[0])
        return np.array([s[2], 0.0, slope[0], 0.0])  # q is held

    times, v0 = np.linspace(0, 1.5, 6), np.array([[0.3, -4.0]])
    solution = solve_ivp(rhs, (0, 1.5), [0.5, 0.8, 0.3, 0.0], t_eval=times, rtol=1e-9, atol=1e-9)
    found = model.simulate(np.array([0.5, -0.1]), times, clamp={"q": 0.8}, v0=v0)
    np.testing.assert_allclose(found.perturbed[0], solution.y[:2].T, atol=2e-3)
    named = model.simulate(
        pd.Series([-0.1, 0.5], ["q", "p"]), times, clamp={"q": 0.8}, v0=pd.Series([-4.0, 0.3], ["q", "p"])
    )
    np.testing.assert_array_equal(named.perturbed, found.perturbed)
    # Without v0 it is that of the network, which the intervention does not change.
    default = model.simulate(times=[0.0, 1e-3], clamp={"q": 0.8})
    slopes = np.diff(default.perturbed - default.unperturbed, axis=1)[:, 0, 0]
    np.testing.assert_allclose(slopes, 0.0, atol=1e-4)
    with pytest.raises(ValueError, match="v0"):
        model.simulate(np.array([0.5, -0.1]), v0=[1.0])
    with pytest.raises(ValueError, match="`v0` to be finite"):
        model.simulate(np.array([0.5, -0.1]), v0=[1.0, np.nan])


def test_trajectories_of_a_lineage_start_with_their_own_velocities():
    """Those of the second lineage, which are not the first in the table."""
    adata = oscillations(0.0, 0.7, 1.4)
    adata.obs["kind"] = pd.Categorical(np.repeat(["one", "other", "other"], 30))
    sn.SparseNODE.setup_anndata(adata, time_key="time", lineage_key="kind", batch_key="trial")
    options = {"skip": True, "initial_velocity": "observed", "fields": "shared"}
    model = sn.SparseNODE(adata, "none", order=2, hidden=(6,), n_knots=9, **options)
    model.train(max_epochs=5, accelerator="cpu", enable_progress_bar=False)
    times = np.linspace(0, 2, 11)
    found = model.simulate(lineage="other", times=times).unperturbed
    np.testing.assert_allclose(found, model.predict(times=times)[1:], atol=2e-3)


@pytest.mark.parametrize("kind", ["linear", "hill"])
def test_effects_on_systems_never_seen_under_intervention(kind):
    """Correlated with the truth, and closer to it than no effect."""
    make = {"linear": sn.datasets.random_linear_system, "hill": sn.datasets.random_hill_system}[kind]
    system = make(n_genes=4, density=0.3, seed=3)
    adata = system.simulate(n_trials=16, n_times=20, seed=0)
    sn.SparseNODE.setup_anndata(adata, time_key="time", batch_key="trial")
    model = sn.SparseNODE(
        adata,
        sn.regularizers.CNODE(0.001),
        objective="trajectory",
        hidden=(16,),
        skip=True,
        decay=False,
        initial_state="learned",
        align_batches=False,
    )
    quick = {"max_epochs": 30, "accelerator": "cpu", "enable_progress_bar": False, "plan_kwargs": {"lr": 0.03}}
    model.train(**quick, key_added=None)
    times = np.linspace(0, system.t_end, 20)
    true, found = [], []
    natural = system.simulate(n_trials=3, n_times=20, seed=9)
    starts = natural.X[::20]
    for gene in system.genes:
        value = float(np.quantile(adata[:, gene].X, 0.9))
        changed = system.simulate(n_trials=3, n_times=20, seed=9, clamp={gene: value})
        others = [g != gene for g in system.genes]
        true.append((changed.X - natural.X).reshape(3, 20, -1)[..., others])
        run = model.simulate(starts, times, clamp={gene: value})
        found.append((run.perturbed - run.unperturbed)[..., others])
    true, found = np.concatenate(true).ravel(), np.concatenate(found).ravel()
    assert np.abs(true).max() > 0.3
    assert np.corrcoef(true, found)[0, 1] > 0.8
    assert np.square(true - found).sum() < 0.5 * np.square(true).sum()


def test_effects_on_a_second_order_system_never_seen_under_intervention():
    """The truth is the same system without an equation for the held position, whose velocity is then zero."""
    system = sn.datasets.second_order_system()
    adata = system.simulate(n_trials=16, n_times=20, seed=0)
    sn.SparseNODE.setup_anndata(adata, time_key="time", batch_key="trial")
    options = {"order": 2, "hidden": (16,), "skip": True, "initial_velocity": "observed"}
    model = sn.SparseNODE(adata, sn.regularizers.CNODE(0.001), **options)
    quick = {"max_epochs": 15, "accelerator": "cpu", "enable_progress_bar": False, "plan_kwargs": {"lr": 0.03}}
    model.train(**quick, key_added=None)
    times = np.linspace(0, system.t_end, 20)
    natural = system.simulate(n_trials=3, n_times=20, seed=9)
    starts, speeds = natural.X[::20], natural.layers["velocity"][::20]
    true, found = [], []
    for i, gene in enumerate(system.genes):
        others = np.arange(len(system.genes)) != i
        position, velocity = (table.mul(others, axis=0) for table in (system.position, system.velocity))
        value = float(np.quantile(adata[:, gene].X, 0.9))
        held = replace(system, position=position, velocity=velocity)
        run = model.simulate(starts, times, clamp={gene: value}, v0=speeds)
        for k, (start, speed) in enumerate(zip(starts, speeds, strict=True)):
            changed, _ = held.solve(np.where(others, start, value), times, speed * others)
            true.append((changed - system.solve(start, times, speed)[0])[:, others])
            found.append((run.perturbed - run.unperturbed)[k][:, others])
    true, found = np.ravel(true), np.ravel(found)
    assert np.abs(true).max() > 0.3
    assert np.corrcoef(true, found)[0, 1] > 0.99
    assert np.square(true - found).sum() < 0.02 * np.square(true).sum()


def test_a_state_out_of_the_range_of_the_data_is_reported(fitted):
    with pytest.warns(UserWarning, match=r"\d of 8 genes leave the range of the training data: .*'gene3'"):
        fitted.simulate(clamp={"gene3": 50.0}, times=[0.0, 0.2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.simulate(clamp={"gene3": 0.5 * fitted.data_range_[:, 3].sum()}, times=[0.0, 0.01])
        low, high = fitted.data_range_[:, 3]
        fitted.simulate(clamp={"gene3": high + 0.04 * (high - low)}, times=[0.0, 0.01])


def test_a_knockout_of_standardised_genes_is_reported(adata, fit):
    plain = fit(adata.copy())
    adata.X = (adata.X - adata.X.mean(0)) / adata.X.std(0)
    adata.X[:, 2] += 10.0  # of several genes those are named that go below zero
    model = fit(adata)
    low = float(f"{model.data_range_[0, 1]:.4g}")
    assert low < 0
    with pytest.warns(
        UserWarning, match=f"A knock-out holds a gene at 0.*{{'gene1': {low}}}.*mean. Use `clamp="
    ) as caught:
        model.simulate(knockout=["gene1", "gene2"], times=[0.0, 0.1])
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="A knock-out")
        model.simulate(clamp={"gene1": low}, times=[0.0, 0.1])
        plain.simulate(knockout="gene1", times=[0.0, 0.1])


def test_a_knockout_is_not_reported_where_noise_alone_goes_below_zero(adata, fit):
    adata.X -= adata.X.min(0) + 0.001 * np.ptp(adata.X, axis=0)
    model = fit(adata)
    assert model.data_range_[0, 1] < 0
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="A knock-out")
        model.simulate(knockout="gene1", times=[0.0, 0.1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"knockout": "SOX"}, KeyError, "genes of the model"),
        ({"knockout": "gene1", "clamp": {"gene1": 1.0}}, ValueError, "once"),
        ({"overexpress": ["gene1", "gene1"]}, ValueError, "once.*found .'gene1'. more than once"),
        ({"clamp": {"gene1": np.nan}}, ValueError, "finite"),
        ({"overexpress": {"gene1": -1.0}}, ValueError, "fold"),
        ({"x0": np.zeros(8)}, ValueError, "lineage"),
        ({"x0": np.zeros(3), "lineage": "myeloid"}, ValueError, "shape"),
        ({"x0": np.full(8, np.nan), "lineage": "myeloid"}, ValueError, "finite"),
        ({"x0": pd.DataFrame([[1.0]], columns=["gene0"]), "lineage": "myeloid"}, ValueError, "missing"),
        ({"lineage": "other"}, ValueError, "lineage"),
        ({"times": [1.0, 0.5]}, ValueError, r"increasing.*found \[1.0, 0.5\]"),
        ({"times": [0.0, 0.5, 0.5]}, ValueError, "increasing"),
        ({"times": [-1.0, 0.5]}, ValueError, "from 0"),
        ({"times": [0.0]}, ValueError, "above 0"),
        ({"v0": np.zeros((2, 8))}, ValueError, "first order"),
        ({"knockout": None}, TypeError, "`knockout` to be a gene or a sequence of genes"),
        ({"knockout": 0}, TypeError, "found 0"),
        ({"knockout": {"gene1": 0.5}}, TypeError, "held at 0, found {'gene1': 0.5}.*`overexpress`, below 1.*`clamp`"),
        ({"knockout": ["gene1", 2]}, TypeError, "`knockout`"),
        ({"overexpress": (name for name in ["gene1"])}, TypeError, "`overexpress`"),
        ({"overexpress": {"gene1": "2"}}, TypeError, "numbers as values of `overexpress`"),
        ({"clamp": {"gene1": "a"}}, TypeError, "numbers as values of `clamp`, found {'gene1': 'a'}"),
        ({"clamp": {"gene1": True}}, TypeError, "numbers as values of `clamp`, found {'gene1': True}"),
        ({"clamp": ["gene1"]}, TypeError, "`clamp` to map genes to numbers"),
        ({"x0": sparse.csr_matrix(np.zeros((2, 8))), "lineage": "myeloid"}, TypeError, "dense.*found csr_matrix"),
        ({"x0": AnnData(np.zeros((2, 8))), "lineage": "myeloid"}, TypeError, "found AnnData.*to_df"),
        ({"x0": [["a"] * 8], "lineage": "myeloid"}, TypeError, "`x0` to hold numbers"),
        ({"x0": np.full((1, 8), 1j), "lineage": "myeloid"}, TypeError, "real numbers in `x0`, found dtype complex128"),
        (
            {"x0": np.ma.masked_all((1, 8)), "lineage": "myeloid"},
            ValueError,
            "`x0` without masked values, found 8 of 8",
        ),
    ],
)
def test_what_is_refused(fitted, arguments, error, message):
    with pytest.raises(error, match=message):
        fitted.simulate(**arguments)


def test_starts_that_are_given_stay_as_they_are(fitted):
    starts = fitted.adata.X[:2].astype(np.float64)
    before = starts.copy()
    found = fitted.simulate(starts, [0.0, 0.1], knockout="gene1", lineage="myeloid")
    np.testing.assert_array_equal(starts, before)
    np.testing.assert_allclose(found.unperturbed[:, 0], before, atol=1e-6)


def test_times_from_the_start_on_with_other_adaptive_solvers(adata, fit):
    model = fit(adata, solver="bosh3")
    start, times = model.trajectories["start"].iloc[0], np.array([0.0, 0.4, 1.2])
    np.testing.assert_allclose(
        model.simulate(times=times).unperturbed[0], model.predict(times=start + times)[0], atol=2e-3
    )


@pytest.mark.parametrize("solver", ["dopri5", "dopri8"])
def test_times_that_are_one_in_single_precision(adata, fit, solver):
    model = fit(adata, solver=solver)
    found = model.simulate(times=[0.0, 0.5, 0.5 + 1e-9, 1.0], knockout="gene1")
    apart = model.simulate(times=[0.0, 0.5, 1.0], knockout="gene1")
    np.testing.assert_allclose(found.perturbed, apart.perturbed[:, [0, 1, 1, 2]], atol=1e-5)


def test_starts_are_named_once(fitted):
    starts = fitted.adata[:3].to_df().set_axis(["a", "a", "b"])
    with pytest.raises(ValueError, match=r"unique names of starts.*found \['a'\]"):
        fitted.simulate(starts, lineage="myeloid")
    effects = fitted.simulate(starts.reset_index(drop=True), lineage="myeloid").effects
    assert list(effects["start"].unique()) == ["0", "1", "2"]


def test_a_series_is_one_start_matched_by_name(fitted):
    cell = fitted.adata.to_df().iloc[3]
    expected = fitted.simulate(cell.to_frame().T, lineage="myeloid", times=[0.0, 0.5])
    found = fitted.simulate(cell.sample(frac=1, random_state=0), lineage="myeloid", times=[0.0, 0.5])
    np.testing.assert_array_equal(found.unperturbed, expected.unperturbed)
    assert set(found.effects["start"]) == {"cell3"}
    unnamed = fitted.simulate(cell.rename(None), lineage="myeloid", times=[0.0, 0.5])
    np.testing.assert_array_equal(unnamed.unperturbed, expected.unperturbed)


def test_given_starts_run_to_the_end_of_their_lineage(make_adata, fit):
    """Where batches of unlike units were aligned, a lineage has one length, in which the clock of given starts counts."""
    adata = make_adata(n_obs=160, n_donors=2)
    later = adata.obs["donor"] == "donor1"
    adata.obs.loc[later, "dpt_pseudotime"] *= 1.4
    model = fit(adata, {"lineage_key": "lineage", "batch_key": "donor"}, align_batches=True)
    row = list(model.trajectories.index).index("myeloid, donor1")
    start = model._integrate(None).initial_state[row]
    end = model.predict(times=[model.trajectories["end"].iloc[row]])[row, 0]
    found = model.simulate(start, lineage="myeloid")
    np.testing.assert_allclose(found.unperturbed[0, -1], end, atol=1e-3)
    for share in (0.5, 0.08):
        message = rf"beyond the longest trajectory, which ends at .* by {share:.0%} of its length"
        with pytest.warns(UserWarning, match=message):
            model.simulate(start, lineage="myeloid", times=[(1.0 + share) * found.times[0, -1]])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The times go on beyond")
        model.simulate(start, lineage="myeloid", times=[1.04 * found.times[0, -1]])


def test_given_starts_in_a_shared_field_run_as_long_as_the_longest_lineage(fitted_donors):
    lengths = (fitted_donors.trajectories["end"] - fitted_donors.trajectories["start"]).to_numpy()
    means = [
        lengths[(fitted_donors.trajectories["lineage"] == name).to_numpy()].mean() for name in ("erythroid", "myeloid")
    ]
    found = fitted_donors.simulate(fitted_donors.adata.X[:1])
    assert found.times[0, -1] == pytest.approx(max(means), rel=0.01)
    assert max(means) > 1.2 * min(means)


def test_trajectories_that_go_on_after_their_last_cell_are_named(fitted):
    lengths = fitted.trajectories["end"] - fitted.trajectories["start"]
    short, excess = lengths.idxmin(), lengths.max() / lengths.min() - 1.0
    with pytest.warns(
        UserWarning, match=rf"1 of 2 trajectories go on .*'{short}': '{excess:.0%}'.* up to {lengths.min():.4g}"
    ):
        fitted.simulate(times=[0.5, lengths.max()])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*go on after")
        fitted.simulate(times=[0.0, 1.04 * lengths.min()])
        fitted.simulate()


def test_every_run_ends_at_the_last_cell_of_its_trajectory(fitted):
    """By default, with as many times for all; what is simulated at once is the same one by one, and at given times."""
    lengths = fitted.trajectories["end"] - fitted.trajectories["start"]
    assert lengths.max() > 1.2 * lengths.min()
    held = {"clamp": {"gene2": 0.9}}
    found = fitted.simulate(**held)
    np.testing.assert_allclose(found.times, np.outer(lengths, np.linspace(0, 1, 101)))
    effects = found.effects.set_index("start")[["final", "mean", "peak"]]
    for m, (name, row) in enumerate(fitted.trajectories.iterrows()):
        alone = fitted.simulate(lineage=row["lineage"], **held)
        np.testing.assert_allclose(alone.times[0], found.times[m])
        np.testing.assert_allclose(alone.perturbed[0], found.perturbed[m], atol=1e-3)
        given = fitted.simulate(lineage=row["lineage"], times=found.times[m], **held)
        np.testing.assert_allclose(given.perturbed[0], found.perturbed[m], atol=1e-3)
        np.testing.assert_allclose(effects.loc[name], given.effects[["final", "mean", "peak"]], atol=1e-3)
        predicted = fitted.predict(times=[row["end"]])[m, 0]
        np.testing.assert_allclose(found.unperturbed[m, -1], predicted, atol=1e-3)


def test_a_gene_twice_among_the_starts(fitted):
    start = pd.DataFrame(fitted.predict()[:2], columns=fitted.genes)
    lineage = fitted.lineages[0]
    with pytest.raises(ValueError, match=r"every gene once in `x0`, found \['gene0'\] more than once"):
        fitted.simulate(x0=pd.concat([start, start[["gene0"]]], axis=1), lineage=lineage)
    with pytest.raises(TypeError, match="`times` to be numbers, found 'abc'"):
        fitted.simulate(times="abc")


@pytest.mark.parametrize("velocities", ["network", "observed"])
def test_a_replicate_starts_with_velocities_of_its_own(velocities):
    """Whichever is selected: as in its predictions."""
    adata = oscillations(0.0, 0.7, 1.4)
    sn.SparseNODE.setup_anndata(adata, time_key="time", batch_key="trial")
    model = sn.SparseNODE(
        adata, "none", objective="trajectory", order=2, hidden=(6,), n_knots=9, n_seeds=2, initial_velocity=velocities
    )
    model.train(max_epochs=15, accelerator="cpu", enable_progress_bar=False, key_added=None)
    times = np.linspace(0, 2, 11)
    predictions = [model.predict(times=times, replicate=replicate) for replicate in (0, 1)]
    slopes = [(p[:, 1] - p[:, 0]) / 0.2 for p in predictions]
    assert np.abs(slopes[0] - slopes[1]).max() > 0.02
    for replicate, expected in enumerate(predictions):
        found = model.simulate(times=times, replicate=replicate).unperturbed
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_fixed_steps_are_a_hundredth_of_the_trajectory_whose_clock_is_fastest(make_adata, fit):
    """Of aligned batches: there the steps are those of its predictions, to the last digits, and elsewhere they are smaller."""
    adata = make_adata(n_lineages=1, n_donors=2)
    adata.obs.loc[adata.obs["donor"] == "donor1", "dpt_pseudotime"] *= 2.5
    setup = {"lineage_key": "lineage", "batch_key": "donor"}
    model = fit(adata, setup, {"max_epochs": 20}, solver="euler")
    start, end = model.trajectories[["start", "end"]].to_numpy(float).T
    assert (end - start).argmin() == 0
    times = np.linspace(0.0, (end - start)[0], 101)
    found = model.simulate(times=times).unperturbed[0]
    np.testing.assert_allclose(found, model.predict(times=start[0] + times)[0], atol=1e-5)
