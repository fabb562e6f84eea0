"""Real data from where their authors keep them, or from a local copy."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pandas as pd
import pooch
from anndata import AnnData
from scipy import sparse

from sparsenode import _checks
from sparsenode.datasets import _bone_marrow

VARIABLE = "SPARSENODE_DATA"
NAMES = ("bone_marrow", "motion_capture")
_MOTION = ("07.asf", "07_01.amc", "07_04.amc", "07_05.amc", "07_10.amc")
# Names in the published files.
_DONORS = {"S1D1": "11", "S1D2": "12", "S2D1": "21"}
_LINEAGES = {"erythroid": "eryth", "monocyte": "mono", "b_cell": "B"}
_CELL_TYPES = {
    "erythroid": ("MK_E prog", "Proerythroblast", "Erythroblast", "Normoblast"),
    "monocyte": ("CD14+ Mono", "CD16+ Mono"),
    "b_cell": ("Lymph prog", "Transitional B", "Naive CD20+ B"),
}
_BASE = "tf_targets_baseGRN_human_matrix.csv.gz"


def download(name: Literal["bone_marrow", "motion_capture"]) -> Path:
    """Folder with a real data set, downloaded once, or found where the environment variable ``SPARSENODE_DATA`` points.

    Parameters
    ----------
    name
        ``"bone_marrow"``: 18 MB from github.com/theislab/PathReg, the data of :cite:t:`aliee2022sparsity`, for :func:`bone_marrow`.
        ``"motion_capture"``: 1.2 MB from mocap.cs.cmu.edu, subject 07 walking, for :func:`read_motion_capture`.

    Returns
    -------
    Folder with the files. If ``SPARSENODE_DATA`` is set, it is ``<SPARSENODE_DATA>/<name>`` and nothing is downloaded. Otherwise it is in
    the user's cache, and pooch verifies the checksums of downloaded files. The tables of the bone marrow are then joined, with one row for
    cells that are in several lineages, and written as h5ad.

    Raises
    ------
    ValueError
        If there is no data set of that name, or a downloaded file has another checksum.
    FileNotFoundError
        If files are missing in the folder that ``SPARSENODE_DATA`` names.
    requests.RequestException
        If a server cannot be reached.

    Examples
    --------
    >>> import sparsenode as sn
    >>> adata = sn.datasets.bone_marrow(sn.datasets.download("bone_marrow"), "S1D2")  # doctest: +SKIP
    """
    _checks.choice("name", name, NAMES)
    wanted = _MOTION if name == "motion_capture" else _bone_marrow.file_names(_bone_marrow.BATCHES)
    local = os.environ.get(VARIABLE)
    if local:
        folder = Path(local).expanduser() / name
        missing = [file for file in wanted if not (folder / file).is_file()]
        if missing:
            raise FileNotFoundError(
                f"Expected the files of {name!r} in {str(folder)!r}, found {missing} missing. Add them, or unset {VARIABLE} "
                "to download them."
            )
        return folder
    cache = pooch.create(path=pooch.os_cache("sparsenode"), base_url="")
    cache.load_registry(files("sparsenode.datasets") / "registry.txt")
    raw = [Path(cache.fetch(file)) for file in cache.registry_files if file.startswith(f"{name}/")]
    folder = raw[0].parent
    if not all((folder / file).is_file() for file in wanted):
        with TemporaryDirectory(dir=folder) as unfinished:  # a file that is there is whole
            assemble_bone_marrow(folder, Path(unfinished))
            for file in Path(unfinished).iterdir():
                file.replace(folder / file.name)
    return folder


def assemble_bone_marrow(raw: Path, folder: Path) -> None:
    """Join the published tables, one per donor and lineage, into the files that ``bone_marrow`` reads."""
    for donor in _DONORS:
        cells = _cells(raw, donor)
        cells.write_h5ad(folder / f"{donor}.h5ad")
    genes = set(cells.var_names)
    base = pd.read_csv(raw / _BASE, index_col=0)
    base = base.loc[base.index.isin(genes), base.columns.isin(genes)]
    pd.DataFrame({"gene": base.index}).to_csv(folder / _bone_marrow.FACTORS, index=False)
    edges = np.argwhere(base.to_numpy() != 0)
    pairs = pd.DataFrame({"source": base.index[edges[:, 0]], "target": base.columns[edges[:, 1]]})
    pairs.to_csv(folder / _bone_marrow.reference_file("base"), index=False)
    for lineage, cell_types in _CELL_TYPES.items():
        tables = [pd.read_csv(raw / f"{name}.csv.gz").assign(cell_type=name) for name in cell_types]
        table = pd.concat(tables).rename(columns={"tf.name": "source", "target.gene.name": "target"})
        table = table.loc[table["source"].isin(genes) & table["target"].isin(genes)]
        table[["source", "target", "cell_type", "score"]].to_csv(
            folder / _bone_marrow.reference_file(lineage), index=False
        )


def _cells(raw: Path, donor: str) -> AnnData:
    """Cells of a donor in the order of pseudotime; rows that are equal in two lineages are one cell."""
    tables = {
        name: pd.read_csv(raw / f"{short}_{_DONORS[donor]}_norm.csv", sep="\t") for name, short in _LINEAGES.items()
    }
    rows = pd.concat(tables.values(), ignore_index=True)
    number = rows.groupby(list(rows), sort=False).ngroup().to_numpy()
    distinct = rows[~rows.duplicated()].sort_values("dpt_pseudotime", kind="stable")
    order = number[distinct.index]
    names = [f"{donor}_{i:05d}" for i in range(len(distinct))]
    obs = pd.DataFrame(
        {"dpt_pseudotime": distinct["dpt_pseudotime"].to_numpy(), "batch": pd.Categorical([donor] * len(names))}
    )
    obs.index = pd.Index(names)
    values = distinct.drop(columns="dpt_pseudotime")
    adata = AnnData(sparse.csr_matrix(values.to_numpy(np.float32)), obs, pd.DataFrame(index=values.columns))
    ends = np.cumsum([len(table) for table in tables.values()])
    members = [np.isin(order, number[end - len(table) : end]) for end, table in zip(ends, tables.values(), strict=True)]
    adata.obsm["lineages"] = pd.DataFrame(dict(zip(tables, members, strict=True)), index=obs.index)
    return adata
