"""Linear systems of second order with known networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.linalg import expm

from sparsenode import _checks
from sparsenode.datasets import _systems

_STIFFNESS = (1.0, 3.0)
_DAMPING = (0.2, 0.6)
_MAGNITUDES = (0.3, 0.8)
_SLOWEST = 0.05  # no mode decays more slowly
_STIFFEN = 1.1
_T_END = 5.0  # about one oscillation

# Rows are targets. Every variable is a damped oscillator; two of them are coupled by position and one by velocity.
_POSITION = ((-2.0, 0.8, 0.0), (0.0, -1.5, 0.0), (0.5, 0.0, -3.0))
_VELOCITY = ((-0.4, 0.0, 0.0), (0.0, -0.3, 0.5), (0.0, 0.0, -0.4))
_INITIAL_VELOCITY = ((0.0, 0.5, 0.0), (0.0, 0.0, -0.5), (0.5, 0.0, 0.0))


@dataclass(frozen=True, eq=False)
class SecondOrderSystem:
    r"""Homogeneous linear differential equations of second order whose network is known.

    .. math:: \frac{d^2 x}{dt^2} = P x + V \frac{dx}{dt}, \qquad \frac{dx}{dt}(0) = W x(0)

    Made by :func:`second_order_system` and :func:`random_second_order_system`. The initial velocity is a function of the initial position,
    since a model that sees only positions has to learn it from them.

    Parameters
    ----------
    genes
        Names of the variables, in the order of the columns of every array.
    position, velocity
        Blocks :math:`P` and :math:`V` of the true coefficients, targets × regulators.
    initial_velocity
        The matrix :math:`W`.
    draw_initial
        Function of a random generator and a number of trials that returns initial positions, trials × genes.
    t_end
        Default length of a trajectory in :meth:`simulate`.
    """

    genes: list[str]
    position: pd.DataFrame
    velocity: pd.DataFrame
    initial_velocity: pd.DataFrame
    draw_initial: Callable[[np.random.Generator, int], np.ndarray]
    t_end: float

    @property
    def network(self) -> pd.DataFrame:
        """Non-zero coefficients of either block, with the diagonal, as a long table.

        Returns
        -------
        Table with the columns ``source``, ``target``, ``position`` and ``velocity`` (the two coefficients of the pair), and ``weight``, the
        one of larger magnitude.
        """
        position, velocity = self.position.to_numpy(), self.velocity.to_numpy()
        larger = np.where(np.abs(position) >= np.abs(velocity), position, velocity)
        target, source = np.nonzero(larger)
        names = np.asarray(self.genes, dtype=object)
        return pd.DataFrame(
            {
                "source": names[source],
                "target": names[target],
                "weight": larger[target, source],
                "position": position[target, source],
                "velocity": velocity[target, source],
            }
        )

    def acceleration(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Second derivative at given positions and velocities.

        Parameters
        ----------
        x, v
            Positions, and velocities per unit of time, both points × genes.

        Returns
        -------
        Accelerations per unit of time squared, points × genes.

        Raises
        ------
        ValueError
            If the two are not tables of one shape with a column per gene.
        """
        x, v = np.asarray(x, dtype=np.float64), np.asarray(v, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.genes) or x.shape != v.shape:
            raise ValueError(
                f"Expected `x` and `v` to have the shape (points, {len(self.genes)}), found {x.shape} and {v.shape}. A "
                "single state is `x[None]`."
            )
        return x @ self.position.to_numpy().T + v @ self.velocity.to_numpy().T

    def solve(self, x0: np.ndarray, times: np.ndarray, v0: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        r"""Exact positions and velocities, from the matrix exponential.

        .. math:: (x, v)(t) = \exp\left(t \begin{pmatrix} 0 & I \\ P & V \end{pmatrix}\right) (x, v)(0)

        Parameters
        ----------
        x0
            Initial position, genes.
        times
            Times of the solution, counted from the initial state.
        v0
            Initial velocity, genes. Default: :math:`W x_0`.

        Returns
        -------
        Positions and velocities, each times × genes.

        Raises
        ------
        TypeError
            If ``times`` are not numbers.
        ValueError
            If the initial state does not have an entry per gene, or ``times`` are not finite numbers in one dimension.
        """
        n = len(self.genes)
        x0 = np.asarray(x0, dtype=np.float64)
        v0 = self.initial_velocity.to_numpy() @ x0 if v0 is None and x0.shape == (n,) else np.asarray(v0)
        if x0.shape != (n,) or v0.shape != (n,):
            raise ValueError(f"Expected `x0` and `v0` to have the shape ({n},), found {x0.shape} and {v0.shape}.")
        times = _checks.numbers("times", times)
        if times.ndim != 1 or not np.isfinite(times).all():
            raise ValueError(f"Expected `times` to be finite numbers in one dimension, found shape {times.shape}.")
        flow = expm(times[:, None, None] * companion(self.position, self.velocity))
        state = flow @ np.concatenate([x0, v0])
        return state[:, :n], state[:, n:]

    def simulate(
        self,
        n_trials: int = 8,
        n_times: int = 40,
        t_end: float | None = None,
        noise: float = 0.0,
        irregular: bool = False,
        seed: int = 0,
    ) -> AnnData:
        """Observe the positions of the system from several initial states.

        Parameters
        ----------
        n_trials
            Number of trajectories, each from its own initial state. Default: 8.
        n_times
            Number of observations of a trajectory, at least two. Default: 40. The first is at time 0.
        t_end
            Length of a trajectory, in units of time. Default: that of the system.
        noise
            Standard deviation of Gaussian measurement noise, as a share of the standard deviation of each gene over all noise-free
            observations. Default: 0.
        irregular
            Whether to draw the times of every trajectory anew, uniformly between 0 and ``t_end``. Default: ``False``, evenly spaced.
        seed
            Seed of initial states, times and noise. They are drawn separately: the same seed gives the same trajectories at any noise, and
            the same initial states for any times.

        Returns
        -------
        As :meth:`System.simulate`, with the velocities in ``.layers["velocity"]``.

        Raises
        ------
        TypeError
            If ``irregular`` is not True or False.
        ValueError
            If an argument is out of range.
        """

        def layers(start: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
            x, v = self.solve(start, times)
            return {_systems.STATES: x, "velocity": v}

        return _systems.observe(self, layers, n_trials, n_times, t_end, noise, irregular, seed)


def second_order_system() -> SecondOrderSystem:
    r"""Fixed sparse stable system of second order with three variables.

    .. math::

        \ddot x_0 &= -2 x_0 + 0.8 x_1 - 0.4 \dot x_0 \\
        \ddot x_1 &= -1.5 x_1 - 0.3 \dot x_1 + 0.5 \dot x_2 \\
        \ddot x_2 &= 0.5 x_0 - 3 x_2 - 0.4 \dot x_2

    with :math:`\dot x(0) = (x_1, -x_2, x_0)(0) / 2`. Nine of the 18 coefficients are zero. It resembles the synthetic system in appendix
    B.1 of :cite:p:`aliee2022sparsity`, with coefficients of our own.

    Returns
    -------
    The system. Initial positions are standard normal, and a trajectory lasts 5 units of time, about one oscillation; the slowest mode falls
    to 1/e in 14.

    Examples
    --------
    >>> import sparsenode as sn
    >>> adata = sn.datasets.second_order_system().simulate(n_trials=4)
    """
    return _system(np.array(_POSITION), np.array(_VELOCITY), np.array(_INITIAL_VELOCITY))


def random_second_order_system(n_genes: int = 3, density: float = 0.25, seed: int = 0) -> SecondOrderSystem:
    """Random sparse stable linear system of second order, :math:`d^2x/dt^2 = P x + V dx/dt`.

    Every variable is a damped oscillator: the diagonals of :math:`P` and :math:`V` are uniform in [-3, -1] and [-0.6, -0.2]. A share
    ``density`` of all other entries of the two blocks (at least one), at random places, has magnitudes uniform in [0.3, 0.8] and random
    signs; the others are zero. If this is not stable, both diagonals grow by steps of 10 % until the real parts of all modes are at most
    -0.05. The initial velocity is :math:`W x(0)`, where :math:`W` has normal entries of variance ``1 / n_genes``.

    Parameters
    ----------
    n_genes
        Number of variables, at least two. Default: 3.
    density
        Share of non-zero entries off the diagonals, in (0, 1]. Default: 0.25.
    seed
        Seed of the system; the same seed gives the same system.

    Returns
    -------
    The system. Initial positions are standard normal, and a trajectory lasts 5 units of time.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> import sparsenode as sn
    >>> system = sn.datasets.random_second_order_system(seed=1)
    >>> system.position.shape
    (3, 3)
    """
    _systems.check_size(n_genes, density, seed)
    generator = np.random.default_rng(seed)
    stiffness, damping = generator.uniform(*_STIFFNESS, n_genes), generator.uniform(*_DAMPING, n_genes)
    off_diagonal = np.flatnonzero(np.tile(~np.eye(n_genes, dtype=bool), (2, 1)))
    n_edges = max(1, round(density * len(off_diagonal)))
    couplings = np.zeros((2, n_genes, n_genes))
    chosen = generator.choice(off_diagonal, n_edges, replace=False)
    couplings.flat[chosen] = generator.uniform(*_MAGNITUDES, n_edges) * generator.choice([-1.0, 1.0], n_edges)
    initial_velocity = generator.standard_normal((n_genes, n_genes)) / np.sqrt(n_genes)
    diagonals = np.stack([np.diag(stiffness), np.diag(damping)])
    position, velocity = couplings - diagonals
    while np.linalg.eigvals(companion(position, velocity)).real.max() > -_SLOWEST:
        diagonals *= _STIFFEN
        position, velocity = couplings - diagonals
    return _system(position, velocity, initial_velocity)


def companion(position: np.ndarray | pd.DataFrame, velocity: np.ndarray | pd.DataFrame) -> np.ndarray:
    """Matrix of the system of first order in positions and velocities."""
    n = len(position)
    return np.block([[np.zeros((n, n)), np.eye(n)], [np.asarray(position), np.asarray(velocity)]])


def _system(position: np.ndarray, velocity: np.ndarray, initial_velocity: np.ndarray) -> SecondOrderSystem:
    return SecondOrderSystem(
        genes=_systems.gene_names(len(position)),
        position=_systems.coefficient_table(position),
        velocity=_systems.coefficient_table(velocity),
        initial_velocity=_systems.coefficient_table(initial_velocity),
        draw_initial=_systems.StandardNormal(len(position)),
        t_end=_T_END,
    )
