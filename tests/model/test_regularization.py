"""Tables of strengths, the choice among them, smaller networks, and whose methods a model stands on."""

from __future__ import annotations

import re
import warnings
from importlib.resources import files

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import sparsenode as sn
from sparsenode.model._regularization import _warn_at_an_end, bibliography
from sparsenode.regularizers import CNODE, GroupLasso, LassoNet, PathReg
from sparsenode.training import IterativeSparsification


@pytest.fixture(scope="module")
def model(make_adata, fit) -> sn.SparseNODE:
    """Three strengths × two seeds. Not to be changed."""
    regularizer = CNODE([0.01, 0.3, 1.5])
    return fit(make_adata(), regularizer=regularizer, n_seeds=2, seed=3, n_knots=17, train={"max_epochs": 8})


@pytest.fixture
def choose(model, monkeypatch):
    """Select from a table made by hand: three strengths × two seeds; the model is put back."""

    def run(errors, se, **arguments) -> int:
        columns = {"strength": np.repeat([0.1, 1.0, 10.0], 2), "validation_error": errors, "difference_se": se}
        columns |= {"feature_sparsity": [0.1, 0.2, 0.5, 0.7, 0.9, 1.0], "train_error": [3, 2, 5, 6, 9, 8]}
        monkeypatch.setattr(model, "regularization_path_", pd.DataFrame(columns))
        monkeypatch.setattr(model, "selected_", 0)
        row = model.select(**{"key_added": None} | arguments)
        assert row["selected"]
        assert row.name == model.selected_
        return model.selected_

    return run


# Table


def test_a_row_per_replicate(model):
    table = model.get_regularization_path()
    errors = ["train_error", "validation_error", "validation_se", "difference_se"]
    shares = [f"{kind}_sparsity" for kind in ("feature", "weight", "spurious")]
    assert list(table.columns) == ["strength", "seed", *errors, *shares, "selected"]
    assert (table.index.name, list(table.index)) == ("replicate", list(range(6)))
    assert table["strength"].tolist() == [0.01, 0.01, 0.3, 0.3, 1.5, 1.5]
    assert table["seed"].tolist() == [3, 4] * 3
    for replicate, row in table.iterrows():
        expected = model.get_sparsity(replicate=replicate)
        assert row["feature_sparsity"] == pytest.approx(expected["feature"])
        assert row["weight_sparsity"] == pytest.approx(expected["weight"])
    assert table["feature_sparsity"].iloc[-1] > table["feature_sparsity"].iloc[0]
    assert table["spurious_sparsity"].isna().all()
    assert table.index[table["selected"]].tolist() == [model.selected_] == [table["validation_error"].idxmin()]


def test_errors_are_those_of_the_predictions(model):
    """Shares of the squares around the mean of the training cells of each lineage."""
    x, training = model.adata.X.astype(float), model.train_indices
    lineages = model.adata.obs["lineage"].to_numpy()
    mean = np.empty_like(x)
    for lineage in model.lineages:
        mean[lineages == lineage] = x[training[lineages[training] == lineage]].mean(0)
    for replicate, row in model.get_regularization_path().iterrows():
        items = np.square(x - model.predict(replicate=replicate)).sum(1)
        for name, cells in (("train", training), ("validation", model.validation_indices)):
            expected = items[cells].sum() / np.square(x - mean)[cells].sum()
            assert row[f"{name}_error"] == pytest.approx(expected, rel=5e-3), (replicate, name)
        held_out = items[model.validation_indices]
        spread = held_out.std(ddof=1) / np.sqrt(len(held_out)) / held_out.mean()
        assert row["validation_se"] == pytest.approx(row["validation_error"] * spread, rel=1e-4)


