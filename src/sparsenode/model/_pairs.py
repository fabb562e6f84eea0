"""From cells that are coupled to the arrays of a transport fit."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from sparsenode._logging import logger
from sparsenode.model._data import Cells
from sparsenode.objectives import Transport
from sparsenode.objectives._common_motion import share_by_chance, take_out
from sparsenode.objectives._relaxation import regression_within, share_at_rest
from sparsenode.objectives._transport import Pairs, count_windows
from sparsenode.objectives._window_means import WindowMeans
from sparsenode.training._splitter import take_rows

_RELAXATION_CELLS = 1000  # number of cells that the relaxation is meant for


def warn_of_ties(cells: Cells, usable: np.ndarray, transport: Transport) -> None:
    """Warn where windows cut through cells of one time, so that the order of the rows decides on the network."""
    found = []
    for m, name in enumerate(cells.trajectories.index):
        times = cells.times[usable & (cells.weights[:, m] > 0), m]
        n_times, n_windows = len(np.unique(times)), count_windows(len(times), int(np.max(transport.windows)), transport)
        if n_times < n_windows:
            found.append(f"{name!r} ({n_times} for {n_windows})")
    if found:
        warnings.warn(
            f"Fewer distinct times than windows in {', '.join(found)}: windows of transport cut through cells of one time, and the "
            "network depends on the order of the rows. Take a pseudotime that tells these cells apart, or at most as many windows as "
            "times: `objective=Transport(windows=…, lags=…)`.",
            UserWarning,
            stacklevel=2,
        )


def check_coupled(
    cells: Cells, samples: Sequence[Pairs], transport: Transport, lineages: Sequence[str], own_fields: bool
) -> None:
    """Name the trajectories with too few cells for two windows; a lineage's own field cannot be fitted to nothing.

    ``samples`` are couplings of all training cells, or of several halves of them.

    Raises
    ------
    ValueError
        If every lineage has its own field, and none of its trajectories has pairs.
    """
    coupled = set.intersection(*(set(np.unique(pairs.trajectory).tolist()) for pairs in samples))
    left_out = [name for m, name in enumerate(cells.trajectories.index) if m not in coupled]
    if not left_out:
        return
    fitted = {cells.lineages[m] for m in coupled}
    missing = [name for lineage, name in enumerate(lineages) if lineage not in fitted]
    half, every, full = (
        (" in every half", " with every seed", ", or train without `half_samples`")
        if len(samples) > 1
        else ("", "", "")
    )
    needed = f"training cells for two windows of {transport.min_cells} or a few more{half}, found too few in"
    if missing and own_fields:
        raise ValueError(
            f"Expected {needed} every trajectory of {missing}: their fields have nothing to be fitted to. Take `fields='shared'`, "
            f"lower `objective=Transport(min_cells=…)`, or leave these lineages out{full}."
        )
    warnings.warn(
        f"Transport needs {needed} {left_out}: these trajectories do not count for the network{every}. Lower "
        f"`objective=Transport(min_cells=…)`, or merge them with others{full}.",
        UserWarning,
        stacklevel=2,
    )


def pair_batch(
    samples: Sequence[Pairs], z: np.ndarray, cells: Cells, spans: np.ndarray, rate: np.ndarray | None
) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Tensors of a transport fit, in module units, and the rate of every gene.

    Parameters
    ----------
    samples
        Coupled cells: of all, or of what each seed sees.
    z
        Standardised expression, cells × genes.
    cells
        Their weights and lineages.
    spans
        Length of every trajectory in units of the module.
    rate
        Slopes are divided by it; by default by the standard deviation of those of the first sample.

    Returns
    -------
    ``state``, n × genes, ``slope``, samples × n × genes, ``weight``, samples × n, zero where a sample has no such pair,
    ``lineage`` and ``cell``, where n counts every cell once in each of its trajectories; and the rate.
    """
    keys = [pairs.trajectory * len(z) + pairs.start for pairs in samples]
    rows = np.unique(np.concatenate(keys))
    trajectory, start = np.divmod(rows, len(z))
    slopes = np.empty((len(samples), len(rows), z.shape[1]), dtype=np.float32)
    weights = np.empty((len(samples), len(rows)))
    unit = np.ones(z.shape[1]) if rate is None else rate
    for sample, (pairs, own) in enumerate(zip(samples, keys, strict=True)):
        slope, total = _displacements(pairs, np.searchsorted(rows, own), len(rows), z, spans)
        weight = total * cells.weights[start, trajectory]
        weight /= weight.mean()
        if rate is None:
            mean = np.average(slope, axis=0, weights=weight)
            deviation = np.sqrt(np.average((slope - mean) ** 2, axis=0, weights=weight))
            unit = rate = np.where(deviation > 0, deviation, 1.0)
        slope /= unit
        slopes[sample], weights[sample] = slope, weight
    arrays = {"state": z.astype(np.float32)[start], "slope": slopes, "weight": weights}
    tensors = {name: torch.as_tensor(array, dtype=torch.float32) for name, array in arrays.items()}
    places = {"lineage": np.asarray(cells.lineages)[trajectory], "cell": start, "trajectory": trajectory}
    return tensors | {name: torch.as_tensor(array) for name, array in places.items()}, unit


