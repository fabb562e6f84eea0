"""How an intervention spreads along the network that a transport fit found, around the trajectories of another fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline

from sparsenode._errors import DivergenceError
from sparsenode.model._prediction import GRID, PredictionMixin

_ROWS = 4096  # pairs that are read at a time
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


def unshrunk(effects: sparse.csr_array, decay: np.ndarray, pairs: Mapping[str, torch.Tensor]) -> tuple[float, float]:
    r"""Factors of all effects and of all own terms with which a fit explains its displacements best.

    Penalties shrink effects, and the decay with them but less. Two coefficients of least squares over all genes undo it on average, as the
    relaxed lasso does :cite:p:`meinshausen2007relaxed`:

    .. math:: v_i - \bar v_i \approx a \sum_{j \ne i} J_{ij} (x_j - \bar x_j) + b \, (J_{ii} - \gamma_i) (x_i - \bar x_i)

    Parameters
    ----------
    effects
        Mean Jacobian :math:`J`, targets × regulators, in module units.
    decay
        Rates :math:`\gamma` of decay, in module units.
    pairs
        Full batch of a transport fit: ``state``, n × genes, ``slope``, samples × n × genes, and ``weight``, samples × n, of
        which the first sample is read.

    Returns
    -------
    :math:`a` and :math:`b`; one where they are not determined or not positive.
    """
    own = effects.diagonal() - decay
    others = effects - sparse.diags_array(effects.diagonal())
    weight = pairs["weight"][0].double().cpu().numpy()
    sums = np.zeros((8, len(decay)))
    for first in range(0, len(weight), _ROWS):
        rows, w = slice(first, first + _ROWS), weight[first : first + _ROWS, None]
        x, v = (table[rows].double().cpu().numpy() for table in (pairs["state"], pairs["slope"][0]))
        a, b = (others @ x.T).T, own * x
        sums += [(w * part).sum(0) for part in (a, b, v, a * a, a * b, b * b, a * v, b * v)]
    a, b, v, *products = sums
    means = (a * a, a * b, b * b, a * v, b * v)
    share = max(weight.sum(), np.finfo(float).tiny)
    aa, ab, bb, av, bv = (float((product - mean / share).sum()) for product, mean in zip(products, means, strict=True))
    gram = np.array([[aa, ab], [ab, bb]])
    if np.linalg.matrix_rank(gram, hermitian=True) < 2:
        return 1.0, 1.0
    found = np.linalg.solve(gram, [av, bv])
    return (float(found[0]), float(found[1])) if (found > 0).all() else (1.0, 1.0)


class ResponseMixin(PredictionMixin):
    """Responses of the network of ``objective="both"``."""

    network_: list[list[sparse.csr_array]] | None
    network_units_: np.ndarray | None
    #: With ``objective="both"`` the decay that the transport fit found, per unit of pseudotime, replicates × genes. ``None`` otherwise, and
    #: before training.
    network_decay_: np.ndarray | None
    #: With ``objective="both"`` the factors of the effects and of the own terms of the transport fit that undo what penalties take,
    #: replicates × 2. ``None`` otherwise, and before training.
    unshrunk_: np.ndarray | None
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
        deviation, speed = cast("np.ndarray", self.network_units_)  # there, as the model is trained
        network, decay = cast("list", self.network_)[replicate], cast("np.ndarray", self.network_decay_)[replicate]
        of_effects, of_own = cast("np.ndarray", self.unshrunk_)[replicate]
        reach = cast("np.ndarray", self.data_range_)
        values = dict(zip(self.genes.get_indexer(held.index).tolist(), held.tolist(), strict=True))
        result = []
        for run, lineage, clock in zip(unperturbed, lineages, clocks, strict=True):
            # Batches may count time in units of their own.
            tempo = float(self.module.time_unit) * clock
            own = sparse.diags_array(network[lineage].diagonal().astype(np.float64))
            scaled = of_effects * (network[lineage] - own) + of_own * own
            scale = sparse.diags_array(tempo * speed * deviation)
            effects = (scale @ scaled @ sparse.diags_array(1.0 / deviation)).tocsr()
            curve = CubicSpline(grid, run)
            result.append(respond(curve, effects, of_own * tempo * decay, values, reach, times, deviation))
        return np.array(result)