def test_differences_are_taken_cell_by_cell(model):
    x = model.adata.X[model.validation_indices].astype(float)
    table = model.get_regularization_path()
    items = []
    for replicate, row in table.iterrows():
        squares = np.square(x - model.predict(replicate=replicate)[model.validation_indices]).sum(1)
        items.append(squares * row["validation_error"] / squares.mean())
    mean = np.reshape(items, (3, 2, -1)).mean(1)
    difference = mean - mean[mean.mean(1).argmin()]
    expected = difference.std(1, ddof=1) / np.sqrt(difference.shape[1])
    np.testing.assert_allclose(table["difference_se"], np.repeat(expected, 2), rtol=1e-4, atol=1e-12)
    assert (table["difference_se"] < table["validation_se"]).any()


def test_standard_errors_of_trajectories_after_transport_are_in_units_of_each_gene(make_adata, fit):
    """One gene varies a hundred times as much as the others, and counts no more."""
    adata = make_adata(n_obs=400, n_lineages=1)
    adata.X[:, 0] *= 100
    train = {"train_size": 0.7, "key_added": None}
    model = fit(adata, train=train, objective="transport", regularizer=sn.regularizers.CNODE([0.03, 0.3, 0.6]))
    model.train(2, objective="trajectory", refit=True, accelerator="cpu", enable_progress_bar=False, **train)
    held_out, x = model.validation_indices, adata.X.astype(float)
    scale = x[model.train_indices].std(0)
    table = model.get_regularization_path()
    items = np.array([np.square((x - model.predict(replicate=r)) / scale)[held_out].sum(1) for r in table.index])
    items *= (table["validation_error"].to_numpy() / items.mean(1))[:, None]
    difference = items - items[table["validation_error"].argmin()]
    for column, values in (("validation_se", items), ("difference_se", difference)):
        expected = values.std(1, ddof=1) / np.sqrt(len(held_out))
        np.testing.assert_allclose(table[column], expected, rtol=1e-2, atol=1e-12)


def test_standard_errors_count_a_cell_once_with_all_its_trajectories(fitted_donors):
    model = fitted_donors
    obs, memberships = model.adata.obs, model.adata.obsm["memberships"]
    for replicate, row in model.get_regularization_path().iterrows():
        items = []
        for cell in model.validation_indices:
            scores = model.evaluate(indices=[cell], replicate=replicate).drop(index="total")
            weight = [memberships.iloc[cell][name.split(", ")[0]] for name in scores.index]
            assert all(name.endswith(obs["donor"].iloc[cell]) for name in scores.index)
            items.append(8 * (scores["mse"] * weight).sum())
        expected = np.std(items, ddof=1) / np.sqrt(len(items)) / np.mean(items)
        assert row["validation_se"] / row["validation_error"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("objective", ["trajectory", "transport"])
def test_a_lineage_that_stands_twice_tells_nothing_new(adata, fit, objective):
    """Two columns of the same memberships: the same cells with the same errors."""
    tables = []
    for n_columns in (1, 2):
        adata.obsm["fates"] = pd.DataFrame(1.0, adata.obs_names, [f"fate{i}" for i in range(n_columns)])
        train = {"train_size": 0.7, "key_added": None}
        model = fit(adata, {"lineage_key": "fates"}, train, objective=objective, fields="shared")
        tables.append(model.get_regularization_path().iloc[0])
    one, two = tables
    assert two["validation_se"] / two["validation_error"] == pytest.approx(
        one["validation_se"] / one["validation_error"], rel=0.05
    )


def test_standard_errors_from_some_cells_are_those_of_all(make_adata, fit, monkeypatch):
    adata = make_adata(n_obs=400, n_lineages=1)
    train = {"train_size": 0.5, "key_added": None}
    whole = fit(adata, train=train, regularizer=sn.regularizers.CNODE([0.1, 10.0])).get_regularization_path()
    monkeypatch.setattr("sparsenode.model._regularization._MAX_ITEMS", 60)
    some = fit(adata, train=train, regularizer=sn.regularizers.CNODE([0.1, 10.0])).get_regularization_path()
    pd.testing.assert_series_equal(some["validation_error"], whole["validation_error"])
    ratio = some[["validation_se", "difference_se"]].max() / whole[["validation_se", "difference_se"]].max()
    assert ratio.between(0.6, 1.6).all()  # of 60 cells as if they were all there were, it would be 1.8


def test_tables_are_written_and_survive_a_file(adata, fit, tmp_path):
    train = {"schedule": IterativeSparsification(2, epochs_per_step=1), "train_size": 1.0}
    model = fit(adata, regularizer=LassoNet([0.1, 1.0]), n_seeds=2, train=train)
    assert model.sparsification_.groupby("step")["replicate"].apply(list).tolist() == [[0, 1, 2, 3]] * 3
    assert model.regularization_path_[["validation_error", "validation_se"]].isna().all(axis=None)
    assert model.selected_ == model.regularization_path_["train_error"].idxmin()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    read = anndata.read_h5ad(tmp_path / "cells.h5ad")
    for key in ("regularization_path", "sparsification"):
        found, expected = read.uns["sparsenode"][key], getattr(model, f"{key}_")
        pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True), check_exact=True)
    np.testing.assert_array_equal(read.varp["sparsenode_frequency"].toarray(), model.get_edge_frequency())


