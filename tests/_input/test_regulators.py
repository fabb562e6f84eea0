"""Who may regulate, and what paths cost."""

from __future__ import annotations

import logging
import re
import warnings

import numpy as np
import pandas as pd
import pytest

import sparsenode as sn
from sparsenode._input._regulators import path_weight_matrix, regulator_positions

GENES = pd.Index(["a", "b", "c", "d"])


def test_only_regulators_regulate(adata, fit, caplog):
    with caplog.at_level("INFO", logger="sparsenode"):
        model = fit(adata, regulators=["gene5", "gene1", "unknown", "gene1"], regularizer="none", decay=False)
    assert "2 of 3 regulators are among the 8 genes; not used are 1, such as unknown." in caplog.text
    adjacency = model.get_adjacency()
    assert (adjacency[["gene1", "gene5"]] != 0).all(axis=None)
    assert (adjacency.drop(columns=["gene1", "gene5"]) == 0).all(axis=None)
    others = adata.copy()
    others.X[:, [0, 2, 3, 4, 6, 7]] = 9.0
    np.testing.assert_array_equal(model.get_velocity(others), model.get_velocity())
    others.X[:, 5] = 9.0
    assert not np.allclose(model.get_velocity(others), model.get_velocity(), rtol=0.1)
    assert (model.get_regularization_path()["spurious_sparsity"] == 1.0).all()
    assert list(adata.uns["sparsenode"]["parameters"]["regulators"]) == ["gene1", "gene5"]


@pytest.mark.parametrize("convert", [lambda names: dict.fromkeys(names).keys(), iter, pd.Index, set])
def test_names_in_any_form(adata, tmp_path, convert):
    model = sn.SparseNODE(adata, hidden=(4,), regulators=convert(["gene1", "gene5"]))
    assert model._regulators == [1, 5]
    model.save(tmp_path / "model")
    assert sn.SparseNODE.load(tmp_path / "model", adata=adata)._regulators == [1, 5]


def test_names_that_are_numbers(adata):
    """Identifiers of Entrez, which pandas reads as such."""
    adata.var_names = [str(100 + k) for k in range(8)]
    assert regulator_positions([105, 101], adata.var_names, adata) == [1, 5]


def test_the_log_says_nothing_of_unused_names_where_all_are_used(adata, caplog):
    with caplog.at_level("INFO", logger="sparsenode"):
        regulator_positions(["gene5", "gene1"], adata.var_names, adata)
    assert "2 of 2 regulators are among the 8 genes." in caplog.text


@pytest.mark.parametrize("convert", [list, np.array, pd.Series, lambda mask: pd.array(mask, dtype="boolean")])
def test_a_mask_is_refused(adata, convert):
    mask = convert([True, False] * 4)
    with pytest.raises(TypeError, match=r"list of names.*found a mask of 8 values.*`list\(adata.var_names\[mask\]\)`"):
        regulator_positions(mask, adata.var_names, adata)


def test_a_column_of_the_genes_is_the_list_of_its_names(adata, fit, same_state, tmp_path):
    adata.var["tf"] = adata.var_names.isin(["gene1", "gene5"])
    model = fit(adata, regulators="tf")
    assert same_state(model, fit(adata.copy(), regulators=["gene1", "gene5"]))
    model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match="data"):
        loaded = sn.SparseNODE.load(tmp_path / "model")  # there is no column to read it from
    np.testing.assert_array_equal(loaded.get_adjacency(), model.get_adjacency())


@pytest.mark.parametrize(
    "values",
    [
        ["yes", "no"] * 4,
        ["no", "yes"] * 4,
        pd.Categorical(["TF", None] * 4),
        pd.array(["yes", None] * 4, dtype="string"),
        [1.0, 0.0] * 4,
        pd.Categorical([0, 1] * 4),
        pd.array([True, None] * 4, dtype="boolean"),
        [True, np.nan] * 4,
    ],
    ids=["text", "text, first no", "categories", "strings", "numbers", "numbers as categories", "nullable", "missing"],
)
def test_the_fix_for_other_columns_marks_the_same_genes(adata, values):
    adata.var["tf"] = values
    with pytest.raises(TypeError, match="to be boolean") as caught:
        regulator_positions("tf", adata.var_names, adata)
    exec(str(caught.value).split("`")[-2], {"adata": adata})
    marks = [str(value).lower() in ("yes", "tf", "1", "1.0", "true") for value in values]
    assert regulator_positions("tf", adata.var_names, adata) == list(np.flatnonzero(marks))


