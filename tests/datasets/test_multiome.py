"""The simulated multiome: its truth holds in the data."""

from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import pytest
from scipy.integrate import solve_ivp

import sparsenode as sn
from sparsenode.datasets import _multiome


@pytest.fixture(scope="module")
def mdata() -> mudata.MuData:
    return sn.datasets.simulated_multiome(seed=1)


@pytest.fixture(scope="module")
def truth(mdata) -> pd.DataFrame:
    return mdata.uns["true_network"]


def test_counts(mdata):
    for adata in mdata.mod.values():
        values = adata.X.data
        assert (values == np.rint(values)).all()
        assert values.min() > 0
        assert adata.obs_names.equals(mdata.obs_names)
    assert mdata["rna"].n_vars == 75 + 10 + 225
    assert mdata["rna"].var["is_tf"].sum() == 25


def test_true_peaks_lie_where_the_table_says(mdata, truth):
    assigned = sn.pp.assign_peaks(mdata["atac"], mdata.uns["annotation"])
    found = set(assigned[["peak", "gene", "region"]].itertuples(index=False, name=None))
    for row in truth.itertuples():
        if row.recoverable:
            assert (row.peak, row.target, row.region) in found
        else:
            assert row.peak not in set(assigned["peak"])
    assert set(truth["region"]) == {"promoter", "exon", "intron", "distal", "far"}


def test_true_peaks_hold_the_motif_and_open_with_the_cell_type(mdata, truth):
    atac = mdata["atac"]
    motifs = atac.varm["motifs"]
    assert all(motifs.loc[row.peak, row.source] for row in truth.itertuples())
    means = pd.DataFrame(atac.X.toarray(), columns=atac.var_names).groupby(atac.obs["cell_type"].to_numpy()).mean()
    for cell_type, peaks in truth.groupby("cell_type")["peak"]:
        assert (means[peaks].idxmax() == cell_type).all()


def test_no_other_peak_supports_an_edge_by_all_that_can_be_seen(mdata, truth):
    """Open in one cell type, near a gene of its programme, with a motif of a factor of its programme: only true edges."""
    atac = mdata["atac"]
    kinds = atac.var["kind"]
    motifs = atac.varm["motifs"]
    programme = truth.groupby("target")["cell_type"].first()
    true = set(truth[["peak", "target", "source"]].itertuples(index=False, name=None))
    means = pd.DataFrame(atac.X.toarray(), columns=atac.var_names).groupby(atac.obs["cell_type"].to_numpy()).mean()
    factors = truth.groupby("cell_type")["source"].agg(set)
    for row in sn.pp.assign_peaks(atac, mdata.uns["annotation"]).itertuples():
        own = programme.get(row.gene)
        if own is None or kinds[row.peak] in {"closed", "constitutive"} or means[row.peak].idxmax() != own:
            continue
        for factor in motifs.columns[motifs.loc[row.peak]]:
            if factor in factors[own]:
                assert (row.peak, row.gene, factor) in true


def test_genes_rise_with_their_factors(mdata, truth):
    rna = mdata["rna"]
    means = pd.DataFrame(rna.X.toarray(), columns=rna.var_names).groupby(rna.obs["cell_type"].to_numpy()).mean()
    for gene, rows in truth.groupby("target"):
        assert means[gene].idxmax() == rows["cell_type"].iloc[0]
    flat = means[[name for name in rna.var_names if name.startswith(("background", "TF_idle"))]]
    assert (flat.max() / flat.min()).median() < 2


def test_dynamics_are_those_of_the_equation():
    grid = np.linspace(0, 1, 400)
    drive = _multiome.activity(grid, 1)
    solution = solve_ivp(
        lambda t, x: (np.interp(t, grid, drive) - x) / _multiome._LAG, (0, 1), drive[:1], t_eval=grid, max_step=1e-3
    )
    np.testing.assert_allclose(_multiome.follow(drive, grid[1]), solution.y[0], atol=0.02)


def test_seeds_and_files(mdata, tmp_path):
    again = sn.datasets.simulated_multiome(seed=1)
    for name in ("rna", "atac"):
        assert (again[name].X != mdata[name].X).nnz == 0
    pd.testing.assert_frame_equal(again.uns["true_network"], mdata.uns["true_network"])
    other = sn.datasets.simulated_multiome(seed=2)
    assert not other.uns["true_network"].equals(mdata.uns["true_network"])
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    read = mudata.read_h5mu(tmp_path / "cells.h5mu")
    pd.testing.assert_frame_equal(read.uns["annotation"], mdata.uns["annotation"], check_dtype=False)
    assert {k: list(v) for k, v in read.uns["lineages"].items()} == mdata.uns["lineages"]
    assert (read["atac"].varm["motifs"].to_numpy() == mdata["atac"].varm["motifs"].to_numpy()).all()


def test_sizes(mdata):
    small = sn.datasets.simulated_multiome(n_cells=100, n_background_genes=0, n_background_peaks=0, n_donors=1)
    assert small["rna"].shape == (100, 85)
    assert list(small["rna"].obs["donor"].cat.categories) == ["donor0"]
    with pytest.raises(ValueError, match="`n_cells`.*99"):
        sn.datasets.simulated_multiome(n_cells=99)
    with pytest.raises(ValueError, match="10 genes for 600 peaks"):
        sn.datasets.simulated_multiome(n_background_genes=10)
