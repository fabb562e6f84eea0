"""Our model without the order of the cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from sparsenode.model import SparseNODE
from sparsenode.tl._shuffle_time import shuffle_time


def keys_of_setup(adata: AnnData, layer: str | None) -> dict[str, Any]:
    """Keys that the cells were set up with.

    Raises
    ------
    ValueError
        If they were not, or with another layer.
    """
    try:
        manager = SparseNODE._get_most_recent_anndata_manager(adata)
    except ValueError:  # a copy of cells that are set up, or read from a file of the same session
        manager = None
    if manager is None:
        raise ValueError(
            "Expected cells that are set up themselves, in the same session, since 'shuffled_time' needs pseudotime and lineages; found none, or a "
            "copy. Call `SparseNODE.setup_anndata(adata, …)` first."
        )
    arguments = manager.registry["setup_args"]
    if arguments["layer"] != layer:
        raise ValueError(
            f"Expected `layer` to be the one that the cells are set up with, {arguments['layer']!r}, for 'shuffled_time', found {layer!r}."
        )
    # Of a modality of MuData there are further ones; its annotations have been brought into it.
    return {name: arguments[name] for name in ("layer", "time_key", "lineage_key", "batch_key")}


def shuffled_network(
    adata: AnnData, genes: pd.Index, sources: np.ndarray, setup: dict[str, Any], seed: int
) -> np.ndarray:
    """Weights of our network, regulators × genes, of cells whose pseudotime is shuffled."""
    keys = {name: setup[name] for name in ("time_key", "lineage_key", "batch_key")}
    cells = shuffle_time(adata[:, genes], **keys, seed=seed)
    SparseNODE.setup_anndata(cells, **setup)
    regulators = list(genes[sources]) if len(sources) < len(genes) else None
    model = SparseNODE(cells, objective="transport", regulators=regulators, seed=seed)
    model.train(enable_progress_bar=False)
    return model.get_adjacency().to_numpy().T[sources]
