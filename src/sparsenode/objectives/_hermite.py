"""The cubic Hermite basis that carries values and derivatives at knots to any time."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def hermite_basis(times: np.ndarray, n_knots: int) -> sparse.csr_array:
    """Cubic Hermite basis for knots spread evenly over ``[0, 1]``.

    Parameters
    ----------
    times
        Times in ``[0, 1]``, shape n.
    n_knots
        Number of knots, K >= 2.

    Returns
    -------
    Matrix n × 2K with four non-zeros a row. Multiplied with ``[values; derivatives]`` at the knots it gives the
    interpolant at ``times``.
    """
    times = np.asarray(times, dtype=np.float64)
    n, step = len(times), 1.0 / (n_knots - 1)
    left = np.clip((times / step).astype(np.int64), 0, n_knots - 2)
    u = times / step - left
    values = np.column_stack(
        [
            (1 + 2 * u) * (1 - u) ** 2,
            u**2 * (3 - 2 * u),
            step * u * (1 - u) ** 2,
            step * u**2 * (u - 1),
        ]
    )
    columns = np.column_stack([left, left + 1, n_knots + left, n_knots + left + 1])
    rows = np.repeat(np.arange(n), 4)
    return sparse.csr_array((values.ravel(), (rows, columns.ravel())), shape=(n, 2 * n_knots))