# Selection

ERRORS = [0.48, 0.52, 0.41, 0.39, 0.46, 0.44]  # means 0.50, 0.40 and 0.45 for strengths 0.1, 1 and 10


@pytest.mark.parametrize(
    ("arguments", "se", "expected"),
    [
        ({"rule": "best"}, 0.06, 3),
        ({"rule": "one_standard_error"}, 0.06, 5),
        ({"rule": "one_standard_error"}, [9, 9, 0.0, 0.0, 0.04, 0.04], 3),
        ({}, 0.06, 5),
        ({"rule": "sparsity", "sparsity": 0.0}, 0.06, 0),
        ({"rule": "sparsity", "sparsity": 0.55}, 0.06, 3),
        ({"rule": "sparsity", "sparsity": 0.9}, 0.06, 5),
    ],
    ids=str,
)
def test_rules(choose, arguments, se, expected):
    assert choose(ERRORS, se, **arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "errors", "said"),
    [
        ({"rule": "best"}, ERRORS, None),
        ({"rule": "best"}, [0.1, 0.1, *ERRORS[2:]], r"weakest of 3 strengths was chosen, 0.1\. .* goes down to 0.01"),
        ({}, ERRORS, r"strongest of 3 strengths was chosen, 10\. .* goes up to 100"),
        ({"rule": "sparsity", "sparsity": 0.9}, ERRORS, None),
    ],
    ids=str,
)
def test_a_path_that_may_end_too_early_is_warned_of(choose, arguments, errors, said):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        choose(errors, 0.06, **arguments)
    messages = [str(warning.message) for warning in found if "strengths was chosen" in str(warning.message)]
    assert len(messages) == (said is not None)
    assert said is None or re.search(said, messages[0])


def test_nothing_is_weaker_than_no_penalty():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _warn_at_an_end(pd.Index([0.0, 0.1]), 0.0)
    with pytest.warns(UserWarning, match="strongest of 2 strengths was chosen, 0.1"):
        _warn_at_an_end(pd.Index([0.0, 0.1]), 0.1)


@pytest.mark.parametrize(
    ("strengths", "advice"),
    [
        ([10, 30], "Fit a path of weaker ones, below"),
        ([1e-3, 10], r"strongest with edges is 0.001: `get_network\(replicate=0\)`"),
    ],
    ids=["all", "some"],
)
def test_an_empty_network_is_no_reason_for_stronger_penalties(adata, fit, strengths, advice):
    train = {"max_epochs": 10, "train_size": 0.6, "key_added": None}
    model = fit(adata, objective="transport", regularizer=sn.regularizers.CNODE(strengths), train=train)
    assert len(model.get_network(replicate=1).query("source != target")) == 0
    model.regularization_path_["validation_error"] = [0.6, 0.5]  # whatever held-out cells say here
    with pytest.warns(UserWarning, match=f"No edge between different genes is left.*{advice}") as caught:
        model.select("best")
    assert not any("Stronger" in str(warning.message) for warning in caught)


