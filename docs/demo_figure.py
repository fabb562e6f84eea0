"""The figure of the README: the example there, fitted anew, and drawn to ``docs/_static/demo.png``.

``python docs/demo_figure.py`` takes less than a minute.
"""

from pathlib import Path

import matplotlib.pyplot as plt

import sparsenode as sn

GENES, LINEAGE = ("Gata1", "EgrNab"), "Ery"

adata = sn.datasets.krumsiek11()
sn.SparseNODE.setup_anndata(adata, time_key="simulation_time", lineage_key="lineage")
model = sn.SparseNODE(adata, sn.regularizers.PathReg(strength=0.01), objective="trajectory", initial_state="first")
model.train(max_epochs=100, plan_kwargs={"gate_lr": 0.2})

figure, axes = plt.subplots(1, 3, figsize=(13.3, 4.4), layout="constrained", width_ratios=(1, 1, 1.25))
sn.pl.trajectory(adata, GENES, ax=axes[:2], show=False)
sn.pl.adjacency(adata, lineage=LINEAGE, ax=axes[-1], show=False)
axes[-1].set_title(f"network of the {LINEAGE} lineage")
figure.savefig(Path(__file__).parent / "_static" / "demo.png", dpi=100)
