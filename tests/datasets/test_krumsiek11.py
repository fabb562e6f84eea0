from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import sparsenode as sn


@pytest.fixture(scope="module")
def adata():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return sn.datasets.krumsiek11()


def test_network_by_itself():
    network = sn.datasets.krumsiek11_network()
    assert list(network.columns) == ["source", "target", "weight"]
    assert len(network) == 30
    assert not network.duplicated(["source", "target"]).any()
    assert set(network["weight"]) == {1.0, -1.0}
    assert len(set(network["source"]) | set(network["target"])) == 11


@pytest.mark.data
def test_network_is_that_of_the_reference_file(data_dir):
    reference = pd.read_csv(data_dir / "beeline" / "krumsiek11_refNetwork.csv")
    expected = {(row.Gene1, row.Gene2, 1.0 if row.Type == "+" else -1.0) for row in reference.itertuples()}
    assert set(sn.datasets.krumsiek11_network().itertuples(index=False, name=None)) == expected


def test_each_call_gives_its_own_table():
    first = sn.datasets.krumsiek11_network()
    first.loc[0, "weight"] = 7.0
    assert 7.0 not in set(sn.datasets.krumsiek11_network()["weight"])


def test_cells_are_those_of_scanpy(adata):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = sc.datasets.krumsiek11()
    np.testing.assert_array_equal(adata.X, source.X)
    assert (round(float(adata.X.min()), 2), round(float(adata.X.max()), 2)) == (-0.02, 1.01)  # as the docs say
    assert adata.shape == (640, 11)
    assert adata.obs_names.is_unique
    assert set(adata.var_names) == set(adata.uns["true_network"]["source"]) | set(adata.uns["true_network"]["target"])


def test_lineages_are_runs_that_end_in_their_fate(adata):
    lineage = adata.obs["lineage"]
    assert list(lineage.cat.categories) == ["Mo", "Ery", "Mk", "Neu"]
    for run, name in enumerate(lineage.cat.categories):
        rows = slice(160 * run, 160 * (run + 1))
        assert (lineage.iloc[rows] == name).all()
        times = adata.obs["simulation_time"].iloc[rows].to_numpy()
        np.testing.assert_allclose(times, np.linspace(0, 1, 160), atol=1e-12)
        assert (adata.obs["cell_type"].iloc[rows].iloc[:80] == "progenitor").all()
        assert (adata.obs["cell_type"].iloc[rows].iloc[80:] == name).all()


def test_ready_for_the_model_and_for_files(adata, tmp_path):
    adata = adata.copy()
    sn.SparseNODE.setup_anndata(adata, time_key="simulation_time", lineage_key="lineage")
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(
        again.uns["true_network"].reset_index(drop=True), sn.datasets.krumsiek11_network(), check_dtype=False
    )
