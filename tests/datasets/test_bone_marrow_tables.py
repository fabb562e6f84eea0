from __future__ import annotations

import numpy as np
import pytest

import sparsenode as sn
from sparsenode.datasets import _bone_marrow_tables


def test_published_tables_are_joined(published, tmp_path):
    _bone_marrow_tables.assemble(published, tmp_path)
    adata = sn.datasets.bone_marrow(tmp_path, "S1D2")
    assert list(adata.obs["dpt_pseudotime"]) == [0.0, 0.1, 0.5, 0.6, 0.7, 0.7, 0.8, 0.9]
    members = adata.obsm["lineages"]
    assert members.sum().to_dict() == {"erythroid": 4, "monocyte": 4, "b_cell": 4}
    assert members.iloc[:2].to_numpy().all()
    assert (members.iloc[2:].sum(1) == 1).all()
    # erythroid cells are at 0.5 and 0.9, with expression 3 and 4
    assert adata[members["erythroid"], "A"].X.toarray().ravel().tolist() == [1, 2, 3, 4]
    assert list(adata.var["is_tf"]) == [True, False]
    assert adata.uns["reference_networks"]["base"].values.tolist() == [["A", "B"]]
    assert adata.uns["reference_networks"]["monocyte"].values.tolist() == [["A", "B", "CD14+ Mono; CD16+ Mono", 1]]


@pytest.mark.data
def test_real_tables_are_joined_into_the_local_copy(data_dir, published, tmp_path):
    """Cells go through the published form and come back the same, in the same order."""
    want = sn.datasets.bone_marrow(data_dir / "bone_marrow", "S1D2")
    table = want.to_df()
    table.insert(0, "dpt_pseudotime", want.obs["dpt_pseudotime"].to_numpy())
    for name, short in _bone_marrow_tables._LINEAGES.items():
        rows = table[want.obsm["lineages"][name].to_numpy()]
        rows.to_csv(published / f"{short}_12_norm.csv", sep="\t", index=False)
    found = _bone_marrow_tables._cells(published, "S1D2")
    np.testing.assert_array_equal(found.X.toarray(), want.X.toarray())
    np.testing.assert_array_equal(found.obsm["lineages"], want.obsm["lineages"])
    assert list(found.obs_names) == list(want.obs_names)
