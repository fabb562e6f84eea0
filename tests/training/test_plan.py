from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from sparsenode import DivergenceError
from sparsenode.regularizers import CNODE, L0, NoRegularizer, PathReg
from sparsenode.training import IterativeSparsification, TrainingPlan
from sparsenode.training._plan import n_rounds


def gradients(module, batch):
    """Fill the gradients of one step from fresh random streams."""
    module.zero_grad()
    module.train().seed_generators()
    module(batch)[1].loss.backward()
    return [p for p in module.parameters() if p.grad is not None]


def network_norms(parameters):
    return torch.stack([p.grad.flatten(1).square().sum(1) for p in parameters]).sum(0).sqrt()


class Recorder(pl.Callback):
    """What happened after every step and every epoch."""

    def __init__(self):
        self.rates, self.held, self.moments, self.losses, self.states = [], [], [], [], []

    def on_before_optimizer_step(self, trainer, plan, optimizer):
        self.rates.append([group["lr"] for group in optimizer.param_groups])
        self.held.append(plan.module.fixed_gates)
        self.moments.append(len(optimizer.state))

    def on_train_epoch_end(self, trainer, plan):
        self.losses.append(trainer.callback_metrics.get("validation_loss"))
        self.states.append({key: value.clone() for key, value in plan.module.state_dict().items()})


def test_clipping_equals_clipping_each_network_alone(make_module, batch):
    module = make_module(seeds=(0, 1, 2))
    parameters = gradients(module, batch)
    with torch.no_grad():
        for p in parameters:
            p.grad[1] *= 1e3  # one network's gradient explodes
    expected = []
    for network in range(3):
        copies = [torch.nn.Parameter(p.detach()[network].clone()) for p in parameters]
        for copy, p in zip(copies, parameters, strict=True):
            copy.grad = p.grad[network].clone()
        torch.nn.utils.clip_grad_norm_(copies, 0.7)
        expected.append([copy.grad for copy in copies])
    assert (network_norms(parameters) > 0.7).any()
    TrainingPlan(module, max_grad_norm=0.7).configure_gradient_clipping(None)
    for network in range(3):
        for p, grad in zip(parameters, expected[network], strict=True):
            np.testing.assert_allclose(p.grad[network], grad, rtol=1e-4, atol=1e-7)


def test_networks_within_the_limit_are_left_alone_beside_others_beyond_it(make_module, batch):
    module = make_module(seeds=(0, 1, 2))
    parameters = gradients(module, batch)
    norms = network_norms(parameters)
    before = [p.grad.clone() for p in parameters]
    limit = float(norms.sort().values[1]) * 1.001
    TrainingPlan(module, max_grad_norm=limit).configure_gradient_clipping(None)
    factor = (limit / norms).clamp(max=1.0)
    assert (factor < 1).sum() == 1
    for p, grad in zip(parameters, before, strict=True):
        np.testing.assert_allclose(p.grad, grad * factor.view(-1, *[1] * (grad.ndim - 1)), rtol=1e-5)


def test_clipped_gradient_of_a_network_does_not_depend_on_the_others(make_module, batch):
    clipped = []
    for factor in (1.0, 1e4):
        module = make_module()
        parameters = gradients(module, batch)
        with torch.no_grad():
            for p in parameters:
                p.grad[1] *= factor
        TrainingPlan(module, max_grad_norm=0.5).configure_gradient_clipping(None)
        clipped.append([p.grad[0].clone() for p in parameters])
        if factor > 1:
            assert network_norms(parameters)[1].item() == pytest.approx(0.5, rel=1e-4)
    for a, b in zip(*clipped, strict=True):
        assert torch.equal(a, b)


def test_small_gradients_are_left_alone(make_module, batch):
    module = make_module()
    parameters = gradients(module, batch)
    before = [p.grad.clone() for p in parameters]
    TrainingPlan(module, max_grad_norm=1e6).configure_gradient_clipping(None)
    for p, grad in zip(parameters, before, strict=True):
        assert torch.equal(p.grad, grad)


def test_the_value_of_the_trainer_takes_precedence(make_module, batch):
    module = make_module()
    parameters = gradients(module, batch)
    TrainingPlan(module).configure_gradient_clipping(None, gradient_clip_val=1e-3)
    np.testing.assert_allclose(network_norms(parameters), 1e-3, rtol=1e-4)


def test_lightning_clips_before_the_step(make_module, fit):
    norms = []

    class Norms(pl.Callback):
        def on_before_zero_grad(self, trainer, plan, optimizer):
            parameters = [p for p in plan.module.parameters() if p.grad is not None]
            if parameters:
                norms.append(network_norms(parameters))

    fit(TrainingPlan(make_module(), max_grad_norm=0.01), max_epochs=1, callbacks=[Norms()])
    assert len(norms) == 3  # before the first step there are no gradients
    np.testing.assert_allclose(torch.stack(norms), 0.01, rtol=1e-3)


