"""Trajectories out of a fitted model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scipy.interpolate import CubicSpline

from sparsenode import _checks
from sparsenode._errors import DivergenceError
from sparsenode._input import _expression
from sparsenode._input._observations import read_observations
from sparsenode.model._data import Cells, sums_differ
from sparsenode.model._fields import COUNTS
from sparsenode.model._mudata import MuDataMixin
from sparsenode.module._solve import Solver
from sparsenode.objectives._hermite import hermite_basis
from sparsenode.training._threads import limited_threads

if TYPE_CHECKING:
    from sparsenode.module import EffectiveWeights, SparseNODEModule
    from sparsenode.objectives import Transport
    from sparsenode.objectives._initial import InitialState

InitialVelocities = Literal["network", "observed"]
#: A replicate, the mean of their trajectories, or the selected one.
Replicates = int | Literal["mean"] | None
GRID = 100  # intervals of the dense grid per length of a trajectory
_TOLERANCE = 1e-6  # trajectories share their steps: a looser one shows which others are solved with them
_SAME_TIME = 1e-6  # of a trajectory, beyond the rounding of single precision


@dataclass(frozen=True)
class FittedTrajectories:
    """Integrated trajectories on a dense grid, in the units of the data.

    Parameters
    ----------
    end
        Last time on the grid, in units of each trajectory's length.
    states, derivatives
        Expression and its derivative per length of the trajectory, trajectories × times × genes.
    initial_state
        Initial states, trajectories × genes.
    """

    end: float
    states: np.ndarray
    derivatives: np.ndarray
    initial_state: np.ndarray

    @classmethod
    def mean(cls, several: Sequence[FittedTrajectories]) -> FittedTrajectories:
        """Mean of the trajectories of several replicates."""
        arrays = ([getattr(one, name) for one in several] for name in ("states", "derivatives", "initial_state"))
        return cls(several[0].end, *(np.mean(array, 0) for array in arrays))

    def at(self, trajectory: int, times: np.ndarray) -> np.ndarray:
        """Expression at any times up to ``end``, times × genes."""
        basis = hermite_basis(np.clip(times, 0.0, self.end) / self.end, self.states.shape[1])
        knots = np.concatenate([self.states[trajectory], self.end * self.derivatives[trajectory]])
        return basis @ knots

    def slope_at(self, trajectory: int, times: np.ndarray) -> np.ndarray:
        """Derivative per length of the trajectory at any times up to ``end``, times × genes."""
        grid = np.linspace(0.0, self.end, self.states.shape[1])
        return CubicSpline(grid, self.derivatives[trajectory])(np.clip(times, 0.0, self.end))


class PredictionMixin(MuDataMixin):
    """Methods of :class:`sparsenode.SparseNODE` that integrate the field."""

    #: What :meth:`train` fits by default.
    objective: Literal["both", "trajectory", "collocation"] | Transport
    #: Torch module with field, solver and loss, in standardised units.
    module: SparseNODEModule
    #: Names of the genes, in the order of all returned arrays.
    genes: pd.Index
    #: One row per trajectory with its lineage, batch, number of cells, and start and end in pseudotime.
    trajectories: pd.DataFrame
    #: Names of the lineages.
    lineages: list[str]
    #: Replicate that methods report by default: the one with the smallest error, or the choice of :meth:`select`.
    selected_: int
    #: Replicates that :meth:`train` gave up because they diverged; their weights are zero.
    given_up_: list[int]
    #: Objective of the last training.
    fitted_: str | None
    _initial_state: InitialState
    _initial_bandwidth: float
    _align_batches: bool

    def predict(
        self,
        adata: AnnData | MuData | None = None,
        times: Sequence[float] | np.ndarray | None = None,
        replicate: int | Literal["mean"] | None = None,
        initial_velocity: InitialVelocities | None = None,
    ) -> np.ndarray:
        """Predicted expression, of cells or along the fitted trajectories.

        Parameters
        ----------
        adata
            Cells to predict, each at its own pseudotime. Default: those of the model. Not together with ``times``. Another donor starts
            from the mean of its own early cells; genes are matched by name. If trajectories were fitted in first order
            (``objective="trajectory"`` or ``"both"``), its regulators are clipped to the range of the fitted trajectories of the lineage
            (of all lineages if they share one field), since no data support the field beyond.
        times
            Increasing pseudotimes at which the fitted trajectories are returned. Later than the last cell they are extrapolated, with a
            warning that says how far; before the start of a trajectory its initial state is returned.
        replicate
            Replicate to use. Default: the selected one. ``"mean"``: the mean of the trajectories of all replicates that were not given up,
            whose errors partly cancel. For several seeds of one strength.
        initial_velocity
            Only in second order. Default: as the model was made.

            - ``"network"``: trajectories start with the velocity that the learned network gives at their start.
            - ``"observed"``: they start with the slope of their own early cells, so the prediction uses more of their data. The model's own
              trajectories start with the velocities that it learned, if it was made with ``"observed"``. Not together with ``times``.

        Returns
        -------
        In the units of the data, genes in the order of ``model.genes``:

        - without ``times``: cells × genes, averaged over the lineages of a cell with its weights; in single precision, like expression,
        - with ``times``: trajectories × times × genes, trajectories in the order of ``model.trajectories``, or times × genes if there is
          only one; in double precision.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        DivergenceError
            If the solution leaves the finite numbers.
        KeyError
            If a key that the model was set up with is not in ``adata``.
        TypeError
            If ``adata`` is neither AnnData nor MuData, or ``adata`` or ``times`` hold values that are not numeric.
        ValueError
            If genes are missing, a lineage is new, both ``adata`` and ``times`` are given, or an argument is out of range.

        Notes
        -----
        Predictions are means of cells at one time of a lineage. Do not use them as samples of single cells: they lack their scatter.
        """
        self._require_trained()
        observed = self._observed(initial_velocity)
        if times is None:
            cells = self._cells(adata)
            return self._predict_cells(cells, self._integrate(cells, replicate=replicate, observed=observed))
        if initial_velocity == "observed":
            raise ValueError("Expected `initial_velocity='network'` with `times`, found 'observed'. Pass `adata`.")
        if adata is not None:
            raise ValueError("Expected one of `adata` and `times`, found both.")
        return self._predict_times(_checks.numbers("times", times), replicate, observed)

    def _predict_times(self, times: np.ndarray, replicate: Replicates, observed: bool) -> np.ndarray:
        if times.ndim != 1 or len(times) == 0 or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            raise ValueError(
                f"Expected `times` to be a non-empty sequence of finite, increasing numbers, found {np.ravel(times)[:10].tolist()}."
            )
        start, end = self.trajectories["start"].to_numpy(float), self.trajectories["end"].to_numpy(float)
        scaled = (times - start[:, None]) / (end - start)[:, None]
        self._warn_outside(scaled)
        fitted = self._integrate(None, max(1.0, float(scaled.max())), replicate, observed)
        values = np.stack([fitted.at(m, scaled[m]) for m in range(len(scaled))])
        return values[0] if len(values) == 1 else values

    def _warn_outside(self, scaled: np.ndarray) -> None:
        """One warning of times after the last cells, and one of times before the first ones."""
        rows = list(zip(self.trajectories.index, scaled, strict=True))
        beyond = {name: f"{row.max() - 1:.0%}" for name, row in rows if row.max() > 1 + 1e-9}
        before = {name: int((row < 0).sum()) for name, row in rows if row.min() < -1e-9}
        if beyond:
            warnings.warn(
                f"{len(beyond)} of {len(rows)} trajectories are extrapolated beyond their last cell, by these shares of their length: "
                f"{_checks.some(beyond)}. Nothing that was observed supports this.",
                UserWarning,
                stacklevel=4,
            )
        if before:
            warnings.warn(
                f"Times are before the start of {len(before)} of {len(rows)} trajectories, as many of {scaled.shape[1]}: "
                f"{_checks.some(before)}. Their initial state is returned there.",
                UserWarning,
                stacklevel=4,
            )

    def _lineage_clocks(self, cells: Cells) -> np.ndarray:
        """First and last time of the trajectories of some cells, trajectories × 2, where those of the model go from 0 to 1 in each lineage.

        If batches are aligned, each is stretched to all of it.
        """
        ends = cells.trajectories[["start", "end"]].to_numpy(float)
        if self._align_batches:
            return np.tile([0.0, 1.0], (len(ends), 1))
        known = (
            self.trajectories.groupby("lineage").agg({"start": "min", "end": "max"}).loc[self.lineages].to_numpy(float)
        )
        start, end = known[cells.lineages].T
        return (ends - start[:, None]) / (end - start)[:, None]

    def _is_training_data(self, cells: Cells) -> bool:
        """Whether these are the cells that the initial states were taken from."""
        found, known, ends = cells.trajectories, self.trajectories, ["start", "end"]
        if not cells.own or not found.drop(columns=ends).equals(known.drop(columns=ends)):
            return False
        moved = np.abs(found[ends].to_numpy(float) - known[ends].to_numpy(float)).max(1)
        return bool((moved <= _SAME_TIME * cells.spans).all())

    def _observed(self, initial_velocity: InitialVelocities | None) -> bool:
        """Whether initial velocities are those of early cells."""
        if initial_velocity is None:
            return self.module.velocity_offset is not None
        _checks.choice("initial_velocity", initial_velocity, get_args(InitialVelocities))
        if initial_velocity == "observed" and self.module.order == 1:
            raise ValueError(
                "Expected no `initial_velocity` in first order, found 'observed': velocities are no part of the state."
            )
        return initial_velocity == "observed"

    def _integrate(
        self, cells: Cells | None, end: float = 1.0, replicate: Replicates = None, observed: bool | None = None
    ) -> FittedTrajectories:
        """Integrate the trajectories of some cells, or of the model, up to ``end`` of their lengths.

        Initial velocities are those of early cells if ``observed``, by default where the model learned some: for its own
        trajectories then these.
        """
        if replicate == "mean":
            kept = [r for r in range(self.module.n_replicates) if r not in self.given_up_]
            return FittedTrajectories.mean([self._integrate_all(cells, end, observed, r)[0] for r in kept])
        return self._integrate_all(cells, end, observed, self._replicate(replicate))[0]

    @torch.no_grad()
    def _integrate_all(
        self, cells: Cells | None, end: float = 1.0, observed: bool | None = None, only: int | None = None
    ) -> list[FittedTrajectories]:
        """The trajectories of every replicate, or of only one; initial velocities as in :meth:`_integrate`."""
        module = self.module
        observed = self._observed(None) if observed is None else observed
        lineages, relative = module.lineages, module.relative_span
        start, speed = module.start(), module.start_speed() if observed else None
        own = cells is None or self._is_training_data(cells)
        if cells is not None and not own:
            initial = self._encode(cells.initial_state(self._initial_state, self._initial_bandwidth))
            start = self._on_device(initial).expand(module.n_replicates, -1, -1)
            lineages = cells.lineages
            relative = self._on_device(self._relative(cells))
            speed = None
        if cells is not None and observed and not (own and speed is not None):
            slopes = self._initial_slopes(cells) / self._relative(cells)[:, None] / self._velocity_unit
            speed = self._on_device(slopes).expand(module.n_replicates, -1, -1)
        if module.order == 2 and speed is None:
            speed = module.network_velocity(start, lineages)
        # A skip after the integration is no part of the field, and the solver's states lack what it adds.
        fits_trajectories = self._objective_name in ("trajectory", "both")
        saturates = not own and fits_trajectories and module.order == 1 and module.field.skip != "outer"
        reach = self._reach(only) if saturates else None
        if only is not None:
            start, speed = start[[only]], None if speed is None else speed[[only]]
        grid = torch.linspace(0.0, end, max(2, round(GRID * end) + 1), device=module.device)
        states, derivatives = self._solved(only, start, relative, lineages, grid, speed, reach=reach)
        offset, scale = self._units
        states, derivatives = states[..., : module.n_vars], derivatives[..., : module.n_vars]
        arrays = [tensor.cpu().numpy().astype(np.float64) * scale for tensor in (states, derivatives, start)]
        arrays = [arrays[0] + offset, arrays[1], arrays[2] + offset]
        return [FittedTrajectories(end, *of_one) for of_one in zip(*arrays, strict=True)]

    def _effective(self, replicate: int | None) -> EffectiveWeights:
        """Effective weights at test time, of all replicates or of one, which the others then cannot disturb."""
        effective, n = self.module.field.effective_weights(), self.module.n_fields
        return effective if replicate is None else effective.take(slice(replicate * n, (replicate + 1) * n))

    @property
    def _tight_solver(self) -> Solver:
        """The solver of training with smaller tolerances: a prediction is one solve."""
        solver = self.module.solver
        return Solver(solver.method, min(solver.rtol, _TOLERANCE), min(solver.atol, _TOLERANCE))

    def _solved(
        self,
        only: int | None,
        start: torch.Tensor,
        relative: torch.Tensor,
        lineages: Sequence[int],
        times: torch.Tensor,
        speed: torch.Tensor | None,
        free: torch.Tensor | None = None,
        reach: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The trajectories of the module, of all replicates or of one; says what to do where they diverge."""
        effective, solver = self._effective(only), self._tight_solver
        try:
            with limited_threads(self.module):
                return self.module.trajectories(effective, start, relative, lineages, times, solver, speed, free, reach)
        except DivergenceError as error:
            remedy = (
                "Predict less far ahead, or train again with a stronger regularizer or more cells."
                if self.fitted_ == "trajectory"
                else f"No trajectories were fitted, only {self.fitted_}: read the network with `get_network`, or fit the trajectories "
                "too with `train(objective='trajectory')`."
            )
            which = "" if only is None or self.module.n_replicates == 1 else f"Replicate {only} diverged. "
            raise DivergenceError(f"{which}{error} {remedy}") from error

    def _initial_slopes(self, cells: Cells) -> np.ndarray:
        """Observed slopes at the start of the trajectories of some cells; of the model's, some cells alone do not tell."""
        source = self._cells() if cells.own and cells.adata is not self.adata else cells
        return source.initial_slope(self._initial_bandwidth)

    def _reach(self, only: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Lowest and highest expression on the fitted trajectories of each field, networks × 1 × variables."""
        module = self.module
        fitted = self._encode(np.stack([one.states for one in self._integrate_all(None, only=only)]))
        own = module.layout(module.lineages).spread(self._on_device(fitted)).flatten(1, 2)
        return own.amin(1, keepdim=True), own.amax(1, keepdim=True)

    def _relative(self, cells: Cells) -> np.ndarray:
        """Length of each trajectory of some cells in units of the module's time."""
        module = self.module
        if self._is_training_data(cells):
            return module.relative_span.cpu().numpy()
        if self._align_batches:
            known = dict(zip(module.lineages, module.relative_span.tolist(), strict=True))
            return np.array([known[lineage] for lineage in cells.lineages])
        return cells.spans / float(module.time_unit)

    def _predict_cells(self, cells: Cells, fitted: FittedTrajectories) -> np.ndarray:
        """Weighted mean over a cell's trajectories of its predictions, cells × genes."""
        result = np.zeros((len(cells.times), len(self.genes)), dtype=np.float32)
        share = cells.weights / cells.weights.sum(1, keepdims=True)
        for m in range(cells.weights.shape[1]):
            members = np.flatnonzero(share[:, m])
            result[members] += share[members, m, None] * fitted.at(m, cells.times[members, m])
        return result

    @property
    def _objective_name(self) -> str:
        """Name of the objective that the model was made for."""
        return self.objective if isinstance(self.objective, str) else "transport"

    @property
    def _units(self) -> tuple[np.ndarray, np.ndarray]:
        """Centre and scale of the module, both genes."""
        return self.module.centre.double().cpu().numpy(), self.module.scale.double().cpu().numpy()

    @property
    def _velocity_unit(self) -> np.ndarray:
        """What the velocities of a second-order state are multiplied by, per unit of the module's time, genes."""
        return self._units[1] * self.module.rate.double().cpu().numpy()

    def _encode(self, x: np.ndarray) -> np.ndarray:
        """Expression in the units of the module."""
        offset, scale = self._units
        return (x - offset) / scale

    def _replicate(self, replicate: int | None) -> int:
        """Index of the replicate to report."""
        if replicate is None:
            return self.selected_
        if not _checks.is_integer(replicate) or not 0 <= int(replicate) < self.module.n_replicates:
            raise ValueError(f"Expected `replicate` to be in [0, {self.module.n_replicates - 1}], found {replicate!r}.")
        return int(replicate)

    def _cells(self, adata: AnnData | MuData | None = None, continued: bool = False) -> Cells:
        """Cells of the model's AnnData, or of another one with the same genes and lineages.

        ``continued`` cells belong to the trajectories of the model, on whose clock their times are; so do some of its own cells.
        """
        keys = self.registry["setup_args"]
        target = self.adata if adata is None else adata
        if target is None:
            raise ValueError("Expected `adata`, found none: the model was loaded without data.")
        if isinstance(target, MuData):
            target = self._from_mudata(target)
        if not isinstance(target, AnnData):
            raise TypeError(f"Expected `adata` to be an AnnData object, found {type(target).__name__}.")
        if target is not self.adata:
            _expression.check_expression(target, keys["layer"])
        observations = read_observations(
            target, keys["time_key"], keys["lineage_key"], keys["batch_key"], self.lineages
        )
        if continued:
            known = set(self.trajectories["batch"])
            new = [name for name in observations.batch_names if name not in known]
            if new:
                raise ValueError(
                    f"Expected batches of the model, {sorted(known)}, to forecast, found new ones: {new}. Evaluate new "
                    "trials from their own start, without `forecast`."
                )
            self._warn_of_other_units(target)
            return Cells.arrange(target, keys["layer"], self.genes, observations, self.trajectories)
        if target is self.adata:
            table = self._in_known_order(observations.trajectories())
            return Cells.arrange(target, keys["layer"], self.genes, observations, table, own=True)
        continuing = Cells.arrange(target, keys["layer"], self.genes, observations, self.trajectories, own=True)
        if self._are_among_own(continuing):
            return continuing
        self._warn_of_other_units(target)
        return Cells.arrange(target, keys["layer"], self.genes, observations)

    def _in_known_order(self, found: pd.DataFrame) -> pd.DataFrame:
        """Trajectories of cells in the order of the model's, if they are the same: categories of batches may have another order."""
        known, names = (pd.MultiIndex.from_frame(table[["lineage", "batch"]]) for table in (self.trajectories, found))
        return found.iloc[names.get_indexer(known)] if set(names) == set(known) else found

    def _warn_of_other_units(self, other: AnnData) -> None:
        """Warn where other cells look like counts, and those of the model did not."""
        if not self.registry["field_registries"]["X"]["state_registry"].get(COUNTS, False):
            _expression.warn_of_counts(other, self.registry["setup_args"]["layer"], fitted=True)

    def _are_among_own(self, cells: Cells) -> bool:
        """Whether cells are some of those that were trained on: by name, place in the trajectories, and expression."""
        names = cells.adata.obs_names
        if self.adata is None or not self.adata.obs_names.is_unique or not names.is_unique:
            return False
        positions = self.adata.obs_names.get_indexer(names)
        if (positions < 0).any():
            return False
        own, order = self._cells(), np.argsort(positions)
        # Memberships count up to their unit; cells of a batch that the model does not know have none.
        shares, own_shares = (
            one.weights / np.maximum(one.weights.sum(1, keepdims=True), np.finfo(float).tiny) for one in (cells, own)
        )
        member = cells.weights > 0  # on the clock of another trajectory, rounding may be large
        return bool(
            self._is_training_data(own)
            and np.allclose(cells.times[member], own.times[positions][member], rtol=0.0, atol=_SAME_TIME)
            and np.allclose(shares, own_shares[positions])
            and not sums_differ(own.fingerprints(positions[order]), cells.fingerprints()[order])
        )

    def _paths(self, replicate: int | None) -> torch.Tensor:
        """Path matrices of one replicate in module units: fields × targets × coordinates of the state."""
        chosen = self._replicate(replicate)
        return self.module.path_matrix(slice(chosen, chosen + 1))[0]

    def _fields(self, lineage: str | None) -> list[int]:
        """Fields that belong to a lineage, or all."""
        places = self._places(lineage)
        return places if self.module.n_fields > 1 else [0]

    def _places(self, lineage: str | None) -> list[int]:
        """Place of a lineage among the lineages, or of all."""
        if lineage is None:
            return list(range(len(self.lineages)))
        if lineage not in self.lineages:
            raise ValueError(f"Expected `lineage` to be one of {self.lineages}, found {lineage!r}.")
        return [self.lineages.index(lineage)]

    def _on_device(self, values: np.ndarray) -> torch.Tensor:
        """The values as a tensor in single precision, where the module is."""
        return torch.as_tensor(values, dtype=torch.float32, device=self.module.device)

    def _require_trained(self) -> None:
        if not self.is_trained_:
            raise RuntimeError("Expected a trained model, found an untrained one. Call `train()` first.")
