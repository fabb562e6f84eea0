"""Annotations of a modality and of the whole, which may hold the same."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from sparsenode._input._modalities import cell_annotation, same_values


@pytest.fixture
def mdata() -> MuData:
    cells = AnnData(np.ones((4, 2)), obs=pd.DataFrame(index=list("abcd")))
    cells.obs["time"] = [0.0, 1.0, np.nan, 3.0]
    cells.obsm["rna"] = pd.DataFrame({"left": [0.5, 1.0, 1.0, 0.0], "right": [0.5, 0.0, 0.0, 1.0]}, cells.obs_names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns that are copied
        mdata = MuData({"rna": cells, "atac": AnnData(np.ones((3, 1)), obs=pd.DataFrame(index=list("dea")))})
    mdata.obs = mdata.obs.drop(columns=[column for column in mdata.obs if "time" in column])
    return mdata


def test_missing_values_in_both_places_are_the_same(mdata):
    mdata.obs["time"] = mdata["rna"].obs["time"].reindex(mdata.obs_names)
    np.testing.assert_array_equal(cell_annotation(mdata, "rna", "time", "time_key"), [0.0, 1.0, np.nan, 3.0])
    mdata.obs.loc["b", "time"] = np.nan
    with pytest.raises(ValueError, match="different values in modality 'rna' and in `mdata`"):
        cell_annotation(mdata, "rna", "time", "time_key")


def test_the_mask_of_a_modality_is_no_annotation(mdata):
    """MuData keeps under the name of each modality which cells it has."""
    assert "rna" in mdata.obsm
    found = cell_annotation(mdata, "rna", "rna", "lineage_key", ("obs", "obsm"))
    pd.testing.assert_frame_equal(found, mdata["rna"].obsm["rna"])
    with pytest.raises(KeyError, match="found 'atac' in neither"):
        cell_annotation(mdata, "rna", "atac", "lineage_key", ("obs", "obsm"))


def test_values_of_another_shape_are_others():
    column = np.ones(3)
    assert same_values(column, np.ones(3, dtype=int))
    assert not same_values(column, np.ones((3, 1)))
    assert not same_values(column, np.ones(1))
    table = sparse.csr_matrix(np.eye(3))
    assert same_values(table, table.copy())
    assert same_values(table, np.eye(3))
    assert not same_values(table, 2 * table)
