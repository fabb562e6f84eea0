"""The model class: what it accepts, how it is set up, and what it refuses before training."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import rich.pretty  # scvi-tools uses it without importing it  # noqa: F401
import scvi
from mudata import MuData

import sparsenode as sn

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
QUICK = {"max_epochs": 2, "steps_per_epoch": 3} | QUIET


def new(adata, **arguments) -> sn.SparseNODE:
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    return sn.SparseNODE(adata, **({"objective": "trajectory", "hidden": (8, 8), "n_knots": 5} | arguments))


# What it accepts


@pytest.mark.parametrize("other", [np.zeros((20, 3)), pd.DataFrame({"a": [1.0]}), "cells.h5ad"], ids=type)
def test_not_an_anndata(other):
    with pytest.raises(TypeError, match=f"AnnData object, found {type(other).__name__}"):
        sn.SparseNODE.setup_anndata(other)
    with pytest.raises(TypeError, match=f"AnnData.*found {type(other).__name__}"):
        sn.SparseNODE(other)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_mudata_needs_its_own_set_up(adata):
    mudata = MuData({"rna": adata})
    with pytest.raises(TypeError, match="AnnData object, found MuData"):
        sn.SparseNODE.setup_anndata(mudata)
    with pytest.raises(ValueError, match="setup_mudata"):
        sn.SparseNODE(mudata)


# Set-up


def test_never_set_up_applies_the_defaults_and_says_so(adata):
    with pytest.warns(UserWarning, match=r"not set up: using `adata.obs\['dpt_pseudotime'\]` .* one lineage") as caught:
        model = sn.SparseNODE(adata, objective="trajectory", hidden=(8, 8))
    assert caught[0].filename == __file__
    assert list(model.trajectories.index) == ["all"]
    assert model.registry["setup_args"]["time_key"] == "dpt_pseudotime"


def test_never_set_up_and_without_pseudotime(adata):
    del adata.obs["dpt_pseudotime"]
    with pytest.warns(UserWarning, match="not set up"), pytest.raises(KeyError, match="`time_key`"):
        sn.SparseNODE(adata)


def test_set_up_in_another_process(adata):
    """Its keys are not in the file or the copy, as the user may think they are."""
    adata.uns["_scvi_uuid"] = adata.uns["_scvi_manager_uuid"] = "of another process"
    with pytest.warns(UserWarning, match="not set up for SparseNODE in this process: using .* one lineage"):
        sn.SparseNODE(adata, objective="trajectory", hidden=(8, 8))


def test_set_up_is_not_announced(adata):
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = sn.SparseNODE(adata, objective="trajectory", hidden=(8, 8))
    assert model.lineages == ["erythroid", "myeloid"]


def test_set_up_by_another_model(adata):
    adata.X = np.random.default_rng(0).poisson(3, adata.shape).astype(np.float32)
    scvi.model.SCVI.setup_anndata(adata)
    with pytest.warns(UserWarning, match="not set up"):
        model = sn.SparseNODE(adata, objective="trajectory", hidden=(8, 8), n_knots=5)
    model.train(**QUICK)
    assert np.isfinite(model.predict()).all()
    scvi.model.SCVI(adata)  # and the other model still finds its own set-up


def test_setting_up_again_replaces_the_set_up(adata):
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    sn.SparseNODE.setup_anndata(adata)
    assert sn.SparseNODE(adata, objective="trajectory", hidden=(8, 8)).lineages == ["all"]


def test_copy_of_what_was_set_up(adata):
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    with pytest.raises(
        ValueError, match=r"a copy or a subset of one. Call `SparseNODE.setup_anndata\(adata, …\)` with it too"
    ):
        sn.SparseNODE(adata.copy())


def test_misspelt_arguments_of_the_set_up(adata):
    with pytest.raises(
        TypeError, match=r"among \['layer', 'time_key', 'lineage_key', 'batch_key'\], found \['lineages'\]"
    ):
        sn.SparseNODE.setup_anndata(adata, lineages="lineage")


def test_a_copy_that_is_set_up_leaves_the_original_set_up(adata, tmp_path):
    """Donors are cut from one object, and each of them is set up."""
    model = new(adata)
    parts = [adata[rows].copy() for rows in (slice(0, 60), slice(60, 120))]
    for part in parts:
        sn.SparseNODE.setup_anndata(part, lineage_key="lineage")
    arguments = {"objective": "trajectory", "hidden": (4,)}
    for cells in (*parts, adata):
        assert sn.SparseNODE(cells, **arguments).adata is cells
    model.train(**QUICK)
    model.save(tmp_path / "model", save_anndata=True)
    for loaded in (sn.SparseNODE.load(tmp_path / "model"), sn.SparseNODE.load(tmp_path / "model", adata.copy())):
        assert sn.SparseNODE(adata, **arguments).adata is adata
        np.testing.assert_array_equal(loaded.predict(), model.predict())
    np.testing.assert_array_equal(sn.SparseNODE(adata, **arguments).trajectories, model.trajectories)


def test_set_up_leaves_the_expression_alone(adata):
    before = adata.X.copy()
    new(adata)
    np.testing.assert_array_equal(adata.X, before)
    assert adata.X.dtype == np.float32


def test_overview_of_the_set_up(adata, capsys):
    model = new(adata)
    model.view_anndata_setup()
    out = capsys.readouterr().out
    assert "Trajectories" in out
    assert "myeloid" in out


def test_text(adata, capsys):
    model = new(adata, regularizer=sn.regularizers.CNODE([0.1, 0.2]), n_seeds=3)
    text = repr(model) + capsys.readouterr().out  # some versions of scvi-tools return it, others print it
    for part in ("8 genes", "2 trajectories", "2 lineages", "CNODE", "6 replicates"):
        assert part in " ".join(text.split())


# Untrained


@pytest.mark.parametrize(
    "call",
    [
        lambda m: m.predict(),
        lambda m: m.predict(times=[1.0]),
        lambda m: m.get_velocity(),
        lambda m: m.get_adjacency(),
        lambda m: m.get_network(),
        lambda m: m.get_sparsity(),
        lambda m: m.evaluate(),
        lambda m: m.write_results(),
        lambda m: m.get_edge_frequency(),
        lambda m: m.get_regularization_path(),
        lambda m: m.select(),
        lambda m: m.prune(),
    ],
    ids=range(12),
)
def test_untrained(adata, call):
    with pytest.raises(RuntimeError, match=r"untrained one. Call `train\(\)` first"):
        call(new(adata))


# Batches


def test_batches_of_unlike_lengths_are_warned_of(make_adata, recwarn):
    """They may share one clock, of which one saw a part; who says how it is gets no warning."""
    adata = make_adata(n_obs=400, n_donors=2)
    late = (adata.obs["donor"] == "donor0") & (adata.obs["dpt_pseudotime"] > 1.5)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage", batch_key="donor")
    sn.SparseNODE(adata, objective="trajectory", hidden=(4,))
    adata = adata[~late].copy()
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage", batch_key="donor")
    for align in (True, False):
        sn.SparseNODE(adata, objective="trajectory", hidden=(4,), align_batches=align)
    assert not [one for one in recwarn if "stretched" in str(one.message)]
    with pytest.warns(UserWarning, match=r"'(myeloid|erythroid)' is .* times as long in one batch"):
        sn.SparseNODE(adata, objective="trajectory", hidden=(4,))
