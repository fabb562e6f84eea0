"""Simulated myeloid differentiation with a known network."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData

_CELLS_PER_RUN = 160
# Table 1 of Krumsiek et al. (2011): activators and inhibitors of every gene.
_RULES = {
    "Gata2": ("Gata2", "Gata1 Fog1 Pu.1"),
    "Gata1": ("Gata2 Gata1 Fli1", "Pu.1"),
    "Fog1": ("Gata1", ""),
    "EKLF": ("Gata1", "Fli1"),
    "Fli1": ("Gata1", "EKLF"),
    "SCL": ("Gata1", "Pu.1"),
    "Cebpa": ("Cebpa", "Gata1 Fog1 SCL"),
    "Pu.1": ("Cebpa Pu.1", "Gata2 Gata1"),
    "cJun": ("Pu.1", "Gfi1"),
    "EgrNab": ("Pu.1 cJun", "Gfi1"),
    "Gfi1": ("Cebpa", "EgrNab"),
}


def krumsiek11() -> AnnData:
    """Simulated myeloid progenitors on their way to four fates, ready for :class:`~sparsenode.SparseNODE`.

    640 cells × 11 transcription factors from :func:`scanpy.datasets.krumsiek11`, which ships with scanpy: four runs of a stochastic
    simulation of the Boolean model of Krumsiek et al. (2011), made continuous. Expression lies between 0 and 1, in arbitrary units; the noise
    of the simulation extends this to -0.02 and 1.01.

    Returns
    -------
    Annotated cells with

    - ``.obs["lineage"]``: the fate of the run that a cell belongs to: ``Mo``, ``Ery``, ``Mk`` or ``Neu``,
    - ``.obs["simulation_time"]``: time of the simulation from 0 to 1, which serves as pseudotime,
    - ``.obs["cell_type"]``: ``progenitor`` in the first half of every run, then its fate,
    - ``.uns["true_network"]``: :func:`krumsiek11_network`.

    Notes
    -----
    The cells are almost free of noise and their time is known: do not use them to choose settings for real data.

    References
    ----------
    Krumsiek, Marr, Schroeder and Theis (2011), *Hierarchical differentiation of myeloid progenitors is encoded in the transcription factor
    network*, PLoS ONE.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Observation names are not unique")
        adata = sc.datasets.krumsiek11()
    adata.obs_names = [f"cell{i}" for i in range(adata.n_obs)]
    run, step = np.divmod(np.arange(adata.n_obs), _CELLS_PER_RUN)
    fates = adata.obs["cell_type"].astype(str).to_numpy()[_CELLS_PER_RUN - 1 :: _CELLS_PER_RUN]
    adata.obs["lineage"] = pd.Categorical(fates[run], categories=list(fates))
    adata.obs["simulation_time"] = step / (_CELLS_PER_RUN - 1)
    del adata.uns["highlights"]  # has integer keys, which h5ad cannot store
    adata.uns["true_network"] = krumsiek11_network()
    return adata


def krumsiek11_network() -> pd.DataFrame:
    """The 30 signed edges of the model behind :func:`krumsiek11`, self edges included.

    Returns
    -------
    Long table with the columns ``source``, ``target`` and ``weight``, which is 1 for activation and -1 for inhibition.

    Notes
    -----
    The rules are Boolean, so weights are signs: do not compare them with magnitudes.

    References
    ----------
    Krumsiek, Marr, Schroeder and Theis (2011), PLoS ONE, table 1.
    """
    rows = [
        (source, target, sign)
        for target, sides in _RULES.items()
        for sign, side in zip((1.0, -1.0), sides, strict=True)
        for source in side.split()
    ]
    return pd.DataFrame(rows, columns=["source", "target", "weight"])
