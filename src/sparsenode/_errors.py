"""Exceptions that users may want to catch."""

from __future__ import annotations


class DivergenceError(RuntimeError):
    """Training or a prediction diverged: it left the finite numbers, or errors grew beyond 1e9 times the variance.

    Raised by :meth:`sparsenode.SparseNODE.train` and by predictions. After a failed training the model holds the best state so far, or
    what it held before; see there.
    """