@pytest.mark.filterwarnings("ignore:.*do not vary between cells")
def test_zeros_of_genes_that_should_not_regulate(adata, fit):
    model = fit(adata, train={"max_epochs": 20}, regularizer=sn.regularizers.CNODE([0.05, 0.5, 5.0]), n_seeds=2)
    table = model.get_regularization_path(["gene1", "gene4", "NOGENE"])
    others = [name for name in model.genes if name not in ("gene1", "gene4")]
    for replicate, found in table["spurious_sparsity"].items():
        lineages = [model.get_adjacency(name, replicate=replicate)[others] == 0 for name in ("erythroid", "myeloid")]
        assert found == pytest.approx(np.mean(lineages))
    assert table["spurious_sparsity"].nunique() > 2
    rest = table.drop(columns="spurious_sparsity")
    pd.testing.assert_frame_equal(rest, model.get_regularization_path().drop(columns="spurious_sparsity"))
    assert model.get_regularization_path()["spurious_sparsity"].isna().all()  # nothing was stored
    with pytest.raises(TypeError, match="list of names of genes, found 'gene1'"):
        model.get_regularization_path("gene1")
    once = model.get_regularization_path(name for name in ["gene1"])
    pd.testing.assert_frame_equal(once, model.get_regularization_path(["gene1"]))


def test_without_regulators_no_zeros_are_spurious(adata, fit):
    """A gene that does not vary regulates nothing, whatever the user said."""
    adata.X[:, 2] = 1.0
    assert fit(adata).get_regularization_path()["spurious_sparsity"].isna().all()
    assert (fit(adata, regulators=["gene0"]).get_regularization_path()["spurious_sparsity"] == 1).all()


def test_without_held_out_cells_only_the_sparsity_decides(choose):
    assert choose(np.nan, np.nan, rule="sparsity", sparsity=0.1) == 1  # the seed with the smaller training error
    for rule in ("best", "one_standard_error"):
        with pytest.raises(ValueError, match=f"held-out error for the rule {rule!r}, found none. Lower `train_size`"):
            choose(np.nan, np.nan, rule=rule)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "largest"}, r"`rule`.*\['best', 'one_standard_error', 'sparsity'\], found 'largest'"),
        ({"rule": "sparsity"}, r"`sparsity` to be in \[0, 1\], found None"),
        ({"rule": "sparsity", "sparsity": 1.5}, r"in \[0, 1\], found 1.5"),
        ({"rule": "sparsity", "sparsity": 0.99}, r"sparsity of 0.99 or more, found at most 0.950. Fit larger"),
    ],
    ids=str,
)
def test_wrong_selections(choose, arguments, message):
    with pytest.raises(ValueError, match=message):
        choose(ERRORS, 0.06, **arguments)


def test_the_selected_replicate_is_reported_and_written(model, choose):
    assert choose(ERRORS, 0.06, rule="best", key_added="chosen") == 3
    np.testing.assert_array_equal(model.predict(), model.predict(replicate=3))
    np.testing.assert_array_equal(model.adata.obsm["chosen_trajectory"], model.predict(replicate=3))
    assert model.adata.uns["chosen"]["parameters"]["selected_replicate"] == 3


def test_selection_writes_where_training_did(adata, fit, tmp_path):
    model = fit(adata, regularizer=CNODE([0.01, 1.0]), train={"key_added": "mine"})
    model.select("sparsity", sparsity=0.0)
    assert "sparsenode" not in adata.uns
    assert adata.uns["mine"]["parameters"]["selected_replicate"] == model.selected_
    model.selected_ = 1
    model.save(tmp_path / "model")
    cells = adata.copy()
    assert sn.SparseNODE.load(tmp_path / "model", adata=cells).select("sparsity", sparsity=0.0).name == 0
    assert cells.uns["mine"]["parameters"]["selected_replicate"] == 0
    model.train(max_epochs=1, steps_per_epoch=1, accelerator="cpu", enable_progress_bar=False, key_added=None)
    adata.uns.clear()
    model.select("sparsity", sparsity=0.0)
    assert not adata.uns
    model.select("sparsity", sparsity=0.0, key_added="other")
    assert list(adata.uns) == ["other"]


