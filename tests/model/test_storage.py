"""The same cells give the same network, however they are stored."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

import sparsenode as sn
from sparsenode._input import _expression


def dask_array(x: np.ndarray, chunks: tuple[int, int]):
    return pytest.importorskip("dask.array").from_array(x, chunks=chunks)


STORED = {
    "float64": lambda x: x.astype(np.float64),
    "fortran": np.asfortranarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array float64": lambda x: sparse.csr_array(x.astype(np.float64)),
    "dask": lambda x: dask_array(x, (50, 3)),
    "dask sparse": lambda x: dask_array(x, (50, 8)).map_blocks(sparse.csr_matrix),
}


@pytest.fixture(scope="module")
def simulate(make_adata):
    """Cells with some exact zeros, in no order of time."""

    def make() -> AnnData:
        adata = make_adata()
        adata.X = np.where(adata.X > 0.4, adata.X, 0).astype(np.float32)
        return adata

    return make


@pytest.fixture(scope="module")
def reference(simulate, fit) -> sn.SparseNODE:
    return fit(simulate())


def assert_same(model: sn.SparseNODE, reference: sn.SparseNODE) -> None:
    np.testing.assert_array_equal(model.get_adjacency(), reference.get_adjacency())
    np.testing.assert_array_equal(model.predict(), reference.predict())
    np.testing.assert_array_equal(model.get_velocity(), reference.get_velocity())
    np.testing.assert_array_equal(model.evaluate(), reference.evaluate())


@pytest.mark.parametrize("kind", STORED)
def test_in_memory(simulate, fit, reference, kind):
    adata = simulate()
    adata.X = STORED[kind](adata.X)
    assert_same(fit(adata), reference)


def test_integers(simulate, fit):
    models = []
    for dtype in (np.int32, np.float32):
        adata = simulate()
        adata.X = np.round(adata.X * 10).astype(dtype)
        models.append(fit(adata))
    assert_same(*models)


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_backed(simulate, fit, reference, kind, tmp_path):
    adata = simulate()
    adata.X = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[kind](adata.X)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    model = fit(backed)
    assert backed.isbacked
    assert_same(model, reference)
    np.testing.assert_array_equal(backed.obsm["sparsenode_trajectory"], reference.adata.obsm["sparsenode_trajectory"])
    backed.file.close()


def test_layer(simulate, fit, reference):
    adata = simulate()
    adata.layers["log"] = sparse.csr_matrix(adata.X)
    adata.X = np.zeros(adata.shape, dtype=np.float32)
    assert_same(fit(adata, {"lineage_key": "lineage", "layer": "log"}), reference)


def test_view(simulate, fit, reference):
    adata = simulate()
    larger = anndata.concat([adata, adata], index_unique="-")
    view = larger[:120]
    assert view.is_view
    assert_same(fit(view), reference)


def test_view_with_its_cells_and_genes_out_of_order(simulate, fit):
    adata = simulate()
    generator = np.random.default_rng(0)
    rows, columns = generator.permutation(120)[:90], generator.permutation(8)[:6]
    assert_same(fit(adata[rows, columns]), fit(adata[rows, columns].copy()))


def test_view_of_a_backed_file_is_predicted_like_a_copy(simulate, reference, tmp_path):
    simulate().write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    rows = np.random.default_rng(0).permutation(120)[:80]
    view = backed[rows]
    np.testing.assert_array_equal(reference.predict(view), reference.predict(view.to_memory()))
    np.testing.assert_array_equal(reference.get_velocity(view), reference.get_velocity(view.to_memory()))
    backed.file.close()


def test_view_of_a_backed_file_is_refused_at_set_up(simulate, tmp_path):
    simulate().write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"view of a backed file, found one.*adata.to_memory\(\)"):
        sn.SparseNODE.setup_anndata(backed[:100])
    backed.file.close()


def test_order_of_the_cells_does_not_matter(simulate, fit):
    """Beyond the random split and the bootstrap, which draw cells by position."""
    settings = {"train": {"train_size": 1.0}, "bootstrap": False}
    adata = simulate()
    order = np.random.default_rng(3).permutation(120)
    one, other = fit(adata, **settings), fit(adata[order].copy(), **settings)
    np.testing.assert_allclose(one.get_adjacency(), other.get_adjacency(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(one.predict()[order], other.predict(), rtol=1e-3, atol=1e-5)


def test_order_of_the_genes_only_permutes_the_input(simulate, reference):
    adata = simulate()
    order = np.random.default_rng(4).permutation(8)
    assert (order != np.arange(8)).any()
    np.testing.assert_array_equal(reference.predict(adata[:, order].copy()), reference.predict(simulate()))
    np.testing.assert_array_equal(reference.get_velocity(adata[:, order].copy()), reference.get_velocity(simulate()))
    np.testing.assert_array_equal(reference.evaluate(adata[:, order].copy()), reference.evaluate(simulate()))


@pytest.mark.parametrize("kind", ["dask", "backed"])
def test_nan_that_only_the_stream_can_see_is_found_before_a_step(simulate, monkeypatch, tmp_path, kind):
    adata = simulate()
    x = adata.X.copy()
    x[107, 2] = np.nan  # set-up stops at the first chunk, in which every gene varies
    monkeypatch.setattr(_expression, "_CHUNK_VALUES", 8 * 50)
    if kind == "dask":
        adata.X = dask_array(x, (50, 8))
    else:
        adata.X = x
        adata.write_h5ad(tmp_path / "cells.h5ad")
        adata = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    sn.SparseNODE.setup_anndata(adata)
    model = sn.SparseNODE(adata, objective="trajectory", hidden=(8, 8))
    monkeypatch.setattr(model.module, "forward", lambda *_, **__: pytest.fail("a step was taken"))
    with pytest.raises(ValueError, match=r"`adata.X`, found 1 NaN or infinite"):
        model.train(max_epochs=1, accelerator="cpu")
