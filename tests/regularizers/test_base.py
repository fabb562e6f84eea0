from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from sparsenode.regularizers import CNODE, L0, GroupLasso, LassoNet, NoRegularizer, PathReg, soft_threshold_paths
from sparsenode.regularizers._base import Regularizer, path_norm

ALL = [
    *(NoRegularizer(), CNODE(), L0(), L0(gates="unit"), PathReg(gates="weight"), PathReg(gates="unit")),
    *(GroupLasso(), LassoNet(), LassoNet(skip="outer")),  # so large a ratio that the random fields here are feasible
]
name = lambda r: f"{r.name}-{r.gates or r.skip}"
every = pytest.mark.parametrize("regularizer", ALL, ids=name)
proximal = pytest.mark.parametrize("regularizer", [r for r in ALL if r.proximal], ids=name)
WEIGHTS = torch.tensor([[0.0, 0.5, 2.0], [1.0, 0.0, 0.3], [3.0, 0.7, 0.0]])
with_knowledge = pytest.mark.parametrize(
    "options",
    [{}, {"skip": "inner"}, {"path_weights": WEIGHTS}, {"skip": "inner", "path_weights": WEIGHTS, "inputs": (2, 0)}],
    ids=["plain", "skip", "weights", "skip-weights-inputs"],
)


@pytest.mark.parametrize("cls", [CNODE, L0, PathReg, GroupLasso, LassoNet])
@pytest.mark.parametrize(
    "strength",
    [
        -0.1,
        float("nan"),
        float("inf"),
        [],
        [0.1, -1.0],
        [[0.1]],
        None,
        "a",
        [0.1, "x"],
        [[1], [2, 3]],
        "0.1",
        True,
        np.array([1j]),
        np.array([0.1, "0.2"], dtype=object),
        np.array([0.1, True], dtype=object),
    ],
    ids=[
        "negative",
        "nan",
        "inf",
        "empty",
        "one negative",
        "nested",
        "None",
        "text",
        "one text",
        "ragged",
        "number as text",
        "boolean",
        "complex",
        "text among objects",
        "boolean among objects",
    ],
)
def test_invalid_strengths(cls, strength):
    with pytest.raises(ValueError, match="Expected `strength` to be a non-negative number"):
        cls(strength)


@pytest.mark.parametrize("dtype", ["float32", "int64", "Int64", "Float64", "object"])
def test_strengths_of_any_type_of_number(dtype):
    """Those of a row of a table with text are objects."""
    np.testing.assert_array_equal(CNODE(pd.Series([1, 2], dtype=dtype)).strength, [1.0, 2.0])


@pytest.mark.parametrize("cls", [CNODE, L0, PathReg, GroupLasso, LassoNet])
def test_strengths_are_a_vector(cls):
    np.testing.assert_array_equal(cls(0.3).strength, [0.3])
    np.testing.assert_array_equal(cls([0, 0.3]).strength, [0.0, 0.3])
    np.testing.assert_array_equal(cls(np.array([0.1, 0.2])).strength, [0.1, 0.2])


@pytest.mark.parametrize("cls", [CNODE, L0, PathReg, GroupLasso, LassoNet])
def test_strengths_are_those_that_were_given_when_it_was_made(cls):
    given = np.array([0.1, 0.2])
    regularizer = cls(given)
    given *= 10
    np.testing.assert_array_equal(regularizer.strength, [0.1, 0.2])


@every
def test_repr_can_be_evaluated(regularizer):
    if not isinstance(regularizer, NoRegularizer):
        again = eval(repr(regularizer))
        assert repr(again) == repr(regularizer)
        assert regularizer.name in {"cnode", "l0", "pathreg", "grouplasso", "lassonet"}


@every
def test_order_of_hidden_units_does_not_matter(make_for, rewire, sampled, regularizer):
    field = make_for(regularizer)
    other = rewire(field, [[2, 0, 3, 1], [1, 0]])
    found = regularizer.penalty(other, other.effective_weights())
    expected = regularizer.penalty(field, field.effective_weights())
    np.testing.assert_allclose(found.detach(), expected.detach(), rtol=1e-10)


