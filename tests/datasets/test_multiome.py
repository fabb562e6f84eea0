"""The simulated multiome: its truth holds in the data."""

from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import pytest
from scipy.integrate import solve_ivp

import sparsenode as sn
from sparsenode.datasets import _multiome, _multiome_genome


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


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_dynamics_are_those_of_the_equation(stage):
    grid = np.linspace(0, 1, 400)
    drive = _multiome.activity(grid, stage)
    solution = solve_ivp(
        lambda t, x: (np.interp(t, grid, drive) - x) / _multiome._LAG, (0, 1), drive[:1], t_eval=grid, max_step=1e-3
    )
    np.testing.assert_allclose(_multiome.follow(drive, grid[1]), solution.y[0], atol=0.02)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_shift_moves_the_whole_programme(stage):
    grid = np.linspace(0, 1, 50)
    np.testing.assert_allclose(_multiome.activity(grid, stage, 0.03), _multiome.activity(grid - 0.03, stage))


def test_transcription_starts_at_the_first_base_on_either_strand():
    forward, reverse = (_multiome_genome.Gene("g", "chr1", strand, 1000, {}) for strand in "+-")
    assert forward.span(0, 1) == reverse.span(0, 1) == (1000, 1001)
    assert forward.span(10, 5) == (1010, 1015)
    assert reverse.span(10, 5) == (986, 991)


def test_targets_have_one_to_three_regulators_beside_themselves(truth):
    assert (truth["source"] != truth["target"]).all()
    numbers = truth.groupby("target")["source"].nunique()
    factors = numbers.index.str.startswith("TF_")
    assert set(numbers[~factors]) == {1, 2, 3}
    assert set(numbers[factors]) == {1, 2}


def test_what_misleads_is_closed_or_always_open(mdata):
    atac = mdata["atac"]
    by_type = pd.DataFrame(atac.X.toarray(), columns=atac.var_names).groupby(atac.obs["cell_type"].to_numpy()).mean()
    by_kind = by_type.T.groupby(atac.var["kind"].to_numpy()).mean()
    assert by_kind.loc["closed"].max() < 0.05
    assert by_kind.loc["constitutive"].min() > 0.5


@pytest.fixture(scope="module")
def many() -> mudata.MuData:
    """Many cells of one donor."""
    return sn.datasets.simulated_multiome(
        n_cells=4000, n_background_genes=100, n_background_peaks=200, n_donors=1, seed=3
    )


def test_stem_cells_of_both_fates_are_alike(many):
    stem = (many["rna"].obs["cell_type"] == "stem").to_numpy()
    fates = many["rna"].obs["true_lineage"][stem].to_numpy()
    truth = many.uns["true_network"]
    own = truth[truth["cell_type"] == "stem"]
    for name, features in (("rna", own["target"].unique()), ("atac", own["peak"].unique())):
        values = many[name][stem, features].X.toarray().mean(1)
        one, other = (values[fates == fate].mean() for fate in ("erythroid", "myeloid"))
        assert one == pytest.approx(other, rel=0.15)


def test_targets_follow_their_factors(many):
    """Later by the lifetime of their messenger RNA, in the mean time of what is expressed beyond the level of other cells."""
    rna, delays = many["rna"], []
    x, times = rna.to_df(), rna.obs["true_time"].to_numpy()
    regulators = many.uns["true_network"].groupby("target")["source"].agg(set)
    for fate in ("erythroid", "myeloid"):
        own = (rna.obs["true_lineage"] == fate).to_numpy()
        beyond = x[own] - x[~own].mean()
        means = beyond.mul(times[own], axis=0).sum() / beyond.sum()
        for gene in [name for name in x if name.startswith(f"early_{fate}")]:
            delays.append(means[gene] - means[list(regulators[gene])].mean())
    assert len(delays) == 24
    assert np.mean(delays) == pytest.approx(0.04, abs=0.01)


def test_counts_of_genes_are_negative_binomial(many):
    """Of the dispersion 0.1, in cells whose depth varies by a quarter; in one mean level for all background genes."""
    x = many["rna"][:, many["rna"].var_names.str.startswith("background")].X.toarray()
    mean = x.mean(0)
    assert np.median(mean) == pytest.approx(0.5, rel=0.3)
    excess = ((x.var(0) - mean) / mean**2).mean()
    assert excess == pytest.approx(1.1 * np.exp(0.25**2) - 1, rel=0.15)


def test_depth_varies_between_cells_and_donors(many):
    peaks = many["atac"][:, (many["atac"].var["kind"] == "constitutive").to_numpy()].X.toarray().sum(1)
    spread = np.sqrt(peaks.var() - peaks.mean()) / peaks.mean()  # without that of Poisson counts
    assert spread == pytest.approx(np.sqrt(np.exp(0.25**2) - 1), rel=0.1)
    donors = sn.datasets.simulated_multiome(4000, n_background_genes=0, n_background_peaks=0, n_donors=30)
    for adata in donors.mod.values():
        totals = pd.Series(np.asarray(adata.X.sum(1)).ravel()).groupby(adata.obs["donor"].to_numpy()).mean()
        assert np.log(totals).std() == pytest.approx(0.2, rel=0.4)


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
    assert sn.datasets.simulated_multiome(100, n_background_genes=10, n_background_peaks=200)["rna"].n_vars == 95
