"""Systems of differential equations with known networks, and observations of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.integrate import solve_ivp

from sparsenode import _checks

if TYPE_CHECKING:
    from sparsenode.datasets._second_order import SecondOrderSystem

STATES = "noise_free"  # layer of the states themselves
_RTOL, _ATOL = 1e-8, 1e-10


@dataclass(frozen=True, eq=False)
class System:
    r"""Autonomous differential equations :math:`dx/dt = f(x)` whose network is known.

    Made by :func:`random_linear_system` and :func:`random_hill_system`.

    Parameters
    ----------
    genes
        Names of the variables, in the order of the columns of every array.
    field
        The function :math:`f`: points × genes in and out.
    draw_initial
        Function of a random generator and a number of trials that returns initial states, trials × genes.
    t_end
        Default length of a trajectory in :meth:`simulate`.
    network
        Every pair of genes for which :math:`\partial f_{target} / \partial x_{source}` is not always zero: a long table with the columns
        ``source``, ``target`` and ``weight``. The two functions above say what ``weight`` is, and which self edges are listed.
    coefficients
        Matrix of a linear system, targets × regulators; ``None`` otherwise.
    """

    genes: list[str]
    field: Callable[[np.ndarray], np.ndarray]
    draw_initial: Callable[[np.random.Generator, int], np.ndarray]
    t_end: float
    network: pd.DataFrame
    coefficients: pd.DataFrame | None = None

    def velocity(self, x: np.ndarray) -> np.ndarray:
        """Derivative at given states.

        Parameters
        ----------
        x
            States, points × genes.

        Returns
        -------
        Derivatives per unit of time, points × genes.

        Raises
        ------
        ValueError
            If ``x`` is not a table with a column per gene.
        """
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.genes):
            raise ValueError(
                f"Expected `x` to have the shape (points, {len(self.genes)}), found {x.shape}. A single state is "
                "`x[None]`."
            )
        return self.field(x)

    def simulate(
        self,
        n_trials: int = 8,
        n_times: int = 40,
        t_end: float | None = None,
        noise: float = 0.0,
        irregular: bool = False,
        seed: int = 0,
        clamp: Mapping[str, float] | None = None,
    ) -> AnnData:
        """Observe the system from several initial states.

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
            observations. Default: 0. Noise can make an observation of a positive state negative.
        irregular
            Whether to draw the times of every trajectory anew, uniformly between 0 and ``t_end``. Default: ``False``, evenly spaced.
        seed
            Seed of initial states, times and noise. They are drawn separately: the same seed gives the same trajectories at any noise, and
            the same initial states for any times.
        clamp
            Mapping from genes to the value at which they are held from the start: their derivative is zero, and the others see that value.
            Initial states of the others are the same as without it.

        Returns
        -------
        Observations × genes, ordered by trajectory and time, with

        - ``.obs["time"]``: time of the observation,
        - ``.obs["trial"]``: trajectory that it belongs to, a category,
        - ``.layers["noise_free"]``: the state itself,
        - ``.uns["true_network"]``: the network of the system.

        Raises
        ------
        TypeError
            If ``clamp`` is not a mapping, or ``irregular`` is not True or False.
        ValueError
            If an argument is out of range.
        RuntimeError
            If the integration fails.
        """
        held = self._held(clamp)

        def solve(start: np.ndarray, at: np.ndarray) -> dict[str, np.ndarray]:
            start[list(held)] = list(held.values())
            return {STATES: self._integrate(start, at, list(held))}

        return observe(self, solve, n_trials, n_times, t_end, noise, irregular, seed)

    def _held(self, clamp: Mapping[str, float] | None) -> dict[int, float]:
        """Positions and values of held genes."""
        try:
            held = {} if clamp is None else dict(clamp)
        except (TypeError, ValueError) as error:
            raise TypeError(f"Expected `clamp` to map genes to numbers, found {clamp!r}.") from error
        for name, value in held.items():
            is_number = np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiu"
            if name not in self.genes or not is_number or not np.isfinite(value):
                raise ValueError(
                    f"Expected `clamp` to map genes like {self.genes[:3]} to finite numbers, found {name!r}: {value!r}."
                )
        return {self.genes.index(name): float(value) for name, value in held.items()}

    def _integrate(self, start: np.ndarray, times: np.ndarray, held: list[int]) -> np.ndarray:
        """States at increasing times, the first of which is that of the initial state."""
        free = np.ones(len(start))
        free[held] = 0.0
        solution = solve_ivp(
            lambda _, x: free * self.field(x[None])[0],
            (times[0], times[-1]),
            start,
            method="DOP853",
            t_eval=times,
            rtol=_RTOL,
            atol=_ATOL,
        )
        if not solution.success:
            raise RuntimeError(f"The integration stopped at time {solution.t[-1]:g}: {solution.message}")
        return solution.y.T


def observe(
    system: System | SecondOrderSystem,
    solve: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
    n_trials: int,
    n_times: int,
    t_end: float | None,
    noise: float,
    irregular: bool,
    seed: int,
) -> AnnData:
    """Observe a system as :meth:`System.simulate` says; ``solve`` gives layers from an initial state and times."""
    _checks.at_least("n_trials", n_trials, 1)
    _checks.at_least("n_times", n_times, 2)
    _checks.at_least("seed", seed, 0)
    if t_end is None:
        t_end = system.t_end
    _checks.positive("t_end", t_end)
    _checks.non_negative("noise", noise)
    _checks.booleans(irregular=irregular)
    for_states, for_times, for_noise = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(3))
    times = _observation_times(for_times, n_trials, n_times, float(t_end), irregular)
    initial = system.draw_initial(for_states, n_trials)
    solved = [solve(start, at) for start, at in zip(initial, times, strict=True)]
    layers = {name: np.concatenate([one[name] for one in solved]) for name in solved[0]}
    states = layers[STATES]
    trials = [f"trial{i}" for i in range(n_trials)]
    trial = pd.Categorical(np.repeat(trials, n_times), categories=trials)
    return AnnData(
        states + noise * states.std(0) * for_noise.standard_normal(states.shape),
        obs=pd.DataFrame(
            {"time": times.ravel(), "trial": trial},
            index=[f"{name}_{step}" for name in trials for step in range(n_times)],
        ),
        var=pd.DataFrame(index=system.genes),
        layers=layers,
        uns={"true_network": system.network.copy()},
    )


def _observation_times(
    generator: np.random.Generator, n_trials: int, n_times: int, t_end: float, irregular: bool
) -> np.ndarray:
    """Increasing times that start at 0, trials × times."""
    if not irregular:
        return np.tile(np.linspace(0.0, t_end, n_times), (n_trials, 1))
    later = np.sort(generator.uniform(0.0, t_end, (n_trials, n_times - 1)), axis=1)
    return np.concatenate([np.zeros((n_trials, 1)), later], axis=1)


def check_size(n_genes: int, density: float, seed: int) -> None:
    """Refuse what no random system can be drawn from."""
    _checks.at_least("n_genes", n_genes, 2)
    _checks.at_least("seed", seed, 0)
    _checks.share("density", density, zero=False)


def gene_names(n_genes: int) -> list[str]:
    """``gene0``, ``gene1`` and so on."""
    return [f"gene{i}" for i in range(n_genes)]


@dataclass(frozen=True)
class StandardNormal:
    """Initial states of independent standard normal entries."""

    n_genes: int

    def __call__(self, generator: np.random.Generator, n_trials: int) -> np.ndarray:
        return generator.standard_normal((n_trials, self.n_genes))


def coefficient_table(matrix: np.ndarray) -> pd.DataFrame:
    """A matrix with the names of its targets and regulators."""
    genes = gene_names(len(matrix))
    return pd.DataFrame(matrix, pd.Index(genes, name="target"), pd.Index(genes, name="regulator"))


def edge_table(weights: np.ndarray) -> pd.DataFrame:
    """Long table of the non-zero entries of a matrix, targets × regulators."""
    names = np.asarray(gene_names(len(weights)), dtype=object)
    target, source = np.nonzero(weights)
    return pd.DataFrame({"source": names[source], "target": names[target], "weight": weights[target, source]})
