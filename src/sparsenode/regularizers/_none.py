"""No penalty: the base model of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sparsenode.regularizers._base import Regularizer

if TYPE_CHECKING:
    from sparsenode.module import EffectiveWeights, Field


class NoRegularizer(Regularizer):
    """Plain neural ODE, the ``base`` model of Aliee et al. (2022).

    Use it as a reference for sparse models. Its adjacency is dense: it ranks edges but never excludes one, so do not use it to decide which
    genes are connected.

    References
    ----------
    Chen, Rubanova, Bettencourt and Duvenaud (2018), *Neural ordinary differential equations*, NeurIPS.
    """

    name = "none"

    def __init__(self) -> None:
        super().__init__(0.0)

    def penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """Zero for every network."""
        return effective.weights[0].new_zeros(field.n_networks)