@pytest.mark.parametrize(
    ("regulators", "error", "message"),
    [
        ("tf", KeyError, "column of `adata.var`, found 'tf'"),
        ("length", TypeError, r"`adata.var\['length'\]` to be boolean without missing values, found int"),
        (["SOX2", "PAX6"], ValueError, r"none of 2 names is among its 8 genes.*gene0.*SOX2"),
        ([], ValueError, "none of 0 names"),
        ("nothing", ValueError, r"`adata.var\['nothing'\]` to mark regulators, found none"),
    ],
    ids=str,
)
def test_wrong_regulators(adata, regulators, error, message):
    adata.var["length"], adata.var["nothing"] = 3, False
    sn.SparseNODE.setup_anndata(adata)
    with pytest.raises(error, match=message):
        sn.SparseNODE(adata, objective="trajectory", regulators=regulators)


@pytest.mark.parametrize("objective", ["trajectory", "collocation", "transport", "both"])
def test_genes_that_do_not_vary_regulate_nothing(make_adata, fit, objective):
    """They could not be told from the biases."""
    adata = make_adata(n_obs=200)
    adata.X[:, [2, 5]] = [1.0, 0.3]
    with pytest.warns(UserWarning, match=r"2 of 8 genes.*\['gene2', 'gene5'\]"):
        model = fit(adata, objective=objective, regularizer="none")
    for weights in ("paths", "jacobian"):
        adjacency = model.get_adjacency(weights=weights)
        assert (adjacency[["gene2", "gene5"]] == 0).all(axis=None)
        assert (adjacency.drop(columns=["gene2", "gene5"]) != 0).all(axis=None)  # of targets that are constant too


@pytest.mark.filterwarnings("ignore:.*do not vary between cells")
def test_genes_that_do_not_vary_are_remembered(adata, fit, tmp_path):
    varying = adata.copy()
    adata.X[:, 2] = 1.0
    model = fit(adata)
    model.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=varying)
    np.testing.assert_array_equal(loaded.get_adjacency(weights="paths"), model.get_adjacency(weights="paths"))
    assert (loaded.get_adjacency()["gene2"] == 0).all()


@pytest.mark.filterwarnings("ignore:.*do not vary between cells")
def test_regulators_that_do_not_vary(adata, fit):
    adata.X[:, 2] = 1.0
    model = fit(adata, regulators=["gene1", "gene2"])
    assert list(adata.uns["sparsenode"]["parameters"]["regulators"]) == ["gene1"]
    assert (model.get_adjacency().drop(columns="gene1") == 0).all(axis=None)
    with pytest.raises(ValueError, match=r"regulators that vary between cells, found none: \['gene2'\] are constant"):
        sn.SparseNODE(adata, objective="trajectory", regulators=["gene2"])


def test_weights_are_matched_by_name():
    frame = pd.DataFrame([[2.0, 0.5], [9.0, 9.0], [3.0, 0.0]], index=["d", "unknown", "b"], columns=["c", "a"])
    expected = np.ones((4, 4))
    for target, regulator in (("d", "c"), ("d", "a"), ("b", "c"), ("b", "a")):
        expected[GENES.get_loc(target), GENES.get_loc(regulator)] = frame.loc[target, regulator]
    np.testing.assert_array_equal(path_weight_matrix(frame, "penalised", GENES), expected)
    np.testing.assert_array_equal(path_weight_matrix(frame, "free", GENES), expected * (1 - np.eye(4)))
    np.testing.assert_array_equal(path_weight_matrix(None, "free", GENES), 1 - np.eye(4))
    assert path_weight_matrix(None, "penalised", GENES) is None


FRAME = pd.DataFrame([[1.0, 2.0], [0.5, 0.0]], index=["gene0", "gene1"], columns=["gene2", "gene3"])


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (FRAME.to_numpy(), TypeError, "data frame with targets as index.*found ndarray"),
        (FRAME.set_axis(["gene0", "gene0"]), ValueError, "unique names in the index.*'gene0'"),
        (FRAME.set_axis(["gene2", "gene2"], axis=1), ValueError, "columns of `path_weights`.*gene2"),
        (FRAME.set_axis(["x", "y"]), ValueError, "found none. Genes look like.*gene0.*'x', 'y'"),
        (FRAME.set_axis(["x", "y"], axis=1), ValueError, "found none"),
        (-FRAME, ValueError, "non-negative and finite, found -"),
        (FRAME / 0, ValueError, "non-negative and finite, found"),
        (FRAME.astype(str), TypeError, "numbers in `path_weights`, found text in column 'gene2'"),
        (FRAME > 0, TypeError, "found booleans in column 'gene2': paths of weight 0 are free.*pass `1 - 0.9 "),
    ],
    ids=range(9),
)
def test_wrong_path_weights(adata, weights, error, message):
    sn.SparseNODE.setup_anndata(adata)
    with pytest.raises(error, match=message):
        sn.SparseNODE(adata, objective="trajectory", path_weights=weights)


