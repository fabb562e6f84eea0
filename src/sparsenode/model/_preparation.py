"""What a training needs from the data: units, initial states and batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scanpy.pp import pca

from sparsenode.model._data import Cells, check_distinct_times, full_batch, relative_spans, standardisation
from sparsenode.model._own_cells import OwnCellsMixin
from sparsenode.model._pairs import check_coupled, correct_batches, pair_batch, rows_of, warn_of_ties
from sparsenode.module._module import N_REFERENCE
from sparsenode.module._start import start_accelerations, start_linear
from sparsenode.objectives import Transport
from sparsenode.objectives._collocation import SmoothedTrajectories, smooth
from sparsenode.objectives._nulls import BANDWIDTH, NullModels
from sparsenode.objectives._statistics import StreamedData, TrajectoryStatistics
from sparsenode.objectives._transport import Pairs, couple_cells, noise_to_signal
from sparsenode.training._splitter import Batches, StatisticsSplitter

_FAR = 3.0  # mean expression over its spread, beyond which zero is no level that expression could decay to


class PreparationMixin(OwnCellsMixin):
    """What :class:`sparsenode.SparseNODE` does before it trains."""

    data_range_: np.ndarray | None
    deviation_: np.ndarray | None
    lineage_deviation_: np.ndarray | None
    null_models_: NullModels | None

    def _half_samples(self, cells: Cells, training: np.ndarray) -> list[np.ndarray]:
        """Masks of half of the training cells of every trajectory; with its complement, each serves two seeds."""
        rng, trajectory = np.random.default_rng(self._seed), cells.weights.argmax(1)
        masks = []
        for _ in range((len(self.module.seeds) + 1) // 2):
            drawn = rng.permutation(np.flatnonzero(training))
            mask = np.zeros_like(training)
            mask[drawn[np.argsort(trajectory[drawn], kind="stable")][1::2]] = True
            masks.append(mask)
        return masks

    def _prepare(
        self,
        indices: tuple[np.ndarray, np.ndarray, np.ndarray],
        steps_per_epoch: int,
        half_samples: bool,
        fitted: str,
    ) -> StatisticsSplitter:
        """Stream the cells, set the data-derived buffers of the module, and build the loaders of an objective."""
        cells = self._training_cells()
        training, validation = np.zeros((2, self.adata.n_obs), dtype=bool)
        training[indices[0]], validation[indices[1]] = True, True
        module = self.module
        smoothed = fitted == "collocation" or module.order == 2
        if smoothed:
            check_distinct_times(cells, training)
        data = cells.stream(
            training,
            validation,
            module.n_knots,
            self._initial_state,
            self._initial_bandwidth,
            self._seed,
            self._half_samples(cells, training) if half_samples and fitted != "transport" else [],
            # Frames of a time series lie dense on smooth curves: there a few are enough, and more would blur them.
            BANDWIDTH if module.order == 1 else 0.0,
        )
        centre = data.training.mean
        null = data.training.centred(centre).square.sum()
        if null <= 0:
            raise ValueError(
                "Expected expression to vary between the cells of a trajectory, found every gene constant."
            )
        if not self.is_trained_:
            self._choose_units(data, cells, float(null), fitted)
        spans = self._take_spans(cells)
        self.data_range_ = data.range
        self.null_models_ = NullModels.fit(data, cells.lineages, len(self.lineages), self._lineage_clocks(cells))
        batch_size = None
        if fitted == "transport" and isinstance(self.objective, Transport):
            batches = self._pairs(cells, training, validation, spans, self.objective, half_samples)
            batch_size = self.objective.batch_size
        # In the units of the pairs, if there are any.
        module.initial_state.copy_(torch.as_tensor(self._encode(data.initial_state)))
        curves = self._smooth(data, spans) if smoothed else []
        if module.initial_velocity is not None:
            self._start_second_order(curves, spans)
        if fitted == "collocation":
            batches = self._collocation(curves, cells.lineages, spans)
        elif fitted == "trajectory":
            batches = self._statistics(data)
        return StatisticsSplitter(batches, indices, steps_per_epoch, batch_size, self._seed)

    @torch.no_grad()
    def _take_spans(self, cells: Cells) -> np.ndarray:
        """Give the module the lengths of the trajectories, in its unit of time, which are returned."""
        donors = list(cells.trajectories["batch"])
        spans, unit = relative_spans(cells.lineages, donors, cells.spans, self._align_batches)
        if self.is_trained_ and not self._align_batches:  # rates were learned per that unit of time
            known = float(self.module.time_unit)
            spans, unit = spans * unit / known, known
        self._take_clock(cells)
        self.module.time_unit.fill_(unit)
        self.module.relative_span.copy_(torch.as_tensor(spans))
        return spans

    def _statistics(self, data: StreamedData) -> Batches:
        """Statistics of the trajectories, in module units: those of all training cells, of every seed's, and of held-out ones."""

        def batch(*samples: TrajectoryStatistics) -> dict[str, torch.Tensor]:
            return full_batch(samples, data.training.mean, self._units, data.early)

        full, halves = batch(data.training), data.halves[: len(self.module.seeds)]
        held_out = batch(data.validation) if data.validation.weight.sum() > 0 else None
        return Batches(batch(*halves) if halves else full, held_out, full)

    def _choose_units(self, data: StreamedData, cells: Cells, null: float, fitted: str) -> None:
        """Units of the module, which later trainings keep, and how much genes deviate; transport has units of its own."""
        if fitted != "transport":
            weight = data.training.weight
            scale, mean = np.sqrt(null / weight.sum() / len(self.genes)), weight @ data.training.mean / weight.sum()
            self.module.scale.fill_(float(scale))
            # Far from zero slopes are badly conditioned, and a decay to zero pulls trajectories away; "both" forecast worse around the mean.
            if self._objective_name != "both" or np.sqrt(np.square(mean).mean()) > _FAR * scale:
                self.module.centre.copy_(torch.as_tensor(mean))
            self.deviation_ = data.deviation
        own = (np.flatnonzero(np.equal(cells.lineages, lineage)) for lineage in range(len(self.lineages)))
        self.lineage_deviation_ = np.stack([data.deviation_within(trajectories) for trajectories in own])

    def _smooth(self, data: StreamedData, spans: np.ndarray) -> list[SmoothedTrajectories]:
        """Smoothed trajectories of all training cells, or of those of every seed."""
        return [smooth(sample, spans) for sample in data.halves[: len(self.module.seeds)] or [data.training]]

    def _start_second_order(self, curves: Sequence[SmoothedTrajectories], spans: np.ndarray) -> None:
        """Choose the unit of velocities, and start from the observed slopes and accelerations, those of every seed's cells."""
        module = self.module
        if self.is_trained_:
            return  # training goes on from what was learned
        module.rate.fill_(float(np.mean([curve.rate(spans) for curve in curves])))
        module.start_velocity_network(self._initial_velocities(curves, spans))
        if self._objective_name == "trajectory":
            batch = self._collocation_batch(curves, spans)
            batch = {name: tensor.to(module.device) for name, tensor in batch.items()}
            start_linear(module, batch)
            start_accelerations(module, batch)

    def _initial_velocities(self, curves: Sequence[SmoothedTrajectories], spans: np.ndarray) -> torch.Tensor:
        """Slopes of smoothed trajectories at their start in module units, trajectories × variables; seeds share them."""
        clock = spans[:, None] * self.module.rate.double().cpu().numpy()
        return torch.as_tensor(np.mean([curve.derivatives[:, 0] for curve in curves], 0) / self._units[1] / clock)

    def _pairs(
        self,
        cells: Cells,
        training: np.ndarray,
        validation: np.ndarray,
        spans: np.ndarray,
        transport: Transport,
        half_samples: bool,
    ) -> Batches:
        """Couple the cells, and set the units of the module."""
        module = self.module
        z, mean, deviation = standardisation(cells, training)
        rate = None
        if self.is_trained_:  # the weights were learned in these units
            mean, deviation, rate = (unit.double().cpu().numpy() for unit in (module.centre, module.scale, module.rate))
        z -= mean  # in place: it is the largest table that there is
        z /= deviation
        n_pcs = min(transport.n_pcs, min(z.shape) - 1)
        embedding = z if z.shape[1] <= transport.n_pcs else pca(z, n_comps=n_pcs, random_state=self._seed)
        pairs, *of_halves = self._couple(cells, training, embedding, transport, half_samples)
        full, rate = pair_batch([pairs], z, cells, spans, rate)
        halves = pair_batch(of_halves, z, cells, spans, rate)[0] if half_samples else None
        regulators = np.arange(z.shape[1]) if self._regulators is None else np.asarray(self._regulators)
        noise = noise_to_signal(pairs, z[:, regulators], cells.weights[pairs.start, pairs.trajectory])
        if transport.ridge > 0 and module.regularizer.weights_paths:
            module.ridge = transport.ridge * noise
        held_out = None
        if validation.any():  # by themselves they have few windows, whose lags are long
            used = cells.weights * (training | validation)[:, None]
            everyone = couple_cells(cells.times, used, embedding, transport)
            held_out, _ = pair_batch([everyone], z, cells, spans, rate)
        correct_batches(full, halves, held_out, embedding, cells, regulators, transport, noise)
        held_out = None if held_out is None else rows_of(held_out, validation)
        for lineage in range(len(self.lineages)):
            columns = [m for m, own in enumerate(cells.lineages) if own == lineage]
            weights = cells.weights[:, columns].sum(1) * training
            self._refer(lineage, z[weights > 0], weights[weights > 0])
        for buffer, values in ((module.centre, mean), (module.scale, deviation), (module.rate, rate)):
            buffer.copy_(torch.as_tensor(values))
        return Batches(full if halves is None else halves, held_out, full)

    def _couple(
        self, cells: Cells, training: np.ndarray, embedding: np.ndarray, transport: Transport, half_samples: bool
    ) -> list[Pairs]:
        """Couple the training cells, and the half that each seed sees by itself: halves would share cells otherwise."""
        samples = [training]
        if half_samples:
            halves = [half for mask in self._half_samples(cells, training) for half in (mask, training & ~mask)]
            samples += halves[: len(self.module.seeds)]
        warn_of_ties(cells, samples[-1], transport)  # a half, where seeds see halves: it has fewer windows
        try:
            coupled = [couple_cells(cells.times, cells.weights * own[:, None], embedding, transport) for own in samples]
        except ValueError as error:
            if half_samples:
                error.add_note("Every half of the cells is coupled by itself. Without `half_samples` all are together.")
            raise
        fitted = coupled[1:] if half_samples else coupled
        check_coupled(cells, fitted, transport, self.lineages, self.module.n_fields > 1)
        return coupled

    def _collocation(
        self, curves: Sequence[SmoothedTrajectories], lineages: Sequence[int], spans: np.ndarray
    ) -> Batches:
        """Start learned initial states and linear skips from smoothed trajectories, and sample these."""
        module = self.module
        batch = self._collocation_batch(curves, spans)
        if module.start_offset is not None:
            starts = module.by_replicate(batch["states"][:, :, 0, : module.n_vars]).to(module.device)
            module.start_offset.data.copy_(starts - module.initial_state)
        if module.order == 2:  # they belong to the starts, which have moved
            module.take_velocities(self._initial_velocities(curves, spans))
        if not self.is_trained_:
            start_linear(module, {name: tensor.to(module.device) for name, tensor in batch.items()})
        for lineage in range(len(self.lineages)):
            own = [m for m, index in enumerate(lineages) if index == lineage]
            self._refer(lineage, batch["states"][0, own].flatten(0, 1).numpy())
        return Batches(batch, None, batch)

    def _collocation_batch(self, curves: Sequence[SmoothedTrajectories], spans: np.ndarray) -> dict[str, torch.Tensor]:
        """Tensors of a collocation fit in module units: states, and what the field adds to them over the trajectory."""
        module, scale = self.module, self._units[1]
        clock = (spans[:, None] * module.rate.double().cpu().numpy())[:, None]
        states = np.stack([self._encode(curve.states) for curve in curves])
        derivatives = np.stack([curve.derivatives for curve in curves]) / scale
        precision = np.stack([curve.precision for curve in curves])
        if module.order == 2:
            states = np.concatenate([states, derivatives / clock], 3)
            derivatives = np.stack([curve.curvatures for curve in curves]) / scale / clock
            precision = np.stack([curve.curvature_precision for curve in curves]) * clock**2
        precision /= (precision * derivatives**2).sum((1, 2, 3), keepdims=True)
        arrays = {"states": states, "derivatives": derivatives, "precision": precision}
        return {name: torch.as_tensor(array, dtype=torch.float32) for name, array in arrays.items()}

    def _refer(self, lineage: int, states: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Keep the states of a lineage at which its Jacobian is averaged, by their weights: all, or some that are drawn of many."""
        rng = np.random.default_rng([self._seed, lineage])
        share = np.ones(len(states)) if weights is None else weights / weights.max()
        if len(states) > N_REFERENCE:
            uniform = np.ptp(share) == 0
            chosen = rng.choice(len(states), N_REFERENCE, not uniform, None if uniform else share / share.sum())
            states, share = states[chosen], np.ones(N_REFERENCE)
        for buffer, values in ((self.module.reference, states), (self.module.reference_weight, share)):
            buffer[lineage] = 0.0
            buffer[lineage, : len(values)] = torch.as_tensor(values)
