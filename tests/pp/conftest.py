"""What the tests of preprocessing share."""

from __future__ import annotations

import pytest
import scanpy as sc
from mudata import MuData

import sparsenode as sn


@pytest.fixture(scope="session")
def counts() -> MuData:
    """A simulated multiome with counts. Not to be changed."""
    return sn.datasets.simulated_multiome(n_cells=600)


@pytest.fixture(scope="session")
def normalised() -> MuData:
    """The same, normalised. Not to be changed."""
    mdata = sn.datasets.simulated_multiome(n_cells=600)
    for adata in mdata.mod.values():
        sc.pp.normalize_total(adata)
        sc.pp.log1p(adata)
    return mdata
