"""Lineages and batches of the cells, with their pseudotime: read from AnnData, checked, and turned into arrays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from sparsenode import _checks, _keys
from sparsenode._input._expression import dense
from sparsenode._input._pseudotime import by_lineage, read_members, read_pseudotime

MIN_CELLS = 10
SINGLE_LINEAGE = "all"
SINGLE_BATCH = "all"
TOTAL = "total"  # the last row of tables of scores
_BULK = (0.05, 0.95)  # quantiles of pseudotime between which a lineage lies, but for strays


@dataclass(frozen=True)
class Observations:
    """Checked annotations of the cells.

    Parameters
    ----------
    times
        Pseudotime of each cell in each lineage, n × lineages; any number where the cell is no member.
    memberships
        Weight of each cell in each lineage, n × lineages.
    batches
        Batch index of each cell, n.
    lineage_names, batch_names
        Names in the order of the indices.
    """

    times: np.ndarray
    memberships: np.ndarray
    batches: np.ndarray
    lineage_names: list[str]
    batch_names: list[str]

    def trajectories(self) -> pd.DataFrame:
        """One row per lineage and batch that share cells, named as users see it.

        Raises
        ------
        ValueError
            If a trajectory has fewer than 10 cells, memberships that add up to fewer (in units of the lineage's largest), or a
            constant pseudotime.
        """
        rows = []
        for lineage, lineage_name in enumerate(self.lineage_names):
            for batch, batch_name in enumerate(self.batch_names):
                member = (self.memberships[:, lineage] > 0) & (self.batches == batch)
                if not member.any():
                    continue
                name = lineage_name if len(self.batch_names) == 1 else f"{lineage_name}, {batch_name}"
                times, weights = self.times[member, lineage], self.memberships[:, lineage]
                _check_trajectory(name, times, weights[member] / weights.max())
                rows.append((name, lineage_name, batch_name, len(times), times.min(), times.max()))
        columns = ["trajectory", "lineage", "batch", "n_cells", "start", "end"]
        table = pd.DataFrame(rows, columns=columns).set_index("trajectory")
        twice = table[table.index.duplicated(keep=False)]
        if len(twice):
            pairs = list(zip(twice["lineage"], twice["batch"], strict=True))
            raise ValueError(
                f"Expected every lineage and batch to give a name of its own, found {twice.index[0]!r} for {pairs}. Rename one."
            )
        return table

    def warn_of_stages(self) -> None:
        """Warn where a lineage begins after another one of the same batch has ended, as cell types do that follow each other."""
        for batch in range(len(self.batch_names)):
            cells = self.batches == batch
            times = [self.times[cells & (weights > 0), k] for k, weights in enumerate(self.memberships.T)]
            spans = {
                name: np.quantile(own, _BULK) for name, own in zip(self.lineage_names, times, strict=True) if len(own)
            }
            first, last = min(spans, key=lambda name: spans[name][1]), max(spans, key=lambda name: spans[name][0])
            if spans[last][0] > spans[first][1]:
                warnings.warn(
                    f"The lineage {last!r} begins where {first!r} has ended. If these are cell types, they are stages and no lineages, and "
                    "nothing is fitted that leads from one to the next. Name the cell types of every lineage, the early ones in all of "
                    "them: `sn.pp.prepare_trajectories(…, lineages={…})`, or a table of zeros and ones in `adata.obsm`.",
                    UserWarning,
                    stacklevel=3,
                )
                return


def _check_trajectory(name: str, times: np.ndarray, weights: np.ndarray) -> None:
    """Refuse a trajectory of too few cells, whose weights are relative to the largest of the lineage, or of one time."""
    if len(times) < MIN_CELLS:
        raise ValueError(
            f"Expected at least {MIN_CELLS} cells in every trajectory (one lineage of one batch), found {len(times)} in {name!r}. Merge "
            "it with another lineage or batch, or remove its cells."
        )
    if weights.sum() < MIN_CELLS:
        raise ValueError(
            f"Expected memberships of every trajectory to add up to at least {MIN_CELLS} cells of the largest weight in the lineage, found "
            f"{weights.sum():.3g} in the {len(times)} cells of {name!r}: a few cells would decide. Merge it with another lineage or batch, "
            "or leave it out."
        )
    if times.min() == times.max():
        raise ValueError(
            f"Expected pseudotime to vary within every trajectory, found {times.min():g} in all {len(times)} cells of {name!r}. Recompute "
            "pseudotime, or check `time_key`."
        )


def read_observations(
    adata: AnnData,
    time_key: str,
    lineage_key: str | None,
    batch_key: str | None,
    lineage_names: Sequence[str] | None = None,
) -> Observations:
    """Read and check the annotations of the cells.

    Parameters
    ----------
    adata
        Annotated cells.
    time_key, lineage_key, batch_key
        As in :meth:`sparsenode.SparseNODE.setup_anndata`.
    lineage_names
        Lineages of the fitted model. Given these, lineages outside them are refused and the order is theirs.

    Raises
    ------
    KeyError
        If a key is missing.
    TypeError
        If a key is a list, or pseudotime or memberships are not numeric, or complex.
    ValueError
        If a value cannot be used, or a key names several columns; the message names column, count and fix.
    """
    for argument, key in (("lineage_key", lineage_key), ("batch_key", batch_key)):
        _checks.key(adata, argument, key)
    times = read_pseudotime(adata, time_key, may_be_equal=lineage_names is not None)
    table = times if isinstance(times, pd.DataFrame) else None
    if table is not None and lineage_key == time_key:
        raise ValueError(
            f"Expected memberships in `lineage_key`, found {time_key!r}, the pseudotimes, for both keys. Leave out `lineage_key`: then the "
            "cells with a time are those of the lineage."
        )
    if lineage_key is None and lineage_names is not None and (table is None or SINGLE_LINEAGE not in table):
        _check_place(table is not None, time_key, lineage_names)
    if lineage_key is None and table is not None:
        lineage_key = time_key
        memberships, names = read_members(table, time_key, lineage_names)
    else:
        memberships, names = _read_memberships(adata, lineage_key, lineage_names)
    if lineage_names is not None:
        _check_known(names, lineage_names, lineage_key)
        memberships = (
            pd.DataFrame(memberships, columns=names).reindex(columns=list(lineage_names), fill_value=0.0).to_numpy()
        )
        names = list(lineage_names)
    else:
        _check_names(names, lineage_key)
    batches, batch_names = _read_batches(adata, batch_key)
    return Observations(by_lineage(times, memberships, names, time_key), memberships, batches, names, batch_names)


def _check_place(is_table: bool, key: str, known: Sequence[str]) -> None:
    """Refuse a column of pseudotime where the model has a table, whose columns are its lineages, and the other way round."""
    single = list(known) == [SINGLE_LINEAGE]
    if is_table == single:
        column, table = f"a column `adata.obs[{key!r}]`", f"a table `adata.obsm[{key!r}]`"
        raise ValueError(
            f"Expected pseudotime as in the data of the model, {column if single else f'{table} with the columns {list(known)}'}, found "
            f"{table if is_table else column}. Bring it into that form."
        )


def _check_known(names: Sequence[str], known: Sequence[str], key: str | None) -> None:
    """Refuse lineages that the model does not know."""
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    advice = "Rename or remove them; a lineage that was never seen cannot be predicted."
    if list(names) == _numbers(len(known)):
        advice = (
            f"The table has no column names, as when it was written and read: make it a data frame, "
            f"`adata.obsm[{key!r}] = pd.DataFrame(np.asarray(adata.obsm[{key!r}]), adata.obs_names, {list(known)})`, with the columns in "
            "their order."
        )
    raise ValueError(
        f"Expected the lineages of the fitted model, {list(known)}, found new ones in {key!r}: {unknown}. {advice}"
    )


def names_of_fates(adata: AnnData, key: str, table: np.ndarray, known: Sequence[str] = ()) -> list[str] | None:
    """Names of the columns of an array of fate probabilities; ``None`` if nothing tells them.

    CellRank leaves an array that carries its names, and after a file was written and read a plain one, whose names are the
    categories of the terminal states. Some of the cells may not have all of these: then the ``known`` lineages are taken, in
    their order, where there are as many.
    """
    names = getattr(table, "names", None)
    if names is not None:
        return [str(name) for name in names]
    n_columns = table.shape[1]
    if n_columns == len(known) and list(known) == _numbers(n_columns):
        return list(known)
    states = key.replace("lineages", "term_states")
    if states == key or states not in adata.obs or not isinstance(adata.obs[states].dtype, pd.CategoricalDtype):
        return None
    categories = [str(name) for name in adata.obs[states].cat.categories]
    if len(categories) == n_columns:
        return categories
    return list(known) if n_columns == len(known) and set(categories) < set(known) else None


def _numbers(n_columns: int) -> list[str]:
    """Names of columns that have none."""
    return [str(column) for column in range(n_columns)]


def _check_names(names: Sequence[str], key: str | None) -> None:
    """Refuse names of lineages under which results would overwrite one another."""
    if TOTAL in names:
        raise ValueError(
            f"Expected no lineage named {TOTAL!r} in {key!r}, found one: tables of scores have a row of that name. Rename the lineage."
        )
    taken: dict[str, str] = {}
    for name in names:
        result = _keys.lineage_adjacency(name)
        if result in taken:
            raise ValueError(
                f"Expected every lineage in {key!r} to have a key of its own for its results, found {taken[result]!r} and {name!r}, "
                f"which both give {result!r}. Rename one."
            )
        taken[result] = name


def _read_memberships(adata: AnnData, key: str | None, known: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    if key is None:
        return np.ones((adata.n_obs, 1)), [SINGLE_LINEAGE]
    if key in adata.obs and key in adata.obsm:
        raise ValueError(
            f"Expected `lineage_key` to be in one of `adata.obs` and `adata.obsm`, found {key!r} in both. Rename one."
        )
    if key in adata.obs:
        return _one_hot(adata.obs[key], key)
    if key in adata.obsm:
        return _membership_table(adata, key, known)
    raise _checks.missing(adata, key, "lineage_key", ("obs", "obsm"))


def _one_hot(column: pd.Series, key: str) -> tuple[np.ndarray, list[str]]:
    if column.isna().any():
        raise ValueError(
            f"Expected every cell to have a lineage, found {int(column.isna().sum())} of {len(column)} missing in "
            f"`adata.obs[{key!r}]`. Remove them: `adata = adata[adata.obs[{key!r}].notna()].copy()`."
        )
    if pd.api.types.is_float_dtype(column):
        raise TypeError(
            f"Expected lineages `adata.obs[{key!r}]` to be categories, found dtype {column.dtype}. For memberships or "
            "fate probabilities use a table in `adata.obsm` with one column per lineage."
        )
    categories = column.astype("category").cat.remove_unused_categories()
    names = _distinct(categories, key)
    return np.eye(len(names))[categories.cat.codes.to_numpy()], names


def _distinct(categories: pd.Series, key: str) -> list[str]:
    """Names of the categories, after refusing those that differ in their type only."""
    names = [str(name) for name in categories.cat.categories]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Expected categories in `adata.obs[{key!r}]` with names of their own, found numbers and text that read the same: {twice[:5]}. "
            f"Make them one: `adata.obs[{key!r}] = adata.obs[{key!r}].astype(str)`."
        )
    return names


def _require_finite_memberships(values: np.ndarray, names: Sequence[str], held: object, key: str) -> None:
    """Refuse missing and infinite memberships, with code that replaces them."""
    wrong = ~np.isfinite(values)
    if not wrong.any():
        return
    lacking = [name for name, cells in zip(names, wrong.T, strict=True) if cells.any()]
    table = f"adata.obsm[{key!r}]"
    filled = f"np.nan_to_num({table}, posinf=0)"
    if isinstance(held, pd.DataFrame):
        infinite = ".replace(np.inf, 0)" if np.isinf(values).any() else ""
        filled = f"{table}.astype(float){infinite}.fillna(0)"  # columns of booleans do not take 0
    raise ValueError(
        f"Expected memberships `{table}` to be finite, found NaN or inf in {int(wrong.any(1).sum())} cells, in {lacking[:5]}. Donors that "
        f"lack a lineage have NaN there once they are concatenated. Replace them by 0: `{table} = {filled}`."
    )


def _membership_table(adata: AnnData, key: str, known: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    values, names = _membership_values(adata, key, known or ())
    where = f"memberships `adata.obsm[{key!r}]`"
    if len(set(names)) < len(names):
        raise ValueError(f"Expected {where} to have unique column names, found {names}.")
    _require_finite_memberships(values, names, adata.obsm[key], key)
    if (values < 0).any():
        raise ValueError(
            f"Expected {where} to be non-negative, found {int((values < 0).any(1).sum())} cells below 0. Memberships are shares: set negative "
            "ones to 0, or pass probabilities instead of scores."
        )
    if (values.sum(1) == 0).any():
        raise ValueError(
            f"Expected every cell to belong to a lineage, found {int((values.sum(1) == 0).sum())} cells whose "
            f"{where} are all zero. Remove them: `adata = adata[np.asarray(adata.obsm[{key!r}]).sum(1) > 0].copy()`."
        )
    empty = [name for name, total in zip(names, values.sum(0), strict=True) if total == 0]
    if empty and known is None:
        raise ValueError(
            f"Expected every lineage to have cells, found none for {empty} in {where}. Drop these columns."
        )
    return values, names


def _membership_values(adata: AnnData, key: str, known: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Memberships as they are, cells × lineages, and the names of the columns."""
    table, place = adata.obsm[key], f"adata.obsm[{key!r}]"
    _checks.real_and_unmasked(place, table)
    if isinstance(table, pd.DataFrame):
        if not all(pd.api.types.is_numeric_dtype(dtype) for dtype in table.dtypes):
            raise TypeError(
                f"Expected memberships `{place}` to be numeric or boolean, found {set(map(str, table.dtypes))}."
            )
        return table.to_numpy(dtype=np.float64), [str(name) for name in table.columns]
    try:
        values = dense(table).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"Expected memberships `{place}` to be numeric or boolean: {error}.") from error
    if values.ndim != 2:
        raise ValueError(f"Expected memberships `{place}` to be cells × lineages, found shape {values.shape}.")
    return values, names_of_fates(adata, key, table, known) or _numbers(values.shape[1])


def _read_batches(adata: AnnData, key: str | None) -> tuple[np.ndarray, list[str]]:
    if key is None:
        return np.zeros(adata.n_obs, dtype=np.int64), [SINGLE_BATCH]
    if key not in adata.obs:
        raise _checks.missing(adata, key, "batch_key", ("obs",))
    column = adata.obs[key]
    if column.isna().any():
        raise ValueError(
            f"Expected every cell to have a batch, found {int(column.isna().sum())} of {len(column)} missing in "
            f"`adata.obs[{key!r}]`. Remove or label them."
        )
    categories = column.astype("category").cat.remove_unused_categories()
    return categories.cat.codes.to_numpy(dtype=np.int64), _distinct(categories, key)
