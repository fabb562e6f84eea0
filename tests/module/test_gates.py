from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from sparsenode.module import _gates

# Louizos et al. (2018), section 4.1
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
LOGITS = [-4.0, -2.0, -0.5, 0.0, 1.0, 3.0]


@pytest.mark.parametrize("alpha", LOGITS)
def test_sampled_gates_are_open_as_often_as_stated(alpha):
    uniform = torch.rand(40_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    frequency = float((_gates.sample(torch.tensor(alpha), uniform) != 0).double().mean())
    expected = float(_gates.open_probability(torch.tensor(alpha, dtype=torch.float64)))
    assert abs(frequency - expected) < 4 * np.sqrt(expected * (1 - expected) / len(uniform))


def test_open_probability_is_equation_12_of_louizos():
    alpha = np.array(LOGITS)
    np.testing.assert_allclose(
        _gates.open_probability(torch.as_tensor(alpha)), expit(alpha - BETA * np.log(-GAMMA / ZETA)), rtol=1e-12
    )


@given(
    alpha=st.floats(-20, 20),
    uniform=st.floats(1e-5, 1 - 1e-5),
)
@example(alpha=-8.0, uniform=1 - 1e-5)  # rare draws open gates that are all but closed, and close open ones
@example(alpha=8.0, uniform=1e-5)
@settings(deadline=None, max_examples=50)
def test_sample_follows_the_formula(alpha, uniform):
    s = expit((logit(uniform) + alpha) / BETA)
    expected = np.clip(s * (ZETA - GAMMA) + GAMMA, 0, 1)
    found = _gates.sample(torch.tensor(alpha, dtype=torch.float64), torch.tensor(uniform, dtype=torch.float64))
    assert float(found) == pytest.approx(expected, abs=1e-10)


def test_uniform_numbers_at_the_ends_of_the_interval_give_finite_gates_and_gradients():
    logits = torch.zeros(2, requires_grad=True)
    gates = _gates.sample(logits, torch.tensor([0.0, 1.0]))
    gates.sum().backward()
    assert gates.tolist() == [0.0, 1.0]
    assert torch.isfinite(logits.grad).all()


def test_samples_let_gradients_pass_inside_the_interval():
    logits = torch.zeros(1, requires_grad=True)
    _gates.sample(logits, torch.tensor([0.5])).sum().backward()
    assert logits.grad.item() == pytest.approx(0.25 / BETA * (ZETA - GAMMA))


def test_deterministic_gates_are_exactly_zero_or_one_for_strong_logits():
    # The stretched sigmoid leaves the interval where sigmoid(alpha) is 1/12 from an end: |alpha| > log 11.
    strong = np.log(11) + 1e-3
    gates = _gates.deterministic(torch.tensor([-50.0, -strong, strong, 50.0]))
    assert gates.tolist() == [0.0, 0.0, 1.0, 1.0]
    weak = _gates.deterministic(torch.tensor([-np.log(11) + 1e-2, 0.0, np.log(11) - 1e-2]))
    assert ((weak > 0) & (weak < 1)).all()


def test_deterministic_gates_draw_no_random_numbers():
    logits = torch.linspace(-5, 5, 11)
    before = torch.get_rng_state()
    first = _gates.deterministic(logits)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(_gates.deterministic(logits), first)
    np.testing.assert_allclose(
        first, np.clip(expit(logits.numpy()) * (ZETA - GAMMA) + GAMMA, 0, 1), rtol=1e-5, atol=1e-7
    )


def test_gates_of_one_unit_broadcast_over_its_outgoing_weights():
    logits, uniform = torch.zeros(2, 1, 3), torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0))
    assert _gates.sample(logits, uniform).shape == (2, 4, 3)


def test_gradients_are_those_of_the_formula_and_zero_where_gates_are_clamped():
    """As autograd has it of the operations one by one."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.linspace(-6.0, 6.0, 400, dtype=torch.float64).requires_grad_()
    uniform = torch.rand(400, generator=generator, dtype=torch.float64)
    factor = torch.randn(400, generator=generator, dtype=torch.float64)
    gates = _gates.sample(logits, uniform)
    (found,) = torch.autograd.grad((factor * gates).sum(), logits)
    plain = torch.clamp(torch.sigmoid((logits + torch.logit(uniform)) / (2 / 3)) * 1.2 - 0.1, 0.0, 1.0)
    (expected,) = torch.autograd.grad((factor * plain).sum(), logits)
    torch.testing.assert_close(found, expected)
    closed, full = gates == 0, gates == 1
    assert closed.sum() > 50
    assert full.sum() > 50
    assert (found[closed | full] == 0).all()