# Pruning


def switch_off(model: sn.SparseNODE) -> None:
    """The first regulator, some units without inputs and some without effect, and some weights at random."""
    field, generator = model.module.field, torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in field.weights:
            weight *= torch.rand(weight.shape, generator=generator) < 0.7
        for parameter in (field.weights[0], *(field.weights[-1:] if field.skip else ())):
            parameter[:, :, 0] = 0.0
        field.weights[0][:, :3] = 0.0
        for logits in field.gate_logits[1:]:
            logits[:, :, :3] = -10.0


@pytest.mark.parametrize(
    ("regularizer", "options"),
    [
        (PathReg(), {"skip": True, "hidden": (8, 8, 8)}),
        (PathReg([0.3, 3.0], gates="weight"), {"fields": "shared", "regulators": ["gene1", "gene2", "gene5"]}),
        (CNODE([0.3, 1.0]), {"n_seeds": 2}),
        (GroupLasso(), {"hidden": (8,)}),
        (LassoNet(), {}),
        (LassoNet(skip="outer"), {}),
    ],
    ids=["pathreg", "pathreg-weight", "cnode", "grouplasso", "lassonet", "lassonet-outer"],
)
def test_a_pruned_model_predicts_the_same(adata, fit, tmp_path, regularizer, options):
    model = fit(adata, regularizer=regularizer, train={"schedule": "sparse", "key_added": None}, **options)
    switch_off(model)
    read = lambda m: (m.predict(), m.predict(times=[1.0, 1.9]), m.get_velocity(), m.get_adjacency())
    before, sparsity = read(model), model.get_sparsity()["feature"]
    costs = model.prune()
    parameters = sum(p.numel() for p in model.module.field.parameters())
    assert costs["n_parameters_after"] == parameters < 0.8 * costs["n_parameters_before"]
    assert costs["speed_up"] == costs["seconds_before"] / costs["seconds_after"] > 0
    for old, new in zip(before, read(model), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.get_adjacency() == 0, before[-1] == 0)
    assert model.get_sparsity()["feature"] == sparsity
    table = model.get_regularization_path()
    for replicate in table.index:
        assert table["weight_sparsity"][replicate] == pytest.approx(model.get_sparsity(replicate=replicate)["weight"])
    model.save(tmp_path / "model", save_anndata=True)
    loaded = sn.SparseNODE.load(tmp_path / "model")
    for old, new in zip(read(model), read(loaded), strict=True):
        np.testing.assert_array_equal(new, old)
    assert loaded.prune()["n_parameters_after"] == parameters
    loaded.train(max_epochs=1, steps_per_epoch=2, accelerator="cpu", enable_progress_bar=False, schedule="sparse")
    assert not np.array_equal(loaded.predict(), before[0])


# Citations

CITED = {"none": "", "cnode": "aliee2021beyond", "l0": "louizos2018learning", "pathreg": "louizos2018learning"}
CITED |= {"grouplasso": "yuan2006model", "lassonet": "lemhadri2021lassonet"}


