"""What the tests of the plots share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.figure import Figure
from scipy import sparse


@pytest.fixture(params=["memory", "h5ad"])
def cells(request, results, tmp_path) -> AnnData:
    """Cells with the results of a fit, as they are and read back from a file."""
    if request.param == "memory":
        return results
    results.write_h5ad(tmp_path / "cells.h5ad")
    return anndata.read_h5ad(tmp_path / "cells.h5ad")


@pytest.fixture
def many_genes() -> AnnData:
    """Results for 300 genes, written by hand: gene i drives gene i + 1, with a weight that grows with i."""
    n_genes, n_cells = 300, 40
    generator = np.random.default_rng(0)
    times = np.linspace(0, 1, 101)
    values = np.linspace(0.1, 1, n_genes) * np.sin(3 * times)[:, None]
    obs = pd.DataFrame({"time": np.linspace(0, 1, n_cells)}, index=[f"c{i}" for i in range(n_cells)])
    adata = AnnData(
        generator.normal(size=(n_cells, n_genes)).astype(np.float32),
        obs,
        pd.DataFrame({"is_tf": np.arange(n_genes) % 10 == 0}, index=[f"g{i}" for i in range(n_genes)]),
    )
    weights = np.arange(1.0, n_genes) * np.where(np.arange(1, n_genes) % 2 == 0, 1, -1)
    adata.varp["sparsenode_adjacency"] = sparse.csr_matrix(np.diag(weights, -1).astype(np.float32))
    adata.uns["sparsenode"] = {
        "setup": {"time_key": "time"},
        "genes": np.array(adata.var_names, dtype=str),
        "trajectories": {
            "name": np.array(["all"]),
            "lineage": np.array(["all"]),
            "batch": np.array(["all"]),
            "times": times[None],
            "values": values[None].astype(np.float32),
        },
    }
    return adata


@pytest.fixture(params=["memory", "h5ad"])
def second_order(request, make_adata, fit, tmp_path) -> AnnData:
    """Cells with the results of a second-order fit of two lineages, as they are and read back from a file."""
    adata = make_adata(n_obs=40, n_vars=4)
    fit(adata, train={"max_epochs": 1}, order=2)
    if request.param == "memory":
        return adata
    adata.write_h5ad(tmp_path / "cells.h5ad")
    return anndata.read_h5ad(tmp_path / "cells.h5ad")


@pytest.fixture
def shown(monkeypatch) -> Callable[[], int]:
    """How often a figure was shown."""
    calls: list[bool] = []
    monkeypatch.setattr("matplotlib.pyplot.show", lambda *_, **__: calls.append(True))
    return lambda: len(calls)


@pytest.fixture
def is_within() -> Callable[[Figure], bool]:
    """Whether all that is drawn lies within the figure."""

    def check(figure: Figure) -> bool:
        figure.canvas.draw()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        return bool(min(box.x0, box.y0) > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02)

    return check


@pytest.fixture
def looks_of_scanpy() -> Iterator[None]:
    """What ``scanpy.set_figure_params()`` sets, without its other effects."""
    sizes = dict.fromkeys(("axes.labelsize", "axes.titlesize", "xtick.labelsize", "ytick.labelsize"), 14)
    looks = {"axes.grid": True, "font.size": 14, "legend.fontsize": 14 * 0.92, "legend.handlelength": 0.5}
    with plt.rc_context(sizes | looks):
        yield
