"""TF-to-target networks from chromatin and motifs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from numbers import Real
from os import PathLike
from typing import get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from sparsenode import _checks
from sparsenode._input._modalities import cell_annotation, modality
from sparsenode._logging import logger
from sparsenode.pp._annotation import read_annotation
from sparsenode.pp._assign_peaks import MAX_DISTANCE, PROMOTER, assign_peaks
from sparsenode.pp._lineages import types_of_lineages
from sparsenode.pp._markers import Method, top_features


@dataclass(frozen=True, eq=False)
class ReferenceNetwork:
    """Edges from transcription factors to targets that chromatin and motifs support; made by :func:`reference_network`.

    Every table is long, with one edge per row: ``source`` is the factor, ``target`` the gene. There are no weights, because neither motifs
    nor chromatin say how strongly a factor acts, or whether it activates. Do not score signs against these tables.

    Parameters
    ----------
    cell_types
        Table per cell type, with ``n_peaks``: the number of peaks that support the edge.
    lineages
        Table per lineage: the edges of any of its cell types, with ``n_cell_types``, the number of its cell types that have the edge, and
        ``n_peaks``, the largest of theirs.
    regulators
        Names of the factors that have a motif in a peak and are among the genes, whether they were selected or not, for
        ``SparseNODE(regulators=…)`` and ``get_sparsity(regulators=…)``.
    peak_genes
        Peaks and the genes that they were assigned to, as from :func:`assign_peaks`.
    """

    cell_types: dict[str, pd.DataFrame] = field(repr=False)
    lineages: dict[str, pd.DataFrame] = field(repr=False)
    regulators: list[str] = field(repr=False)
    peak_genes: pd.DataFrame = field(repr=False)

    @property
    def union(self) -> pd.DataFrame:
        """Edges of any cell type, in the form of the table of a lineage."""
        return merge_networks(list(self.cell_types.values()))


def reference_network(
    mdata: MuData,
    groupby: str,
    motifs: pd.DataFrame | str,
    annotation: pd.DataFrame | str | PathLike[str],
    lineages: Mapping[str, Sequence[str]] | None = None,
    n_genes: int = 1000,
    n_peaks: int = 25_000,
    max_pvalue: float | None = None,
    expression: str = "rna",
    accessibility: str = "atac",
    expression_layer: str | None = None,
    accessibility_layer: str | None = None,
    method: Method = "t-test",
    promoter: tuple[int, int] = PROMOTER,
    max_distance: int = MAX_DISTANCE,
) -> ReferenceNetwork:
    """Networks per cell type and lineage from accessible peaks, the motifs in them and the genes near them.

    The recipe of Appendix B.3 of :cite:t:`aliee2022sparsity`, for every cell type:

    1. select the genes and the peaks that rank first against all other cells (:func:`scanpy.tl.rank_genes_groups`),
    2. assign peaks to genes by position (:func:`assign_peaks`),
    3. keep the edge from a factor to a gene if the factor is a selected gene, its motif is in a selected peak, and that peak is
       assigned to a selected gene.

    The network tells which edges are plausible. Use it as a reference or as prior knowledge. It is no ground truth: factors without a known
    motif have no edges, factors of one family share theirs, and a selection by cell type favours edges between genes that are expressed
    together.

    Parameters
    ----------
    mdata
        Expression and accessibility, both normalised, for instance by library size and log-transformed. Accessibility may also be zeros and
        ones. The two may have different cells.
    groupby
        Column with the cell types, in ``.obs`` of each modality or of ``mdata``.
    motifs
        Table of peaks × factors, true or positive where the peak contains a motif of the factor, as from :func:`scan_motifs`; or the name
        of such a table in ``.varm`` of the accessibility. Rows are matched by name. Peaks without a row have no motif.
    annotation
        GTF file, or a table as from :func:`read_annotation`.
    lineages
        Cell types of every lineage; a cell type may belong to several. Cell types in no lineage are left out. Default: all cell types and
        no lineages.
    n_genes, n_peaks
        Largest numbers of genes and peaks that are selected for each cell type. Default: 1000 and 25,000. If the data have no more than
        that, nothing is selected, and a warning says so.
    max_pvalue
        Largest adjusted p-value of selected genes and peaks, which must also be higher in the cell type. Default: rank alone decides, as in
        the paper. This suits data with many more genes and peaks than are selected.
    expression, accessibility
        Names of the modalities.
    expression_layer, accessibility_layer
        Layers with the normalised values. Default: ``.X``.
    method
        Test of :func:`scanpy.tl.rank_genes_groups`. Default: ``"t-test"``. ``"wilcoxon"`` takes far longer with many peaks.
    promoter, max_distance
        As in :func:`assign_peaks`.

    Returns
    -------
    Tables per cell type and per lineage; see :class:`ReferenceNetwork`.

    Raises
    ------
    FileNotFoundError
        If ``annotation`` is a path and the file does not exist.
    KeyError
        If a modality, a layer, the column ``groupby`` or the motifs do not exist.
    TypeError
        If ``mdata`` is not a MuData, ``lineages`` is not a mapping, motifs or annotation are not tables, motifs are not numeric, or values
        are not in memory.
    ValueError
        If one of these holds:

        - values are counts, NaN or infinite, or gene names repeat,
        - cell types are missing or have fewer than two cells,
        - peaks have no coordinates, or chromosomes or genes do not match the annotation,
        - no motif matches a peak or a gene,
        - an argument is out of range.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsenode as sn
    >>> mdata = sn.datasets.simulated_multiome()
    >>> for modality in mdata.mod.values():
    ...     sc.pp.normalize_total(modality)
    ...     sc.pp.log1p(modality)
    >>> reference = sn.pp.reference_network(
    ...     mdata, "cell_type", "motifs", mdata.uns["annotation"], mdata.uns["lineages"], max_pvalue=0.05
    ... )
    >>> reference.lineages["erythroid"].head()
    """
    for name, value in {"n_genes": n_genes, "n_peaks": n_peaks}.items():
        _checks.at_least(name, value, 1)
    if max_pvalue is not None:
        _checks.share("max_pvalue", max_pvalue)
    _checks.choice("method", method, get_args(Method))
    rna, atac = modality(mdata, expression, "expression"), modality(mdata, accessibility, "accessibility")
    _checks.key(mdata, "groupby", groupby)
    if not rna.var_names.is_unique:
        raise ValueError(
            f"Expected unique names of genes in modality {expression!r}, found repeated ones. Call `mdata[{expression!r}].var_names_make_unique()`."
        )
    groups = {
        name: _cell_types(mdata, name, groupby, argument)
        for name, argument in ((expression, "expression"), (accessibility, "accessibility"))
    }
    types_of = None if lineages is None else types_of_lineages(lineages)
    types = _wanted_types(groups, types_of, groupby)
    hits, factors = _motif_matrix(motifs, atac, rna.var_names)
    table = annotation if isinstance(annotation, pd.DataFrame) else read_annotation(annotation)
    peak_genes = assign_peaks(atac, table, promoter, max_distance)
    links = _link_matrix(peak_genes, rna.var_names, atac.var_names)
    for what, n_top, n_vars in (("genes", n_genes, rna.n_vars), ("peaks", n_peaks, atac.n_vars)):
        if n_vars <= n_top and max_pvalue is None:
            warnings.warn(
                f"All {n_vars} {what} are selected for every cell type, because `n_{what}` is {n_top}. Lower it, or set "
                "`max_pvalue=0.05`.",
                UserWarning,
                stacklevel=2,
            )
    genes = top_features(rna, groups[expression], types, n_genes, max_pvalue, expression_layer, method)
    peaks = top_features(atac, groups[accessibility], types, n_peaks, max_pvalue, accessibility_layer, method)
    names = np.asarray(rna.var_names, dtype=object)
    cell_types = {name: _network(genes[name], peaks[name], links, hits, factors, names) for name in types}
    logger.info("Edges of the cell types: %s.", {name: len(edges) for name, edges in cell_types.items()})
    return ReferenceNetwork(
        cell_types=cell_types,
        lineages={
            lineage: merge_networks([cell_types[name] for name in names_of])
            for lineage, names_of in (types_of or {}).items()
        },
        regulators=[str(name) for name in names[np.unique(factors[np.diff(hits.tocsc().indptr) > 0])]],
        peak_genes=peak_genes,
    )


def _cell_types(mdata: MuData, name: str, groupby: str, argument: str) -> pd.Series:
    """Cell types of the cells of a modality, as strings."""
    column = pd.Series(cell_annotation(mdata, name, groupby, "groupby"))
    if column.isna().any():
        raise ValueError(
            f"Expected a cell type of every cell of modality {name!r} (`{argument}`), found {int(column.isna().sum())} of "
            f"{len(column)} missing in {groupby!r}. Label or remove them."
        )
    return column.astype(str)


def _wanted_types(groups: Mapping[str, pd.Series], lineages: Mapping[str, list[str]] | None, groupby: str) -> list[str]:
    """Cell types of the lineages, or all; every one of them with cells in both modalities."""
    present = sorted(set().union(*(set(column) for column in groups.values())))
    wanted = present if lineages is None else list(dict.fromkeys(chain.from_iterable(lineages.values())))
    for name, column in groups.items():
        cells = column.value_counts().reindex(wanted, fill_value=0)
        missing = list(cells.index[cells < 2])
        if missing:
            raise ValueError(
                f"Expected at least two cells of every cell type in modality {name!r}, found fewer of {missing} in "
                f"{groupby!r}. It has {sorted(set(column))[:20]}."
            )
        if column.nunique() < 2:
            raise ValueError(
                f"Expected at least two cell types in {groupby!r} of modality {name!r} to compare, found {present}."
            )
    return wanted


def _motif_matrix(motifs: pd.DataFrame | str, atac: AnnData, genes: pd.Index) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Motifs in peaks as a matrix of peaks × factors that are genes, and the positions of these among the genes."""
    if isinstance(motifs, str):
        if motifs not in atac.varm:
            raise KeyError(
                f"Expected `motifs` to be a table or a key of `.varm`, found {motifs!r}; there are {list(atac.varm)}. "
                "`pp.scan_motifs` finds motifs in the sequence."
            )
        motifs = atac.varm[motifs]
    if not isinstance(motifs, pd.DataFrame):
        raise TypeError(
            f"Expected `motifs` to be a data frame with peaks as index and factors as columns, found {type(motifs).__name__}."
        )
    for axis, labels in (("index", motifs.index), ("columns", motifs.columns)):
        if labels.has_duplicates:
            raise ValueError(
                f"Expected unique names in the {axis} of `motifs`, found {labels[labels.duplicated()][0]!r} twice."
            )
    peaks = atac.var_names
    rows, factors = motifs.index.get_indexer(peaks), genes.get_indexer(motifs.columns.astype(str))
    if (rows < 0).all():
        raise ValueError(
            f"Expected the index of `motifs` to name peaks, found none of {len(peaks)}. Peaks look like {list(peaks[:3])}, the index "
            f"like {list(motifs.index[:3])}."
        )
    if (factors < 0).all():
        raise ValueError(
            f"Expected the columns of `motifs` to name genes, found none of {len(genes)}. Genes look like {list(genes[:3])}, the "
            f"columns like {list(motifs.columns[:3])}. Rename them, for instance `motifs.rename(columns=str.capitalize)`."
        )
    logger.info("%d of %d factors with motifs are among the genes.", int((factors >= 0).sum()), len(factors))
    above = np.column_stack([_is_positive(motifs[name]) for name in motifs.columns[factors >= 0]])
    positive = above[np.maximum(rows, 0)] & (rows >= 0)[:, None]
    if not positive.any():
        raise ValueError(
            "Expected motifs in the peaks, none matched: all of `motifs` is zero for these peaks and genes."
        )
    return sparse.csr_matrix(positive, dtype=np.int64), factors[factors >= 0]


