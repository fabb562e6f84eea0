"""What is registered, as ``view_anndata_setup`` shows it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sparsenode as sn

adata = sn.datasets.krumsiek11()
sn.SparseNODE.setup_anndata(adata, time_key="simulation_time", lineage_key="lineage")
sn.SparseNODE(adata).view_anndata_setup()
"""


def test_overview_in_a_script():
    """In a process of its own: pytest imports modules that scvi-tools uses without importing them."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    table = done.stdout.split("Trajectories")[-1]
    header, rows = table.split("Mo", 1)
    assert header.index("trajectory") < min(
        header.index(name) for name in ("batch", "end", "lineage", "n_cells", "start")
    )
    assert all(name in rows for name in ("Ery", "Mk", "Neu"))
