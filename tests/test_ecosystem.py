"""Results go into other packages as they are. Each test calls the other package."""

from __future__ import annotations

from importlib.metadata import version

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from mudata import MuData

import sparsenode as sn
from sparsenode import _keys


def test_scanpy_plots_and_groups_the_results(results):
    layer = _keys.velocity(_keys.KEY_ADDED)
    sc.pp.neighbors(results, use_rep="sparsenode_trajectory", n_neighbors=10)
    sc.tl.umap(results, n_components=2)
    axes = sc.pl.umap(results, color=list(results.var_names[:2]), layer=layer, show=False)
    assert len(axes) == 2
    means = sc.get.aggregate(results, by="lineage", func="mean", layer=layer)
    rows = (results.obs["lineage"] == means.obs_names[0]).to_numpy()
    np.testing.assert_allclose(means.layers["mean"][0], results.layers[layer][rows].mean(0), rtol=1e-4, atol=1e-6)


def test_networkx_reads_the_stored_adjacency(results, fitted):
    """Rows are targets, so the edges of the transposed matrix go from regulators to targets."""
    matrix = results.varp["sparsenode_adjacency"]
    stored = nx.from_scipy_sparse_array(matrix.T.tocsr(), create_using=nx.DiGraph)
    stored = nx.relabel_nodes(stored, dict(enumerate(results.var_names)))
    exported = sn.tl.to_networkx(fitted.get_network())
    assert set(exported.edges) == set(stored.edges)
    for edge, values in exported.edges.items():
        assert stored.edges[edge]["weight"] == pytest.approx(values["weight"], rel=1e-5)


def test_decoupler_scores_regulators():
    """A regulator whose targets follow it is the more active the higher they are."""
    dc = pytest.importorskip("decoupler")
    generator = np.random.default_rng(0)
    activity = generator.normal(size=50)
    genes = [f"t{i}" for i in range(12)]
    network = pd.DataFrame({"source": "TF", "target": genes[:6], "weight": [1.0, 2, 1, -1, -2, -1]})
    loadings = np.r_[network["weight"], np.zeros(6)]
    values = 5 + activity[:, None] * loadings + 0.1 * generator.normal(size=(50, 12))
    adata = sc.AnnData(values.astype(np.float32), pd.DataFrame(index=[f"c{i}" for i in range(50)]))
    adata.var_names = genes
    dc.mt.ulm(adata, sn.tl.to_decoupler(network), tmin=3)
    assert np.corrcoef(adata.obsm["score_ulm"]["TF"], activity)[0, 1] > 0.95


def test_decoupler_takes_a_fitted_network(fitted, results):
    dc = pytest.importorskip("decoupler")
    net = sn.tl.to_decoupler(fitted.get_network())
    dc.mt.ulm(results, net, tmin=3)
    counts = net["source"].value_counts()
    assert set(results.obsm["score_ulm"]) <= set(counts.index[counts >= 3])


def test_mudata_holds_the_results(results, tmp_path):
    import mudata

    MuData({"rna": results}).write_h5mu(tmp_path / "results.h5mu")
    again = mudata.read_h5mu(tmp_path / "results.h5mu")["rna"]
    np.testing.assert_array_equal(again.layers["sparsenode_velocity"], results.layers["sparsenode_velocity"])


def test_cellrank_follows_the_velocities(results):
    """With velocities as kernel, cells go further forward in pseudotime than with neighbours alone."""
    cr = pytest.importorskip("cellrank")
    if np.lib.NumpyVersion(np.__version__) >= "2.3.0" and version("cellrank") == "2.0.7":
        pytest.skip("VelocityKernel of CellRank 2.0.7 passes arguments that numpy 2.3 has no longer")
    sc.pp.neighbors(results, n_neighbors=15, use_rep="X")
    kernel = cr.kernels.VelocityKernel(results, vkey="sparsenode_velocity", xkey="X")
    kernel.compute_transition_matrix(show_progress_bar=False)
    undirected = cr.kernels.ConnectivityKernel(results).compute_transition_matrix()
    times = results.obs["dpt_pseudotime"].to_numpy()
    forward, drift = ((k.transition_matrix @ times - times).mean() for k in (kernel, undirected))
    assert forward > drift + 0.01


def test_cellrank_takes_the_predictions_as_representation(results):
    cr = pytest.importorskip("cellrank")
    sc.pp.neighbors(results, n_neighbors=15, use_rep="sparsenode_trajectory")
    kernel = cr.kernels.PseudotimeKernel(results, time_key="dpt_pseudotime").compute_transition_matrix()
    times = results.obs["dpt_pseudotime"].to_numpy()
    assert (kernel.transition_matrix @ times - times).mean() > 0