@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_proximal_step_sizes_are_those_of_adam(make_module, n_steps):
    """Without momentum a weight moves by its step size times the gradient, whatever the optimiser calls its state."""
    plan = TrainingPlan(make_module())
    weights = list(plan.module.field.weights)
    optimizer = torch.optim.AdamW(plan.module.parameters(), lr=0.02, eps=1e-3, betas=(0.0, 0.99), weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(n_steps):
        for p in plan.module.parameters():
            p.grad = 0.1 * torch.randn(p.shape, generator=generator)
        before = [w.detach().clone() for w in weights]
        optimizer.step()
    for step, w, old in zip(plan._adam_steps(optimizer), weights, before, strict=True):
        np.testing.assert_allclose((old - w).detach(), step * w.grad, rtol=1e-4, atol=1e-7)


def test_proximal_step_sizes_follow_the_second_moment(make_module):
    plan = TrainingPlan(make_module())
    optimizer = torch.optim.AdamW(plan.module.parameters(), lr=0.02, eps=1e-8)
    for k in range(3):
        for p in plan.module.parameters():
            p.grad = torch.full_like(p, 0.3 + k)
        optimizer.step()
    second = sum(0.001 * 0.999 ** (2 - k) * (0.3 + k) ** 2 for k in range(3)) / (1 - 0.999**3)
    for step in plan._adam_steps(optimizer):
        np.testing.assert_allclose(step, 0.02 / (np.sqrt(second) + 1e-8), rtol=1e-4)


@pytest.mark.parametrize("regularizer", [CNODE(0.1), PathReg(0.1), NoRegularizer(), L0()], ids=lambda r: r.name)
def test_every_step_is_followed_by_one_proximal_step(make_module, fit, monkeypatch, regularizer):
    plan = TrainingPlan(make_module(regularizer))
    calls = []
    prox = plan.module.prox

    def record(effective, steps):
        optimizer = plan.optimizers().optimizer
        calls.append(
            (effective is plan._effective, len(steps), optimizer.state[plan.module.field.weights[0]]["step"].item())
        )
        prox(effective, steps)

    monkeypatch.setattr(plan.module, "prox", record)
    fit(plan, max_epochs=1)
    expected = [(True, 2, step) for step in (1, 2, 3, 4)] if regularizer.proximal else []
    assert calls == expected


def test_proximal_training_sets_weights_to_exactly_zero(make_module, fit):
    shares = []
    for strength in (0.0, 0.5):
        plan = TrainingPlan(make_module(CNODE(strength)))
        trainer = fit(plan, max_epochs=10)
        shares.append(float(trainer.callback_metrics["weight_sparsity"]))
    assert shares[0] == 0.0
    assert shares[1] > 0.3


def test_logged_sparsity_is_that_of_the_module(make_module, fit):
    plan = TrainingPlan(make_module(CNODE(0.5)))
    metrics = fit(plan, max_epochs=10).callback_metrics
    zeros = [(w == 0).float() for w in plan.module.field.weights]
    assert float(metrics["weight_sparsity"]) == pytest.approx(float(torch.cat([z.flatten() for z in zeros]).mean()))
    feature = (plan.module.path_matrix() == 0).float().mean()
    assert float(metrics["feature_sparsity"]) == pytest.approx(float(feature))


def test_logged_sparsity_counts_exact_zeros_only(make_module, fit):
    plan = TrainingPlan(make_module(NoRegularizer()), lr=1e-9)
    with torch.no_grad():
        for weight in plan.module.field.weights:
            weight *= 1e-4
    metrics = fit(plan, max_epochs=1).callback_metrics
    assert float(plan.module.path_matrix().max()) < 1e-6
    assert float(metrics["feature_sparsity"]) == float(metrics["weight_sparsity"]) == 0.0


def test_learning_rate_rises_and_falls(make_module, fit):
    recorder = Recorder()
    fit(TrainingPlan(make_module(), lr=0.02, gate_lr=0.1), max_epochs=10, steps_per_epoch=10, callbacks=[recorder])
    rates = np.array(recorder.rates)
    assert rates.shape == (100, 2)
    np.testing.assert_allclose(rates.max(0), [0.02, 0.1], rtol=1e-3)
    np.testing.assert_allclose(rates[-1], [0.0002, 0.001], rtol=1e-3)
    assert (abs(rates.argmax(0) - 10) <= 1).all()


@pytest.mark.parametrize("warm", [False, True])
def test_gates_are_held_in_the_second_half_of_adaptive_rounds(make_module, fit, warm):
    """Both halves have a warm-up and a decay; there is a round more where there is nothing to adapt to."""
    recorder, rounds = Recorder(), 2 - warm
    plan = TrainingPlan(make_module(PathReg(gates="weight", adaptive=1)), lr=0.02, gate_lr=0.1, warm=warm)
    fit(plan, max_epochs=3 * rounds, steps_per_epoch=15, callbacks=[recorder])
    rates, held = np.array(recorder.rates), np.array(recorder.held)
    sampled = np.tile(np.arange(45) < 23, rounds)  # of 45 steps in a round
    np.testing.assert_array_equal(held, ~sampled)
    np.testing.assert_array_equal(rates[:, 1] > 0, sampled)
    np.testing.assert_allclose(rates[sampled, 1], 5 * rates[sampled, 0])
    for half in np.split(rates[:, 0], np.flatnonzero(np.diff(sampled)) + 1):
        assert half.argmax() in (2, 3)
        np.testing.assert_allclose([half.max(), half[-1]], [0.02, 0.0002], rtol=1e-2)
        assert half[0] == pytest.approx(0.04 * 0.02)


def test_a_refit_leaves_the_gates_where_they_are(make_module, fit):
    plan = TrainingPlan(make_module(), refit=True)
    before = [logits.detach().clone() for logits in plan.module.field.gate_logits]
    fit(plan, max_epochs=1)
    for logits, expected in zip(plan.module.field.gate_logits, before, strict=True):
        assert torch.equal(logits, expected)


def test_fewer_epochs_than_rounds(make_module, fit):
    """As `fast_dev_run` has it."""
    fit(TrainingPlan(make_module(PathReg(gates="weight", adaptive=2))), max_epochs=1)


@pytest.mark.parametrize("adaptive", [0, 1])
def test_a_refit_is_one_round_without_penalty_and_with_gates_held(make_module, fit, adaptive):
    """One warm-up and one decay, in whatever rounds the training before was."""

    class Shares(Recorder):
        def __init__(self):
            super().__init__()
            self.shares = []

        def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
            self.shares.append(plan.module.strength_share)

    recorder = Shares()
    plan = TrainingPlan(make_module(PathReg(gates="weight", adaptive=adaptive)), lr=0.02, refit=True, warm=True)
    fit(plan, max_epochs=4, steps_per_epoch=10, callbacks=[recorder])
    rates = np.array(recorder.rates)[:, 0]
    assert recorder.held == [True] * 40
    assert recorder.shares == [0.0] * 40
    assert (np.diff(rates)[:3] > 0).all()
    assert (np.diff(rates)[5:] < 0).all()
    assert plan.module.strength_share == 1.0
    assert plan.module.field.adapted is None
    assert plan._effective is None


def test_a_refit_holds_zeros_and_nothing_else(make_module, fit):
    plan = TrainingPlan(make_module(NoRegularizer()), refit=True)
    weights = list(plan.module.field.weights)
    with torch.no_grad():
        for weight in weights:
            weight[..., ::2] = 0.0
    before = [weight.detach().clone() for weight in weights]
    fit(plan, max_epochs=2)
    for weight, old in zip(weights, before, strict=True):
        assert torch.equal(weight == 0, old == 0)
        assert (weight != old)[old != 0].any()


@pytest.mark.parametrize(
    ("adaptive", "refit", "warm", "expected"),
    [(0, False, False, 1), (0, False, True, 1), (2, False, False, 3), (2, False, True, 2), (2, True, False, 1)],
)
def test_number_of_rounds(adaptive, refit, warm, expected):
    assert n_rounds(adaptive, refit, warm) == expected


def test_every_training_begins_without_adapted_weights(make_module, fit):
    """Even where an earlier one has left some."""
    plan, found = TrainingPlan(make_module(CNODE(0.1, adaptive=1))), []

    class Adapted(pl.Callback):
        def on_train_epoch_end(self, trainer, plan):
            found.append(plan.module.field.adapted is not None)

    plan.module.adapt()
    fit(plan, max_epochs=4, callbacks=[Adapted()])
    assert found == [False, False, True, True]


def test_the_best_state_is_one_of_the_last_round(make_module, fit):
    """Losses of the round before, which are smaller here, do not count."""

    class Setback(Recorder):
        def on_train_epoch_start(self, trainer, plan):
            if trainer.current_epoch == 2:
                with torch.no_grad():
                    plan.module.field.biases[-1].fill_(3.0)

    plan, recorder = TrainingPlan(make_module(CNODE(0.1, adaptive=1))), Setback()
    fit(plan, max_epochs=4, callbacks=[recorder])
    assert min(recorder.losses[2:]) > max(recorder.losses[:2])
    best = 2 + int(np.argmin(recorder.losses[2:]))
    for name, value in plan.best_state.items():
        assert torch.equal(value, recorder.states[best][name])


def test_gates_are_not_held_without_adaptive_rounds(make_module, fit):
    recorder = Recorder()
    fit(TrainingPlan(make_module()), max_epochs=2, steps_per_epoch=5, callbacks=[recorder])
    assert recorder.held == [False] * 10


@pytest.mark.parametrize(("options", "weight_decay"), [({}, 0.0), ({"weight_decay": 0.3}, 0.3)], ids=str)
def test_gates_have_their_own_group(make_module, fit, options, weight_decay):
    plan = TrainingPlan(make_module(), **options)
    trainer = fit(plan, max_epochs=1)
    others, gates = trainer.optimizers[0].param_groups
    assert [id(p) for p in gates["params"]] == [id(p) for p in plan.module.field.gate_logits]
    assert len(others["params"]) + len(gates["params"]) == len(list(plan.module.parameters()))
    assert others["eps"] == gates["eps"] == 1e-8
    assert others["weight_decay"] == gates["weight_decay"] == weight_decay
    assert len(fit(TrainingPlan(make_module(CNODE())), max_epochs=1).optimizers[0].param_groups) == 1


def test_training_lowers_the_error(make_module, fit, batch):
    plan = TrainingPlan(make_module(NoRegularizer()))
    with torch.no_grad():
        before = plan.module.eval()(batch)[1].extra_metrics["error"]
        plan.module.train()
        fit(plan, max_epochs=15)
        after = plan.module.eval()(batch)[1].extra_metrics["error"]
    assert (after < 0.5 * before).all()


def test_a_module_that_was_evaluated_is_trained_with_sampled_gates(make_module, fit, monkeypatch):
    """Lightning keeps the mode of submodules, and every trained or loaded model is in evaluation mode."""
    plan = TrainingPlan(make_module())
    plan.module.eval()
    drawn = []
    sample = plan.module.sample_weights
    monkeypatch.setattr(plan.module, "sample_weights", lambda: drawn.append(1) or sample())
    fit(plan, max_epochs=1)
    assert len(drawn) == 4


@pytest.mark.parametrize("n_steps", [1, 2, 9, 10, 11, 20])
def test_any_number_of_steps(make_module, fit, n_steps):
    recorder = Recorder()
    fit(TrainingPlan(make_module(hidden=(2,))), max_epochs=1, steps_per_epoch=n_steps, callbacks=[recorder])
    rates = np.array(recorder.rates)
    assert len(rates) == n_steps
    assert (rates > 0).all()
    assert (rates <= np.array([0.01, 0.05]) * (1 + 1e-6)).all()


def test_training_repeats_bit_for_bit(make_module, fit):
    states = []
    for drawn_before in (0, 3):
        plan = TrainingPlan(make_module())
        for _ in range(drawn_before):
            plan.module.sample_weights()
        fit(plan)
        states.append(plan.module.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])


