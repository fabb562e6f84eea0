from __future__ import annotations

import pandas as pd
import pytest

from sparsenode.datasets import _bone_marrow_tables

SHORT, NUMBERS = {"erythroid": "eryth", "monocyte": "mono", "b_cell": "B"}, {"S1D1": 11, "S1D2": 12, "S2D1": 21}


@pytest.fixture
def published(tmp_path):
    """Tables as they are published: one per donor and lineage, and networks of genes of which some are not among them."""
    folder = tmp_path / "published"
    folder.mkdir()
    for number in NUMBERS.values():
        for i, short in enumerate(SHORT.values()):
            # The stem cells, at times 0 and 0.1, are in every table.
            times = [0.0, 0.1, 0.5 + 0.1 * i, 0.9 - 0.1 * i]
            table = pd.DataFrame({"dpt_pseudotime": times, "A": [1.0, 2.0, i + 3.0, i + 4.0], "B": 0.5})
            table.to_csv(folder / f"{short}_{number}_norm.csv", sep="\t", index=False)
    matrix = pd.DataFrame([[0, 1.0, 1], [1, 0, 0]], index=["A", "X"], columns=["A", "B", "X"])
    matrix.to_csv(folder / _bone_marrow_tables._BASE)
    for names in _bone_marrow_tables._CELL_TYPES.values():
        for name in names:
            edges = pd.DataFrame({"tf.name": ["A", "X"], "target.gene.name": ["B", "B"], "score": [1, 2]})
            edges.to_csv(folder / f"{name}.csv.gz")
    return folder
