"""Checks of what users pass, with messages that name the argument and the value."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

if TYPE_CHECKING:
    from mudata import MuData

# What a column may hold of genes that it does not mark, in small letters
_UNMARKED = ("", "0", "0.0", "false", "no", "n", "none", "other")


def choice(name: str, value: object, valid: Sequence[str]) -> None:
    """Refuse anything but the valid values."""
    if not isinstance(value, str) or value not in valid:  # an array would be compared entry by entry
        raise ValueError(f"Expected `{name}` to be one of {list(valid)}, found {value!r}.")


def missing(adata: AnnData, key: str, argument: str, places: Sequence[str], advice: str = "") -> KeyError:
    """The error for a key that is in none of the places, with what is there instead."""
    named = " or ".join(f"`adata.{place}`" for place in places)
    shown = ", ".join(f"{[str(name) for name in getattr(adata, place)][:20]} in `adata.{place}`" for place in places)
    return KeyError(f"Expected `{argument}` to be in {named}, found {key!r}. Available: {shown}.{advice}")


def key(data: AnnData | MuData, argument: str, value: object) -> None:
    """Refuse a list of names where one is meant, and a name that several columns of ``.obs`` have."""
    if not isinstance(value, Hashable):
        raise TypeError(
            f"Expected `{argument}` to be one name, found {value!r}. Several columns make one by `adata.obs['both'] = "
            "adata.obs['one'].astype(str) + ' ' + adata.obs['other'].astype(str)`."
        )
    _once("adata.obs", data.obs, [value])


def some(items: Collection[Any], most: int = 5) -> str:
    """The first items of a list or dictionary for a message, and whether there are more."""
    shown = dict(list(items.items())[:most]) if isinstance(items, Mapping) else list(items)[:most]
    return f"{shown}{' and more' if len(items) > most else ''}"


def anndata(adata: object, name: str = "adata") -> None:
    """Refuse anything but AnnData, such as MuData, of which it takes one modality."""
    if not isinstance(adata, AnnData):
        raise TypeError(
            f"Expected `{name}` to be an AnnData object, found {type(adata).__name__}. Of MuData pass one modality, `mdata['rna']` for "
            "instance."
        )


def names(name: str, values: object) -> list[Any]:
    """The names as a list, after refusing a single one, a mask, and what holds none."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        column = f"A single gene is `[{values!r}]`; a boolean column of `adata.var` has the names `list(adata.var_names[adata.var[{values!r}]])`."
        raise TypeError(
            f"Expected `{name}` to be a list of names of genes, found {values!r}.{' ' + column if isinstance(values, str) else ''}"
        )
    listed = list(values)
    if any(isinstance(value, bool | np.bool_) for value in listed):
        raise TypeError(
            f"Expected `{name}` to be a list of names of genes, found a mask of {len(listed)} values. Take its names, "
            "`list(adata.var_names[mask])`."
        )
    return listed


def marked(adata: AnnData, name: str) -> np.ndarray:
    """Mask over genes from a column of ``adata.var``, after refusing anything but booleans."""
    column, place = adata.var[name], f"adata.var[{name!r}]"
    n_missing = int(column.isna().sum())
    if not n_missing and pd.api.types.is_bool_dtype(column):
        return column.to_numpy(dtype=bool)
    mark = next((value for value in column.dropna().unique().tolist() if str(value).lower() not in _UNMARKED), True)
    equal = f"{place} == {mark!r}"
    if (column == mark).isna().any():  # nullable types
        equal = f"({equal}).fillna(False).astype(bool)"
    found = f"{column.dtype}, {n_missing} of {len(column)} missing" if n_missing else f"{column.dtype}"
    raise TypeError(
        f"Expected `{place}` to be boolean without missing values, found {found}. Say which value marks a gene, for instance `{place} = {equal}`."
    )


def booleans(**values: object) -> None:
    """Refuse anything but True and False."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"Expected `{name}` to be True or False, found {value!r}.")


def is_integer(value: object) -> TypeGuard[Integral]:
    """Whether it is an integer, also one of numpy, and neither True nor False."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[Real]:
    """Whether it is a real number, also one of numpy, and neither True nor False."""
    return isinstance(value, Real) and not isinstance(value, bool)


