"""Expression, checked and read in consecutive chunks, whatever holds it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from scipy import sparse

from sparsenode import _checks

# Values in one chunk: 8 bytes each, so 64 MB.
_CHUNK_VALUES = 8_000_000
# Values that are looked at for counts, and whole numbers that log-normalised expression may have.
_SAMPLE, _HIGHEST = 1_000_000, 15
_FEW_ZEROS = 0.05  # share of zeros that other data than expression of single cells do not exceed
LOGGED = 20.0  # log counts are smaller than this, counts have larger values, divided by the library size or not
ROUNDING = 1e-6  # differences below it, relative to the value, are none


def check_expression(adata: AnnData, layer: str | None) -> None:
    """Refuse expression that no model can be fitted to, without reading what is not in memory.

    Raises
    ------
    KeyError
        If the layer does not exist.
    TypeError
        If names of genes or values are not of the right type.
    ValueError
        If there are no cells or genes, if gene names repeat, or if values are NaN, infinite or masked.
    """
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise ValueError(
            f"Expected cells and genes, found {adata.n_obs} cells × {adata.n_vars} genes. Check the filter that left none."
        )
    others = [name for name in adata.var_names if not isinstance(name, str)]
    if others:
        raise TypeError(
            f"Expected names of genes that are strings, found {len(others)} others: {others[:3]}. Call "
            "`adata.var_names = adata.var_names.astype(str)`."
        )
    if not adata.var_names.is_unique:
        repeated = adata.var_names[adata.var_names.duplicated()].unique()
        raise ValueError(
            f"Expected unique gene names, found {len(repeated)} repeated ones: {[str(g) for g in repeated[:5]]}. "
            "Call `adata.var_names_make_unique()`."
        )
    x = expression(adata, layer)
    values = stored(x)
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fiub":
            holder = place(layer).strip("`")
            raise TypeError(
                f"Expected numeric expression in {place(layer)}, found dtype {values.dtype}. If it holds numbers, convert it: "
                f"`{holder} = {holder}.astype(np.float32)`."
            )
        require_finite(values, layer)


def warn_of_counts(adata: AnnData, layer: str | None, fitted: bool = False) -> bool:
    """Warn where expression in memory does not look log-transformed: abundant genes would be all of the error.

    ``fitted`` says that a model was fitted to other cells, whose expression did.
    """
    x = expression(adata, layer)
    values = stored(x)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or values.size == 0:
        return False
    values = sample(values)
    highest = values.max()
    if values.min() < 0 or highest <= _HIGHEST:
        return False
    where = "adata" if layer is None else f"adata, layer={layer!r}"
    if are_whole(values):
        looks = f"like raw counts: whole numbers up to {highest:.0f}"
        remedy = f"Normalise first: `sc.pp.normalize_total({where}); sc.pp.log1p({where})`."
    elif highest > LOGGED and _share_of_zeros(x, values) > _FEW_ZEROS:
        looks = f"normalised but not log-transformed: fractions up to {highest:.0f}"
        remedy = f"Take logarithms first: `sc.pp.log1p({where})`."
    else:
        return False
    consequence = (
        "The cells that the model was fitted to do not look so: predictions and errors are in their units"
        if fitted
        else "Errors would be those of a few abundant genes"
    )
    warnings.warn(f"Expression in {place(layer)} looks {looks}. {consequence}. {remedy}", UserWarning, stacklevel=2)
    return True


def sample(values: np.ndarray) -> np.ndarray:
    """The first values, without a copy of the others."""
    return values.flat[:_SAMPLE]


def are_whole(values: np.ndarray) -> bool:
    """Whether all of them are whole numbers."""
    return bool((values == np.rint(values)).all())


def _share_of_zeros(x: Any, values: np.ndarray) -> float:
    """Share of the entries that are zero, of sparse tables those that are not stored, too."""
    return 1.0 - float((values != 0).mean()) * (x.nnz / np.prod(x.shape) if sparse.issparse(x) else 1.0)


def constant_genes(adata: AnnData, layer: str | None) -> list[str]:
    """Names of the genes that do not vary between cells, with a warning; read only until every other gene has varied."""
    same = np.arange(adata.n_vars)
    first: np.ndarray | None = None
    for _, block in chunks(adata, layer, same.copy()):
        first = block[0] if first is None else first
        same = same[(np.abs(block[:, same] - first[same]) <= ROUNDING * np.abs(first[same])).all(0)]
        if len(same) == 0:
            return []
    names = [str(name) for name in adata.var_names[same]]
    warnings.warn(
        f"{len(names)} of {adata.n_vars} genes in {place(layer)} do not vary between cells: {_checks.some(names, 10)}. They "
        "cannot be told from a constant, so they are targets only, without outgoing "
        "edges. Leave them out if that is not what you want.",
        UserWarning,
        stacklevel=2,
    )
    return names


def expression(adata: AnnData, layer: str | None) -> Any:
    """``adata.X`` or a layer of it, after refusing complex and masked arrays."""
    x = _held(adata, layer)
    _checks.real_and_unmasked(place(layer).strip("`"), x)
    return x


def _held(adata: AnnData, layer: str | None) -> Any:
    if layer is None:
        if adata.X is None:
            raise ValueError("Expected expression in `adata.X`, found none. Name a `layer`.")
        return adata.X
    if not isinstance(layer, str) or layer not in adata.layers:
        names = [name for name in adata.layers if name is not None]
        wanted = f"to be one of {names}" if names else "to be left out, since `adata.layers` is empty"
        raise KeyError(f"Expected `layer` {wanted}, found {layer!r}. Without it `adata.X` is read.")
    return adata.layers[layer]


def place(layer: str | None) -> str:
    """Where the expression stands, for messages."""
    return "`adata.X`" if layer is None else f"`adata.layers[{layer!r}]`"


def is_in_memory(x: Any) -> bool:
    """Whether expression is an array, dense or sparse, and neither a file nor dask."""
    return isinstance(x, np.ndarray) or sparse.issparse(x)


def stored(x: Any) -> Any:
    """Values of expression, of sparse ones those that are stored."""
    return x.data if sparse.issparse(x) else x


def require_finite(values: np.ndarray, layer: str | None) -> None:
    """Refuse NaN and infinite expression."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ValueError(
            f"Expected finite expression in {place(layer)}, found {count} NaN or infinite values. Replace or remove "
            "them, for instance `np.nan_to_num(adata.X, copy=False)`."
        )


