"""Oracles for the speed-ups: plain autograd, and torchdiffeq's own interpolation."""

from __future__ import annotations

import pytest
import torch
from torchdiffeq import odeint

from sparsenode.module import Field, _gates
from sparsenode.module._paths import PathSlopes, gated_sum, product
from sparsenode.module._solve import _FIRST_STEP, Solver, _largest_rms, integrate
from sparsenode.module._velocity import saturating, velocity


@pytest.mark.parametrize(("decay", "hidden"), [(True, (4, 5)), (False, (5,)), (True, ())])
@pytest.mark.parametrize("gates", [None, "unit", "weight"])
def test_gradients_of_many_evaluations_equal_those_of_autograd(make_field, architecture, gates, decay, hidden):
    field = make_field(hidden=hidden, gates=gates, decay=decay, **architecture)
    x = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    inputs = [x, *field.parameters()]
    found = []
    for make in (velocity, lambda e: lambda state: Field.evaluate(state, e)):
        f = make(field.effective_weights())
        y = x + 0.3 * f(x)
        y = y + 0.2 * f(torch.sin(y[:, :3]).repeat(1, 2, 1))
        found.append(torch.autograd.grad((y**2).sum(), inputs, allow_unused=True))
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("decay", [True, False])
def test_beyond_the_reach_only_the_decay_goes_on(make_field, decay):
    field = make_field(hidden=(4, 5), decay=decay, skip="inner")
    effective = field.effective_weights()
    plain = velocity(effective)
    low, high = torch.tensor([-0.5, -1.0, 0.0]).double(), torch.tensor([0.5, 0.25, 2.0]).double()
    found = saturating(plain, effective.decay, (low.expand(2, 1, 3), high.expand(2, 1, 3)))
    inside = torch.tensor([[0.1, -0.3, 1.0], [-0.5, 0.25, 0.0]]).double().expand(2, 2, 3)
    torch.testing.assert_close(found(inside), plain(inside))
    outside = torch.tensor([[3.0, -7.0, 1.0]]).double().expand(2, 1, 3)
    at_the_ends = torch.tensor([[0.5, -1.0, 1.0]]).double().expand(2, 1, 3)
    rates = 0.0 if effective.decay is None else effective.decay
    torch.testing.assert_close(found(outside) + rates * outside, plain(at_the_ends) + rates * at_the_ends)
    assert (found(outside) - plain(outside)).abs().max() > 0.1


def test_gates_have_the_gradient_of_the_formula():
    logits = torch.linspace(-6, 6, 301, dtype=torch.float64, requires_grad=True)
    uniform = torch.rand(301, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.logit(uniform, eps=1e-6)
    soft = torch.sigmoid((noise + logits) / _gates.BETA)
    plain = torch.clamp(soft * (_gates.ZETA - _gates.GAMMA) + _gates.GAMMA, 0, 1)
    z = _gates.sample(logits, uniform)
    torch.testing.assert_close(z, plain, rtol=1e-12, atol=1e-15)
    weight = torch.linspace(1, 2, 301, dtype=torch.float64)
    for a, b in zip(*(torch.autograd.grad((v * weight).sum(), logits) for v in (z, plain)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("gates", ["unit", "weight"])
def test_gated_sum_and_slopes_equal_autograd_on_the_path_matrix(make_field, gates):
    field = make_field(gates=gates)
    z = [g.detach().clone().requires_grad_() for g in field.effective_weights().gates]
    w = [p.detach().abs().requires_grad_() for p in field.weights]
    total = product([a * b for a, b in zip(w, z, strict=True)]).sum((1, 2))
    slopes = PathSlopes.of(list(field.weights), z)
    torch.testing.assert_close(slopes.total, total.detach())
    strength = torch.tensor([0.7, 2.0], dtype=torch.float64)
    expected = torch.autograd.grad((total * strength).sum(), [*z, *w])
    found = torch.autograd.grad((gated_sum(slopes, z) * strength).sum(), z)
    for a, b in zip(found, expected, strict=False):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    for a, b, gate, e in zip(slopes.above, slopes.below, z, expected[3:], strict=True):
        torch.testing.assert_close(a * b * gate * strength.view(-1, 1, 1), e, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-7])
def test_dense_output_is_that_of_torchdiffeq(tolerance):
    a = 2 * torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    times = torch.linspace(0.5, 2.5, 17, dtype=torch.float64)
    f = lambda x: torch.tanh(3 * x @ a) - x
    options = {"norm": _largest_rms, "first_step": _FIRST_STEP * 2.0}
    expected = odeint(lambda _, x: f(x), start, times, rtol=tolerance, atol=tolerance, method="dopri5", options=options)
    found = integrate(f, start, times, Solver("dopri5", tolerance, tolerance))
    torch.testing.assert_close(found, expected.permute(1, 2, 0, 3), rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad((y**2).sum(), start)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)
