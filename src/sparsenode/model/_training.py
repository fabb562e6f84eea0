"""Training: from registered cells to a fitted field."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scanpy.pp import pca
from scvi.train import TrainRunner

from sparsenode import _keys
from sparsenode._errors import DivergenceError
from sparsenode.model import _checks
from sparsenode.model._data import Cells, full_batch, pair_batch, relative_spans, standardisation
from sparsenode.model._regularization import RegularizationMixin
from sparsenode.module import N_REFERENCE
from sparsenode.objectives import NullModels, Transport, couple_cells
from sparsenode.training import (
    IterativeSparsification,
    PairsSplitter,
    StatisticsSplitter,
    TrainingPlan,
    limited_threads,
    split_cells,
)

_STEPS_PER_EPOCH = 10
_MAX_EPOCHS = {"trajectory": 50, "transport": 40}
_TRANSPORT_LR = 0.02


class TrainingMixin(RegularizationMixin):
    """The method :meth:`train` of :class:`sparsenode.SparseNODE`, and what it needs."""

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
        plan_kwargs: dict[str, Any] | None = None,
        key_added: str | None = _keys.KEY_ADDED,
        **trainer_kwargs: Any,
    ) -> None:
        """Fit the field, and write the results into the AnnData.

        One pass over the cells accumulates what the loss needs; after it, a step costs the same for any number of
        cells.

        Parameters
        ----------
        max_epochs
            Number of epochs, 50 by default, or 40 with the transport objective.
        accelerator, devices
            As in :class:`lightning.pytorch.Trainer`.
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
            Give every seed another random half of the training cells, as in stability selection: seeds come in pairs with
            complementary halves. Needs ``n_seeds > 1``; see :meth:`get_edge_frequency`.
        objective
            ``"trajectory"`` fine-tunes a transport fit on the trajectories, from its weights and in its units; by default the
            objective of the model.
        plan_kwargs
            ``lr``, ``gate_lr``, ``weight_decay`` and ``max_grad_norm``; see :class:`sparsenode.training.TrainingPlan`.
        key_added
            Results are written under this key, as by :meth:`write_results`; ``None`` writes nothing.
        **trainer_kwargs
            Further arguments of :class:`scvi.train.Trainer`, for instance ``enable_checkpointing=True``.

        Raises
        ------
        DivergenceError
            If the integration or the loss leaves the finite numbers. The model holds the best state so far.
        RuntimeError
            If a model that was never trained is to be fine-tuned.
        ValueError
            If expression is NaN or infinite, if a trajectory has no training cells, or if an argument is out of range.
        """
        transport = self.objective if objective is None and isinstance(self.objective, Transport) else None
        if objective is not None:
            _checks.choice("objective", objective, ("trajectory",))
            self._require_trained()
        if max_epochs is None:
            max_epochs = _MAX_EPOCHS["trajectory" if transport is None else "transport"]
        _checks.at_least("max_epochs", max_epochs, 1)
        _checks.at_least("steps_per_epoch", steps_per_epoch, 1)
        if self.adata is None:
            raise ValueError("Expected the model to hold data, found none. Load it with `adata=…` to train it further.")
        indices = split_cells(self.adata.n_obs, train_size, validation_size, shuffle_set_split, self._seed)
        if early_stopping and len(indices[1]) == 0:
            raise ValueError("Expected held-out cells for `early_stopping`, found none. Lower `train_size`.")
        if half_samples and len(self.module.seeds) < 2:
            raise ValueError("Expected at least two seeds for `half_samples`, found one. Raise `n_seeds`.")
        plan_kwargs = ({} if transport is None else {"lr": _TRANSPORT_LR}) | (plan_kwargs or {})
        iterative = self._schedule(schedule)
        if iterative is not None:
            if early_stopping or trainer_kwargs.get("check_val_every_n_epoch", 1) != 1:
                raise ValueError(
                    "Expected neither `early_stopping` nor `check_val_every_n_epoch` with an iterative schedule, which stops by "
                    "itself and needs the held-out error of every epoch. Leave them out, or take `schedule='sparse'`."
                )
            plan_kwargs |= {"schedule": iterative, "dense_epochs": max_epochs}
            max_epochs += iterative.n_epochs
        plan = self._training_plan_cls(self.module, **plan_kwargs)
        splitter = self._prepare(indices, steps_per_epoch, half_samples, transport)
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
        try:
            with limited_threads(sum(parameter.numel() for parameter in self.module.parameters())):
                runner()
        except DivergenceError as error:
            self._restore(plan)
            raise DivergenceError(
                f"Training diverged: {error} Lower the learning rate, for instance "
                f"`plan_kwargs={{'lr': {plan.lr / 3:.2g}}}`, or raise the strength of the regularizer. "
                "The model keeps the best state so far."
            ) from error
        self.regularization_path_ = self._make_path(splitter, self._regulators)
        self.sparsification_ = pd.DataFrame(plan.records) if plan.records else None
        errors = self.regularization_path_["train_error" if splitter.validation_tensors is None else "validation_error"]
        self.selected_ = int(errors.argmin())
        if key_added is not None:
            self._write(key_added, diverges=transport is not None)

    def _schedule(self, schedule: str | IterativeSparsification | None) -> IterativeSparsification | None:
        """The schedule as an object, ``None`` for sparse training."""
        chosen = self.module.regularizer.schedule if schedule is None else schedule
        if isinstance(chosen, IterativeSparsification):
            return chosen
        _checks.choice("schedule", chosen, ("sparse", "iterative"))
        return IterativeSparsification() if chosen == "iterative" else None

    def _half_samples(self, training: np.ndarray) -> list[np.ndarray]:
        """Masks of half of the training cells each; with its complement, each serves two seeds."""
        rng, cells = np.random.default_rng(self._seed), np.flatnonzero(training)
        masks = []
        for _ in range((len(self.module.seeds) + 1) // 2):
            mask = np.zeros_like(training)
            mask[rng.permutation(cells)[: len(cells) // 2]] = True
            masks.append(mask)
        return masks

    def _write(self, key_added: str, diverges: bool) -> None:
        """Write results; a field that no trajectory was fitted to may diverge when it is integrated."""
        try:
            self.write_results(key_added=key_added)
        except DivergenceError as error:
            if not diverges:
                raise
            warnings.warn(
                f"The trajectories of this transport fit diverge, so no results were written. {error} Read the network with "
                "`get_network`, or fit the trajectories too with `train(objective='trajectory')`.",
                UserWarning,
                stacklevel=3,
            )

    def _restore(self, plan: TrainingPlan) -> None:
        """Put the best state of a failed training back."""
        if plan.best_state is not None:
            self.module.load_state_dict(plan.best_state)
            self.is_trained_ = True
        self.module.eval()

    @property
    def _objective_name(self) -> str:
        return "transport" if isinstance(self.objective, Transport) else "trajectory"

    def _prepare(
        self,
        indices: tuple[np.ndarray, np.ndarray, np.ndarray],
        steps_per_epoch: int,
        half_samples: bool,
        transport: Transport | None,
    ) -> StatisticsSplitter:
        """Stream the cells, set the data-derived buffers of the module, and build the loaders."""
        cells = self._cells()
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
            self._half_samples(training) if half_samples and transport is None else [],
        )
        centre = data.training.mean
        null = data.training.centred(centre).square.sum()
        if null <= 0:
            raise ValueError(
                "Expected expression to vary between the cells of a trajectory, found every gene constant."
            )
        spans, unit = relative_spans(cells.lineages, cells.spans, self._align_batches)
        if transport is None and self._objective_name == "trajectory":
            scale = float(np.sqrt(null / data.training.weight.sum() / len(self.genes)))
            module.scale.fill_(scale)
        with torch.no_grad():
            module.time_unit.fill_(unit)
            module.relative_span.copy_(torch.as_tensor(spans))
        self.null_models_ = NullModels.fit(data, cells.lineages, len(self.lineages))
        if transport is not None:
            splitter = self._pairs(
                cells, (training, validation), spans, transport, half_samples, indices, steps_per_epoch
            )
            module.initial_state.copy_(torch.as_tensor(self._encode(data.initial_state)))
            return splitter
        module.initial_state.copy_(torch.as_tensor(self._encode(data.initial_state)))
        held_out = None
        if data.validation.weight.sum() > 0:
            held_out = full_batch([data.validation], centre, self._units, data.early)
        full = full_batch([data.training], centre, self._units, data.early)
        halves = data.halves[: len(module.seeds)]
        training_batch = full_batch(halves, centre, self._units, data.early) if halves else full
        return self._data_splitter_cls(training_batch, held_out, indices, steps_per_epoch, full)

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
        z = (x - mean) / deviation
        embedding = z if z.shape[1] <= transport.n_pcs else pca(z, n_comps=transport.n_pcs, random_state=self._seed)
        halves = [half for mask in self._half_samples(training) for half in (mask, training & ~mask)]
        samples = halves[: len(module.seeds)] if half_samples else []
        pairs = couple_cells(cells.times, cells.weights * training[:, None], embedding, transport)
        batch, rate = pair_batch(pairs, z, cells, spans, samples, None)
        held_out = None
        if np.median((cells.weights[validation] > 0).sum(0)) >= 2 * transport.min_cells:
            pairs = couple_cells(cells.times, cells.weights * validation[:, None], embedding, transport)
            held_out, _ = pair_batch(pairs, z, cells, spans, [], rate)
        rng = np.random.default_rng(self._seed)
        for lineage in range(len(self.lineages)):
            columns = [m for m, own in enumerate(cells.lineages) if own == lineage]
            members = np.flatnonzero((cells.weights[:, columns].sum(1) > 0) & training)
            chosen = rng.choice(members, N_REFERENCE, replace=len(members) < N_REFERENCE)
            module.reference[lineage] = torch.as_tensor(z[chosen])
        for buffer, values in ((module.centre, mean), (module.scale, deviation), (module.rate, rate)):
            buffer.copy_(torch.as_tensor(values))
        if len(batch["state"]) <= transport.batch_size:
            return self._data_splitter_cls(batch, held_out, indices, steps_per_epoch)
        return PairsSplitter(batch, held_out, indices, steps_per_epoch, transport.batch_size, self._seed)
