"""Pseudotime that is estimated from the expression of simulated cells, whose true time is known, by diffusion and by curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE

N_ROOT = 50  # earliest cells, whose middle is taken to be known
_N_COMPONENTS = 10
_N_CURVES, _N_POINTS = 8, 100  # rounds of fitting curves, and points of each
_BANDWIDTH = 0.08  # of the length of a curve
_FAR = 0.9  # quantile of distances beyond which a cell is in the lineage of the nearest curve alone


def diffusion(adata: AnnData, early: np.ndarray) -> np.ndarray:
    """Diffusion pseudotime from the cell in the middle of some early ones; infinite where the root does not reach."""
    cells = AnnData(np.asarray(adata.X), obs=adata.obs[[]].copy())
    sc.pp.scale(cells)
    sc.pp.neighbors(cells, n_neighbors=15, use_rep="X")
    n_components = min(_N_COMPONENTS, cells.n_vars)
    sc.tl.diffmap(cells, n_comps=n_components)
    points = np.asarray(cells.X)[early]
    cells.uns["iroot"] = int(early[np.linalg.norm(points - points.mean(0), axis=1).argmin()])
    sc.tl.dpt(cells, n_dcs=n_components)
    return cells.obs["dpt_pseudotime"].to_numpy()


def curves(adata: AnnData, early: np.ndarray, n_lineages: int, seed: int) -> pd.DataFrame:
    """Pseudotime in each lineage, missing outside it: arc lengths of smooth curves from a first cluster to each of the others.

    The idea of slingshot (Street et al. 2018), in the plane of t-SNE, without its shrinkage of curves where they share cells. The
    number of lineages is taken to be known, and that none leads through the end of another.
    """
    places = TSNE(2, random_state=seed, init="pca", perplexity=30).fit_transform(adata.X).astype(float)
    cluster = KMeans(n_lineages + 1, n_init=10, random_state=seed).fit_predict(places)
    first = np.bincount(cluster[early], minlength=n_lineages + 1).argmax()
    centres = np.stack([places[cluster == k].mean(0) for k in range(n_lineages + 1)])
    last = [k for k in range(n_lineages + 1) if k != first]
    lines = [centres[[first, k]] for k in last]
    member = np.stack([(cluster == first) | (cluster == k) for k in last], axis=1)
    for _ in range(_N_CURVES):
        lines = [
            _smooth(places[own], _project(places[own], line)[0]) for own, line in zip(member.T, lines, strict=True)
        ]
    lengths, distances = (
        np.stack(found, axis=1) for found in zip(*(_project(places, line) for line in lines), strict=True)
    )
    far = distances > np.quantile(distances[member], _FAR)
    member &= ~(far & (distances > distances.min(1, keepdims=True)))
    times = np.where(member, lengths, np.nan)
    return pd.DataFrame(times - np.nanmin(times, axis=0), adata.obs_names).add_prefix("lineage")


def _project(points: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arc length of the nearest place on a line of straight parts, whose ends go on, and the squared distance to it."""
    start, step = line[:-1], np.diff(line, axis=0)
    length = np.maximum(np.linalg.norm(step, axis=1), 1e-9)
    share = ((points[:, None] - start) * step).sum(2) / length**2
    low, high = np.zeros(len(step)), np.ones(len(step))
    low[0], high[-1] = -np.inf, np.inf
    share = np.clip(share, low, high)
    distance = ((points[:, None] - start - share[..., None] * step) ** 2).sum(2)
    nearest, rows = distance.argmin(1), np.arange(len(points))
    before = np.cumsum(length) - length
    return before[nearest] + share[rows, nearest] * length[nearest], distance[rows, nearest]


def _smooth(points: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Points of a curve through others that are ordered in time: a local linear regression."""
    grid = np.linspace(times.min(), times.max(), _N_POINTS)
    distance = times[None] - grid[:, None]
    weight = np.exp(-0.5 * (distance / (_BANDWIDTH * np.ptp(grid))) ** 2)
    one, two = (weight * distance).sum(1), (weight * distance**2).sum(1)
    local = weight * (two[:, None] - distance * one[:, None])
    return local @ points / local.sum(1, keepdims=True)