def at_least(name: str, value: object, minimum: int) -> int:
    """The value as an integer of Python, after refusing anything but integers from ``minimum`` on."""
    if not is_integer(value) or int(value) < minimum:
        raise ValueError(f"Expected `{name}` to be an integer of at least {minimum}, found {value!r}.")
    return int(value)


def key_added(value: object) -> None:
    """Refuse anything but a name that h5ad files can hold as a part of a key."""
    if not isinstance(value, str) or not value or "/" in value:
        raise ValueError(
            f"Expected `key_added` to be a name without a slash, which h5ad reads as a group, found {value!r}."
        )


def number(name: str, value: object) -> None:
    """Refuse anything but finite numbers."""
    if not is_number(value) or not abs(float(value)) < float("inf"):
        raise ValueError(f"Expected `{name}` to be a finite number, found {value!r}.")


def positive(name: str, value: object) -> None:
    """Refuse anything but positive finite numbers."""
    if not is_number(value) or not 0 < float(value) < float("inf"):
        raise ValueError(f"Expected `{name}` to be a positive number, found {value!r}.")


def non_negative(name: str, value: object) -> None:
    """Refuse anything but finite numbers from 0 on."""
    if not is_number(value) or not 0 <= float(value) < float("inf"):
        raise ValueError(f"Expected `{name}` to be non-negative and finite, found {value!r}.")


def real_and_unmasked(place: str, values: Any) -> None:
    """Refuse complex arrays, which would be read as if they were real, and masked ones, as if nothing were masked; without reading files or dask.

    Tables are refused for the first such column.

    Raises
    ------
    TypeError
        If they are complex.
    ValueError
        If values are masked; of dask also if they may be.
    """
    if isinstance(values, pd.DataFrame):
        for name, column in values.items():
            real_and_unmasked(f"{place}[{name!r}]", column)
        return
    if getattr(getattr(values, "dtype", None), "kind", None) == "c":
        raise TypeError(
            f"Expected real numbers in `{place}`, found dtype {values.dtype}. Take the part that is meant, for instance `{place} = np.real({place})`."
        )
    if isinstance(getattr(values, "_meta", None), np.ma.MaskedArray):
        raise ValueError(
            f"Expected `{place}` without a mask, found masked arrays of dask, whose mask would be lost. Fill masked values: "
            f"`{place} = dask.array.ma.filled({place}, 0)`."
        )
    if np.ma.is_masked(values):
        raise ValueError(
            f"Expected `{place}` without masked values, found {np.ma.count_masked(values)} of {values.size} masked: what lies beneath the mask "
            f"would be read. Fill them: `{place} = {place}.filled(0)`."
        )
    is_view = isinstance(values, np.ndarray) and type(values) is not np.ndarray
    if is_view and np.ma.is_masked(values.base):  # those of anndata drop the mask
        raise ValueError(
            f"Expected `{place}` without masked values, found a view of cells or genes in which {np.ma.count_masked(values.base)} are masked: "
            f"what lies beneath the mask would be read. Fill them before you choose cells or genes: `{place} = {place}.filled(0)`."
        )


def numbers(name: str, values: object) -> np.ndarray:
    """The values as an array of floats, after refusing what are none."""
    try:
        if isinstance(values, AnnData):  # which numpy would take apart cell by cell, for a long time
            raise TypeError("a container")
        if np.ma.is_masked(values):
            raise TypeError("masked values")
        found = np.asarray(values)
        if found.dtype.kind in "USbc":
            raise TypeError(f"dtype {found.dtype}")
        return found.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"Expected `{name}` to be numbers, found {values!r}.") from error


def share(name: str, value: object, zero: bool = True) -> None:
    """Refuse anything but numbers from 0 to 1; 0 itself only with ``zero``."""
    if not is_number(value) or not 0 <= float(value) <= 1 or (value == 0 and not zero):
        raise ValueError(f"Expected `{name}` to be in {'[' if zero else '('}0, 1], found {value!r}.")


