"""Exceptions that users may want to catch."""

from __future__ import annotations


class DivergenceError(RuntimeError):
    """The integration or the loss left the finite numbers.

    Raised by :meth:`sparsenode.SparseNODE.train` and by predictions. After a failed training the model holds the
    best state that it had reached.
    """
