from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
import torch

from sparsenode.module import _paths

SIZES = [(3, 3), (3, 4, 3), (2, 3, 4, 2), (3, 2, 3, 2, 4)]


def entry_gradients(matrices):
    """Gradient of the entry sum in every entry, from the slopes."""
    slopes = _paths.PathSlopes.of(matrices, [])
    return [above * below for above, below in zip(slopes.above, slopes.below, strict=True)]


def matrices(sizes, n_networks=2, seed=0):
    """Non-negative matrices networks × out × in, some entries exactly zero."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n_networks, out, inp) for inp, out in zip(sizes[:-1], sizes[1:], strict=True)]
    return [(torch.rand(s, generator=generator, dtype=torch.float64) - 0.2).clamp_min(0) for s in shapes]


def enumerate_paths(layers):
    """Sum of path products from every input to every output, one path at a time, networks × out × in."""
    sizes = [layers[0].shape[2], *(m.shape[1] for m in layers)]
    total = np.zeros((layers[0].shape[0], sizes[-1], sizes[0]))
    for network in range(len(total)):
        for path in product(*map(range, sizes)):
            factors = (float(m[network, path[k + 1], path[k]]) for k, m in enumerate(layers))
            total[network, path[-1], path[0]] += prod(factors)
    return total


@pytest.fixture(params=SIZES, ids=str)
def layers(request):
    return matrices(request.param)


def test_product_sums_over_all_paths(layers):
    np.testing.assert_allclose(_paths.product(layers), enumerate_paths(layers), rtol=1e-12)


def test_row_sums_are_those_of_the_path_matrix(layers):
    np.testing.assert_allclose(_paths.row_sums(layers), enumerate_paths(layers).sum(2), rtol=1e-12)


def test_entry_gradients_agree_with_autograd(layers):
    layers = [m.requires_grad_() for m in layers]
    total = layers[0]
    for m in layers[1:]:
        total = torch.einsum("nij,njk->nik", m, total)
    expected = torch.autograd.grad(total.sum(), layers)
    found = entry_gradients(layers)
    for a, b, m in zip(found, expected, layers, strict=True):
        np.testing.assert_allclose(a.detach().expand_as(m), b, rtol=1e-12)


def test_entry_gradients_agree_with_finite_differences(layers):
    # The sum is linear in every single entry, so that a whole step is as good as a small one.
    before = enumerate_paths(layers).sum()
    for layer, gradient in enumerate(entry_gradients(layers)):
        for network, row, column in ((0, 0, 1), (1, 1, 0)):
            changed = [m.clone() for m in layers]
            changed[layer][network, row, column] += 1.0
            expected = enumerate_paths(changed).sum() - before
            assert float(gradient[network, row, column]) == pytest.approx(expected, rel=1e-9)


def test_order_of_hidden_units_does_not_matter():
    layers = matrices((3, 4, 5, 3))
    first, second = torch.tensor([2, 0, 3, 1]), torch.tensor([4, 1, 0, 3, 2])
    permuted = [layers[0][:, first], layers[1][:, second][:, :, first], layers[2][:, :, second]]
    np.testing.assert_allclose(_paths.product(permuted), _paths.product(layers), rtol=1e-12)
    np.testing.assert_allclose(_paths.row_sums(permuted), _paths.row_sums(layers), rtol=1e-12)
    gradients = entry_gradients(layers)
    expected = [gradients[0][:, first], gradients[1][:, second][:, :, first], gradients[2][:, :, second]]
    for a, b in zip(entry_gradients(permuted), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_cut_leaves_exact_zeros():
    layers = matrices((3, 4, 3))
    layers[0][:, :, 1] = 0.0
    assert (_paths.product(layers)[:, :, 1] == 0).all()


@pytest.mark.parametrize("kind", [None, "weight", "unit"])
def test_weighted_slopes_are_those_of_the_weighted_paths(layers, kind):
    """The sum is linear in every magnitude and in every gate: whole steps are exact differences."""
    generator = torch.Generator().manual_seed(1)
    rand = lambda *shape: torch.rand(shape, generator=generator, dtype=torch.float64)
    shapes = [(len(m), 1 if kind == "unit" else m.shape[1], m.shape[2]) for m in layers]
    gates = [rand(*shape).requires_grad_() for shape in shapes if kind is not None]
    weight = rand(layers[-1].shape[1], layers[0].shape[2]) * torch.tensor([0.0, 1.0, 2.0])[: layers[0].shape[2]]
    signed = [m * torch.sign(rand(*m.shape) - 0.5) for m in layers]

    def total(magnitudes, gates):
        matrices = [m * g.detach() for m, g in zip(magnitudes, gates, strict=True)] if gates else magnitudes
        return (enumerate_paths(matrices) * weight.numpy()).sum((1, 2))

    def raised(tensors, layer, place):
        changed = [t.detach().clone() for t in tensors]
        changed[layer][place] += 1.0
        return changed

    slopes = _paths.PathSlopes.of(signed, gates, weight)
    before = total(layers, gates)
    np.testing.assert_allclose(slopes.total, before, rtol=1e-12)
    in_gates = torch.autograd.grad(_paths.gated_sum(slopes, gates).sum(), gates) if gates else []
    for layer, m in enumerate(layers):
        for place in ((0, 0, 1), (1, m.shape[1] - 1, 0)):
            slope = (slopes.above[layer] * slopes.below[layer])[place]
            gate = gates[layer].detach().expand_as(m)[place] if gates else 1.0
            difference = total(raised(layers, layer, place), gates)[place[0]] - before[place[0]]
            assert float(slope * gate) == pytest.approx(difference, rel=1e-9, abs=1e-12)
        if gates:
            place = (1, shapes[layer][1] - 1, 0)
            difference = total(layers, raised(gates, layer, place))[1] - before[1]
            assert float(in_gates[layer][place]) == pytest.approx(difference, rel=1e-9, abs=1e-12)


def test_gates_of_the_weights_of_one_output_are_not_those_of_units():
    """The gates of the last layer then have the shape of those of units; the sum is linear in every gate."""
    layers = matrices((3, 4, 1))
    gates = [gate.clone().requires_grad_() for gate in matrices((3, 4, 1), seed=1)]
    slopes = _paths.PathSlopes.of(layers, gates)
    gated = lambda values: enumerate_paths([m * g.detach() for m, g in zip(layers, values, strict=True)]).sum((1, 2))
    np.testing.assert_allclose(slopes.total, gated(gates), rtol=1e-12)
    found = torch.autograd.grad(_paths.gated_sum(slopes, gates).sum(), gates)
    for layer, (row, column) in enumerate([(2, 1), (0, 3)]):
        raised = [gate.detach().clone() for gate in gates]
        raised[layer][1, row, column] += 1.0
        difference = (gated(raised) - gated(gates))[1]
        assert float(found[layer][1, row, column]) == pytest.approx(difference, rel=1e-9, abs=1e-12)
