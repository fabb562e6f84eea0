"""Knowledge about edges, from names to positions: who may regulate, and what a path costs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from sparsenode import _checks
from sparsenode._logging import logger

SelfEdges = Literal["penalised", "free"]
_DISCOUNT = 0.9  # off the penalty of an edge that prior knowledge is sure of
# Times the penalty of an edge that a hard prior does not hold: its column is zero after the first step
_FORBIDDEN = 1e9


def regulator_positions(
    regulators: str | Sequence[str] | None, genes: pd.Index, adata: AnnData | None, constant: Sequence[str] = ()
) -> list[int] | None:
    """Positions of the regulators among the genes of the model, in the order of the genes; ``None`` if all may regulate.

    Parameters
    ----------
    regulators
        Names, or the name of a boolean column of ``adata.var``. Names that are no genes are not used, and the log says which.
    genes
        Genes of the model.
    adata
        Data of the model.
    constant
        Genes that do not vary, whose effect could not be told from a constant: they are no regulators.

    Raises
    ------
    KeyError
        If there is no such column.
    TypeError
        If the column is not boolean, or it is a mask and not names.
    ValueError
        If no name is a gene of the model, or none of these varies.
    """
    varying = ~genes.isin(constant)
    if regulators is None:
        return None if varying.all() else _that_vary(np.arange(len(genes)), varying, genes)
    if isinstance(regulators, str):
        if adata is None or regulators not in adata.var:
            columns = "" if adata is None else f" Columns: {list(adata.var)}. Names go in a list: `[{regulators!r}]`."
            raise KeyError(
                f"Expected `regulators` to be names of genes or a column of `adata.var`, found {regulators!r}.{columns}"
            )
        mask = _checks.marked(adata, regulators)
        if not mask.any():
            raise ValueError(f"Expected `adata.var[{regulators!r}]` to mark regulators, found none.")
        regulators = list(adata.var_names[mask])
    names = pd.Index(_checks.names("regulators", regulators)).astype(str).unique()
    chosen = np.flatnonzero(genes.isin(names))
    if len(chosen) == 0:
        raise ValueError(
            f"Expected `regulators` to name genes of the model, none of {len(names)} names is among its {len(genes)} "
            f"genes. Genes look like {list(genes[:3])}, names like {list(names[:3])}."
        )
    unused = _unused(names[~names.isin(genes)])
    logger.info("%d of %d regulators are among the %d genes%s.", len(chosen), len(names), len(genes), unused)
    return _that_vary(chosen, varying, genes)


def _that_vary(chosen: np.ndarray, varying: np.ndarray, genes: pd.Index) -> list[int]:
    kept = chosen[varying[chosen]]
    if len(kept) == 0:
        raise ValueError(
            f"Expected regulators that vary between cells, found none: {list(genes[chosen[:10]])} are constant. Check the expression "
            "that was set up, or name other `regulators`."
        )
    return kept.tolist()


def _unused(names: Iterable[str]) -> str:
    """End of a sentence that says how many names were not used, and some of them."""
    listed = list(names)
    return f"; not used are {len(listed)}, such as {', '.join(listed[:5])}" if listed else ""


def path_weight_matrix(path_weights: pd.DataFrame | None, self_edges: SelfEdges, genes: pd.Index) -> np.ndarray | None:
    """Weights of the paths from each regulator to each target, targets × regulators; ``None`` if all are one.

    Parameters
    ----------
    path_weights
        Non-negative numbers, with targets as index and regulators as columns; edges that are not there have weight one.
    self_edges
        ``"free"`` sets the diagonal to zero.
    genes
        Genes of the model.

    Raises
    ------
    TypeError
        If it is not a data frame, or holds anything but numbers.
    ValueError
        If names repeat, if none is a gene, or if a weight is negative or not finite.
    """
    if path_weights is None and self_edges == "penalised":
        return None
    weights = np.ones((len(genes), len(genes)))
    if path_weights is not None:
        targets, regulators, values = _known_weights(path_weights, genes)
        weights[np.ix_(targets, regulators)] = values
    if self_edges == "free":
        np.fill_diagonal(weights, 0.0)
    return weights


def _known_weights(path_weights: pd.DataFrame, genes: pd.Index) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the targets and regulators that are genes, and weights of the paths between them, after refusing what is none."""
    if not isinstance(path_weights, pd.DataFrame):
        raise TypeError(
            "Expected `path_weights` to be a data frame with targets as index and regulators as columns, found "
            f"{type(path_weights).__name__}."
        )
    for axis, labels in (("index", path_weights.index), ("columns", path_weights.columns)):
        if labels.has_duplicates:
            raise ValueError(
                f"Expected unique names in the {axis} of `path_weights`, found {labels[labels.duplicated()][0]!r} "
                "more than once."
            )
    targets, regulators = genes.get_indexer(path_weights.index), genes.get_indexer(path_weights.columns)
    if not ((targets >= 0).any() and (regulators >= 0).any()):
        raise ValueError(
            f"Expected `path_weights` to name genes of the model, found none. Genes look like {list(genes[:3])}, its "
            f"index like {list(path_weights.index[:3])}, its columns like {list(path_weights.columns[:3])}."
        )
    text = [name for name, column in path_weights.items() if any(isinstance(value, str) for value in column)]
    if text:
        raise TypeError(f"Expected numbers in `path_weights`, found text in column {text[0]!r}.")
    marks = [name for name, column in path_weights.items() if any(isinstance(v, bool | np.bool_) for v in column)]
    if marks:  # those of expected edges would mean the opposite
        raise TypeError(
            f"Expected numbers in `path_weights`, found booleans in column {marks[0]!r}: paths of weight 0 are free. If they mark expected "
            "edges, pass `1 - 0.9 * path_weights`."
        )
    values = path_weights.to_numpy(dtype=np.float64)[np.ix_(targets >= 0, regulators >= 0)]
    wrong = values[~(np.isfinite(values) & (values >= 0))]
    if len(wrong):
        raise ValueError(
            f"Expected `path_weights` to be non-negative and finite, found {wrong[0]:g}. Leave an edge out for weight one."
        )
    return targets[targets >= 0], regulators[regulators >= 0], values


