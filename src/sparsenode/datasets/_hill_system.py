"""Random gene regulation with Hill functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsenode.datasets import _systems

_DEGRADATION = (0.5, 1.5)
_LEVEL = (1.5, 3.0)  # highest steady state: production over degradation
_THRESHOLD = (0.5, 1.5)
_EXPONENTS = (2, 3, 4)
_INITIAL = (0.0, 2.0)
_LIFETIMES = 2.0  # length of a trajectory, in lifetimes of the most stable gene


@dataclass(frozen=True, eq=False)
class _HillField:
    """Production from regulators minus degradation.

    Parameters
    ----------
    source, target
        Indices of the genes of every edge. Edges are ordered by target, and every gene is a target.
    activates
        Whether the edge is an activation.
    threshold, exponent
        Half-saturation and Hill exponent of the edges.
    multiplies
        Whether a gene multiplies its regulators' terms, rather than taking their mean.
    production, degradation
        Highest production and rate of degradation of the genes.
    """

    source: np.ndarray
    target: np.ndarray
    activates: np.ndarray
    threshold: np.ndarray
    exponent: np.ndarray
    multiplies: np.ndarray
    production: np.ndarray
    degradation: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        power = (np.maximum(x[:, self.source], 0.0) / self.threshold) ** self.exponent
        terms = np.where(self.activates, power, 1.0) / (1.0 + power)
        first, count = np.unique(self.target, return_index=True, return_counts=True)[1:]
        product = np.multiply.reduceat(terms, first, axis=1)
        mean = np.add.reduceat(terms, first, axis=1) / count
        return self.production * np.where(self.multiplies, product, mean) - self.degradation * x


@dataclass(frozen=True)
class _Uniform:
    """Initial states of independent positive entries."""

    n_genes: int

    def __call__(self, generator: np.random.Generator, n_trials: int) -> np.ndarray:
        return generator.uniform(*_INITIAL, (n_trials, self.n_genes))


def random_hill_system(n_genes: int = 10, density: float = 0.2, seed: int = 0) -> _systems.System:
    r"""Random nonlinear gene regulation with Hill functions and linear degradation.

    .. math:: \frac{dx_i}{dt} = \beta_i \, h_i(x) - \gamma_i x_i

    :math:`h_i` is, with equal chances, the product or the mean of one term per regulator: :math:`u^n / (1 + u^n)` for an activator and
    :math:`1 / (1 + u^n)` for a repressor, with :math:`u = x_j / K`.

    - :math:`\gamma_i`: rate of degradation, uniform in [0.5, 1.5],
    - :math:`\beta_i`: highest production, :math:`\gamma_i` times a number uniform in [1.5, 3],
    - :math:`K`: half-saturation of the edge, uniform in [0.5, 1.5],
    - :math:`n`: exponent of the edge, 2, 3 or 4.

    Every gene has at least one regulator, none regulates itself, and activation and repression are equally likely. States that start
    positive stay positive.

    Parameters
    ----------
    n_genes
        Number of genes, at least two. Default: 10.
    density
        Share of the ordered pairs of two different genes that are edges, in (0, 1]. Default: 0.2. If it is too low for every gene to have a
        regulator, each gene gets one.
    seed
        Seed of the system; the same seed gives the same system.

    Returns
    -------
    The system. ``network`` lists the regulation only, without self edges: **degradation is separate**, although it makes the diagonal of
    the Jacobian non-zero. ``weight`` is 1 for activation and -1 for repression. Initial states are uniform in [0, 2]. A trajectory lasts
    two lifetimes of the most stable gene, so at most 4 units of time.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> import sparsenode as sn
    >>> system = sn.datasets.random_hill_system(seed=1)
    >>> adata = system.simulate(n_trials=8, noise=0.05)
    """
    _systems.check_size(n_genes, density, seed)
    generator = np.random.default_rng(seed)
    signs = _draw_signs(generator, n_genes, density)
    field = _draw_field(generator, signs)
    return _systems.System(
        genes=_systems.gene_names(n_genes),
        field=field,
        draw_initial=_Uniform(n_genes),
        t_end=float(_LIFETIMES / field.degradation.min()),
        network=_systems.edge_table(signs),
    )


def _draw_signs(generator: np.random.Generator, n_genes: int, density: float) -> np.ndarray:
    """Signs of the edges, targets × regulators: one regulator per gene, the other edges anywhere."""
    signs = np.zeros((n_genes, n_genes))
    targets = np.arange(n_genes)
    signs[targets, (targets + generator.integers(1, n_genes, n_genes)) % n_genes] = 1.0
    free = np.flatnonzero((signs == 0) & ~np.eye(n_genes, dtype=bool))
    n_more = max(0, round(density * n_genes * (n_genes - 1)) - n_genes)
    signs.flat[generator.choice(free, n_more, replace=False)] = 1.0
    return signs * generator.choice([-1.0, 1.0], signs.shape)


def _draw_field(generator: np.random.Generator, signs: np.ndarray) -> _HillField:
    target, source = np.nonzero(signs)
    n_genes, n_edges = len(signs), len(target)
    degradation = generator.uniform(*_DEGRADATION, n_genes)
    return _HillField(
        source=source,
        target=target,
        activates=signs[target, source] > 0,
        threshold=generator.uniform(*_THRESHOLD, n_edges),
        exponent=generator.choice(_EXPONENTS, n_edges),
        multiplies=generator.random(n_genes) < 0.5,
        production=degradation * generator.uniform(*_LEVEL, n_genes),
        degradation=degradation,
    )
