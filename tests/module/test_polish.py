"""The linear part of a fit of pairs, against scikit-learn and against the loss itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet

from sparsenode.module import SparseNODEModule, _polish
from sparsenode.module._polish import polish
from sparsenode.regularizers import CNODE, path_norm


def assert_least(module: SparseNODEModule, loss: Callable[[], torch.Tensor], generator: torch.Generator) -> None:
    """No other linear part nearby has a smaller loss."""
    least = loss()
    for size in (1e-3, 1e-2, 0.1):
        for parameter in (module.field.weights[-1], module.field.biases[-1], module.field.raw_decay):
            for _ in range(5):
                step = size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                with torch.no_grad():
                    parameter += step
                    found = loss()
                    parameter -= step
                assert (found > least - 1e-6).all()


@pytest.fixture(scope="module")
def pairs() -> dict[str, torch.Tensor]:
    """Pairs of two lineages whose slopes depend linearly on correlated states, with noise."""
    rng = np.random.default_rng(0)
    state = rng.normal(size=(150, 4)) @ (np.eye(4) + 0.6 * rng.normal(size=(4, 4)))
    state += [1.0, -0.5, 2.0, 0.0]  # as transport leaves means of one lineage
    slope = state @ rng.normal(size=(4, 4)) - state + rng.normal(size=(150, 4)) + [1.0, 0.0, -2.0, 0.5]
    arrays = {"state": state, "slope": slope[None], "weight": rng.uniform(0.5, 2.0, (1, 150))}
    tensors = {name: torch.as_tensor(array, dtype=torch.float64) for name, array in arrays.items()}
    return tensors | {"lineage": torch.as_tensor(rng.integers(0, 2, 150))}


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_without_layers_and_decay_it_is_the_elastic_net(make_module, pairs, ridge):
    module = make_module(CNODE([0.1, 0.8]), fields="shared", skip=True, inputs=[0, 2, 3]).double()
    module.ridge = ridge
    with torch.no_grad():
        module.field.weights[-2].zero_()  # the last layer
        module.field.raw_decay.fill_(-30.0)
    polish(module, pairs)
    state, (slope,), weight = (pairs[name].numpy() for name in ("state", "slope", "weight"))
    n_zero = 0
    for network, strength in enumerate((0.1, 0.8)):
        decay = module.field.decay[network, 0].detach().numpy()
        for target in range(4):
            model = ElasticNet(
                strength / 2 + ridge, l1_ratio=strength / 2 / (strength / 2 + ridge), tol=1e-10, max_iter=10**5
            )
            model.fit(state[:, [0, 2, 3]], slope[:, target] + decay[target] * state[:, target], sample_weight=weight[0])
            found = module.field.weights[-1][network, target].detach().numpy()
            np.testing.assert_allclose(found, model.coef_, atol=1e-3)
            np.testing.assert_array_equal(found == 0, model.coef_ == 0)
            assert float(module.field.biases[-1][network, 0, target].detach()) == pytest.approx(
                model.intercept_, abs=1e-3
            )
            n_zero += int((model.coef_ == 0).sum())
    assert 0 < n_zero < 24


@pytest.mark.parametrize("fields", ["shared", "lineage"])
@pytest.mark.parametrize("own_halves", [False, True])
def test_no_change_of_the_linear_part_lowers_the_loss(make_module, pairs, fields, own_halves):
    """With layers, decay, path weights, several strengths, seeds and fields; the loss is that of training."""
    path_weights = torch.linspace(0.2, 2.0, 16).view(4, 4) * (1.0 - torch.eye(4))
    module = make_module(CNODE([0.05, 0.4]), seeds=(0, 1), fields=fields, skip=True, path_weights=path_weights).double()
    module.ridge = 0.3
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.field.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    tensors = dict(pairs)
    if own_halves:
        half = torch.arange(150) % 2
        tensors["weight"] = pairs["weight"] * torch.stack([half, 1 - half])
        tensors["slope"] = pairs["slope"] * torch.tensor([1.0, -0.5], dtype=torch.float64).view(2, 1, 1)
    module.eval()

    def loss() -> torch.Tensor:
        with torch.no_grad():
            metrics = module(tensors)[1].extra_metrics
        return metrics["error"] + metrics["penalty"]

    before = loss()
    polish(module, tensors)
    assert (loss() < before - 0.01).all()
    assert_least(module, loss, generator)


def test_the_decay_is_that_of_least_squares(make_module, pairs):
    """Of variables that are no inputs: where they are, a self-edge can do the same."""
    module = make_module(CNODE(0.0), fields="shared", skip=True, inputs=[0, 3]).double()
    with torch.no_grad():
        module.field.weights[-2].zero_()
    polish(module, pairs | {"slope": pairs["slope"] - 3.0 * pairs["state"]})
    state, (slope,), (weight,) = (pairs[name].numpy() for name in ("state", "slope", "weight"))
    root = np.sqrt(weight)[:, None]
    for target in (1, 2):
        known = np.column_stack([state[:, [0, 3]], -state[:, target], np.ones(150)])
        wanted = slope[:, [target]] - 3.0 * state[:, [target]]
        expected = np.linalg.lstsq(root * known, root * wanted, rcond=None)[0][:, 0]
        assert expected[2] > 0.5
        linear = (module.field.weights[-1][0, target], module.field.decay[0, 0, [target]])
        found = torch.cat([*linear, module.field.biases[-1][0, 0, [target]]])
        np.testing.assert_allclose(found.detach(), expected, atol=1e-3)


@pytest.mark.parametrize("fields", ["shared", "lineage"])
@pytest.mark.parametrize("decay", [False, True])
def test_the_loss_has_no_slope_in_what_is_not_zero(make_module, pairs, fields, decay):
    """With layers, a decay that no self-edge can replace for free, path weights and a ridge."""
    path_weights = torch.linspace(0.2, 2.0, 16).view(4, 4)
    module = make_module(CNODE([0.05, 0.4]), fields=fields, decay=decay, skip=True, path_weights=path_weights).double()
    module.ridge = 0.3
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.field.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    tensors = pairs | {"slope": pairs["slope"] - 3.0 * pairs["state"]}
    polish(module, tensors)
    module.eval()
    effective, output = module(tensors)
    penalties = path_norm(effective), module.field.path_squares(effective)
    norm, squares = (penalty.view(2, -1).mean(1) for penalty in penalties)  # over the fields of a replicate
    loss = output.extra_metrics["error"] + module.strength * norm + 0.3 * squares
    linear = [module.field.weights[-1], module.field.biases[-1], *([module.field.raw_decay] if decay else [])]
    assert 0 < int((linear[0] == 0).sum()) < linear[0].numel()
    for parameter, slope in zip(linear, torch.autograd.grad(loss.sum(), linear), strict=True):
        assert float(slope[parameter != 0].abs().max()) < 2e-5


@pytest.mark.parametrize("heavy", [1.0, 1e4, 1e6])
def test_one_heavy_path_does_not_keep_the_others_from_their_optimum(make_module, pairs, heavy):
    """It is closed, and the others are those of an elastic net without that regulator."""
    path_weights = torch.ones(4, 4)
    path_weights[1, 2] = heavy
    module = make_module(CNODE(0.1), fields="shared", skip=True, path_weights=path_weights).double()
    module.ridge = 0.7
    with torch.no_grad():
        module.field.weights[-2].zero_()
        module.field.raw_decay.fill_(-30.0)
    polish(module, pairs)
    state, (slope,), (weight,) = (pairs[name].numpy() for name in ("state", "slope", "weight"))
    decay = module.field.decay[0, 0].detach().numpy()
    for target in range(4):
        inputs = [0, 1, 3] if target == 1 and heavy > 1 else [0, 1, 2, 3]
        model = ElasticNet(0.75, l1_ratio=0.05 / 0.75, tol=1e-12, max_iter=10**5)
        model.fit(state[:, inputs], slope[:, target] + decay[target] * state[:, target], sample_weight=weight)
        expected = np.zeros(4)
        expected[inputs] = model.coef_
        np.testing.assert_allclose(module.field.weights[-1][0, target].detach(), expected, atol=1e-5)


def test_where_nothing_varies_nothing_is_learned(make_module, pairs):
    module = make_module(CNODE(0.1), fields="shared", skip=True).double()
    module.ridge = 0.7
    polish(module, pairs | {"state": torch.ones_like(pairs["state"]), "slope": torch.zeros_like(pairs["slope"])})
    assert (module.field.weights[-1] == 0).all()
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def _linear_part(module):
    field = module.field
    return [parameter.detach().clone() for parameter in (field.weights[-1], field.biases[-1], field.raw_decay)]


def test_pairs_are_read_in_blocks_without_a_difference(make_module, pairs, monkeypatch):
    found = []
    for rows in (4096, 40):
        monkeypatch.setattr(_polish, "_ROWS", rows)
        module = make_module(CNODE([0.05, 0.4]), skip=True).double()
        polish(module, pairs)
        found.append(_linear_part(module))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_where_only_the_decay_is_left_it_is_that_of_least_squares(make_module, pairs):
    """Or a ten-thousandth where variables grow by themselves."""
    state = pairs["state"]
    rates = torch.tensor([-0.5, 0.3, -0.1, 1.5], dtype=torch.float64)
    module = make_module(CNODE(1e6), fields="shared", skip=True).double()
    with torch.no_grad():
        module.field.weights[-2].zero_()  # the last layer
    polish(module, pairs | {"slope": (0.7 - rates * state)[None]})
    found = module.field.decay[0, 0].detach()
    torch.testing.assert_close(found, rates.clamp_min(1e-4), rtol=1e-3, atol=1e-5)
    bias = module.field.biases[-1][0, 0].detach()
    torch.testing.assert_close(bias[[1, 3]], torch.full((2,), 0.7, dtype=torch.float64), rtol=1e-3, atol=1e-3)


def test_a_lineage_without_pairs_keeps_its_biases(make_module, pairs):
    module = make_module(CNODE(0.1), fields="lineage", skip=True).double()
    with torch.no_grad():
        module.field.biases[-1].fill_(0.7)
    polish(module, pairs | {"lineage": torch.zeros(150, dtype=torch.long)})
    assert (module.field.biases[-1][1] == 0.7).all()
    assert (module.field.biases[-1][0] != 0.7).all()
    assert all(torch.isfinite(parameter).all() for parameter in module.field.parameters())


@pytest.mark.parametrize("fields", ["shared", "lineage"])
def test_in_adaptive_rounds_paths_count_by_the_weights_of_their_network(make_module, pairs, fields):
    """Those that were adapted to it: nothing that is near has a smaller loss."""
    module = make_module(CNODE([0.1, 0.4], adaptive=1), fields=fields, skip=True).double()
    module.ridge = 0.3
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.field.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    module.adapt()
    module.eval()

    def loss() -> torch.Tensor:
        with torch.no_grad():
            metrics = module(pairs)[1].extra_metrics
        return metrics["error"] + metrics["penalty"]

    polish(module, pairs)
    assert_least(module, loss, generator)
    before = module.field.weights[-1].detach().clone()
    module.field.adapt(None)
    polish(module, pairs)
    assert (module.field.weights[-1] - before).abs().amax((1, 2)).min() > 1e-2  # other weights, another solution
