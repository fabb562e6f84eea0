"""Fields without their dead parts: the same function, and no larger than reachability says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsenode.module import Field
from sparsenode.module._prune import prune_field


def damage(field: Field, seed: int, share: float) -> Field:
    """Rows (constant units), columns (units without effect, unused inputs) and entries of weights and gates to zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in field.weights:
            n, rows, columns = weight.shape
            for shape in ((n, rows, 1), (n, 1, columns), (n, rows, columns), (1, 1, columns)):
                weight *= torch.rand(shape, generator=generator) > share
        for logits in field.gate_logits:
            logits[torch.rand(logits.shape, generator=generator) < share] = -5.0
    return field


def expected_sizes(field: Field) -> tuple[list[int], list[int]]:
    """Widths and inputs from the numbers of open paths that pass through each unit."""
    effective = field.effective_weights()
    open_ = [(w != 0).double().detach().numpy() for w in effective.weights[: len(field.biases)]]
    widths = []
    for layer in range(1, len(open_)):
        below, above = np.ones((len(open_[0]), open_[0].shape[2], 1)), np.ones((len(open_[0]), open_[-1].shape[1], 1))
        for matrix in open_[:layer]:
            below = matrix @ below
        for matrix in open_[: layer - 1 : -1]:
            above = matrix.transpose(0, 2, 1) @ above
        widths.append(max(1, int((below * above > 0).sum((1, 2)).max())))
    used = (field.path_matrix(effective) > 0).any(0).any(0)
    inputs = [i for i in (range(field.n_vars) if field.inputs is None else field.inputs.tolist()) if used[i]]
    return widths, inputs or [0 if field.inputs is None else int(field.inputs[0])]


@pytest.mark.parametrize("gates", [None, "unit", "weight"])
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.0, 0.15, 0.4, 0.9]), depth=st.integers(0, 3))
@settings(max_examples=12)
def test_a_pruned_field_is_the_same_function(make_field, architecture, gates, seed, share, depth):
    weights = torch.rand(3, 3, generator=torch.Generator().manual_seed(seed))
    field = damage(
        make_field(3, (4, 5, 3)[:depth], 2, gates, seed=seed, path_weights=weights, **architecture), seed, share
    )
    before = {name: value.clone() for name, value in field.state_dict().items()}
    pruned, sizes = prune_field(field)
    assert all(torch.equal(value, before[name]) for name, value in field.state_dict().items())
    assert (sizes["hidden"], sizes["inputs"]) == expected_sizes(field)
    assert [bias.shape[2] for bias in pruned.biases[:-1]] == sizes["hidden"]
    assert {weight.shape[2] for weight in (pruned.weights[0], *pruned.weights[len(pruned.biases) :])} == {
        len(sizes["inputs"])
    }
    old, new = field.effective_weights(), pruned.effective_weights()
    x = 3 * torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    with torch.no_grad():
        scale = float(field.evaluate(x, old).abs().max())
        torch.testing.assert_close(pruned.evaluate(x, new), field.evaluate(x, old), rtol=1e-10, atol=1e-12 * scale)
        matrix = field.path_matrix(old)
        torch.testing.assert_close(pruned.path_matrix(new), matrix, rtol=1e-10, atol=0.0)
        assert torch.equal(pruned.path_weights.double(), weights[:, sizes["inputs"]].double())
    assert prune_field(pruned)[1] == sizes


@pytest.mark.parametrize("decay", [True, False])
def test_rates_of_decay_stay_and_no_new_ones_come(make_field, decay):
    field = make_field(decay=decay)
    pruned, _ = prune_field(field)
    assert (pruned.decay is None) == (not decay)
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        expected = field.evaluate(x, field.effective_weights())
        torch.testing.assert_close(pruned.evaluate(x, pruned.effective_weights()), expected)
