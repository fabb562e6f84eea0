"""Expression: what is refused, and that every kind of storage is read alike."""

from __future__ import annotations

import warnings

import anndata
import dask
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

import sparsenode as sn
from sparsenode._input import _expression

# Refused at set-up


@pytest.mark.parametrize("shape", [(0, 8), (120, 0), (0, 0)], ids=["no cells", "no genes", "nothing"])
def test_empty(adata, refused, shape):
    refused(adata[: shape[0], : shape[1]].copy(), ValueError, f"found {shape[0]} cells × {shape[1]} genes")


def test_repeated_gene_names_are_counted_and_listed(adata, refused):
    adata.var_names = ["Sox2", "Sox2", "Sox2", "Pax6", "Pax6", "a", "b", "c"]
    message = refused(adata, ValueError, "found 2 repeated ones", "['Sox2', 'Pax6']")
    assert "`adata.var_names_make_unique()`" in message
    adata.var_names_make_unique()
    sn.SparseNODE.setup_anndata(adata)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
def test_expression_that_is_not_finite_is_counted(adata, refused, value, convert):
    x = adata.X.copy()
    x[[0, 3, 3], [1, 1, 2]] = value
    adata.X = convert(x)
    refused(adata, ValueError, "`adata.X`", "found 3 NaN or infinite", "Replace or remove")


def test_nan_in_a_layer(adata, refused):
    adata.layers["log"] = adata.X.copy()
    adata.layers["log"][0, 0] = np.nan
    refused(adata, ValueError, "`adata.layers['log']`", "found 1 NaN or infinite", layer="log")


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_genes_that_do_not_vary_are_found_up_to_rounding(adata, monkeypatch, convert):
    adata.X[:, 1], adata.X[:, 4], adata.X[:, 6] = 0.0, 1.0, 0.0
    adata.X[50, 4] += 1e-7
    adata.X[100, 6] = 1e-7  # varies
    adata.X = convert(adata.X)
    monkeypatch.setattr(_expression, "_CHUNK_VALUES", 8 * 30)
    with pytest.warns(UserWarning, match="2 of 8 genes"):
        assert _expression.constant_genes(adata, None) == ["gene1", "gene4"]


def test_genes_that_vary_are_read_no_further(adata, monkeypatch):
    monkeypatch.setattr(_expression, "_CHUNK_VALUES", 8 * 30)
    adata.X[100] = np.nan
    assert _expression.constant_genes(adata, None) == []


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.float32])
def test_raw_counts_are_warned_of(adata, convert, dtype):
    counts = np.random.default_rng(0).poisson(12, adata.shape).astype(dtype)
    adata.layers["counts"] = convert(counts)
    with pytest.warns(
        UserWarning, match=rf"`adata.layers\['counts'\]` looks like raw counts.* up to {int(counts.max())}"
    ):
        sn.SparseNODE.setup_anndata(adata, layer="counts")


def test_the_fix_for_counts_is_that_of_their_layer(adata):
    adata.layers["counts"] = np.random.default_rng(0).poisson(12, adata.shape).astype(np.float32)
    before = adata.X.copy()
    with pytest.warns(UserWarning, match="raw counts") as caught:
        sn.SparseNODE.setup_anndata(adata, layer="counts")
    exec(str(caught[0].message).split("`")[-2], {"adata": adata, "sc": sc})
    np.testing.assert_array_equal(adata.X, before)
    assert adata.layers["counts"].max() < 5


