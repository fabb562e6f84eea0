"""PathReg: the expected number of open paths, and shrinkage of the open ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch

from sparsenode import _checks
from sparsenode.module import _paths
from sparsenode.module._field import Gates
from sparsenode.regularizers._base import Regularizer, path_norm, path_sums, soft_threshold_paths

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sparsenode.module import EffectiveWeights, Field


class PathReg(Regularizer):
    r"""Expected share of open input-output paths, plus shrinkage of the open ones.

    .. math::

        \lambda \left( \frac{1}{n} \big\| \Pi^L \cdots \Pi^1 \big\|_1
        + \frac{\rho}{d} \big\| |W^L \odot z^L| \cdots |W^1 \odot z^1| \big\|_1 \right)

    - :math:`\lambda` is ``strength`` and :math:`\rho` is ``shrinkage``
    - :math:`\Pi^l = P(z^l \neq 0)` are the probabilities that the gates of layer :math:`l` are open
    - :math:`n` is the number of paths and :math:`d` the number of variables
    - :math:`W^l` are the weights and :math:`z^l` the hard-concrete gates of layer :math:`l`

    A linear skip counts as one more layer beside the others: each has half of the first term, and the weights of both add up in the second.
    Weights of single paths (``prior``, ``path_weights``, free self edges) multiply them in both terms.

    Closing all paths lowers the first term by ``strength``. The error is a share of a variance (see
    :class:`~sparsenode.regularizers.Regularizer`), so ``strength`` is the share of it for which the model gives up all edges.

    Parameters
    ----------
    strength
        Non-negative number or sequence of numbers; see :class:`~sparsenode.regularizers.Regularizer`. Default: 0.1.
    gates
        ``"unit"``, the default, as in the authors' code: a gate per input unit of each layer. It can only switch a regulator off for all
        targets at once. ``"weight"``, as in the paper's equations: a gate per weight.
    shrinkage
        Weight of the second term, :math:`\rho`. Default: 0.1. A proximal step applies this term to the weights, which sets them to exactly
        zero; the gates follow its gradient.
    adaptive
        Number of rounds of training after the first. Default: 0, for noisy cells; use 2 or 3 to recover equations. Each round takes
        ``max_epochs`` and weights every path by the inverse of its regulator's effect on the target in the round before, as in the adaptive
        lasso (Zou 2006). This removes small edges that only make up for the shrinkage of large ones. In the second half of each round the
        gates are held as at test time. If a trained model is trained further, there is no unweighted first round.

    Raises
    ------
    ValueError
        If ``strength`` or ``shrinkage`` is negative or not finite, ``gates`` is unknown, or ``adaptive`` is not a whole number.

    Notes
    -----
    Use it for forecasts: it is the default of trajectories alone and of collocation. To read a network use
    :class:`~sparsenode.regularizers.CNODE`, the default of the model and of transport. A closed path proves that the target does not depend
    on the regulator; but with ``gates="unit"`` nearly all closed paths are those of regulators that are switched off as a whole. Do not use
    it on a handful of cells: sampled gates need a few hundred steps to settle.

    References
    ----------
    Aliee, Richter, Solonin, Ibarra, Theis and Kilbertus (2022), *Sparsity in continuous-depth neural networks*, NeurIPS, section 3;
    adaptive weights: Zou (2006), *The adaptive lasso and its oracle properties*, JASA 101.
    """

    name = "pathreg"
    weights_paths = True
    citations = ("aliee2022sparsity", "louizos2018learning")

    def __init__(
        self,
        strength: ArrayLike = 0.1,
        gates: Literal["weight", "unit"] = "unit",
        shrinkage: float = 0.1,
        adaptive: int = 0,
    ) -> None:
        super().__init__(strength)
        self.adaptive = _checks.at_least("adaptive", adaptive, 0)
        _checks.non_negative("shrinkage", shrinkage)
        _checks.choice("gates", gates, get_args(Gates))
        self.gates = gates
        self.shrinkage = float(shrinkage)

    @staticmethod
    def open_share(field: Field) -> torch.Tensor:
        """Expected share of open paths of every network."""
        architecture = field.architecture
        sums = path_sums(architecture, field.open_probabilities())
        # Paths through the layers outnumber those of the skip by far, so each kind has half of the share.
        n_paths = [math.prod(weight.shape[2] for weight in chain) for chain in architecture.chains(list(field.weights))]
        return (sums / sums.new_tensor(n_paths).unsqueeze(1)).mean(0)

    def penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """Expected share of open paths plus ``shrinkage`` times the path norm."""
        return self.open_share(field) + self.shrinkage * path_norm(effective)

    def gradient_penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """The whole penalty in the gates, with the weights held."""
        chains = effective.architecture.chains(effective.gates)
        norms = [
            _paths.gated_sum(slopes, gates).view(field.n_networks, -1).sum(1)
            for slopes, gates in zip(effective.paths, chains, strict=True)
        ]
        return self.open_share(field) + self.shrinkage / field.n_vars * torch.stack(norms).sum(0)

    def penalties(self, field: Field, effective: EffectiveWeights) -> tuple[torch.Tensor, torch.Tensor]:
        """Both penalties of a training step, which have the same value."""
        penalty = self.gradient_penalty(field, effective)
        return penalty, penalty.detach()

    def prox(
        self, field: Field, effective: EffectiveWeights, strength: torch.Tensor, steps: Sequence[torch.Tensor]
    ) -> None:
        """Soft-threshold every weight by its share of the second term."""
        soft_threshold_paths(field, effective, strength * self.shrinkage, steps)
