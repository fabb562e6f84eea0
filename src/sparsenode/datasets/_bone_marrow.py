"""Human bone marrow in three lineages, with reference networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import pandas as pd
from anndata import AnnData

BATCHES = ("S1D1", "S1D2", "S2D1")
REFERENCES = ("base", "erythroid", "monocyte", "b_cell")
FACTORS = "transcription_factors.csv"


def bone_marrow(path: str | Path, batches: str | Sequence[str] = BATCHES) -> AnnData:
    """Human bone marrow of up to three donor-site batches, from stem cells to three fates, with reference networks.

    529 genes, of which 113 are transcription factors. Counts are normalised by library size, **not logged**. The cells are from GSE194122
    :cite:p:`luecken2021sandbox`; selection, pseudotime, lineages and networks are those of :cite:t:`aliee2022sparsity` (``data/data`` of
    github.com/theislab/PathReg, MIT licence).

    Parameters
    ----------
    path
        Folder that ``download("bone_marrow")`` returns, with ``<batch>.h5ad``, ``reference_<name>.csv.gz`` for ``base`` and the three
        lineages, and ``transcription_factors.csv``.
    batches
        Batches to read: some of ``S1D1`` (2693 cells), ``S1D2`` (1302) and ``S2D1`` (2516). Default: all three.

    Returns
    -------
    Cells × genes as stored (float32, sparse), batch after batch, with

    - ``.obs["dpt_pseudotime"]``, which starts at 0 in every batch and ends at 1 or earlier, and ``.obs["batch"]``,
    - ``.obsm["lineages"]``: membership of the cells in ``erythroid``, ``monocyte`` and ``b_cell``; stem cells belong to all,
    - ``.var["is_tf"]``: transcription factors; edges from other genes are spurious,
    - ``.uns["reference_networks"]``: one long table per lineage of distinct pairs ``source`` and ``target``, with the ``cell_type`` that
      the edge was found in (several joined by ``"; "``) and the largest ``score``. Five sources (CUX1, FOXP1, MEIS1, SOX5, VENTX) are not
      among the 113 transcription factors. A fourth table, ``base``, has the pairs that these were chosen from; it is too dense (0.55) to
      rank anything against.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a batch is unknown, or the files do not fit each other.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsenode as sn
    >>> adata = sn.datasets.bone_marrow("bone_marrow", "S1D2")  # doctest: +SKIP
    >>> sc.pp.log1p(adata)  # doctest: +SKIP
    >>> sn.SparseNODE.setup_anndata(adata, lineage_key="lineages")  # doctest: +SKIP
    """
    wanted = [batches] if isinstance(batches, str) else list(batches)
    if not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= set(BATCHES):
        raise ValueError(f"Expected `batches` to be some of {list(BATCHES)}, each once, found {wanted}.")
    folder = Path(path)
    names = file_names(wanted)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"Expected the files {names} in {str(folder)!r}, found {missing} missing. "
            "`sparsenode.datasets.download('bone_marrow')` makes them from what github.com/theislab/PathReg holds."
        )
    parts = [anndata.read_h5ad(folder / f"{batch}.h5ad") for batch in wanted]
    for batch, part in zip(wanted, parts, strict=True):
        _check(batch, part, parts[0])
    adata = anndata.concat(parts, merge="same")
    adata.obs["batch"] = pd.Categorical(adata.obs["batch"].astype(str), categories=wanted)
    factors = pd.read_csv(folder / FACTORS)
    if "gene" not in factors:
        raise ValueError(f"Expected the column gene in {FACTORS}, found {list(factors)}.")
    _require_genes(factors["gene"], adata, FACTORS)
    adata.var["is_tf"] = adata.var_names.isin(factors["gene"])
    adata.uns["reference_networks"] = {name: _reference(folder / reference_file(name), adata) for name in REFERENCES}
    return adata


def file_names(batches: Sequence[str]) -> list[str]:
    """Files that these batches are read from."""
    return [f"{batch}.h5ad" for batch in batches] + [FACTORS] + [reference_file(name) for name in REFERENCES]


def reference_file(name: str) -> str:
    """File of the reference network of a lineage, or of the one for all."""
    return f"reference_{name}.csv.gz"


def _check(batch: str, part: AnnData, first: AnnData) -> None:
    """Refuse cells without annotation, and genes that differ between the batches."""
    for place, keys, wanted in (
        ("obs", list(part.obs), ["dpt_pseudotime", "batch"]),
        ("obsm", list(part.obsm), ["lineages"]),
    ):
        absent = [key for key in wanted if key not in keys]
        if absent:
            raise ValueError(f"Expected {absent} in `.{place}` of {batch}.h5ad, found {keys}.")
    if list(map(str, part.obs["batch"].unique())) != [batch]:
        raise ValueError(f"Expected the batch {batch} in {batch}.h5ad, found {list(part.obs['batch'].unique())}.")
    if not part.var_names.equals(first.var_names):
        raise ValueError(
            f"Expected the same {first.n_vars} genes in the same order in all batches, found others in {batch}.h5ad."
        )


def _reference(path: Path, adata: AnnData) -> pd.DataFrame:
    """Distinct edges of a file."""
    table = pd.read_csv(path)
    absent = [column for column in ("source", "target") if column not in table]
    if absent:
        raise ValueError(f"Expected the columns source and target in {path.name}, found {list(table)}.")
    _require_genes(pd.concat([table["source"], table["target"]]), adata, path.name)
    joins: dict[str, Any] = {"cell_type": lambda found: "; ".join(sorted(set(found))), "score": "max"}
    chosen = {column: join for column, join in joins.items() if column in table}
    pairs = table.groupby(["source", "target"], sort=False)
    return pairs.agg(chosen).reset_index() if chosen else table[["source", "target"]].drop_duplicates(ignore_index=True)


def _require_genes(names: pd.Series, adata: AnnData, file: str) -> None:
    unknown = sorted(set(names) - set(adata.var_names))
    if unknown:
        raise ValueError(f"Expected only genes of the cells in {file}, found {len(unknown)} others: {unknown[:5]}.")