def test_replicates_do_not_touch_one_another(make_module, fit):
    """A replicate of a batch is trained like one alone, up to the tolerance of the common solve."""
    together, alone = make_module(PathReg((0.05, 0.3))), make_module(PathReg(0.3), seeds=(1,))
    for module in (together, alone):
        module.solver = type(module.solver)("dopri5", 1e-6, 1e-6)
        fit(TrainingPlan(module))
    for a, b in zip(alone.parameters(), together.parameters(), strict=True):
        np.testing.assert_allclose(b[3].detach(), a[0].detach(), atol=2e-3)


def test_best_state_is_that_of_the_lowest_loss(make_module):
    plan = TrainingPlan(make_module())
    weight = plan.module.field.weights[0]
    for value, loss in ((1.0, 3.0), (2.0, 2.0), (3.0, 2.5), (4.0, float("nan"))):
        with torch.no_grad():
            weight.fill_(value)
        plan._keep_best(loss)
    assert (plan.best_state["field.weights.0"] == 2.0).all()


def test_a_state_is_kept_even_if_no_loss_is_finite(make_module):
    plan = TrainingPlan(make_module())
    weight = plan.module.field.weights[0]
    for value, loss in ((1.0, float("nan")), (2.0, float("inf")), (3.0, float("inf"))):
        with torch.no_grad():
            weight.fill_(value)
        plan._keep_best(loss)
        assert (plan.best_state["field.weights.0"] == 1.0).all()


