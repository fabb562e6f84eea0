"""L0: the expected number of open gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch

from sparsenode import _checks
from sparsenode.module._field import Gates
from sparsenode.regularizers._base import Regularizer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sparsenode.module import EffectiveWeights, Field


class L0(Regularizer):
    r"""Expected share of non-zero weights, through hard-concrete gates.

    .. math:: \frac{\lambda}{L} \sum_{l=1}^L \frac{1}{n_l} \sum_{ij} P(z^l_{ij} \neq 0)

    - :math:`\lambda` is ``strength``
    - :math:`L` is the number of layers and :math:`n_l` the number of weights of layer :math:`l`
    - :math:`z^l_{ij}` is the gate that multiplies weight :math:`W^l_{ij}`

    A linear skip counts as one more layer.

    Parameters
    ----------
    strength
        Non-negative number or sequence of numbers; see :class:`~sparsenode.regularizers.Regularizer`. Default: 0.1.
    gates
        ``"weight"``, the default: a gate per weight. ``"unit"``: a gate per input unit of each layer, shared by its outgoing weights. It
        can only switch a regulator off for all targets at once.

    Raises
    ------
    ValueError
        If ``strength`` is negative or not finite, or ``gates`` is unknown.

    Notes
    -----
    Use it for weight sparsity, that is for smaller and faster networks. It counts weights, not paths: a network with few weights can still
    connect every regulator to every target. So do not use it to read a gene network; use :class:`~sparsenode.regularizers.CNODE`, the
    default of the model.

    References
    ----------
    Louizos, Welling and Kingma (2018), *Learning sparse neural networks through L0 regularization*, equations 6 to 12.
    """

    name = "l0"
    citations = ("louizos2018learning",)

    def __init__(self, strength: ArrayLike = 0.1, gates: Literal["weight", "unit"] = "weight") -> None:
        super().__init__(strength)
        _checks.choice("gates", gates, get_args(Gates))
        self.gates = gates

    def penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """Mean over layers of the mean P(gate open)."""
        shares = [p.reshape(field.n_networks, -1).mean(1) for p in field.open_probabilities()]
        return torch.stack(shares).mean(0)