@pytest.mark.parametrize(
    "change",
    [
        np.log1p,
        lambda x: x > 12,
        lambda x: x - 20,
        lambda x: x / 2,
        lambda x: np.minimum(x, 14),
        lambda x: 3.7 * x - 40,
        lambda x: 3.7 * x,
        lambda x: 19.9 * x / x.max(),
    ],
    ids=["log", "bool", "negative", "halves", "low", "angles", "pixels", "log2 of parts per million"],
)
def test_what_is_no_raw_count_is_not_warned_of(adata, change):
    adata.X = change(np.random.default_rng(0).poisson(12, adata.shape).astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sn.SparseNODE.setup_anndata(adata)


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("layer", [None, "norm"])
def test_normalised_counts_without_logarithms_are_warned_of(adata, convert, layer):
    counts = np.random.default_rng(0).negative_binomial(0.3, 0.02, adata.shape).astype(np.float32)
    cells = AnnData(convert(counts), obs=adata.obs, var=adata.var)
    sc.pp.normalize_total(cells)
    if layer is not None:
        cells.layers[layer], cells.X = cells.X, adata.X
    place = r"`adata\.X`" if layer is None else r"`adata\.layers\['norm'\]`"
    remedy = "adata" if layer is None else "adata, layer='norm'"
    with pytest.warns(UserWarning, match=rf"{place} looks normalised but not log-tr.*up to \d+\. .*log1p\({remedy}\)`"):
        sn.SparseNODE.setup_anndata(cells, layer=layer)
    sc.pp.log1p(cells, layer=layer)  # the remedy
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sn.SparseNODE.setup_anndata(cells, layer=layer)


def test_another_donor_in_counts_is_warned_of(make_adata, fit):
    """A model of logarithms predicts logarithms: errors against counts are no errors of the model."""
    counts = np.random.default_rng(0).poisson(12, make_adata().shape).astype(np.float32)
    own, other = make_adata(), make_adata(seed=7)
    own.X, other.X = np.log1p(counts), counts
    model = fit(own, train={"max_epochs": 1})
    for call in (model.predict, model.evaluate, model.get_velocity):
        with pytest.warns(UserWarning, match="looks like raw counts.*that the model was fitted to do not look so"):
            call(other)
    own = own.copy()
    own.X = counts
    with pytest.warns(UserWarning, match="looks like raw counts"):
        model = fit(own, train={"max_epochs": 1})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Expression", UserWarning)
        model.predict(other)  # in the units of the model, of which setup has warned


def test_simulated_data_are_not_warned_of():
    linear, hill = sn.datasets.random_linear_system(6, seed=0), sn.datasets.random_hill_system(6, seed=0)
    cells = [system.simulate(seed=0) for system in (linear, hill, sn.datasets.second_order_system())]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for each in [*cells, sn.datasets.krumsiek11()]:
            _expression.warn_of_counts(each, None)


def test_nan_where_it_is_not_read_does_no_harm(adata):
    adata.layers["log"] = adata.X.copy()
    adata.X = np.full(adata.shape, np.nan, dtype=np.float32)
    sn.SparseNODE.setup_anndata(adata, layer="log")


def test_missing_layer(adata, refused):
    refused(adata, KeyError, "`layer`", "left out", "'log'", layer="log")
    adata.layers["counts"] = adata.X
    refused(adata, KeyError, "`layer`", "['counts']", "'log'", layer="log")


def test_no_expression(adata, refused):
    without = AnnData(obs=adata.obs, var=adata.var)
    refused(without, ValueError, "`adata.X`", "layer")


def test_expression_that_is_not_numeric(adata, refused):
    adata.layers["words"] = np.full(adata.shape, "a", dtype=object)
    refused(adata, TypeError, "`adata.layers['words']`", "object", layer="words")


# Genes by name


def test_gene_positions():
    adata = AnnData(np.zeros((1, 4)), var=pd.DataFrame(index=["d", "a", "x", "b"]))
    np.testing.assert_array_equal(_expression.gene_positions(adata, ["a", "b", "d"]), [1, 3, 0])


def test_missing_genes_are_listed():
    adata = AnnData(np.zeros((1, 2)), var=pd.DataFrame(index=["a", "b"]))
    with pytest.raises(ValueError, match=r"all 3 genes of the fitted model, 2 are missing: \['c', 'd'\]\. ") as caught:
        _expression.gene_positions(adata, ["a", "c", "d"])
    assert "and more" not in str(caught.value)


def test_many_missing_genes_are_cut():
    adata = AnnData(np.zeros((1, 1)), var=pd.DataFrame(index=["a"]))
    with pytest.raises(ValueError, match=r"12 are missing: .*'m9'\] and more"):
        _expression.gene_positions(adata, ["a", *(f"m{i}" for i in range(12))])


# Reading in chunks


def dask_array(x: np.ndarray, chunks: tuple[int, int]):
    return pytest.importorskip("dask.array").from_array(x, chunks=chunks)


MEMORY = {
    "dense": lambda x: x,
    "float64": lambda x: x.astype(np.float64),
    "fortran": np.asfortranarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "csc_array": sparse.csc_array,
    "dask": lambda x: dask_array(x, (7, 3)),
    "dask sparse": lambda x: dask_array(x, (7, 4)).map_blocks(sparse.csr_matrix),
}
DISK = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}