def test_best_state_is_that_of_the_best_epoch(make_module, fit):
    class Setback(Recorder):
        def on_train_epoch_start(self, trainer, plan):
            if trainer.current_epoch == 9:
                with torch.no_grad():
                    plan.module.field.biases[-1].fill_(30.0)

    recorder = Setback()
    plan = TrainingPlan(make_module())
    fit(plan, max_epochs=12, steps_per_epoch=2, callbacks=[recorder])
    best = int(np.argmin(recorder.losses))
    assert 0 < best < 9
    for name, value in plan.best_state.items():
        assert torch.equal(value, recorder.states[best][name])


def test_best_state_without_held_out_cells_is_that_of_the_training_loss(make_module, fit):
    class Losses(Recorder):
        def on_train_epoch_start(self, trainer, plan):
            self.steps = []
            if trainer.current_epoch == 4:  # a setback
                with torch.no_grad():
                    plan.module.field.biases[-1].fill_(3.0)

        def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
            self.steps.append(float(outputs["loss"]) / plan.module.n_replicates)

        def on_train_epoch_end(self, trainer, plan):
            super().on_train_epoch_end(trainer, plan)
            self.losses[-1] = np.mean(self.steps)

    recorder = Losses()
    plan = TrainingPlan(make_module(NoRegularizer()))
    trainer = fit(plan, max_epochs=6, steps_per_epoch=2, validation=None, callbacks=[recorder])
    best = int(np.argmin(recorder.losses))
    assert 0 < best < 4
    for name, value in plan.best_state.items():
        assert torch.equal(value, recorder.states[best][name])
    assert float(trainer.callback_metrics["train_loss"]) == pytest.approx(recorder.losses[-1])


def test_best_state_is_judged_by_held_out_cells_where_validation_skips_epochs(make_module, fit, held_out):
    """Training losses, which are smaller here, must not stand in for the losses of held-out cells."""
    plan = TrainingPlan(make_module(NoRegularizer()))
    recorder = Recorder()
    hard = held_out | {"cross": -held_out["cross"]}
    fit(plan, max_epochs=4, validation=hard, callbacks=[recorder], check_val_every_n_epoch=2)
    best = min((1, 3), key=lambda epoch: recorder.losses[epoch])
    for name, value in plan.best_state.items():
        assert torch.equal(value, recorder.states[best][name])


@pytest.fixture
def opposite(batch):
    """Held-out cells whose error rises while that of the training cells falls."""
    return batch | {"cross": -batch["cross"]}


def test_best_state_is_that_of_the_held_out_loss_where_the_training_loss_still_falls(make_module, fit, opposite):
    training = []

    class Training(pl.Callback):
        def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
            training.append(float(outputs["loss"]))

    plan, recorder = TrainingPlan(make_module(NoRegularizer()), lr=0.1), Recorder()
    fit(plan, max_epochs=6, validation=opposite, callbacks=[recorder, Training()])
    best = int(np.argmin(recorder.losses))
    assert best < 5
    assert np.argmin(np.reshape(training, (6, -1)).mean(1)) == 5
    for name, value in plan.best_state.items():
        assert torch.equal(value, recorder.states[best][name])


@pytest.mark.parametrize("validation", [True, False])
def test_best_states_are_judged_by_error_and_penalty(make_module, fit, batch, validation):
    """A penalty that is far larger than the error: the state with the smaller one is the best, whatever its error."""

    class Grow(Recorder):
        def on_train_epoch_start(self, trainer, plan):
            if trainer.current_epoch > 0:
                with torch.no_grad():
                    plan.module.field.weights[-1].add_(0.05 * plan.module.field.weights[-1].sign())

    plan, recorder = TrainingPlan(make_module(PathReg(1e3)), lr=1e-9, gate_lr=1e-9), Grow()
    errors = iter((3.0, 2.0, 1.0, 0.5))
    evaluate = plan._evaluate

    def told(tensors, **place):
        output = evaluate(tensors, **place)
        if plan.module.training != validation:
            output.extra_metrics["error"] = torch.full_like(output.extra_metrics["error"], next(errors))
        return output

    plan._evaluate = told
    fit(plan, max_epochs=4, steps_per_epoch=1, validation=batch if validation else None, callbacks=[recorder])
    assert next(errors, None) is None
    for name, value in plan.best_state.items():
        assert torch.equal(value, recorder.states[0][name])


def test_losses_of_the_round_before_do_not_stand_in_for_epochs_without_validation(make_module, fit):
    class Setback(Recorder):
        def on_train_epoch_start(self, trainer, plan):
            if trainer.current_epoch == 3:
                with torch.no_grad():
                    plan.module.field.biases[-1].fill_(3.0)

    plan, recorder = TrainingPlan(make_module(CNODE(0.1, adaptive=1))), Setback()
    fit(plan, max_epochs=4, callbacks=[recorder], check_val_every_n_epoch=2)
    assert recorder.losses[3] > recorder.losses[1]
    for name, value in plan.best_state.items():
        assert torch.equal(value, recorder.states[3][name])


def test_validation_uses_deterministic_gates_and_starts(make_module, fit, held_out):
    recorder = Recorder()
    plan = TrainingPlan(make_module())
    trainer = fit(plan, callbacks=[recorder])
    with torch.no_grad():
        expected = plan.module.eval()(held_out)[1].extra_metrics
    assert float(trainer.callback_metrics["validation_error"]) == pytest.approx(float(expected["error"].mean()))
    loss = (expected["error"] + expected["penalty"]).mean()
    assert float(trainer.callback_metrics["validation_loss"]) == pytest.approx(float(loss))


def test_a_loss_that_is_not_finite_is_a_divergence_error(make_module, batch):
    plan = TrainingPlan(make_module())
    with pytest.raises(DivergenceError, match="loss became"):
        plan.training_step(batch | {"square": torch.tensor([float("nan")])}, 0)


def test_an_error_that_no_gradient_leads_back_from_is_a_divergence_error(make_module, batch):
    module = make_module(NoRegularizer())
    far, near = (batch | {"gram": batch["gram"] * factor, "cross": 0.0 * batch["cross"]} for factor in (1e12, 1e6))
    error, other = (float(module(tensors)[1].loss.detach()) for tensors in (far, near))
    assert other < 1e9 < error < float("inf")
    plan = TrainingPlan(module)
    plan.training_step(far, 0)  # training may begin there, and pass through it
    plan.training_step(near, 0)
    plan.training_step(far, 1)
    with pytest.raises(DivergenceError, match=r"squared error became \S+e\+12 times the variance"):
        plan.training_step(far, 0)
    with pytest.raises(DivergenceError, match="squared error became"):
        plan.validation_step(far, 0)


