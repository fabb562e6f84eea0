"""From counts to pseudotime-ordered cells in lineages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from sparsenode import _checks, _keys
from sparsenode._input._expression import (
    LOGGED,
    are_whole,
    expression,
    is_in_memory,
    place,
    require_finite,
    sample,
    stored,
)
from sparsenode._input._observations import SINGLE_LINEAGE
from sparsenode._logging import logger
from sparsenode.pp._lineages import lineages_of_cell_types, lineages_of_fates

_MIN_CELLS, _MIN_GENES = 20, 3


def prepare_trajectories(
    adata: AnnData,
    root: str,
    lineages: Mapping[str, Sequence[str]] | str | None = None,
    groupby: str = "cell_type",
    batch_key: str | None = None,
    layer: str | None = None,
    n_top_genes: int = 500,
    keep_genes: Sequence[str] = (),
    n_pcs: int = 50,
    n_neighbors: int = 15,
    n_diffusion_components: int = 15,
    seed: int = 0,
) -> AnnData:
    """From counts to what :meth:`sparsenode.SparseNODE.setup_anndata` takes: genes, pseudotime and lineages.

    The steps are those of Aliee et al. :cite:p:`aliee2022sparsity`, each of them as in scanpy :cite:p:`wolf2018scanpy`:

    1. drop cells that belong to no lineage,
    2. divide counts by the library size (:func:`scanpy.pp.normalize_total`) and take ``log1p``,
    3. select highly variable genes in each batch, take their union, and add ``keep_genes``,
    4. compute principal components, neighbours, diffusion map, and diffusion pseudotime :cite:p:`haghverdi2016diffusion` from the
       root, over all batches together,
    5. drop cells that the root cannot reach.

    Batches are not corrected, as in the paper, since corrected values are no longer expression.

    - If batches lie apart, diffusion pseudotime orders them one behind the other: prepare every batch by itself.
    - If they do not, they share one pseudotime: fit with ``SparseNODE(adata, align_batches=False)``. The default would stretch every batch
      to the same length, even a batch of early cells.

    Do not use it for data without a beginning, such as cell cycles, or if you trust another pseudotime: ``setup_anndata`` takes any.

    Parameters
    ----------
    adata
        Counts, cells × genes, filtered for quality, in memory. They are not changed.
    root
        Where pseudotime starts: the name of a cell, or a cell type. Of a cell type the cell nearest to its mean in diffusion space is used,
        since extreme cells are often outliers.
    lineages
        Cell types of every lineage; a cell type may belong to several, as stem cells do. Or the name of a table of fate probabilities in
        ``adata.obsm``, such as CellRank's ``"lineages_fwd"``. Default: all cells are one lineage.
    groupby
        Column of ``adata.obs`` with the cell types. Cells without one belong to no lineage.
    batch_key
        Column of ``adata.obs`` with the donor, sample or site. Default: one batch.
    layer
        Layer with the counts. Default: ``adata.X``.
    n_top_genes
        Number of highly variable genes of each batch. Default: 500.
    keep_genes
        Genes to keep in any case, for instance transcription factors. The report lists those that are not in the data.
    n_pcs, n_neighbors, n_diffusion_components
        As in :func:`scanpy.pp.pca`, :func:`scanpy.pp.neighbors` and :func:`scanpy.tl.diffmap`. ``n_pcs`` is lowered if there are too few
        cells or genes.
    seed
        Seed of principal components, neighbours and diffusion map.

    Returns
    -------
    The kept cells × selected genes, with

    - ``.X``: log-normalised expression, and ``.layers["counts"]``: the counts,
    - ``.obs["dpt_pseudotime"]``: from 0 to 1,
    - ``.obsm["lineages"]``: membership or probability of every cell in each lineage,
    - ``.obsm["X_pca"]``, ``.obsm["X_diffmap"]`` and the neighbour graph,
    - ``.var["highly_variable"]``: in any batch, and ``.var["kept"]``: listed in ``keep_genes``,
    - ``.uns["prepare_trajectories"]``: the report. ``cells`` counts cells that were ``kept``, ``unassigned`` (in no lineage) or
      ``unreachable`` (from the root); ``lineages`` is a table with the number of cells of each lineage, ``n_cells``; ``root`` is the name
      of the root cell; ``missing_genes`` lists those of ``keep_genes`` that are not in the data.

    Columns of ``.obs`` and ``.var``, colours in ``.uns`` and other tables of ``.obsm``, such as a UMAP, are kept. Other layers, ``.varm``,
    graphs of cells and the rest of ``.uns`` are not: they belong to other genes or to all cells.

    Raises
    ------
    KeyError
        If a column, layer, table or root does not exist.
    TypeError
        If ``adata`` is not an AnnData, ``root`` is not a string, ``lineages`` are neither a key nor cell types by lineage, or counts are
        not numeric or not in memory.
    ValueError
        If one of these holds:

        - values are negative, backed by a file, or fractions so small that they look log-transformed (those of corrected counts, or of
          counts divided by the library size, are accepted),
        - cell types are missing, or fewer than 20 cells or 3 genes are left,
        - no gene of ``keep_genes`` is in the data,
        - a lineage loses all cells, or has a slash in its name,
        - an argument is out of range.

    Examples
    --------
    >>> import sparsenode as sn
    >>> mdata = sn.datasets.simulated_multiome()
    >>> adata = sn.pp.prepare_trajectories(mdata["rna"], "stem", mdata.uns["lineages"], batch_key="donor")
    >>> sn.SparseNODE.setup_anndata(adata, lineage_key="lineages", batch_key="donor")
    >>> model = sn.SparseNODE(adata, align_batches=False)  # the donors share one pseudotime
    """
    _checks.anndata(adata)
    if adata.isbacked and layer is None:
        raise ValueError("Expected counts in memory, found `adata` backed by a file. Pass `adata.to_memory()`.")
    for name, value, least in (
        ("n_top_genes", n_top_genes, 1),
        ("n_pcs", n_pcs, 2),
        ("n_neighbors", n_neighbors, 3),  # of pairs the diffusion map does not converge
        ("n_diffusion_components", n_diffusion_components, 3),
        ("seed", seed, 0),
    ):
        _checks.at_least(name, value, least)
    if not adata.obs_names.is_unique or not adata.var_names.is_unique:
        raise ValueError(
            "Expected unique names of cells and genes, found repeated ones. Call `adata.obs_names_make_unique()` and "
            "`adata.var_names_make_unique()`."
        )
    check_counts(adata, layer)
    _check_keys(adata, root, lineages, groupby, batch_key)
    listed, missing = _listed_genes(adata, keep_genes)
    memberships = _memberships(adata, lineages, groupby)
    assigned: np.ndarray = (memberships.to_numpy() > 0).sum(1) > 0
    if root in adata.obs_names and not assigned[adata.obs_names.get_loc(root)]:
        raise ValueError(f"Expected the root cell {root!r} to belong to a lineage, found it in none. Choose another.")
    if assigned.sum() < _MIN_CELLS:
        raise ValueError(f"Expected at least {_MIN_CELLS} cells in lineages, found {int(assigned.sum())}.")
    result = _normalised(adata, assigned, layer, memberships)
    batches = None if batch_key is None else result.obs[batch_key].astype(str)
    result.var["highly_variable"] = _variable_genes(result, batches, n_top_genes)
    result.var["kept"] = result.var_names.isin(listed)
    result = result[:, result.var["highly_variable"] | result.var["kept"]].copy()
    if result.n_vars < _MIN_GENES:
        raise ValueError(
            f"Expected at least {_MIN_GENES} genes for principal components, found {result.n_vars}. Raise `n_top_genes`, {n_top_genes}, or name "
            "`keep_genes`."
        )
    _diffuse(result, n_pcs, n_neighbors, n_diffusion_components, seed)
    start = _root_position(result, root, groupby)
    result.uns["iroot"] = start
    root_name = str(result.obs_names[start])
    sc.tl.dpt(result, n_dcs=min(n_diffusion_components, result.obsm["X_diffmap"].shape[1]))
    reached = np.isfinite(result.obs[_keys.TIME_KEY].to_numpy())
    if reached.sum() < _MIN_CELLS:
        raise ValueError(
            f"Expected the root {root_name!r} to reach at least {_MIN_CELLS} cells, found {int(reached.sum())}: the neighbour graph "
            "falls apart. Raise `n_neighbors`, or choose another root."
        )
    result = result[reached].copy()
    result.uns["iroot"] = int(result.obs_names.get_loc(root_name))
    _report(result, assigned, reached, root_name, missing)
    return result


def check_counts(adata: AnnData, layer: str | None) -> None:
    """Refuse what has been scaled or logged; values that were only divided by a library size pass."""
    x = expression(adata, layer)
    if not is_in_memory(x):
        raise TypeError(
            f"Expected counts in memory in {place(layer)}, found {type(x).__name__}. Load them, as `adata.to_memory()` does."
        )
    values = stored(x)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"Expected numeric counts in {place(layer)}, found dtype {values.dtype}.")
    if values.size == 0 or adata.n_obs == 0 or adata.n_vars == 0:
        raise ValueError(
            f"Expected counts in {place(layer)}, found {adata.n_obs} cells × {adata.n_vars} genes without any."
        )
    require_finite(values, layer)
    hint = (
        "Counts often lie in `adata.layers['counts']` (pass `layer='counts'`) or in `adata.raw.to_adata()`. Without counts, compute a "
        "pseudotime from log-normalised expression with scanpy, and go on with `SparseNODE.setup_anndata`."
    )
    if values.min() < 0:
        raise ValueError(f"Expected counts in {place(layer)}, found negative values: they were scaled. {hint}")
    if not are_whole(sample(values)) and values.max() < LOGGED:
        raise ValueError(
            f"Expected counts in {place(layer)}, found fractions up to {values.max():.3g}: they look log-transformed. {hint}"
        )


def _check_keys(
    adata: AnnData, root: str, lineages: Mapping[str, Sequence[str]] | str | None, groupby: str, batch_key: str | None
) -> None:
    """Refuse keys that are not there."""
    if not isinstance(root, str):
        raise TypeError(f"Expected `root` to be the name of a cell or a cell type as a string, found {root!r}.")
    for argument, key in (("groupby", groupby), ("batch_key", batch_key)):
        _checks.key(adata, argument, key)
    if batch_key is not None:
        if batch_key not in adata.obs:
            raise KeyError(
                f"Expected `batch_key` to be a column of `adata.obs`, found {batch_key!r}. {_columns(adata)}"
            )
        if adata.obs[batch_key].isna().any():
            raise ValueError(
                f"Expected every cell to have a batch, found missing values in `adata.obs[{batch_key!r}]`."
            )
    if isinstance(lineages, Mapping) and groupby not in adata.obs:
        raise KeyError(f"Expected `groupby` to be a column of `adata.obs`, found {groupby!r}. {_columns(adata)}")
    types = set(map(str, adata.obs[groupby].dropna())) if groupby in adata.obs else set()
    if root in adata.obs_names and root in types:
        raise ValueError(
            f"Expected `root` to be a cell or a cell type, found both of the name {root!r}, as where clusters and cells are numbered. Rename "
            "one, for instance the cells: `adata.obs_names = 'cell' + adata.obs_names`."
        )
    if root not in adata.obs_names and groupby not in adata.obs:
        raise KeyError(
            f"Expected `root` to be the name of a cell, or of a cell type in the column `groupby`, found {root!r}, and no column {groupby!r} "
            f"in `adata.obs`. Cells look like {list(adata.obs_names[:2])}. {_columns(adata)}"
        )
    if root not in adata.obs_names and root not in types:
        raise KeyError(
            f"Expected `root` to be the name of a cell or a cell type of `adata.obs[{groupby!r}]`, found {root!r}. Cells look like "
            f"{list(adata.obs_names[:2])}, cell types are {sorted(types)[:20]}."
        )


def _columns(adata: AnnData) -> str:
    return f"There are {[str(name) for name in adata.obs.columns][:20]}."


def _listed_genes(adata: AnnData, keep_genes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Genes to keep that are in the data, and those that are not."""
    if isinstance(keep_genes, str) or not isinstance(keep_genes, Iterable):
        raise ValueError(
            f"Expected `keep_genes` to be a list of names, found the {type(keep_genes).__name__} {keep_genes!r}."
        )
    wanted = list(dict.fromkeys(str(gene) for gene in keep_genes))
    listed = [gene for gene in wanted if gene in adata.var_names]
    if wanted and not listed:
        raise ValueError(
            f"Expected genes of `keep_genes` in the data, found none of {len(wanted)}. Genes look like "
            f"{list(adata.var_names[:3])}, yours like {wanted[:3]}."
        )
    return listed, [gene for gene in wanted if gene not in adata.var_names]


