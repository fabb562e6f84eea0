"""GroupLasso: one network per target, whose input columns are penalised as groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from sparsenode import _checks
from sparsenode.regularizers._base import Regularizer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sparsenode.module import EffectiveWeights, Field


class GroupLasso(Regularizer):
    r"""Group lasso on the input columns of one network per target.

    .. math:: \frac{\lambda}{d} \sum_{i=1}^d \sum_j B_{ij} \frac{1}{\sqrt{h}} \big\| W^1_{i, \cdot j} \big\|_2

    - :math:`\lambda` is ``strength`` and :math:`d` the number of variables
    - :math:`W^1_{i, \cdot j}` is column :math:`j` of the first layer of the network of target :math:`i`, and :math:`h` the width of that
      layer
    - :math:`B` are the path weights of the model, 1 by default

    A zero column proves that the target does not depend on the regulator. A proximal step (Yuan and Lin 2006) sets columns to exactly zero;
    its step size is the mean of Adam's over the column. If the model has a linear skip, its entries are soft-thresholded likewise.

    Parameters
    ----------
    strength
        Non-negative number or sequence of numbers; see :class:`~sparsenode.regularizers.Regularizer`. Default: 0.01.
    adaptive
        Number of rounds of training after the first. Default: 0, for noisy cells; use 2 or 3 to recover equations. Each round takes
        ``max_epochs`` and weights every path by the inverse of its regulator's effect on the target in the round before, as in the adaptive
        lasso (Zou 2006). This removes small edges that only make up for the shrinkage of large ones. If a trained model is trained further,
        there is no unweighted first round.

    Raises
    ------
    ValueError
        If ``strength`` is negative or not finite, or ``adaptive`` is not a whole number.

    Notes
    -----
    Use it if every target should choose its regulators by itself, or if prior knowledge concerns single edges. There are as many networks
    as targets: a step on hundreds of genes takes many times as long as one of :class:`~sparsenode.regularizers.PathReg`, so ``hidden`` is
    small by default, ``(10,)``. Do not use it for weight sparsity: only the first layer is penalised.

    References
    ----------
    Yuan and Lin (2006), *Model selection and estimation in regression with grouped variables*; for neural ODEs Aliee, Richter, Solonin,
    Ibarra, Theis and Kilbertus (2022), *Sparsity in continuous-depth neural networks*, NeurIPS; adaptive weights: Zou (2006), *The adaptive
    lasso and its oracle properties*, JASA 101.
    """

    name = "grouplasso"
    per_target = True
    weights_paths = True
    citations = ("yuan2006model", "aliee2022sparsity")

    def __init__(self, strength: ArrayLike = 0.01, adaptive: int = 0) -> None:
        super().__init__(strength)
        self.adaptive = _checks.at_least("adaptive", adaptive, 0)

    def penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """Mean over targets of the scaled norms of the columns, and of the magnitudes of the skip."""
        first = effective.weights[0]
        norms = torch.linalg.vector_norm(first, dim=1) / math.sqrt(first.shape[1])
        norms = norms.view(field.n_networks, field.n_vars, -1)
        if effective.skip is not None:
            norms = norms + effective.skip.abs()
        weights = effective.architecture.path_weights
        return (norms if weights is None else norms * weights).sum(2).mean(1)

    def gradient_penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """Nothing: the whole penalty is applied by :meth:`prox`."""
        return effective.weights[0].new_zeros(field.n_networks)

    @torch.no_grad()
    def prox(
        self, field: Field, effective: EffectiveWeights, strength: torch.Tensor, steps: Sequence[torch.Tensor]
    ) -> None:
        """Shrink every column towards zero as a group."""
        first, size = field.weights[0], field.weights[0].shape[1]
        limit = (strength / field.n_vars).view(-1, 1, 1).expand(-1, field.n_vars, 1)
        weights = effective.architecture.path_weights
        if weights is not None:
            limit = limit * weights
        threshold = limit.reshape(len(first), 1, -1) * steps[0].mean(1, keepdim=True) / math.sqrt(size)
        norm = torch.linalg.vector_norm(first, dim=1, keepdim=True)
        first.mul_((1.0 - threshold / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_min(0.0))
        if field.skip is not None:
            skip, bound = field.weights[-1], limit * steps[-1]
            skip.sub_(torch.clamp(skip, -bound, bound))