def correct_batches(
    full: dict[str, torch.Tensor],
    halves: dict[str, torch.Tensor] | None,
    held_out: dict[str, torch.Tensor] | None,
    embedding: np.ndarray,
    cells: Cells,
    regulators: np.ndarray,
    transport: Transport,
    noise_to_signal: float,
) -> None:
    """Take out of the slopes what cells share by chance, and add the drift that diffusion balances, in place.

    Parameters
    ----------
    full
        Result of :func:`pair_batch` for all training cells, which tell how much there is of either.
    halves, held_out
        Those of the halves that seeds see, and of training and held-out cells together, if there are any.
    embedding
        Coordinates in which cells were coupled, cells × dimensions.
    cells
        Their times and weights.
    regulators
        Genes that may regulate.
    transport
        Windows, and how much to correct.
    noise_to_signal
        Ratio of variances, as in :func:`~sparsenode.objectives._transport.noise_to_signal`.
    """
    by_chance = chance_of_order(full, embedding, cells, transport)
    if by_chance > 0:
        logger.info(
            "The states of windows do not fully explain how windows move, as if pseudotime ordered cells at rest by chance: %.0f%% of the "
            "motion that the cells of a window share is taken out of displacements. `Transport(centring=False)` keeps it.",
            100 * by_chance,
        )
        for batch in (full, halves, held_out):
            if batch is not None:
                centre_batch(batch, cells, by_chance, transport)
    strength = relaxation_strength(full, embedding, cells, transport, noise_to_signal)
    if strength > 0:
        known = (cells, regulators, strength, by_chance, transport)
        coefficients = relax_batch(full, *known)
        if halves is not None:
            relax_batch(halves, *known)
        if held_out is not None:
            relax_batch(held_out, *known, coefficients)


def chance_of_order(batch: dict[str, torch.Tensor], embedding: np.ndarray, cells: Cells, transport: Transport) -> float:
    """How far the order of the cells is one of chance, from 0 to 1; 0 where transport is not to ask.

    Parameters
    ----------
    batch
        Result of :func:`pair_batch`.
    embedding
        Coordinates in which cells were coupled, cells × dimensions.
    cells
        Their times and weights.
    transport
        Windows, and whether to ask.
    """
    if not transport.centring:
        return 0.0
    return share_by_chance(*_whole(batch, embedding, cells, transport))


def centre_batch(batch: dict[str, torch.Tensor], cells: Cells, share: float, transport: Transport) -> None:
    """Take a share of what the cells of a window have in common out of the slopes of a batch, in place."""
    for slope, weight in zip(batch["slope"].numpy(), batch["weight"].numpy(), strict=True):
        take_out(slope, weight, _window_means(batch, weight, cells, transport), share)


def relaxation_strength(
    batch: dict[str, torch.Tensor],
    embedding: np.ndarray,
    cells: Cells,
    transport: Transport,
    noise_to_signal: float,
) -> float:
    """How fast genes follow their regulators, as far as cells rest and their deviations are signal.

    Parameters
    ----------
    batch
        Result of :func:`pair_batch`.
    embedding
        Coordinates in which cells were coupled, cells × dimensions.
    cells
        Their times and weights.
    transport
        Windows, and the strength for a thousand cells.
    noise_to_signal
        Ratio of variances, as in :func:`~sparsenode.objectives._transport.noise_to_signal`.
    """
    if transport.relaxation == 0:
        return 0.0
    at_rest = share_at_rest(*_whole(batch, embedding, cells, transport))
    # Chance in what displacements tell shrinks with the root of the number of cells.
    by_number = np.sqrt(_RELAXATION_CELLS / len(np.unique(batch["cell"])))
    return float(transport.relaxation * at_rest * by_number / (1.0 + noise_to_signal))


