from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from sparsenode.regularizers import PathReg


def probabilities(field, network):
    """P(gate open) of every weight of a network, from equation 12 of Louizos et al. (2018)."""
    shift = 2 / 3 * np.log(0.1 / 1.1)
    return [
        torch.as_tensor(np.broadcast_to(expit(logits[network].detach().numpy() - shift), weight.shape[1:]).copy())
        for logits, weight in zip(field.gate_logits, field.weights, strict=True)
    ]


@pytest.mark.parametrize("hidden", [(4,), (4, 2), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("gates", ["weight", "unit"])
def test_open_share_is_the_mean_over_all_paths(make_field, paths, hidden, gates):
    field = make_field(hidden=hidden, gates=gates)
    found = PathReg.open_share(field)
    for network in range(2):
        products = list(paths(probabilities(field, network)).values())
        assert len(products) == 3 * np.prod(hidden) * 3
        assert found[network].item() == pytest.approx(np.mean(products), rel=1e-10)


@pytest.mark.parametrize("gates", ["weight", "unit"])
def test_penalty_adds_shrinkage_of_the_sampled_paths(make_field, sampled, paths, gates):
    field = make_field(gates=gates)
    effective = sampled(field)
    found = PathReg(gates=gates, shrinkage=0.7).penalty(field, effective)
    for network in range(2):
        open_ = np.mean(list(paths(probabilities(field, network)).values()))
        weights = [(w[network] * g[network]).abs() for w, g in zip(field.weights, effective.gates, strict=True)]
        norm = sum(paths(weights).values()) / 3
        assert found[network].item() == pytest.approx(open_ + 0.7 * norm, rel=1e-10)


@pytest.mark.parametrize("gates", ["weight", "unit"])
def test_open_share_is_what_sampling_gives(make_field, paths, gates):
    field = make_field(gates=gates, n_networks=1, hidden=(2,), n_vars=2)
    generator = torch.Generator().manual_seed(0)
    n = 3000
    shares = np.empty(n)
    for i in range(n):
        uniform = [torch.rand(g.shape, generator=generator).double() for g in field.gate_logits]
        gates_ = field.effective_weights(uniform).gates
        open_ = [(g != 0).expand_as(w)[0].double() for g, w in zip(gates_, field.weights, strict=True)]
        shares[i] = np.mean(list(paths(open_).values()))
    assert shares.mean() == pytest.approx(PathReg.open_share(field).item(), abs=4 * shares.std() / np.sqrt(n))


def test_open_share_lies_between_zero_and_one(make_field):
    field = make_field(gates="unit")
    with torch.no_grad():
        for logits in field.gate_logits:
            logits[0], logits[1] = -50.0, 50.0
    np.testing.assert_allclose(PathReg.open_share(field).detach(), [0, 1], atol=1e-12)


@pytest.mark.parametrize("gates", ["weight", "unit"])
def test_gradient_penalty_has_the_same_value_and_reaches_the_gates_only(make_field, sampled, gates):
    field = make_field(gates=gates)
    effective = sampled(field)
    regularizer = PathReg(gates=gates)
    smooth = regularizer.gradient_penalty(field, effective)
    np.testing.assert_allclose(smooth.detach(), regularizer.penalty(field, effective).detach(), rtol=1e-12)
    smooth.sum().backward()
    assert all(w.grad is None for w in field.weights)
    assert all(logits.grad.abs().sum() > 0 for logits in field.gate_logits)


def test_gradient_in_the_gates_equals_finite_differences(make_field, sampled, finite_difference):
    field = make_field(gates="unit")
    regularizer = PathReg(shrinkage=0.7)
    finite_difference(field, lambda: regularizer.gradient_penalty(field, sampled(field)), field.gate_logits)


def test_shrinkage_scales_the_proximal_step(make_field, sampled):
    changes = []
    for shrinkage in (0.1, 0.2):
        field = make_field(gates="unit")
        before = [w.detach().clone() for w in field.weights]
        steps = [torch.full_like(w, 1e-6) for w in field.weights]
        PathReg(shrinkage=shrinkage).prox(field, sampled(field), torch.ones(2), steps)
        changes.append([old - w.detach() for w, old in zip(field.weights, before, strict=True)])
    for a, b in zip(*changes, strict=True):
        np.testing.assert_allclose(b, 2 * a, rtol=1e-6, atol=1e-14)


def test_weights_behind_a_closed_gate_are_left_alone(make_field):
    field = make_field(gates="unit")
    with torch.no_grad():
        field.gate_logits[0][:] = 5.0
        field.gate_logits[0][:, :, 1] = -50.0
    before = field.weights[0].detach().clone()
    steps = [torch.ones_like(w) for w in field.weights]
    PathReg().prox(field, field.effective_weights(), torch.ones(2), steps)
    assert torch.equal(field.weights[0][:, :, 1], before[:, :, 1])
    assert not torch.equal(field.weights[0][:, :, 0], before[:, :, 0])


def test_the_default_shrinkage_is_a_tenth():
    assert PathReg().shrinkage == 0.1


@pytest.mark.parametrize("shrinkage", [-0.1, float("nan"), float("inf")])
def test_invalid_shrinkage(shrinkage):
    with pytest.raises(ValueError, match="shrinkage"):
        PathReg(shrinkage=shrinkage)


@pytest.mark.parametrize("gates", ["paths", None, ""], ids=repr)
def test_unknown_gates(gates):
    with pytest.raises(ValueError, match=r"`gates` to be one of \['weight', 'unit'\]"):
        PathReg(gates=gates)


@pytest.mark.parametrize("options", [{"inputs": (2, 0)}, {"order": 2}, {"inputs": (0, 2, 4), "order": 2}], ids=str)
@pytest.mark.parametrize("skip", [None, "inner"])
@pytest.mark.parametrize("gates", ["weight", "unit"])
def test_the_share_of_open_paths_is_one_where_all_are(make_field, gates, skip, options):
    """Whatever the number of inputs, which need not be that of the targets."""
    field = make_field(gates=gates, skip=skip, **options)
    with torch.no_grad():
        for logits in field.gate_logits:
            logits.fill_(40.0)
        torch.testing.assert_close(PathReg.open_share(field), torch.ones(2, dtype=torch.float64))
        for logits in field.gate_logits:  # as of the skip beside the layers, half of what is open
            logits.fill_(0.0)
        chance = torch.sigmoid(torch.tensor(-2 / 3 * torch.log(torch.tensor(0.1 / 1.1)), dtype=torch.float64))
        expected = chance**3 if skip is None else (chance**3 + chance) / 2
        torch.testing.assert_close(PathReg.open_share(field), expected.expand(2), rtol=1e-5, atol=0.0)
