from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sparsenode import _checks


def test_choice_lists_the_valid_values():
    _checks.choice("fields", "shared", ("shared", "lineage"))
    with pytest.raises(ValueError, match=r"`fields` to be one of \['shared', 'lineage'\], found 'lineages'"):
        _checks.choice("fields", "lineages", ("shared", "lineage"))


def test_some_says_whether_there_are_more():
    assert _checks.some(["a", "b"], 2) == "['a', 'b']"
    assert _checks.some(["a", "b", "c"], 2) == "['a', 'b'] and more"
    assert _checks.some(dict.fromkeys("abcdef", 1)) == "{'a': 1, 'b': 1, 'c': 1, 'd': 1, 'e': 1} and more"


@pytest.mark.parametrize("value", [2, np.int64(3)])
def test_at_least_accepts(value):
    _checks.at_least("n_seeds", value, 2)


@pytest.mark.parametrize("value", [0, 0.0, np.float32(0.5), 1])
def test_share_accepts(value):
    _checks.share("sparsity", value)


@pytest.mark.parametrize("value", [None, "0.9", True, float("nan"), -0.5, 1.5])
def test_share_names_what_it_refuses(value):
    with pytest.raises(ValueError, match=rf"`sparsity` to be in \[0, 1\], found {value!r}"):
        _checks.share("sparsity", value)


def test_share_may_leave_out_zero():
    _checks.share("density", 1e-9, zero=False)
    with pytest.raises(ValueError, match=r"`density` to be in \(0, 1\], found 0.0"):
        _checks.share("density", 0.0, zero=False)


@pytest.mark.parametrize(
    ("indices", "expected"),
    [(None, [0, 1, 2]), ([-1, 0], [2, 0]), ([], []), (np.uint8([2]), [2]), (pd.Series([True, False, True]), [0, 2])],
    ids=str,
)
def test_cell_indices(indices, expected):
    found = _checks.cell_indices(indices, 3)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([0.0, 1.7], TypeError, r"integers or a boolean mask, found .*0.0.* of dtype float64"),
        (["cell1"], TypeError, r"found .*'cell1'.* of dtype <U5. For names .*`adata.obs_names.get_indexer\(names\)`"),
        (pd.Index(["cell1"]), TypeError, "found 'cell1' of dtype"),
        ([[0, 1], [2, 0]], IndexError, r"one dimension, found shape \(2, 2\)"),
        (1, IndexError, r"one dimension, found shape \(\)"),
    ],
    ids=str,
)
def test_cell_indices_refuse(indices, error, message):
    with pytest.raises(error, match=message):
        _checks.cell_indices(indices, 3)


@pytest.mark.parametrize("value", [1, 2.0, "2", None, True, np.nan, [2]], ids=repr)
def test_at_least_refuses(value):
    with pytest.raises(ValueError, match="`n_seeds` to be an integer of at least 2, found"):
        _checks.at_least("n_seeds", value, 2)


@pytest.mark.parametrize("value", [1, 1e-9, np.float64(0.5), np.float32(0.5)], ids=repr)
def test_positive_accepts(value):
    _checks.positive("rtol", value)


@pytest.mark.parametrize("value", [0, -1.0, np.inf, np.nan, "1", None, True], ids=repr)
def test_positive_refuses(value):
    with pytest.raises(ValueError, match="`rtol` to be a positive number, found"):
        _checks.positive("rtol", value)


@pytest.mark.parametrize("value", [(1,), [20, 20], (np.int64(4), 4)], ids=repr)
def test_positive_integers_accepts(value):
    _checks.positive_integers("hidden", value)


@pytest.mark.parametrize("value", [(), 100, "100", (0,), (8, -8), (8.0, 8), None, ("8",)], ids=repr)
def test_positive_integers_refuses(value):
    with pytest.raises(ValueError, match=r"`hidden` to be a sequence of positive integers such as \(100, 100\), found"):
        _checks.positive_integers("hidden", value)


def test_choice_does_not_compare_arrays_entry_by_entry():
    with pytest.raises(ValueError, match=r"`initial_state` to be one of \['kernel', 'first'\], found array"):
        _checks.choice("initial_state", np.zeros(3), ("kernel", "first"))


@pytest.mark.parametrize(
    "values",
    [["a"], ("a",), {"a"}, pd.Index(["a"]), pd.Categorical(["a"]), iter(["a"])],
    ids=lambda values: type(values).__name__,
)
def test_names_of_any_kind(values):
    assert _checks.names("regulators", values) == ["a"]


@pytest.mark.parametrize("values", ["a", 5, True, np.nan], ids=repr)
def test_what_holds_no_names(values):
    with pytest.raises(TypeError, match=f"`regulators` to be a list of names of genes, found {values!r}"):
        _checks.names("regulators", values)


@pytest.mark.parametrize("mask", [[True, False], np.array([True, False]), pd.Series([True, False])], ids=type)
def test_a_mask_holds_no_names(mask):
    with pytest.raises(TypeError, match=r"found a mask of 2 values. Take its names, `list\(adata.var_names\[mask\]\)`"):
        _checks.names("regulators", mask)


def test_the_name_of_a_column_is_no_list_of_names():
    """Where there is no AnnData to look it up; in others it is the short form."""
    with pytest.raises(TypeError, match=r"found 'is_tf'.*`list\(adata.var_names\[adata.var\['is_tf'\]\]\)`"):
        _checks.names("regulators", "is_tf")


def test_a_matrix_of_many_genes_is_not_listed_as_a_whole():
    matrix = pd.DataFrame(np.eye(300)).add_prefix("gene")
    with pytest.raises(KeyError, match=r"\['source'\] not found in \['gene0'.* and more") as error:
        _checks.columns("network", matrix, ["source"])
    assert "gene20" not in str(error.value)


def test_a_column_of_a_table_that_is_there_twice():
    edges = pd.DataFrame([["a", "b", 1.0]], columns=["source", "target", "weight"])
    twice = pd.concat([edges, edges], axis=1)
    with pytest.raises(ValueError, match="one column 'source' in `prior`, found 2. Keep the first"):
        _checks.columns("prior", twice, ["source", "target"])
    with pytest.raises(ValueError, match="one column 'weight' in `prior`, found 2"):
        _checks.weights("prior", twice)
    _checks.columns("prior", twice.loc[:, ~twice.columns.duplicated()], ["source", "target", "weight"])


@pytest.mark.parametrize("values", [np.array([1j]), [1j], np.ma.masked_greater([1.0, 2.0], 1.0)])
def test_numbers_are_neither_complex_nor_masked(values):
    with pytest.raises(TypeError, match="`times` to be numbers, found"):
        _checks.numbers("times", values)
