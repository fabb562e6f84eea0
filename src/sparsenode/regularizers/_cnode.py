"""C-NODE: the L1 norm of all path products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from sparsenode import _checks
from sparsenode.regularizers._base import Regularizer, path_norm, soft_threshold_paths

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sparsenode.module import EffectiveWeights, Field


class CNODE(Regularizer):
    r"""L1 norm of the path products, an upper bound on all input-output dependencies.

    .. math:: \frac{\lambda}{d} \big\| |W^L| \cdots |W^1| \big\|_1

    - :math:`\lambda` is ``strength``
    - :math:`d` is the number of variables
    - :math:`W^l` are the weights of layer :math:`l`

    The magnitudes of a linear skip are added to the product. Weights of single paths (``prior``, ``path_weights``, free self edges)
    multiply its entries. A proximal step applies the penalty: it soft-thresholds each weight by its own share, which sets weights to
    exactly zero. (The paper minimises it by gradient and rounds weights below 1e-5.)

    Parameters
    ----------
    strength
        Non-negative number or sequence of numbers; see :class:`~sparsenode.regularizers.Regularizer`. Default: 0.01, which is meant for
        trajectories; the model uses 0.1 with transport and ``"both"``.
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
    Use it to read a network: ``CNODE(0.1)`` is the default of transport and of ``"both"``, and so of the model. For forecasts with
    trajectories alone, and for collocation, :class:`~sparsenode.regularizers.PathReg` is the default.

    It shrinks strong edges as much as weak ones: do not use it if the size of an effect matters, unless with ``adaptive`` rounds and a
    refit.

    References
    ----------
    Aliee, Theis and Kilbertus (2021), *Beyond predictions in neural ODEs: identification and interventions*; adaptive weights: Zou (2006),
    *The adaptive lasso and its oracle properties*, JASA 101.
    """

    name = "cnode"
    weights_paths = True
    convex_skip = True
    citations = ("aliee2021beyond",)

    def __init__(self, strength: ArrayLike = 0.01, adaptive: int = 0) -> None:
        super().__init__(strength)
        self.adaptive = _checks.at_least("adaptive", adaptive, 0)

    def penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """Mean over targets of the row sums of the path matrix."""
        return path_norm(effective)

    def gradient_penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """Nothing: the whole penalty is applied by :meth:`prox`."""
        return effective.weights[0].new_zeros(field.n_networks)

    def penalties(self, field: Field, effective: EffectiveWeights) -> tuple[torch.Tensor, torch.Tensor]:
        """Both penalties of a training step: the value comes with the slopes, which :meth:`prox` needs anyway."""
        totals = [chain.total.view(field.n_networks, -1).sum(1) for chain in effective.paths]
        return self.gradient_penalty(field, effective), torch.stack(totals).sum(0) / field.n_vars

    def prox(
        self, field: Field, effective: EffectiveWeights, strength: torch.Tensor, steps: Sequence[torch.Tensor]
    ) -> None:
        """Soft-threshold every weight by its share of the penalty."""
        soft_threshold_paths(field, effective, strength, steps)
