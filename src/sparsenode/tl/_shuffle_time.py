"""The control for what pseudotime contributes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse.csgraph import connected_components

from sparsenode import _checks, _keys
from sparsenode._input._observations import Observations, read_observations
from sparsenode._input._pseudotime import holds_table


def shuffle_time(
    adata: AnnData,
    time_key: str = _keys.TIME_KEY,
    lineage_key: str | None = None,
    batch_key: str | None = None,
    seed: int = 0,
) -> AnnData:
    """Copy of the cells with pseudotime permuted among the cells of each lineage and batch, or of lineages that share cells.

    This is the control for what the order of the cells contributes: fit the same model with the same settings to the copy, and compare the
    scores. A network that scores as well after shuffling did not come from dynamics. One permutation is one draw, so use several seeds.

    - **Lineages that share no cells** keep their cells and their pseudotimes, but not which cell has which.
    - **Lineages of one batch that share cells**, such as stem cells, are permuted together: if a cell has only one pseudotime, stem cells
      would otherwise stay early. Such a lineage then has times of the others too, and is as long as the longest: compare networks, not
      forecasts.
    - **A table of pseudotimes** in ``.obsm``, one per cell and lineage: each lineage is permuted by itself.

    Do not use it to test whether lineages or batches differ: they still do.

    Parameters
    ----------
    adata
        Annotated cells. They are not changed.
    time_key, lineage_key, batch_key
        As in :meth:`sparsenode.SparseNODE.setup_anndata`.
    seed
        Seed of the permutation, a non-negative integer.

    Returns
    -------
    A copy in memory, not set up for any model, with ``.obs[time_key]`` or ``.obsm[time_key]`` permuted. Results of earlier fits are copied
    too; they belong to the original order.

    Raises
    ------
    KeyError
        If a key is missing.
    TypeError
        If ``adata`` is not an AnnData, or pseudotime or memberships are not numeric.
    ValueError
        If pseudotime, lineages or batches cannot be used; the message names column, count and fix.

    Examples
    --------
    >>> import sparsenode as sn
    >>> adata = sn.datasets.krumsiek11()
    >>> control = sn.tl.shuffle_time(adata, "simulation_time", "lineage")
    >>> sn.SparseNODE.setup_anndata(control, time_key="simulation_time", lineage_key="lineage")
    """
    _checks.anndata(adata)
    _checks.at_least("seed", seed, 0)
    observations = read_observations(adata, time_key, lineage_key, batch_key)
    generator = np.random.default_rng(seed)
    shuffled = adata.to_memory() if adata.isbacked else adata.copy()
    if holds_table(adata, time_key):
        shuffled.obsm[time_key] = _permuted_table(shuffled.obsm[time_key], observations, generator)
    else:
        shuffled.obs[time_key] = adata.obs[time_key].to_numpy()[_permutation(observations, generator)]
    for key in [key for key in shuffled.uns if str(key).startswith("_scvi")]:
        del shuffled.uns[key]  # scvi-tools would take the copy for the original
    return shuffled


def _permuted_table(table: pd.DataFrame, observations: Observations, generator: np.random.Generator) -> pd.DataFrame:
    """Pseudotimes, permuted among the cells of each lineage and batch."""
    members = dict(zip(observations.lineage_names, observations.memberships.T > 0, strict=True))
    columns = []
    for position, name in enumerate(map(str, table.columns)):
        order = np.arange(len(table))
        for batch in np.unique(observations.batches):
            own = np.flatnonzero(members.get(name, False) & (observations.batches == batch))
            order[own] = generator.permutation(own)
        columns.append(pd.Series(table.iloc[:, position].array[order], table.index))
    return pd.concat(columns, axis=1).set_axis(table.columns, axis=1)


def _permutation(observations: Observations, generator: np.random.Generator) -> np.ndarray:
    """Positions of the cells, permuted within a batch among lineages that share cells."""
    order = np.arange(len(observations.times))
    for batch in np.unique(observations.batches):
        cells = np.flatnonzero(observations.batches == batch)
        member = (observations.memberships[cells] > 0).astype(float)
        _, groups = connected_components(member.T @ member, directed=False)
        group = groups[member.argmax(1)]
        for one in np.unique(group):
            own = cells[group == one]
            order[own] = generator.permutation(own)
    return order
