"""Scaling of genes, recorded so that other cells can be scaled alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from sparsenode import _checks
from sparsenode._input._expression import check_expression, chunks, gene_positions


def min_max_scale(
    adata: AnnData, layer: str | None = None, reference: AnnData | None = None, key_added: str = "min_max"
) -> None:
    r"""Scale every gene to ``[0, 1]``, or as it was scaled in other cells.

    .. math:: y = \frac{x - \mathrm{low}}{\mathrm{high} - \mathrm{low}}

    with the smallest and the largest expression of the gene over all cells. All genes then have the same range. So weak genes, and their
    noise, count as much as strong ones in the error of a fit. One extreme cell sets the range of a gene: do not use it on counts that are
    not log-transformed.

    Parameters
    ----------
    adata
        Cells to scale.
    layer
        Layer with the expression. Default: ``adata.X``.
    reference
        Cells that were scaled before. Their ranges are used, matched by gene name; by default those of ``adata``. New donors scaled by the
        ranges of the training data may leave ``[0, 1]``, and are not clipped.
    key_added
        Layer to write, for ``SparseNODE.setup_anndata(adata, layer="min_max")``.

    Returns
    -------
    Nothing, but writes

    - ``.layers[key_added]``: scaled expression, dense; zero for genes whose range is zero,
    - ``.var["{key_added}_low"]``, ``.var["{key_added}_high"]``: the range that was used.

    Raises
    ------
    KeyError
        If the layer does not exist, or ``reference`` was not scaled.
    TypeError
        If ``adata`` or ``reference`` is not an AnnData, or expression is not numeric.
    ValueError
        If expression is NaN or infinite, gene names repeat, or genes are missing in ``reference`` or have no range there. Also if
        ``key_added`` is the layer that is read, a layer that this function did not write, or not a name that a file can hold.

    Examples
    --------
    >>> import sparsenode as sn
    >>> adata, donor = sn.datasets.krumsiek11()[:480].copy(), sn.datasets.krumsiek11()[480:].copy()
    >>> sn.pp.min_max_scale(adata)
    >>> sn.pp.min_max_scale(donor, reference=adata)
    """
    _checks.anndata(adata)
    _checks.key_added(key_added)
    check_expression(adata, layer)
    if key_added == layer:
        raise ValueError(
            f"Expected `key_added` to be another layer than the one that is read, found {key_added!r} twice."
        )
    low_key, high_key = f"{key_added}_low", f"{key_added}_high"
    if key_added in adata.layers and low_key not in adata.var:
        raise ValueError(
            f"Expected `key_added` to be a new layer or one that was scaled before, found {key_added!r} without its "
            f"ranges, {low_key!r} in `adata.var`. Choose another name, or `del adata.layers[{key_added!r}]`, also after `anndata.concat`, which "
            "drops the ranges."
        )
    if reference is None:
        low, high = value_range(adata, layer)
    else:
        low, high = _recorded_range(reference, adata.var_names, key_added)
    scaled = np.empty(adata.shape, dtype=np.float32)
    for first, x in chunks(adata, layer, np.arange(adata.n_vars)):
        scaled[first : first + len(x)] = scale(x, low, high)
    adata.layers[key_added] = scaled
    adata.var[low_key], adata.var[high_key] = low, high


def _recorded_range(reference: AnnData, genes: pd.Index, key_added: str) -> tuple[np.ndarray, np.ndarray]:
    """The ranges by which other cells were scaled, in the order of the genes, after refusing cells that lack some."""
    _checks.anndata(reference, "reference")
    keys = (f"{key_added}_low", f"{key_added}_high")
    absent = [key for key in keys if key not in reference.var]
    if absent:
        raise KeyError(
            f"Expected ranges in `reference.var`, {absent} not found. Call `sn.pp.min_max_scale(reference, "
            f"key_added={key_added!r})` first."
        )
    lacking = [str(gene) for gene in genes if gene not in reference.var_names]
    if lacking:
        raise ValueError(
            f"Expected ranges of all {len(genes)} genes in `reference`, {len(lacking)} of them are not there: "
            f"{_checks.some(lacking)}. Leave them out: `adata[:, adata.var_names.isin(reference.var_names)].copy()`."
        )
    positions = gene_positions(reference, list(genes))
    low, high = (reference.var[key].to_numpy(dtype=np.float64)[positions] for key in keys)
    lost = genes[~(np.isfinite(low) & np.isfinite(high))]
    if len(lost):
        raise ValueError(
            f"Expected finite ranges of all genes in `reference`, found others of {len(lost)}: {list(lost[:5])}. Scale the reference again: after "
            "an outer `anndata.concat` ranges are missing."
        )
    return low, high


def value_range(adata: AnnData, layer: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest expression of every gene."""
    lows, highs = zip(*((x.min(0), x.max(0)) for _, x in chunks(adata, layer, np.arange(adata.n_vars))), strict=True)
    return np.min(lows, axis=0), np.max(highs, axis=0)


def scale(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Values as shares of the ranges of their columns, zero where a range is zero."""
    width = high - low
    return np.where(width > 0, (x - low) / np.where(width > 0, width, 1.0), 0.0)