def report_path_weights(path_weights: pd.DataFrame, genes: pd.Index, regulators: Sequence[int] | None) -> None:
    """Log how many rows and columns are used, and warn of weights of genes that may not regulate."""
    for axis, labels in (("rows", path_weights.index), ("columns", path_weights.columns)):
        known = labels.isin(genes)
        unused = _unused(labels[~known].astype(str))
        logger.info("%d of %d %s of `path_weights` are genes of the model%s.", known.sum(), len(known), axis, unused)
    if regulators is None:
        return
    others = path_weights.columns.isin(genes.delete(list(regulators)))
    meant = (path_weights[path_weights.index.isin(genes)] != 1).any(axis=0).to_numpy()
    barred = path_weights.columns[others & meant]
    if len(barred):
        warnings.warn(
            f"{len(barred)} of {path_weights.shape[1]} columns of `path_weights` cannot be used, such as {list(barred[:5])}: they are not "
            "among `regulators`. Add them to `regulators`, or leave them out.",
            UserWarning,
            stacklevel=3,
        )


def prior_weight_matrix(
    prior: pd.DataFrame, hard: bool, genes: pd.Index, regulators: Sequence[int] | None = None
) -> pd.DataFrame:
    """Path weights of a prior network: targets × regulators among the genes of the model.

    Parameters
    ----------
    prior
        Long table with the columns ``source``, ``target`` and optionally ``weight`` in ``[0, 1]``, one by default; the
        largest weight counts where an edge is listed more than once.
    hard
        Whether other edges are forbidden. Otherwise the penalty of a listed edge is ``1 - 0.9 * weight`` times that of others.
    genes
        Genes of the model.
    regulators
        Positions of the genes that may regulate, all if ``None``. Edges that leave others cannot be used, and a warning says so.

    Raises
    ------
    TypeError
        If it is not a data frame, or its weights are not numbers.
    KeyError
        If a column is missing.
    ValueError
        If a gene is missing, a weight is out of range, or no edge is between genes of the model.
    """
    _checks.columns("prior", prior, ("source", "target"))
    _checks.genes_of_edges("prior", prior)
    confidence = _checks.weights("prior", prior) if "weight" in prior else np.ones(len(prior))
    wrong = np.flatnonzero(~((confidence >= 0) & (confidence <= 1)))
    if len(wrong):
        raise ValueError(
            f"Expected the weights of `prior` in [0, 1], found {confidence[wrong[0]]:g} in row {wrong[0]} and {len(wrong)} such rows in all. "
            "They are confidences: take magnitudes of signs with `.abs()`, scale by the maximum, and drop rows with NaN."
        )
    source, target = (genes.get_indexer(pd.Index(prior[column].astype(str))) for column in ("source", "target"))
    known = (source >= 0) & (target >= 0)
    if not known.any():
        raise ValueError(
            f"Expected edges of `prior` between genes of the model, found none among {len(prior)}. Genes look like "
            f"{list(genes[:3])}, sources like {list(prior['source'][:3])}."
        )
    edges = prior["source"].astype(str) + " → " + prior["target"].astype(str)
    unused = _unused(edges[~known])
    logger.info("%d of %d prior edges are between genes of the model%s.", int(known.sum()), len(prior), unused)
    barred = known & ~np.isin(source, np.arange(len(genes)) if regulators is None else regulators)
    if barred.any():
        warnings.warn(
            f"{int(barred.sum())} of {len(prior)} edges of `prior` cannot be used, such as {', '.join(edges[barred][:5])}: their "
            "sources are not among `regulators`. Add them to `regulators`, or leave the edges out.",
            UserWarning,
            stacklevel=3,
        )
    certain = np.zeros((len(genes), len(genes)))
    np.maximum.at(certain, (target[known], source[known]), confidence[known])
    weights = 1.0 - _DISCOUNT * certain
    if hard:
        weights[certain == 0] = _FORBIDDEN
        np.fill_diagonal(weights, np.minimum(np.diag(weights), 1.0))
    return pd.DataFrame(weights, index=genes, columns=genes)
