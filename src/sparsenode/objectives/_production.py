"""What regulators act on: displacements and what decays meanwhile."""

from __future__ import annotations

import numpy as np

_LEAST_RIDGE = 1e-3  # of regressions whose coefficients may not be unique
_NOTHING = 1e-12  # of the variance of a standardised gene


def production_deviation(
    state: np.ndarray, slope: np.ndarray, weight: np.ndarray, regulators: np.ndarray, ridge: float
) -> np.ndarray:
    r"""Standard deviation of the production of every gene: of its displacement and of what decays meanwhile.

    .. math:: v_j = \sum_{i \ne j} \beta_{ij} x_i - \gamma_j x_j + e_j, \qquad \text{production} = v_j + \max(\gamma_j, 0) \, x_j

    by ridge regression, in which :math:`\gamma_j` is free. Most of the displacement of a gene that decays fast is decay, which
    tells nothing about its regulators: measured in displacements their effects would look small, and be penalised more.

    Parameters
    ----------
    state, slope
        Standardised expression and displacements, pairs × genes.
    weight
        Weight of each pair.
    regulators
        Columns of the regulators.
    ridge
        Ridge on the coefficients of regulators in standard deviations, as a share of the variance.

    Returns
    -------
    Genes, in the unit of ``slope``; one where a gene does not move.
    """
    share = weight / weight.sum()
    x, v = state - share @ state, slope - share @ slope
    own, covariance, variance = share @ x**2, share @ (x * v), share @ v**2
    z = x[:, regulators] * np.sqrt(share)[:, None]
    ridge = max(ridge, _LEAST_RIDGE)
    inverse = np.linalg.inv(z.T @ z + ridge * np.eye(z.shape[1]))
    with_own, with_slope = (z.T @ (np.sqrt(share)[:, None] * values) for values in (x, v))
    explained = inverse @ with_slope
    decay = np.zeros(len(own))
    # What the regulators leave of both; a regulator does not explain itself, so it is released from the ridge instead.
    others = np.setdiff1d(np.arange(len(own)), regulators)
    left = own[others] - (with_own[:, others] * (inverse @ with_own[:, others])).sum(0)
    decay[others] = (with_own[:, others] * explained[:, others]).sum(0) - covariance[others]
    decay[others] /= np.maximum(left, _NOTHING)
    released = 1.0 - ridge * np.diagonal(inverse)
    decay[regulators] = -explained[np.arange(len(regulators)), regulators] / np.maximum(released, _NOTHING)
    decay = np.maximum(decay, 0.0)
    deviation = np.sqrt(np.maximum(variance + 2.0 * decay * covariance + decay**2 * own, 0.0))
    return np.where(deviation > 0, deviation, 1.0)
