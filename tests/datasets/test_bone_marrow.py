from __future__ import annotations

import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import sparsenode as sn
from sparsenode.datasets._bone_marrow import BATCHES, REFERENCES

GENES = ["GATA1", "KLF1", "SPI1", "CD79A"]


@pytest.fixture
def folder(tmp_path):
    """Files of the same kind, small."""
    for i, batch in enumerate(BATCHES):
        n = 5 + i
        obs = pd.DataFrame({"dpt_pseudotime": np.linspace(0, 1, n), "batch": pd.Categorical([batch] * n)})
        obs.index = [f"{batch}_{k}" for k in range(n)]
        cells = AnnData(sparse.csr_matrix(np.full((n, 4), i, np.float32)), obs, pd.DataFrame(index=GENES))
        cells.obsm["lineages"] = pd.DataFrame(True, obs.index, ["erythroid", "monocyte", "b_cell"])
        cells.write_h5ad(tmp_path / f"{batch}.h5ad")
    pd.DataFrame({"gene": ["GATA1", "SPI1"]}).to_csv(tmp_path / "transcription_factors.csv", index=False)
    edges = pd.DataFrame(
        [
            ("GATA1", "KLF1", "b", 0.5),
            ("SPI1", "CD79A", "c", 1.0),
            ("GATA1", "KLF1", "a", 2.0),
            ("GATA1", "KLF1", "b", 1.0),
        ],
        columns=["source", "target", "cell_type", "score"],
    )
    for name in REFERENCES:
        table = edges[["source", "target"]] if name == "base" else edges
        table.to_csv(tmp_path / f"reference_{name}.csv.gz", index=False)
    return tmp_path


def test_layout(folder, tmp_path):
    adata = sn.datasets.bone_marrow(folder)
    assert list(adata.obs["batch"].cat.categories) == list(BATCHES)
    assert list(adata.obs["batch"].value_counts(sort=False)) == [5, 6, 7]
    assert list(adata.var_names) == GENES
    assert list(adata.var["is_tf"]) == [True, False, True, False]
    assert adata.obsm["lineages"].shape == (18, 3)
    assert sparse.issparse(adata.X)
    tables = adata.uns["reference_networks"]
    assert list(tables) == list(REFERENCES)
    assert tables["base"].values.tolist() == [["GATA1", "KLF1"], ["SPI1", "CD79A"]]
    assert tables["b_cell"].values.tolist() == [["GATA1", "KLF1", "a; b", 2.0], ["SPI1", "CD79A", "c", 1.0]]
    adata.write_h5ad(tmp_path / "out.h5ad")
    assert list(anndata.read_h5ad(tmp_path / "out.h5ad").uns["reference_networks"]) == sorted(REFERENCES)


def test_chosen_batches(folder):
    adata = sn.datasets.bone_marrow(str(folder), ["S2D1", "S1D1"])
    assert list(adata.obs["batch"].cat.categories) == ["S2D1", "S1D1"]
    assert list(adata.obs["batch"]) == ["S2D1"] * 7 + ["S1D1"] * 5
    assert sn.datasets.bone_marrow(folder, "S1D2").n_obs == 6


@pytest.mark.parametrize("batches", ["S9", [], ["S1D1", "S1D1"], ["S1D1", "S9"]])
def test_unknown_batches(folder, batches):
    with pytest.raises(ValueError, match=r"`batches` to be some of \['S1D1', 'S1D2', 'S2D1'\], each once, found"):
        sn.datasets.bone_marrow(folder, batches)


def test_missing_files(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'transcription_factors\.csv'.*missing.*PathReg"):
        sn.datasets.bone_marrow(tmp_path / "nowhere")
    (folder / "S1D1.h5ad").unlink()
    (folder / "reference_base.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"found \['S1D1.h5ad', 'reference_base.csv.gz'\] missing"):
        sn.datasets.bone_marrow(folder)
    with pytest.raises(FileNotFoundError, match=r"found \['reference_base.csv.gz'\] missing"):
        sn.datasets.bone_marrow(folder, "S1D2")


def test_files_that_do_not_fit(folder):
    cells = anndata.read_h5ad(folder / "S1D1.h5ad")
    shutil.copy(folder / "S1D1.h5ad", folder / "S1D2.h5ad")
    with pytest.raises(ValueError, match=r"batch S1D2 in S1D2.h5ad, found \['S1D1'\]"):
        sn.datasets.bone_marrow(folder)
    cells[:, ::-1].copy().write_h5ad(folder / "S1D1.h5ad")
    with pytest.raises(ValueError, match=r"same 4 genes in the same order.*S1D1.h5ad"):
        sn.datasets.bone_marrow(folder, ["S2D1", "S1D1"])
    del cells.obsm["lineages"]
    cells.write_h5ad(folder / "S1D1.h5ad")
    with pytest.raises(ValueError, match=r"\['lineages'\] in `.obsm` of S1D1.h5ad"):
        sn.datasets.bone_marrow(folder, "S1D1")
    (folder / "transcription_factors.csv").write_text("gene\nSOX2\n")
    with pytest.raises(ValueError, match=r"transcription_factors.csv, found 1 others: \['SOX2'\]"):
        sn.datasets.bone_marrow(folder, "S2D1")
    (folder / "transcription_factors.csv").write_text("name\nGATA1\n")
    with pytest.raises(ValueError, match=r"column gene in transcription_factors.csv, found \['name'\]"):
        sn.datasets.bone_marrow(folder, "S2D1")
    (folder / "transcription_factors.csv").write_text("gene\nGATA1\n")
    for pair in (["GATA1", "SOX2"], ["SOX2", "GATA1"]):
        pd.DataFrame([pair], columns=["source", "target"]).to_csv(folder / "reference_base.csv.gz")
        with pytest.raises(ValueError, match=r"reference_base.csv.gz, found 1 others: \['SOX2'\]"):
            sn.datasets.bone_marrow(folder, "S2D1")
    pd.DataFrame({"Gene1": ["GATA1"]}).to_csv(folder / "reference_base.csv.gz")
    with pytest.raises(ValueError, match=r"columns source and target in reference_base.csv.gz"):
        sn.datasets.bone_marrow(folder, "S2D1")


@pytest.mark.data
def test_the_data(data_dir):
    adata = sn.datasets.bone_marrow(data_dir / "bone_marrow")
    assert adata.shape == (6511, 529)
    assert list(adata.obs["batch"].value_counts(sort=False)) == [2693, 1302, 2516]
    assert adata.var["is_tf"].sum() == 113
    tables = adata.uns["reference_networks"]
    assert [len(tables[name]) for name in REFERENCES[1:]] == [844, 550, 395]
    factors, base = set(adata.var_names[adata.var["is_tf"]]), tables["base"]
    others = {name: sorted(set(table["source"]) - factors) for name, table in tables.items()}
    assert others == {"base": [], "erythroid": ["CUX1", "MEIS1"], "monocyte": ["VENTX"], "b_cell": ["FOXP1", "SOX5"]}
    assert (base["source"].nunique(), base["target"].nunique()) == (113, 365)
    assert len(base) / (113 * 365) == pytest.approx(0.55, abs=0.005)
    assert adata.obs.groupby("batch", observed=True)["dpt_pseudotime"].min().tolist() == [0, 0, 0]
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineages", batch_key="batch")
