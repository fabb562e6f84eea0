"""How an intervention spreads along the network that a transport fit found, around the trajectories of another fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
_STARTS = 32  # that are solved for together
_RTOL = 1e-6
_ATOL = 1e-6  # in standard deviations of a gene
_ROUNDING = 1e-9  # of a run, by which two times may differ that are one


def respond(
    unperturbed: Callable[[float], np.ndarray],
    states: np.ndarray,
    effects: sparse.csr_array,
    decay: np.ndarray,
    held: dict[int, float],
    reach: np.ndarray,
    times: np.ndarray,
    unit: np.ndarray,
) -> np.ndarray:
    r"""States of some starts where some genes are held, to first order in what they change.

    .. math:: \dot p = \dot u + J \, \big( \mathrm{clip}(p) - \mathrm{clip}(u) \big) - \gamma \circ (p - u)

    Parameters
    ----------
    unperturbed
        The runs :math:`u` in which nothing is held, starts × genes, at any time since the start.
    states
        The same at ``times``, starts × times × genes, to which changes are added: a gene that nothing reaches stays exactly as it is.
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
    States :math:`p`, starts × times × genes.

    Raises
    ------
    DivergenceError
        If no solution is found.
    """
    positions, values = np.array(list(held), dtype=int), np.array(list(held.values()))
    low, high = reach.copy()
    low[positions], high[positions] = np.minimum(low[positions], values), np.maximum(high[positions], values)
    shape = (len(states), len(decay))

    def slope(time: float, flat: np.ndarray) -> np.ndarray:
        plain, difference = unperturbed(time), flat.reshape(shape)
        state = plain + difference
        state[:, positions] = values
        change = np.clip(state, low, high) - np.clip(plain, low, high)
        rate = (effects @ change.T).T - decay * difference
        rate[:, positions] = 0.0  # they are where they are held, whatever the unperturbed run does
        return rate.ravel()

    nothing, atol = np.zeros(shape[0] * shape[1]), np.tile(_ATOL * unit, shape[0])
    found = solve_ivp(slope, (0.0, float(times[-1])), nothing, t_eval=times, rtol=_RTOL, atol=atol)
    if not found.success:
        raise DivergenceError(f"The response to an intervention has no solution: {found.message}")
    result = states + found.y.T.reshape(len(times), *shape).swapaxes(0, 1)
    result[..., positions] = values
    return result


def interpolated(shares: np.ndarray, longest: float) -> np.ndarray:
    """Shares of a run between which it is interpolated: those that are wanted, and those of predictions that are none of them.

    Parameters
    ----------
    shares
        Shares that are wanted, increasing, the last one 1.
    longest
        Duration of the longest run, in the module's time.
    """
    steps = np.linspace(0.0, 1.0, max(2, math.ceil(GRID * longest) + 1))
    same = np.isclose(steps[:, None], shares, rtol=0.0, atol=_ROUNDING).any(1)
    return np.union1d(shares, steps[~same])  # a spline has no slope between two that differ by rounding


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
    #: Only with ``objective="both"``, after training: decay that the transport fit found, replicates × genes, per unit of the module's time.
    network_decay_: np.ndarray | None
    #: Only with ``objective="both"``, after training: factors, replicates × 2, that undo the shrinkage of effects and of own terms in the
    #: transport fit.
    unshrunk_: np.ndarray | None
    #: Lowest and highest expression of every gene among the training cells, 2 × genes; ``None`` before training.
    data_range_: np.ndarray | None

    def _responses(
        self,
        shares: np.ndarray,
        grid: np.ndarray,
        unperturbed: np.ndarray,
        places: list[list[int]],
        durations: np.ndarray,
        held: pd.Series,
        replicate: int,
    ) -> np.ndarray:
        """Perturbed states at some shares of their durations, starts × times × genes, of unperturbed ones on a grid of shares.

        Starts follow the mean network of the lineages at their places, for durations of their own, in the module's time.
        """
        deviation = cast("np.ndarray", self.network_units_)[0]  # there, as the model is trained
        reach = cast("np.ndarray", self.data_range_)
        values = dict(zip(self.genes.get_indexer(held.index).tolist(), held.tolist(), strict=True))
        perturbed = unperturbed[:, np.searchsorted(grid, shares)]
        groups: dict[tuple[tuple[int, ...], float], list[int]] = {}
        for start, (own, duration) in enumerate(zip(places, durations, strict=True)):
            groups.setdefault((tuple(own), float(duration)), []).append(start)
        for (of_lineages, duration), members in groups.items():
            effects, decay = self._rates(of_lineages, replicate)
            for first in range(0, len(members), _STARTS):
                some = members[first : first + _STARTS]
                curve = CubicSpline(grid, unperturbed[some], axis=1)
                perturbed[some] = respond(
                    curve, perturbed[some], duration * effects, duration * decay, values, reach, shares, deviation
                )
        return perturbed

    def _rates(self, places: Sequence[int], replicate: int) -> tuple[sparse.csr_array, np.ndarray]:
        """Mean effects in some lineages, targets × regulators in the units of the data, and decay, per unit of the module's time."""
        deviation, speed = cast("np.ndarray", self.network_units_)
        of_effects, of_own = cast("np.ndarray", self.unshrunk_)[replicate]
        network = cast("list", self.network_)[replicate]
        mean = sum(network[place].astype(np.float64) for place in places) / len(places)
        own = sparse.diags_array(mean.diagonal())
        scaled = of_effects * (mean - own) + of_own * own
        effects = sparse.diags_array(speed * deviation) @ scaled @ sparse.diags_array(1.0 / deviation)
        return effects.tocsr(), of_own * cast("np.ndarray", self.network_decay_)[replicate]