def _is_positive(column: pd.Series) -> np.ndarray:
    """Which values of a column are true or positive; missing ones are not."""
    known = column.notna().to_numpy()
    values, result = column.to_numpy()[known], np.zeros(len(column), dtype=bool)
    if values.dtype.kind not in "fiub":
        strange = [value for value in values if not isinstance(value, Real | np.bool_)]
        if strange:
            raise TypeError(
                f"Expected numbers or booleans in `motifs`, found {strange[0]!r} in the column {column.name!r}."
            )
    result[known] = values > 0
    return result


def _link_matrix(peak_genes: pd.DataFrame, genes: pd.Index, peaks: pd.Index) -> sparse.csr_matrix:
    """Genes × peaks, one where a peak is assigned to a gene of the data."""
    rows, columns = genes.get_indexer(pd.Index(peak_genes["gene"])), peaks.get_indexer(pd.Index(peak_genes["peak"]))
    known = rows >= 0
    if not known.any():
        found = list(peak_genes["gene"].unique()[:3])
        raise ValueError(
            f"Expected genes of `annotation` among the {len(genes)} genes of the expression, found none near the peaks. Genes of the "
            f"data look like {list(genes[:3])}, those of the annotation like {found}. `pp.read_annotation` takes `gene_attribute`."
        )
    shape = (len(genes), len(peaks))
    return sparse.csr_matrix((np.ones(int(known.sum()), dtype=np.int64), (rows[known], columns[known])), shape=shape)