@pytest.fixture(params=[1, 4, 1000], ids=lambda n: f"{n} cells a chunk")
def chunk(monkeypatch, request) -> int:
    monkeypatch.setattr(_expression, "_CHUNK_VALUES", request.param * 4)
    return request.param


def read(
    adata: AnnData, positions: list[int], layer: str | None = None, rows: list[int] | None = None
) -> tuple[np.ndarray, list[int]]:
    wanted = None if rows is None else np.array(rows)
    pairs = list(_expression.chunks(adata, layer, np.asarray(positions), wanted))
    assert all(x.dtype == np.float64 and isinstance(x, np.ndarray) for _, x in pairs)
    assert all(x.flags.c_contiguous for _, x in pairs)  # results do not depend on how data are stored
    return np.concatenate([x for _, x in pairs]), [first for first, _ in pairs]


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    x = np.random.default_rng(0).poisson(0.7, (9, 4)) * np.float32(0.5)
    assert (x == 0).any()
    return x.astype(np.float32)


@pytest.mark.parametrize("positions", [[0, 1, 2, 3], [3, 0, 2], [2]], ids=str)
@pytest.mark.parametrize("kind", MEMORY)
def test_chunks_in_memory(values, kind, positions, chunk):
    adata = AnnData(MEMORY[kind](values))
    got, first = read(adata, positions)
    np.testing.assert_array_equal(got, values[:, positions])
    assert first == list(range(0, 9, chunk))


@pytest.mark.parametrize("kind", DISK)
def test_chunks_on_disk(values, kind, tmp_path, chunk):
    AnnData(DISK[kind](values)).write_h5ad(tmp_path / "a.h5ad")
    adata = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert adata.isbacked
    got, _ = read(adata, [3, 0, 2])
    np.testing.assert_array_equal(got, values[:, [3, 0, 2]])
    adata.file.close()


def test_columns_on_disk_are_read_once(values, tmp_path, monkeypatch):
    """Each chunk of cells would read all of the file again."""
    AnnData(sparse.csc_matrix(values)).write_h5ad(tmp_path / "a.h5ad")
    adata = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    kind, reads = type(adata.X), []
    whole = kind.to_memory
    monkeypatch.setattr(kind, "to_memory", lambda x: reads.append("all") or whole(x))
    monkeypatch.setattr(kind, "__getitem__", lambda x, rows: reads.append(rows))
    monkeypatch.setattr(_expression, "_CHUNK_VALUES", 4)
    got, first = read(adata, [0, 1, 2, 3])
    np.testing.assert_array_equal(got, values)
    assert (first, reads) == (list(range(9)), ["all"])
    adata.file.close()


@pytest.mark.parametrize("rows", [[0], [8], [1, 2, 7], [0, 4, 5, 8], [*range(9)]], ids=str)
@pytest.mark.parametrize("kind", [*MEMORY, *(f"{kind} on disk" for kind in DISK)])
def test_chunks_of_some_cells(values, kind, rows, tmp_path, chunk):
    """Blocks say where they belong among the cells that are wanted, and hold no others."""
    if kind in MEMORY:
        adata = AnnData(MEMORY[kind](values))
    else:
        AnnData(DISK[kind.removesuffix(" on disk")](values)).write_h5ad(tmp_path / "a.h5ad")
        adata = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    got, first = read(adata, [3, 0, 2], rows=rows)
    np.testing.assert_array_equal(got, values[np.ix_(rows, [3, 0, 2])])
    assert first[0] == 0
    assert max(np.diff([*first, len(rows)])) <= chunk
    adata.file.close()


def test_no_cells_are_no_chunks(values):
    positions = np.arange(4)
    assert list(_expression.chunks(AnnData(values), None, positions, np.array([], dtype=int))) == []


