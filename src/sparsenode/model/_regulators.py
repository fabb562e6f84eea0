"""Knowledge about edges, from names to positions: who may regulate, and what a path costs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData

SelfEdges = Literal["penalised", "free"]
_DISCOUNT = 0.9  # off the penalty of an edge that prior knowledge is sure of
_FORBIDDEN = (
    1e9  # times the penalty of an edge that a hard prior does not hold: its column is zero after the first step
)
logger = logging.getLogger("sparsenode")


def regulator_positions(
    regulators: str | Sequence[str] | None, genes: pd.Index, adata: AnnData | None, constant: Sequence[str] = ()
) -> list[int] | None:
    """Positions of the regulators among the genes of the model, in the order of the genes; ``None`` if all may regulate.

    Parameters
    ----------
    regulators
        Names, or the name of a boolean column of ``adata.var``.
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
        If the column is not boolean.
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
        column = adata.var[regulators]
        if not pd.api.types.is_bool_dtype(column) or column.isna().any():
            raise TypeError(
                f"Expected `adata.var[{regulators!r}]` to be boolean, found {column.dtype}. It should say which genes "
                "may regulate others."
            )
        regulators = list(column.index[column.to_numpy(dtype=bool)])
    names = pd.Index(list(regulators)).astype(str).unique()
    chosen = np.flatnonzero(genes.isin(names))
    if len(chosen) == 0:
        raise ValueError(
            f"Expected `regulators` to name genes of the model, none of {len(names)} names is among its {len(genes)} "
            f"genes. Genes look like {list(genes[:3])}, names like {list(names[:3])}."
        )
    logger.info("%d of %d regulators are among the %d genes.", len(chosen), len(names), len(genes))
    return _that_vary(chosen, varying, genes)


def _that_vary(chosen: np.ndarray, varying: np.ndarray, genes: pd.Index) -> list[int]:
    kept = chosen[varying[chosen]]
    if len(kept) == 0:
        raise ValueError(
            f"Expected regulators that vary between cells, found none: {list(genes[chosen[:10]])} are constant. Check the expression "
            "that was set up, or name other `regulators`."
        )
    return kept.tolist()


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
        If it is not a data frame.
    ValueError
        If names repeat, if none is a gene, or if a weight is negative or not finite.
    """
    if path_weights is None and self_edges == "penalised":
        return None
    weights = np.ones((len(genes), len(genes)))
    if path_weights is not None:
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
        values = path_weights.to_numpy(dtype=np.float64)[np.ix_(targets >= 0, regulators >= 0)]
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ValueError("Expected `path_weights` to be non-negative and finite; leave an edge out for weight one.")
        weights[np.ix_(targets[targets >= 0], regulators[regulators >= 0])] = values
    if self_edges == "free":
        np.fill_diagonal(weights, 0.0)
    return weights


def prior_weight_matrix(prior: pd.DataFrame, hard: bool, genes: pd.Index) -> pd.DataFrame:
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

    Raises
    ------
    TypeError
        If it is not a data frame.
    KeyError
        If a column is missing.
    ValueError
        If a weight is out of range, or no edge is between genes of the model.
    """
    if not isinstance(prior, pd.DataFrame):
        raise TypeError(f"Expected `prior` to be a data frame of edges, found {type(prior).__name__}.")
    missing = [column for column in ("source", "target") if column not in prior]
    if missing:
        raise KeyError(f"Expected the columns 'source' and 'target' in `prior`, {missing} not found in {list(prior)}.")
    confidence = prior["weight"].to_numpy(dtype=float) if "weight" in prior else np.ones(len(prior))
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("Expected the weights of `prior` in [0, 1], found others. Scale them by their maximum.")
    source, target = (genes.get_indexer(pd.Index(prior[column].astype(str))) for column in ("source", "target"))
    known = (source >= 0) & (target >= 0)
    if not known.any():
        raise ValueError(
            f"Expected edges of `prior` between genes of the model, found none among {len(prior)}. Genes look like "
            f"{list(genes[:3])}, sources like {list(prior['source'][:3])}."
        )
    logger.info("%d of %d prior edges are between genes of the model.", int(known.sum()), len(prior))
    certain = np.zeros((len(genes), len(genes)))
    np.maximum.at(certain, (target[known], source[known]), confidence[known])
    weights = 1.0 - _DISCOUNT * certain
    if hard:
        weights[certain == 0] = _FORBIDDEN
        np.fill_diagonal(weights, np.minimum(np.diag(weights), 1.0))
    return pd.DataFrame(weights, index=genes, columns=genes)
