from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsenode.module import EffectiveWeights, Field
from sparsenode.module._gates import open_probability
from sparsenode.module._velocity import velocity
from sparsenode.regularizers import CNODE, L0, GroupLasso, LassoNet, PathReg

HIDDEN = [(5,), (5, 4), (4, 3, 5)]


def as_sequential(effective: EffectiveWeights, network: int) -> nn.Sequential:
    """One network of the batch, without its decay and skip, from torch's own layers."""
    layers: list[nn.Module] = []
    for weight, bias in zip(effective.weights[: len(effective.biases)], effective.biases, strict=True):
        linear = nn.Linear(weight.shape[2], weight.shape[1], dtype=torch.float64)
        linear.weight.data, linear.bias.data = weight[network].detach(), bias[network, 0].detach()
        layers += [linear, nn.ELU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("gates", [None, "weight", "unit"])
def test_batch_of_networks_equals_one_network_at_a_time(make_field, hidden, gates):
    field = make_field(hidden=hidden, n_networks=3, gates=gates, decay=False)
    effective = field.effective_weights()
    x = torch.randn(3, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = field.evaluate(x, effective).detach()
    for network in range(3):
        np.testing.assert_allclose(found[network], as_sequential(effective, network)(x[network]).detach())


@pytest.mark.parametrize("gates", [None, "weight", "unit"])
def test_some_networks_are_what_they_are_among_all(make_field, architecture, gates):
    """With the path weights of their own that adaptive penalties find."""
    field = make_field(gates=gates, **architecture)
    field.adapt(field.path_matrix(field.effective_weights()).detach())
    effective = field.effective_weights()
    own = effective.take(slice(1, 2))
    x = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(field.evaluate(x[1:], own), field.evaluate(x, effective)[1:])
    for function in (field.path_matrix, field.path_squares):
        torch.testing.assert_close(function(own), function(effective)[1:])
    for chain, among in zip(own.paths, effective.paths, strict=True):
        torch.testing.assert_close(chain.total.sum(), among.total.view(2, -1)[1].sum())


@pytest.mark.parametrize("hidden", [(), (5, 4)], ids=str)
@pytest.mark.parametrize("gates", [None, "weight", "unit"])
def test_every_architecture_is_a_batch_of_plain_networks(make_field, architecture, gates, hidden):
    """Values, Jacobians and path matrices, one network and one target at a time."""
    path_weights = torch.rand(3, 3, generator=torch.Generator().manual_seed(3))
    field = make_field(hidden=hidden, gates=gates, path_weights=path_weights, **architecture)
    effective = field.effective_weights()
    x = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, paths = field.evaluate(x, effective).detach(), field.path_matrix(effective).detach()
    np.testing.assert_allclose(velocity(effective)(x).detach(), found, rtol=1e-10, atol=1e-12)
    regulators, count = list(architecture["inputs"] or range(3)), 3 if architecture["per_target"] else 1
    skips = torch.zeros(2, 3, 3, dtype=torch.float64)
    if architecture["skip"] is not None:
        skips[:, :, regulators] = effective.weights[-1].detach()
    totals = torch.stack([chain.total.view(2, -1).sum(1) for chain in effective.paths]).sum(0)
    for network in range(2):
        own = range(network * count, (network + 1) * count)
        networks = [as_sequential(effective, n) for n in own]
        decay = field.decay[network, 0].detach()

        def slope(v, networks=networks, skip=skips[network], decay=decay):
            inside = skip @ v if architecture["skip"] == "inner" else 0.0
            return torch.cat([f(v[regulators]) for f in networks]) + inside - decay * v

        np.testing.assert_allclose(found[network], torch.stack([slope(v) for v in x[network]]).detach(), rtol=1e-9)
        jacobian = torch.stack([torch.autograd.functional.jacobian(slope, v) for v in x[network]]).mean(0)
        jacobian += torch.diag(decay) + (skips[network] if architecture["skip"] == "outer" else 0.0)
        got = field.jacobian(x[network], effective, network).detach()
        np.testing.assert_allclose(got, jacobian, rtol=1e-9, atol=1e-12)
        rows = [[np.abs(m.weight.detach().numpy()) for m in f if isinstance(m, nn.Linear)] for f in networks]
        matrix = skips[network].abs().numpy()
        matrix[:, regulators] += np.concatenate([np.linalg.multi_dot(w[::-1]) if hidden else w[0] for w in rows])
        np.testing.assert_allclose(paths[network], matrix, rtol=1e-9)
        assert totals[network].item() == pytest.approx((matrix * path_weights.numpy()).sum(), rel=1e-6)
        squares = (matrix**2 * path_weights.numpy()).sum() / 3
        assert field.path_squares(effective)[network].item() == pytest.approx(squares, rel=1e-6)


def test_decay_subtracts_a_positive_rate_times_the_state(make_field):
    field = make_field(decay=True)
    x = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        with_decay = field.evaluate(x, field.effective_weights())
        rate = np.logaddexp(0.0, field.raw_decay.numpy())
        field.raw_decay = None
        without = field.evaluate(x, field.effective_weights())
    assert field.decay is None
    assert (rate > 0).all()
    np.testing.assert_allclose(with_decay, without.numpy() - rate * x.numpy(), rtol=1e-12)


@pytest.mark.parametrize(("order", "rate"), [(1, 1.0), (2, 0.1)])
def test_decay_starts_at_one_e_fold_over_a_trajectory_and_damping_at_a_tenth(order, rate):
    np.testing.assert_allclose(Field(3, (4,), [0], order=order).decay.detach(), rate, rtol=1e-4)


@pytest.mark.parametrize("gates", [None, "weight"])
@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
def test_jacobian_is_the_mean_of_autodiff_jacobians(make_field, hidden, gates):
    field = make_field(hidden=hidden, gates=gates)
    effective = field.effective_weights()
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for network in range(2):
        single = as_sequential(effective, network)
        expected = torch.stack([torch.autograd.functional.jacobian(single, point) for point in x]).mean(0)
        found = field.jacobian(x, effective, network).detach()
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        # points with weights, as often as these say
        weight = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 0.0], dtype=torch.float64)
        found = field.jacobian(x, effective, network, weight).detach()
        repeated = field.jacobian(x[[1, 2, 2, 4]], effective, network).detach()
        np.testing.assert_allclose(found, repeated, rtol=1e-9, atol=1e-12)