def positive_integers(name: str, value: object) -> tuple[int, ...]:
    """The value as a tuple, after refusing anything but a non-empty sequence of positive integers."""
    items = list(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else []
    if not items or not all(is_integer(v) and int(v) > 0 for v in items):
        raise ValueError(
            f"Expected `{name}` to be a sequence of positive integers such as (100, 100), found {value!r}."
        )
    return tuple(int(v) for v in items)


def cell_indices(indices: object, n_cells: int) -> np.ndarray:
    """Positions of cells from positions or a mask, all cells for ``None``.

    Raises
    ------
    TypeError
        If they are neither integers nor booleans.
    IndexError
        If they have more than one dimension, or a position or the length of a mask is out of range.
    """
    if indices is None:
        return np.arange(n_cells)
    chosen = np.asarray(indices)
    if chosen.size > 0 and chosen.dtype.kind not in "biu":
        raise TypeError(
            f"Expected `indices` to be integers or a boolean mask, found {chosen.ravel()[0]!r} of dtype {chosen.dtype}. For names of "
            "cells take `adata.obs_names.get_indexer(names)`."
        )
    if chosen.dtype == bool:
        if chosen.shape != (n_cells,):
            raise IndexError(f"Expected a mask over {n_cells} cells in `indices`, found shape {chosen.shape}.")
        return np.flatnonzero(chosen)
    if chosen.ndim != 1:
        raise IndexError(f"Expected `indices` in one dimension, found shape {chosen.shape}.")
    chosen = chosen.astype(np.int64)
    if chosen.size and (chosen.min() < -n_cells or chosen.max() >= n_cells):
        raise IndexError(f"Expected `indices` in [{-n_cells}, {n_cells - 1}], found {chosen.min()} to {chosen.max()}.")
    return np.where(chosen < 0, chosen + n_cells, chosen)


def setup_arguments(given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse arguments that no setup has; scvi-tools passes some of its own together with ``source_registry``.

    Raises
    ------
    TypeError
        If there are any.
    """
    if given and "source_registry" not in given:
        raise TypeError(f"Expected arguments among {list(known)}, found {list(given)}.")


def single_precision() -> None:
    """Refuse new tensors of another precision than single, which weights and what they are multiplied by would not share.

    Raises
    ------
    ValueError
        If that is the default of torch.
    """
    default = torch.get_default_dtype()
    if default != torch.float32:
        raise ValueError(
            f"Expected single precision, in which the model computes, as the default of torch, found {default}. Call "
            "`torch.set_default_dtype(torch.float32)`; statistics are accumulated in double precision as it is."
        )


def columns(name: str, table: pd.DataFrame, needed: Sequence[str]) -> None:
    """Refuse what is no table, and tables that lack columns or have one of them twice."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"Expected `{name}` to be a data frame, found {type(table).__name__}.")
    absent = [column for column in needed if column not in table]
    if absent:
        raise KeyError(
            f"Expected the columns {list(needed)} in `{name}`, {absent} not found in {some(list(table), 20)}."
        )
    _once(name, table, needed)


def _once(name: str, table: pd.DataFrame, needed: Sequence[Hashable]) -> None:
    """Refuse a table with two columns of one name, as tables that were put side by side have."""
    for column in needed:
        count = list(table).count(column)
        if count > 1:
            raise ValueError(
                f"Expected one column {column!r} in `{name}`, found {count}. Keep the first: `{name} = {name}.loc[:, "
                f"~{name}.columns.duplicated()]`."
            )


def genes_of_edges(name: str, table: pd.DataFrame) -> None:
    """Refuse edges whose source or target is missing."""
    for column in ("source", "target"):
        lost = np.flatnonzero(table[column].isna())
        if len(lost):
            raise ValueError(
                f"Expected a gene in every row of the column {column!r} of `{name}`, found none in row {lost[0]} and {len(lost)} such rows "
                "in all. Drop them; if genes are called NA or nan, read the table with `keep_default_na=False`."
            )


def weights(name: str, table: pd.DataFrame) -> np.ndarray:
    """Weights of a table of edges, after refusing anything but numbers; they may be missing or infinite."""
    _once(name, table, ("weight",))
    column = table["weight"]
    if column.dtype.kind in "fiu":  # the usual case, where there may be millions
        return column.to_numpy(dtype=float)
    if any(isinstance(value, bool | np.bool_) or not (isinstance(value, Real) or pd.isna(value)) for value in column):
        raise TypeError(
            f"Expected numbers in the column `weight` of `{name}`, found {column.dtype}, such as {column.iloc[:1].tolist()}. "
            "Convert them; signs are 1.0 and -1.0."
        )
    return column.to_numpy(dtype=float)
