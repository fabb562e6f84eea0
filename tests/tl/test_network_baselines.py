"""Correlations and GENIE3, against scipy, pandas, a known inverse covariance and a plain loop over scikit-learn."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import RandomForestRegressor

import sparsenode as sn
from sparsenode.tl import _genie3

METHODS = ["pearson", "spearman", "partial_correlation", "genie3"]


@pytest.fixture
def cells() -> AnnData:
    """60 cells × 6 genes, not in the order of their names: b drives a and c, e repeats integers, and d is constant."""
    generator = np.random.default_rng(0)
    x = generator.gamma(2.0, 1.0, size=(60, 6))
    x[:, 1] += 2 * x[:, 0]
    x[:, 2] -= 1.5 * x[:, 0]
    x[:, 4] = generator.integers(0, 4, 60)
    x[:, 5] = 0.1
    var = pd.DataFrame({"is_tf": [True, False, True, False, True, False]}, index=["b", "a", "c", "f", "e", "d"])
    return AnnData(x, pd.DataFrame(index=[f"cell{i}" for i in range(60)]), var)


def matrix(table: pd.DataFrame) -> pd.DataFrame:
    return table.pivot(index="source", columns="target", values="weight")


def run(adata: AnnData, method: str, **arguments) -> pd.DataFrame:
    return sn.tl.network_baselines(adata, method, **({"n_trees": 5} | arguments))[method]


def test_tables(cells):
    tables = sn.tl.network_baselines(cells, n_trees=5)
    assert list(tables) == METHODS
    for table in tables.values():
        assert list(table.columns) == ["source", "target", "weight"]
        assert list(table.index) == list(range(30))
        assert not table.duplicated(["source", "target"]).any()
        assert (table["source"] != table["target"]).all()
        assert (table["weight"].abs().diff().dropna() <= 0).all()
        assert table["weight"].dtype == np.float64


def test_edges_of_equal_weight_go_by_name():
    """Source before target; here each edge ties with its reverse, and those of constant genes with one another."""
    x = np.random.default_rng(0).normal(size=(30, 12)) * np.tile([1.0, 0.0], 6)
    table = run(AnnData(x, var=pd.DataFrame(index=list("lbkdjfhgieca"))), "pearson")
    rows = list(table[["weight", "source", "target"]].itertuples(index=False, name=None))
    assert rows == sorted(rows, key=lambda row: (-abs(row[0]), *row[1:]))


@pytest.mark.parametrize("method", METHODS)
def test_tables_can_be_scored(cells, method):
    truth = pd.DataFrame({"source": ["b", "b"], "target": ["a", "c"], "weight": [1.0, -1.0]})
    scores = sn.tl.evaluate_network(run(cells, method, n_trees=50), truth)
    assert scores["auroc"] > 0.5
    assert scores["sign_accuracy"] == (0.5 if method == "genie3" else 1.0)


@pytest.fixture
def reference(cells) -> pd.DataFrame:
    return cells.to_df().drop(columns="d")


def test_pearson(cells, reference):
    found = matrix(run(cells, "pearson"))
    expected = reference.corr()
    for source in expected:
        for target in expected:
            if source != target:
                assert found.loc[source, target] == pytest.approx(expected.loc[source, target])
                assert found.loc[source, target] == pytest.approx(
                    stats.pearsonr(reference[source], reference[target])[0]
                )
    assert found.loc["b", "a"] > 0.5
    assert found.loc["b", "c"] < -0.5


@pytest.mark.parametrize("method", METHODS[:3])
def test_correlations_have_no_direction(method):
    """Not by rounding either, or scores would change with the order of the cells."""
    adata, truth = sn.datasets.krumsiek11(), sn.datasets.krumsiek11_network()
    found = matrix(run(adata, method)).fillna(0.0).to_numpy()
    np.testing.assert_array_equal(found, found.T)
    scores, reversed_scores = (sn.tl.evaluate_network(run(each, method), truth) for each in (adata, adata[::-1].copy()))
    assert scores["auprc_ratio"] == pytest.approx(reversed_scores["auprc_ratio"], rel=1e-9)
    regulators = sorted(adata.var_names[:4])
    some = matrix(run(adata, method, regulators=regulators)).loc[regulators, regulators].fillna(0.0).to_numpy()
    np.testing.assert_array_equal(some, some.T)


def test_spearman(cells, reference):
    found = matrix(run(cells, "spearman"))
    for source in reference:
        for target in reference.drop(columns=source):
            expected = stats.spearmanr(reference[source], reference[target])[0]  # gene e has ties
            assert found.loc[source, target] == pytest.approx(expected)


def test_partial_correlation_of_a_known_precision():
    """In a chain a → b → c → d, neighbours alone are connected given the rest."""
    precision = np.array([[2.0, -0.8, 0, 0], [-0.8, 2.0, 0.6, 0], [0, 0.6, 2.0, -0.9], [0, 0, -0.9, 2.0]])
    x = np.random.default_rng(0).multivariate_normal(np.zeros(4), np.linalg.inv(precision), 200_000)
    adata = AnnData(5 + 3 * x, var=pd.DataFrame(index=list("abcd")))
    found = matrix(run(adata, "partial_correlation")).to_numpy()
    expected = -precision / np.sqrt(np.outer(np.diag(precision), np.diag(precision)))
    np.fill_diagonal(expected, np.nan)
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_partial_correlation_is_that_of_scikit_learn(cells, reference):
    z = (reference - reference.mean()) / reference.std(ddof=0)
    precision = LedoitWolf(assume_centered=True).fit(z.to_numpy()).precision_
    expected = pd.DataFrame(
        -precision / np.sqrt(np.outer(np.diag(precision), np.diag(precision))), z.columns, z.columns
    )
    found = matrix(run(cells, "partial_correlation"))
    for source in expected:
        for target in expected.drop(columns=source):
            assert found.loc[source, target] == pytest.approx(expected.loc[source, target])


def test_partial_correlation_with_fewer_cells_than_genes():
    x = np.random.default_rng(0).normal(size=(10, 40))
    weights = run(AnnData(x), "partial_correlation")["weight"]
    assert np.isfinite(weights).all()
    assert weights.abs().max() < 1


def test_partial_correlation_of_copies():
    """The estimated shrinkage is zero, and the plain inverse does not exist."""
    x = np.array([[1.0, 1.0], [-1.0, -1.0]] * 20)
    assert LedoitWolf(assume_centered=True).fit(x).shrinkage_ == 0
    found = run(AnnData(x), "partial_correlation")["weight"]
    np.testing.assert_allclose(found, 1.0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS[:3])
def test_correlations_of_copies_are_not_above_one(method):
    """Not by rounding either, or their inverse cosine would not exist."""
    x = np.repeat(np.random.default_rng(0).normal(size=(30, 20)), 2, axis=1) * np.tile([1.0, -3.0], 20)
    weights = run(AnnData(x), method)["weight"]
    assert weights.abs().max() <= 1


def test_genie3_is_a_loop_over_scikit_learn(cells, reference):
    """Importances that are not normalised: the reduction of variance, over all trees, of a target with variance one."""
    found = matrix(run(cells, "genie3", n_trees=7, seed=3))
    expression = cells.to_df().sort_index(axis=1)
    x = np.ascontiguousarray(expression)
    scaled = pd.DataFrame((x - x.mean(0)) / x.std(0), columns=expression.columns)  # in this order, for exact ties
    for target in reference:
        inputs = expression.drop(columns=target)
        forest = RandomForestRegressor(7, max_features="sqrt", random_state=3)
        forest.fit(inputs.to_numpy(), scaled[target].to_numpy())
        expected = np.mean([t.tree_.compute_feature_importances(normalize=False) for t in forest.estimators_], axis=0)
        np.testing.assert_allclose(found.loc[inputs.columns, target], expected)
    assert (found.fillna(0) >= 0).all(axis=None)


def test_genie3_finds_what_is_not_linear():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 4))
    x[:, 3] = 10 * np.sin(2 * x[:, 0])  # on another scale, too
    table = run(AnnData(x, var=pd.DataFrame(index=list("abcd"))), "genie3", n_trees=50)
    assert tuple(table.loc[0, ["source", "target"]]) == ("a", "d")
    assert run(AnnData(x, var=pd.DataFrame(index=list("abcd"))), "pearson").loc[0, "weight"] < 0.5


def test_genie3_seed_and_threads(cells):
    first = run(cells, "genie3")
    for n_jobs in (2, -1):
        pd.testing.assert_frame_equal(run(cells, "genie3", n_jobs=n_jobs), first)
    assert not run(cells, "genie3", seed=1).equals(first)


def test_genie3_has_200_trees_and_the_seed_0_by_default(cells):
    some = cells[:, ["a", "b"]].copy()
    found = sn.tl.network_baselines(some, "genie3")["genie3"]
    pd.testing.assert_frame_equal(found, run(some, "genie3", n_trees=200, seed=0))


def test_genie3_fits_forests_at_the_same_time(cells, monkeypatch):
    """As many as asked for: each of two waits for the other."""
    both, importances = threading.Barrier(2, timeout=20), _genie3._importances
    monkeypatch.setattr(_genie3, "_importances", lambda *args: (both.wait(), importances(*args))[1])
    found = run(cells[:, ["a", "b"]].copy(), "genie3", n_jobs=2)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(run(cells[:, ["a", "b"]].copy(), "genie3"), found)


@pytest.mark.parametrize("method", METHODS)
def test_order_of_genes_does_not_matter(cells, method):
    order = np.random.default_rng(1).permutation(cells.n_vars)
    pd.testing.assert_frame_equal(run(cells[:, order].copy(), method), run(cells, method))
    chosen = ["c", "b", "e"]
    pd.testing.assert_frame_equal(run(cells, method, genes=chosen), run(cells, method, genes=chosen[::-1]))


@pytest.mark.parametrize("method", METHODS)
def test_names_follow_the_columns(cells, method):
    """Permutation equivariance: values that move to another name take their edges along."""
    order = np.random.default_rng(2).permutation(cells.n_vars)
    renamed = AnnData(cells.X[:, order], var=pd.DataFrame(index=cells.var_names))
    new = dict(zip(cells.var_names[order], cells.var_names, strict=True))
    expected = matrix(run(cells, method, n_trees=400)).rename(index=new, columns=new)
    found = matrix(run(renamed, method, n_trees=400)).loc[expected.index, expected.columns]
    # Which regulators a tree draws depends on their order: GENIE3 agrees up to the noise of its forests.
    np.testing.assert_allclose(found, expected, atol=0.05 if method == "genie3" else 1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["csr", "csc", "array", "float32", "integers", "layer", "view"])
def test_forms_of_expression(cells, method, kind):
    cells.X = np.round(4 * cells.X)  # exact in every type
    expected = run(cells, method)
    other = cells.copy()
    x = cells.X
    if kind == "layer":
        other.layers["counts"], other.X = x.copy(), np.full(x.shape, np.nan)  # which is not read
        pd.testing.assert_frame_equal(run(other, method, layer="counts"), expected)
        return
    if kind == "view":
        pd.testing.assert_frame_equal(run(AnnData(np.vstack([x, x]), var=cells.var)[:60], method), expected)
        return
    forms = {
        "csr": sparse.csr_matrix,
        "csc": sparse.csc_matrix,
        "array": sparse.csr_array,
        "float32": np.float32,
        "integers": np.int64,
    }
    other.X = forms[kind](x) if kind in ("csr", "csc", "array") else x.astype(forms[kind])
    pd.testing.assert_frame_equal(run(other, method), expected)


def test_backed(cells, tmp_path):
    import anndata

    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    pd.testing.assert_frame_equal(run(backed, "pearson"), run(cells, "pearson"))


@pytest.mark.parametrize("method", METHODS)
def test_constant_genes(cells, method):
    """Also 0.1, whose mean is not exactly 0.1, and genes that are all zero."""
    cells.X[:, 3] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = run(cells, method)
    constant = table["source"].isin(["d", "f"]) | table["target"].isin(["d", "f"])
    assert (table.loc[constant, "weight"] == 0).all()
    assert (table.loc[~constant, "weight"] != 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_but_constant_genes(method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = run(AnnData(np.ones((5, 3))), method)
    assert (table["weight"] == 0).all()
    assert len(table) == 6


@pytest.mark.parametrize("method", METHODS)
def test_regulators(cells, method):
    by_name = run(cells, method, regulators=["e", "b", "c", "SOX2"])  # not all of a list of TFs are measured
    pd.testing.assert_frame_equal(run(cells, method, regulators="is_tf"), by_name)
    assert set(by_name["source"]) == {"b", "c", "e"}
    assert len(by_name) == 3 * 5
    if method != "genie3":  # correlations do not depend on who may regulate
        everything = matrix(run(cells, method))
        pd.testing.assert_frame_equal(matrix(by_name), everything.loc[["b", "c", "e"]])


def test_the_log_says_which_regulators_are_not_used(cells, caplog):
    with caplog.at_level("INFO", logger="sparsenode"):
        run(cells, "pearson", regulators=["e", "b", "SOX2"])
    assert "2 of 3 regulators are among the 6 genes; not used are 1, such as SOX2." in caplog.text


def test_one_regulator(cells):
    table = run(cells, "genie3", regulators=["b"])
    assert set(table["target"]) == {"a", "c", "d", "e", "f"}
    assert matrix(table).loc["b", "d"] == 0


@pytest.mark.parametrize("method", METHODS)
def test_genes(cells, method):
    cells.var["chosen"] = cells.var_names.isin(["a", "b", "e"])
    table = run(cells, method, genes=["a", "b", "e"])
    pd.testing.assert_frame_equal(run(cells, method, genes="chosen"), table)
    pd.testing.assert_frame_equal(run(cells, method, genes=["b", "a", "b", "e"]), table)  # once each
    cells.var["chosen"] = cells.var["chosen"].astype("boolean")
    pd.testing.assert_frame_equal(run(cells, method, genes="chosen"), table)
    pd.testing.assert_frame_equal(run(cells[:, ["a", "b", "e"]].copy(), method), table)


def test_methods(cells):
    assert list(sn.tl.network_baselines(cells, "spearman")) == ["spearman"]
    assert list(sn.tl.network_baselines(cells, ["spearman", "pearson", "spearman"])) == ["spearman", "pearson"]


def test_data_are_not_changed(cells):
    before = cells.copy()
    sn.tl.network_baselines(cells, n_trees=2)
    np.testing.assert_array_equal(cells.X, before.X)
    assert list(cells.var_names) == list(before.var_names)


def test_global_random_state_is_left_alone(cells):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    run(cells, "genie3")
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"methods": ["pearson", "kendall"]}, ValueError, r"`methods` to be one of .*found 'kendall'"),
        ({"methods": []}, ValueError, "`methods` to name some of"),
        ({"genes": ["a", "SOX2"]}, ValueError, r"`genes` to be in `adata.var_names`, 1 of 2 are not: \['SOX2'\]"),
        ({"genes": "SOX2"}, KeyError, "`genes` to be names of genes or a column of `adata.var`, found 'SOX2'"),
        (
            {"genes": "length"},
            TypeError,
            r"`adata.var\['length'\]` to be boolean without missing values, found float64",
        ),
        ({"genes": ["a"]}, ValueError, "two genes, found 60 cells × 1 genes"),
        ({"regulators": ["SOX2"]}, ValueError, "none of 1 names is among its 6 genes"),
        ({"regulators": "SOX2"}, KeyError, "`regulators` to be names of genes or a column"),
        ({"regulators": "length"}, TypeError, "to be boolean"),
        ({"layer": "counts"}, KeyError, "`layer` to be left out, .*found 'counts'"),
        ({"n_trees": 0}, ValueError, "`n_trees` to be an integer of at least 1, found 0"),
        ({"n_jobs": 0}, ValueError, "`n_jobs` to be a positive integer, or -1 for all processors, found 0"),
        ({"seed": -1}, ValueError, "`seed` to be an integer of at least 0, found -1"),
    ],
    ids=str,
)
def test_errors(cells, arguments, error, message):
    cells.var["length"] = 1.0
    with pytest.raises(error, match=message):
        sn.tl.network_baselines(cells, **arguments)


def test_errors_in_the_data(cells):
    with pytest.raises(TypeError, match="an AnnData object, found DataFrame"):
        sn.tl.network_baselines(cells.to_df())
    with pytest.raises(ValueError, match="at least 3 cells and two genes, found 2 cells"):
        sn.tl.network_baselines(cells[:2].copy())
    cells.X[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"finite expression in `adata.X`, found 1 NaN or infinite"):
        sn.tl.network_baselines(cells)
    cells.X = sparse.csr_matrix(cells.X)
    with pytest.raises(ValueError, match="finite expression"):
        sn.tl.network_baselines(cells)


@pytest.mark.data
@pytest.mark.parametrize("dataset", ["dyn-LI", "VSC"])
def test_on_beeline(data_dir, dataset):
    """GENIE3 ranks about as the published one did, whose forests had other seeds and more trees."""
    folder = data_dir / "beeline" / dataset / "0"
    expression = pd.read_csv(folder / "ExpressionData.csv.gz", index_col=0).T
    truth = pd.read_csv(folder / "refNetwork.csv").rename(columns={"Gene1": "source", "Gene2": "target"})
    table = sn.tl.network_baselines(AnnData(expression), "genie3", n_trees=100, n_jobs=2)["genie3"]
    published = pd.read_csv(data_dir / "beeline" / "published_methods.csv").astype({"seed": str})
    published = published.set_index(["dataset", "seed", "method"]).loc[(dataset, "0", "GENIE3")]
    found = sn.tl.evaluate_network(table, truth[["source", "target"]])
    assert found["auroc"] == pytest.approx(published["auroc"], abs=0.04)  # seeds differ by 0.02