def close_some(field: Field, regularizer, generator: torch.Generator) -> None:
    """Zeros as the regularizer makes them: closed gates, or weights or columns that are exactly zero."""
    if isinstance(regularizer, GroupLasso | LassoNet):
        first, last = field.weights[0], field.weights[-1]
        alive = torch.rand(len(first), 1, first.shape[2], generator=generator) < 0.4
        first.data *= alive
        if isinstance(regularizer, LassoNet):
            last.data *= alive
        return
    for layer, weight in enumerate(field.weights):
        if regularizer.gates is None:
            weight.data *= torch.rand(weight.shape, generator=generator) < 0.4
        else:
            logits = field.gate_logits[layer]
            closed = torch.rand(logits.shape, generator=generator) < 0.6
            logits.data = torch.where(closed, torch.full_like(logits, -5.0), logits.abs())


@pytest.mark.parametrize(
    "regularizer",
    [
        *(CNODE(), L0(gates="weight"), L0(gates="unit"), PathReg(gates="weight"), PathReg(gates="unit")),
        *(GroupLasso(), LassoNet(), LassoNet(skip="outer")),
    ],
    ids=lambda r: f"{r.name}-{r.gates or r.skip}",
)
@pytest.mark.parametrize("skip", [None, "inner"])
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.1, 1.0, 30.0]), depth=st.integers(1, 3))
@settings(deadline=None, max_examples=15)
def test_zero_in_the_adjacency_proves_independence(make_field, regularizer, skip, seed, scale, depth):
    generator = torch.Generator().manual_seed(seed)
    architecture = {"skip": regularizer.skip or skip, "per_target": regularizer.per_target}
    field = make_field(5, (4,) * depth, 1, regularizer.gates, decay=False, seed=seed, **architecture)
    close_some(field, regularizer, generator)
    if regularizer.per_target and skip is not None:
        field.weights[-1].data *= torch.rand(5, 5, generator=generator) < 0.4
    effective = field.effective_weights()
    adjacency = field.path_matrix(effective)[0]  # by brute force: the first test above
    x = scale * torch.randn(1, 1, 5, generator=generator, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: field.evaluate(v, effective), x)[0, 0, :, 0, 0]
    zero = adjacency == 0
    assert (jacobian[zero] == 0).all()
    assert (field.jacobian(x[0], effective, 0)[zero] == 0).all()


def test_the_tests_above_see_zeros_and_non_zeros(make_field):
    field = make_field(5, (4, 4), 1, "weight", decay=False)
    close_some(field, L0(), torch.Generator().manual_seed(0))
    weights = [w[0].abs() for w in field.effective_weights().weights]
    share = float((weights[2] @ weights[1] @ weights[0] == 0).double().mean())
    assert 0.1 < share < 0.9


