"""Random sparse stable linear systems."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsenode.datasets import _systems

_MAGNITUDES = (0.5, 1.5)
_DIAGONAL = (0.5, 1.0)
_SLOWEST = 0.2  # no mode decays more slowly


@dataclass(frozen=True, eq=False)
class _LinearField:
    """:math:`f(x) = A x`, with the matrix targets × regulators."""

    matrix: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x @ self.matrix.T


def random_linear_system(n_genes: int = 10, density: float = 0.2, seed: int = 0) -> _systems.System:
    """Random sparse stable linear system :math:`dx/dt = A x`.

    Off the diagonal, a share ``density`` of the entries (at least one), at random places, has magnitudes uniform in [0.5, 1.5] and random
    signs; the others are zero. The diagonal is uniform in [-1, -0.5]. If stability requires it, the same number is subtracted for all
    genes: the real parts of all eigenvalues are at most -0.2.

    Parameters
    ----------
    n_genes
        Number of variables, at least two. Default: 10.
    density
        Share of non-zero entries off the diagonal, in (0, 1]. Default: 0.2.
    seed
        Seed of the system; the same seed gives the same system.

    Returns
    -------
    The system. ``network`` lists the non-zero entries of :math:`A` **with the diagonal**, since a linear system cannot tell degradation
    from self-regulation; ``weight`` is the entry. ``coefficients`` is :math:`A`, targets × regulators. Initial states are standard normal.
    A trajectory lasts until the slowest mode has fallen to 1/e, so at most 5 units of time.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> import sparsenode as sn
    >>> system = sn.datasets.random_linear_system(seed=1)
    >>> adata = system.simulate(n_trials=8, noise=0.05)
    """
    _systems.check_size(n_genes, density, seed)
    matrix = _draw_matrix(np.random.default_rng(seed), n_genes, density)
    return _systems.System(
        genes=_systems.gene_names(n_genes),
        field=_LinearField(matrix),
        draw_initial=_systems.StandardNormal(n_genes),
        t_end=-1.0 / _slowest(matrix),
        network=_systems.edge_table(matrix),
        coefficients=_systems.coefficient_table(matrix.copy()),
    )


def _draw_matrix(generator: np.random.Generator, n_genes: int, density: float) -> np.ndarray:
    pairs = np.flatnonzero(~np.eye(n_genes, dtype=bool))
    n_edges = max(1, round(density * len(pairs)))
    chosen = generator.choice(pairs, n_edges, replace=False)
    matrix = np.zeros((n_genes, n_genes))
    matrix.flat[chosen] = generator.uniform(*_MAGNITUDES, n_edges) * generator.choice([-1.0, 1.0], n_edges)
    matrix -= np.diag(generator.uniform(*_DIAGONAL, n_genes))
    return matrix - max(0.0, _slowest(matrix) + _SLOWEST) * np.eye(n_genes)


def _slowest(matrix: np.ndarray) -> float:
    """Largest real part of the eigenvalues."""
    return float(np.linalg.eigvals(matrix).real.max())
