"""Weights of the edges of a fitted model: bounds, mean Jacobians, and their units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np
import torch

from sparsenode import _checks
from sparsenode.model._velocity import VelocityMixin
from sparsenode.objectives import Transport
from sparsenode.training._threads import limited_threads

if TYPE_CHECKING:
    from scipy import sparse

    from sparsenode.model._prediction import FittedTrajectories

Weights = Literal["paths", "jacobian", "effect", "standardised", "balanced"]
Block = Literal["position", "velocity"]

UNITLESS = ("standardised", "balanced")
_GRID_STRIDE = 4  # every fourth grid point of the fitted trajectories enters the mean Jacobian


class EdgesMixin(VelocityMixin):
    """What :class:`sparsenode.SparseNODE` reads edges from, and in which units, for methods that name and check them."""

    #: Only with ``objective="both"``, after training: the network of every replicate in the cells of every lineage, targets × regulators.
    #: Entries are the standardised edge weights of the transport fit, per standard deviation over all cells.
    network_: list[list[sparse.csr_array]] | None
    #: Only with ``objective="both"``, after training: units of ``network_``, 2 × genes. First the standard deviation of every gene, then that
    #: of its displacements, in standard deviations of the gene per unit of the module's time.
    network_units_: np.ndarray | None
    #: Standard deviation of every gene over the training cells. ``None`` before training, and with transport, where it is
    #: ``module.scale``.
    deviation_: np.ndarray | None
    #: Standard deviation of every gene over the training cells of every lineage, lineages × genes; zero for a gene that is constant
    #: there. ``None`` before training.
    lineage_deviation_: np.ndarray | None

    @property
    def _couples_cells(self) -> bool:
        """Whether the network comes from single cells that transport couples."""
        return isinstance(self.objective, Transport) or self.objective == "both"

    @property
    def _default_weights(self) -> Weights:
        return "balanced" if self._couples_cells else "paths"

    def _edges(
        self,
        lineage: str | None,
        signed: bool,
        replicate: int | None,
        weights: Weights,
        block: Block | None,
        fitted: FittedTrajectories | None = None,
    ) -> np.ndarray:
        """What :meth:`get_adjacency` returns, targets × regulators.

        ``fitted`` are the trajectories of the model, those of the replicate, where they are known: otherwise every call integrates anew.
        """
        if self.network_ is None or weights == "paths":
            matrix = self._edges_of_fields(lineage, signed, replicate, weights, block, fitted)
        else:
            matrix = self._edges_of_network(lineage, replicate, weights)
        if lineage is not None and weights not in ("paths", "jacobian"):
            matrix *= self._variation(lineage)
        if weights == "balanced":
            matrix = _balance(matrix)
        return matrix if signed else np.abs(matrix)

    def _edges_of_fields(
        self,
        lineage: str | None,
        signed: bool,
        replicate: int | None,
        weights: Weights,
        block: Block | None,
        fitted: FittedTrajectories | None,
    ) -> np.ndarray:
        """Edges of the fields that are integrated, targets × regulators, with variation over all cells and not balanced."""
        if weights == "paths":
            matrix = self._bounds(lineage, replicate, signed, fitted)
        else:
            matrix = self._mean_effects(lineage, replicate, fitted)
        if weights not in UNITLESS:
            matrix *= self._edge_units(block, per_deviation=weights == "effect")
        return self._take_block(matrix, block)

    def _edges_of_network(self, lineage: str | None, replicate: int | None, weights: Weights) -> np.ndarray:
        """The same of the network that the transport fit of ``objective="both"`` found."""
        by_lineage = cast("list", self.network_)[self._replicate(replicate)]
        deviation, speed = cast("np.ndarray", self.network_units_)
        matrix = np.stack([by_lineage[place].toarray() for place in self._places(lineage)]).mean(0, dtype=np.float64)
        if weights not in UNITLESS:
            matrix *= speed[:, None] / float(self.module.time_unit)
        if weights == "jacobian":
            matrix *= deviation[:, None] / deviation
        return matrix

    def _check_block(self, block: str | None) -> None:
        """Refuse blocks that there are not."""
        if block is None:
            return
        if self.module.order == 1:
            raise ValueError(
                f"Expected no `block` of a first-order model, found {block!r}: it has no velocity block. Leave it out."
            )
        _checks.choice("block", block, get_args(Block))

    def _take_block(self, matrix: np.ndarray, block: Block | None) -> np.ndarray:
        """Columns of one block, or the stronger of both for each edge; in first order all columns."""
        if self.module.order == 1:
            return matrix
        position, velocity = np.split(matrix, 2, axis=-1)
        if block is None:
            return np.where(np.abs(position) >= np.abs(velocity), position, velocity)
        return position if block == "position" else velocity

    def _edge_units(self, block: Block | None, per_deviation: bool = False) -> np.ndarray:
        """What a path or Jacobian in module units is multiplied by, targets × coordinates of the state."""
        module, scale = self.module, self._units[1]
        rate = module.rate.double().cpu().numpy() / float(module.time_unit)
        units = np.tile(rate[:, None] ** module.order, (1, len(scale)))
        if per_deviation:
            ratio = np.ones_like(scale) if self.deviation_ is None else scale / self.deviation_
            units = units * (ratio[:, None] / ratio)
        else:
            units = units * (scale[:, None] / scale)
            if block == "velocity":
                units = units / rate
        return np.tile(units, (1, module.order))

    def _bounds(
        self, lineage: str | None, replicate: int | None, signed: bool, fitted: FittedTrajectories | None
    ) -> np.ndarray:
        """Path matrix, with the signs of the mean Jacobian if asked for, in module units: targets × coordinates of the state."""
        matrix = self._paths(replicate)[self._fields(lineage)].mean(0).cpu().numpy().astype(np.float64)
        return np.where(self._mean_jacobian(lineage, replicate, fitted) < 0, -matrix, matrix) if signed else matrix

    def _mean_effects(
        self, lineage: str | None, replicate: int | None, fitted: FittedTrajectories | None = None
    ) -> np.ndarray:
        """Mean Jacobian where there is a path, and zero elsewhere, in module units: targets × coordinates of the state."""
        alive = (self._paths(replicate)[self._fields(lineage)] > 0).any(0).cpu().numpy()
        return np.where(alive, self._mean_jacobian(lineage, replicate, fitted), 0.0)

    def _variation(self, lineage: str) -> np.ndarray:
        """Standard deviation of every gene in the cells of a lineage, relative to that in all cells."""
        deviation = self._units[1] if self.deviation_ is None else self.deviation_
        if self.network_units_ is not None:
            deviation = self.network_units_[0]
        own = cast("np.ndarray", self.lineage_deviation_)  # there, as the model is trained
        return own[self._places(lineage)] / deviation

    @torch.no_grad()
    def _mean_jacobian(
        self, lineage: str | None, replicate: int | None, fitted: FittedTrajectories | None = None
    ) -> np.ndarray:
        """Jacobian averaged along the fitted trajectories of a lineage, or over its cells, targets × coordinates of the state.

        Without a lineage it is the mean over lineages. Trajectories that are not passed are integrated where they are needed.
        """
        module, chosen = self.module, self._replicate(replicate)
        at_reference = self.objective not in ("trajectory", "both")
        if at_reference:
            states = module.reference.cpu().numpy()
        else:
            fitted = self._integrate(None, replicate=replicate) if fitted is None else fitted
            states = self._encode(fitted.states[:, ::_GRID_STRIDE])
            if module.order == 2:
                clock = module.relative_span.cpu().numpy()[:, None, None] * self._velocity_unit
                states = np.concatenate([states, fitted.derivatives[:, ::_GRID_STRIDE] / clock], 2)
        lineages = np.arange(len(states)) if at_reference else np.asarray(module.lineages)
        effective = module.field.effective_weights()
        read = self._places(lineage)
        total = np.zeros((len(self.genes), states.shape[2]))
        with limited_threads(module):
            for index in read:
                points = torch.as_tensor(states[lineages == index].reshape(-1, states.shape[2]), dtype=torch.float32)
                network = chosen * module.n_fields + module.field_of(index)
                weight = module.reference_weight[index] if at_reference else None
                total += module.field.jacobian(points.to(module.device), effective, network, weight).cpu().numpy()
        return total / len(read)


def _balance(matrix: np.ndarray) -> np.ndarray:
    """Edges over the root of the norm of their target's: targets × regulators. The self edge is in its own norm only."""
    norm = np.repeat(np.linalg.norm(matrix - np.diag(np.diagonal(matrix)), axis=1, keepdims=True), len(matrix), axis=1)
    np.fill_diagonal(norm, np.linalg.norm(matrix, axis=1))
    return matrix / np.sqrt(np.where(norm > 0, norm, 1.0))
