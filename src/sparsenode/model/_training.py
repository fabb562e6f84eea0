"""Training: from registered cells to a fitted field."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scanpy.pp import pca
from scvi.train import TrainRunner

from sparsenode import _keys
from sparsenode._errors import DivergenceError
from sparsenode._logging import logger
from sparsenode.model import _checks
from sparsenode.model._both import find_network
from sparsenode.model._data import (
    Cells,
    check_coupled,
    full_batch,
    pair_batch,
    relative_spans,
    standardisation,
    warn_of_ties,
)
from sparsenode.model._own_cells import OwnCellsMixin
from sparsenode.model._regularization import RegularizationMixin
from sparsenode.module import N_REFERENCE
from sparsenode.module._diverging import diverging, give_up
from sparsenode.module._polish import polish
from sparsenode.module._start import start_accelerations, start_linear
from sparsenode.objectives import (
    NullModels,
    Pairs,
    SmoothedTrajectories,
    StreamedData,
    Transport,
    couple_cells,
    noise_to_signal,
    smooth,
)
from sparsenode.objectives._nulls import BANDWIDTH
from sparsenode.training import (
    IterativeSparsification,
    PairsSplitter,
    StatisticsSplitter,
    TrainingPlan,
    limited_threads,
    n_rounds,
    split_cells,
)

_STEPS_PER_EPOCH = 10
_MAX_EPOCHS = {"trajectory": 50, "transport": 40, "collocation": 100}
# Regressions bear larger steps than solves; the other settings are those of the plan.
_PLANS: dict[str, dict[str, Any]] = {
    "trajectory": {},
    "transport": {"lr": 0.02},
    "collocation": {"lr": 0.03, "gate_lr": 1.0},
}

# What `train` does not pass on to the transport fit with the objective "both".
_NOT_OF_TRANSPORT = ("self", "objective", "refit", "key_added", "trainer_kwargs")


class TrainingMixin(OwnCellsMixin, RegularizationMixin):
    """The method :meth:`train` of :class:`sparsenode.SparseNODE`, and what it needs."""

    data_range_: np.ndarray | None
    _module_arguments: dict[str, Any]
    _data_splitter_cls = StatisticsSplitter
    _training_plan_cls = TrainingPlan
    _train_runner_cls = TrainRunner

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float = 0.9,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        early_stopping: bool = False,
        steps_per_epoch: int = _STEPS_PER_EPOCH,
        schedule: Literal["sparse", "iterative"] | IterativeSparsification | None = None,
        half_samples: bool = False,
        objective: Literal["trajectory"] | None = None,
        refit: bool = False,
        plan_kwargs: dict[str, Any] | None = None,
        key_added: str | None = _keys.KEY_ADDED,
        **trainer_kwargs: Any,
    ) -> None:
        """Fit the field, and write the results into the AnnData.

        With ``objective="both"`` two fits follow one another: transport with one field, whose network is kept in ``network_``, and the
        trajectories, with the zeros of that network held, no penalty, and weights that start anew. Arguments concern both, but
        ``schedule``, which concerns the first. Training such a model again goes on with the trajectories; for another network make
        a new model.

        Training again goes on from the weights, in the units of the first training (``centre``, ``scale`` and ``rate`` of the module),
        whatever cells are held out; initial states follow the training cells.

        Parameters
        ----------
        max_epochs
            Number of epochs: by default 40 for transport, 50 for trajectories and 100 for collocation. With an adaptive
            regularizer, the number in each round; a model that is trained already needs no round without adaptive weights first.
        accelerator, devices
            As in :class:`lightning.pytorch.Trainer`, but one device only: a step takes all cells at once.
        train_size, validation_size
            Shares of the cells for training and validation. Held-out cells get their own statistics.
        shuffle_set_split
            Whether the held-out cells are drawn at random (with ``seed`` of the model) or the last ones.
        early_stopping
            Stop when ``validation_loss`` no longer falls; see :class:`scvi.train.Trainer` for its settings.
        steps_per_epoch
            Optimisation steps in an epoch, each on all cells.
        schedule
            ``"sparse"``: the full strength from the start. ``"iterative"``, or an
            :class:`~sparsenode.training.IterativeSparsification` with other settings: train without penalty for
            ``max_epochs``, then raise the strength step by step; the steps are in ``model.sparsification_``. By default the
            choice of the regularizer: iterative for LassoNet, sparse for all others.
        half_samples
            Give every seed another random half of the training cells of every trajectory, as in stability selection: seeds come in
            pairs with complementary halves, and are compared on all cells. Needs ``n_seeds > 1``; see :meth:`get_edge_frequency`.
            With transport every half is coupled by itself, and memory grows with seeds × cells × genes.
        objective
            ``"trajectory"`` fine-tunes a transport or collocation fit on the trajectories, from its weights and in its units; by
            default the objective of the model, to which a plain ``train()`` goes back after fine-tuning: it changes the trajectories, and
            with collocation learned initial states start anew from the smoothed trajectories. Replicates whose trajectories diverge before that are given up, with a warning: their
            weights are zero and their errors infinite from then on, and no other method counts them.
        refit
            Hold the zeros of the network as they are, and fit what is left without penalty, which takes away its bias (the
            relaxed lasso). Needs a trained model. Held-out errors then compare networks, not penalties: to choose a strength,
            fit several, refit, and :meth:`select`.
        plan_kwargs
            ``lr``, ``gate_lr``, ``weight_decay`` and ``max_grad_norm``; see :class:`sparsenode.training.TrainingPlan`.
        key_added
            Results are written under this key, as by :meth:`write_results`, and by :meth:`select` later; ``None`` writes nothing.
        **trainer_kwargs
            Further arguments of :class:`scvi.train.Trainer`, for instance ``enable_checkpointing=True``. With ``objective="both"``
            the transport fit gets copies of ``callbacks`` and ``logger``, so that each fit has a state of its own.

        Raises
        ------
        DivergenceError
            If the integration or the loss leaves the finite numbers for the fourth time; until then training goes on from an
            earlier state with a third of the learning rate, with a warning. The model holds the best state so far.
        TypeError
            If an argument is none of this method or of a trainer.
        RuntimeError
            If a model that was never trained is to be fine-tuned or refitted.
        ValueError
            If expression is NaN or infinite, if a trajectory has no training cells, if lineages or batches are not those that the
            model was made for, if devices are several or precision is not single, if the data have other genes or hold something
            else under ``key_added``, or if an argument is out of range.
        """
        given = {name: value for name, value in locals().items() if name not in _NOT_OF_TRANSPORT and value is not None}
        if objective is not None:
            _checks.choice("objective", objective, ("trajectory",))
        if objective is not None or refit:
            self._require_trained()
        both = self.objective == "both"
        needs_network = both and not self.is_trained_
        refit = refit or both
        fitted = "trajectory" if both or objective is not None else self._objective_name
        adaptive = 0 if refit else self.module.regularizer.adaptive
        if max_epochs is None:
            max_epochs = _MAX_EPOCHS[fitted]
        _checks.trainer_arguments(trainer_kwargs)
        _checks.device(devices, trainer_kwargs.get("precision"))
        _checks.at_least("max_epochs", max_epochs, 1)
        _checks.at_least("steps_per_epoch", steps_per_epoch, 1)
        _checks.share("train_size", train_size, zero=False)
        if validation_size is not None:
            _checks.share("validation_size", validation_size)
        if self.adata is None:
            raise ValueError("Expected the model to hold data, found none. Load it with `adata=…` to train it further.")
        if key_added is not None:
            self._check_target(self.adata, self._origin(self.adata, None), key_added)
        indices = split_cells(self.adata.n_obs, train_size, validation_size, shuffle_set_split, self._seed)
        if early_stopping and len(indices[1]) == 0:
            raise ValueError("Expected held-out cells for `early_stopping`, found none. Lower `train_size`.")
        if half_samples and len(self.module.seeds) < 2:
            raise ValueError("Expected at least two seeds for `half_samples`, found one. Raise `n_seeds`.")
        plan_kwargs = {
            **_PLANS[fitted],
            **(plan_kwargs or {}),
            "refit": refit,
            "warm": self.is_trained_,
        }
        iterative = None if both or (refit and schedule is None) else self._schedule(schedule)
        if adaptive and early_stopping:
            raise ValueError(
                "Expected no `early_stopping` with an adaptive regularizer, whose rounds are of one length."
            )
        if iterative is not None:
            _checks.iterative(bool(adaptive or refit), self._hard_prior, early_stopping, trainer_kwargs)
            plan_kwargs |= {"schedule": iterative, "dense_epochs": max_epochs}
            max_epochs += iterative.n_epochs
        max_epochs *= n_rounds(adaptive, refit, self.is_trained_)
        if self.is_trained_ and self.fitted_ == "trajectory" and fitted != "trajectory":
            logger.warning(
                "Training goes back to the %s objective; `objective='trajectory'` goes on with trajectories.", fitted
            )
        if isinstance(trainer_kwargs.get("callbacks"), Sequence):
            trainer_kwargs["callbacks"] = list(trainer_kwargs["callbacks"])  # scvi-tools appends its own
        steps = find_network(self, given | trainer_kwargs) if needs_network else self.sparsification_ if both else None
        plan = self._training_plan_cls(self.module, **plan_kwargs)
        splitter = self._prepare(indices, steps_per_epoch, half_samples, fitted)
        if objective is not None:
            self._give_up()
        plan.given_up = self.given_up_
        if early_stopping and splitter.validation_tensors is None:
            raise ValueError(
                f"Expected no `early_stopping` with the {fitted} objective on these cells, for which there is no held-out error: "
                "collocation smooths the training cells, and transport needs enough held-out cells for two windows."
            )
        if splitter.validation_tensors is not None:
            trainer_kwargs.setdefault("check_val_every_n_epoch", 1)
        trainer_kwargs.setdefault("early_stopping_monitor", "validation_loss")
        runner = self._train_runner_cls(
            self,
            training_plan=plan,
            data_splitter=splitter,
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            early_stopping=early_stopping,
            **trainer_kwargs,
        )
        self.fitted_ = fitted
        try:
            with limited_threads(sum(parameter.numel() for parameter in self.module.parameters())):
                runner()
        except DivergenceError as error:
            self._restore(plan)
            raise DivergenceError(
                f"Training diverged: {error} Lower the learning rate, for instance "
                f"`plan_kwargs={{'lr': {plan.lr * plan.slowdown / 3:.2g}}}`, or raise the strength of the regularizer. "
                "The model keeps the best state so far."
            ) from error
        finally:
            self.module.fixed_gates = False
        if fitted == "transport" and iterative is None and not refit:
            self._polish(splitter)
            give_up(self.module, self.given_up_)
        self.regularization_path_ = self._make_path(splitter, self._regulators)
        self.sparsification_ = pd.DataFrame(plan.records) if plan.records else steps
        errors = self.regularization_path_["train_error" if splitter.validation_tensors is None else "validation_error"]
        self.selected_ = int(errors.argmin())
        self.key_added_ = key_added
        if key_added is not None:
            self._write(key_added)

    def _polish(self, splitter: StatisticsSplitter) -> None:
        """Put the linear part of a transport fit at its optimum, where the regularizer allows it."""
        if self.module.field.skip == "inner" and self.module.regularizer.convex_skip:
            polish(self.module, splitter.train_tensors)

    def _schedule(self, schedule: str | IterativeSparsification | None) -> IterativeSparsification | None:
        """The schedule as an object, ``None`` for sparse training."""
        chosen = self.module.regularizer.schedule if schedule is None else schedule
        if isinstance(chosen, IterativeSparsification):
            return chosen
        _checks.choice("schedule", chosen, ("sparse", "iterative"))
        return IterativeSparsification() if chosen == "iterative" else None

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

    def _restore(self, plan: TrainingPlan) -> None:
        """Put the best state of a failed training back."""
        if plan.best_state is not None:
            self.module.load_state_dict(plan.best_state)
            self.is_trained_ = True
        self.module.eval()

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
        batches = list(cells.trajectories["batch"])
        spans, unit = relative_spans(cells.lineages, batches, cells.spans, self._align_batches)
        if fitted != "transport" and not self.is_trained_:
            scale = float(np.sqrt(null / data.training.weight.sum() / len(self.genes)))
            module.scale.fill_(scale)
            if fitted == "collocation":  # far from zero the regression on slopes is badly conditioned
                weight = data.training.weight
                module.centre.copy_(torch.as_tensor(weight @ centre / weight.sum()))
            self.deviation_ = data.deviation
        if not self.is_trained_:
            own = (np.flatnonzero(np.equal(cells.lineages, lineage)) for lineage in range(len(self.lineages)))
            self.lineage_deviation_ = np.stack([data.deviation_within(trajectories) for trajectories in own])
        self._take_clock(cells)
        with torch.no_grad():
            module.time_unit.fill_(unit)
            module.relative_span.copy_(torch.as_tensor(spans))
        self.data_range_ = data.range
        self.null_models_ = NullModels.fit(data, cells.lineages, len(self.lineages))
        splitter: StatisticsSplitter | None = None
        if fitted == "transport" and isinstance(self.objective, Transport):
            masks = (training, validation)
            splitter = self._pairs(cells, masks, spans, self.objective, half_samples, indices, steps_per_epoch)
        module.initial_state.copy_(torch.as_tensor(self._encode(data.initial_state)))
        if splitter is not None:
            return splitter
        curves = self._smooth(data) if fitted == "collocation" or module.order == 2 else []
        if module.initial_velocity is not None:
            self._start_second_order(curves[0], spans)
        if fitted == "collocation":
            return self._collocation(data, curves, cells.lineages, spans, indices, steps_per_epoch)
        held_out = None
        if data.validation.weight.sum() > 0:
            held_out = full_batch([data.validation], centre, self._units, data.early)
        full = full_batch([data.training], centre, self._units, data.early)
        halves = data.halves[: len(module.seeds)]
        training_batch = full_batch(halves, centre, self._units, data.early) if halves else full
        return self._data_splitter_cls(training_batch, held_out, indices, steps_per_epoch, full)

    def _smooth(self, data: StreamedData) -> list[SmoothedTrajectories]:
        """Smoothed trajectories of all training cells, or of those of every seed."""
        return [smooth(sample) for sample in data.halves[: len(self.module.seeds)] or [data.training]]

    def _start_second_order(self, curves: SmoothedTrajectories, spans: np.ndarray) -> None:
        """Choose the unit of velocities, and start from the observed slopes and accelerations."""
        module = self.module
        if self.is_trained_:
            return  # training goes on from what was learned
        module.rate.fill_(curves.rate(spans))
        clock = spans[:, None] * module.rate.double().cpu().numpy()
        module.start_velocity(torch.as_tensor(curves.derivatives[:, 0] / self._units[1] / clock))
        if self._objective_name == "trajectory":
            batch = self._collocation_batch([curves], spans)
            batch = {name: tensor.to(module.device) for name, tensor in batch.items()}
            start_linear(module, batch)
            start_accelerations(module, batch)

    def _pairs(
        self,
        cells: Cells,
        masks: tuple[np.ndarray, np.ndarray],
        spans: np.ndarray,
        transport: Transport,
        half_samples: bool,
        indices: tuple[np.ndarray, np.ndarray, np.ndarray],
        steps_per_epoch: int,
    ) -> StatisticsSplitter:
        """Couple the cells, set the units of the module, and build the loaders of a transport fit."""
        module, (training, validation) = self.module, masks
        x, mean, deviation = standardisation(cells, training)
        rate = None
        if self.is_trained_:  # the weights were learned in these units
            mean, deviation, rate = (unit.double().cpu().numpy() for unit in (module.centre, module.scale, module.rate))
        z = (x - mean) / deviation
        n_pcs = min(transport.n_pcs, min(z.shape) - 1)
        embedding = z if z.shape[1] <= transport.n_pcs else pca(z, n_comps=n_pcs, random_state=self._seed)
        pairs, *of_halves = self._couple(cells, training, embedding, transport, half_samples)
        full, rate = pair_batch([pairs], z, cells, spans, rate)
        batch = pair_batch(of_halves, z, cells, spans, rate)[0] if half_samples else full
        if transport.ridge > 0 and module.regularizer.weights_paths:
            regulators = z if self._regulators is None else z[:, self._regulators]
            module.ridge = transport.ridge * noise_to_signal(
                pairs, regulators, cells.weights[pairs.start, pairs.trajectory]
            )
        held_out = None
        if np.median((cells.weights[validation] > 0).sum(0)) >= 2 * transport.min_cells:
            pairs = couple_cells(cells.times, cells.weights * validation[:, None], embedding, transport)
            held_out, _ = pair_batch([pairs], z, cells, spans, rate)
        for lineage in range(len(self.lineages)):
            columns = [m for m, own in enumerate(cells.lineages) if own == lineage]
            weights = cells.weights[:, columns].sum(1) * training
            self._refer(lineage, z[weights > 0], weights[weights > 0])
        for buffer, values in ((module.centre, mean), (module.scale, deviation), (module.rate, rate)):
            buffer.copy_(torch.as_tensor(values))
        if len(batch["state"]) <= transport.batch_size:
            return self._data_splitter_cls(batch, held_out, indices, steps_per_epoch, full)
        return PairsSplitter(batch, held_out, indices, steps_per_epoch, transport.batch_size, self._seed, full)

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
        self,
        data: StreamedData,
        curves: Sequence[SmoothedTrajectories],
        lineages: Sequence[int],
        spans: np.ndarray,
        indices: tuple[np.ndarray, np.ndarray, np.ndarray],
        steps_per_epoch: int,
    ) -> StatisticsSplitter:
        """Start learned initial states and linear skips from smoothed trajectories, and build the loaders."""
        module = self.module
        batch = self._collocation_batch(curves, spans)
        if module.start_offset is not None:
            starts = module._by_replicate(batch["states"][:, :, 0, : module.n_vars]).to(module.device)
            module.start_offset.data.copy_(starts - module.initial_state)
        if not self.is_trained_:
            start_linear(module, {name: tensor.to(module.device) for name, tensor in batch.items()})
        for lineage in range(len(self.lineages)):
            own = [m for m, index in enumerate(lineages) if index == lineage]
            self._refer(lineage, batch["states"][0, own].flatten(0, 1).numpy())
        return self._data_splitter_cls(batch, None, indices, steps_per_epoch)

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
            precision = np.stack([curve.curvature_precision for curve in curves])
        precision /= (precision * derivatives**2).sum((1, 2, 3), keepdims=True)
        arrays = {"states": states, "derivatives": derivatives, "precision": precision}
        return {name: torch.as_tensor(array, dtype=torch.float32) for name, array in arrays.items()}

    def _refer(self, lineage: int, states: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Keep some states of a lineage, drawn by their weights, at which its Jacobian is averaged."""
        rng = np.random.default_rng([self._seed, lineage])
        if weights is None or np.ptp(weights) == 0:
            chosen = rng.choice(len(states), N_REFERENCE, replace=len(states) < N_REFERENCE)
        else:
            chosen = rng.choice(len(states), N_REFERENCE, p=weights / weights.sum())
        self.module.reference[lineage] = torch.as_tensor(states[chosen])

    def _give_up(self) -> None:
        """Give up replicates that cannot be fine-tuned because their trajectories diverge, beside those given up before."""
        found = diverging(self.module)
        given_up = sorted({*self.given_up_, *found})
        if len(given_up) == self.module.n_replicates:
            raise DivergenceError(
                "The trajectories of every replicate diverge before they are fine-tuned. Raise the strength of the regularizer, "
                "or fit with the trajectory objective from the start."
            )
        if found:
            strengths = sorted({f"{float(self.module.strength[r]):g}" for r in found})
            warnings.warn(
                f"The trajectories of {len(found)} of {self.module.n_replicates} replicates diverge (strengths "
                f"{', '.join(strengths)}): they are given up for good, their weights are zero and their errors infinite.",
                UserWarning,
                stacklevel=3,
            )
            give_up(self.module, found)
        self.given_up_ = given_up
