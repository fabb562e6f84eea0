"""The vector field: many small gated networks evaluated in one batched product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from sparsenode.module import _gates
from sparsenode.module._paths import PathSlopes

Gates = Literal["weight", "unit"]

# Share of gates that are closed when training starts: input layer, every later layer (Aliee et al. 2022, code).
_INITIAL_CLOSED = (0.2, 0.5)
# Damps the output layer at the start, so that untrained trajectories stay near their initial states.
_OUTPUT_GAIN = 0.1
_INITIAL_DECAY = 0.5413  # softplus^-1(1): one e-fold over the length of a trajectory


@dataclass(frozen=True)
class EffectiveWeights:
    """What a solve holds fixed: one entry per layer of weights, gates and biases, and the decay.

    Parameters
    ----------
    weights
        Gated weights, each of shape networks × out × in.
    gates
        Gate values that broadcast against ``weights``; empty where the field has no gates.
    biases
        Biases, networks × 1 × out.
    decay
        Decay rates, networks × 1 × variables, or ``None``.
    plain
        Weights without gates.
    """

    weights: list[torch.Tensor]
    gates: list[torch.Tensor]
    biases: list[torch.Tensor]
    decay: torch.Tensor | None
    plain: list[torch.Tensor]

    @cached_property
    def paths(self) -> PathSlopes:
        """Entry sum of the path matrix and its slopes, computed when first asked for."""
        return PathSlopes.of(self.plain, self.gates)


class Field(nn.Module):
    r"""Batch of networks :math:`f(x) = W^L \phi(\cdots \phi(W^1 x + b^1) \cdots) + b^L - \gamma \odot x`, with ELU.

    Parameters
    ----------
    n_vars
        Size of the state, d.
    hidden
        Widths of the hidden layers.
    seeds
        One seed per network. Networks with the same seed start from the same weights.
    gates
        One gate per weight, one per input unit of each layer, or none.
    decay
        Whether each variable has a learned rate of linear decay, :math:`\gamma > 0`.
    """

    def __init__(
        self, n_vars: int, hidden: Sequence[int], seeds: Sequence[int], gates: Gates | None = None, decay: bool = True
    ) -> None:
        super().__init__()
        sizes = [n_vars, *hidden, n_vars]
        n = len(seeds)
        self.gates = gates
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(n, out, inp)) for inp, out in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n, 1, out)) for out in sizes[1:])
        self.gate_logits = nn.ParameterList(
            nn.Parameter(torch.empty(n, out if gates == "weight" else 1, inp))
            for inp, out in zip(sizes[:-1], sizes[1:], strict=True)
            if gates is not None
        )
        self.raw_decay = nn.Parameter(torch.full((n, 1, n_vars), _INITIAL_DECAY)) if decay else None
        self._initialise(seeds)

    @torch.no_grad()
    def _initialise(self, seeds: Sequence[int]) -> None:
        for network, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(int(seed))
            for layer, weight in enumerate(self.weights):
                gain = _OUTPUT_GAIN if layer == len(self.weights) - 1 else 1.0
                weight[network].normal_(0.0, gain / math.sqrt(weight.shape[2]), generator=generator)
            for layer, logits in enumerate(self.gate_logits):
                closed = _INITIAL_CLOSED[min(layer, 1)]
                logits[network].normal_(math.log((1 - closed) / closed), 1e-2, generator=generator)

    @property
    def n_vars(self) -> int:
        """Size of the state."""
        return self.weights[0].shape[2]

    @property
    def decay(self) -> torch.Tensor | None:
        """Decay rates, networks × 1 × variables, or ``None``."""
        return None if self.raw_decay is None else functional.softplus(self.raw_decay)

    def effective_weights(self, uniform: Sequence[torch.Tensor] | None = None) -> EffectiveWeights:
        """Weights times gates: sampled with the given uniform numbers, or the deterministic gates of test time.

        Uniform numbers for fewer networks than there are serve them over and over.
        """
        weights = plain = list(self.weights)
        if uniform is None:
            gates = [_gates.deterministic(logits) for logits in self.gate_logits]
        else:
            gates = [
                _gates.sample(logits.unflatten(0, (-1, len(u))), u).flatten(0, 1)
                for logits, u in zip(self.gate_logits, uniform, strict=True)
            ]
        if gates:
            weights = [w * z for w, z in zip(weights, gates, strict=True)]
        return EffectiveWeights(weights, gates, list(self.biases), self.decay, plain)

    def open_probabilities(self) -> list[torch.Tensor]:
        """P(gate open) per layer; each broadcasts against that layer's weights."""
        return [_gates.open_probability(logits) for logits in self.gate_logits]

    @staticmethod
    def evaluate(x: torch.Tensor, effective: EffectiveWeights) -> torch.Tensor:
        """Derivatives at ``x``, networks × points × variables."""
        h = x
        last = len(effective.weights) - 1
        for layer, (weight, bias) in enumerate(zip(effective.weights, effective.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight.transpose(1, 2))
            if layer < last:
                h = functional.elu(h)
        return h if effective.decay is None else torch.addcmul(h, effective.decay, x, value=-1)

    @staticmethod
    def jacobian(x: torch.Tensor, effective: EffectiveWeights, network: int) -> torch.Tensor:
        """Jacobian of one network, without the decay, averaged over points × variables: targets × regulators."""
        layers = [weight[network] for weight in effective.weights]
        slopes, h = [], x
        for layer, bias in zip(layers[:-1], effective.biases, strict=False):
            h = torch.addmm(bias[network], h, layer.T)
            slopes.append(torch.where(h > 0, torch.ones_like(h), torch.exp(h)))
            h = functional.elu(h)
        inner = torch.diag_embed(slopes[0])
        for slope, layer in zip(slopes[1:], layers[1:-1], strict=True):
            inner = slope.unsqueeze(2) * (layer @ inner)
        return layers[-1] @ inner.mean(0) @ layers[0]
