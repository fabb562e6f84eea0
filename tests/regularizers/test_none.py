from __future__ import annotations

import pytest
import torch

from sparsenode.regularizers import NoRegularizer


@pytest.mark.parametrize("hidden", [(), (4, 2)], ids=str)
def test_penalty_is_zero_for_every_network(make_field, hidden):
    field = make_field(n_networks=3, hidden=hidden)
    penalty = NoRegularizer().penalty(field, field.effective_weights())
    assert torch.equal(penalty, torch.zeros(3, dtype=torch.float64))


def test_it_has_no_gates_and_no_strength():
    regularizer = NoRegularizer()
    assert regularizer.gates is None
    assert not regularizer.proximal
    assert regularizer.strength.tolist() == [0.0]
    with pytest.raises(TypeError):
        NoRegularizer(0.1)
