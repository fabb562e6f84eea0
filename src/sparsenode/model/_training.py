"""Training: from registered cells to a fitted field."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scvi.train import TrainRunner

from sparsenode import _checks, _keys
from sparsenode._errors import DivergenceError
from sparsenode._logging import logger
from sparsenode.model._both import find_network
from sparsenode.model._history import continued
from sparsenode.model._preparation import PreparationMixin
from sparsenode.model._regularization import RegularizationMixin
from sparsenode.model._training_arguments import (
    check_device,
    check_early_stopping,
    check_iterative,
    check_plan,
    check_trainer,
)
from sparsenode.model._undo import snapshot
from sparsenode.module._diverging import diverging, give_up, warn_given_up
from sparsenode.module._polish import polish
from sparsenode.training import IterativeSparsification, TrainingPlan
from sparsenode.training._messages import without_noise
from sparsenode.training._plan import n_rounds
from sparsenode.training._splitter import StatisticsSplitter, split_cells
from sparsenode.training._threads import limited_threads

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


@dataclass(frozen=True)
class _Fit:
    """What a training fits, and how."""

    objective: str
    #: Epochs of all rounds and of the schedule together.
    max_epochs: int
    plan_kwargs: dict[str, Any]
    #: Whether the linear part is solved for in the end.
    is_polished: bool


class TrainingMixin(PreparationMixin, RegularizationMixin):
    """The method :meth:`train` of :class:`sparsenode.SparseNODE`, and what it needs."""

    #: Metrics of all trainings by name, each a table with a row per epoch; ``None`` before training.
    history_: dict[str, pd.DataFrame] | None
    _module_arguments: dict[str, Any]
    _training_plan_cls = TrainingPlan
    _train_runner_cls = TrainRunner
    #: Whether the batch of all training cells is kept, as in the first fit of ``objective="both"``.
    _keeps_pairs = False
    _kept_pairs: dict[str, torch.Tensor]

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

        With ``objective="both"`` there are two fits. The first is transport with one field, whose network is kept in ``network_``. The
        second fits the trajectories: it holds the zeros of that network, has no penalty, and starts from new weights. All arguments apply
        to both fits, except ``schedule``, which applies to the first.

        Training again continues from the current weights, in the units of the first training (``centre``, ``scale`` and ``rate`` of the
        module), whatever cells are held out; initial states follow the training cells. With ``objective="both"`` it continues with the
        trajectories; for another network make a new model.

        A training that fails or is interrupted (Lightning raises ``SystemExit``) leaves the model as it was, unless it diverges; see
        ``DivergenceError`` below.

        Parameters
        ----------
        max_epochs
            Number of epochs. Default: 40 for transport, 50 for trajectories, 100 for collocation. With an adaptive regularizer, the number
            per round; if the model is already trained, the first round, which has no adaptive weights yet, is skipped.
        accelerator, devices
            As in :class:`lightning.pytorch.Trainer`, but only one device, since a step takes all cells at once, and not Apple's graphics
            cards (``"mps"``, and ``"gpu"`` there), which lack double precision.
        train_size, validation_size
            Shares of the cells for training and for validation. Default: 0.9, and all others. Validation cells are held out.
        shuffle_set_split
            Whether held-out cells are drawn at random with the ``seed`` of the model, the default, or are the last rows.
        early_stopping
            Whether to stop when ``validation_loss`` no longer falls; :class:`scvi.train.Trainer` has the settings.
        steps_per_epoch
            Optimisation steps in an epoch, each on all cells; with transport on ``batch_size`` of them, if there are more.
        schedule
            How the penalty is applied.

            - ``"sparse"``, the default except for LassoNet: at full strength from the start.
            - ``"iterative"``, the default for LassoNet, or an :class:`~sparsenode.training.IterativeSparsification` with other settings:
              train without penalty for ``max_epochs``, then raise the strength step by step. ``model.sparsification_`` lists the steps.
        half_samples
            Whether to give every seed another random half of the training cells of every trajectory, as in stability selection; see
            :meth:`get_edge_frequency`. Needs ``n_seeds > 1``. Seeds come in pairs with complementary halves, and are compared on all cells.
            With transport every half is coupled by itself, and memory grows with seeds × cells × genes.
        objective
            Default: the objective of the model. ``"trajectory"``: fine-tune a transport or collocation fit on the trajectories, from its
            weights and in its units.

            - Replicates whose trajectories diverge beforehand are given up, with a warning, as are those that keep diverging in training.
              From then on their weights are zero, their errors infinite, and no other method counts them.
            - A later ``train()`` without it goes back to the objective of the model, and so changes the trajectories. With collocation,
              learned initial states and velocities then start anew from the smoothed trajectories.
        refit
            Whether to hold the zeros of the network and fit the rest without penalty, which removes its bias (the relaxed lasso). Needs a
            trained model. Held-out errors then compare networks, not penalties: to choose a strength, fit several, refit, and
            :meth:`select`.
        plan_kwargs
            ``lr``, ``gate_lr``, ``weight_decay`` and ``max_grad_norm``; see :class:`sparsenode.training.TrainingPlan`.
        key_added
            Key under which results are written, as by :meth:`write_results`; :meth:`select` uses it later too. ``None`` writes nothing.
        **trainer_kwargs
            Further arguments of :class:`scvi.train.Trainer`, for instance ``enable_checkpointing=True``. With ``objective="both"`` the
            transport fit gets copies of ``callbacks`` and ``logger``, so that each fit has a state of its own.

        Raises
        ------
        DivergenceError
            If all replicates have diverged for the fourth time: the integration or the loss leaves the finite numbers, or an epoch ends with
            a squared error of more than 1e9 times the variance. The first three times a replicate continues from an earlier state with a
            third of the learning rate, with a warning; the fourth time it is given up, and the others continue. After the error the model
            holds the best state so far; if the network fit of ``objective="both"`` diverges, what it held before.
        TypeError
            If an argument is unknown to this method, its plan and the trainer, or a switch is not a boolean.
        RuntimeError
            If a model that was never trained is to be fine-tuned or refitted.
        ValueError
            If one of these holds:

            - expression is NaN or infinite, or a trajectory has no training cells,
            - genes, lineages or batches are not those that the model was made for,
            - several devices or a graphics card of Apple are asked for, or precision is not single,
            - the data hold something else under ``key_added``,
            - an argument is out of range.
        """
        given = {name: value for name, value in locals().items() if name not in _NOT_OF_TRANSPORT and value is not None}
        _checks.booleans(
            shuffle_set_split=shuffle_set_split, early_stopping=early_stopping, half_samples=half_samples, refit=refit
        )
        self._check_arguments(
            max_epochs,
            steps_per_epoch,
            train_size,
            validation_size,
            accelerator,
            devices,
            half_samples,
            key_added,
            trainer_kwargs,
        )
        fit = self._resolve(objective, schedule, refit, max_epochs, early_stopping, plan_kwargs, trainer_kwargs)
        indices = split_cells(self.adata.n_obs, train_size, validation_size, shuffle_set_split, self._seed)
        if early_stopping and len(indices[1]) == 0:
            raise ValueError("Expected held-out cells for `early_stopping`, found none. Lower `train_size`.")
        both = self.objective == "both"
        steps = self.sparsification_ if both else None
        with ExitStack() as undo, without_noise(), limited_threads(self.module):
            undo.callback(snapshot(self))
            if both and not self.is_trained_:
                steps = find_network(self, given | trainer_kwargs)
            plan = self._training_plan_cls(self.module, **fit.plan_kwargs)
            splitter = self._prepare(indices, steps_per_epoch, half_samples, fit.objective)
            validates = splitter.batches.validation is not None
            check_early_stopping(early_stopping, validates, fit.objective)
            if objective is not None:
                self._give_up()
            plan.given_up = list(self.given_up_)
            runner = self._train_runner_cls(
                self,
                training_plan=plan,
                data_splitter=splitter,
                max_epochs=fit.max_epochs,
                accelerator=accelerator,
                devices=devices,
                early_stopping=early_stopping,
                **_trainer_arguments(trainer_kwargs, validates),
            )
            try:
                self._run(runner, fit.objective)
            except DivergenceError as error:
                undo.pop_all()
                self._keep_best(plan, indices, steps)
                raise DivergenceError(
                    f"Training diverged: {error} Lower the learning rate, for instance "
                    f"`plan_kwargs={{'lr': {plan.lr * plan.slowest / 3:.2g}}}`, or raise the strength of the regularizer. "
                    "The model keeps the best state so far."
                ) from error
            self.given_up_ = plan.given_up
            if fit.is_polished:
                self._polish(splitter)
            if self._keeps_pairs:
                self._kept_pairs = dict(splitter.batches.full)
            self.sparsification_ = pd.DataFrame(plan.records) if plan.records else steps
            self._select_best(splitter)
            splitter.release()
            undo.pop_all()
        self.key_added_ = key_added
        if key_added is not None:
            self._write(self._cells(), None, key_added)

    def _resolve(
        self,
        objective: Literal["trajectory"] | None,
        schedule: Literal["sparse", "iterative"] | IterativeSparsification | None,
        refit: bool,
        max_epochs: int | None,
        early_stopping: bool,
        plan_kwargs: dict[str, Any] | None,
        trainer_kwargs: dict[str, Any],
    ) -> _Fit:
        """What is to be fitted, and how; refuses what does not go together."""
        if objective is not None:
            _checks.choice("objective", objective, ("trajectory",))
        if objective is not None or refit:
            self._require_trained()
        check_plan(plan_kwargs or {})
        both = self.objective == "both"
        if both and schedule is not None and self.is_trained_:
            raise ValueError(
                f"Expected no `schedule` where a model with `objective='both'` is trained again, found {schedule!r}: it concerns the fit of "
                "the network, which is kept. Make a new model for another network."
            )
        refit = refit or both
        fitted = "trajectory" if both or objective is not None else self._objective_name
        adaptive = 0 if refit else self.module.regularizer.adaptive
        if adaptive and early_stopping:
            raise ValueError(
                "Expected no `early_stopping` with an adaptive regularizer, whose rounds are of one length."
            )
        epochs = int(_MAX_EPOCHS[fitted] if max_epochs is None else max_epochs)  # Lightning takes no numpy integers
        plan_kwargs = {**_PLANS[fitted], **(plan_kwargs or {}), "refit": refit, "warm": self.is_trained_}
        iterative = None if both or (refit and schedule is None) else self._schedule(schedule)
        if iterative is not None:
            check_iterative(bool(adaptive or refit), self._hard_prior, early_stopping, trainer_kwargs)
            plan_kwargs |= {"schedule": iterative, "dense_epochs": epochs}
            epochs += iterative.n_epochs
        epochs *= n_rounds(adaptive, refit, self.is_trained_)
        if self.is_trained_ and self.fitted_ == "trajectory" and fitted != "trajectory":
            logger.warning(
                "Training goes back to the %s objective. To continue with trajectories, pass `objective='trajectory'`.",
                fitted,
            )
        return _Fit(fitted, epochs, plan_kwargs, fitted == "transport" and iterative is None and not refit)

    def _run(self, runner: TrainRunner, fitted: str) -> None:
        """Train, and add the metrics to those of earlier trainings, also where it fails."""
        self.fitted_ = fitted
        earlier = self.history_ if self.is_trained_ else None
        if earlier is not None:
            self.history_ = {}
        try:
            runner()
        finally:
            self.module.fixed_gates = False
            if earlier is not None:
                # Other loggers than that of scvi-tools keep none.
                later = getattr(runner.trainer.logger, "history", None)
                self.history_ = continued(earlier, later if isinstance(later, dict) else {})

    def _check_arguments(
        self,
        max_epochs: int | None,
        steps_per_epoch: int,
        train_size: float,
        validation_size: float | None,
        accelerator: str,
        devices: list[int] | int | str,
        half_samples: bool,
        key_added: str | None,
        trainer_kwargs: dict[str, Any],
    ) -> None:
        """Refuse what is out of range, before anything is done."""
        check_trainer(trainer_kwargs)
        check_device(accelerator, devices, trainer_kwargs.get("precision"))
        if max_epochs is not None:
            _checks.at_least("max_epochs", max_epochs, 1)
        _checks.at_least("steps_per_epoch", steps_per_epoch, 1)
        _checks.share("train_size", train_size, zero=False)
        if validation_size is not None:
            _checks.share("validation_size", validation_size)
            if train_size + validation_size > 1 + 1e-9:
                raise ValueError(
                    f"Expected `train_size` and `validation_size` of at most 1 together, found {train_size!r} and {validation_size!r}. "
                    "Lower one of them."
                )
        if self.adata is None:
            raise ValueError("Expected the model to hold data, found none. Load it with `adata=…` to train it further.")
        if key_added is not None:
            self._check_target(self.adata, self._origin(self.adata, None), key_added)
        if half_samples and len(self.module.seeds) < 2:
            raise ValueError("Expected at least two seeds for `half_samples`, found one. Raise `n_seeds`.")

    def _polish(self, splitter: StatisticsSplitter) -> None:
        """Solve for the linear part of a transport fit, but in replicates that were given up."""
        if self.module.field.skip == "inner" and self.module.regularizer.convex_skip:
            polish(self.module, splitter.batches.training)
        give_up(self.module, self.given_up_)

    def _select_best(self, splitter: StatisticsSplitter) -> None:
        """Make the regularization path, and select the replicate with the smallest error on held-out cells, if there are any."""
        self.regularization_path_ = self._make_path(splitter, self._regulators if self._chosen_regulators else None)
        name = "train_error" if splitter.batches.validation is None else "validation_error"
        self.selected_ = int(self.regularization_path_[name].argmin())

    def _schedule(self, schedule: str | IterativeSparsification | None) -> IterativeSparsification | None:
        """The schedule as an object, ``None`` for sparse training."""
        chosen = self.module.regularizer.schedule if schedule is None else schedule
        if isinstance(chosen, IterativeSparsification):
            return chosen
        _checks.choice("schedule", chosen, ("sparse", "iterative"))
        return IterativeSparsification() if chosen == "iterative" else None

    def _keep_best(
        self, plan: TrainingPlan, indices: tuple[np.ndarray, np.ndarray, np.ndarray], steps: pd.DataFrame | None
    ) -> None:
        """Put the best state of a training that diverged back, with its cells and without tables of other weights."""
        if plan.put_back_best():
            self.is_trained_, self.given_up_ = True, plan.given_up
        self.module.eval()
        self.train_indices, self.validation_indices, self.test_indices = indices
        self.regularization_path_, self.sparsification_ = None, steps

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
            warn_given_up(self.module, found, "Before fine-tuning", 3)
            give_up(self.module, found)
        self.given_up_ = given_up


def _trainer_arguments(given: dict[str, Any], validates: bool) -> dict[str, Any]:
    """Arguments of the trainer, which ``validates`` in every epoch where there is a held-out error."""
    arguments = {"early_stopping_monitor": "validation_loss"} | given
    if validates:
        arguments.setdefault("check_val_every_n_epoch", 1)
    callbacks = arguments.pop("callbacks", None)
    if callbacks is not None:  # scvi-tools appends its own
        arguments["callbacks"] = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
    return arguments