def dense(values: Any) -> np.ndarray:
    """The values as an array, from sparse ones and from dask too."""
    values = values.compute() if hasattr(values, "compute") else values
    return np.asarray(values.toarray() if sparse.issparse(values) else values)


def gene_positions(adata: AnnData, genes: Sequence[str]) -> np.ndarray:
    """Columns of ``adata`` that hold the genes of the model, in the model's order.

    Raises
    ------
    ValueError
        If genes are missing or repeated; the message lists them.
    """
    if not adata.var_names.is_unique:
        raise ValueError("Expected unique gene names, found repeated ones. Call `adata.var_names_make_unique()`.")
    positions = adata.var_names.get_indexer(list(genes))
    missing = [gene for gene, position in zip(genes, positions, strict=True) if position < 0]
    if missing:
        raise ValueError(
            f"Expected all {len(genes)} genes of the fitted model, {len(missing)} are missing: "
            f"{_checks.some(missing, 10)}. Add them, or fit a model on the genes that both data sets have."
        )
    return positions


def chunks(
    adata: AnnData, layer: str | None, positions: np.ndarray, rows: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Consecutive cells as dense float64, in the order of the data: dense, sparse, backed and dask alike.

    Parameters
    ----------
    adata
        Annotated cells.
    layer
        Layer to read, ``None`` for ``X``.
    positions
        Columns to keep, in this order.
    rows
        Cells to keep, increasing; all by default.

    Yields
    ------
    Index of the first cell, among all or among ``rows``, and expression of the cells × genes.
    """
    x = expression(adata, layer)
    if getattr(x, "format", None) == "csc":
        # Every row is found by reading all columns: all are read once, then, also from a file.
        x = x if is_in_memory(x) else x.to_memory()
        x, rows = (x if rows is None else x[rows]).tocsr(), None
    in_memory = is_in_memory(x)
    in_order = len(positions) == x.shape[1] and np.array_equal(positions, np.arange(len(positions)))
    size = max(_CHUNK_VALUES // max(x.shape[1], 1), 1)
    rows = np.arange(x.shape[0]) if rows is None else rows
    # Files and dask are slow with single rows: what lies between them is read too, as much as a chunk.
    cuts = np.arange(size, len(rows), size) if in_memory else np.searchsorted(rows, np.arange(size, x.shape[0], size))
    for wanted in np.split(rows, cuts):
        if len(wanted) == 0:
            continue
        first, last = wanted[0], wanted[-1] + 1
        scattered = last - first > len(wanted)
        block = x[wanted] if scattered and in_memory else x[first:last]
        if scattered and not in_memory:
            block = (block.compute() if hasattr(block, "compute") else block)[wanted - first]
        block = block if in_order else block[:, positions]
        # Sums and products are rounded differently where values lie differently in memory.
        block = np.ascontiguousarray(dense(block), dtype=np.float64)
        require_finite(block, layer)
        yield int(np.searchsorted(rows, wanted[0])), block
