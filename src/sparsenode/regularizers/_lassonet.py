"""LassoNet: a linear skip that decides which inputs the network may use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch

from sparsenode import _checks
from sparsenode.regularizers._base import Regularizer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sparsenode.module import EffectiveWeights, Field


class LassoNet(Regularizer):
    r"""Group lasso on a linear skip, whose columns bound those of the first layer.

    .. math::

        \frac{\lambda}{\sqrt{d}} \sum_j b_j \| S_{\cdot j} \|_2 \quad \text{subject to} \quad
        \| W^1_{\cdot j} \|_\infty \leq M \| S_{\cdot j} \|_2

    - :math:`\lambda` is ``strength``, :math:`d` the number of variables and :math:`M` is ``ratio``
    - :math:`S_{\cdot j}` and :math:`W^1_{\cdot j}` are columns of the skip and of the first layer
    - :math:`b_j` is the mean over targets of the path weights of the model, 1 by default

    The hierarchical proximal operator updates both columns together, with the mean of Adam's step sizes over the two. The method is a path
    by nature: by default ``train`` first fits without penalty and then raises the strength step by step.

    Parameters
    ----------
    strength
        Non-negative number or sequence of numbers; see :class:`~sparsenode.regularizers.Regularizer`. Default: 0.01.
    skip
        ``"inner"``, the default: the field is :math:`S x + f(x)`. ``"outer"``: the skip is added after the integration. The prediction at
        time :math:`t` is then :math:`y(t) + t\, S\, x(0)`, where :math:`y` solves :math:`dy/dt = f(y)`: the skip is a drift that the
        initial state determines.
    ratio
        :math:`M`, 10 by default. With 0 only the skip is left; with a large number the penalty acts on the first layer alone.

    Raises
    ------
    ValueError
        If ``strength`` or ``ratio`` is negative or not finite, or ``skip`` is unknown.

    Notes
    -----
    Use it to find the regulators that matter for the system as a whole: a column is switched off for all targets at once. Do not use it to
    ask which regulator drives which target, because every target keeps every regulator that is left; for that use
    :class:`~sparsenode.regularizers.CNODE` or :class:`~sparsenode.regularizers.PathReg`. Self edges cannot be free here: free ones only
    lower the weight of every column by one part in :math:`d`. With an outer skip, ``get_velocity`` evaluates :math:`f` at the cell itself,
    since :math:`y` is not observed.

    References
    ----------
    Lemhadri, Ruan, Abraham and Tibshirani (2021), *LassoNet: a neural network with feature sparsity*, JMLR 22, algorithm 3; inner and outer
    skips: Aliee, Richter, Solonin, Ibarra, Theis and Kilbertus (2022), *Sparsity in continuous-depth neural networks*, NeurIPS.
    """

    name = "lassonet"
    weights_paths = True
    schedule = "iterative"
    citations = ("lemhadri2021lassonet", "aliee2022sparsity")

    def __init__(
        self, strength: ArrayLike = 0.01, skip: Literal["inner", "outer"] = "inner", ratio: float = 10.0
    ) -> None:
        super().__init__(strength)
        _checks.choice("skip", skip, ("inner", "outer"))
        _checks.non_negative("ratio", ratio)
        self.skip = skip
        self.ratio = float(ratio)

    def penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """Scaled sum of the norms of the columns of the skip."""
        norms = torch.linalg.vector_norm(effective.weights[-1], dim=1) * self._column_weights(field)
        return norms.sum(1) / math.sqrt(field.n_vars)

    def gradient_penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """Nothing: the whole penalty is applied by :meth:`prox`."""
        return effective.weights[0].new_zeros(field.n_networks)

    @torch.no_grad()
    def prox(
        self, field: Field, effective: EffectiveWeights, strength: torch.Tensor, steps: Sequence[torch.Tensor]
    ) -> None:
        """Hierarchical proximal operator on every column of the skip and of the first layer."""
        first, skip = field.weights[0], field.weights[-1]
        step = torch.cat([steps[0], steps[-1]], 1).mean(1)
        threshold = strength.view(-1, 1) / math.sqrt(field.n_vars) * step * self._column_weights(field)
        new_skip, new_first = hierarchical_prox(skip.mT, first.mT, threshold, self.ratio)
        skip.copy_(new_skip.mT)
        first.copy_(new_first.mT)

    @staticmethod
    def _column_weights(field: Field) -> torch.Tensor | float:
        return 1.0 if field.path_weights is None else field.path_weights.mean(0)


def hierarchical_prox(
    skip: torch.Tensor, weights: torch.Tensor, threshold: torch.Tensor, ratio: float
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Minimise :math:`\frac12 \|b - v\|^2 + \frac12 \|w - u\|^2 + \lambda \|b\|_2` where :math:`\|w\|_\infty \leq M \|b\|_2`.

    For a given norm of :math:`b` the best :math:`w` is :math:`u` clipped at :math:`M` times that norm. What is left is convex in
    the norm and piecewise quadratic, one piece for every number of clipped entries; each has its minimum in closed form.

    Parameters
    ----------
    skip
        The vectors :math:`v`, … × targets.
    weights
        The vectors :math:`u`, … × units.
    threshold
        :math:`\lambda`, of shape ….
    ratio
        :math:`M`.

    Returns
    -------
    :math:`b` and :math:`w`, in the shapes of :math:`v` and :math:`u`. Where :math:`v` is zero, so are both: it has no direction.
    """
    norm = torch.linalg.vector_norm(skip, dim=-1)
    largest = weights.abs().sort(dim=-1, descending=True).values
    sums = torch.cat([torch.zeros_like(largest[..., :1]), largest.cumsum(-1)], -1)
    clipped = torch.arange(sums.shape[-1], dtype=sums.dtype, device=sums.device)
    # The norm of b at the minimum, if 0, 1, 2, … entries are clipped.
    sizes = ((norm - threshold).unsqueeze(-1) + ratio * sums).clamp_min(0.0) / (1.0 + clipped * ratio**2)
    # The right number is the smallest one whose next entry is within the bound.
    within = torch.cat([largest, torch.zeros_like(largest[..., :1])], -1) <= ratio * sizes
    chosen = within.to(torch.int8).argmax(-1, keepdim=True)
    size = sizes.gather(-1, chosen)
    size = torch.where(norm.unsqueeze(-1) > 0, size, torch.zeros_like(size))
    bound = ratio * size
    direction = skip / norm.clamp_min(torch.finfo(norm.dtype).tiny).unsqueeze(-1)
    return direction * size, torch.clamp(weights, -bound, bound)
