"""The network of initial velocities, against scikit-learn's ridge regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_score

from sparsenode.module._initial_velocity import _RIDGES, InitialVelocity, _ridge


def cross_validated_ridge(z, v):
    """The largest ridge with the smallest leave-one-out error; centre and spread are those of all trajectories."""
    candidates = [Ridge(alpha=z.shape[1] * float(ridge), solver="svd") for ridge in _RIDGES]
    errors = [-cross_val_score(c, z, v, cv=LeaveOneOut(), scoring="neg_mean_squared_error").mean() for c in candidates]
    best = next(i for i, error in enumerate(errors) if error <= min(errors) * (1 + 1e-6))
    return candidates[best].fit(z, v)


def test_it_starts_from_a_ridge_regression_per_field():
    generator = torch.Generator().manual_seed(0)
    starts, slopes = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64)
    fields = [0, 1, 0, 0, 1, 1, 0]
    network = InitialVelocity(3, [0, 0, 1, 1], n_fields=2).double()
    network.start_from(starts, slopes, fields)
    for field in (0, 1):
        own = [m for m, of in enumerate(fields) if of == field]
        x = starts[own].numpy() - starts[own].numpy().mean(0)
        spread = np.sqrt(np.square(x).mean())
        ridge = cross_validated_ridge(x / spread, slopes[own].numpy())
        found = network(starts[own].expand(4, -1, -1))[field::2].detach().numpy()
        for replicate in found:
            np.testing.assert_allclose(replicate, ridge.predict(x / spread), rtol=1e-5)


@pytest.mark.parametrize(("n", "n_vars"), [(2, 3), (3, 1), (4, 3), (4, 30), (8, 2), (8, 30)])
@pytest.mark.parametrize("seed", range(3))
def test_the_ridge_is_that_of_leaving_out_one_by_one(n, n_vars, seed):
    # With fewer trajectories than variables residuals and leverages of small ridges are all but zero and one.
    rng = np.random.default_rng(seed)
    z, v = rng.normal(size=(n, n_vars)), rng.normal(size=(n, 2))
    z -= z.mean(0)
    found = _ridge(torch.as_tensor(z), torch.as_tensor(v - v.mean(0)))
    np.testing.assert_allclose(found, cross_validated_ridge(z, v).coef_, rtol=1e-4, atol=1e-7)


def test_velocities_that_are_linear_in_positions_are_found():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    matrix = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    network = InitialVelocity(3, [0], 1).double()
    network.start_from(x, x @ matrix.T, [0] * 8)
    torch.testing.assert_close(network(x[None])[0], x @ matrix.T, rtol=1e-5, atol=1e-5)


def test_two_trajectories_which_say_nothing_on_the_ridge_start_from_their_mean():
    generator = torch.Generator().manual_seed(2)
    starts, slopes = torch.randn(2, 2, 5, generator=generator, dtype=torch.float64)
    network = InitialVelocity(5, [0], 1).double()
    network.start_from(starts, slopes, [0, 0])
    spread = (slopes - slopes.mean(0)).abs().max()
    assert (network(starts[None])[0] - slopes.mean(0)).abs().max() < 0.05 * spread


def test_one_trajectory_gives_its_slope():
    network = InitialVelocity(3, [0], 1).double()
    start, slope = torch.tensor([[1.0, -2.0, 0.5]]).double(), torch.tensor([[3.0, 0.1, -1.0]]).double()
    network.start_from(start, slope, [0])
    torch.testing.assert_close(network(start[None])[0], slope)


def test_networks_do_not_depend_on_the_batch_and_can_learn_what_is_not_linear():
    batch, alone = InitialVelocity(2, [4, 9], 1).double(), InitialVelocity(2, [9], 1).double()
    x = torch.linspace(-2, 2, 40, dtype=torch.float64)
    x = torch.stack([x, torch.cos(2 * x)], 1)
    wanted = torch.stack([x[:, 0].abs(), x[:, 0] * x[:, 1]], 1)
    for network in (batch, alone):
        network.start_from(x, wanted, [0] * 40)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
        points = x.expand(len(network.bias), -1, -1)
        first = float((network(points) - wanted).square().mean().detach())
        for _ in range(400):
            optimizer.zero_grad()
            (network(points) - wanted).square().mean((1, 2)).sum().backward()
            optimizer.step()
    with torch.no_grad():
        torch.testing.assert_close(batch(x.expand(2, -1, -1))[1], alone(x[None])[0], rtol=1e-6, atol=1e-8)
        assert float((alone(x[None])[0] - wanted).square().mean()) < 0.1 * first


def test_values_are_those_of_the_formula():
    """Two replicates of two fields: centre and spread are those of the field, all else is of the network."""
    network = InitialVelocity(3, [0, 0, 1, 1], n_fields=2).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*network.parameters(), network.centre):
            tensor.normal_(generator=generator)
        network.spread[:] = torch.tensor([0.5, 2.0]).view(2, 1, 1)
    x = torch.randn(4, 5, 3, generator=generator, dtype=torch.float64)
    found = network(x).detach().numpy()
    bias, linear, hidden, hidden_bias, output = (parameter.detach().numpy() for parameter in network.parameters())
    for n in range(4):
        z = (x[n].numpy() - network.centre[n % 2].numpy()) / (0.5, 2.0)[n % 2]
        h = z @ hidden[n].T / np.sqrt(3) + hidden_bias[n]
        h = np.where(h > 0, h, np.expm1(h))
        np.testing.assert_allclose(found[n], bias[n] + z @ linear[n].T / 3 + h @ output[n].T / 20)


def test_networks_of_different_seeds_start_from_different_hidden_units():
    hidden = InitialVelocity(3, [4, 9, 4], 1).hidden.detach()
    assert torch.equal(hidden[0], hidden[2])
    assert not torch.isclose(hidden[0], hidden[1]).any()
