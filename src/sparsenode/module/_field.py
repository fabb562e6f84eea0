"""The vector field: many small gated networks evaluated in one batched product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from sparsenode.module import _gates, _paths
from sparsenode.module._paths import PathSlopes

Gates = Literal["weight", "unit"]
Skip = Literal["inner", "outer"]

# Share of gates that are closed when training starts: input layer, every later layer (Aliee et al. 2022, code).
_INITIAL_CLOSED = (0.2, 0.5)
# Damps the output layer at the start, so that untrained trajectories stay near their initial states.
_OUTPUT_GAIN = 0.1
# An entry of zero weighs as much as one of this share of the mean: it may come back.
_SMALLEST = 0.01
# softplus^-1 of the initial rates: decay by one e-fold over the length of a trajectory, damping of a tenth of that, since
# it adds to the velocity block of the network.
_INITIAL_DECAY = {1: 0.5413, 2: -2.2522}


@dataclass(frozen=True)
class Architecture:
    """What the tensors of a field mean.

    Parameters
    ----------
    n_vars
        Number of variables, d.
    n_layers
        Number of layers. Where there is a skip, its matrix stands after those of the layers in every list.
    per_target
        Whether each target has a network of its own; its tensors then lie one after the other on the leading axis.
    inputs
        Coordinates of the state that the field reads, ``None`` for all.
    path_weights
        Weight of the paths of each input to each target, targets × inputs, in path penalties, or networks × targets × inputs;
        ``None`` for one.
    skip
        Whether a linear skip is added inside the field, after the integration, or not at all.
    order
        1: the state holds the variables, and the field is their derivative. 2: it holds the variables, then their
        velocities, and the field is the derivative of these.
    """

    n_vars: int
    n_layers: int
    per_target: bool
    inputs: torch.Tensor | None
    path_weights: torch.Tensor | None
    skip: Skip | None
    order: int

    @property
    def n_state(self) -> int:
        """Number of coordinates of the state."""
        return self.order * self.n_vars

    def top(self, x: torch.Tensor) -> torch.Tensor:
        """The part of the state whose derivative the field is: variables, or their velocities."""
        return x if self.order == 1 else x[..., self.n_vars :]

    def chains(self, matrices: Sequence[torch.Tensor]) -> list[Sequence[torch.Tensor]]:
        """Matrices in series: those of the layers, and the skip by itself."""
        return [chain for chain in (matrices[: self.n_layers], matrices[self.n_layers :]) if len(chain) > 0]

    def read(self, x: torch.Tensor) -> torch.Tensor:
        """The inputs of the field among the coordinates of the state, the last axis."""
        if self.inputs is None:
            return x
        # Columns of a matrix are selected several times faster than along the last of three axes.
        return x.reshape(-1, x.shape[-1]).index_select(1, self.inputs).view(*x.shape[:-1], -1)

    def split(self, h: torch.Tensor) -> torch.Tensor:
        """Networks × points × (targets · units) to (networks · targets) × points × units."""
        if not self.per_target:
            return h
        return h.unflatten(2, (self.n_vars, -1)).transpose(1, 2).flatten(0, 1)

    def merge(self, h: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`split`."""
        if not self.per_target:
            return h
        return h.unflatten(0, (-1, self.n_vars)).transpose(1, 2).flatten(2)

    def wide(self, matrix: torch.Tensor) -> torch.Tensor:
        """Matrices (networks · targets) × out × in of one layer as networks × (targets · out) × in."""
        return matrix.reshape(-1, self.n_vars * matrix.shape[1], matrix.shape[2]) if self.per_target else matrix

    def mean_over_targets(self, sums: torch.Tensor) -> torch.Tensor:
        """Row sums of path matrices, however arranged, to their mean in each network."""
        return sums.reshape(-1, self.n_vars).mean(1) if self.per_target else sums.mean(1)