def _network(
    genes: np.ndarray,
    peaks: np.ndarray,
    links: sparse.csr_matrix,
    hits: sparse.csr_matrix,
    factors: np.ndarray,
    names: np.ndarray,
) -> pd.DataFrame:
    """Edges where factor, peak and gene are all selected.

    Parameters
    ----------
    genes, peaks
        Positions of the selected ones.
    links
        Genes × peaks, one where a peak is assigned to a gene.
    hits
        Peaks × factors, one where a motif is in a peak.
    factors
        Positions of the factors among the genes.
    names
        Names of the genes.
    """
    targets, columns = np.sort(genes), np.flatnonzero(np.isin(factors, genes))
    support = (links[targets][:, peaks] @ hits[peaks][:, columns]).tocoo()
    table = pd.DataFrame(
        {
            "source": names[factors[columns[support.col]]],
            "target": names[targets[support.row]],
            "n_peaks": support.data.astype(np.int64),
        }
    )
    return table.sort_values(["source", "target"], ignore_index=True)


def merge_networks(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Edges of any table, with the number of tables that hold them and the largest support."""
    edges = pd.concat([*tables]) if tables else pd.DataFrame(columns=["source", "target", "n_peaks"])
    grouped = edges.groupby(["source", "target"], sort=True)["n_peaks"]
    return grouped.agg(n_cell_types="size", n_peaks="max").reset_index()
