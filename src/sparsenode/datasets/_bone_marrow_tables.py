"""The bone marrow as it was published: tables that are joined into the files that ``bone_marrow`` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from sparsenode.datasets._bone_marrow import FACTORS, reference_file

# Names in the published files.
_DONORS = {"S1D1": "11", "S1D2": "12", "S2D1": "21"}
_LINEAGES = {"erythroid": "eryth", "monocyte": "mono", "b_cell": "B"}
_CELL_TYPES = {
    "erythroid": ("MK_E prog", "Proerythroblast", "Erythroblast", "Normoblast"),
    "monocyte": ("CD14+ Mono", "CD16+ Mono"),
    "b_cell": ("Lymph prog", "Transitional B", "Naive CD20+ B"),
}
_BASE = "tf_targets_baseGRN_human_matrix.csv.gz"


def assemble(raw: Path, folder: Path) -> None:
    """Join the published tables, one per donor and lineage, into the files that :func:`bone_marrow` reads."""
    for donor in _DONORS:
        cells = _cells(raw, donor)
        cells.write_h5ad(folder / f"{donor}.h5ad")
    genes = set(cells.var_names)
    base = pd.read_csv(raw / _BASE, index_col=0)
    base = base.loc[base.index.isin(genes), base.columns.isin(genes)]
    pd.DataFrame({"gene": base.index}).to_csv(folder / FACTORS, index=False)
    edges = np.argwhere(base.to_numpy() != 0)
    pairs = pd.DataFrame({"source": base.index[edges[:, 0]], "target": base.columns[edges[:, 1]]})
    pairs.to_csv(folder / reference_file("base"), index=False)
    for lineage, cell_types in _CELL_TYPES.items():
        tables = [pd.read_csv(raw / f"{name}.csv.gz").assign(cell_type=name) for name in cell_types]
        table = pd.concat(tables).rename(columns={"tf.name": "source", "target.gene.name": "target"})
        table = table.loc[table["source"].isin(genes) & table["target"].isin(genes)]
        table[["source", "target", "cell_type", "score"]].to_csv(folder / reference_file(lineage), index=False)


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