def _memberships(adata: AnnData, lineages: Mapping[str, Sequence[str]] | str | None, groupby: str) -> pd.DataFrame:
    if lineages is None:
        return pd.DataFrame({SINGLE_LINEAGE: np.ones(adata.n_obs, dtype=bool)}, index=adata.obs_names)
    table = (
        lineages_of_fates(adata, lineages)
        if isinstance(lineages, str)
        else lineages_of_cell_types(adata.obs[groupby], lineages, groupby)
    )
    repeated = table.columns[table.columns.duplicated()].unique()
    if len(repeated):
        raise ValueError(
            f"Expected names of lineages that differ, as texts too, found {list(repeated)} more than once in `lineages`."
        )
    slashes = [str(name) for name in table if "/" in str(name)]
    if slashes:
        raise ValueError(
            f"Expected names of lineages without a slash, which files read as a group, found {slashes}. Rename them in `lineages`; fate "
            "probabilities may be a data frame, whose columns have other names."
        )
    return table


def _normalised(adata: AnnData, assigned: np.ndarray, layer: str | None, memberships: pd.DataFrame) -> AnnData:
    """Assigned cells with log-normalised expression; counts in a layer."""
    chosen = adata[assigned]
    counts = expression(chosen, layer).copy()
    counts = sparse.csr_matrix(counts) if sparse.issparse(counts) else np.asarray(counts)
    result = AnnData(counts.astype(np.float32), obs=chosen.obs.copy(), var=adata.var.copy())
    result.layers["counts"] = counts
    result.uns.update({key: value for key, value in chosen.uns.items() if str(key).endswith("_colors")})
    sc.pp.normalize_total(result)
    sc.pp.log1p(result)
    # scanpy takes a diffusion map that is there for one of these neighbours, and looks for its eigenvalues.
    result.obsm.update({key: value.copy() for key, value in chosen.obsm.items() if key != "X_diffmap"})
    result.obsm["lineages"] = memberships[assigned].copy()
    return result


