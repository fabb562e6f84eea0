"""Scaling, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from sklearn.preprocessing import MinMaxScaler

from sparsenode import pp
from sparsenode._input import _expression


@pytest.fixture
def donors(make_adata) -> tuple[AnnData, AnnData]:
    return make_adata(seed=1), make_adata(seed=2)


def test_as_scikit_learn_and_recorded_for_other_donors(donors):
    one, other = donors
    other = other[:, ::-1].copy()
    scaler = MinMaxScaler().fit(one.X.astype(float))
    raw = one.X.copy()
    pp.min_max_scale(one)
    pp.min_max_scale(other, reference=one)
    np.testing.assert_allclose(one.layers["min_max"], scaler.transform(raw.astype(float)), atol=1e-6)
    expected = scaler.transform(other.X[:, ::-1].astype(float))[:, ::-1]
    np.testing.assert_allclose(other.layers["min_max"], expected, atol=1e-5)
    assert expected.min() < 0 or expected.max() > 1
    np.testing.assert_array_equal(one.X, raw)
    np.testing.assert_array_equal(other.var["min_max_low"].to_numpy()[::-1], one.var["min_max_low"])


def test_sparse_layers_and_constant_genes(donors):
    adata, _ = donors
    adata.X[:, 3] = 2.0
    adata.layers["sparse"] = sparse.csc_matrix(adata.X)
    pp.min_max_scale(adata, key_added="dense")
    pp.min_max_scale(adata, layer="sparse", key_added="own")
    np.testing.assert_array_equal(adata.layers["dense"], adata.layers["own"])
    assert (adata.layers["own"][:, 3] == 0).all()


def test_survives_a_file(donors, tmp_path):
    import anndata

    one, other = donors
    pp.min_max_scale(one)
    one.write_h5ad(tmp_path / "one.h5ad")
    pp.min_max_scale(other, reference=anndata.read_h5ad(tmp_path / "one.h5ad"))
    again = other.layers["min_max"].copy()
    pp.min_max_scale(other, reference=one)
    np.testing.assert_array_equal(other.layers["min_max"], again)


def test_refuses_what_it_cannot_scale(donors):
    one, other = donors
    with pytest.raises(KeyError, match=r"\['min_max_low', 'min_max_high'\] not found"):
        pp.min_max_scale(other, reference=one)
    pp.min_max_scale(one)
    other.var_names = ["new", *other.var_names[1:]]
    with pytest.raises(ValueError, match=r"all 8 genes in `reference`, 1 of them.*\['new'\]. Leave them out"):
        pp.min_max_scale(other, reference=one)
    with pytest.raises(ValueError, match="'min_max' twice"):
        pp.min_max_scale(one, layer="min_max")
    with pytest.raises(KeyError, match="'nothing'"):
        pp.min_max_scale(one, layer="nothing")
    one.layers["counts"] = one.X.copy()
    with pytest.raises(
        ValueError, match="a new layer or one that was scaled before, found 'counts' without its ranges"
    ):
        pp.min_max_scale(one, key_added="counts")
    np.testing.assert_array_equal(one.layers["counts"], one.X)
    pp.min_max_scale(one)  # its own may be written anew
    one.X[0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        pp.min_max_scale(one)


def test_layers_in_chunks_under_other_keys(donors, monkeypatch):
    """What is read is the layer, whatever stands in ``.X``, and the range is that of all chunks."""
    one, other = donors
    for adata in donors:
        adata.layers["own"] = adata.X[:, ::-1] ** 2
        adata.X = np.zeros_like(adata.X)
    monkeypatch.setattr(_expression, "_CHUNK_VALUES", one.n_vars * 7)
    assert one.n_obs > 14
    pp.min_max_scale(one, layer="own", key_added="scaled")
    pp.min_max_scale(other, layer="own", key_added="scaled", reference=one)
    scaler = MinMaxScaler().fit(one.layers["own"].astype(float))
    for adata in donors:
        expected = scaler.transform(adata.layers["own"].astype(float))
        np.testing.assert_allclose(adata.layers["scaled"], expected, atol=1e-5)
        np.testing.assert_allclose(adata.var["scaled_low"], scaler.data_min_, rtol=1e-6)
        np.testing.assert_allclose(adata.var["scaled_high"], scaler.data_max_, rtol=1e-6)
        assert {*adata.layers} - {None} == {"own", "scaled"}  # from anndata 0.13 on, None stands for .X


def test_constant_genes_are_zero_in_other_donors_too(donors):
    one, other = donors
    one.X[:, 3] = 2.0
    pp.min_max_scale(one)
    pp.min_max_scale(other, reference=one)
    assert (other.layers["min_max"][:, 3] == 0).all()


def test_refuses_what_is_no_expression(donors):
    one, _ = donors
    with pytest.raises(TypeError, match="`adata` to be an AnnData object, found MuData"):
        pp.min_max_scale(MuData({"rna": one}))
    one.layers["text"] = np.full(one.shape, "1")
    with pytest.raises(TypeError, match="numeric expression in `adata.layers\\['text'\\]`"):
        pp.min_max_scale(one, layer="text")


@pytest.mark.parametrize("key", ["a/b", "", None, 5])
def test_refuses_keys_that_no_file_can_hold(donors, key):
    with pytest.raises(ValueError, match="Expected `key_added` to be a name"):
        pp.min_max_scale(donors[0], layer=None, key_added=key)
    assert not set(donors[0].layers) - {None}


def test_refuses_a_reference_without_ranges_of_all_genes(donors):
    """As an outer concatenation leaves them: such genes would all be zero."""
    one, other = donors
    with pytest.raises(TypeError, match="Expected `reference` to be an AnnData object, found str"):
        pp.min_max_scale(other, reference="one")
    pp.min_max_scale(one)
    one.var.loc[one.var_names[3], "min_max_high"] = np.nan
    with pytest.raises(
        ValueError, match=f"finite ranges of all genes in `reference`, found others of 1: .*{one.var_names[3]}"
    ):
        pp.min_max_scale(other, reference=one)
