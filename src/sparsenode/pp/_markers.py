"""Genes and peaks that are highest in a cell type."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData

from sparsenode._input._expression import are_whole, expression, is_in_memory, place, require_finite, sample, stored

Method = Literal["t-test", "t-test_overestim_var", "wilcoxon"]


def top_features(
    adata: AnnData,
    groups: pd.Series,
    names: Sequence[str],
    n_top: int,
    max_pvalue: float | None,
    layer: str | None,
    method: Method,
) -> dict[str, np.ndarray]:
    """Positions of the variables that rank first in each group against all other cells, best first.

    Parameters
    ----------
    adata
        Cells × variables, normalised.
    groups
        Group of every cell.
    names
        Groups to rank for.
    n_top
        Number of variables, at most.
    max_pvalue
        Adjusted p-value, at most, of variables that are higher in the group; ``None`` goes by rank alone.
    layer, method
        As in :func:`scanpy.tl.rank_genes_groups`.
    """
    x = expression(adata, layer)
    if not is_in_memory(x):
        raise TypeError(
            f"Expected values in memory in {place(layer)}, found {type(x).__name__}. Read the file without `backed`, or "
            "pass MuData of modalities in memory, such as `mdata['rna'].to_memory()`."
        )
    require_finite(stored(x), layer)
    _refuse_counts(stored(x), layer)
    # Only a frame around the same matrix: scanpy writes its results here, not into the data.
    labels = pd.DataFrame({"group": groups.astype(str).astype("category").to_numpy()}, index=adata.obs_names)
    positions = pd.DataFrame(index=pd.Index(map(str, range(adata.n_vars))))
    frame = AnnData(x, obs=labels, var=positions)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=pd.errors.PerformanceWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning)  # scanpy divides by the variance of constant genes
        sc.tl.rank_genes_groups(frame, "group", groups=list(names), method=method, tie_correct=method == "wilcoxon")
    found = frame.uns["rank_genes_groups"]
    result = {}
    for name in names:
        order = found["names"][name].astype(np.int64)
        if max_pvalue is not None:
            order = order[(found["pvals_adj"][name] <= max_pvalue) & (found["scores"][name] > 0)]
        result[name] = order[:n_top]
    return result


def _refuse_counts(values: np.ndarray, layer: str | None) -> None:
    """Refuse counts: cells with more of them would seem to be higher in everything. Zeros and ones pass."""
    values = sample(values)
    if values.size and values.max() > 1 and are_whole(values):
        raise ValueError(
            f"Expected normalised values in {place(layer)}, found integers up to {values.max():g}: counts. Call "
            "`sc.pp.normalize_total` and `sc.pp.log1p` first, for expression and for accessibility."
        )
