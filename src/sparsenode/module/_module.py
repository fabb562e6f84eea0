"""The module: field, solver, loss and penalty for all replicates at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from scvi.module.base import BaseModuleClass, LossOutput
from torch import nn

from sparsenode.module._field import EffectiveWeights, Field
from sparsenode.module._initial_velocity import InitialVelocity
from sparsenode.module._layout import Layout
from sparsenode.module._prune import resized
from sparsenode.module._random_start import bootstrapped_start, noisy_start
from sparsenode.module._solve import Solver, integrate
from sparsenode.module._velocity import saturating, velocity

if TYPE_CHECKING:
    from sparsenode.regularizers import Regularizer

# States of every lineage at which the Jacobian of a transport or collocation fit is averaged, at most
N_REFERENCE = 256


class SparseNODEModule(BaseModuleClass):
    """Replicated neural ODEs, their initial states and their loss.

    There are R replicates (strengths × seeds) and, with one field per lineage, F fields in each; the batch of
    networks has ``R * F`` entries. Inside the module, expression is centred by ``centre``, zero where it is not,
    and divided by ``scale``, the field is multiplied by ``rate``, and the time of every trajectory runs over ``[0, 1]``.

    In second order the state holds the variables and their velocities, ``d(x, v) = rate * (v, f(x, v))``: velocities are
    in units of ``rate``, which makes them as large as the variables.

    Parameters
    ----------
    n_vars
        Number of variables, d.
    lineages
        Lineage index of every trajectory.
    n_lineages
        Number of lineages.
    regularizer
        Penalty, gates and strengths.
    seeds
        Seeds of the replicates of each strength.
    hidden
        Widths of the hidden layers.
    fields
        ``"shared"``: one field for all lineages. ``"lineage"``: one each.
    decay
        Whether the field has a learned linear decay.
    bootstrap
        Whether initial states are drawn anew at each training step.
    learned_start
        Whether initial states are learned, for each replicate.
    clock_noise
        Standard deviation of the noise on the logarithm of the length of every trajectory at each training step.
    own_velocities
        Whether trajectories have initial velocities of their own in second order, learned beside the network.
    start_noise
        Standard deviation of Gaussian noise on initial states and velocities at each training step, in module units.
    skip
        Whether there is a linear skip inside the field, where the regularizer asks for none itself.
    inputs
        Indices of the variables that may regulate others, ``None`` for all.
    path_weights
        Weights of paths in path penalties, targets × regulators, ``None`` for one; in second order alike for their
        positions and velocities.
    order
        1: the field is the derivative of the variables. 2: that of their velocities, which start from a learned network
        of the initial state.
    n_knots
        Number of solver outputs per trajectory.
    solver
        Integration method and tolerances.
    """

    def __init__(
        self,
        n_vars: int,
        lineages: Sequence[int],
        n_lineages: int,
        regularizer: Regularizer,
        seeds: Sequence[int],
        hidden: Sequence[int],
        fields: Literal["shared", "lineage"],
        decay: bool,
        bootstrap: bool,
        n_knots: int,
        solver: Solver,
        learned_start: bool = False,
        skip: bool = False,
        inputs: Sequence[int] | None = None,
        path_weights: torch.Tensor | None = None,
        order: int = 1,
        start_noise: float = 0.0,
        clock_noise: float = 0.0,
        own_velocities: bool = False,
    ) -> None:
        super().__init__()
        self.regularizer = regularizer
        self.start_noise, self.clock_noise = start_noise, clock_noise
        self.n_vars, self.order = n_vars, order
        self.seeds = [int(seed) for seed in seeds]
        self.n_fields = n_lineages if fields == "lineage" else 1
        self.bootstrap = bootstrap
        self.n_knots = n_knots
        self.solver = solver
        # Replicates run over strengths, then seeds; a lineage's networks of one replicate start alike.
        self.n_replicates = len(regularizer.strength) * len(self.seeds)
        strength = np.repeat(regularizer.strength, len(self.seeds))
        network_seeds = np.repeat(np.tile(self.seeds, len(regularizer.strength)), self.n_fields)
        if order == 2:
            inputs = None if inputs is None else [*inputs, *(n_vars + i for i in inputs)]
            path_weights = None if path_weights is None else path_weights.repeat(1, 2)
        self.field = Field(
            n_vars,
            hidden,
            network_seeds.tolist(),
            gates=regularizer.gates,
            decay=decay,
            skip=regularizer.skip or ("inner" if skip else None),
            per_target=regularizer.per_target,
            inputs=inputs,
            path_weights=path_weights,
            order=order,
        )
        self.initial_velocity = InitialVelocity(n_vars, network_seeds.tolist(), self.n_fields) if order == 2 else None
        #: The strength in force is this share of ``strength``; a sparsification schedule raises it.
        self.strength_share = 1.0
        #: Strength of the penalty on squared effects in a regression of pairs.
        self.ridge = 0.0
        self.register_buffer("strength", torch.as_tensor(strength, dtype=torch.float32))
        self.register_buffer("centre", torch.zeros(n_vars))
        self.register_buffer("scale", torch.ones(n_vars))
        self.register_buffer("rate", torch.ones(n_vars))
        self.register_buffer("reference", torch.zeros(n_lineages, N_REFERENCE, n_vars * order))
        self.register_buffer("reference_weight", torch.zeros(n_lineages, N_REFERENCE))  # zero where no state is kept
        self.register_buffer("initial_state", torch.zeros(len(lineages), n_vars))
        self.register_buffer("relative_span", torch.ones(len(lineages)))
        self.register_buffer("time_unit", torch.ones((), dtype=torch.float64))
        self.lineages = [int(lineage) for lineage in lineages]
        offset = torch.zeros(self.n_replicates, len(lineages), n_vars)
        self.start_offset = nn.Parameter(offset) if learned_start else None
        #: What initial velocities differ by from those of the network.
        self.velocity_offset = nn.Parameter(offset.clone()) if own_velocities and order == 2 else None
        self._generators: list[torch.Generator] = []
        #: Whether the gates of test time are used in training too.
        self.fixed_gates = False

    # Registered buffers, declared for type checkers.
    strength: torch.Tensor
    centre: torch.Tensor
    scale: torch.Tensor
    rate: torch.Tensor
    reference: torch.Tensor
    reference_weight: torch.Tensor
    initial_state: torch.Tensor
    relative_span: torch.Tensor
    time_unit: torch.Tensor

    def on_load(self, model: Any, **kwargs: Any) -> None:
        """Take the sizes of a pruned model before its parameters are loaded, and have it compare its data."""
        if model.pruned_ is not None:
            self.field = resized(self.field, model.pruned_["hidden"], model.pruned_["inputs"])
        model._check_held_out()

    def seed_generators(self) -> None:
        """Restart the random streams of the replicates, one per seed, so that a fit repeats bit for bit."""
        self._generators = [torch.Generator(self.device).manual_seed(seed) for seed in self.seeds]

    def generator_states(self) -> list[torch.Tensor]:
        """States of the random streams."""
        return [generator.get_state() for generator in self._generators]

    def set_generator_states(self, states: Sequence[torch.Tensor]) -> None:
        """Put the random streams back, so that the next draws are those that followed these states."""
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)

    def draw(self, shape: Sequence[int], kind: Literal["uniform", "exponential", "normal"] = "uniform") -> torch.Tensor:
        """Random numbers, seeds × shape: replicates that share a seed share the numbers."""
        if not self._generators:
            self.seed_generators()
        draws = torch.empty(len(self.seeds), *shape, device=self.device)
        for draw, generator in zip(draws, self._generators, strict=True):
            getattr(draw, f"{kind}_")(generator=generator)
        return draws

    def sample_weights(self) -> EffectiveWeights:
        """Effective weights with sampled gates: one sample for a whole solve."""
        uniform = [
            self.draw((len(logits) // self.n_replicates, *logits.shape[1:])).flatten(0, 1)
            for logits in self.field.gate_logits
        ]
        return self.field.effective_weights(uniform)

    def trajectories(
        self,
        effective: EffectiveWeights,
        start: torch.Tensor,
        relative_span: torch.Tensor,
        lineages: Sequence[int],
        times: torch.Tensor,
        solver: Solver | None = None,
        speed: torch.Tensor | None = None,
        free: torch.Tensor | None = None,
        reach: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Integrate trajectories and return states and derivatives at ``times``.

        Parameters
        ----------
        effective
            Effective weights, of all replicates or of some.
        start
            Initial values of the variables, replicates × trajectories × variables, in module units.
        relative_span
            Length of each trajectory in units of ``time_unit``, trajectories or replicates × trajectories.
        lineages
            Lineage of each trajectory.
        times
            Increasing times in units of each trajectory's length.
        solver
            Method and tolerances, those of training by default.
        speed
            Initial velocities in the shape of ``start``, only in second order; for all replicates those of the learned network by default.
        free
            One for each variable that moves, zero for those that are held where they start, trajectories × variables; all move by default.
        reach
            Lowest and highest states beyond which regulators saturate, networks × 1 × variables; none by default.

        Returns
        -------
        States and derivatives, both replicates × trajectories × times × coordinates of the state.
        """
        layout = self.layout(lineages)
        span = layout.spread(relative_span.expand(len(start), -1)).unsqueeze(2) * self.rate.repeat(self.order)
        moves = {self.field_of(lineage) for lineage in lineages}
        if len(moves) < self.n_fields:  # the others stay where they are: from starts of other lineages they may diverge
            span = span * span.new_tensor([field in moves for field in range(self.n_fields)]).repeat(len(start)).view(
                -1, 1, 1
            )
        field = velocity(effective)
        if reach is not None:
            field = saturating(field, effective.decay, reach)
        if free is not None:
            span = span * layout.spread(free.repeat(1, self.order).expand(len(start), -1, -1))
        first = layout.spread(start)
        if self.initial_velocity is not None:
            spread = self.initial_velocity(first) if speed is None else layout.spread(speed)
            first = torch.cat([first, spread], 2)
        states = integrate(lambda x: span * field(x), first, times, solver or self.solver)
        derivatives = span.unsqueeze(2) * field(states.flatten(1, 2)).unflatten(1, states.shape[1:3])
        if effective.architecture.skip == "outer":
            gained, gain = self._gains(first, span, times, effective)
            states, derivatives = states + gained, derivatives + gain
        return layout.gather(states), layout.gather(derivatives)

    @staticmethod
    def drift(start: torch.Tensor, effective: EffectiveWeights) -> torch.Tensor:
        """What a skip after the integration adds to the field: ``S`` times the initial states."""
        return torch.bmm(effective.architecture.read(start), effective.weights[-1].mT)

    def _gains(
        self, first: torch.Tensor, span: torch.Tensor, times: torch.Tensor, effective: EffectiveWeights
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What a skip after the integration adds to states and derivatives: networks × trajectories × times × coordinates."""
        clock = span[..., : self.n_vars].unsqueeze(2)
        drift = clock * self.drift(first, effective).unsqueeze(2)
        along = times.view(-1, 1)
        gained = drift * along
        if self.order == 1:
            return gained, drift.expand_as(gained)
        # A constant acceleration.
        return (
            torch.cat([0.5 * clock * gained * along, gained], 3),
            torch.cat([clock * gained, drift.expand_as(gained)], 3),
        )

    def start(self) -> torch.Tensor:
        """Initial values of the variables, replicates × trajectories × variables."""
        start = self.initial_state.expand(self.n_replicates, -1, -1)
        return start if self.start_offset is None else start + self.start_offset

    def start_velocity_network(self, observed: torch.Tensor) -> None:
        """Start the network of initial velocities from observed slopes, trajectories × variables; only in second order."""
        observed = observed.to(self.initial_state)
        fields = [self.field_of(lineage) for lineage in self.lineages]
        cast("InitialVelocity", self.initial_velocity).start_from(self.initial_state, observed, fields)
        self.take_velocities(observed)

    @torch.no_grad()
    def take_velocities(self, observed: torch.Tensor) -> None:
        """Set the velocities that trajectories have of their own to observed slopes, trajectories × variables."""
        if self.velocity_offset is not None:
            observed = observed.to(self.initial_state)
            self.velocity_offset.copy_(observed - self.network_velocity(self.start(), self.lineages))

    def start_speed(self) -> torch.Tensor | None:
        """Initial velocities of the trajectories, replicates × trajectories × variables; ``None`` for those of the network."""
        if self.velocity_offset is None:
            return None
        return self.network_velocity(self.start(), self.lineages) + self.velocity_offset

    def network_velocity(self, start: torch.Tensor, lineages: Sequence[int]) -> torch.Tensor:
        """Initial velocities that the network gives at starts, all replicates × trajectories × variables; only in second order."""
        layout = self.layout(lineages)
        return layout.gather(cast("InitialVelocity", self.initial_velocity)(layout.spread(start)))

    def layout(self, lineages: Sequence[int]) -> Layout:
        """Where trajectories of these lineages stand in the batch of networks."""
        return Layout.of([self.field_of(lineage) for lineage in lineages], self.n_fields).to(self.device)

    def field_of(self, lineage: int) -> int:
        """Which field moves a lineage: its own, or the one that all share."""
        return lineage if self.n_fields > 1 else 0

    def by_replicate(self, tensor: torch.Tensor) -> torch.Tensor:
        """Seeds × … to replicates × …; a leading axis of one serves all replicates."""
        if len(tensor) == 1:
            return tensor
        return tensor.repeat(self.n_replicates // len(tensor), *[1] * (tensor.dim() - 1))

    def split_replicates(self, tensor: torch.Tensor) -> torch.Tensor:
        """View of a parameter, or of what has its shape, in which the first axis is that of the replicates."""
        return tensor.unflatten(0, (self.n_replicates, -1))

    def forward(
        self, tensors: dict[str, torch.Tensor], *_: object, **__: object
    ) -> tuple[EffectiveWeights, LossOutput]:
        """Loss of one step.

        Parameters
        ----------
        tensors
            Statistics of all trajectories, see :class:`sparsenode.objectives._statistics.TrajectoryStatistics`, or a batch of
            coupled cells, see :class:`sparsenode.objectives.Transport`, or smoothed trajectories, see
            :class:`sparsenode.objectives._collocation.SmoothedTrajectories`.

        Returns
        -------
        The effective weights that were used, and the loss: its ``extra_metrics`` hold the error and the penalty of
        every replicate.
        """
        sampled = self.training and not self.fixed_gates
        effective = self.sample_weights() if sampled else self.field.effective_weights()
        if "derivatives" in tensors:
            error = self.collocation_error(effective, tensors)
        elif "slope" in tensors:
            items = self.pair_errors(effective, tensors)
            weight = self.by_replicate(tensors["weight"]).sum(1)
            # A minibatch may miss a half-sample.
            error = items.sum(1) / weight.clamp_min(torch.finfo(weight.dtype).tiny)
        else:
            error = self._trajectory_error(effective, tensors)
        smooth, penalty = self.regularizer.penalties(self.field, effective)
        for value in (smooth, penalty):
            # A sum over networks would pass as the mean of a single replicate.
            is_tensor = isinstance(value, torch.Tensor)
            if not is_tensor or value.shape != (self.field.n_networks,):
                found = f"shape {tuple(value.shape)}" if is_tensor else repr(value)
                raise ValueError(
                    f"Expected one penalty per network from {type(self.regularizer).__name__}, a tensor of shape ({self.field.n_networks},), "
                    f"found {found}. The first axis of weights counts networks: keep it, and return the tensor."
                )
        strength = self.strength * self.strength_share
        loss = error + strength * smooth.view(self.n_replicates, -1).mean(1)
        penalty = strength * penalty.detach().view(self.n_replicates, -1).mean(1)
        if self.ridge > 0 and "slope" in tensors:
            squares = self.field.path_squares(effective).view(self.n_replicates, -1).mean(1)
            shrinkage = self.ridge * self.strength_share * squares
            loss, penalty = loss + shrinkage, penalty + shrinkage.detach()
        output = LossOutput(loss=loss.sum(), n_obs_minibatch=1, extra_metrics={"error": error, "penalty": penalty})
        return effective, output

    def _trajectory_error(self, effective: EffectiveWeights, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Squared error of the trajectories of every replicate, as a share of that of their means."""
        knots = torch.linspace(0.0, 1.0, self.n_knots, device=self.device)
        start, speed = noisy_start(self, bootstrapped_start(self, tensors))
        span = self.relative_span
        if self.training and self.clock_noise > 0:
            span = span * self.by_replicate(torch.exp(self.clock_noise * self.draw(span.shape, "normal")))
        states, derivatives = (
            values[..., : self.n_vars]
            for values in self.trajectories(effective, start, span, self.lineages, knots, speed=speed)
        )
        centred = torch.cat([states - tensors["centre"].unsqueeze(1), derivatives], dim=2)
        gram, cross, square = (self.by_replicate(tensors[name]) for name in ("gram", "cross", "square"))
        quadratic = (centred * (gram @ centred - 2.0 * cross)).sum((1, 2, 3))
        return (quadratic + square) / square

    def collocation_error(self, effective: EffectiveWeights, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Squared error of the derivatives of the smoothed trajectories, as a share of that of zero.

        In second order these are the derivatives of the velocities.
        """
        layout = self.layout(self.lineages)
        states = layout.spread(self.by_replicate(tensors["states"]).expand(self.n_replicates, -1, -1, -1))
        span = layout.spread(self.relative_span.expand(self.n_replicates, -1)).unsqueeze(2) * self.rate
        gain: torch.Tensor | float = 0.0
        if effective.architecture.skip == "outer":
            times = torch.linspace(0.0, 1.0, states.shape[2], device=self.device)
            gained, gain = self._gains(states[:, :, 0], span.repeat(1, 1, self.order), times, effective)
            states, gain = states - gained, gain[..., -self.n_vars :]
        found = self.field.evaluate(states.flatten(1, 2), effective).unflatten(1, states.shape[1:3])
        found = layout.gather(span.unsqueeze(2) * found + gain)
        wanted, precision = (self.by_replicate(tensors[name]) for name in ("derivatives", "precision"))
        return ((found - wanted).square() * precision).sum((1, 2, 3))

    def pair_errors(self, effective: EffectiveWeights, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Weighted mean over genes of the squared error of the slope of every pair: replicates × pairs."""
        state = tensors["state"]
        found = self.field.evaluate(state.expand(self.field.n_networks, -1, -1), effective)
        if effective.architecture.skip == "outer":
            found = found + self.drift(state.expand(self.field.n_networks, -1, -1), effective)
        found = found.unflatten(0, (self.n_replicates, self.n_fields))
        if self.n_fields > 1:
            index = tensors["lineage"].view(1, 1, -1, 1).expand(self.n_replicates, 1, -1, found.shape[3])
            found = found.gather(1, index)
        slope, weight = (self.by_replicate(tensors[name]) for name in ("slope", "weight"))
        return (found.squeeze(1) - slope).square().mean(2) * weight

    @torch.no_grad()
    def prox(self, effective: EffectiveWeights, steps: Sequence[torch.Tensor]) -> None:
        """Proximal step of the regularizer with the step sizes of the optimiser."""
        # The penalty of a replicate is the mean over its fields.
        strength = self.strength_share * self.strength.repeat_interleave(self.n_fields) / self.n_fields
        if self.strength_share > 0:
            self.regularizer.prox(self.field, effective, strength, steps)

    @torch.no_grad()
    def adapt(self) -> None:
        """Weight the paths of every network by the inverse of what its path matrix is now."""
        self.field.adapt(self.field.path_matrix(self.field.effective_weights()))

    @torch.no_grad()
    def take_zeros(self, other: SparseNODEModule) -> None:
        """Set to zero what is zero in the weights of a module with one field, in every field; gates become the same.

        All other weights stay as they are.

        Parameters
        ----------
        other
            A module of the same sizes and replicates.
        """
        by_field = (self.n_replicates, self.n_fields, -1)

        def spread(tensor: torch.Tensor) -> torch.Tensor:
            own = tensor.detach().to(self.device).unflatten(0, (self.n_replicates, 1, -1))
            return own.expand(*by_field, *own.shape[3:]).flatten(0, 2)

        for weight, found in zip(self.field.weights, other.field.effective_weights().weights, strict=True):
            weight.mul_(spread(found != 0))
        for logits, found in zip(self.field.gate_logits, other.field.gate_logits, strict=True):
            logits.copy_(spread(found))

    @torch.no_grad()
    def path_matrix(self, replicates: slice = slice(None)) -> torch.Tensor:
        """Adjacency ``|W^L z^L| ⋯ |W^1 z^1|`` in module units: replicates × fields × targets × coordinates of the state."""
        effective = self.field.effective_weights()
        first, last, _ = replicates.indices(self.n_replicates)
        own = effective.take(slice(first * self.n_fields, last * self.n_fields))
        return self.field.path_matrix(own).unflatten(0, (-1, self.n_fields))

    @torch.no_grad()
    def sparsity(self) -> np.ndarray:
        """Shares of zeros in the path matrices and in the effective weights: replicates × 2."""
        effective, shares = self.field.effective_weights(), []
        # One replicate after the other: all path matrices together can be far larger than the module.
        for first in range(0, self.field.n_networks, self.n_fields):
            own = effective.take(slice(first, first + self.n_fields))
            feature = (self.field.path_matrix(own) == 0).double().mean()
            weight = torch.cat([(w == 0).flatten() for w in own.weights]).double().mean()
            shares.append(torch.stack([feature, weight]))
        return torch.stack(shares).cpu().numpy()
