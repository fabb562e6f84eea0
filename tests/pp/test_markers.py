"""Genes that are highest in a cell type, against the test of scipy."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from sparsenode.pp._markers import top_features


@pytest.fixture
def cells() -> tuple[AnnData, pd.Series]:
    """Three groups of cells and forty genes of few levels, so that many cells tie; some genes are higher in a group, some lower."""
    generator = np.random.default_rng(0)
    groups = pd.Series(np.repeat(["a", "b", "c"], 25))
    shift = np.linspace(-2, 2, 40) * (groups == "a").to_numpy()[:, None]
    x = np.log1p(generator.poisson(np.exp(0.3 + 0.5 * shift))).astype(np.float64)
    groups.index = groups.index.astype(str)
    return AnnData(x, obs=pd.DataFrame(index=groups.index)), groups


def test_rank_test_as_scipy(cells):
    """The rank test with its correction for ties, adjusted over all genes; only what is higher is kept, best first."""
    adata, groups = cells
    own = (groups == "a").to_numpy()
    found = stats.mannwhitneyu(adata.X[own], adata.X[~own], use_continuity=False, method="asymptotic", axis=0)
    adjusted = stats.false_discovery_control(found.pvalue)
    higher = found.statistic > own.sum() * (~own).sum() / 2
    assert ((adjusted < 0.05) & ~higher).any()
    # A level that lies between the p-values with and without the correction for ties of some gene
    ranks = np.apply_along_axis(stats.rankdata, 0, adata.X)
    deviation = np.sqrt(own.sum() * (~own).sum() * (len(own) + 1) / 12)
    uncorrected = stats.false_discovery_control(
        2 * stats.norm.sf(np.abs(ranks[own].sum(0) - own.sum() * (len(own) + 1) / 2) / deviation)
    )
    level = next(
        p
        for p in np.sqrt(adjusted * uncorrected)[higher]
        if (adjusted < p)[higher].sum() > (uncorrected < p)[higher].sum()
    )
    kept = top_features(adata, groups, ["a"], 40, level, None, "wilcoxon")["a"]
    assert set(kept) == set(np.flatnonzero((adjusted <= level) & higher))
    assert (np.diff(found.pvalue[kept]) >= -1e-12).all()
    assert list(top_features(adata, groups, ["a"], 3, level, None, "wilcoxon")["a"]) == list(kept[:3])


def test_reads_the_layer(cells):
    adata, groups = cells
    expected = top_features(adata, groups, ["a", "c"], 5, None, None, "t-test")
    adata.layers["logged"], adata.X = adata.X.copy(), np.round(10 * adata.X[:, ::-1])
    found = top_features(adata, groups, ["a", "c"], 5, None, "logged", "t-test")
    assert {name: list(genes) for name, genes in found.items()} == {k: list(v) for k, v in expected.items()}
    adata.layers["counts"] = adata.X
    with pytest.raises(ValueError, match=r"`adata.layers\['counts'\]`, found integers up to"):
        top_features(adata, groups, ["a"], 5, None, "counts", "t-test")


def test_zeros_and_ones_are_no_counts(cells):
    adata, groups = cells
    adata.X = (adata.X > 1).astype(np.float32)
    assert len(top_features(adata, groups, ["a"], 5, None, None, "t-test")["a"]) == 5
    adata.X[0, 0] = 2.0
    with pytest.raises(ValueError, match="found integers up to 2: counts"):
        top_features(adata, groups, ["a"], 5, None, None, "t-test")


def test_values_in_a_file_are_to_be_read_as_the_message_says(cells, tmp_path):
    adata, groups = cells
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    try:
        with pytest.raises(TypeError, match=r"without `backed`, or .* `mdata\['rna'\].to_memory\(\)`"):
            top_features(backed, groups, ["a"], 5, None, None, "t-test")
        found = top_features(backed.to_memory(), groups, ["a"], 5, None, None, "t-test")
    finally:
        backed.file.close()
    assert list(found["a"]) == list(top_features(adata, groups, ["a"], 5, None, None, "t-test")["a"])