@pytest.mark.parametrize("regularizer", [CNODE(), GroupLasso()], ids=name)
def test_strength_means_the_same_for_any_number_of_genes(make_for, regularizer):
    """Two copies of a system beside each other have the penalty of one."""
    shared = not regularizer.per_target  # one network for all targets, whose hidden units are those of both copies
    field, other = make_for(regularizer), make_for(regularizer, n_vars=6, hidden=(8, 4) if shared else (4, 2))
    with torch.no_grad():
        for layer, (weight, twice) in enumerate(zip(field.weights, other.weights, strict=True)):
            twice.zero_()
            for copy in range(2):
                rows, columns = (slice(copy * n, copy * n + n) for n in weight.shape[1:])
                if shared:
                    twice[:, rows, columns] = weight
                else:
                    own = twice.unflatten(0, (-1, 6))[
                        :, 3 * copy : 3 * copy + 3
                    ]  # networks of the targets of this copy
                    own[..., columns if layer == 0 else slice(None)] = weight.unflatten(0, (-1, 3))
    expected = regularizer.penalty(field, field.effective_weights()).detach()
    np.testing.assert_allclose(regularizer.penalty(other, other.effective_weights()).detach(), expected, rtol=1e-10)


@every
@pytest.mark.parametrize("hidden", [(4,), (3, 4, 2)], ids=str)
def test_strength_means_the_same_for_any_width(make_for, rewire, regularizer, hidden):
    """Duplicating every hidden unit, with halved outgoing weights, changes neither the function nor the penalty."""
    field = make_for(regularizer, hidden=hidden)
    other = rewire(field, [list(range(n)) * 2 for n in hidden])
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights, doubled = field.effective_weights(), other.effective_weights()
    np.testing.assert_allclose(
        other.evaluate(x, doubled).detach(), field.evaluate(x, weights).detach(), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        regularizer.penalty(other, doubled).detach(), regularizer.penalty(field, weights).detach(), rtol=1e-10
    )


@every
def test_penalty_of_a_network_does_not_depend_on_the_batch(make_for, regularizer):
    field = make_for(regularizer, n_networks=3)
    alone = make_for(regularizer, n_networks=1)
    with torch.no_grad():
        for a, b in zip(alone.parameters(), field.parameters(), strict=True):
            a.copy_(b.unflatten(0, (3, -1))[1])
    found = regularizer.penalty(field, field.effective_weights())
    assert found.shape == (3,)
    np.testing.assert_allclose(
        found[1].detach(), regularizer.penalty(alone, alone.effective_weights())[0].detach(), rtol=1e-12
    )


@every
@with_knowledge
def test_gradient_of_the_penalty_equals_finite_differences(make_for, sampled, finite_difference, regularizer, options):
    field = make_for(regularizer, **options)
    parameters = [*field.weights, *field.gate_logits]
    if isinstance(regularizer, NoRegularizer):
        assert not regularizer.penalty(field, sampled(field)).requires_grad
        return
    finite_difference(field, lambda: regularizer.penalty(field, sampled(field)), parameters)


@every
def test_both_penalties_of_a_step_are_those_that_are_defined_one_by_one(make_for, sampled, regularizer):
    field = make_for(regularizer)
    effective = sampled(field)
    smooth, whole = regularizer.penalties(field, effective)
    torch.testing.assert_close(smooth, regularizer.gradient_penalty(field, effective))
    torch.testing.assert_close(whole, regularizer.penalty(field, effective).detach())


@pytest.mark.parametrize("cls", [CNODE, L0, PathReg, GroupLasso, LassoNet, NoRegularizer])
def test_a_variant_of_a_method_has_its_proximal_step(cls):
    class Variant(cls):
        """Something else is changed."""

    assert Variant.proximal == cls.proximal == (cls not in (L0, NoRegularizer))


