"""What the fitted equation and its network say about interventions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
import torch

from sparsenode import _checks
from sparsenode.model._prediction import GRID
from sparsenode.model._response import ResponseMixin, interpolated
from sparsenode.model._simulation_arguments import check_interventions, given_starts, given_velocities
from sparsenode.module._solve import FIXED_STEP
from sparsenode.objectives._hermite import hermite_basis

_MARGIN = 0.05  # of the range of a gene, by which a state may leave it before a warning
_BEYOND = 0.05  # of its length, by which a trajectory may go on after its last cell before a warning
_N_TIMES = 101
_ROUNDING = 1e-9  # of a step, by which the last time may lie beyond it


@dataclass(frozen=True, repr=False)
class Simulation:
    """Trajectories with and without an intervention, from the same starts.

    Parameters
    ----------
    times
        Times since the start of each run, starts × times, in units of pseudotime.
    perturbed, unperturbed
        States, starts × times × genes, in the units of the data; genes in the order of ``model.genes``.
    held
        Value at which each gene of the intervention is held, indexed by its name; empty without an intervention.
    effects
        Data frame with a row per start and gene and the columns ``start``, ``gene`` and ``held`` (whether the gene is part of the
        intervention). Three more columns hold the difference perturbed minus unperturbed, in the units of the data: ``final`` at the last
        time, ``mean`` over time, and ``peak`` where it is largest in magnitude.
    """

    times: np.ndarray
    perturbed: np.ndarray
    unperturbed: np.ndarray
    held: pd.Series
    effects: pd.DataFrame

    def __repr__(self) -> str:
        starts, times, genes = self.perturbed.shape
        held = ", ".join(f"{gene} at {value:.4g}" for gene, value in self.held.items()) or "nothing"
        return f"Simulation of {starts} starts × {times} times × {genes} genes that holds {held}"


class SimulationMixin(ResponseMixin):
    """The method :meth:`simulate` of :class:`sparsenode.SparseNODE`."""

    def simulate(
        self,
        x0: np.ndarray | pd.DataFrame | pd.Series | None = None,
        times: Sequence[float] | np.ndarray | None = None,
        *,
        knockout: str | Sequence[str] = (),
        overexpress: str | Sequence[str] | Mapping[str, float] = (),
        clamp: Mapping[str, float] | None = None,
        v0: np.ndarray | pd.DataFrame | pd.Series | None = None,
        lineage: str | None = None,
        replicate: int | None = None,
    ) -> Simulation:
        r"""Simulate interventions: hold genes at a value, while all others follow what was fitted.

        A held gene starts at its value, its derivative is zero, and the other genes see that value from the start. Any number of genes can
        be held at once.

        With ``objective="both"`` the run :math:`u` without an intervention is that of the fitted fields. The effects spread along the
        reported network, since the fields share its zeros but not its signs:

        .. math:: \dot p = \dot u + J \, \big( \mathrm{clip}(p) - \mathrm{clip}(u) \big) - \gamma \circ (p - u) ,

        where :math:`J` is ``get_adjacency(lineage, weights="jacobian")`` and :math:`\gamma` the decay that was found with it. Regulators
        are clipped to the range of the training cells and of the held values. Effects and own terms are each multiplied by a factor that
        undoes the shrinkage of penalties (``model.unshrunk_``).

        Parameters
        ----------
        x0
            Starts, in the units of the data. Default: the initial states of the model's trajectories.

            - array: starts × genes, or one start, in the order of ``model.genes``,
            - data frame: columns are matched by name, the index names the starts,
            - series: one start, entries are matched by name.
        times
            Increasing times since the start, from 0 on, in units of pseudotime, the same for all starts; a warning names trajectories that
            end before the last of them. Default: 101 times from each start to the end of its own trajectory, and with ``x0`` to that of
            the longest. With ``x0`` and aligned batches, the unit is the mean over batches, in which a lineage has one length. Solvers
            with a fixed step take steps of at most a hundredth of the longest trajectory of all, whatever the times.
        knockout
            Genes held at zero, in the units of the data. In standardised data zero is the mean; a warning says so if expression is
            negative. Use ``clamp`` with the lowest value instead.
        overexpress
            Genes held at their highest value along the fitted trajectories of all lineages, or a mapping from genes to the fold of that
            value.
        clamp
            Mapping from genes to the value at which they are held, in the units of the data.
        v0
            Initial velocities, only in second order: in the shape of ``x0``, in units of the data per unit of pseudotime. Columns of a data
            frame and entries of a series are matched by name; the index of a data frame has to name the starts, in their order. Default:
            those that the learned network gives at the starts, or, without ``x0``, those that a model with ``initial_velocity="observed"``
            learned. An intervention changes them only for held genes, which do not move.
        lineage
            Lineage whose field moves the starts. Required with ``x0`` if every lineage has its own field. Without ``x0`` it restricts the
            starts to its trajectories.
        replicate
            Replicate to use. Default: the selected one.

        Returns
        -------
        A :class:`~sparsenode.model.Simulation`, which :func:`sparsenode.pl.intervention` draws, with

        - ``times``: times since the start of each run, starts × times, in units of pseudotime,
        - ``perturbed``, ``unperturbed``: states, starts × times × genes, in the units of the data. Except with ``objective="both"`` the two
          are one solve with the same steps, so ``unperturbed`` differs between interventions within the tolerance of the solver,
        - ``held``: value at which each gene of the intervention is held, by name,
        - ``effects``: a row per start and gene with the columns ``start``, ``gene`` and ``held`` (whether the gene is part of the
          intervention), and the difference of the two runs: at the last time of each (``final``), averaged over time (``mean``), and where
          it is largest (``peak``).

        Raises
        ------
        RuntimeError
            If the model is not trained.
        DivergenceError
            If a solution leaves the finite numbers.
        KeyError
            If a name is not a gene of the model.
        TypeError
            If ``x0`` is not a dense array, data frame or series of numbers, genes are not names, or velocities, times or values are not
            numbers.
        ValueError
            If a gene or start is named twice, or a value, shape or time is out of range.

        Notes
        -----
        The model was fitted to unperturbed cells, so effects are extrapolations; a warning says which genes leave the range of the training
        data. An effect is only as good as the network: first check the fit with :meth:`evaluate` and reference networks. If no edge leaves
        a gene, do not read this as evidence of no effect in the cell: the penalty may have closed a path that exists.
        """
        self._require_trained()
        chosen = self._replicate(replicate)
        check_interventions(knockout, overexpress, clamp)
        off = [knockout] if isinstance(knockout, str) else list(knockout)
        held = self._held(off, overexpress, clamp or {}, chosen)
        self._warn_knockout(off)
        kept = [m for m, name in enumerate(self.trajectories["lineage"]) if lineage in (None, name)]
        starts, names, lineages, clocks = self._starts(x0, lineage, kept, chosen)
        self._warn_without_effect(held, lineage, chosen)
        lengths = self._lengths(kept, clocks) if x0 is None else self._lengths(kept, clocks[0]).nlargest(1)
        if times is None:
            grid = np.outer(np.broadcast_to(lengths, len(starts)), np.linspace(0.0, 1.0, _N_TIMES))
        else:
            grid = np.tile(self._given_times(times), (len(starts), 1))
            self._warn_beyond(grid[0, -1], lengths, given=x0 is not None)
        given = None if v0 is None else given_velocities(v0, self.genes, names)
        speed = self._start_velocities(given, starts, lineages, clocks, kept if x0 is None else None, chosen)
        places = [[place] for place in lineages] if x0 is None else [self._places(lineage)] * len(starts)
        durations = grid[:, -1] * clocks
        shares = grid[0] / grid[0, -1]
        unperturbed, perturbed = self._runs(starts, speed, lineages, places, durations, shares, held, chosen)
        self._warn_out_of_range(perturbed)
        return Simulation(grid, perturbed, unperturbed, held, self._effects(grid, perturbed - unperturbed, names, held))

    def _held(
        self,
        off: Sequence[str],
        overexpress: str | Sequence[str] | Mapping[str, float],
        clamp: Mapping[str, float],
        replicate: int,
    ) -> pd.Series:
        """Held value of every gene of an intervention; genes that are ``off`` are held at zero."""
        names = [overexpress] if isinstance(overexpress, str) else overexpress
        folds = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, 1.0)
        everything = [*off, *names, *clamp]
        unknown = [name for name in everything if name not in self.genes]
        if unknown:
            raise KeyError(f"Expected genes of the model, found {unknown[:5]}. They look like {list(self.genes[:3])}.")
        twice = sorted({name for name in everything if everything.count(name) > 1})
        if twice:
            raise ValueError(f"Expected every gene once among the interventions, found {twice} more than once.")
        values = dict.fromkeys(off, 0.0)
        if folds:
            highest = self._integrate(None, replicate=replicate).states.max((0, 1))
            for name, fold in folds.items():
                top = highest[self.genes.get_loc(name)]
                if not (top > 0 and np.isfinite(fold) and fold > 0):
                    raise ValueError(
                        f"Expected a positive fold of a positive highest value to overexpress {name!r}, found {fold!r} of "
                        f"{top:.4g}. Use `clamp` for other values."
                    )
                values[name] = float(fold) * float(top)
        for name, value in clamp.items():
            if not np.isfinite(value):
                raise ValueError(f"Expected a finite value to clamp {name!r} at, found {value!r}.")
            values[name] = float(value)
        return pd.Series(values, dtype=float, name="held")

    def _warn_knockout(self, off: Sequence[str]) -> None:
        """Warn of genes whose expression lies below the zero of a knock-out, as after standardisation."""
        low, high = cast("np.ndarray", self.data_range_)[:, self.genes.get_indexer(pd.Index(off))]
        below = low < -_MARGIN * (high - low)
        if below.any():
            lowest = {name: float(f"{value:.4g}") for name, value in zip(off, low, strict=True) if value < 0}
            warnings.warn(
                f"A knock-out holds a gene at 0, but the expression of {len(lowest)} genes goes below 0: their lowest values in the "
                f"training data are {_checks.some(lowest)}. After standardisation 0 is the mean. Use "
                f"`clamp={dict(list(lowest.items())[:5])}`, or the value that stands for no expression.",
                UserWarning,
                stacklevel=3,
            )

    def _warn_without_effect(self, held: pd.Series, lineage: str | None, replicate: int) -> None:
        """Warn of held genes that no open path leads from to a gene that is not held."""
        columns = self.genes.get_indexer(held.index)
        others = np.setdiff1d(np.arange(len(self.genes)), columns)
        if self.network_ is None:
            paths = self._paths(replicate)[self._fields(lineage)].detach().cpu().numpy()
        else:
            paths = np.stack([self.network_[replicate][place].toarray() for place in self._places(lineage)])
        reached = (paths != 0).reshape(*paths.shape[:2], self.module.order, -1)[:, others][..., columns].any((0, 1, 2))
        without = list(held.index[~reached])
        if without:
            alone = len(without) == len(held)
            warnings.warn(
                f"{'No open path leads' if alone else 'Of the held genes, no open path leads'} from {_checks.some(without)} to a gene "
                f"that is not held: {'all effects are zero' if alone else 'they have no effect'} "
                "in this fit, by construction, which says nothing of the cell.",
                UserWarning,
                stacklevel=3,
            )

    def _starts(
        self, x0: np.ndarray | pd.DataFrame | pd.Series | None, lineage: str | None, kept: list[int], replicate: int
    ) -> tuple[np.ndarray, list[str], list[int], np.ndarray]:
        """Starts × genes, given or of the kept trajectories, their names and lineages, and the module's time per unit of pseudotime."""
        index = self._places(lineage)[0]
        if x0 is None:
            states = self._integrate(None, replicate=replicate).initial_state[kept]
            spans = (self.trajectories["end"] - self.trajectories["start"]).to_numpy(float)
            clocks = self.module.relative_span.double().cpu().numpy() / spans
            names = [str(name) for name in self.trajectories.index[kept]]
            return states, names, [self.module.lineages[m] for m in kept], clocks[kept]
        if lineage is None and self.module.n_fields > 1:
            raise ValueError(f"Expected a `lineage` with `x0`, found none: each of {self.lineages} has its own field.")
        states, names = given_starts(x0, self.genes)
        clock = np.full(len(states), 1.0 / float(self.module.time_unit))
        return states, names, [index] * len(states), clock

    def _lengths(self, kept: Sequence[int], clocks: np.ndarray | float) -> pd.Series:
        """Length of some trajectories on the clocks of the starts, the module's time per unit of pseudotime."""
        spans = self.module.relative_span.double().cpu().numpy()[list(kept)]
        return pd.Series(spans / clocks, index=self.trajectories.index[list(kept)])

    @staticmethod
    def _given_times(times: Sequence[float] | np.ndarray) -> np.ndarray:
        """Checked times since the start."""
        grid = _checks.numbers("times", times)
        increasing = grid.ndim == 1 and len(grid) > 0 and bool((np.diff(grid) > 0).all())
        if not increasing or not np.isfinite(grid).all() or grid[0] < 0 or grid[-1] <= 0:
            raise ValueError(
                f"Expected `times` to be finite, increasing numbers from 0 on, the last one above 0, found {np.ravel(grid)[:10].tolist()}: "
                "they count from the start."
            )
        return grid

    @torch.no_grad()
    def _start_velocities(
        self,
        v0: np.ndarray | None,
        starts: np.ndarray,
        lineages: list[int],
        clocks: np.ndarray,
        own: list[int] | None,
        replicate: int,
    ) -> torch.Tensor | None:
        """Initial velocities of a replicate in module units, 1 × starts × genes; ``None`` in first order.

        ``own`` are the trajectories of the model that the starts are those of, ``None`` for given starts.
        """
        module = self.module
        if module.initial_velocity is None:
            if v0 is not None:
                raise ValueError("Expected no `v0` in first order, found some: velocities are no part of the state.")
            return None
        if v0 is None:
            learned = None if own is None else module.start_speed()
            if learned is not None:
                return learned[[replicate]][:, own]
            everywhere = self._on_device(self._encode(starts)).expand(module.n_replicates, -1, -1)
            return module.network_velocity(everywhere, lineages)[[replicate]]
        if v0.shape != starts.shape or not np.isfinite(v0).all():
            raise ValueError(
                f"Expected `v0` to be finite, of the shape {starts.shape} of the starts, found {v0.shape}."
            )
        return self._on_device(v0 / clocks[:, None] / self._velocity_unit)[None]

    def _runs(
        self,
        starts: np.ndarray,
        speed: torch.Tensor | None,
        lineages: list[int],
        places: list[list[int]],
        durations: np.ndarray,
        shares: np.ndarray,
        held: pd.Series,
        replicate: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """States of a replicate without and with an intervention, starts × times × genes, in the units of the data.

        Runs last for durations of their own, in the module's time, and are wanted at the same shares of these.
        """
        if self.network_ is None:
            return self._solve_both(starts, speed, lineages, durations, shares, held, replicate)
        nothing = held.iloc[:0]
        grid = interpolated(shares, float(durations.max()))
        unperturbed, _ = self._solve_both(starts, speed, lineages, durations, grid, nothing, replicate)
        perturbed = self._responses(shares, grid, unperturbed, places, durations, held, replicate)
        return unperturbed[:, np.searchsorted(grid, shares)], perturbed

    @torch.no_grad()
    def _solve_both(
        self,
        starts: np.ndarray,
        speed: torch.Tensor | None,
        lineages: list[int],
        durations: np.ndarray,
        shares: np.ndarray,
        held: pd.Series,
        replicate: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Runs of the fitted field without and with an intervention.

        Both are one solve with the same steps, so that what an intervention does not reach is the same up to rounding; where nothing is
        held they are one run.
        """
        module, positions = self.module, self.genes.get_indexer(held.index)
        n_runs = 2 if len(held) else 1
        both = np.concatenate([starts] * n_runs)
        both[len(starts) :, positions] = held.to_numpy()
        free = self._on_device(np.ones(both.shape))
        free[len(starts) :, torch.as_tensor(positions)] = 0.0
        grid = self._solver_shares(shares, durations)
        # Times that are one in single precision are one to the solver, which takes none twice.
        steps, place = np.unique((grid / grid[-1]).astype(np.float32), return_inverse=True)
        states, derivatives = self._solved(
            replicate,
            self._on_device(self._encode(both))[None],
            self._on_device(grid[-1] * np.concatenate([durations] * n_runs)),
            lineages * n_runs,
            self._on_device(steps),
            None if speed is None else torch.cat([speed] * n_runs, 1) * free,
            free,
        )
        offset, scale = self._units
        found = states[0, ..., : module.n_vars].cpu().numpy().astype(np.float64)
        if module.solver.method in FIXED_STEP:
            slopes = derivatives[0, ..., : module.n_vars].cpu().numpy().astype(np.float64)
            found = hermite_basis(shares / grid[-1], len(grid)).toarray() @ np.concatenate([found, slopes], 1)
        else:
            found = found[:, place[len(grid) - len(shares) :]]
        found = found * scale + offset
        return found[: len(starts)], found[-len(starts) :].copy()

    def _solver_shares(self, shares: np.ndarray, durations: np.ndarray) -> np.ndarray:
        """Shares at which the solver stops: those wanted and the start, or the grid of predictions where each is a step."""
        if self.module.solver.method not in FIXED_STEP:
            return np.unique(np.append(0.0, shares))
        step = 1.0 / (GRID * float(durations.max()))
        n_steps = max(1, math.ceil(1.0 / step - _ROUNDING))
        return step * np.arange(n_steps + 1)

    def _warn_beyond(self, end: float, lengths: pd.Series, given: bool) -> None:
        """Warn of trajectories that go on after their last cell, and of given starts that outlast the longest of them."""
        excess = end / lengths - 1.0
        if given and excess.iloc[0] > _BEYOND:
            warnings.warn(
                f"The times go on beyond the longest trajectory, which ends at {lengths.iloc[0]:.4g}, by {excess.iloc[0]:.0%} of its length. "
                "Nothing that was observed supports this.",
                UserWarning,
                stacklevel=3,
            )
            return
        beyond = {str(name): f"{share:.0%}" for name, share in excess.items() if share > _BEYOND}
        if beyond:
            warnings.warn(
                f"{len(beyond)} of {len(lengths)} trajectories go on after their last cell, by these shares of their length: "
                f"{_checks.some(beyond)}. Nothing that was observed supports this. Leave `times` out, to end each at its last cell, or "
                f"pass those up to {lengths.min():.4g}, where the shortest ends.",
                UserWarning,
                stacklevel=3,
            )

    def _warn_out_of_range(self, states: np.ndarray) -> None:
        low, high = cast("np.ndarray", self.data_range_)
        margin = _MARGIN * (high - low)
        outside = ((states < low - margin) | (states > high + margin)).any((0, 1))
        if outside.any():
            names = [str(name) for name in self.genes[outside]]
            warnings.warn(
                f"{len(names)} of {len(self.genes)} genes leave the range of the training data: {_checks.some(names)}. "
                "Nothing that was observed supports the field there.",
                UserWarning,
                stacklevel=3,
            )

    def _effects(self, times: np.ndarray, difference: np.ndarray, names: list[str], held: pd.Series) -> pd.DataFrame:
        n_starts, _, n_genes = difference.shape
        peak = np.take_along_axis(difference, np.abs(difference).argmax(1)[:, None], 1)[:, 0]
        spans = times[:, -1:] - times[:, :1]
        mean = difference[:, 0]
        if times.shape[1] > 1:
            mean = np.trapezoid(difference, times[..., None], axis=1) / spans
        return pd.DataFrame(
            {
                "start": np.repeat(np.asarray(names, dtype=object), n_genes),
                "gene": np.tile(self.genes.to_numpy(), n_starts),
                "held": np.tile(self.genes.isin(held.index), n_starts),
                "final": difference[:, -1].ravel(),
                "mean": mean.ravel(),
                "peak": peak.ravel(),
            }
        )