def _variable_genes(adata: AnnData, batches: pd.Series | None, n_top_genes: int) -> np.ndarray:
    """Genes that are highly variable in any batch."""
    groups = [np.ones(adata.n_obs, dtype=bool)] if batches is None else [batches == name for name in batches.unique()]
    chosen = np.zeros(adata.n_vars, dtype=bool)
    for group in groups:
        batch = AnnData(adata.X[np.flatnonzero(group)], uns={"log1p": {"base": None}})
        seen = np.asarray((batch.X > 0).sum(0)).ravel() > 0
        if seen.sum() <= n_top_genes:
            chosen |= seen
            continue
        found = sc.pp.highly_variable_genes(batch[:, seen].copy(), n_top_genes=n_top_genes, inplace=False)
        chosen[np.flatnonzero(seen)[found["highly_variable"].to_numpy()]] = True
    return chosen


def _diffuse(adata: AnnData, n_pcs: int, n_neighbors: int, n_components: int, seed: int) -> None:
    """Principal components, neighbour graph and diffusion map."""
    possible = min(n_pcs, min(adata.shape) - 1)
    sc.pp.pca(adata, n_comps=possible, mask_var=None, random_state=seed)
    sc.pp.neighbors(adata, n_neighbors=min(n_neighbors, adata.n_obs - 1), n_pcs=possible, random_state=seed)
    sc.tl.diffmap(adata, n_comps=min(n_components, adata.n_obs - 2), random_state=seed)


