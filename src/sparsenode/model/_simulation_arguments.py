"""Which starts, velocities and interventions a simulation takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from sparsenode import _checks


def given_starts(x0: object, genes: pd.Index) -> tuple[np.ndarray, list[str]]:
    """Checked starts × genes, and their names, numbers where they have none."""
    values, names = _by_name("x0", x0, genes)
    states = _states(values)
    if states.ndim != 2 or states.shape[1] != len(genes) or len(states) == 0:
        raise ValueError(f"Expected `x0` to be of shape (starts, {len(genes)}), found shape {states.shape}.")
    if not np.isfinite(states).all():
        wrong = [str(gene) for gene in genes[~np.isfinite(states).all(0)]]
        raise ValueError(
            f"Expected `x0` to be finite, found {int((~np.isfinite(states)).sum())} NaN or infinite values, of "
            f"{_checks.some(wrong)}."
        )
    return states, names or [str(row) for row in range(len(states))]


def given_velocities(v0: object, genes: pd.Index, starts: Sequence[str]) -> np.ndarray:
    """Velocities of the named starts × genes, whose shape is not checked."""
    values, names = _by_name("v0", v0, genes)
    if isinstance(v0, pd.DataFrame) and len(starts) > 1 and names != list(starts):
        raise ValueError(
            f"Expected the index of `v0` to name the starts, {_checks.some(starts)}, in this order, found {_checks.some(names or [])}. Pass "
            "`v0.to_numpy()` if rows and columns are in the order of the starts and of `model.genes`."
        )
    return np.atleast_2d(_checks.numbers("v0", values))


def _by_name(name: str, values: object, genes: pd.Index) -> tuple[object, list[str] | None]:
    """Rows of a data frame, or a series as one row, in the order of the genes, and their names; others as they are."""
    if isinstance(values, pd.Series):
        values = values.to_frame("0" if values.name is None else values.name).T
    if not isinstance(values, pd.DataFrame):
        return values, None
    missing = [gene for gene in genes if gene not in values.columns]
    if missing:
        raise ValueError(
            f"Expected all genes of the model as columns of `{name}`, or names of a series, missing are {missing[:5]}. Pass "
            f"`{name}.to_numpy()` if they are in the order of `model.genes`."
        )
    twice = values.columns[values.columns.duplicated()]
    if len(twice):
        raise ValueError(f"Expected every gene once in `{name}`, found {list(twice[:5])} more than once.")
    repeated = values.index[values.index.duplicated()].unique()
    if len(repeated):
        raise ValueError(
            f"Expected unique names of starts in the index of `{name}`, found {list(repeated[:5])} more than once. "
            f"`{name}.reset_index(drop=True)` numbers them."
        )
    return values[list(genes)].to_numpy(), [str(row) for row in values.index]


def _states(x0: object) -> np.ndarray:
    """Starts × genes as numbers."""
    if isinstance(x0, AnnData) or sparse.issparse(x0):
        raise TypeError(
            f"Expected `x0` to be a dense array or a data frame, found {type(x0).__name__}. Pass for instance "
            "`adata[:3].to_df()`, which names starts and genes."
        )
    _checks.real_and_unmasked("x0", x0)
    try:
        return np.atleast_2d(np.asarray(x0, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise TypeError(f"Expected `x0` to hold numbers, starts × genes: {error}") from error


def check_interventions(knockout: object, overexpress: object, clamp: object) -> None:
    """Refuse anything but names, sequences of them, and mappings from names to numbers."""
    mappings = {"clamp": {} if clamp is None else clamp}
    if isinstance(overexpress, Mapping):
        mappings["overexpress"] = overexpress
    else:
        _check_gene_names("overexpress", overexpress)
    if isinstance(knockout, Mapping):  # its values would be lost
        raise TypeError(
            f"Expected `knockout` to be a gene or a sequence of genes, which are held at 0, found {knockout!r}. Pass folds of the highest value "
            "as `overexpress`, below 1 for a knock-down, and other values as `clamp`."
        )
    _check_gene_names("knockout", knockout)
    for name, given in mappings.items():
        if not isinstance(given, Mapping):
            raise TypeError(f"Expected `{name}` to map genes to numbers, found {given!r}.")
        wrong = {gene: value for gene, value in given.items() if not _checks.is_number(value)}
        if wrong:
            raise TypeError(f"Expected numbers as values of `{name}`, found {wrong}.")


def _check_gene_names(name: str, given: object) -> None:
    """Refuse anything but a name or a collection of names."""
    if not isinstance(given, Collection) or not (isinstance(given, str) or all(isinstance(g, str) for g in given)):
        raise TypeError(f"Expected `{name}` to be a gene or a sequence of genes, () for none; found {given!r}.")
