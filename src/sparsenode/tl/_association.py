"""Association between genes across cells: arrays in, arrays out."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata
from sklearn.covariance import ledoit_wolf_shrinkage

_MIN_SHRINKAGE = 1e-6  # keeps the inverse defined where the estimate is zero and genes are copies of each other


def pearson(x: np.ndarray, regulators: np.ndarray) -> np.ndarray:
    """Pearson correlation of regulators and genes; genes without variance correlate with nothing.

    Parameters
    ----------
    x
        Expression, cells × genes.
    regulators
        Columns of the regulators.

    Returns
    -------
    Regulators × genes, in ``[-1, 1]``; equal to the last bit in both directions of a pair of regulators.
    """
    z = standardise(x)
    found = np.clip(z[:, regulators].T @ z / len(z), -1.0, 1.0)
    among = found[:, regulators]
    found[:, regulators] = (among + among.T) / 2  # rounding would rank the two directions of a pair
    return found


def spearman(x: np.ndarray, regulators: np.ndarray) -> np.ndarray:
    """Pearson correlation of ranks, ties at their average; see :func:`pearson`."""
    return pearson(rankdata(x, axis=0), regulators)


def partial_correlation(x: np.ndarray, regulators: np.ndarray) -> np.ndarray:
    r"""Correlation of a regulator and a gene that all other genes leave unexplained.

    .. math:: \rho_{ij} = -P_{ij} / \sqrt{P_{ii} P_{jj}}, \qquad P = ((1 - \alpha) R + \alpha I)^{-1}

    - :math:`R`: Pearson correlations of all genes that vary,
    - :math:`\alpha`: shrinkage of :cite:t:`ledoit2004well`, so that :math:`P` exists with fewer cells than genes.

    Parameters
    ----------
    x
        Expression, cells × genes.
    regulators
        Columns of the regulators.

    Returns
    -------
    Regulators × genes, in ``[-1, 1]``; zero for genes without variance.
    """
    z = standardise(x)
    varying = np.flatnonzero((z != 0).any(0))
    result = np.zeros((x.shape[1], x.shape[1]))
    if len(varying) > 1:
        z = z[:, varying]
        alpha = max(float(ledoit_wolf_shrinkage(z, assume_centered=True)), _MIN_SHRINKAGE)
        precision = np.linalg.inv((1 - alpha) * (z.T @ z) / len(z) + alpha * np.eye(len(varying)))
        precision = (precision + precision.T) / 2  # rounding would rank the two directions of a pair
        root = np.sqrt(np.diag(precision))
        result[np.ix_(varying, varying)] = -precision / np.outer(root, root)
    return np.clip(result[regulators], -1.0, 1.0)


def standardise(x: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and variance 1; those that are constant become exactly 0."""
    constant = x.max(0) == x.min(0)
    deviation = np.where(constant, 1.0, x.std(0))
    return np.where(constant, 0.0, x - x.mean(0)) / np.where(deviation > 0, deviation, 1.0)
