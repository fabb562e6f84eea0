"""Recovery benchmark: the data sets, what a method returns, and how it is scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from scipy.interpolate import CubicHermiteSpline
from sklearn.metrics import average_precision_score

from sparsenode.datasets import System, random_hill_system, random_linear_system

MAKERS = {"linear": random_linear_system, "hill": random_hill_system}
SAMPLINGS = ("regular", "irregular")
N_TRIALS, N_TIMES = 8, 40
N_UNSEEN = 4
_UNSEEN_SEED = 10_000  # apart from the seeds of the observed trials
_STEPS = 400

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Task:
    """One data set: a random system, observed with some noise at regular or irregular times."""

    kind: str
    system: int
    noise: float
    sampling: str

    def make(self) -> tuple[System, AnnData]:
        """The system and the observations."""
        system = MAKERS[self.kind](seed=self.system)
        irregular = self.sampling == "irregular"
        return system, system.simulate(N_TRIALS, N_TIMES, noise=self.noise, irregular=irregular, seed=self.system)


@dataclass(frozen=True)
class Estimate:
    """What a method returns.

    Parameters
    ----------
    strength
        Magnitude of every dependency, targets × regulators; zero where the method says that there is none.
    predict
        Trajectories from initial states (trials × genes) at times (trials × times): trials × times × genes.
    chosen
        Settings that the method chose by itself.
    """

    strength: np.ndarray
    predict: Predict
    chosen: str = ""


def by_trial(adata: AnnData, layer: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Observations, trials × times × genes, and times, trials × times."""
    values = np.asarray(adata.X if layer is None else adata.layers[layer], dtype=np.float64)
    n_trials = adata.obs["trial"].cat.categories.size
    times = adata.obs["time"].to_numpy(dtype=np.float64)
    return values.reshape(n_trials, -1, adata.n_vars), times.reshape(n_trials, -1)


def integrate(velocity: Callable[[np.ndarray], np.ndarray], initial: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Trajectories of all trials at once, by 400 steps of the classical Runge-Kutta method.

    A trial that leaves the finite numbers is NaN or infinite from there on.
    """
    grid = np.linspace(0.0, times.max(), _STEPS + 1)
    h, x = grid[1], initial
    states, slopes = [], []
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in grid:
            first = velocity(x)
            states.append(x)
            slopes.append(first)
            second = velocity(x + h / 2 * first)
            third = velocity(x + h / 2 * second)
            fourth = velocity(x + h * third)
            x = x + h / 6 * (first + 2 * second + 2 * third + fourth)
        values, derivatives = np.stack(states, 1), np.stack(slopes, 1)
        return np.stack([_interpolate(grid, *item) for item in zip(values, derivatives, times, strict=True)])


def _interpolate(grid: np.ndarray, values: np.ndarray, derivatives: np.ndarray, times: np.ndarray) -> np.ndarray:
    if not (np.isfinite(values).all() and np.isfinite(derivatives).all()):
        return np.full((len(times), values.shape[1]), np.inf)
    return CubicHermiteSpline(grid, values, derivatives)(times)


def relative_error(predicted: np.ndarray, observed: np.ndarray) -> float:
    """Squared error over the squared deviations from the mean of each gene: 0 is perfect, 1 is a constant."""
    if not np.isfinite(predicted).all():
        return float("inf")
    with np.errstate(over="ignore"):
        error = np.square(predicted - observed).sum()
    return float(error / np.square(observed - observed.mean((0, 1))).sum())


def true_matrix(system: System) -> np.ndarray:
    """Magnitudes of the true edges, targets × regulators."""
    table = system.network.pivot(index="target", columns="source", values="weight")
    return np.abs(table.reindex(index=system.genes, columns=system.genes).fillna(0.0).to_numpy())


def score(estimate: Estimate, system: System) -> dict[str, float | bool | int]:
    """Every measure of one fit; edges are directed and without self edges, and every pair of two genes is a candidate.

    ``auprc`` is the average precision. The trapezoid rule behind ``auprc`` of ``sn.tl.evaluate_network`` draws a straight line
    from the last predicted edge to the end, which favours sparse methods.
    """
    true, strength = true_matrix(system), np.abs(estimate.strength)
    off_diagonal = ~np.eye(len(true), dtype=bool)
    edge, weight = true[off_diagonal] != 0, strength[off_diagonal]
    found = weight != 0
    n_right = int((found & edge).sum())
    auprc = average_precision_score(edge, weight)
    result: dict[str, float | bool | int] = {
        "auprc": auprc,
        "auprc_ratio": auprc / edge.mean(),
        "f1": 2 * n_right / int(found.sum() + edge.sum()),
        "n_edges": int(found.sum()),
        "support_exact": bool((found == edge).all()),
    }
    linear = system.coefficients is not None
    norm = np.linalg.norm
    error = norm(weight - true[off_diagonal]) / norm(true[off_diagonal])
    result["coefficient_error"] = error if linear else float("nan")
    result["coefficient_error_full"] = norm(strength - true) / norm(true) if linear else float("nan")
    return result | {"extrapolation_error": extrapolation_error(estimate.predict, system)}


def extrapolation_error(predict: Predict, system: System) -> float:
    """Relative squared error on noise-free trials from unseen initial states, which the method is told."""
    unseen = system.simulate(N_UNSEEN, N_TIMES, seed=_UNSEEN_SEED)
    states, times = by_trial(unseen)
    return relative_error(predict(states[:, 0], times), states)
