"""Recovery benchmark: methods that regress derivatives on states, PySINDy and plain least squares.

PySINDy is used as strongly as its parts allow: its own differentiation, polynomial library and STLSQ, with the
differentiation and the threshold chosen on held-out trials, by the rule that our methods follow too. Savitzky-Golay
smoothing (its ``SmoothedFiniteDifference``) assumes even spacing, and so is offered for regular times only; the Kalman
smoother does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from _recovery import Estimate, by_trial, integrate, relative_error
from anndata import AnnData

DEGREES = {"linear": 1, "hill": 2}
THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_N_FOLDS = 4
_WORST = 10.0  # relative errors beyond it, and trajectories that diverge, are equally bad


@dataclass(frozen=True)
class Polynomial:
    """Polynomial vector field.

    Parameters
    ----------
    powers
        Exponents of the terms, terms × genes.
    coefficients
        Coefficients, genes × terms.
    """

    powers: np.ndarray
    coefficients: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return features(x, self.powers) @ self.coefficients.T

    def strength(self, x: np.ndarray) -> np.ndarray:
        """Mean magnitude of the partial derivatives at some states, targets × regulators.

        For polynomials of degree one these are the magnitudes of the coefficients. An entry is zero exactly where no
        term of the target holds the regulator.
        """
        result = np.zeros((len(self.coefficients), x.shape[1]))
        for gene in range(x.shape[1]):
            lowered = self.powers.copy()
            lowered[:, gene] = np.maximum(lowered[:, gene] - 1, 0)
            slopes = features(x, lowered) * self.powers[:, gene]
            result[:, gene] = np.abs(slopes @ self.coefficients.T).mean(0)
        return result


def features(x: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """Monomials, points × terms."""
    with_one = np.column_stack([x, np.ones(len(x))])
    degree = max(1, int(powers.sum(1).max()))
    factors = np.full((len(powers), degree), x.shape[1])  # the column of ones fills up
    for term, power in enumerate(powers):
        held = np.repeat(np.arange(x.shape[1]), power)
        factors[term, : len(held)] = held
    result = with_one[:, factors[:, 0]]
    for column in factors.T[1:]:
        result = result * with_one[:, column]
    return result


def least_squares(adata: AnnData, kind: str) -> Estimate:
    """Second-order finite differences regressed on the same polynomials, without any sparsity."""
    x, times = by_trial(adata)
    slopes = np.stack([np.gradient(values, t, axis=0) for values, t in zip(x, times, strict=True)])
    points, powers = x.reshape(-1, adata.n_vars), _powers(kind, adata.n_vars)
    design = features(points, powers)
    solution = np.linalg.lstsq(design, slopes.reshape(points.shape), rcond=None)[0]
    field = Polynomial(powers, solution.T)
    return Estimate(field.strength(points), lambda initial, at: integrate(field, initial, at))


def pysindy(adata: AnnData, kind: str) -> Estimate:
    """PySINDy, with differentiation and threshold chosen by cross-validation over trials.

    A candidate is fitted to three quarters of the trials, and integrated from the first observation of the others. The
    differentiation with the smallest error is taken, and with it the largest threshold whose error is within one standard
    error of the smallest.
    """
    x, times = by_trial(adata)
    powers = _powers(kind, adata.n_vars)
    derivatives = _derivatives(x, times)
    errors = {
        (name, threshold): _cross_validate(*derivatives[name], x, times, powers, threshold)
        for name, threshold in product(derivatives, THRESHOLDS)
    }
    name, _ = min(errors, key=lambda candidate: errors[candidate].mean())
    threshold = _one_standard_error({t: errors[name, t] for t in THRESHOLDS})
    field = _fit(*derivatives[name], powers, threshold)
    strength = field.strength(x.reshape(-1, adata.n_vars))
    return Estimate(strength, lambda initial, at: integrate(field, initial, at), f"{name}, threshold {threshold:g}")


def _powers(kind: str, n_genes: int) -> np.ndarray:
    """Exponents of PySINDy's polynomial library, terms × genes."""
    from pysindy import PolynomialLibrary

    library = PolynomialLibrary(degree=DEGREES[kind])
    library.fit([np.zeros((2, n_genes))])
    return np.asarray(library.powers_, dtype=int)


def _derivatives(x: np.ndarray, times: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Smoothed states and derivatives of every differentiation that suits the times, trials × times × genes each."""
    import pysindy as ps

    methods = {
        "finite differences": lambda: ps.FiniteDifference(axis=-2),
        "kalman 0.0001": lambda: ps.SINDyDerivative(kind="kalman", alpha=1e-4, axis=-2),
        "kalman 0.01": lambda: ps.SINDyDerivative(kind="kalman", alpha=1e-2, axis=-2),
    }
    if np.allclose(np.diff(times), times[0, 1] - times[0, 0]):
        methods["smoothed finite differences"] = lambda: ps.SmoothedFiniteDifference(axis=-2)
    result = {}
    for name, method in methods.items():
        states, slopes = [], []
        for values, t in zip(x, times, strict=True):
            differentiation = method()
            slopes.append(np.asarray(differentiation(values, t)))
            states.append(np.asarray(getattr(differentiation, "smoothed_x_", values)))
        result[name] = np.stack(states), np.stack(slopes)
    return result


def _fit(states: np.ndarray, slopes: np.ndarray, powers: np.ndarray, threshold: float) -> Polynomial:
    """What ``pysindy.SINDy.fit`` computes with these features and derivatives, without its checks, which take most of it."""
    import pysindy as ps

    points = states.reshape(-1, states.shape[2])
    optimizer = ps.STLSQ(threshold=threshold)
    optimizer.fit(features(points, powers), slopes.reshape(points.shape))
    return Polynomial(powers, np.atleast_2d(np.asarray(optimizer.coef_)))


def _cross_validate(
    states: np.ndarray, slopes: np.ndarray, x: np.ndarray, times: np.ndarray, powers: np.ndarray, threshold: float
) -> np.ndarray:
    """Relative errors on the trials of every fold."""
    errors = []
    for fold in range(_N_FOLDS):
        held_out = np.arange(len(x)) % _N_FOLDS == fold
        field = _fit(states[~held_out], slopes[~held_out], powers, threshold)
        predicted = integrate(field, x[held_out, 0], times[held_out])
        errors.append(min(relative_error(predicted, x[held_out]), _WORST))
    return np.array(errors)


def _one_standard_error(errors: dict[float, np.ndarray]) -> float:
    """Largest threshold whose mean error is within one standard error of the smallest."""
    best = min(errors.values(), key=np.mean)
    limit = best.mean() + best.std(ddof=1) / np.sqrt(len(best))
    return max(threshold for threshold, values in errors.items() if values.mean() <= limit)


BASELINES = {"pysindy": pysindy, "least_squares": least_squares}