@pytest.mark.parametrize("kind", [*MEMORY])
def test_chunks_of_a_view(values, kind, chunk):
    rows, columns = [8, 2, 5], [3, 1, 0]
    view = AnnData(MEMORY[kind](values))[rows, columns]
    got, _ = read(view, [1, 2])
    np.testing.assert_array_equal(got, values[np.ix_(rows, [1, 0])])


def test_chunks_of_a_layer(values, chunk):
    adata = AnnData(np.zeros_like(values), layers={"log": sparse.csc_matrix(values)})
    np.testing.assert_array_equal(read(adata, [0, 1, 2, 3], "log")[0], values)


def test_integers_become_floats(values, chunk):
    adata = AnnData((values * 2).astype(np.int32))
    np.testing.assert_array_equal(read(adata, [0, 1, 2, 3])[0], values * 2)


def test_expression_of_objects_and_the_fix_works(adata, refused):
    adata.layers["mixed"] = adata.X.astype(object)
    fix = "adata.layers['mixed'] = adata.layers['mixed'].astype(np.float32)"
    refused(adata, TypeError, "found dtype object", f"`{fix}`", layer="mixed")
    exec(fix, {"adata": adata, "np": np})
    sn.SparseNODE.setup_anndata(adata, layer="mixed")


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix, da.from_array], ids=["dense", "sparse", "dask"])
def test_complex_expression_and_the_fix_works(adata, refused, convert):
    adata.layers["complex"] = convert(adata.X + 1j)
    fix = "adata.layers['complex'] = np.real(adata.layers['complex'])"
    refused(adata, TypeError, "found dtype complex", f"`{fix}`", layer="complex")
    exec(fix, {"adata": adata, "np": np})
    sn.SparseNODE.setup_anndata(adata, layer="complex")


def test_complex_expression_in_a_file(adata, refused, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "a") as file:
        kept, values = dict(file["X"].attrs), file["X"][:]
        del file["X"]
        file["X"] = values + 1j
        file["X"].attrs.update(kept)
    refused(anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r"), TypeError, "`adata.X`, found dtype complex")


def test_masked_expression_is_counted_and_the_fix_works(adata, refused):
    x = np.ma.array(adata.X, mask=False)
    x[:3, 0] = np.ma.masked
    adata.X = x
    message = refused(adata, ValueError, "`adata.X` without masked values", f"found 3 of {x.size} masked")
    exec(message.split("`")[-2], {"adata": adata})
    assert (adata.X[:3, 0] == 0).all()
    sn.SparseNODE.setup_anndata(adata)


def test_masked_expression_of_a_view_is_refused_where_the_mask_reaches_it(adata, refused):
    """Views of anndata have no mask, and neither have their copies."""
    x = np.ma.array(adata.X)
    x[:3, 0] = np.ma.masked
    adata.layers["masked"] = x
    message = refused(adata[:60], ValueError, "`adata.layers['masked']` without masked", "a view of", layer="masked")
    assert "which 3 are masked" in message
    exec(message.rpartition(": ")[2].strip("`."), {"adata": adata})
    sn.SparseNODE.setup_anndata(adata[:60], layer="masked")
    adata.layers["deliberate"] = x.data
    sn.SparseNODE.setup_anndata(adata[:60], layer="deliberate")


def test_where_nothing_is_masked_a_mask_does_no_harm(adata):
    x = adata.X.copy()
    adata.layers["masked"] = np.ma.array(x, mask=False)
    sn.SparseNODE.setup_anndata(adata, layer="masked")
    np.testing.assert_array_equal(np.concatenate([b for _, b in _expression.chunks(adata, "masked", np.arange(8))]), x)


def test_masked_expression_of_dask_and_the_fix_works(adata, refused):
    adata.layers["masked"] = da.from_array(np.ma.masked_greater(adata.X, 1.0))
    message = refused(adata, ValueError, "`adata.layers['masked']` without a mask", "dask", layer="masked")
    exec(message.split("`")[-2], {"adata": adata, "dask": dask})
    sn.SparseNODE.setup_anndata(adata, layer="masked")


def test_a_list_of_layers(adata, refused):
    adata.layers["log"] = adata.X.copy()
    refused(adata, KeyError, "`layer` to be one of ['log'], found ['log']", layer=["log"])
