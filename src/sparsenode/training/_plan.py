"""The training plan: Adam on the error, proximal steps after it, and the best state kept."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch

from sparsenode._errors import DivergenceError
from sparsenode.module._diverging import failing, give_up, warn_given_up
from sparsenode.training._schedule import IterativeSparsification
from sparsenode.training._setbacks import MOST, Setbacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from scvi.module.base import LossOutput

    from sparsenode.module import SparseNODEModule
    from sparsenode.module._field import EffectiveWeights


# Learning rate at the start and at the end, as shares of the largest, and the share of the steps in which it rises.
_FIRST, _LAST, _WARM_UP = 0.04, 0.01, 0.1
_STEP_RATE = 0.3  # the same share in the steps of iterative sparsification, which begin near a minimum
_LARGEST_ERROR = 1e9  # over the variance; an epoch that ends beyond it is lost, since gradients overflow there


class TrainingPlan(pl.LightningModule):
    """Training of all replicates together: gradient steps of AdamW, each followed by the regularizer's proximal step.

    :meth:`sparsenode.SparseNODE.train` makes it, and passes ``plan_kwargs`` to it. Do not build one yourself, unless you train the module
    without that method.

    Parameters
    ----------
    module
        Module to train, with its data-derived buffers set.
    lr
        Largest learning rate. It rises over the first tenth of the steps, and falls to a hundredth of it. Default: 0.01; ``train`` passes
        0.02 with transport and 0.03 with collocation.
    gate_lr
        Largest learning rate of the gate logits. Default: 0.05; ``train`` passes 1 with collocation.
    weight_decay
        Decoupled weight decay of Adam, on all parameters. Default: 0.
    max_grad_norm
        Norm that the gradient of each field's network is scaled down to. Default: 10. Gradients of initial velocities and offsets are not
        scaled.
    schedule
        Iterative sparsification after ``dense_epochs`` epochs without penalty. Default: ``None``, the full strength from the start.
    dense_epochs
        See ``schedule``.
    refit
        Whether to fit without penalty what is not zero yet, with gates as at test time.
    warm
        Whether the module has been trained. Adaptive regularizers then take the weights from what it has learned in all rounds, and there
        is no unweighted first round.

    Notes
    -----
    Rounds of adaptive regularizers with gates have two halves, each with its own warm-up and decay. Gates are sampled in the first, and
    held as at test time in the second: the noise of sampled gates shrinks effects like a ridge, and inverses of shrunken effects do not
    tell true edges from false ones.

    Training diverges if the integration or the loss leaves the finite numbers, or an epoch ends with a squared error of more than 1e9 times
    the variance. A replicate that diverges goes back, with a warning, to its state with the smallest loss among those at the start of the
    epochs that did not diverge, and continues with steps of a third of the length. The fourth time it is given up, with a warning: its
    weights become zero. The others are not touched. If all of them together diverge but none alone, all go back. Training stops with an
    error if none is left.

    References
    ----------
    Loshchilov and Hutter (2019), *Decoupled weight decay regularization*, ICLR; refits: Meinshausen (2007), *Relaxed lasso*.
    """

    def __init__(
        self,
        module: SparseNODEModule,
        lr: float = 0.01,
        gate_lr: float = 0.05,
        weight_decay: float = 0.0,
        max_grad_norm: float = 10.0,
        schedule: IterativeSparsification | None = None,
        dense_epochs: int = 0,
        refit: bool = False,
        warm: bool = False,
    ) -> None:
        super().__init__()
        self.module = module
        self.lr = lr
        self.gate_lr = gate_lr
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self._effective: EffectiveWeights | None = None
        self._steps: list[dict[str, torch.Tensor]] = []
        self.schedule = schedule
        self.dense_epochs = dense_epochs
        self.refit = refit
        self._warm = warm
        self._n_rounds = n_rounds(module.regularizer.adaptive, refit, warm)
        # Steps of a round, and how many of them sample the gates.
        self._round_steps = self._sampled_steps = 1
        self._alive: list[torch.Tensor] = []
        #: Replicates whose weights and biases stay zero: those of before, and those that diverged.
        self.given_up: list[int] = []
        #: One row per step of the schedule and replicate.
        self.records: list[dict[str, Any]] = []
        self._failures = torch.zeros(0)
        self._accepted = False
        self._setbacks = Setbacks(module)  # where replicates go back to if they diverge
        self._draws: list[torch.Tensor] = []  # states of the random streams before the last evaluation
        self._optimizer: torch.optim.Optimizer | None = None
        self._dense_error: torch.Tensor | None = None
        self._validation_error: torch.Tensor | None = None
        self._best_loss = float("inf")
        self._validation_loss: float | None = None
        self.best_state: dict[str, torch.Tensor] | None = None

    def configure_optimizers(self) -> Any:
        """AdamW with one warm-up and one decay; the gates have their own rate."""
        gates = list(self.module.field.gate_logits)
        others = [p for p in self.module.parameters() if not any(p is gate for gate in gates)]
        groups: list[dict[str, Any]] = [{"params": others, "lr": self.lr}]
        rates: list[Callable[[int], float]] = [self._rate]
        if gates:
            groups.append({"params": gates, "lr": 0.0 if self.refit else self.gate_lr})
            rates.append(self._gate_rate)
        optimizer = torch.optim.AdamW(groups, lr=self.lr, eps=1e-8, weight_decay=self.weight_decay, fused=True)
        n_steps = int(self.trainer.estimated_stepping_batches) // self._n_rounds
        if self.schedule is not None:
            n_steps = n_steps * self.dense_epochs // (self.dense_epochs + self.schedule.n_epochs)
        self._round_steps = self._sampled_steps = max(n_steps, 1)
        if gates and self.module.regularizer.adaptive and not self.refit:
            self._sampled_steps -= self._round_steps // 2
        self._optimizer = optimizer
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _is_settled(self, step: int) -> bool:
        """Whether a step is in the second half of an adaptive round, in which gates are as at test time."""
        return step % self._round_steps >= self._sampled_steps

    def _gate_rate(self, step: int) -> float:
        """Factor of the gates' learning rate."""
        return 0.0 if self._is_settled(step) else self._rate(step)

    @property
    def slowest(self) -> float:
        """Learning rate of the replicate that has diverged most often, as a share of the one planned."""
        return float(self._setbacks.shares.min())

    def _rate(self, step: int) -> float:
        """Factor of the learning rate; it starts anew in every round, and in the half where gates are held."""
        if self.schedule and step >= self._round_steps:
            return _STEP_RATE
        step, n_steps = step % self._round_steps, self._sampled_steps
        if step >= n_steps:
            step, n_steps = step - n_steps, self._round_steps - n_steps
        return _learning_rate_factor(step / max(n_steps - 1, 1))

    def on_fit_start(self) -> None:
        """Restart the random streams, so that the same seed gives the same network."""
        self.module.train()
        self.module.seed_generators()
        self.module.strength_share = 0.0 if self.refit else 1.0  # a schedule that was cut short has left its own
        self.module.field.adapt(None)
        if self._warm and not self.refit and self.module.regularizer.adaptive:
            self.module.adapt()
        if self.refit:
            self._alive = [weight.detach() != 0 for weight in self.module.field.effective_weights().weights]
        self._keep(float("inf"))
        self._setbacks = Setbacks(self.module)  # of what the fit begins with, on its device
        self._failures = torch.zeros(self.module.n_replicates, dtype=torch.int64, device=self.device)

    def on_train_epoch_start(self) -> None:
        """Set the strength in force, and adapt the weights of the paths between rounds."""
        if self._n_rounds > 1 and self.current_epoch % max(1, int(self.trainer.max_epochs or 1) // self._n_rounds) == 0:
            if self.current_epoch > 0:
                self.module.adapt()
            self._best_loss = float("inf")  # losses of two rounds are not comparable
            self._setbacks.forget_losses()
        if self.schedule is not None:
            step = self.schedule.step(self.current_epoch, self.dense_epochs)
            if self.schedule.shares[step] != self.module.strength_share:
                self._setbacks.forget_losses()
            self.module.strength_share = self.schedule.shares[step]

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Hold the zeros of a refit, and remember where the step begins."""
        self._setbacks.begin_step()
        for weight, alive in zip(self.module.field.weights, self._alive, strict=False):
            if weight.grad is not None:
                weight.grad.mul_(alive)

    def on_fit_end(self) -> None:
        """Put every replicate back to the last step that it was not stopped at."""
        if self._accepted:
            self.put_back_best()
        self.module.strength_share = 1.0
        self._effective = None  # tensors with gradients cannot be copied with the model

    def put_back_best(self) -> bool:
        """Load the best state so far, in which what was given up later is zero too.

        Returns
        -------
        Whether there is one.
        """
        if self.best_state is None:
            return False
        self.module.load_state_dict(self.best_state)
        give_up(self.module, self.given_up)
        return True

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Loss of one full-batch step, summed over replicates."""
        self.module.fixed_gates = self.refit or self._is_settled(self.global_step)
        output = self._evaluate(batch, at_start=batch_idx == 0)
        if batch_idx == 0:
            self._setbacks.keep(_losses(output), self._optimizer)
        self._steps.append({key: value.detach() for key, value in output.extra_metrics.items()})
        return output.loss

    def _evaluate(self, batch: dict[str, torch.Tensor], at_start: bool = True) -> LossOutput:
        """Losses of a batch, of an earlier state where the present one diverges."""
        while True:
            try:
                self._effective, output = self._try(batch, at_start)
                return output
            except DivergenceError as error:
                if self._optimizer is None or not self._go_back(self._optimizer, batch, at_start, error):
                    self._keep_finite(batch)
                    raise

    def _try(self, batch: dict[str, torch.Tensor], at_start: bool = True) -> tuple[EffectiveWeights, LossOutput]:
        """Losses of a batch, if they are finite and, at the start of an epoch, not beyond all that went before."""
        self._draws = self.module.generator_states()
        effective, output = self.module(batch)
        if not torch.isfinite(output.loss):
            raise DivergenceError(f"The loss became {output.loss.item()}.")
        error = output.extra_metrics["error"].detach()
        if at_start and (error > self._limits()).any():
            raise DivergenceError(f"The squared error became {float(error.max()):.2g} times the variance.")
        return effective, output

    def _limits(self) -> torch.Tensor:
        """Error of every replicate beyond which it has diverged, which is judged at the start of an epoch."""
        return self._setbacks.losses.clamp_min(_LARGEST_ERROR)

    @torch.no_grad()
    def _keep_finite(self, batch: dict[str, torch.Tensor]) -> None:
        """Keep no best state that diverges: without held-out cells it is that of the step after the loss it was chosen by."""
        if not self.put_back_best():
            return
        try:
            self._try(batch)
        except DivergenceError:
            self._setbacks.put_back()
            give_up(self.module, self.given_up)
            self._keep(self._best_loss)

    def _go_back(
        self, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor], at_start: bool, error: DivergenceError
    ) -> bool:
        """Let the replicates that diverge go on from an earlier state, or give them up; whether any is left."""
        module = self.module
        module.set_generator_states(self._draws)
        failed = failing(module, batch, self._limits() if at_start else torch.tensor(float("inf"), device=self.device))
        module.set_generator_states(self._draws)  # for the others nothing has happened
        # Together they may ask the solver for steps that none asks for alone.
        failed = [replicate for replicate in self._kept if replicate in failed] or self._kept
        lost = [replicate for replicate in failed if self._setbacks.counts[replicate] == MOST]
        if len(lost) == len(self._kept):
            return False
        self._setbacks.go_back(failed, optimizer)
        if lost:
            self.given_up = sorted([*self.given_up, *lost])
            self._best_loss = float("inf")  # losses with and without them are not comparable
            warn_given_up(module, lost, f"In epoch {self.current_epoch}, for the fourth time,", 2)
        give_up(module, self.given_up)
        self._warn_setback([replicate for replicate in failed if replicate not in lost], error)
        return True

    def _warn_setback(self, replicates: list[int], error: DivergenceError) -> None:
        if not replicates:
            return
        n, lr = self.module.n_replicates, self.lr * float(self._setbacks.shares[replicates].min())
        which = "It goes" if n == 1 else f"{len(replicates)} of {n} replicates go"
        warnings.warn(
            f"Training diverged in epoch {self.current_epoch}: {error} {which} on from an earlier state with `lr={lr:.2g}`. If this "
            f"happens late, a new training with `plan_kwargs={{'lr': {lr:.2g}}}` or a higher strength of the regularizer may fit better.",
            UserWarning,
            stacklevel=2,
        )

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the gradient of each network by itself, so that replicates do not touch one another."""
        field = self.module.field
        gradients = [p.grad for p in field.parameters() if p.grad is not None]
        own = [g.view(field.n_networks, -1) for g in gradients]
        norm = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in own]).norm(dim=0)
        limit = self.max_grad_norm if gradient_clip_val is None else gradient_clip_val
        if bool((norm <= limit).all()):
            return
        scale = (limit / norm.clamp_min(limit)).view(-1, 1)
        torch._foreach_mul_(own, [scale] * len(own))

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Gradient step, then the proximal step with the step sizes of Adam; what is given up stays where it is."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self._setbacks.shorten_step()
        if self.module.regularizer.proximal and self._effective is not None:
            self.module.prox(self._effective, self._adam_steps(optimizer.optimizer))
        if self.given_up:
            give_up(self.module, self.given_up)

    def _adam_steps(self, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """Step size of every weight: learning rate over the root of the second moment, and shorter after setbacks."""
        shares = self._setbacks.shares.float().to(self.device)
        group = optimizer.param_groups[0]
        beta, lr, eps = group["betas"][1], group["lr"], group["eps"]
        steps = []
        for weight in self.module.field.weights:
            state = optimizer.state[weight]
            correction = (1.0 - beta ** float(state["step"])) ** 0.5
            full = state["exp_avg_sq"].sqrt().add_(eps * correction).reciprocal_().mul_(lr * correction)
            own = self.module.split_replicates(full)
            steps.append(own.mul_(shares.view(-1, *[1] * (own.dim() - 1))).flatten(0, 1))
        return steps

    def on_train_epoch_end(self) -> None:
        """Log the epoch, and keep the state if it is the best so far."""
        mean = {key: torch.stack([step[key] for step in self._steps]).mean(0) for key in self._steps[0]}
        self._steps.clear()
        sparsity = self.module.sparsity()
        feature, weight = sparsity[self._kept].mean(0).tolist()
        loss = self._log("train", mean)
        if self.schedule is not None and self.schedule.ends_step(self.current_epoch, self.dense_epochs):
            self._end_step(self.schedule, mean["error"], sparsity)
        self.log("feature_sparsity", feature, prog_bar=True)
        self.log("weight_sparsity", weight)
        data = getattr(self.trainer, "datamodule", None)
        if data is None or data.batches.validation is None:
            self._keep_best(loss)
        elif self._validation_loss is not None:
            self._keep_best(self._validation_loss)
            self._validation_loss = None

    def _end_step(self, schedule: IterativeSparsification, train_error: torch.Tensor, sparsity: np.ndarray) -> None:
        """Record a step of the schedule, and stop when the error of every replicate has risen too far."""
        step = schedule.step(self.current_epoch, self.dense_epochs)
        held_out = self._validation_error
        error = train_error if held_out is None else held_out
        if step == 0 or self._dense_error is None:
            self._dense_error = error
        within = error <= (1.0 + schedule.max_error_increase) * self._dense_error
        within[self.given_up] = False
        # Errors waver after each rise of the strength: one step above the limit is not the end.
        self._failures = torch.where(within, 0, self._failures + 1)
        stopped = self._failures >= 2
        self._accept(within)
        module = self.module
        for replicate, (feature, weight) in enumerate(sparsity.tolist()):
            self.records.append(
                {
                    "step": step,
                    "replicate": replicate,
                    "strength": float(module.strength[replicate]) * schedule.shares[step],
                    "seed": module.seeds[replicate % len(module.seeds)],
                    "train_error": float(train_error[replicate]),
                    "validation_error": float("nan") if held_out is None else float(held_out[replicate]),
                    "feature_sparsity": feature,
                    "weight_sparsity": weight,
                    "accepted": bool(within[replicate]),
                }
            )
        if bool(stopped.all()):
            self.trainer.should_stop = True

    def _accept(self, within: torch.Tensor) -> None:
        """Keep the parameters of the replicates whose error is within the limit; the others keep what they had."""
        state = {key: value.detach().clone() for key, value in self.module.state_dict().items()}
        if self._accepted and self.best_state is not None:
            for name, _ in self.module.named_parameters():
                kept, now = (self.module.split_replicates(values[name]) for values in (self.best_state, state))
                now[~within] = kept[~within]
        self.best_state, self._accepted = state, True

    def validation_step(self, batch: dict[str, torch.Tensor], _: int) -> None:
        """Error of the held-out cells with deterministic gates."""
        output = self._evaluate(batch)
        self._validation_loss = self._log("validation", output.extra_metrics)
        self._validation_error = output.extra_metrics["error"]

    @property
    def _kept(self) -> list[int]:
        """Replicates that are not given up."""
        return [replicate for replicate in range(self.module.n_replicates) if replicate not in self.given_up]

    def _log(self, stage: str, metrics: dict[str, torch.Tensor]) -> float:
        """Log means over the replicates that are not given up, and return that of the loss."""
        error, penalty = metrics["error"][self._kept], metrics["penalty"][self._kept]
        loss = (error + penalty).mean()
        self.log(f"{stage}_loss", loss, on_epoch=True, on_step=False, batch_size=1)
        self.log(f"{stage}_error", error.mean(), prog_bar=True, on_epoch=True, on_step=False, batch_size=1)
        if stage == "train":
            self.log("train_penalty", penalty.mean())
        return float(loss)

    def _keep_best(self, loss: float) -> None:
        # Once strengths rise, losses are no longer comparable: the schedule decides.
        if not self._accepted and (loss < self._best_loss or self.best_state is None):
            self._keep(loss)

    def _keep(self, loss: float) -> None:
        self._best_loss = loss
        self.best_state = {key: value.detach().clone() for key, value in self.module.state_dict().items()}


def _losses(output: LossOutput) -> torch.Tensor:
    """Error and penalty of every replicate."""
    return (output.extra_metrics["error"] + output.extra_metrics["penalty"]).detach()


def n_rounds(adaptive: int, refit: bool, warm: bool) -> int:
    """Number of rounds of a training: one more than the adaptive ones, unless there is something to adapt to from the start."""
    return 1 if refit or not adaptive else adaptive + (not warm)


def _learning_rate_factor(progress: float) -> float:
    """Linear rise over the first tenth of the steps, then half a cosine down to a hundredth."""
    if progress < _WARM_UP:
        return _FIRST + (1.0 - _FIRST) * progress / _WARM_UP
    return _LAST + (1.0 - _LAST) * 0.5 * (1.0 + math.cos(math.pi * (progress - _WARM_UP) / (1.0 - _WARM_UP)))
