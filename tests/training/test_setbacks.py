"""Replicates that go back: what is kept of each, what comes back, and how long their steps are."""

from __future__ import annotations

import pytest
import torch

from sparsenode.regularizers import PathReg
from sparsenode.training._setbacks import Setbacks


@pytest.fixture
def module(make_module):
    return make_module(PathReg(0.1, gates="weight"), seeds=(0, 1, 2))


def change(module, by=1.0):
    """Move all parameters, and return where they were."""
    before = [parameter.detach().clone() for parameter in module.parameters()]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by)
    return before


def step(module, optimizer):
    """A step of Adam on some gradients."""
    for parameter in module.parameters():
        parameter.grad = torch.sin(parameter.detach())
    optimizer.step()
    return [
        [parameter.detach().clone(), *(optimizer.state[parameter][name].clone() for name in ("exp_avg", "exp_avg_sq"))]
        for parameter in module.parameters()
    ]


def test_the_best_state_of_every_replicate_comes_back_with_its_moments(module):
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)
    setbacks, states = Setbacks(module), []
    for losses in ([3.0, 2.0, 1.0], [2.0, 3.0, 1.0], [float("nan"), float("inf"), 4.0]):
        states.append(step(module, optimizer))
        setbacks.keep(torch.tensor(losses), optimizer)
    last = step(module, optimizer)
    assert setbacks.losses.tolist() == [2.0, 2.0, 1.0]
    setbacks.go_back([0, 1, 2], optimizer)
    expected = {0: states[1], 1: states[0], 2: states[1]}
    for i, parameter in enumerate(module.parameters()):
        found = [parameter, *(optimizer.state[parameter][name] for name in ("exp_avg", "exp_avg_sq"))]
        for kind, value in enumerate(found):
            for replicate, state in expected.items():
                assert torch.equal(value[replicate], state[i][kind][replicate])
    assert not torch.equal(module.field.weights[0], last[0][0])


def test_others_stay_where_they_are(module):
    setbacks = Setbacks(module)
    first = change(module)
    now = [parameter.detach().clone() for parameter in module.parameters()]
    setbacks.go_back([1], torch.optim.AdamW(module.parameters()))
    for found, old, new in zip(module.parameters(), first, now, strict=True):
        assert torch.equal(found[1], old[1])
        assert torch.equal(found[[0, 2]], new[[0, 2]])
    setbacks.put_back()
    for found, old in zip(module.parameters(), first, strict=True):
        assert torch.equal(found, old)


def test_before_the_first_step_moments_are_zero(module):
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)
    setbacks = Setbacks(module)
    setbacks.keep(torch.ones(3), optimizer)
    step(module, optimizer)
    setbacks.go_back([2], optimizer)
    for parameter in module.parameters():
        for name in ("exp_avg", "exp_avg_sq"):
            assert not optimizer.state[parameter][name][2].any()


def test_losses_of_another_round_are_not_compared(module):
    setbacks = Setbacks(module)
    setbacks.keep(torch.ones(3), None)
    change(module)
    setbacks.forget_losses()
    setbacks.keep(torch.full((3,), 2.0), None)
    kept = change(module, -5.0)
    setbacks.put_back()
    for found, expected in zip(module.parameters(), kept, strict=True):
        assert torch.equal(found, expected)


def test_every_setback_leaves_a_third_of_the_step(module):
    setbacks, optimizer = Setbacks(module), torch.optim.AdamW(module.parameters())
    setbacks.begin_step()
    change(module)
    expected = [parameter.detach().clone() for parameter in module.parameters()]
    setbacks.shorten_step()  # nobody has gone back
    for found, moved in zip(module.parameters(), expected, strict=True):
        assert torch.equal(found, moved)
    setbacks.go_back([1], optimizer)
    setbacks.go_back([1, 2], optimizer)
    torch.testing.assert_close(setbacks.shares, torch.tensor([1.0, 1 / 9, 1 / 3], dtype=torch.float64))
    setbacks.begin_step()
    before = change(module, 0.9)
    setbacks.shorten_step()
    for found, start in zip(module.parameters(), before, strict=True):
        assert torch.equal(found[0], start[0] + 0.9)
        torch.testing.assert_close(found[1], start[1] + 0.1)
        torch.testing.assert_close(found[2], start[2] + 0.3)
