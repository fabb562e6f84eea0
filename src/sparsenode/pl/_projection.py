"""Velocities on an embedding: numerics on plain arrays."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

_BLOCK = 4_000_000  # entries of an array of cells × neighbours × genes


def project(
    values: np.ndarray, velocity: np.ndarray, embedding: np.ndarray, n_neighbors: int = 30, width: float = 0.1
) -> np.ndarray:
    r"""Velocities in the coordinates of an embedding, after La Manno et al. (2018), with the cosine of scVelo.

    .. math::

        u_i = \sum_{j \in N(i)} \left(p_{ij} - \frac{1}{|N(i)|}\right) \frac{e_j - e_i}{\|e_j - e_i\|},
        \qquad p_{ij} \propto \exp\left(\frac{\cos(x_j - x_i, v_i)}{\sigma}\right)

    - :math:`N(i)`: nearest neighbours of cell :math:`i` in expression :math:`x`,
    - :math:`v_i`: velocity, :math:`e_i`: coordinates in the embedding, :math:`\sigma`: width of the kernel
      :cite:p:`lamanno2018rna,bergen2020generalizing`.

    Parameters
    ----------
    values, velocity
        Expression and velocity, cells × genes.
    embedding
        Coordinates, cells × dimensions.
    n_neighbors
        Number of neighbours.
    width
        Width of the kernel.

    Returns
    -------
    Cells × dimensions, without a unit: a direction and how clear it is, not a speed.
    """
    n_neighbors = min(n_neighbors, len(values) - 1)
    # A cell is its own first neighbour, unless another one is the same: both have no direction.
    near = NearestNeighbors(n_neighbors=n_neighbors + 1).fit(values).kneighbors(values, return_distance=False)[:, 1:]
    result = np.zeros(embedding.shape)
    step = max(1, _BLOCK // (n_neighbors * values.shape[1]))
    for first in range(0, len(values), step):
        rows = slice(first, first + step)
        apart = values[near[rows]] - values[rows, None]
        along = np.einsum("ijk,ik->ij", apart, velocity[rows])
        lengths = np.linalg.norm(apart, axis=2) * np.linalg.norm(velocity[rows], axis=1)[:, None]
        cosine = np.divide(along, lengths, out=np.zeros_like(along), where=lengths > 0)
        weight = np.exp((cosine - cosine.max(1, keepdims=True)) / width)
        weight = weight / weight.sum(1, keepdims=True) - 1 / n_neighbors
        arrows = embedding[near[rows]] - embedding[rows, None]
        size = np.linalg.norm(arrows, axis=2, keepdims=True)
        result[rows] = (weight[..., None] * np.divide(arrows, size, out=np.zeros_like(arrows), where=size > 0)).sum(1)
    return result


def on_grid(
    embedding: np.ndarray, arrows: np.ndarray, n: int = 40
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Smooth arrows onto a grid, with a Gaussian over the nearest cells.

    Parameters
    ----------
    embedding, arrows
        Places and arrows of the cells, cells × 2.
    n
        Points of the grid along either axis.

    Returns
    -------
    Coordinates along either axis, n; arrows along the first and along the second, n × n, rows follow the second axis. NaN
    where there are too few cells.
    """
    low, high = embedding.min(0), embedding.max(0)
    margin = 0.02 * (high - low)
    axes = [np.linspace(low[k] - margin[k], high[k] + margin[k], n) for k in range(2)]
    grid = np.stack([a.ravel() for a in np.meshgrid(*axes)], axis=1)
    spacing = np.array([a[1] - a[0] for a in axes])
    near = NearestNeighbors(n_neighbors=min(len(embedding), max(10, len(embedding) // 50))).fit(embedding / spacing)
    distance, cells = near.kneighbors(grid / spacing)
    weight = np.exp(-0.5 * distance**2)  # the width is the spacing of the grid
    mass = weight.sum(1)
    smooth = (weight[..., None] * arrows[cells]).sum(1) / np.maximum(mass, 1e-12)[:, None]
    smooth[mass < 0.02 * np.quantile(mass, 0.99)] = np.nan
    return axes[0], axes[1], smooth[:, 0].reshape(n, n), smooth[:, 1].reshape(n, n)
