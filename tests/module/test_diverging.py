"""Replicates whose trajectories diverge, on equations with known solutions; and what is left of those given up."""

from __future__ import annotations

import pytest
import torch

from sparsenode.module._diverging import diverging, failing, give_up
from sparsenode.regularizers import CNODE, PathReg


@pytest.fixture
def growing(make_module):
    """One replicate per rate, in which every variable follows dx/dt = rate · x from one over one unit of time."""

    def make(rates, **options):
        module = make_module(seeds=range(len(rates)), skip=True, **options)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
            module.field.raw_decay.fill_(-100.0)
            skips = module.field.weights[-1].unflatten(0, (len(rates), -1))
            for skip, rate in zip(skips, rates, strict=True):
                skip[..., -4:] = rate * torch.eye(4)
            module.initial_state.fill_(1.0)
            module.relative_span.fill_(1.0)
        return module

    return make


def parameters(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.parametrize("fields", ["lineage", "shared"])
@pytest.mark.parametrize("given_up", [[1], [0, 2]], ids=str)
def test_weights_and_biases_of_those_given_up_are_zero_and_the_others_as_they_were(make_module, fields, given_up):
    module = make_module(seeds=(0, 1, 2), fields=fields, skip=True)
    with torch.no_grad():
        for bias in module.field.biases:
            bias.fill_(0.5)
    both = [*module.field.weights, *module.field.biases]
    before = [parameter.detach().clone() for parameter in both]
    give_up(module, given_up)
    for found, was in zip(both, before, strict=True):
        found, was = found.unflatten(0, (3, -1)), was.unflatten(0, (3, -1))
        for replicate in range(3):
            expected = torch.zeros_like(was[0]) if replicate in given_up else was[replicate]
            assert torch.equal(found[replicate], expected)


@pytest.mark.parametrize("fields", ["lineage", "shared"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_those_that_end_beyond_a_thousand_are_found_and_all_stay_as_they_are(growing, fields, sign):
    # exp(7) is 1097, exp(6.8) is 898; exp(200) is no number in single precision.
    module = growing((7.0, 6.8, 200.0, -3.0), fields=fields)
    module.initial_state.mul_(sign)
    before = parameters(module)
    assert diverging(module) == [0, 2]
    assert all(torch.equal(found, was) for found, was in zip(parameters(module), before, strict=True))
    module.relative_span.fill_(0.03)
    assert diverging(module) == []


def test_learned_starts_are_where_trajectories_begin(growing):
    module = growing((0.0, 0.0), learned_start=True)
    with torch.no_grad():
        module.start_offset[1] = -5000.0
    assert diverging(module) == [1]


def test_trajectories_begin_with_velocities_of_their_own(growing):
    """Without a force x(t) = 1 + v t."""
    module = growing((0.0, 0.0), order=2, own_velocities=True)
    with torch.no_grad():
        module.velocity_offset[0] = 5000.0
    assert diverging(module) == [0]


@pytest.mark.parametrize("fields", ["lineage", "shared"])
def test_those_fail_whose_error_is_beyond_a_limit_or_no_number(growing, problem, fields):
    module, batch = growing((0.0, 4.0, -1.0), fields=fields), problem.tensors(9)
    before = parameters(module)
    assert failing(module, batch, float("inf")) == []
    assert failing(module, batch, 100.0) == [1]
    assert all(torch.equal(found, was) for found, was in zip(parameters(module), before, strict=True))
    module.field.biases[0].data.unflatten(0, (3, -1))[2] = float("nan")
    assert failing(module, batch, float("inf")) == [2]
    assert failing(module, batch, 100.0) == [1, 2]
    give_up(module, [2])
    assert failing(module, batch, float("inf")) == []


def test_a_replicate_fails_by_any_of_its_parameters(make_module, problem):
    """Decay, starts and velocities too, which the others must not be blamed for."""
    module = make_module(seeds=(0, 1, 2), order=2, skip=True, learned_start=True, own_velocities=True)
    batch = problem.tensors(9)
    for name, parameter in module.named_parameters():
        before = parameter.detach().clone()
        parameter.data.unflatten(0, (3, -1))[1] = float("nan")
        assert failing(module, batch, float("inf")) == [1], name
        parameter.data.copy_(before)


def test_a_large_penalty_is_no_large_error(make_module, problem):
    module, batch = make_module(CNODE([0.1, 1e12])), problem.tensors(9)
    errors = module(batch)[1].extra_metrics
    assert errors["penalty"][1] > 1e9 > errors["error"].max()
    assert failing(module, batch, 1e9) == []


def test_random_numbers_are_those_of_the_streams(make_module, problem):
    """A replicate fails, or not, with the gates that were drawn."""
    module = make_module(PathReg(0.1, gates="weight"), seeds=(0, 1, 2))
    batch = problem.tensors(9)
    module.train()
    module.seed_generators()
    for _ in range(5):
        states = module.generator_states()
        errors = module(batch)[1].extra_metrics["error"].detach()
        after = module.generator_states()
        between = float(errors.sort().values[1:].mean())
        module.set_generator_states(states)
        assert failing(module, batch, between) == [int(errors.argmax())]
        module.set_generator_states(after)
