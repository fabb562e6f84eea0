r"""Hard-concrete gates, equations 10 to 12 of Louizos et al. (2018), *Learning sparse neural networks through L0*.

A gate with logit :math:`\alpha` is :math:`z = \mathrm{clamp}(s(\zeta - \gamma) + \gamma, 0, 1)` with
:math:`s = \sigma((\log u - \log(1 - u) + \alpha) / \beta)` and :math:`u \sim U(0, 1)`.
"""

from __future__ import annotations

import math
from typing import Any

import torch

BETA = 2 / 3
GAMMA = -0.1
ZETA = 1.1
_SHIFT = BETA * math.log(-GAMMA / ZETA)
_EPS = 1e-6


class _HardConcrete(torch.autograd.Function):
    """Gate values of logits and logistic noise in few passes over memory."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Stretched and clamped sigmoids."""
        soft = torch.add(logits, noise).div_(BETA).sigmoid_()
        ctx.save_for_backward(soft)
        return (soft * (ZETA - GAMMA)).add_(GAMMA).clamp_(0.0, 1.0)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        """Zero where a gate is clamped."""
        (soft,) = ctx.saved_tensors
        width = ZETA - GAMMA
        inside = torch.ops.aten.hardtanh_backward(gradient, soft, -GAMMA / width, (1 - GAMMA) / width)
        return torch.ops.aten.sigmoid_backward(inside, soft).mul_(width / BETA), None


def sample(logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Gate values for uniform random numbers that broadcast against ``logits``."""
    return _HardConcrete.apply(logits, torch.logit(uniform, eps=_EPS))


def open_probability(logits: torch.Tensor) -> torch.Tensor:
    """P(z > 0), the probability that a sampled gate is not exactly zero."""
    return torch.sigmoid(logits - _SHIFT)


def deterministic(logits: torch.Tensor) -> torch.Tensor:
    """Gate values at test time: exactly 0 or 1 for strong logits."""
    return torch.clamp(torch.sigmoid(logits) * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)
