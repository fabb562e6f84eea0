"""Sums over input-output paths: chains of matrix-vector products, or the path matrix itself where paths are weighted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


def row_sums(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Row sums of the product ``M^L ⋯ M^1`` of matrices networks × out × in: networks × targets.

    Matrices whose rows are all alike may be given as networks × 1 × in; if the last one is, there is one target.
    """
    vector = matrices[0].sum(2)
    for matrix in matrices[1:]:
        vector = torch.bmm(matrix, vector.expand(-1, matrix.shape[2]).unsqueeze(2)).squeeze(2)
    return vector


def _per_unit(gates: Sequence[torch.Tensor]) -> bool:
    """Whether gates belong to input units rather than to weights."""
    return all(gate.shape[1] == 1 for gate in gates)


@dataclass(frozen=True)
class PathSlopes:
    """Entry sum of ``M^L ⋯ M^1`` with ``M^l = |W^l| ⊙ z^l``, and its slopes, without gradients.

    Parameters
    ----------
    total
        The entry sum, networks.
    magnitudes
        ``|W^l|``, networks × out × in.
    above, below
        The slope in entry ``(i, j)`` of ``M^l`` is ``above[l][i] * below[l][j]``; networks × out × 1, networks × 1 × in.
        Where entries are weighted, the slope itself and one.
    gate_slopes
        Slope in the gates of input units, networks × 1 × in; ``None`` where there are others or none.
    """

    total: torch.Tensor
    magnitudes: list[torch.Tensor]
    above: list[torch.Tensor]
    below: list[torch.Tensor]
    gate_slopes: list[torch.Tensor | None]

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        weights: Sequence[torch.Tensor],
        gates: Sequence[torch.Tensor],
        path_weights: torch.Tensor | None = None,
    ) -> PathSlopes:
        """Slopes for plain weights and their gates, which may be empty; entries are weighted where weights are given."""
        if path_weights is not None:
            return cls._weighted(weights, gates, path_weights)
        magnitudes = matrices = [weight.abs() for weight in weights]
        units: Sequence[torch.Tensor | None] = [None] * len(weights)
        if gates and _per_unit(gates):
            units = gates  # they act on the vectors of the chain
        elif gates:
            matrices = [magnitude * gate for magnitude, gate in zip(magnitudes, gates, strict=True)]
        below = [matrices[0].new_ones(len(matrices[0]), 1, matrices[0].shape[2])]
        for matrix, unit in zip(matrices, units, strict=True):
            below.append(torch.bmm(below[-1] if unit is None else below[-1] * unit, matrix.mT))
        total = below.pop().sum((1, 2))
        above = [matrices[-1].new_ones(len(matrices[-1]), matrices[-1].shape[1], 1)]
        slopes: list[torch.Tensor | None] = []
        for matrix, unit, under in zip(reversed(matrices), reversed(units), reversed(below), strict=True):
            vector = torch.bmm(matrix.mT, above[-1])
            slopes.append(None if unit is None else vector.mT * under)
            above.append(vector if unit is None else vector * unit.mT)
        return cls(total, magnitudes, above[-2::-1], below, slopes[::-1])

    @classmethod
    def _weighted(
        cls, weights: Sequence[torch.Tensor], gates: Sequence[torch.Tensor], path_weights: torch.Tensor
    ) -> PathSlopes:
        """Slopes of the weighted entry sum, which are no products of two vectors."""
        magnitudes = [weight.detach().abs() for weight in weights]
        matrices = [m * g.detach() for m, g in zip(magnitudes, gates, strict=True)] if gates else magnitudes
        with torch.enable_grad():
            matrices = [matrix.clone().requires_grad_() for matrix in matrices]
            total = (path_weights * product(matrices)).sum((1, 2))
            above = list(torch.autograd.grad(total.sum(), matrices))
        units = bool(gates) and _per_unit(gates)
        slopes = [
            (magnitude * slope).sum(1, keepdim=True) if units else None
            for magnitude, slope in zip(magnitudes, above, strict=True)
        ]
        return cls(total.detach(), magnitudes, above, [total.new_ones(())] * len(above), slopes)


class _GatedSum(torch.autograd.Function):
    """The entry sum as a function of the gates."""

    @staticmethod
    def forward(ctx: Any, slopes: PathSlopes, *gates: torch.Tensor) -> torch.Tensor:
        """It is known."""
        ctx.slopes = slopes
        return slopes.total.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        """Slopes in the gates."""
        gradient, s = gradient.view(-1, 1, 1), ctx.slopes
        return None, *(
            (magnitude * (above * gradient)).mul_(below) if slope is None else slope * gradient
            for magnitude, above, below, slope in zip(s.magnitudes, s.above, s.below, s.gate_slopes, strict=True)
        )


def gated_sum(slopes: PathSlopes, gates: Sequence[torch.Tensor]) -> torch.Tensor:
    """Entry sum, networks; differentiable in the gates, with the weights held."""
    return _GatedSum.apply(slopes, *gates)


def product(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """The path matrix itself, networks × targets × regulators: to report it, and to weight its entries."""
    total = matrices[0]
    for matrix in matrices[1:]:
        total = matrix @ total
    return total