@pytest.mark.parametrize("gates", [None, "weight", "unit"])
def test_same_seed_gives_the_same_network_whatever_the_batch(gates):
    alone = Field(4, (5, 6), [7], gates)
    among = Field(4, (5, 6), [6, 7, 7, 11], gates)
    for a, b in zip(alone.parameters(), among.parameters(), strict=True):
        assert torch.equal(a[0], b[1])
        assert torch.equal(a[0], b[2])
    assert not torch.equal(among.weights[0][0], among.weights[0][1])


def test_initialisation_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    Field(4, (5,), [7], "weight")
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_start_with_unit_gain_and_a_damped_output():
    field = Field(60, (50, 40), range(4))
    spread = [float(w.detach().std() * np.sqrt(w.shape[2])) for w in field.weights]
    np.testing.assert_allclose(spread, [1.0, 1.0, 0.1], rtol=0.05)


@pytest.mark.parametrize(("skip", "shares"), [(None, [0.8, 0.5, 0.5]), ("inner", [0.8, 0.5, 0.5, 0.8])])
def test_four_fifths_of_the_gates_at_the_inputs_start_open_and_half_of_the_others(skip, shares):
    """A skip is read from the inputs."""
    field = Field(40, (30, 20), [0], "weight", skip=skip)
    found = [float(torch.sigmoid(logits).mean()) for logits in field.gate_logits]
    np.testing.assert_allclose(found, shares, atol=0.01)


@pytest.mark.parametrize(("gates", "rows"), [("weight", 5), ("unit", 1)])
def test_gates_per_weight_and_per_input_unit(gates, rows):
    field = Field(3, (5,), [0, 1], gates)
    assert field.gate_logits[0].shape == (2, rows, 3)
    for probability, logits, weight in zip(field.open_probabilities(), field.gate_logits, field.weights, strict=True):
        assert torch.equal(probability, open_probability(logits))
        assert probability.expand_as(weight).shape == weight.shape


def test_a_field_without_gates_has_the_weights_themselves(make_field):
    field = make_field(gates=None)
    effective = field.effective_weights()
    assert effective.gates == []
    assert field.open_probabilities() == []
    for a, b in zip(effective.weights, field.weights, strict=True):
        assert a is b


def test_sampled_gates_multiply_the_weights(make_field):
    field = make_field(gates="unit")
    uniform = [torch.rand(g.shape, generator=torch.Generator().manual_seed(0)) for g in field.gate_logits]
    effective = field.effective_weights(uniform)
    for weight, gate, product in zip(field.weights, effective.gates, effective.weights, strict=True):
        assert gate.shape == (2, 1, weight.shape[2])
        assert torch.equal(product, weight * gate)
    again = field.effective_weights([1 - u for u in uniform])
    assert not torch.equal(again.weights[0], effective.weights[0])


def test_n_vars():
    assert Field(4, (5, 6), [0]).n_vars == 4


def test_adaptive_weights_are_those_of_the_inputs(make_field):
    """Inversely proportional to the magnitudes of the regulators, in the order in which the field reads them."""
    field = make_field(inputs=[2, 0])
    size = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    field.adapt(size)
    read = size[..., [2, 0]]
    product = field.adapted * (read + 0.01 * read.mean((1, 2), keepdim=True))
    torch.testing.assert_close(product, product[:, :1, :1].expand_as(product))


@pytest.mark.parametrize("inputs", [None, (2, 0)])
def test_adaptive_weights_leave_the_penalty_of_what_they_come_from_as_it_was(make_field, inputs):
    """With the path weights of the model, to which they are proportional."""
    generator = torch.Generator().manual_seed(4)
    own = 0.1 + 3.0 * torch.rand(3, 3, generator=generator, dtype=torch.float64)
    field = make_field(inputs=inputs, path_weights=own)
    size = torch.rand(2, 3, 3, generator=generator, dtype=torch.float64)
    field.adapt(size)
    columns = [0, 1, 2] if inputs is None else list(inputs)
    read, own = size[..., columns], own[:, columns]
    found = field.architecture.path_weights
    torch.testing.assert_close((found * read).sum((1, 2)), (own * read).sum((1, 2)))
    product = found * (read + 0.01 * read.mean((1, 2), keepdim=True)) / own
    torch.testing.assert_close(product, product[:, :1, :1].expand_as(product))