class Explode(pl.Callback):
    """Spoils the weights of some replicates before some training batches."""

    def __init__(self, batches, value=1e4, replicates=slice(None)):
        self.left, self.value, self.replicates = set(batches), value, replicates

    def on_train_batch_start(self, trainer, plan, batch, batch_idx):
        if trainer.global_step in self.left:
            self.left.remove(trainer.global_step)
            with torch.no_grad():
                for parameter in [*plan.module.field.weights, *plan.module.field.biases]:
                    parameter[self.replicates] = self.value


@pytest.mark.parametrize("value", [1e4, float("nan")])
def test_training_that_diverges_goes_on_from_an_earlier_state_with_smaller_steps(make_module, fit, value):
    """As if the weights had never been spoilt, but for the learning rate and the moments of Adam."""
    plan, recorder = TrainingPlan(make_module(NoRegularizer())), Recorder()
    with pytest.warns(UserWarning, match=r"diverged in epoch 2.*`lr=0\.0033`") as found:
        fit(plan, max_epochs=6, callbacks=[recorder, Explode([10], value)])
    assert len([one for one in found if "diverged" in str(one.message)]) == 1
    undisturbed = Recorder()
    fit(TrainingPlan(make_module(NoRegularizer())), max_epochs=6, callbacks=[undisturbed])
    np.testing.assert_array_equal(recorder.losses[:2], undisturbed.losses[:2])
    rates, planned = np.array(recorder.rates)[:, 0], np.array(undisturbed.rates)[:, 0]
    np.testing.assert_allclose(rates[:10], planned[:10])
    np.testing.assert_allclose(rates[10:], planned[10:] / 3)
    assert np.isfinite(recorder.losses).all()
    assert recorder.losses[-1] < min(recorder.losses[:2])


def test_the_first_step_after_a_divergence_is_small(make_module, fit):
    """Adam's step is at most its learning rate per weight once its moments are forgotten."""
    plan, recorder = TrainingPlan(make_module(NoRegularizer())), Recorder()
    with pytest.warns(UserWarning, match="diverged"):
        fit(plan, max_epochs=4, steps_per_epoch=1, callbacks=[recorder, Explode([3])])
    jumps = [
        max(float((value - state[name]).abs().max()) for name, value in plan.module.named_parameters())
        for state in recorder.states[:2]
    ]
    assert min(jumps) <= 1.01 * recorder.rates[3][0]  # rounding of weights of size one
    assert [n > 0 for n in recorder.moments] == [False, True, True, False]
    assert recorder.rates[3][0] > 0


class Returns(Recorder):
    """States that epochs begin with, after an optional setback, and the state of the step that follows a divergence."""

    def __init__(self, explode, setback=None):
        super().__init__()
        self.explode, self.setback, self.starts, self.returned = explode, setback, [], None

    def on_train_epoch_start(self, trainer, plan):
        if trainer.current_epoch == self.setback:
            with torch.no_grad():
                plan.module.field.biases[-1].fill_(3.0)
        self.starts.append([p.detach().clone() for p in plan.module.parameters()])

    def on_train_batch_start(self, trainer, plan, batch, batch_idx):
        if trainer.global_step == self.explode:
            with torch.no_grad():
                plan.module.field.biases[-1].fill_(float("nan"))

    def on_before_backward(self, trainer, plan, loss):
        if trainer.global_step == self.explode:
            self.returned = [p.detach().clone() for p in plan.module.parameters()]


@pytest.mark.parametrize(
    ("explode", "setback", "expected"),
    [(0, None, 0), (10, None, 2), (10, 2, 1)],
    ids=["first step", "within an epoch", "after a setback"],
)
def test_training_goes_back_to_the_best_state_that_an_epoch_began_with(make_module, fit, explode, setback, expected):
    recorder = Returns(explode, setback)
    with pytest.warns(UserWarning, match="diverged"):
        fit(TrainingPlan(make_module(NoRegularizer())), max_epochs=4, callbacks=[recorder])
    for value, start in zip(recorder.returned, recorder.starts[expected], strict=True):
        assert torch.equal(value, start)


def test_a_round_that_diverges_does_not_go_back_to_the_round_before(make_module, fit):
    """Losses of two rounds are not comparable: here the second begins with a larger one."""
    recorder = Returns(10, setback=2)
    with pytest.warns(UserWarning, match="diverged"):
        fit(TrainingPlan(make_module(CNODE(0.1, adaptive=1))), max_epochs=4, callbacks=[recorder])
    for value, start in zip(recorder.returned, recorder.starts[2], strict=True):
        assert torch.equal(value, start)


@pytest.mark.parametrize("batches", [[6], [7], [8], [7, 8]])
def test_without_held_out_cells_no_state_is_kept_that_diverges(make_module, fit, batch, batches):
    """Whatever step of an epoch it is, the last one included."""

    class After(Explode):
        def on_train_batch_start(self, *_):
            pass

        def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
            super().on_train_batch_start(trainer, plan, batch, batch_idx)

    plan = TrainingPlan(make_module(NoRegularizer()))
    with pytest.warns(UserWarning, match="diverged") as found:
        fit(plan, max_epochs=5, validation=None, callbacks=[After(batches)])
    assert len([one for one in found if "diverged" in str(one.message)]) == len(batches)
    with torch.no_grad():
        assert torch.isfinite(plan.module(batch)[1].loss)

    plan = TrainingPlan(make_module(NoRegularizer()))
    with pytest.warns(UserWarning, match="diverged"), pytest.raises(DivergenceError):
        fit(plan, max_epochs=5, validation=None, callbacks=[After(range(batches[0], 20))])
    plan.module.load_state_dict(plan.best_state)
    with torch.no_grad():
        assert torch.isfinite(plan.module(batch)[1].loss)