def _root_position(adata: AnnData, root: str, groupby: str) -> int:
    """The root cell, or the one in the middle of a cell type."""
    if root in adata.obs_names:
        return int(adata.obs_names.get_loc(root))
    own = np.flatnonzero(adata.obs[groupby].astype(str) == root)
    if len(own) == 0:
        raise ValueError(f"Expected cells of the root {root!r} in a lineage, found none. Add it to `lineages`.")
    # Scaled like this, Euclidean distance is the distance that diffusion pseudotime measures.
    values = np.asarray(adata.uns["diffmap_evals"], dtype=np.float64)
    moving = values < 1 - 1e-6
    points = adata.obsm["X_diffmap"][np.ix_(own, moving)] * (values[moving] / (1 - values[moving]))
    return int(own[np.linalg.norm(points - points.mean(0), axis=1).argmin()])


def _report(adata: AnnData, assigned: np.ndarray, reached: np.ndarray, root: str, missing: Sequence[str]) -> None:
    """Say what became of the cells, in ``uns`` and in the log."""
    memberships = adata.obsm["lineages"].to_numpy() > 0
    lineages = pd.Series(memberships.sum(0), adata.obsm["lineages"].columns.rename("lineage"), name="n_cells")
    empty = [str(name) for name in lineages.index[lineages == 0]]
    if empty:
        raise ValueError(
            f"Expected cells in every lineage, all cells of {empty} are unreachable from the root {root!r}. Raise `n_neighbors`, or "
            "leave these lineages out."
        )
    cells = {
        "kept": adata.n_obs,
        "unassigned": int((~assigned).sum()),
        "unreachable": int((~reached).sum()),
    }
    adata.uns["prepare_trajectories"] = {
        "cells": cells,
        "lineages": lineages.to_frame(),
        "root": root,
        "missing_genes": np.asarray(list(missing), dtype=str),
    }
    logger.info("Cells: %s. Lineages: %s. Genes: %d. Root: %s.", cells, lineages.to_dict(), adata.n_vars, root)
    if missing:
        logger.warning("%d genes of `keep_genes` are not in the data, such as %s.", len(missing), list(missing[:5]))
