"""Recovery benchmark: methods that regress derivatives on states, PySINDy and plain least squares.

PySINDy is used with its own differentiation, polynomial library and STLSQ. Differentiation and threshold are chosen by
cross-validation over trials, with the one-standard-error rule that our methods follow too. Savitzky-Golay smoothing (its
``SmoothedFiniteDifference``) assumes even spacing, and so is offered for regular times only; the Kalman smoother does not.

The held-out error compares observations with the integral of the fitted field along the smoothed states. It can compare
differentiations, which an error of derivatives cannot, since smoother derivatives are always easier to predict; and it
is finite where trajectories of quadratic fields diverge.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from _recovery import Estimate, by_trial, integrate, relative_error
from anndata import AnnData
from scipy.integrate import cumulative_trapezoid

DEGREES = {"linear": 1, "hill": 2}
THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_N_FOLDS = 4


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


def least_squares(adata: AnnData, degree: int) -> Estimate:
    """Second-order finite differences regressed on the same polynomials, without any sparsity."""
    x, times = by_trial(adata)
    slopes = np.stack([np.gradient(values, t, axis=0) for values, t in zip(x, times, strict=True)])
    points, powers = x.reshape(-1, adata.n_vars), _powers(degree, adata.n_vars)
    solution = np.linalg.lstsq(features(points, powers), slopes.reshape(points.shape), rcond=None)[0]
    return _estimate(Polynomial(powers, solution.T), points)


def pysindy(adata: AnnData, degree: int) -> Estimate:
    """PySINDy: the differentiation with the smallest held-out error, and the largest threshold within one standard error."""
    x, times = by_trial(adata)
    powers = _powers(degree, adata.n_vars)
    derivatives = _derivatives(x, times)
    errors = {
        (name, threshold): _held_out_errors(*derivatives[name], x, times, powers, threshold)
        for name, threshold in product(derivatives, THRESHOLDS)
    }
    name, _ = min(errors, key=lambda candidate: errors[candidate].mean())
    threshold = _one_standard_error({t: errors[name, t] for t in THRESHOLDS})
    field = _fit(*derivatives[name], powers, threshold)
    return _estimate(field, x.reshape(-1, adata.n_vars), f"{name}; threshold {threshold:g}")


def _estimate(field: Polynomial, points: np.ndarray, chosen: str = "") -> Estimate:
    return Estimate(field.strength(points), lambda initial, times: integrate(field, initial, times), chosen)


def _powers(degree: int, n_genes: int) -> np.ndarray:
    """Exponents of PySINDy's polynomial library, terms × genes."""
    from pysindy import PolynomialLibrary

    library = PolynomialLibrary(degree=degree)
    library.fit([np.zeros((2, n_genes))])
    return np.asarray(library.powers_, dtype=int)


def _derivatives(x: np.ndarray, times: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Smoothed states and derivatives of every differentiation that suits the times, trials × times × genes each."""
    import pysindy as ps

    methods: dict[str, Callable] = {
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
    """The coefficients that ``pysindy.SINDy.fit`` finds, without its checks of the input, which take most of its time."""
    import pysindy as ps

    points = states.reshape(-1, states.shape[2])
    optimizer = ps.STLSQ(threshold=threshold)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # thresholds that remove everything
        optimizer.fit(features(points, powers), slopes.reshape(points.shape))
    return Polynomial(powers, np.atleast_2d(np.asarray(optimizer.coef_)))


def _held_out_errors(
    states: np.ndarray, slopes: np.ndarray, x: np.ndarray, times: np.ndarray, powers: np.ndarray, threshold: float
) -> np.ndarray:
    """Relative error on the trials of every fold, from a fit to the other ones."""
    errors = []
    for fold in range(_N_FOLDS):
        held_out = np.arange(len(x)) % _N_FOLDS == fold
        field = _fit(states[~held_out], slopes[~held_out], powers, threshold)
        rates = [field(trial) for trial in states[held_out]]
        change = [cumulative_trapezoid(r, t, axis=0, initial=0) for r, t in zip(rates, times[held_out], strict=True)]
        offset = (x[held_out] - change).mean(1, keepdims=True)  # the initial state that fits best
        errors.append(relative_error(change + offset, x[held_out]))
    return np.array(errors)


def _one_standard_error(errors: dict[float, np.ndarray]) -> float:
    """Largest threshold whose mean error is within one standard error of the smallest."""
    best = min(errors.values(), key=np.mean)
    limit = best.mean() + best.std(ddof=1) / np.sqrt(len(best))
    return max(threshold for threshold, values in errors.items() if values.mean() <= limit)


def _of_degree(method: Callable[[AnnData, int], Estimate], degree: int | None) -> Callable[[AnnData, str], Estimate]:
    """The method with this degree, or with the one for the kind of system."""
    return lambda adata, kind: method(adata, DEGREES[kind] if degree is None else degree)


BASELINES = {
    "pysindy": _of_degree(pysindy, None),
    "pysindy_linear": _of_degree(pysindy, 1),
    "least_squares": _of_degree(least_squares, None),
    "least_squares_linear": _of_degree(least_squares, 1),
}
