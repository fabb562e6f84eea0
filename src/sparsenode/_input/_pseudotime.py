"""Pseudotime of the cells: a number for each, or one for each of its lineages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from sparsenode import _checks, _keys

_NUMBER = "[0-9]+(?:[.][0-9]+)?"  # in text; a hyphen before it may be none of its own


def holds_table(adata: AnnData, key: str) -> bool:
    """Whether pseudotime is a table in ``.obsm``, with a column per lineage, and no column of ``.obs``.

    Raises
    ------
    KeyError
        If there is neither.
    TypeError
        If the key is a list.
    ValueError
        If there are both, or several columns of that name.
    """
    _checks.key(adata, "time_key", key)
    places = [place for place, names in (("obs", adata.obs), ("obsm", adata.obsm)) if key in names]
    if len(places) == 2:
        raise ValueError(
            f"Expected `time_key` to be in one of `adata.obs` and `adata.obsm`, found {key!r} in both. Rename one, for instance "
            f"`adata.obsm[{key + '_of_lineages'!r}] = adata.obsm.pop({key!r})`."
        )
    if not places:
        advice = " If you have none yet, `sn.pp.prepare_trajectories` makes one from counts, and `sc.tl.dpt` from a neighbour graph."
        raise _checks.missing(adata, key, "time_key", ("obs", "obsm"), advice if key == _keys.TIME_KEY else "")
    return places == ["obsm"]


def read_pseudotime(adata: AnnData, key: str, may_be_equal: bool) -> np.ndarray | pd.DataFrame:
    """Pseudotime of each cell, or a table of it, cells × lineages, missing where a cell is no member.

    ``may_be_equal`` allows a column that does not vary.

    Raises
    ------
    KeyError
        If it is not there.
    TypeError
        If it is not numeric, or a table without names of lineages.
    ValueError
        If there are no cells, or it is in ``.obs`` and ``.obsm``, infinite, constant, missing in a column, or if a table has two columns of one name.
    """
    return _read_table(adata, key) if holds_table(adata, key) else _read_column(adata, key, may_be_equal)


def read_members(table: pd.DataFrame, key: str, known: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    """Memberships that a table of pseudotimes implies, cells × lineages, one where there is a time, and the lineages.

    Where those of a model are ``known`` lineages may be without cells, and others that are do not count.

    Raises
    ------
    ValueError
        If a cell has no time at all, or a lineage no cell.
    """
    members = table.notna()
    if known is not None:
        members = members.loc[:, members.any(axis=0) | members.columns.isin(known)]
    outside = int((~members.any(axis=1)).sum())
    if outside:
        raise ValueError(
            f"Expected every cell to have a pseudotime in some lineage, found none in `adata.obsm[{key!r}]` for {outside} of {len(table)} "
            f"cells. Remove them: `adata = adata[adata.obsm[{key!r}].astype(float).notna().any(axis=1)].copy()`."
        )
    empty = list(members.columns[~members.any(axis=0)])
    if empty and known is None:
        raise ValueError(
            f"Expected every lineage to have cells, found only missing values for {empty} in `adata.obsm[{key!r}]`. Drop these columns: "
            f"`adata.obsm[{key!r}] = adata.obsm[{key!r}].astype(float).dropna(axis=1, how='all')`."
        )
    return members.to_numpy(dtype=np.float64), list(members.columns)


def by_lineage(times: np.ndarray | pd.DataFrame, memberships: np.ndarray, names: Sequence[str], key: str) -> np.ndarray:
    """Pseudotime of each cell in each lineage, cells × lineages; zero where a table has none for a cell that is no member.

    Raises
    ------
    ValueError
        If the columns of a table are not the lineages, or a member has no time.
    """
    if not isinstance(times, pd.DataFrame):
        return np.broadcast_to(times[:, None], memberships.shape)
    place = f"adata.obsm[{key!r}]"
    lacking = [name for name, own in zip(names, memberships.T, strict=True) if name not in times.columns and own.any()]
    if lacking:
        raise ValueError(
            f"Expected a column of pseudotime in `{place}` for each of the lineages, {list(names)}, found none for {lacking}: it has "
            f"{list(times.columns)}. Give the columns the names of the lineages, for instance `{place} = {place}.rename(columns={{…}})`, "
            "or the lineages those of the columns."
        )
    new = [name for name in times if name not in names and times[name].notna().any()]
    if new:
        raise ValueError(
            f"Expected no columns of pseudotime in `{place}` but those of the lineages, {list(names)}, found {new}. Drop them: "
            f"`{place} = {place}.loc[:, {place}.columns.astype(str).isin({list(names)})]`."
        )
    table = times.reindex(columns=list(names))
    for name, own in zip(names, memberships.T, strict=True):
        without = int((table[name].isna() & (own > 0)).sum())
        if without:
            raise ValueError(
                f"Expected a pseudotime for every cell of a lineage, found it missing (NaN) in `adata.obsm[{key!r}]` for {without} of the "
                f"{int((own > 0).sum())} cells of {name!r}. Take them out of the lineage, or leave out `lineage_key`: then the cells with a "
                "time are its cells."
            )
    return table.fillna(0.0).to_numpy()


def _read_table(adata: AnnData, key: str) -> pd.DataFrame:
    table, place = adata.obsm[key], f"adata.obsm[{key!r}]"
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"Expected pseudotimes `{place}` to be a data frame with a column per lineage, NaN where a cell is in another, found "
            f"{type(table).__name__}. Make it one: `{place} = pd.DataFrame({place}, adata.obs_names, [names of the lineages])`."
        )
    if table.shape[1] == 0:
        raise ValueError(f"Expected a column per lineage in pseudotimes `{place}`, found none.")
    _checks.real_and_unmasked(place, table)
    wrong = [str(name) for name, column in table.items() if not _is_number(column)]
    if wrong:
        raise TypeError(
            f"Expected pseudotimes `{place}` to be numeric, found {sorted({str(kind) for kind in table.dtypes})}, others in {wrong}. Text "
            f"becomes numbers by `{place} = {place}.apply(pd.to_numeric, errors='coerce')`."
        )
    result = pd.DataFrame(table.to_numpy(dtype=np.float64, na_value=np.nan), table.index, [str(c) for c in table])
    if not result.columns.is_unique:
        raise ValueError(f"Expected `{place}` to have unique column names, found {list(result.columns)}.")
    infinite = int(np.isinf(result).any(axis=1).sum())
    if infinite:
        raise ValueError(
            f"Expected pseudotimes `{place}` to be finite, or missing where a cell is not in a lineage, found infinite ones in {infinite} "
            f"of {len(result)} cells. Remove them, or make them missing: `{place} = {place}.replace([np.inf, -np.inf], np.nan)`."
        )
    return result


def _is_number(column: pd.Series) -> bool:
    """Whether a column holds numbers, by its type."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _read_column(adata: AnnData, key: str, may_be_equal: bool) -> np.ndarray:
    column = adata.obs[key]
    if len(column) == 0:
        raise ValueError("Expected cells with a pseudotime, found none. Check the filter that left no cells.")
    _checks.real_and_unmasked(f"adata.obs[{key!r}]", column)
    if not _is_number(column):
        shown = [str(value) for value in column.dropna().unique()[:3]]
        raise TypeError(
            f"Expected pseudotime `adata.obs[{key!r}]` to be numeric, found dtype {column.dtype}, such as {shown}. Make it so: "
            f"`adata.obs[{key!r}] = {_as_numbers(column, key)}`."
        )
    times = column.to_numpy(dtype=np.float64, na_value=np.nan)
    for count, what, fix in (
        (np.isnan(times).sum(), "missing (NaN)", "Remove these cells"),
        (
            np.isinf(times).sum(),
            "infinite",
            "Diffusion pseudotime is infinite in cells that the root cannot reach; remove them",
        ),
    ):
        if count:
            raise ValueError(
                f"Expected pseudotime `adata.obs[{key!r}]` to be finite, found {count} of {len(times)} cells "
                f"{what}. {fix}: `adata = adata[np.isfinite(adata.obs[{key!r}].astype(float))].copy()`."
            )
    if times.min() == times.max() and not may_be_equal:
        raise ValueError(
            f"Expected pseudotime `adata.obs[{key!r}]` to vary, found {times[0]:g} in all {len(times)} cells. Recompute it from "
            "a root cell, or check `time_key`."
        )
    return times


def _as_numbers(column: pd.Series, key: str) -> str:
    """Code that makes numbers of a column, for the user to fill in where text does not say which."""
    place = f"adata.obs[{key!r}]"
    if pd.api.types.is_timedelta64_dtype(column):
        return f"{place}.dt.total_seconds() / 86400"
    if pd.api.types.is_datetime64_any_dtype(column):
        return f"({place} - {place}.min()).dt.total_seconds() / 86400"
    values = column.dropna().astype(object)
    if pd.to_numeric(values, errors="coerce").notna().all():
        return (
            f"{place}.astype(float)"
            if len(values) == len(column)
            else f"pd.to_numeric({place}.astype(object), errors='coerce')"
        )
    text = values.astype(str)
    around = text.str.replace(_NUMBER, "", n=1, regex=True).unique()
    if len(around) == 1 and text.str.contains(_NUMBER).all() and not set(around[0]) & set("0123456789,.+"):
        return f"{place}.astype(str).str.extract(r'({_NUMBER})')[0].astype(float)"
    filled = ", ".join(f"{value!r}: …" for value in text.unique()[:3])
    return f"{place}.map({{{filled}}}).astype(float)"
