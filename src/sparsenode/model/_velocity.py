"""Velocities out of a fitted model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from anndata import AnnData
from mudata import MuData

from sparsenode import _checks
from sparsenode.model._data import Cells
from sparsenode.model._prediction import PredictionMixin
from sparsenode.training._threads import limited_threads

if TYPE_CHECKING:
    from sparsenode.model._prediction import FittedTrajectories


class VelocityMixin(PredictionMixin):
    """Method of :class:`sparsenode.SparseNODE` that returns velocities."""

    def get_velocity(
        self, adata: AnnData | MuData | None = None, indices: Sequence[int] | None = None, replicate: int | None = None
    ) -> np.ndarray:
        """Velocity of cells, expression per unit of pseudotime: the fitted vector field at their observed expression.

        In second order the field gives accelerations, and velocities of cells are not observed. The method then returns the velocity of the
        fitted trajectory at the time of each cell, whatever its expression.

        Parameters
        ----------
        adata
            Cells to evaluate. Default: those of the model.
        indices
            Cells to return, by position or as a mask. Default: all.
        replicate
            Replicate to use. Default: the selected one.

        Returns
        -------
        Cells × genes, averaged over the lineages of a cell with its weights; genes in the order of ``model.genes``.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        IndexError
            If an index is out of range, or ``indices`` have several dimensions.
        KeyError
            If a key that the model was set up with is not in ``adata``.
        TypeError
            If ``adata`` is neither AnnData nor MuData, or holds values that are not numeric; or if ``indices`` are neither integers nor
            booleans.
        ValueError
            If genes are missing, a lineage is new, or the replicate does not exist.

        Notes
        -----
        Do not read the velocity of one cell by itself. Single cells scatter around the trajectories, so their velocities are noisier than
        that of the trajectory: average over neighbours first.
        """
        self._require_trained()
        cells, chosen = self._cells(adata), self._replicate(replicate)
        return self._velocities(cells, _checks.cell_indices(indices, len(cells.times)), chosen)

    @property
    def _velocities_need_trajectories(self) -> bool:
        """Whether velocities are more than the field at the cells."""
        return self.module.order == 2 or self.module.field.skip == "outer"

    @torch.no_grad()
    def _velocities(
        self, cells: Cells, wanted: np.ndarray, replicate: int, fitted: FittedTrajectories | None = None
    ) -> np.ndarray:
        """What :meth:`get_velocity` returns for some cells; their trajectories are integrated where they are needed and not passed."""
        module = self.module
        if module.order == 2:
            return self._slopes(cells, wanted, replicate, 1.0 / cells.spans, fitted).astype(np.float32)
        relative = self._relative(cells)
        # Share of each cell in each field, times the field's clock in the cell's own pseudotime.
        rate = cells.weights / cells.weights.sum(1, keepdims=True) * (relative / cells.spans)
        effective = self._effective(replicate)
        needed, back = np.unique(wanted, return_inverse=True)
        drift = self._drift(cells, replicate, fitted)
        fields = np.array([module.field_of(lineage) for lineage in cells.lineages])
        rates = self._units[1] * module.rate.cpu().numpy()
        result = np.empty((len(needed), len(self.genes)), dtype=np.float32)
        with limited_threads(module):
            for first, x in cells.chunks(needed):
                here = slice(first, first + len(x))
                states = self._encode(x)
                velocity = np.zeros(x.shape)
                for field in range(module.n_fields):
                    own = fields == field
                    rate_of_own = rate[needed[here]][:, own]
                    members = np.flatnonzero(rate_of_own.any(1))  # most cells belong to one field of many
                    points = self._on_device(states[members])[None]
                    slopes = module.field.evaluate(points, effective.take(slice(field, field + 1)))[0].cpu().numpy()
                    velocity[members] += rate_of_own[members].sum(1, keepdims=True) * slopes
                    velocity[members] += rate_of_own[members] @ drift[own]
                result[here] = velocity * rates
        return result[back]

    def _slopes(
        self,
        cells: Cells,
        wanted: np.ndarray,
        replicate: int,
        clocks: np.ndarray,
        fitted: FittedTrajectories | None = None,
    ) -> np.ndarray:
        """Slopes of the fitted trajectories at the times of cells, cells × genes: weighted over their trajectories.

        ``clocks`` is what slopes per length of each trajectory are multiplied by.
        """
        fitted = self._integrate(cells, replicate=replicate) if fitted is None else fitted
        result = np.zeros((len(wanted), len(self.genes)))
        share = cells.weights[wanted] / cells.weights[wanted].sum(1, keepdims=True) * clocks
        for m in range(cells.weights.shape[1]):
            members = np.flatnonzero(share[:, m])
            result[members] += share[members, m, None] * fitted.slope_at(m, cells.times[wanted[members], m])
        return result

    @torch.no_grad()
    def _drift(self, cells: Cells, replicate: int, fitted: FittedTrajectories | None) -> np.ndarray:
        """What a skip after the integration adds to the velocities of each trajectory, trajectories × genes."""
        module, effective = self.module, self._effective(replicate)
        if effective.architecture.skip != "outer":
            return np.zeros((len(cells.lineages), 1))
        fitted = self._integrate(cells, replicate=replicate) if fitted is None else fitted
        start = self._on_device(self._encode(fitted.initial_state))
        layout = module.layout(cells.lineages)
        return layout.gather(module.drift(layout.spread(start[None]), effective))[0].cpu().numpy()
