"""Which arguments of a training there are, and which go together."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer as LightningTrainer
from scvi.train import Trainer

from sparsenode import _checks


def check_trainer(given: Mapping[str, Any]) -> None:
    """Refuse arguments that no trainer has, before data are prepared for it, and gradients that are clipped by value.

    Raises
    ------
    TypeError
        If there are any; the message says where settings belong that other models take here.
    ValueError
        If gradients are not clipped by a positive norm.
    """
    known = {
        name for one in (Trainer, LightningTrainer) for name in inspect.signature(one).parameters if name != "kwargs"
    }
    known |= {"trainer_config", "ckpt_path"}  # what TrainRunner takes beside them
    unknown = [name for name in given if name not in known]
    if unknown:
        raise TypeError(
            f"Expected arguments of `train` or of `scvi.train.Trainer`, found {unknown}. The number of epochs is `max_epochs`, learning "
            "rates and weight decay are `plan_kwargs={'lr': …}`, the batch size is `SparseNODE(adata, objective=Transport(batch_size=…))`, "
            "and other objectives take all cells at once."
        )
    if given.get("gradient_clip_algorithm") not in (None, "norm"):
        raise ValueError(
            f"Expected `gradient_clip_algorithm='norm'`, found {given['gradient_clip_algorithm']!r}: the gradient of every replicate is "
            "clipped by its own norm. Leave it out."
        )
    if given.get("gradient_clip_val") is not None:
        _positive_or_infinite("gradient_clip_val", given["gradient_clip_val"])


def check_plan(settings: Mapping[str, Any]) -> None:
    """Refuse settings of a training plan that there are not, and values out of range.

    Raises
    ------
    TypeError
        If a name is unknown.
    ValueError
        If a rate or norm is out of range.
    """
    rates = {"lr": _checks.positive, "gate_lr": _checks.non_negative, "weight_decay": _checks.non_negative}
    known = rates | {"max_grad_norm": _positive_or_infinite}
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise TypeError(f"Expected the keys of `plan_kwargs` to be among {list(known)}, found {unknown}.")
    for name, value in settings.items():
        known[name](f"plan_kwargs[{name!r}]", value)


def check_device(accelerator: object, devices: object, precision: object) -> None:
    """Refuse several devices, which would each see all cells, those of Apple, which lack double precision, and other precisions of fits than single.

    Raises
    ------
    ValueError
        If there are several devices, it is one of Apple, or the precision of a fit or of new tensors is not single.
    """
    if accelerator == "mps" or (accelerator == "gpu" and torch.backends.mps.is_available()):
        raise ValueError(
            f"Expected an accelerator with double precision, in which steps of the solver are computed, found `accelerator={accelerator!r}`, "
            "that of Apple. Take `accelerator='cpu'`."
        )
    if isinstance(devices, str) and "," in devices:  # indices, with or without a comma at the end
        count: object = len(devices.rstrip(",").split(","))
    else:
        count = len(devices) if isinstance(devices, Sequence) and not isinstance(devices, str) else devices
    if str(count) not in ("auto", "1"):
        raise ValueError(
            f"Expected one device, found `devices={devices!r}`: a step takes all cells at once. Fit seeds and strengths as replicates."
        )
    _checks.single_precision()
    if precision not in (None, 32, "32", "32-true"):
        raise ValueError(
            f"Expected single precision, in which the model computes, found `precision={precision!r}`. Statistics are accumulated in double "
            "precision as it is."
        )


def check_iterative(
    holds_strength: bool, hard_prior: bool, early_stopping: bool, trainer_kwargs: Mapping[str, Any]
) -> None:
    """Refuse what does not go together with an iterative schedule.

    Raises
    ------
    ValueError
        If strengths are held, edges forbidden, or epochs skipped or cut short.
    """
    if holds_strength:
        raise ValueError(
            "Expected neither an adaptive regularizer nor `refit` with an iterative schedule: they hold the strength, which the schedule "
            "raises. Take `schedule='sparse'`."
        )
    if hard_prior:
        raise ValueError(
            "Expected no `hard_prior` with an iterative schedule, which begins without penalty, where every edge is allowed. Take "
            "`schedule='sparse'`, or a prior that is not hard."
        )
    if early_stopping or trainer_kwargs.get("check_val_every_n_epoch", 1) != 1:
        raise ValueError(
            "Expected neither `early_stopping` nor `check_val_every_n_epoch` with an iterative schedule, which stops by "
            "itself and needs the held-out error of every epoch. Leave them out, or take `schedule='sparse'`."
        )


def check_early_stopping(early_stopping: bool, validates: bool, fitted: str) -> None:
    """Refuse to stop early where there are held-out cells but no error of them.

    Raises
    ------
    ValueError
        If it is asked for there.
    """
    if early_stopping and not validates:
        raise ValueError(
            f"Expected no `early_stopping` with the {fitted} objective on these cells, for which there is no held-out error: "
            "collocation smooths the training cells, and with transport none of the held-out cells moves on to others."
        )


def _positive_or_infinite(name: str, value: object) -> None:
    if value != float("inf"):
        _checks.positive(name, value)