def test_a_state_that_diverges_in_validation_is_given_up_too(make_module, fit):
    class Last(pl.Callback):
        def on_validation_epoch_start(self, trainer, plan):
            if trainer.current_epoch == 2:
                with torch.no_grad():
                    plan.module.field.biases[-1].fill_(float("nan"))

    plan, recorder = TrainingPlan(make_module(NoRegularizer())), Recorder()
    with pytest.warns(UserWarning, match="diverged in epoch 2"):
        fit(plan, max_epochs=5, callbacks=[recorder, Last()])
    assert np.isfinite(recorder.losses).all()


def test_a_fourth_divergence_is_an_error_and_the_best_state_stays(make_module, fit):
    plan = TrainingPlan(make_module(NoRegularizer()))
    recorder = Recorder()
    with (
        pytest.warns(UserWarning, match=r"`lr=0\.00037`"),
        pytest.raises(DivergenceError, match="integration failed"),
    ):
        fit(plan, callbacks=[recorder, Explode([8, 9, 10, 11])])
    assert len(recorder.states) == 2
    best = int(np.argmin(recorder.losses))
    for name, value in plan.best_state.items():
        assert torch.equal(value, recorder.states[best][name])


def test_a_training_that_fails_at_once_leaves_what_it_began_with(make_module, fit):
    plan = TrainingPlan(make_module(NoRegularizer()))
    before = {name: value.clone() for name, value in plan.module.state_dict().items()}
    with pytest.warns(UserWarning, match="diverged in epoch 0"), pytest.raises(DivergenceError):
        fit(plan, callbacks=[Explode([0, 1, 2, 3])])
    for name, value in before.items():
        assert torch.equal(plan.best_state[name], value)


@pytest.mark.parametrize("regularizer", [NoRegularizer(), PathReg(0.1, gates="weight")])
@pytest.mark.parametrize("value", [1e4, float("nan")])
def test_a_replicate_that_diverges_for_the_fourth_time_is_given_up_and_the_others_go_on(
    make_module, fit, regularizer, value
):
    plan, recorder = TrainingPlan(make_module(regularizer, seeds=(0, 1, 2))), Recorder()
    explode = Explode([8, 9, 10, 11], value, replicates=[1])
    with pytest.warns(UserWarning, match=r"In epoch 2, for the fourth time, 1 of 3 replicates diverge") as found:
        fit(plan, max_epochs=8, callbacks=[recorder, explode])
    assert len([one for one in found if "diverge" in str(one.message)]) == 4
    assert plan.given_up == [1]
    assert plan.slowdown == 1
    assert len(recorder.states) == 8
    for parameter in (*plan.module.field.weights, *plan.module.field.biases):
        assert (parameter[1] == 0).all()
        assert torch.isfinite(parameter).all()
        assert (parameter[[0, 2]] != 0).any()
    # The learning rate is the planned one again, and the others have moved on since.
    undisturbed = Recorder()
    fit(TrainingPlan(make_module(regularizer, seeds=(0, 1, 2))), max_epochs=8, callbacks=[undisturbed])
    np.testing.assert_allclose(np.array(recorder.rates)[12:], np.array(undisturbed.rates)[12:])
    assert (recorder.states[7]["field.weights.0"][0] != recorder.states[2]["field.weights.0"][0]).any()
    assert not plan.best_state["field.weights.0"][1].any()


def test_others_than_the_first_are_given_up_later(make_module, fit):
    plan = TrainingPlan(make_module(NoRegularizer(), seeds=(0, 1, 2)))
    first, second = Explode(range(4, 8), replicates=[2]), Explode(range(9, 13), float("nan"), replicates=[0])
    with pytest.warns(UserWarning, match="fourth time, 1 of 3"):
        fit(plan, max_epochs=6, callbacks=[first, second])
    assert plan.given_up == [0, 2]

    plan = TrainingPlan(make_module(NoRegularizer()))
    first, second = Explode(range(4, 8), replicates=[1]), Explode(range(9, 13), replicates=[0])
    with pytest.warns(UserWarning, match="fourth time, 1 of 2"), pytest.raises(DivergenceError):
        fit(plan, max_epochs=6, callbacks=[first, second])
    assert plan.given_up == [1]
    assert plan.put_back_best()
    for parameter in (*plan.module.field.weights, *plan.module.field.biases):
        assert not parameter[1].any()
        assert torch.isfinite(parameter).all()


def test_what_was_given_up_does_not_come_back_with_an_earlier_state(make_module, fit):
    """All diverge later in the epoch, which began before the first was given up."""
    plan, recorder = TrainingPlan(make_module(NoRegularizer(), seeds=(0, 1, 2))), Returns(9)
    explode = Explode(range(5, 9), replicates=[1])
    with pytest.warns(UserWarning, match="fourth time, 1 of 3"):
        fit(plan, max_epochs=1, steps_per_epoch=12, callbacks=[explode, recorder])
    for (name, _), returned, start in zip(
        plan.module.named_parameters(), recorder.returned, recorder.starts[0], strict=True
    ):
        assert torch.equal(returned[[0, 2]], start[[0, 2]])
        if "weights" in name or "biases" in name:
            assert not returned[1].any()


def test_replicates_that_were_given_up_stay_at_zero(make_module, fit):
    plan = TrainingPlan(make_module(NoRegularizer()))
    parameters = [*plan.module.field.weights, *plan.module.field.biases]
    plan.given_up = [1]
    fit(plan, max_epochs=2)
    for parameter in parameters:
        assert (parameter[1] == 0).all()
        assert (parameter[0] != 0).any()


def test_means_are_those_of_the_replicates_that_are_not_given_up(make_module, fit, held_out):
    """A replicate without edges would hide what the others reach, and end early stopping too soon."""
    plan = TrainingPlan(make_module(CNODE(0.1), seeds=(0, 1, 2)))
    plan.given_up, kept = [1], [0, 2]
    metrics = fit(plan, callbacks=[Recorder()]).callback_metrics
    with torch.no_grad():
        found = plan.module.eval()(held_out)[1].extra_metrics
    error, penalty = found["error"][kept], found["penalty"][kept]
    assert float(metrics["validation_error"]) == pytest.approx(float(error.mean()))
    assert float(metrics["validation_loss"]) == pytest.approx(float((error + penalty).mean()))
    assert float(metrics["train_penalty"]) == pytest.approx(float(penalty.mean()), rel=0.1)
    sparsity = plan.module.sparsity()
    assert sparsity[1].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(
        [metrics["feature_sparsity"], metrics["weight_sparsity"]], sparsity[kept].mean(0), atol=1e-6
    )


