"""A network beside others, and what it is worth."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import pandas as pd

from sparsenode import _checks
from sparsenode.tl._evaluate_network import score

_DECIDES = "average_precision_ratio"  # fair between sparse networks and rankings of all pairs


def compare_networks(
    networks: Mapping[str, pd.DataFrame],
    reference: pd.DataFrame,
    regulators: Sequence[str] | None = None,
    *,
    targets: Sequence[str] | None = None,
    exclude: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Score networks against a reference, and warn if the first is no better than one of the others.

    Pass the network in question first, and then those that it should beat, of :func:`network_baselines`. A warning names those that rank
    the edges of the reference at least as well. Do not read the order of baselines that differ by a few percent: another sample of cells
    may turn it around. Nor is it meant for two lineages or donors, whose networks the page *Results* sets beside each other.

    Parameters
    ----------
    networks
        Predicted edges by name, each as in :func:`evaluate_network`.
    reference, regulators, targets, exclude
        As in :func:`evaluate_network`, the same for all networks.

    Returns
    -------
    A row per network, in the order given, with the measures of :func:`evaluate_network` as columns. What decides is
    ``average_precision_ratio``. ``sn.pl.comparison(table, "average_precision_ratio")`` draws it.

    Raises
    ------
    KeyError, TypeError, ValueError
        As in :func:`evaluate_network`; the message names the network. Also if ``networks`` is no mapping of names to tables, or is empty.

    Warns
    -----
    UserWarning
        If the first network is no better than another.

    Examples
    --------
    >>> import sparsenode as sn
    >>> adata, truth = sn.datasets.krumsiek11(), sn.datasets.krumsiek11_network()
    >>> networks = sn.tl.network_baselines(adata, methods=["spearman", "pearson"])
    >>> sn.tl.compare_networks(networks, truth)[["auprc_ratio", "average_precision_ratio"]].round(2)
              auprc_ratio  average_precision_ratio
    spearman         2.14                     2.15
    pearson          1.75                     1.75
    """
    if not isinstance(networks, Mapping):
        raise TypeError(
            f'Expected `networks` to be tables by name, such as {{"sparsenode": model.get_network()}}, found '
            f"{type(networks).__name__}."
        )
    if not networks:
        raise ValueError("Expected networks to compare in `networks`, found none.")
    # A generator would end with the first network.
    regulators = None if regulators is None else _checks.names("regulators", regulators)
    targets = None if targets is None else _checks.names("targets", targets)
    rows = []
    for name, network in networks.items():  # no comprehension, whose frame is not one level in all versions of Python
        rows.append(score(f"networks[{name!r}]", network, reference, regulators, targets, exclude))
    table = pd.DataFrame(rows, index=pd.Index(networks)).astype({"n_true": int, "n_candidates": int})
    _warn_if_no_better(table[_DECIDES])
    return table


def _warn_if_no_better(ratios: pd.Series) -> None:
    """Say so if the first network is no better than one of the others."""
    first = ratios.iloc[0]
    others = ratios.iloc[1:]
    better = others[others >= first].sort_values(ascending=False)
    if len(better):
        named = ", ".join(f"{name} {ratio:.2f}" for name, ratio in better.items())
        warnings.warn(
            f"{ratios.index[0]} ranks the edges of `reference` no better than {named} (average precision ratio; its own is {first:.2f}). "
            "Do not read more into its edges than into theirs.",
            UserWarning,
            stacklevel=3,
        )
