"""Values and slopes at the ends of trajectories by local polynomial regression, as weights of cells."""

from __future__ import annotations

import numpy as np


def local_weights(
    times: np.ndarray,
    weights: np.ndarray,
    usable: np.ndarray,
    at: float,
    derivative: int,
    degree: int,
    bandwidth: float,
) -> np.ndarray:
    r"""Weight of each cell in the value or slope of each trajectory at one time, such as one of its ends.

    The estimate is that of a local polynomial regression with a Gaussian kernel (Fan and Gijbels 1996), which unlike a
    kernel mean has no bias at the ends, where the trajectory rises or falls. It is linear in expression, hence a weight per
    cell.

    Parameters
    ----------
    times, weights
        Cells × trajectories; times in units of the length of the trajectory.
    usable
        Mask over cells, usually the training cells.
    at
        Time of the estimate, 0 for the start and 1 for the end.
    derivative
        0 for the value, 1 for the slope.
    degree
        Degree of the polynomial; lower where there are fewer times than it needs.
    bandwidth
        Standard deviation of the kernel; more where fewer than ``2 * (degree + 1)`` times are within twice of it.

    Returns
    -------
    Cells × trajectories; columns sum to one for values and to zero for slopes.
    """
    result = np.zeros_like(weights)
    for m in range(weights.shape[1]):
        rows = np.flatnonzero((weights[:, m] > 0) & usable)
        distance = times[rows, m] - at
        distinct = np.unique(np.abs(distance))
        order = min(degree, len(distinct) - 1)
        if order < derivative:
            continue  # one time only: no slope
        width = max(bandwidth, distinct[min(2 * (degree + 1), len(distinct)) - 1] / 2)
        u = distance / width
        kernel = weights[rows, m] * np.exp(-0.5 * u**2)
        root = np.sqrt(kernel)
        # The coefficients are those of weighted least squares: rows of the pseudo-inverse.
        coefficients = np.linalg.pinv(np.vander(u, order + 1, increasing=True) * root[:, None])
        result[rows, m] = coefficients[derivative] * root / width**derivative
    return result