# Iterative sparsification


class Steps(Recorder):
    """Also the strength in force, and the errors of the replicates after every epoch; can spoil one replicate."""

    def __init__(self, held_out=None, spoil=None):
        super().__init__()
        self.held_out, self.spoil, self.shares, self.errors = held_out, spoil, [], []

    def on_train_batch_start(self, trainer, plan, batch, batch_idx):
        self.shares.append(plan.module.strength_share)
        if self.spoil is not None and trainer.current_epoch >= self.spoil[0]:
            with torch.no_grad():
                plan.module.field.biases[-1][self.spoil[1]] += 2.0

    def on_train_epoch_end(self, trainer, plan):
        super().on_train_epoch_end(trainer, plan)
        if self.held_out is not None:
            with torch.no_grad():
                self.errors.append(plan.module.eval()(self.held_out)[1].extra_metrics["error"])
            plan.module.train()


def sparsify(make_module, fit, schedule, dense=2, regularizer=None, recorder=None, **options):
    plan = TrainingPlan(
        make_module(CNODE((0.02, 0.1)) if regularizer is None else regularizer), schedule=schedule, dense_epochs=dense
    )
    recorder = recorder or Steps()
    trainer = fit(plan, max_epochs=dense + schedule.n_epochs, steps_per_epoch=3, callbacks=[recorder], **options)
    return plan, recorder, trainer


def test_strength_in_force_follows_the_schedule(make_module, fit):
    schedule = IterativeSparsification(3, 0.04, 2, max_error_increase=1e6)
    plan, recorder, _ = sparsify(make_module, fit, schedule)
    np.testing.assert_allclose(recorder.shares, np.repeat([0.0, 0.04, 0.2, 1.0], [6, 6, 6, 6]), rtol=1e-9)
    assert plan.module.strength_share == 1.0
    rates = np.array(recorder.rates)[:, 0]
    assert rates[5] == pytest.approx(0.01 * 0.01)  # the first phase ends like a training of its own
    np.testing.assert_allclose(rates[6:], 0.3 * 0.01)
    assert all((w != 0).all() for name, w in recorder.states[1].items() if "weights" in name)
    assert any((w == 0).any() for name, w in recorder.states[-1].items() if "weights" in name)