@dataclass(frozen=True)
class EffectiveWeights:
    """What a solve holds fixed: one entry per matrix of weights and gates, and per layer of biases, and the decay.

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
    architecture
        What these tensors mean.
    """

    weights: list[torch.Tensor]
    gates: list[torch.Tensor]
    biases: list[torch.Tensor]
    decay: torch.Tensor | None
    plain: list[torch.Tensor]
    architecture: Architecture

    @property
    def layers(self) -> list[torch.Tensor]:
        """Weights of the layers, as the field applies them: the first one to all targets at once."""
        first, *others = self.weights[: self.architecture.n_layers]
        return [self.architecture.wide(first), *others]

    @property
    def layer_biases(self) -> list[torch.Tensor]:
        """Biases of the layers, in the shapes that go with :attr:`layers`."""
        first, *others = self.biases
        return [self.architecture.wide(first.mT).mT, *others]

    @property
    def n_networks(self) -> int:
        """Number of networks; those of all targets together count once."""
        return len(self.weights[0]) // (self.architecture.n_vars if self.architecture.per_target else 1)

    def take(self, networks: slice) -> EffectiveWeights:
        """The weights of some networks, as views."""

        def own(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.unflatten(0, (self.n_networks, -1))[networks].flatten(0, 1)

        weights = self.architecture.path_weights
        return EffectiveWeights(
            [own(weight) for weight in self.weights],
            [own(gate) for gate in self.gates],
            [own(bias) for bias in self.biases],
            None if self.decay is None else self.decay[networks],
            [own(weight) for weight in self.plain],
            self.architecture
            if weights is None or weights.dim() == 2
            else replace(self.architecture, path_weights=weights[networks]),
        )

    @property
    def skip(self) -> torch.Tensor | None:
        """Skip, networks × targets × regulators, or ``None``."""
        return self.weights[-1] if self.architecture.skip is not None else None

    @cached_property
    def paths(self) -> list[PathSlopes]:
        """Entry sum of the path matrix of every chain and its slopes, computed when first asked for."""
        chains = self.architecture.chains
        gates = chains(self.gates) or [[] for _ in chains(self.plain)]
        return [
            PathSlopes.of(plain, gate, _path_weights(self.architecture, plain))
            for plain, gate in zip(chains(self.plain), gates, strict=True)
        ]


def _path_weights(architecture: Architecture, chain: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Weights of the paths in the arrangement of the chain's path matrix."""
    weights = architecture.path_weights
    if weights is None or chain[-1].shape[1] != 1 or not architecture.per_target:
        return weights
    return weights.expand(len(chain[0]) // architecture.n_vars, -1, -1).flatten(0, 1).unsqueeze(1)


class Field(nn.Module):
    r"""Batch of networks :math:`f(x) = W^L \phi(\cdots \phi(W^1 x + b^1) \cdots) + b^L - \gamma \odot x`, with ELU.

    Parameters
    ----------
    n_vars
        Number of variables, d.
    hidden
        Widths of the hidden layers.
    seeds
        One seed per network. Networks with the same seed start from the same weights.
    gates
        One gate per weight, one per input unit of each layer, or none.
    decay
        Whether each variable has a learned rate of linear decay, :math:`\gamma > 0`; in second order of damping,
        :math:`-\gamma \odot v`.
    skip
        Whether there is a linear skip :math:`S`: added to the field, or after the integration; see
        :class:`~sparsenode.module.SparseNODEModule`.
    per_target
        Whether every target has a network of its own.
    inputs
        Indices of the coordinates of the state that the field reads, all by default.
    path_weights
        Weights of paths in path penalties, targets × all coordinates of the state, one by default.
    order
        1: :math:`dx/dt = f(x) - \gamma \odot x`. 2: :math:`d^2x/dt^2 = f([x, v]) - \gamma \odot v` with
        :math:`v = dx/dt`.
    """

    def __init__(
        self,
        n_vars: int,
        hidden: Sequence[int],
        seeds: Sequence[int],
        gates: Gates | None = None,
        decay: bool = True,
        skip: Skip | None = None,
        per_target: bool = False,
        inputs: Sequence[int] | None = None,
        path_weights: torch.Tensor | None = None,
        order: int = 1,
    ) -> None:
        super().__init__()
        self.n_vars, self.skip, self.per_target, self.gates, self.order = n_vars, skip, per_target, gates, order
        n_inputs = order * n_vars if inputs is None else len(inputs)
        n, n_small = len(seeds), len(seeds) * (n_vars if per_target else 1)
        sizes = [n_inputs, *hidden, 1 if per_target else n_vars]
        shapes = [(n_small, out, inp) for inp, out in zip(sizes[:-1], sizes[1:], strict=True)]
        if skip is not None:
            shapes.append((n, n_vars, n_inputs))
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(shape)) for shape in shapes)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n_small, 1, out)) for out in sizes[1:])
        self.gate_logits = nn.ParameterList(
            nn.Parameter(torch.empty(count, out if gates == "weight" else 1, inp))
            for count, out, inp in shapes
            if gates is not None
        )
        self.raw_decay = nn.Parameter(torch.full((n, 1, n_vars), _INITIAL_DECAY[order])) if decay else None
        self.register_buffer("inputs", None if inputs is None else torch.as_tensor(list(inputs)), persistent=False)
        if path_weights is not None and inputs is not None:
            path_weights = path_weights[:, list(inputs)]
        self.register_buffer("path_weights", path_weights, persistent=False)
        self.register_buffer("adapted", None, persistent=False)
        self._initialise(seeds)

    # Registered buffers, declared for type checkers.
    inputs: torch.Tensor | None
    path_weights: torch.Tensor | None
    #: Path weights that an adaptive penalty has found, networks × targets × regulators.
    adapted: torch.Tensor | None

    @torch.no_grad()
    def _initialise(self, seeds: Sequence[int]) -> None:
        last = len(self.biases) - 1
        for network, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(int(seed))
            for layer, weight in enumerate(self.weights):
                # The output layer and the skip start small.
                gain = _OUTPUT_GAIN if layer >= last else 1.0
                own = weight.unflatten(0, (len(seeds), -1))[network]
                own.normal_(0.0, gain / math.sqrt(weight.shape[2]), generator=generator)
            for layer, logits in enumerate(self.gate_logits):
                closed = _INITIAL_CLOSED[0 if layer in (0, last + 1) else 1]
                own = logits.unflatten(0, (len(seeds), -1))[network]
                own.normal_(math.log((1 - closed) / closed), 1e-2, generator=generator)

    @property
    def n_networks(self) -> int:
        """Number of networks; one for all targets counts once, and so do those of all targets together."""
        return len(self.weights[0]) // (self.n_vars if self.per_target else 1)

    @property
    def architecture(self) -> Architecture:
        """What the tensors of this field mean."""
        return Architecture(
            n_vars=self.n_vars,
            n_layers=len(self.biases),
            per_target=self.per_target,
            inputs=self.inputs,
            path_weights=self.path_weights if self.adapted is None else self.adapted,
            skip=self.skip,
            order=self.order,
        )

    def adapt(self, magnitudes: torch.Tensor | None) -> None:
        r"""Weight every path by the inverse of a magnitude, or as at the start if there is none.

        With :math:`A` the magnitudes and :math:`\bar A` their mean, the weights are proportional to :math:`B_{ij} / (A_{ij} +
        0.01 \bar A)`, and such that the penalty of :math:`A` itself is the same as with the weights :math:`B` of the model.

        Parameters
        ----------
        magnitudes
            Non-negative, networks × targets × all coordinates of the state.
        """
        if magnitudes is None:
            self.adapted = None
            return
        size = magnitudes if self.inputs is None else magnitudes[..., self.inputs]
        own = torch.ones_like(size) if self.path_weights is None else self.path_weights.expand_as(size)
        mean = size.mean((1, 2), keepdim=True)
        weights = own / (size + _SMALLEST * mean)
        ratio = (own * size).sum((1, 2), keepdim=True) / (weights * size).sum((1, 2), keepdim=True)
        # Where nothing is left that costs anything, there is nothing to compare with.
        self.adapted = torch.where(torch.isfinite(ratio) & (ratio > 0), weights * ratio, own)

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
        return EffectiveWeights(weights, gates, list(self.biases), self.decay, plain, self.architecture)

    def open_probabilities(self) -> list[torch.Tensor]:
        """P(gate open) per matrix of weights; each broadcasts against it."""
        return [_gates.open_probability(logits) for logits in self.gate_logits]

    @staticmethod
    def evaluate(x: torch.Tensor, effective: EffectiveWeights) -> torch.Tensor:
        """Derivatives of the variables, or of their velocities, at states ``x``: networks × points × variables."""
        architecture, layers = effective.architecture, effective.layers
        inputs = h = architecture.read(x)
        for layer, (weight, bias) in enumerate(zip(layers, effective.layer_biases, strict=True)):
            h = torch.baddbmm(bias, h, weight.mT)
            if layer == 0:
                h = architecture.split(h)
            if layer < len(layers) - 1:
                h = functional.elu(h)
        h = architecture.merge(h)
        if architecture.skip == "inner":
            h = torch.baddbmm(h, inputs, effective.weights[-1].mT)
        return h if effective.decay is None else torch.addcmul(h, effective.decay, architecture.top(x), value=-1)

    @staticmethod
    def jacobian(
        x: torch.Tensor, effective: EffectiveWeights, network: int, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean Jacobian of one network over points, without the decay.

        A skip that is added after the integration counts like one inside the field.

        Parameters
        ----------
        x
            States, points × coordinates of the state.
        effective
            Effective weights of all networks.
        network
            Index of the network.
        weight
            Weight of each point; equal by default.

        Returns
        -------
        Targets × coordinates of the state.
        """
        architecture = effective.architecture
        count = architecture.n_vars if architecture.per_target else 1
        own = slice(network * count, (network + 1) * count)
        layers = [weight[own] for weight in effective.weights[: architecture.n_layers]]
        h = architecture.read(x).expand(count, -1, -1)
        inner: torch.Tensor | None = None  # small networks × points × units × regulators, where it is needed
        for layer, bias in zip(layers[:-1], effective.biases, strict=False):
            h = torch.baddbmm(bias[own], h, layer.mT)
            slope = torch.where(h > 0, torch.ones_like(h), torch.exp(h)).unsqueeze(3)
            # The first matrix is the same at all points: it is multiplied in at the end.
            inner = torch.diag_embed(slope.squeeze(3)) if inner is None else slope * (layer.unsqueeze(1) @ inner)
            h = functional.elu(h)
        if inner is not None and weight is not None:
            inner = inner * (weight / weight.mean()).view(-1, 1, 1)
        mean = layers[-1] @ (inner.mean(1) @ layers[0]) if inner is not None else layers[0]
        jacobian = mean.flatten(0, 1)
        if effective.skip is not None:
            jacobian = jacobian + effective.skip[network]
        return _all_columns(architecture, jacobian)

    @staticmethod
    def path_matrix(effective: EffectiveWeights) -> torch.Tensor:
        """Path matrices ``|W^L| ⋯ |W^1|``, plus the magnitude of the skip: networks × targets × coordinates."""
        return _all_columns(effective.architecture, _paths_of_inputs(effective))

    @staticmethod
    def path_squares(effective: EffectiveWeights) -> torch.Tensor:
        """Mean over targets of the sum of the squared entries of the path matrix, times the path weights: networks."""
        squares, weights = _paths_of_inputs(effective).square(), effective.architecture.path_weights
        return (squares if weights is None else squares * weights).sum(2).mean(1)


def _paths_of_inputs(effective: EffectiveWeights) -> torch.Tensor:
    """Path matrices with the columns of the inputs only: networks × targets × inputs."""
    architecture = effective.architecture
    layers = _paths.product([weight.abs() for weight in effective.weights[: architecture.n_layers]])
    matrix = layers.reshape(-1, architecture.n_vars, layers.shape[2])
    return matrix if effective.skip is None else matrix + effective.skip.abs()


def _all_columns(architecture: Architecture, matrix: torch.Tensor) -> torch.Tensor:
    """Put the columns of the inputs in their places among those of the whole state, the others zero."""
    if architecture.inputs is None:
        return matrix
    full = matrix.new_zeros(*matrix.shape[:-1], architecture.n_state)
    full[..., architecture.inputs] = matrix
    return full
