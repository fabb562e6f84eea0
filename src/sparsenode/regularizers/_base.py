"""What a regularizer is: gates, a penalty, and optionally a proximal step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from sparsenode.module import _paths

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sparsenode.module import EffectiveWeights, Field
    from sparsenode.module._field import Gates


class Regularizer:
    r"""Base class: minimise ``error + strength * penalty`` in the parameters of a field.

    ``error`` is the squared error as a share of the variance around the mean of each trajectory, so it is 1 for a
    constant prediction. Every penalty is normalised so that ``strength`` means the same for any width, depth and
    number of variables: duplicating hidden units, with their outgoing weights halved, changes no penalty.

    Parameters
    ----------
    strength
        One non-negative number, or a sequence of them: then one replicate is fitted per strength and seed.

    Raises
    ------
    ValueError
        If a strength is negative or not finite, or if there is none.
    """

    name: ClassVar[str]
    gates: Gates | None = None
    #: Whether :meth:`prox` does anything.
    proximal: ClassVar[bool] = False

    def __init__(self, strength: ArrayLike) -> None:
        values = np.atleast_1d(np.asarray(strength, dtype=np.float64))
        if values.ndim != 1 or values.size == 0 or not np.all(np.isfinite(values)) or np.any(values < 0):
            raise ValueError(
                f"Expected `strength` to be a non-negative number or a sequence of them, found {strength!r}."
            )
        self.strength = values

    def __repr__(self) -> str:
        settings = ", ".join(
            f"{key}={value.tolist() if isinstance(value, np.ndarray) else value!r}" for key, value in vars(self).items()
        )
        return f"{type(self).__name__}({settings})"

    def penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """Penalty of every network at strength one, shape networks; differentiable."""
        raise NotImplementedError

    def gradient_penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """The part of the penalty that the optimiser descends by gradient; the rest is left to :meth:`prox`."""
        return self.penalty(field, effective)

    def penalties(self, field: Field, effective: EffectiveWeights) -> tuple[torch.Tensor, torch.Tensor]:
        """Both penalties of a training step; overridden where they share work.

        Parameters
        ----------
        field
            Field whose parameters are penalised.
        effective
            Its effective weights in this step.

        Returns
        -------
        :meth:`gradient_penalty`, and the value of :meth:`penalty` without gradients; each of shape networks.
        """
        smooth = self.gradient_penalty(field, effective)
        with torch.no_grad():
            return smooth, self.penalty(field, effective)

    def prox(
        self, field: Field, effective: EffectiveWeights, strength: torch.Tensor, steps: Sequence[torch.Tensor]
    ) -> None:
        """Proximal step in place, after the gradient step.

        Parameters
        ----------
        field
            Its ``weights`` are changed.
        effective
            The effective weights of the gradient step.
        strength
            Strength of every network.
        steps
            Step size of every weight in the gradient step, in the shapes of ``field.weights``.
        """


def path_norm(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    r"""Mean over targets of :math:`\sum_j (|W^L| \cdots |W^1|)_{ij}`, shape networks."""
    return _paths.row_sums([weight.abs() for weight in weights]).mean(1)


@torch.no_grad()
def soft_threshold_paths(
    field: Field, effective: EffectiveWeights, strength: torch.Tensor, steps: Sequence[torch.Tensor]
) -> None:
    """Soft-threshold every weight by its step times the gradient of ``strength * path_norm`` in its magnitude."""
    scale = (strength / field.n_vars).view(-1, 1, 1)
    paths = effective.paths
    gates: Sequence[torch.Tensor | None] = effective.gates or [None] * len(steps)
    for weight, step, above, below, gate in zip(field.weights, steps, paths.above, paths.below, gates, strict=True):
        if gate is not None and gate.shape[1] == 1:
            below = below * gate
        # In place: these tensors are as large as the weights, and fresh memory costs more than arithmetic.
        threshold = (step * (above * scale)).mul_(below)
        if gate is not None and gate.shape[1] > 1:
            threshold *= gate
        weight.sub_(torch.clamp(weight, -threshold, threshold))