def relax_batch(
    batch: dict[str, torch.Tensor],
    cells: Cells,
    regulators: np.ndarray,
    strength: float,
    by_chance: float,
    transport: Transport,
    coefficients: np.ndarray | None = None,
) -> np.ndarray:
    """Add what regulators contribute to the drift that diffusion balances to the slopes of a batch, in place.

    Parameters
    ----------
    batch
        Result of :func:`pair_batch`.
    cells
        Their times and weights.
    regulators
        Genes that may regulate.
    strength
        Result of :func:`relaxation_strength`.
    by_chance
        Result of :func:`chance_of_order`.
    transport
        Windows.
    coefficients
        Those of the training cells; by default those of the cells of each sample, as if there were no others.

    Returns
    -------
    Coefficients of the last sample, genes × regulators.
    """
    state = batch["state"].numpy()
    found = np.empty((0, 0))
    for slope, weight in zip(batch["slope"].numpy(), batch["weight"].numpy(), strict=True):
        means = _window_means(batch, weight, cells, transport)
        found = regression_within(state, weight, means, regulators, by_chance) if coefficients is None else coefficients
        for rows, deviation in means.deviations(state[:, regulators], by_chance):
            slope[rows] += strength * deviation @ found.T
    return found


def rows_of(batch: dict[str, torch.Tensor], chosen: np.ndarray) -> dict[str, torch.Tensor] | None:
    """The rows of a batch that start from some cells, a mask over them, with weights of mean one; ``None`` if there are none."""
    rows = torch.as_tensor(chosen[batch["cell"].numpy()])
    if not rows.any():
        return None
    kept = take_rows(batch, rows)
    return kept | {"weight": kept["weight"] / kept["weight"].mean()}


def _whole(
    batch: dict[str, torch.Tensor], embedding: np.ndarray, cells: Cells, transport: Transport
) -> tuple[np.ndarray, np.ndarray, np.ndarray, WindowMeans]:
    """Displacements of all training cells with their weights, places and windows, by which a share of them is measured."""
    slope, weight = batch["slope"][0].numpy(), batch["weight"][0].numpy()
    return slope, weight, embedding[batch["cell"].numpy()], _window_means(batch, weight, cells, transport)


def _window_means(
    batch: dict[str, torch.Tensor], weight: np.ndarray, cells: Cells, transport: Transport
) -> WindowMeans:
    """Windows of the rows of a batch that a sample has."""
    start, trajectory = batch["cell"].numpy(), batch["trajectory"].numpy()
    masses = cells.weights[start, trajectory] * (weight > 0)
    return WindowMeans.arrange(cells.times[start, trajectory], trajectory, masses, transport)


def _displacements(
    pairs: Pairs, place: np.ndarray, n_rows: int, z: np.ndarray, spans: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Displacements per time of cells at the places of their pairs, rows × genes, and the weight of every row.

    Those of a cell over several lags and windows become their mean, weighted by the inverse of their variance: the squared error to the
    mean differs from that to all of them by a constant.
    """
    slope, total = np.zeros((n_rows, z.shape[1])), np.zeros(n_rows)
    for kind in np.unique(pairs.kind):
        own = np.flatnonzero(pairs.kind == kind)
        # In place, as these tables are the largest that there are.
        moved = pairs.coupling[own] @ z
        moved -= z[pairs.start[own]]
        moved /= (pairs.duration[own] * spans[pairs.trajectory[own]])[:, None]
        # Displacements over short lags are mostly noise.
        share = 1.0 / max(float(moved.var(0).mean()), np.finfo(float).tiny)
        moved *= share
        slope[place[own]] += moved  # a cell starts one pair of a kind in a trajectory
        total[place[own]] += share
    slope /= np.where(total > 0, total, 1.0)[:, None]
    return slope, total
