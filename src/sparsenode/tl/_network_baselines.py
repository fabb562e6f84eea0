"""Networks from established methods, to stand beside ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from anndata import AnnData

from sparsenode import _checks
from sparsenode._input import _expression
from sparsenode._input._regulators import regulator_positions
from sparsenode.tl._association import partial_correlation, pearson, spearman
from sparsenode.tl._genie3 import genie3
from sparsenode.tl._shuffled_network import keys_of_setup, shuffled_network

_DEFAULT = ("pearson", "spearman", "partial_correlation", "genie3")
METHODS = (*_DEFAULT, "shuffled_time")
_MIN_CELLS = 3


def network_baselines(
    adata: AnnData,
    methods: str | Sequence[str] = _DEFAULT,
    layer: str | None = None,
    genes: str | Sequence[str] | None = None,
    regulators: str | Sequence[str] | None = None,
    n_trees: int = 200,
    n_jobs: int = 1,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    """Gene networks that any other should beat: correlations, GENIE3, and our model without the order of the cells.

    Score the tables with :func:`compare_networks`, beside the network of :meth:`sparsenode.SparseNODE.get_network`. Of the first four, all
    cells are pooled and pseudotime is not used.

    - ``"pearson"`` and ``"spearman"``: correlation, in ``[-1, 1]``. An edge and its reverse have the same weight.
    - ``"partial_correlation"``: correlation that remains given all other ``genes``, in ``[-1, 1]``, from a correlation matrix with the
      shrinkage of :cite:t:`ledoit2004well`. An edge and its reverse have the same weight. Do not use it for tens of thousands of genes: it
      inverts a matrix of genes × genes.
    - ``"genie3"``: importance of the regulator in a random forest that predicts the target from all regulators
      :cite:p:`huynhthu2010inferring`, as a share of the target's variance, from 0 to about 1. It has a direction but no sign: do not
      compare its sign accuracy. It fits one forest per gene and is by far the slowest: some 3 ms per tree with 1300 cells and 113
      regulators, so 5 minutes of processor time for 529 genes. For thousands of genes name ``regulators``, or leave it out of ``methods``.
    - ``"shuffled_time"``: our model, with the defaults of ``objective="transport"``, fitted to cells whose pseudotime is permuted by
      :func:`shuffle_time`. A network that is no better did not come from dynamics. It takes as long as a fit, and the cells must be set up
      (:meth:`sparsenode.SparseNODE.setup_anndata`). One permutation is one draw: try several ``seed``. If your model has other settings,
      fit it to the copy of :func:`shuffle_time` with the same ones.

    Do not read these networks as causes: genes that share a regulator correlate with each other.

    Parameters
    ----------
    adata
        Annotated cells, dense or sparse, in the units that the model is fitted in, for instance log1p of normalised counts.
    methods
        Methods to run. Default: the first four.
    layer
        Layer with the expression. Default: ``adata.X``. For ``"shuffled_time"`` it must be the one that the cells are set up with.
    genes
        Genes of the network: names, or a boolean column of ``adata.var``. Default: all.
    regulators
        Which of them may be sources: names, or a boolean column of ``adata.var``. Default: all. Names that are not among the genes are not
        used, and the log lists them, as in :class:`sparsenode.SparseNODE`.
    n_trees
        Number of trees per gene in GENIE3. Default: 200. The paper uses 1000, which ranks weak edges more reliably and takes five times as
        long.
    n_jobs
        Number of forests of GENIE3 that are fitted at the same time, in threads. Default: 1; -1 for one per processor. It does not change
        the result.
    seed
        Seed of GENIE3, of the permutation and of the model, a non-negative integer.

    Returns
    -------
    For each method a long table with the columns ``source`` (regulator), ``target`` and ``weight``: every candidate edge except self edges,
    by decreasing magnitude, ties by name. Genes without variance have weight 0, and many edges of ``"shuffled_time"`` too. The tables do
    not depend on the order of the genes.

    Raises
    ------
    KeyError
        If the layer or a column does not exist.
    TypeError
        If ``adata`` is not an AnnData, expression is not numeric, a column is not boolean, or ``regulators`` is a mask.
    ValueError
        If a method or gene is unknown, no regulator is among the genes, there are fewer than three cells or two genes, or expression is NaN
        or infinite. For ``"shuffled_time"`` also if the cells are not set up, or with another layer.

    Examples
    --------
    >>> import sparsenode as sn
    >>> adata = sn.datasets.krumsiek11()
    >>> tables = sn.tl.network_baselines(adata, methods=["pearson", "spearman"])
    >>> tables["pearson"].columns.tolist()
    ['source', 'target', 'weight']
    """
    _checks.anndata(adata)
    names = [methods] if isinstance(methods, str) else list(dict.fromkeys(methods))
    for name in names:
        _checks.choice("methods", name, METHODS)
    if not names:
        raise ValueError(f"Expected `methods` to name some of {list(METHODS)}, found none.")
    _checks.at_least("n_trees", n_trees, 1)
    _checks.at_least("seed", seed, 0)
    if not _checks.is_integer(n_jobs) or n_jobs == 0:
        raise ValueError(f"Expected `n_jobs` to be a positive integer, or -1 for all processors, found {n_jobs!r}.")
    _expression.check_expression(adata, layer)
    setup = keys_of_setup(adata, layer) if "shuffled_time" in names else {}
    chosen = _genes(adata, genes)
    if adata.n_obs < _MIN_CELLS or len(chosen) < 2:
        raise ValueError(
            f"Expected at least {_MIN_CELLS} cells and two genes, found {adata.n_obs} cells × {len(chosen)} genes."
        )
    found = regulator_positions(regulators, chosen, adata)
    sources = np.arange(len(chosen)) if found is None else np.array(found)
    positions = adata.var_names.get_indexer(chosen)
    x = np.ascontiguousarray(np.vstack([block for _, block in _expression.chunks(adata, layer, positions)]))
    functions: dict[str, Callable[[], np.ndarray]] = {  # what computes the weights, regulators × genes
        "pearson": partial(pearson, x, sources),
        "spearman": partial(spearman, x, sources),
        "partial_correlation": partial(partial_correlation, x, sources),
        "genie3": partial(genie3, x, sources, n_trees=n_trees, n_jobs=int(n_jobs), seed=seed),
        "shuffled_time": partial(shuffled_network, adata, chosen, sources, setup, seed),
    }
    return {name: _edges(functions[name](), chosen, sources) for name in names}


def _genes(adata: AnnData, genes: str | Sequence[str] | None) -> pd.Index:
    """Names of the genes of the network, sorted, so that no result depends on their order."""
    if genes is None:
        return adata.var_names.sort_values()
    if isinstance(genes, str):
        if genes not in adata.var:
            raise KeyError(f"Expected `genes` to be names of genes or a column of `adata.var`, found {genes!r}.")
        return adata.var_names[_checks.marked(adata, genes)].sort_values()
    chosen = pd.Index(list(genes)).astype(adata.var_names.dtype).unique()
    unknown = chosen[~chosen.isin(adata.var_names)]
    if len(unknown):
        raise ValueError(
            f"Expected `genes` to be in `adata.var_names`, {len(unknown)} of {len(chosen)} are not: "
            f"{list(unknown[:10])}. Genes look like {list(adata.var_names[:3])}."
        )
    return chosen.sort_values()


def _edges(weights: np.ndarray, genes: pd.Index, sources: np.ndarray) -> pd.DataFrame:
    """Long table of regulators × genes without self edges, the strongest first."""
    regulator, target = np.nonzero(sources[:, None] != np.arange(len(genes)))
    values = weights[regulator, target]
    order = np.argsort(-np.abs(values), kind="stable")
    return pd.DataFrame(
        {
            "source": genes[sources[regulator[order]]],
            "target": genes[target[order]],
            "weight": values[order],
        }
    )
