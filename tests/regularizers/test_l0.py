from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from sparsenode.regularizers import L0


@pytest.mark.parametrize("gates", ["weight", "unit"])
def test_penalty_is_the_expected_share_of_open_weights(make_field, gates):
    field = make_field(gates=gates)
    found = L0(gates=gates).penalty(field, field.effective_weights())
    for network in range(2):
        layers = [
            [
                expit(logits[network, row if gates == "weight" else 0, column].item() - 2 / 3 * np.log(0.1 / 1.1))
                for row, column in np.ndindex(*weight.shape[1:])
            ]
            for logits, weight in zip(field.gate_logits, field.weights, strict=True)
        ]
        assert [len(layer) for layer in layers] == [3 * 4, 4 * 2, 2 * 3]
        assert found[network].item() == pytest.approx(np.mean([np.mean(layer) for layer in layers]), rel=1e-10)


@pytest.mark.parametrize("gates", ["weight", "unit"])
def test_penalty_is_what_sampling_gives(make_field, gates):
    field = make_field(gates=gates, n_networks=1)
    generator = torch.Generator().manual_seed(0)
    n = 3000
    shares = []
    for _ in range(n):
        uniform = [torch.rand(g.shape, generator=generator).double() for g in field.gate_logits]
        sample = field.effective_weights(uniform)
        pairs = zip(sample.gates, field.weights, strict=True)
        shares.append(np.mean([(g != 0).expand_as(w).numpy().mean() for g, w in pairs]))
    expected = L0(gates=gates).penalty(field, sample).item()
    assert np.mean(shares) == pytest.approx(expected, abs=4 * np.std(shares) / np.sqrt(n))


def test_it_lies_between_zero_and_one(make_field):
    field = make_field(gates="weight")
    with torch.no_grad():
        for logits in field.gate_logits:
            logits[0], logits[1] = -50.0, 50.0
    np.testing.assert_allclose(L0().penalty(field, field.effective_weights()).detach(), [0, 1], atol=1e-12)


def test_the_default_strength_is_a_tenth():
    np.testing.assert_array_equal(L0().strength, [0.1])


@pytest.mark.parametrize("gates", ["paths", None, ""], ids=repr)
def test_unknown_gates(gates):
    with pytest.raises(ValueError, match=r"`gates` to be one of \['weight', 'unit'\]"):
        L0(gates=gates)


def test_all_is_descended_by_gradient(make_field):
    field = make_field(gates="weight")
    effective = field.effective_weights()
    assert not L0.proximal
    assert torch.equal(L0().gradient_penalty(field, effective), L0().penalty(field, effective))