def test_names_in_path_weights_that_are_not_used_are_logged(adata, caplog, recwarn):
    sn.SparseNODE.setup_anndata(adata)
    caplog.set_level(logging.INFO, "sparsenode")
    frame = FRAME.set_axis(["gene0", "x"]).set_axis(["gene2", "y"], axis=1)
    sn.SparseNODE(adata, objective="trajectory", path_weights=frame)
    for axis, name in (("rows", "x"), ("columns", "y")):
        assert re.search(rf"1 of 2 {axis} of `path_weights` are genes of the model.*{name}", caplog.text)
    assert not [one for one in recwarn if "path_weights" in str(one.message)]


def test_path_weights_of_genes_that_may_not_regulate_raise_a_warning(adata):
    sn.SparseNODE.setup_anndata(adata)
    arguments = {"objective": "trajectory", "regulators": ["gene2", "gene4"]}
    with pytest.warns(UserWarning, match=r"1 of 2 columns.*\['gene3'\].*not among `regulators`") as caught:
        sn.SparseNODE(adata, path_weights=FRAME, **arguments)
    assert caught[0].filename == __file__
    whole = pd.DataFrame(1.0, adata.var_names, adata.var_names)  # ones are the default, and nothing is lost
    whole.loc["gene0", "gene2"] = 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sn.SparseNODE(adata, path_weights=whole, **arguments)


def test_path_weights_that_cost_nothing_are_not_warned_of(adata, fit, tmp_path):
    """Of genes that do not vary where no regulators were named, of rows that are no genes, and when a model is loaded."""
    adata.X[:, 3] = 1.0
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*path_weights")
        frame = pd.DataFrame(2.0, adata.var_names, adata.var_names).astype(object)
        fit(adata, path_weights=frame)
        frame = pd.DataFrame(1.0, [*adata.var_names, "unknown"], adata.var_names)
        frame.loc["unknown"] = 3.0
        fit(adata, path_weights=frame, regulators=["gene2"])
    frame.loc["gene0"] = 2.0
    with pytest.warns(UserWarning, match="path_weights"):
        model = fit(adata, path_weights=frame, regulators=["gene2"])
    model.save(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*path_weights")
        loaded = sn.SparseNODE.load(tmp_path / "model", adata)
    assert loaded.module.field.path_weights[0].tolist() == model.module.field.path_weights[0].tolist()


def test_only_penalties_of_paths_can_be_weighted(adata):
    sn.SparseNODE.setup_anndata(adata)
    for name, knowledge in (("l0", {"path_weights": FRAME}), ("none", {"self_edges": "free"})):
        with pytest.raises(ValueError, match="penalises paths.*Use 'pathreg', 'cnode' or 'grouplasso'"):
            sn.SparseNODE(adata, regularizer=name, **knowledge)
    with pytest.raises(ValueError, match=r"`self_edges`.*\['penalised', 'free'\], found 'maybe'"):
        sn.SparseNODE(adata, self_edges="maybe")


@pytest.mark.parametrize("name", ["cnode", "grouplasso"])
def test_free_edges_survive_a_strong_penalty(adata, fit, name, tmp_path):
    """Free are the self-edges, which may be asked for by name, and one more edge."""
    regularizer = {"cnode": sn.regularizers.CNODE, "grouplasso": sn.regularizers.GroupLasso}[name](30.0)
    knowledge = {"path_weights": pd.DataFrame(0.0, ["gene5"], ["gene2"]), "self_edges": "free"}
    model = fit(adata, regularizer=regularizer, skip=True, train={"max_epochs": 20}, **knowledge)
    alive = model.get_adjacency().to_numpy() != 0
    expected = np.eye(8, dtype=bool)
    expected[5, 2] = True
    np.testing.assert_array_equal(alive, expected)
    model.save(tmp_path / "model")
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=adata)
    np.testing.assert_array_equal(loaded.module.field.path_weights, 1.0 - expected)
    np.testing.assert_array_equal(loaded.get_adjacency(), model.get_adjacency())
