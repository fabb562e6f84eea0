"""Lineages of cells from cell types and from fate probabilities."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sparsenode.pp._lineages import lineages_of_cell_types, lineages_of_fates

CELLS = ["a", "b", "c", "d"]


@pytest.mark.parametrize("dtype", ["category", "object", "Int64"])
def test_numbers_as_cell_types_and_as_names_of_lineages(dtype):
    kinds = pd.Series([1, 2, 3, None], CELLS, dtype="Int64").astype(dtype)
    table = lineages_of_cell_types(kinds, {1: [1, 2], "all": ["2", 3]}, "leiden")
    assert list(table.columns) == ["1", "all"]
    assert list(table.index) == CELLS
    assert table.to_numpy().tolist() == [[True, False], [True, True], [False, True], [False, False]]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_cells_without_a_type_are_not_of_the_type_nan(missing):
    kinds = pd.Series(["x", missing], ["a", "b"])
    for name in ("nan", "None", "<NA>"):
        with pytest.raises(ValueError, match=rf"no cells of \['{name}'\]. There are \['x'\]"):
            lineages_of_cell_types(kinds, {"one": ["x", name]}, "kind")


@pytest.mark.parametrize(
    ("lineages", "message"),
    [
        ({}, "at least one lineage"),
        ({"one": []}, r"lineage 'one', found \[\]"),
        ({"one": "x"}, "lineage 'one', found 'x'"),
    ],
)
def test_refuses_lineages_without_cell_types(lineages, message):
    with pytest.raises(ValueError, match=message):
        lineages_of_cell_types(pd.Series(["x"]), lineages, "kind")


def test_refuses_lineages_that_are_no_mapping():
    with pytest.raises(TypeError, match=r"cell types by lineage, .* found \['x'\]"):
        lineages_of_cell_types(pd.Series(["x"]), ["x"], "kind")


def test_columns_of_fates_are_text():
    adata = AnnData(np.zeros((2, 1)), obs=pd.DataFrame(index=["a", "b"]))
    adata.obsm["fates"] = pd.DataFrame([[0.25, 0.75], [np.nan, 1.0]], adata.obs_names, [3, 4])
    table = lineages_of_fates(adata, "fates")
    assert list(table.columns) == ["3", "4"]
    assert table.to_numpy().tolist() == [[0.25, 0.75], [0.0, 1.0]]


@pytest.mark.parametrize("value", [-0.1, np.inf])
def test_refuses_fates_that_are_no_probabilities(value):
    adata = AnnData(np.zeros((2, 1)), obs=pd.DataFrame(index=["a", "b"]))
    adata.obsm["fates"] = pd.DataFrame([[0.2, 0.8], [value, 1.0]], adata.obs_names, ["x", "y"])
    with pytest.raises(ValueError, match=f"non-negative and finite, found {value}"):
        lineages_of_fates(adata, "fates")


def test_refuses_fates_that_are_complex_or_masked():
    adata = AnnData(np.zeros((2, 1)), obs=pd.DataFrame(index=["a", "b"]))
    adata.obsm["fates"] = pd.DataFrame([[0.2, 0.8j], [0.5, 0.5]], adata.obs_names, ["x", "y"])
    with pytest.raises(TypeError, match=r"`adata.obsm\['fates'\]\['y'\]`, found dtype complex128"):
        lineages_of_fates(adata, "fates")
    adata.obsm["fates"] = np.ma.masked_less([[0.2, 0.8], [0.5, 0.5]], 0.3)
    with pytest.raises(ValueError, match="without masked values, found 1 of 4 masked"):
        lineages_of_fates(adata, "fates")


def test_refuses_lineages_of_other_cells():
    """As of a subset of the cells: before anything is computed, for none of these would be reached from any root."""
    adata = AnnData(np.zeros((2, 1)), obs=pd.DataFrame(index=["a", "b"]))
    adata.obsm["fates"] = pd.DataFrame([[1.0, 0.0, np.nan], [1.0, 0.0, 0.0]], adata.obs_names, ["x", "y", "z"])
    with pytest.raises(ValueError, match=r"probability of \['y', 'z'\]. Drop these columns"):
        lineages_of_fates(adata, "fates")
