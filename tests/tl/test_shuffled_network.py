"""Our model without the order of the cells: the recipe of the documentation by hand, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sparsenode as sn

SETUP = {"layer": "log", "lineage_key": "memberships", "batch_key": "donor"}


@pytest.fixture(autouse=True)
def _short_fits(monkeypatch):
    """A few epochs give another network, but the same one by both ways."""
    train = sn.SparseNODE.train
    monkeypatch.setattr(sn.SparseNODE, "train", lambda self, **given: train(self, **({"max_epochs": 3} | given)))


@pytest.fixture
def cells(make_adata):
    """Cells in two lineages of two donors, set up with a layer; genes are not in the order of their names."""
    adata = make_adata(n_obs=240, n_donors=2)[:, [3, 0, 6, 1, 2, 7, 5, 4]].copy()
    adata.layers["log"], adata.X = adata.X.copy(), np.zeros(adata.shape, dtype=np.float32)
    sn.SparseNODE.setup_anndata(adata, **SETUP)
    return adata


def run(adata, **arguments) -> pd.DataFrame:
    return sn.tl.network_baselines(adata, "shuffled_time", layer="log", **arguments)["shuffled_time"]


def by_hand(adata, genes, regulators, seed) -> pd.DataFrame:
    keys = {"lineage_key": "memberships", "batch_key": "donor"}
    control = sn.tl.shuffle_time(adata[:, sorted(genes)].copy(), seed=seed, **keys)
    sn.SparseNODE.setup_anndata(control, layer="log", **keys)
    model = sn.SparseNODE(control, objective="transport", regulators=regulators, seed=seed)
    model.train(enable_progress_bar=False)
    return model.get_network().query("source != target")


@pytest.mark.parametrize(
    ("genes", "regulators", "seed"),
    [(None, None, 0), (["gene6", "gene1", "gene0", "gene2"], ["gene2", "gene0"], 1)],
    ids=["all", "some"],
)
def test_it_is_a_fit_to_shuffled_cells(cells, genes, regulators, seed):
    found = run(cells, genes=genes, regulators=regulators, seed=seed)
    expected = by_hand(cells, cells.var_names if genes is None else genes, regulators, seed)
    edges = found[found["weight"] != 0].set_index(["source", "target"])["weight"]
    expected = expected.set_index(["source", "target"])["weight"]
    assert dict(edges) == pytest.approx(dict(expected))  # whatever type pandas gives to names
    # Like the other methods it has a row for every candidate, in order of magnitude.
    sources, targets = len(regulators or cells.var_names), len(genes or cells.var_names)
    assert len(found) == sources * (targets - 1)
    assert (found["weight"].abs().diff().dropna() <= 0).all()


def test_neither_the_cells_nor_their_set_up_change(cells):
    before = cells.copy()
    run(cells)
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert set(cells.uns) == set(before.uns)
    assert not cells.varp
    assert not cells.obsm.keys() - {"memberships"}
    sn.SparseNODE(cells, objective="transport")  # it is still set up


def test_it_is_beside_the_others_and_not_among_the_defaults(cells):
    tables = sn.tl.network_baselines(cells, ["shuffled_time", "pearson"], layer="log")
    assert list(tables) == ["shuffled_time", "pearson"]
    assert "shuffled_time" not in sn.tl.network_baselines(cells, layer="log", n_trees=1)


def test_cells_that_are_not_set_up(adata):
    with pytest.raises(ValueError, match=r"cells that are set up themselves, .* Call `SparseNODE.setup_anndata"):
        sn.tl.network_baselines(adata, "shuffled_time")


def test_a_copy_of_cells_that_are_set_up(cells):
    """As after reading a file that was written in the same session."""
    with pytest.raises(ValueError, match=r"found none, or a copy. Call `SparseNODE.setup_anndata"):
        run(cells.copy())


def test_another_layer(cells):
    with pytest.raises(ValueError, match="are set up with, 'log', for 'shuffled_time', found None"):
        sn.tl.network_baselines(cells, ["pearson", "shuffled_time"])
