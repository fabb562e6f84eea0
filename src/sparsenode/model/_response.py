"""How an intervention spreads along the network that a transport fit found, around the trajectories of another fit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

from sparsenode._errors import DivergenceError
from sparsenode.model._prediction import GRID, PredictionMixin

_RTOL = 1e-6
_ATOL = 1e-6  # in standard deviations of a gene


def respond(
    unperturbed: Callable[[float], np.ndarray],
    effects: sparse.csr_array,
    decay: np.ndarray,
    held: dict[int, float],
    reach: np.ndarray,
    times: np.ndarray,
    unit: np.ndarray,
) -> np.ndarray:
    r"""States of one start where some genes are held, to first order in what they change.

    .. math:: \dot p = \dot u + J \, \big( \mathrm{clip}(p) - \mathrm{clip}(u) \big) - \gamma \circ (p - u)

    Parameters
    ----------
    unperturbed
        The run :math:`u` in which nothing is held, at any time since the start.
    effects
        Mean Jacobian :math:`J`, targets × regulators, in the units of the data per unit of time.
    decay
        Rates :math:`\gamma` of decay, per unit of time.
    held
        Values of the held genes, by position.
    reach
        Lowest and highest expression, beyond which regulators act as at these, 2 × genes.
    times
        Times since the start, increasing.
    unit
        Standard deviation of every gene, for tolerances.

    Returns
    -------
    States :math:`p`, times × genes.

    Raises
    ------
    DivergenceError
        If no solution is found.
    """
    positions, values = np.array(list(held), dtype=int), np.array(list(held.values()))
    low, high = reach.copy()
    low[positions], high[positions] = np.minimum(low[positions], values), np.maximum(high[positions], values)

    def perturbed(time: float, difference: np.ndarray) -> np.ndarray:
        state = unperturbed(time) + difference
        state[positions] = values
        return state

    def slope(time: float, difference: np.ndarray) -> np.ndarray:
        change = np.clip(perturbed(time, difference), low, high) - np.clip(unperturbed(time), low, high)
        rate = effects @ change - decay * difference
        rate[positions] = 0.0  # they are where they are held, whatever the unperturbed run does
        return rate

    nothing = np.zeros(len(decay))
    span = (0.0, float(times[-1]))
    found = solve_ivp(slope, span, nothing, t_eval=times, rtol=_RTOL, atol=_ATOL * unit)
    if not found.success:
        raise DivergenceError(f"The response to an intervention has no solution: {found.message}")
    return np.array([perturbed(time, difference) for time, difference in zip(times, found.y.T, strict=True)])


class ResponseMixin(PredictionMixin):
    """Responses of the network of ``objective="both"``."""

    network_: list[list[sparse.csr_array]] | None
    network_units_: np.ndarray | None
    #: With ``objective="both"`` the decay that the transport fit found, per unit of pseudotime, replicates × genes. ``None`` otherwise, and
    #: before training.
    network_decay_: np.ndarray | None
    #: Lowest and highest expression of every gene among the training cells, 2 × genes; ``None`` before training.
    data_range_: np.ndarray | None

    def _response_times(self, times: np.ndarray, clocks: np.ndarray) -> np.ndarray:
        """Times that are wanted, and those between which the unperturbed run is interpolated."""
        n_steps = int(np.ceil(GRID * times[-1] * float(clocks.max())))
        return np.union1d(times, np.linspace(0.0, times[-1], max(2, n_steps + 1)))

    def _responses(
        self,
        times: np.ndarray,
        grid: np.ndarray,
        unperturbed: np.ndarray,
        lineages: list[int],
        clocks: np.ndarray,
        held: pd.Series,
        replicate: int,
    ) -> np.ndarray:
        """Perturbed states at some times, starts × times × genes, of unperturbed ones on a grid."""
        if (
            self.network_ is None
            or self.network_units_ is None
            or self.network_decay_ is None
            or self.data_range_ is None
        ):
            raise RuntimeError("Expected a network, found none. Call `train()` first.")
        deviation, speed = self.network_units_
        values = dict(zip(self.genes.get_indexer(held.index).tolist(), held.tolist(), strict=True))
        result = []
        for run, lineage, clock in zip(unperturbed, lineages, clocks, strict=True):
            # Batches may count time in units of their own.
            tempo = float(self.module.time_unit) * clock
            scale = sparse.diags_array(tempo * speed * deviation)
            effects = scale @ self.network_[replicate][lineage] @ sparse.diags_array(1.0 / deviation)
            decay = tempo * self.network_decay_[replicate]
            curve = CubicSpline(grid, run)
            result.append(respond(curve, effects.tocsr(), decay, values, self.data_range_, times, deviation))
        return np.array(result)
