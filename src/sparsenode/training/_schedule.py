"""Iterative sparsification: train without penalty, then raise the strength step by step from the weights before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsenode import _checks


@dataclass(frozen=True)
class IterativeSparsification:
    """Schedule that first fits without penalty and then raises the strength geometrically, with warm starts.

    Each step starts from the weights of the one before. The *increase* of a replicate is that of its error over its error without penalty,
    on held-out cells if there are any. A replicate ends with the weights of its last step with an increase of at most
    ``max_error_increase``. Training stops at the full strength of the regularizer, or when all replicates have exceeded this limit for two
    steps in a row.

    Parameters
    ----------
    n_steps
        Number of steps up to the full strength. Default: 10.
    first
        Strength of the first step, as a share of the full strength. Default: 0.01.
    epochs_per_step
        Epochs in each step, after the ``max_epochs`` without penalty. Default: 5.
    max_error_increase
        Largest accepted increase of the error, as a share of the error without penalty. Default: 0.1.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Use it if a penalty from the start keeps the model from fitting at all, and for :class:`~sparsenode.regularizers.LassoNet`, which is
    defined as such a path. It takes longer than training at one strength; a sequence of strengths in one fit gives the whole path at once.
    It cannot be combined with ``adaptive`` regularizers or ``refit``, which hold the strength.

    References
    ----------
    Aliee, Richter, Solonin, Ibarra, Theis and Kilbertus (2022), *Sparsity in continuous-depth neural networks*, NeurIPS.
    """

    n_steps: int = 10
    first: float = 0.01
    epochs_per_step: int = 5
    max_error_increase: float = 0.1

    def __post_init__(self) -> None:
        for name in ("n_steps", "epochs_per_step"):
            _checks.at_least(name, getattr(self, name), 1)
        _checks.share("first", self.first, zero=False)
        if self.max_error_increase != float("inf"):  # as far as the steps go
            _checks.non_negative("max_error_increase", self.max_error_increase)

    @property
    def shares(self) -> list[float]:
        """Share of the full strength in the phase without penalty and in every step after it."""
        steps = np.geomspace(self.first, 1.0, self.n_steps) if self.n_steps > 1 else np.ones(1)
        return [0.0, *steps.tolist()]

    @property
    def n_epochs(self) -> int:
        """Epochs of all steps together."""
        return int(self.n_steps) * int(self.epochs_per_step)  # Lightning takes no numpy integers

    def step(self, epoch: int, dense_epochs: int) -> int:
        """Step that an epoch belongs to.

        Parameters
        ----------
        epoch
            Epoch, counted from 0.
        dense_epochs
            Number of epochs without penalty.

        Returns
        -------
        0 in the phase without penalty, from 1 on while the strength rises.
        """
        return 0 if epoch < dense_epochs else 1 + (epoch - dense_epochs) // self.epochs_per_step

    def ends_step(self, epoch: int, dense_epochs: int) -> bool:
        """Whether an epoch is the last one of its step.

        Parameters
        ----------
        epoch
            Epoch, counted from 0.
        dense_epochs
            Number of epochs without penalty.

        Returns
        -------
        True for the last epoch of the phase without penalty and of every step.
        """
        return self.step(epoch + 1, dense_epochs) != self.step(epoch, dense_epochs)