@pytest.mark.parametrize("n_seeds", [1, 2])
@pytest.mark.parametrize("name", CITED)
def test_citation_holds_the_methods_of_the_model(adata, name, n_seeds):
    sn.SparseNODE.setup_anndata(adata)
    text = sn.SparseNODE(adata, name, (4,), n_seeds, "trajectory").citation()
    source = files("sparsenode").joinpath("references.bib").read_text(encoding="utf-8")
    entries = text.split("\n\n")
    for entry in entries:
        assert entry in source
        assert entry.count("{") == entry.count("}") > 2
        assert entry.endswith("\n}")
    stability = ["meinshausen2010stability"] if n_seeds > 1 else []
    expected = ["aliee2022sparsity", "chen2018neural", *filter(None, [CITED[name]]), *stability]
    assert [re.match(r"@\w+\{(\w+),\n", entry)[1] for entry in entries] == expected


@pytest.mark.parametrize(
    ("objective", "cited"),
    [("trajectory", []), ("transport", ["schiebinger2019optimal"]), ("collocation", ["craven1979smoothing"])],
)
def test_citation_holds_the_objective(adata, objective, cited):
    sn.SparseNODE.setup_anndata(adata)
    text = sn.SparseNODE(adata, regularizer="none", objective=objective, hidden=(4,)).citation()
    assert re.findall(r"@\w+\{(\w+),\n", text) == ["aliee2022sparsity", "chen2018neural", *cited]


def test_citation_of_a_regularizer_of_ones_own(adata):
    class Mine(CNODE):
        name = "mine"
        citations = ("@article{mine,\n  title = {Mine}\n}",)

    class Unknown(CNODE):
        citations = ("mine",)

    sn.SparseNODE.setup_anndata(adata)
    model = sn.SparseNODE(adata, regularizer=Mine(), objective="trajectory", hidden=(4,))
    assert re.findall(r"@\w+\{(\w+),\n", model.citation()) == ["aliee2022sparsity", "chen2018neural", "mine"]
    with pytest.raises(KeyError, match=r"`citations` of Unknown to be BibTeX entries.*found \['mine'\]"):
        sn.SparseNODE(adata, regularizer=Unknown(), objective="trajectory", hidden=(4,)).citation()


def test_every_entry_of_the_bibliography_is_found():
    source = files("sparsenode").joinpath("references.bib").read_text(encoding="utf-8")
    assert list(bibliography()) == re.findall(r"^@\w+\{([^,\s]+),", source, flags=re.MULTILINE)


def test_a_choice_whose_results_cannot_be_written_is_taken_back(adata, fit):
    model = fit(adata, regularizer=CNODE([0.01, 1.0]))
    model.selected_ = 1
    for key in ("a/b", "mine"):
        adata.uns["mine"] = 1
        with pytest.raises(ValueError, match="`key_added`"):
            model.select("sparsity", sparsity=0.0, key_added=key)
        assert model.selected_ == 1
    with pytest.raises(ValueError, match=r"`sparsity` with `rule='sparsity'` only, found 0.5 with 'best'"):
        model.select("best", sparsity=0.5)


def test_a_choice_whose_trajectories_diverge_is_taken_back(adata, fit):
    model = fit(adata, regularizer=CNODE([0.01, 1.0]), n_seeds=1)
    model.selected_ = 1
    before = adata.uns["sparsenode"]
    with torch.no_grad():
        for weight in model.module.field.weights:
            weight.unflatten(0, (2, -1))[0].abs_().mul_(1e3)
    with pytest.raises(sn.DivergenceError):
        model.select("sparsity", sparsity=0.0)
    assert model.selected_ == 1
    assert adata.uns["sparsenode"] is before
    assert np.isfinite(model.predict()).all()


def test_a_choice_that_is_interrupted_is_taken_back(adata, fit, monkeypatch):
    model = fit(adata, regularizer=CNODE([0.01, 1.0]), n_seeds=1)
    model.selected_ = 1

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "_write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.select("sparsity", sparsity=0.0)
    assert model.selected_ == 1


