"""Lineages of cells: from cell types, or from fate probabilities."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from sparsenode import _checks
from sparsenode._input._observations import names_of_fates


def types_of_lineages(lineages: Mapping[str, Sequence[str]], or_else: str = "") -> dict[str, list[str]]:
    """Names of the cell types of every lineage, each once; ``or_else`` says what else a caller takes.

    Raises
    ------
    TypeError
        If lineages are no mapping.
    ValueError
        If there is none, or one is no list of cell types, or empty.
    """
    if not isinstance(lineages, Mapping):
        raise TypeError(
            f"Expected `lineages` to be cell types by lineage, such as {{'erythroid': ['stem', 'erythroblast']}}{or_else}, found "
            f"{lineages!r}."
        )
    if not lineages:
        raise ValueError("Expected at least one lineage in `lineages`, found none.")
    for name, types in lineages.items():
        if isinstance(types, str) or not isinstance(types, Collection) or len(types) == 0:
            raise ValueError(f"Expected a list of cell types for the lineage {name!r}, found {types!r}.")
    return {name: list(dict.fromkeys(str(item) for item in types)) for name, types in lineages.items()}


def lineages_of_cell_types(cell_types: pd.Series, lineages: Mapping[str, Sequence[str]], groupby: str) -> pd.DataFrame:
    """Membership of every cell in every lineage, true or false; a cell type may belong to several.

    Raises
    ------
    TypeError
        If lineages are no mapping.
    ValueError
        If a lineage is empty or a string, or names cell types that no cell has.
    """
    wanted = types_of_lineages(lineages, ", or a key of `adata.obsm`")
    labels = cell_types.astype(object).where(cell_types.notna(), None).map(str, na_action="ignore")
    present = sorted(set(labels.dropna()))
    for name, types in wanted.items():
        unknown = [item for item in types if item not in present]
        if unknown:
            raise ValueError(
                f"Expected the cell types of the lineage {name!r} in `adata.obs[{groupby!r}]`, found no cells of {unknown}. "
                f"There are {present[:20]}."
            )
    members = [labels.isin(types).to_numpy() for types in wanted.values()]
    return pd.DataFrame(np.transpose(members), cell_types.index, [str(name) for name in wanted])


def lineages_of_fates(adata: AnnData, key: str) -> pd.DataFrame:
    """Fate probabilities as a table with a column per lineage; missing values are zero.

    Raises
    ------
    KeyError
        If there is no such table.
    TypeError
        If values are complex.
    ValueError
        If values are negative or masked, if columns have no names, or if no cell is in a lineage.
    """
    if key not in adata.obsm:
        raise KeyError(
            f"Expected `lineages` to be cell types by lineage or a key of `adata.obsm`, found {key!r}. There are "
            f"{list(adata.obsm.keys())}; CellRank writes 'lineages_fwd'."
        )
    table = adata.obsm[key]
    _checks.real_and_unmasked(f"adata.obsm[{key!r}]", table)
    if isinstance(table, pd.DataFrame):
        names, values = [str(name) for name in table.columns], table.to_numpy(dtype=np.float64)
    else:
        names = _names(adata, key, table)
        values = np.asarray(table, dtype=np.float64)
    values = np.where(np.isnan(values), 0.0, values)
    wrong = values[~(np.isfinite(values) & (values >= 0))]
    if len(wrong):
        raise ValueError(
            f"Expected fate probabilities `adata.obsm[{key!r}]` to be non-negative and finite, found {wrong[0]:g}."
        )
    empty = [name for name, total in zip(names, values.sum(0), strict=True) if total == 0]
    if empty:
        raise ValueError(
            f"Expected cells in every lineage of `adata.obsm[{key!r}]`, found none with a probability of {empty}. Drop these columns."
        )
    return pd.DataFrame(values, adata.obs_names, names)


def _names(adata: AnnData, key: str, table: np.ndarray) -> list[str]:
    names = names_of_fates(adata, key, table)
    if names is None:
        raise ValueError(
            f"Expected names of the {table.shape[1]} lineages in `adata.obsm[{key!r}]`, found an array without any. Make it a data "
            f"frame: `adata.obsm[{key!r}] = pd.DataFrame(adata.obsm[{key!r}], adata.obs_names, columns=[…])`."
        )
    return names
