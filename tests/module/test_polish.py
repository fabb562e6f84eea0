"""The linear part of a fit of pairs, against scikit-learn and against the loss itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet

from sparsenode.module._polish import polish
from sparsenode.regularizers import CNODE


@pytest.fixture(scope="module")
def pairs() -> dict[str, torch.Tensor]:
    """Pairs of two lineages whose slopes depend linearly on correlated states, with noise."""
    rng = np.random.default_rng(0)
    state = rng.normal(size=(150, 4)) @ (np.eye(4) + 0.6 * rng.normal(size=(4, 4)))
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
    path_weights = torch.ones(4, 4) - torch.eye(4)
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
    least = loss()
    assert (least < before - 0.01).all()
    linear = [module.field.weights[-1], module.field.biases[-1], module.field.raw_decay]
    for size in (1e-3, 1e-2, 0.1):
        for parameter in linear:
            for _ in range(5):
                step = size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                with torch.no_grad():
                    parameter += step
                assert (loss() > least - 1e-6).all()
                with torch.no_grad():
                    parameter -= step