@pytest.mark.parametrize(("beyond", "strength"), [(0.9, 10.0), (1.1, 1.0)])
def test_differences_within_the_squared_tolerance_of_the_solver_do_not_count(
    make_adata, fit, monkeypatch, recwarn, beyond, strength
):
    """Though cells agree on them: they may be errors of the integration."""
    import sparsenode as sn

    model = fit(make_adata(), train={"key_added": None}, regularizer=sn.regularizers.CNODE([0.1, 1.0, 10.0]))
    solver = model.module.solver
    least = (solver.rtol + solver.atol) ** 2
    table = pd.DataFrame({"strength": [0.1, 1.0, 10.0], "difference_se": 0.0, "feature_sparsity": 0.5})
    table["train_error"] = table["validation_error"] = [0.5, 0.5 + 0.5 * least, 0.5 + beyond * least]
    monkeypatch.setattr(model, "regularization_path_", table)
    assert model.select(key_added=None)["strength"] == strength


def test_differences_are_from_the_best_strength_wherever_it_stands(make_adata, fit):
    """As in the test of differences cell by cell, where the best strength is the first."""
    import numpy as np

    import sparsenode as sn

    train = {"max_epochs": 15, "train_size": 0.7, "key_added": None}
    model = fit(make_adata(), train=train, regularizer=sn.regularizers.CNODE([3.0, 0.01, 0.3]))
    x, held_out = model.adata.X.astype(float), model.validation_indices
    table = model.get_regularization_path()
    best = int(table["validation_error"].argmin())
    assert best > 0
    items = np.stack([np.square(x - model.predict(replicate=r))[held_out].sum(1) for r in table.index])
    items *= (table["validation_error"].to_numpy() / items.mean(1))[:, None]
    expected = (items - items[best]).std(1, ddof=1) / np.sqrt(len(held_out))
    np.testing.assert_allclose(table["difference_se"], expected, rtol=1e-3, atol=1e-12)
    assert expected[0] > 0


@pytest.mark.parametrize(
    ("rule", "arguments"), [("best", {}), ("one_standard_error", {}), ("sparsity", {"sparsity": 0.5})]
)
def test_replicates_that_were_given_up_do_not_count_in_means_over_seeds(
    make_adata, fit, monkeypatch, recwarn, rule, arguments
):
    """Their error is infinite and their weights are zero, whatever the other seed of their strength has."""
    import sparsenode as sn

    regularizer = sn.regularizers.CNODE([0.1, 1.0, 10.0])
    model = fit(make_adata(), train={"key_added": None}, regularizer=regularizer, n_seeds=2)
    table = pd.DataFrame({"strength": [0.1, 0.1, 1.0, 1.0, 10.0, 10.0], "difference_se": 0.01})
    table["train_error"] = table["validation_error"] = [0.5, 0.5, float("inf"), 0.3, 0.6, 0.6]
    table["feature_sparsity"] = (
        [0.5, 0.6, 1.0, 0.45, 0.9, 0.9] if rule != "sparsity" else [0.2, 0.3, 1.0, 0.4, 0.6, 0.7]
    )
    monkeypatch.setattr(model, "regularization_path_", table)
    monkeypatch.setattr(model, "given_up_", [2])
    expected = 4 if rule == "sparsity" else 3
    assert model.select(rule, key_added=None, **arguments).name == expected


def test_where_no_edge_is_left_the_strongest_strength_with_edges_is_named(make_adata, fit, monkeypatch):
    """Of several that have edges, in whatever order they were fitted."""
    import sparsenode as sn

    model = fit(make_adata(), train={"key_added": None}, regularizer=sn.regularizers.CNODE([1.0, 10.0, 0.1]))
    table = pd.DataFrame({"strength": [1.0, 10.0, 0.1], "difference_se": 0.0, "feature_sparsity": [0.5, 1.0, 0.1]})
    table["train_error"] = table["validation_error"] = [0.5, 0.4, 0.6]
    monkeypatch.setattr(model, "regularization_path_", table)
    monkeypatch.setattr(model, "_is_empty", lambda replicates: 1 in replicates)
    with pytest.warns(UserWarning, match=r"The strongest with edges is 1: `get_network\(replicate=0\)`"):
        assert model.select("best", key_added=None).name == 1