def test_every_step_is_recorded_for_every_replicate(make_module, fit, held_out):
    schedule = IterativeSparsification(2, 0.5, 2, max_error_increase=0.05)
    recorder = Steps(held_out)
    plan, _, _ = sparsify(make_module, fit, schedule, recorder=recorder)
    assert [(row["step"], row["replicate"]) for row in plan.records] == [(k, r) for k in range(3) for r in range(4)]
    dense = plan.records[:4]
    for row in plan.records:
        step, r = row["step"], row["replicate"]
        epoch = (1, 3, 5)[step]
        assert row["strength"] == pytest.approx((0.0, 0.5, 1.0)[step] * (0.02, 0.02, 0.1, 0.1)[r], rel=1e-6)
        assert row["seed"] == r % 2
        assert row["validation_error"] == pytest.approx(float(recorder.errors[epoch][r]), rel=1e-5)
        assert row["accepted"] == (row["validation_error"] <= 1.05 * dense[r]["validation_error"])
        weights = [recorder.states[epoch][f"field.weights.{k}"][r] for k in range(2)]
        zeros = sum(float((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
        assert row["weight_sparsity"] == pytest.approx(zeros)
        matrix = weights[1].abs() @ weights[0].abs()
        assert row["feature_sparsity"] == pytest.approx(float((matrix == 0).double().mean()))


def test_a_replicate_ends_at_its_last_accepted_step(make_module, fit):
    """One replicate is spoiled from the second step on: it goes back to the first, the others keep the last."""
    schedule = IterativeSparsification(2, 0.5, 2, max_error_increase=0.5)
    recorder = Steps(spoil=(4, 1))
    plan, _, _ = sparsify(make_module, fit, schedule, dense=2, regularizer=CNODE((1e-4, 2e-4)), recorder=recorder)
    accepted = np.array([row["accepted"] for row in plan.records]).reshape(3, 4)
    np.testing.assert_array_equal(accepted, [[True] * 4, [True] * 4, [True, False, True, True]])
    for name, value in plan.module.named_parameters():
        for replicate, epoch in enumerate((5, 3, 5, 5)):
            assert torch.equal(value[replicate], recorder.states[epoch][name][replicate])
        assert not torch.equal(recorder.states[5][name][1], recorder.states[3][name][1])


@pytest.mark.parametrize(("spoil", "n_recorded"), [(slice(None), 3), (0, 5)], ids=["all", "one"])
def test_training_stops_when_all_replicates_failed_twice_in_a_row(make_module, fit, spoil, n_recorded):
    schedule = IterativeSparsification(4, 0.5, 1, max_error_increase=0.5)
    plan, recorder, trainer = sparsify(
        make_module, fit, schedule, regularizer=CNODE((1e-4, 2e-4)), recorder=Steps(spoil=(2, spoil))
    )
    assert len(plan.records) == 4 * n_recorded
    assert trainer.current_epoch == n_recorded + 1
    failed = 4 if spoil == slice(None) else 1
    assert [row["accepted"] for row in plan.records[4:8]] == [False] * failed + [True] * (4 - failed)
    for name, value in plan.module.named_parameters():
        assert torch.equal(value[0], recorder.states[1][name][0])


def test_a_schedule_does_not_wait_for_what_was_given_up(make_module, fit):
    schedule = IterativeSparsification(4, 0.5, 1, max_error_increase=0.5)
    plan = TrainingPlan(make_module(CNODE((1e-4, 2e-4))), schedule=schedule, dense_epochs=2)
    plan.given_up = [1]
    trainer = fit(plan, max_epochs=6, steps_per_epoch=3, callbacks=[Steps(spoil=(2, [0, 2, 3]))])
    assert trainer.current_epoch == 4
    assert [row["accepted"] for row in plan.records] == [True, False, True, True] + [False] * 8


def test_a_schedule_that_diverged_leaves_no_trace_in_the_next_training(make_module, fit):
    plan = TrainingPlan(make_module(CNODE(0.1)), schedule=IterativeSparsification(3), dense_epochs=1)
    with pytest.warns(UserWarning, match="diverged in epoch 3"), pytest.raises(DivergenceError):
        fit(plan, max_epochs=16, callbacks=[Explode([12, 13, 14, 15])])
    plan.module.load_state_dict(plan.best_state)
    recorder = Steps()
    fit(TrainingPlan(plan.module), max_epochs=1, callbacks=[recorder])
    assert set(recorder.shares) == {1.0}


def test_a_step_that_diverges_goes_back_to_a_state_of_its_own_strength(make_module, fit):
    """Losses of the phase without penalty, which are smaller, do not count: its last state is where the step began."""
    schedule = IterativeSparsification(1, 1.0, 2, max_error_increase=1e6)
    plan = TrainingPlan(make_module(L0(10.0)), schedule=schedule, dense_epochs=3)
    recorder, returned = Recorder(), []

    class Returned(Explode):
        def on_before_backward(self, trainer, plan, loss):
            if trainer.global_step == 4:
                returned.extend(parameter.detach().clone() for parameter in plan.module.parameters())

    with pytest.warns(UserWarning, match="diverged in epoch 4"):
        fit(plan, max_epochs=5, steps_per_epoch=1, callbacks=[recorder, Returned([4])])
    for (name, _), value in zip(plan.module.named_parameters(), returned, strict=True):
        assert torch.equal(value, recorder.states[2][name])


class Told(Recorder):
    """Errors of held-out cells as they are told, at the end of every epoch."""

    def __init__(self, errors):
        super().__init__()
        self.errors, self.train_errors = errors, []

    def on_train_epoch_end(self, trainer, plan):
        super().on_train_epoch_end(trainer, plan)
        plan._validation_error = torch.as_tensor(self.errors[trainer.current_epoch])


@pytest.mark.parametrize("increase", [0.0, 0.1, 0.5])
def test_steps_are_accepted_up_to_the_increase_of_the_held_out_error(make_module, fit, increase):
    """An error that has risen by just that much is accepted; training errors do not count."""
    schedule = IterativeSparsification(3, 0.5, 1, max_error_increase=increase)
    errors = np.outer([1.0, 1.0 + increase, 1.05, 1.3], [1.0, 2.0]).astype(np.float32)
    plan, _, trainer = sparsify(
        make_module, fit, schedule, dense=1, regularizer=CNODE(0.01), recorder=Told(torch.from_numpy(errors))
    )
    accepted = [row["accepted"] for row in plan.records]
    expected = [True, True, True, True, *([increase > 0.05] * 2), *([increase > 0.3] * 2)]
    assert accepted == expected
    assert [row["validation_error"] for row in plan.records] == errors.ravel().tolist()
    last = [row["train_error"] for row in plan.records[-2:]]
    assert np.mean(last) == pytest.approx(float(trainer.callback_metrics["train_error"]))


@pytest.mark.parametrize(
    ("errors", "n_recorded"),
    [([1.0, 2.0, 2.0, 1.0, 1.0], 3), ([1.0, 2.0, 1.0, 2.0, 1.0], 5), ([1.0, 1.0, 2.0, 1.0, 2.0], 5)],
)
def test_only_failures_in_a_row_end_the_training(make_module, fit, errors, n_recorded):
    schedule = IterativeSparsification(4, 0.5, 1, max_error_increase=0.5)
    told = torch.tensor(errors)[:, None].expand(-1, 2)
    plan, recorder, _ = sparsify(make_module, fit, schedule, dense=1, regularizer=CNODE(0.01), recorder=Told(told))
    assert len(plan.records) == 2 * n_recorded
    last = max(k for k in range(n_recorded) if errors[k] < 1.5)
    for name, value in plan.module.named_parameters():
        assert torch.equal(value, recorder.states[last][name])


def test_the_schedule_decides_and_not_the_loss(make_module, fit):
    """Losses of steps that are not accepted may be smaller."""
    schedule = IterativeSparsification(1, 1.0, 3, max_error_increase=0.5)
    told = torch.tensor([1.0, 1.0, 1.0, 2.0])[:, None].expand(-1, 2)
    plan, recorder, _ = sparsify(make_module, fit, schedule, dense=1, regularizer=CNODE(1e-6), recorder=Told(told))
    assert recorder.losses[3] < recorder.losses[0]
    for name, value in plan.module.named_parameters():
        assert torch.equal(value, recorder.states[0][name])


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_a_trained_module_adapts_to_what_it_has_learned_before_the_first_step(make_module, fit, warm, refit):
    """One that was not trained, and a refit, do not."""
    module, found = make_module(CNODE(0.1, adaptive=1)), []
    module.field.adapt(module.field.path_matrix(module.field.effective_weights()).detach())
    expected = module.field.adapted.clone()
    module.field.adapt(None)

    class First(pl.Callback):
        def on_train_batch_start(self, trainer, plan, batch, batch_idx):
            found.append(module.field.adapted)

    fit(TrainingPlan(module, warm=warm, refit=refit), max_epochs=2, callbacks=[First()])
    if warm and not refit:
        torch.testing.assert_close(found[0], expected)
    else:
        assert found[0] is None


@pytest.mark.parametrize(("times", "lost"), [(0.9e9, False), (1.1e9, True)])
def test_an_epoch_is_lost_beyond_a_billion_times_the_variance(make_module, batch, monkeypatch, times, lost):
    module = make_module(CNODE(0.1))
    forward = module.forward

    def wrong(*arguments):
        effective, output = forward(*arguments)
        output.extra_metrics["error"] = torch.tensor([1.0, times])
        return effective, output

    monkeypatch.setattr(module, "forward", wrong)
    plan = TrainingPlan(module)
    plan._sound_loss = 2.0
    if lost:
        with pytest.raises(DivergenceError, match="squared error became"):
            plan._try(batch)
    else:
        plan._try(batch)
