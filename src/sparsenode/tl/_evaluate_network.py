"""Score a predicted network against a reference."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from sparsenode import _checks

# Genes of a reference from which a network of targets only is told from a sparse one, and their share that is warned of.
_MANY_GENES, _TARGETS_ONLY = 20, 0.5
_UNKNOWN = 0.5  # share of the genes of the reference


def evaluate_network(
    network: pd.DataFrame,
    reference: pd.DataFrame,
    regulators: Sequence[str] | None = None,
    *,
    targets: Sequence[str] | None = None,
    exclude: pd.DataFrame | None = None,
) -> pd.Series:
    """Compare ranked edges with a reference network, with the definitions of BEELINE :cite:p:`pratapa2020benchmarking`.

    Every ordered pair of two different genes of the reference is a candidate edge, unless arguments say otherwise. Candidates are ranked by the magnitude of their
    predicted weight, those without a prediction last. A network that predicts none of them scores as chance. Self edges of the reference
    only contribute their genes, as in BEELINE's areas under curves (its early precision leaves out genes with no other edges). Repeated
    rows count once.

    Do not compare

    - ``auprc`` or ``epr`` between references of different density,
    - a correlation with other methods, if the reference itself was made from co-expression: it favours correlations,
    - a sparse network with a dense ranking by ``auprc`` or ``auprc_ratio``: the straight line from the last predicted edge to the end
      flatters a short list of true edges, and is unfair to a short list of wrong ones. Use ``average_precision_ratio``.

    Parameters
    ----------
    network
        Predicted edges: columns ``source``, ``target``, ``weight``. If an edge is listed more than once, its largest magnitude counts.
    reference
        True edges: columns ``source`` and ``target``, optionally ``weight``, whose sign is that of the regulation. The sign is unknown if
        it is 0 or NaN, or if rows of one edge have both signs.
    regulators
        Genes that may be sources. Default: all genes of the reference. Pass the ``regulators`` of the model or baseline, if it had any.
        Otherwise pairs that it can never predict are free negatives, which inflates all ratios, even those of random weights; a warning
        says if that seems so.
    targets
        Genes that may be targets. Default: all genes of the reference. Pass ``reference["target"].unique()`` if the reference knows
        nothing of the others, as one from motifs in some genes' chromatin does.
    exclude
        Pairs that are no candidates: columns ``source`` and ``target``, such as the edges of a prior that ``network`` was fitted with.
        Do not drop their rows from ``network`` and ``reference`` instead: they would stay candidates, free negatives again.

    Returns
    -------
    Measures by name. *Density* is the share of candidates that are true edges, which is the precision of a random ranking.

    - ``auroc``: area under the receiver operating characteristic curve,
    - ``auprc``: area under the precision-recall curve, by the trapezoid rule as in BEELINE; the density if nothing is predicted,
    - ``auprc_ratio``: ``auprc`` / density,
    - ``average_precision_ratio``: average precision / density. Ties are a step of the curve, not a line, so sparse networks and dense
      rankings compare fairly,
    - ``epr``: early precision ratio, the precision among the top k candidates / density, where k is the number of true edges. Predictions
      that tie with the k-th count, candidates without a prediction do not; 0 if nothing is predicted,
    - ``sign_accuracy``: share of predicted true edges with the right sign, NaN if the reference has no signs,
    - ``precision``: share of true edges among the candidates that are predicted, whatever their weight; NaN if none is. One minus it is the
      share of false discoveries,
    - ``recall``: share of the true edges that are predicted. Precision and recall mean something for networks with zeros only; a network
      that predicts all candidates has the density and 1,
    - ``spurious_share``: share of the edges of ``network``, those of other genes than the reference's too, that come from a gene that is
      none of ``regulators``; NaN without ``regulators``, or if there is no edge,
    - ``n_true``, ``n_candidates``: numbers of true edges and of candidates.

    Raises
    ------
    KeyError
        If a column is missing.
    TypeError
        If an argument is not a table, weights are not numbers, or ``regulators`` or ``targets`` is no list of names.
    ValueError
        If weights are not finite, a gene has no name, all or none of the candidates are true edges, or the network has edges but shares no
        gene with the reference.
    """
    return score("network", network, reference, regulators, targets, exclude)


def score(
    name: str,
    network: pd.DataFrame,
    reference: pd.DataFrame,
    regulators: Sequence[str] | None,
    targets: Sequence[str] | None,
    exclude: pd.DataFrame | None,
) -> pd.Series:
    """Scores of a network that messages call by a name; warnings point to the caller of the caller."""
    _checks.columns(name, network, ["source", "target", "weight"])
    _checks.columns("reference", reference, ["source", "target"])
    if not np.isfinite(_checks.weights(name, network)).all():
        raise ValueError(f"Expected finite weights in `{name}`, found NaN or infinite ones.")
    if "weight" in reference:
        _checks.weights("reference", reference)
    _checks.genes_of_edges(name, network)
    _checks.genes_of_edges("reference", reference)
    if exclude is not None:
        _checks.columns("exclude", exclude, ["source", "target"])
        exclude = exclude.astype({"source": str, "target": str})
    network, reference = (table.astype({"source": str, "target": str}) for table in (network, reference))
    # Before self edges are dropped: a gene that regulates only itself is a gene of the reference.
    genes = pd.unique(pd.concat([reference["source"], reference["target"]]))
    truth = reference[reference["source"] != reference["target"]]
    index = pd.Index(genes)
    regulators, targets = (
        None if genes_of is None else [str(gene) for gene in _checks.names(argument, genes_of)]
        for argument, genes_of in (("regulators", regulators), ("targets", targets))
    )
    candidates = _candidates(index, regulators, targets)
    if exclude is not None:
        candidates = candidates[~np.isin(candidates, _codes(exclude, index))]
    is_true = np.isin(candidates, _codes(truth, index))
    if not is_true.any():
        raise ValueError(
            f"Expected some of {len(candidates)} candidate edges to be in `reference`, found none. Candidates are pairs of two of its "
            f"{len(genes)} genes, the first among `regulators`, the second among `targets`, without those of `exclude`: check their names."
        )
    if is_true.all():
        raise ValueError(
            f"Expected candidate edges that are not in `reference`, found all {len(candidates)} in it: nothing can be told apart."
        )
    _check_genes(name, network, genes)
    if regulators is None:
        _warn_of_targets_only(name, network, truth, index)
    weights = _strongest(network, index).reindex(candidates, fill_value=0.0).to_numpy()
    magnitudes, density = np.abs(weights), is_true.mean()
    auprc = _trapezoids(is_true, magnitudes)
    return pd.Series(
        {
            "auroc": roc_auc_score(is_true, magnitudes),
            "auprc": auprc,
            "auprc_ratio": auprc / density,
            "average_precision_ratio": average_precision_score(is_true, magnitudes) / density,
            "epr": _early_precision(magnitudes, is_true) / density,
            "sign_accuracy": _sign_accuracy(weights, reference, index, candidates),
            "precision": _share(is_true[weights != 0]),
            "recall": _share(weights[is_true] != 0),
            "spurious_share": _spurious_share(network, regulators),
            "n_true": int(is_true.sum()),
            "n_candidates": len(candidates),
        },
        name=name,
    )


def _codes(edges: pd.DataFrame, genes: pd.Index) -> np.ndarray:
    """A number for every pair of genes, -1 for pairs of others: there may be millions of them."""
    source, target = (genes.get_indexer(pd.Index(edges[column])) for column in ("source", "target"))
    return np.where((source >= 0) & (target >= 0), source.astype(np.int64) * len(genes) + target, -1)


def _candidates(genes: pd.Index, regulators: Sequence[str] | None, targets: Sequence[str] | None) -> np.ndarray:
    """Codes of all pairs of a regulator and another gene that is a target."""
    sources, ends = (
        np.arange(len(genes)) if names is None else np.flatnonzero(genes.isin(names)) for names in (regulators, targets)
    )
    codes = sources[:, None] * len(genes) + ends
    return codes[sources[:, None] != ends]


def _between_genes(network: pd.DataFrame) -> pd.DataFrame:
    """Edges between different genes; a weight of zero is none."""
    return network[(network["weight"] != 0) & (network["source"] != network["target"])]


def _check_genes(name: str, network: pd.DataFrame, genes: np.ndarray) -> None:
    """Refuse a network of other genes than the reference, as with names in another case; warn where most of its genes are not there."""
    named = pd.unique(pd.concat([network["source"], network["target"]]))
    if len(named) == 0:
        return
    unknown = genes[~np.isin(genes, named)]
    if len(unknown) == len(genes):
        raise ValueError(
            f"Expected genes of `{name}` in `reference`, none of {len(named)} is among its {len(genes)} genes. Genes of "
            f"`reference` look like {[str(gene) for gene in genes[:3]]}, those of `{name}` like "
            f"{[str(gene) for gene in named[:3]]}."
        )
    if len(unknown) > _UNKNOWN * len(genes):  # it cannot have predicted their pairs
        warnings.warn(
            f"{len(unknown)} of the {len(genes)} genes of `reference` are not in `{name}`, such as {[str(g) for g in unknown[:3]]}. If "
            "the model did not have them, leave them out: `reference[reference['source'].isin(model.genes) & "
            "reference['target'].isin(model.genes)]`. If these are its strongest edges only, pass all. Pairs that it cannot predict "
            "inflate all ratios, those of random weights too.",
            UserWarning,
            stacklevel=4,
        )


def _warn_of_targets_only(name: str, network: pd.DataFrame, truth: pd.DataFrame, genes: pd.Index) -> None:
    """Warn where most genes are never sources: their candidates are negatives that a model with regulators gets for free."""
    edges = _between_genes(network)
    targets = edges["target"][edges["target"].isin(genes)]
    # With few genes or edges, chance leaves many genes without an outgoing edge.
    if len(genes) < _MANY_GENES or len(targets) < len(genes):
        return
    free = genes.isin(targets) & ~genes.isin(edges["source"]) & ~genes.isin(truth["source"])
    if free.mean() >= _TARGETS_ONLY:
        warnings.warn(
            f"{free.sum()} of {len(genes)} genes are targets in `{name}`, and sources neither there nor in `reference`. If the model had "
            "`regulators`, pass the same here: pairs that it cannot predict inflate all ratios, those of random weights too.",
            UserWarning,
            stacklevel=4,
        )


def _trapezoids(is_true: np.ndarray, score: np.ndarray) -> float:
    """Area under the precision-recall curve; chance where nothing is predicted, whose one tie makes no curve."""
    if not score.any():
        return float(is_true.mean())
    precision, recall, _ = precision_recall_curve(is_true, score)
    return float(auc(recall, precision))


def _strongest(network: pd.DataFrame, genes: pd.Index) -> pd.Series:
    """Weight of largest magnitude of every edge, by its code."""
    weights = pd.Series(network["weight"].to_numpy(dtype=float), _codes(network, genes))
    ranked = weights.iloc[np.argsort(-weights.abs().to_numpy(), kind="stable")]
    return ranked[~ranked.index.duplicated()]


def _early_precision(score: np.ndarray, is_true: np.ndarray) -> float:
    """Precision among the predictions that reach the score of the k-th candidate."""
    kth = np.sort(score)[::-1][is_true.sum() - 1]
    top = (score >= kth) & (score > 0)
    return float(is_true[top].mean()) if top.any() else 0.0


def _share(flags: np.ndarray) -> float:
    """Share of true values, NaN of none."""
    return float(flags.mean()) if len(flags) else float("nan")


def _spurious_share(network: pd.DataFrame, regulators: Sequence[str] | None) -> float:
    """Share of the edges between different genes whose source is no regulator."""
    if regulators is None:
        return float("nan")
    sources = _between_genes(network).drop_duplicates(["source", "target"])["source"]
    return _share(~sources.isin(regulators).to_numpy())


def _sign_accuracy(weights: np.ndarray, reference: pd.DataFrame, genes: pd.Index, candidates: np.ndarray) -> float:
    if "weight" not in reference:
        return float("nan")
    signs_of_rows = reference["weight"].astype(float).apply(np.sign).replace(0.0, np.nan)  # 0 and NaN are no sign alike
    rows = signs_of_rows.groupby(_codes(reference, genes))
    lowest, highest = rows.min(), rows.max()
    signs = lowest.where(lowest == highest, 0.0).reindex(candidates).fillna(0.0).to_numpy()
    compared = (signs != 0) & (weights != 0)
    return _share((np.sign(weights) == signs)[compared])