@every
@with_knowledge
def test_gradient_and_prox_share_the_penalty_between_them(make_for, sampled, regularizer, options):
    """What gradient_penalty leaves out of the gradient, the proximal step takes from the weights."""
    field = make_for(regularizer, **options)
    effective = sampled(field)
    parameters = [*field.weights, *field.gate_logits]

    def gradients(penalty):
        if not penalty.requires_grad:
            return [torch.zeros_like(p) for p in parameters]
        found = torch.autograd.grad(penalty.sum(), parameters, allow_unused=True, retain_graph=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]

    whole = gradients(regularizer.penalty(field, effective))
    smooth = gradients(regularizer.gradient_penalty(field, effective))
    before = [w.detach().clone() for w in field.weights]
    # A step so small that no weight reaches zero: the proximal step is then a gradient step.
    size = 1e-6
    strength = torch.tensor([1.0, 2.0], dtype=torch.float64)
    regularizer.prox(field, effective, strength, [torch.full_like(w, size) for w in field.weights])
    for w, old, a, b in zip(field.weights, before, whole, smooth, strict=False):
        expected = (a - b) * strength.repeat_interleave(len(w) // 2).view(-1, 1, 1)
        np.testing.assert_allclose((old - w).detach() / size, expected, rtol=1e-4, atol=1e-6)
    for a, b in zip(whole[len(before) :], smooth[len(before) :], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weights"])
@pytest.mark.parametrize("per_target", [False, True])
def test_path_norm_is_the_mean_over_targets_of_all_path_products(make_field, paths, per_target, weights):
    field = make_field(per_target=per_target, path_weights=weights)
    found = path_norm(field.effective_weights()).detach()
    cost = torch.ones(3, 3) if weights is None else weights
    for network in range(2):
        small = range(3 * network, 3 * network + 3) if per_target else [network]  # those of the targets in turn
        total = 0.0
        for target, k in enumerate(small):
            for path, value in paths([w[k].abs() for w in field.weights]).items():
                total += float(cost[target if per_target else path[-1], path[0]]) * value
        assert float(found[network]) == pytest.approx(total / 3, rel=1e-10)


@with_knowledge
@pytest.mark.parametrize("regularizer", [CNODE(), PathReg(gates="weight"), PathReg(gates="unit")], ids=name)
def test_penalties_of_paths_count_every_path_with_its_weight(make_for, sampled, paths, regularizer, options):
    """Paths through the layers and through the skip, one by one."""
    field = make_for(regularizer, **options)
    effective, regulators = sampled(field), options.get("inputs", (0, 1, 2))
    found = regularizer.penalty(field, effective)
    weight = options.get("path_weights", torch.ones(3, 3))

    def total(matrices):
        return sum(float(weight[path[-1], regulators[path[0]]]) * p for path, p in paths(matrices).items())

    for network in range(2):
        chains = [slice(0, 3), slice(3, 4)][: 1 + ("skip" in options)]
        expected = sum(total([w[network].abs() for w in effective.weights[chain]]) for chain in chains) / 3
        np.testing.assert_allclose(path_norm(effective)[network].detach(), expected, rtol=1e-6)
        if isinstance(regularizer, PathReg):
            open_ = [p.expand_as(w)[network] for p, w in zip(field.open_probabilities(), field.weights, strict=True)]
            shares = [total(open_[chain]) / len(paths(open_[chain])) for chain in chains]
            expected = np.mean(shares) + regularizer.shrinkage * expected
        assert found[network].item() == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(regularizer.penalties(field, effective)[1].detach(), found.detach(), rtol=1e-6)


@pytest.mark.parametrize("regularizer", [CNODE(), PathReg(gates="weight"), PathReg(), GroupLasso()], ids=name)
def test_free_edges_get_no_threshold(make_for, sampled, regularizer):
    """With a weight of zero on the diagonal nothing that serves only a self-edge is touched; all else goes."""
    hidden = (4,) if regularizer.per_target else ()
    field = make_for(regularizer, hidden=hidden, skip="inner", path_weights=1 - torch.eye(3))
    with torch.no_grad():
        for logits in field.gate_logits:
            logits.fill_(5.0)
    before = [w.detach().clone() for w in field.weights]
    steps = [torch.ones_like(w) for w in field.weights]
    regularizer.prox(field, field.effective_weights(), torch.full((2,), 1e4, dtype=torch.float64), steps)
    penalised = ~torch.eye(3, dtype=torch.bool)
    if regularizer.per_target:
        penalised = penalised.repeat(2, 1).unsqueeze(1)  # networks of targets × units × regulators
    assert torch.equal(field.weights[-1], before[-1] * torch.eye(3))
    assert torch.equal(field.weights[0], before[0] * ~penalised)


def test_prox_thresholds_each_weight_by_the_paths_through_it(make_field, sampled, paths):
    """By enumeration: the derivative in a magnitude is the sum over its paths of the product of all other factors."""
    field = make_field(n_networks=1, gates="weight")
    effective = sampled(field)
    before = [w.detach().clone() for w in field.weights]
    generator = torch.Generator().manual_seed(3)
    steps = [0.01 + 0.1 * torch.rand(w.shape, generator=generator, dtype=torch.float64) for w in field.weights]
    soft_threshold_paths(field, effective, torch.tensor([0.7], dtype=torch.float64), steps)
    zeros = 0
    for layer, old in enumerate(before):
        for row, column in np.ndindex(*old.shape[1:]):
            others = [w[0].abs().detach().clone() for w in effective.weights]
            others[layer] = torch.zeros_like(others[layer])
            others[layer][row, column] = effective.gates[layer][0, row, column].item()
            threshold = float(steps[layer][0, row, column]) * 0.7 / 3 * sum(paths(others).values())
            w = float(old[0, row, column])
            expected = np.sign(w) * max(abs(w) - threshold, 0.0)
            zeros += expected == 0
            assert field.weights[layer][0, row, column].item() == pytest.approx(expected, abs=1e-12)
    assert zeros > 0


@proximal
def test_prox_never_flips_a_sign(make_for, sampled, regularizer):
    field = make_for(regularizer)
    before = [w.detach().clone() for w in field.weights]
    steps = [torch.full_like(w, 0.5) for w in field.weights]
    regularizer.prox(field, sampled(field), torch.tensor([0.3, 30.0], dtype=torch.float64), steps)
    for w, old in zip(field.weights, before, strict=True):
        assert (w * old >= 0).all()
        if w is not field.weights[-1] or field.skip is None:  # LassoNet may lengthen a skip that is too short
            assert (w.abs() <= old.abs()).all()


@proximal
def test_prox_of_strength_zero_changes_nothing(make_for, sampled, regularizer):
    field = make_for(regularizer)
    before = [w.detach().clone() for w in field.weights]
    strength = torch.tensor([0.0, 1.0], dtype=torch.float64)
    regularizer.prox(field, sampled(field), strength, [torch.ones_like(w) for w in field.weights])
    halves = [
        torch.stack([w.detach(), old]).unflatten(1, (2, -1)) for w, old in zip(field.weights, before, strict=True)
    ]
    for now, old in halves:
        torch.testing.assert_close(now[0], old[0], rtol=1e-12, atol=0.0)
    assert any(not torch.equal(now[1], old[1]) for now, old in halves)


@proximal
def test_larger_strengths_give_more_zeros(make_for, sampled, regularizer):
    zeros = []
    for strength in (0.01, 1.0, 10.0, 150.0, 200.0, 1000.0, 10000.0):
        field = make_for(regularizer, hidden=(6, 5))
        effective = sampled(field)
        steps = [torch.full_like(w, 0.1) for w in field.weights]
        regularizer.prox(field, effective, torch.full((2,), strength, dtype=torch.float64), steps)
        zeros.append(sum(int((w == 0).sum()) for w in field.weights))
    assert zeros == sorted(zeros)
    assert len(set(zeros)) >= 3


@proximal
def test_prox_keeps_zeros(make_for, sampled, regularizer):
    field = make_for(regularizer)
    with torch.no_grad():
        field.weights[0][:, 0] = 0.0
    regularizer.prox(field, sampled(field), torch.full((2,), 0.1), [torch.ones_like(w) for w in field.weights])
    assert (field.weights[0][:, 0] == 0).all()


@every
def test_those_without_prox_leave_the_weights_alone(make_for, sampled, regularizer):
    if regularizer.proximal:
        return
    field = make_for(regularizer)
    before = [w.detach().clone() for w in field.weights]
    regularizer.prox(field, sampled(field), torch.ones(2), [torch.ones_like(w) for w in field.weights])
    for w, old in zip(field.weights, before, strict=True):
        assert torch.equal(w, old)


def test_the_base_class_has_no_penalty(make_field):
    field = make_field()
    with pytest.raises(NotImplementedError, match=r"Expected Regularizer to define `penalty\(field, effective\)`"):
        Regularizer(0.1).penalty(field, field.effective_weights())


def test_networks_of_all_targets_are_thresholded_with_the_strength_of_their_replicate(make_field):
    """One without a penalty stays, and each is as it would be alone."""
    strengths = torch.tensor([0.0, 0.3, 0.9], dtype=torch.float64)
    field = make_field(n_networks=3, per_target=True, skip="inner", seed=1)
    steps = [torch.full_like(weight, 0.5) for weight in field.weights]
    before = [weight.detach().clone() for weight in field.weights]
    soft_threshold_paths(field, field.effective_weights(), strengths, steps)
    for replicate, strength in enumerate(strengths):
        alone = make_field(n_networks=1, per_target=True, skip="inner")
        own = [weight.unflatten(0, (3, -1))[replicate] for weight in before]
        with torch.no_grad():
            for parameter, value in zip(alone.weights, own, strict=True):
                parameter.copy_(value)
        soft_threshold_paths(
            alone, alone.effective_weights(), strength[None], [s[: len(o)] for s, o in zip(steps, own, strict=True)]
        )
        for found, expected, was in zip(field.weights, alone.weights, own, strict=True):
            found = found.detach().unflatten(0, (3, -1))[replicate]
            torch.testing.assert_close(found, expected.detach())
            assert torch.equal(found, was) == (strength == 0)
