from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from torchdiffeq._impl.rk_common import RKAdaptiveStepsizeODESolver

from sparsenode import DivergenceError
from sparsenode.module._solve import ADAPTIVE, Solver, integrate

TIMES = torch.tensor([0.0, 0.1, 0.4, 1.0], dtype=torch.float64)


@pytest.fixture
def linear():
    """Two networks, three trajectories, four variables: ``dx/dt = x A'``."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
    start = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    exact = np.stack([[[expm(float(t) * a[n].numpy()) @ s.numpy() for t in TIMES] for s in start[n]] for n in range(2)])
    return (lambda x: x @ a.transpose(1, 2)), start, exact


@pytest.mark.parametrize(("method", "tolerance"), [(m, 1e-5 if m == "adaptive_heun" else 1e-8) for m in ADAPTIVE])
def test_linear_systems_follow_the_matrix_exponential(linear, method, tolerance):
    velocity, start, exact = linear
    states = integrate(velocity, start, TIMES, Solver(method, tolerance, tolerance))
    assert states.shape == (2, 3, 4, 4)
    assert torch.equal(states[:, :, 0], start)
    np.testing.assert_allclose(states, exact, rtol=100 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_an_oscillation_with_the_tolerance_of_training(method):
    """At the times of the knots, most of which lie within a step of dopri5 and dopri8."""
    times = torch.linspace(0, 1, 17)
    start = torch.tensor([[[1.0, 0.0]]])
    states = integrate(lambda x: torch.stack([x[..., 1], -9 * x[..., 0]], -1), start, times, Solver(method))[0, 0]
    exact = torch.stack([torch.cos(3 * times), -3 * torch.sin(3 * times)], -1)
    np.testing.assert_allclose(states, exact, atol=0.015)


@pytest.mark.parametrize(
    ("method", "tolerance", "n_times"), [("bosh3", 1e-5, 101), ("bosh3", 1e-3, 17), ("dopri8", 1e-5, 17)]
)
def test_steps_end_at_all_times_whatever_their_length(method, tolerance, n_times, monkeypatch):
    """Among oscillations of many speeds there are steps that would end exactly at the next time."""
    times, ends = torch.linspace(0, 1, n_times), []
    solve = RKAdaptiveStepsizeODESolver._adaptive_step

    def record(self, state):
        found = solve(self, state)
        ends.append(float(found.t1))
        return found

    monkeypatch.setattr(RKAdaptiveStepsizeODESolver, "_adaptive_step", record)
    for speed in np.linspace(1.0, 10.0, 46):
        ends.clear()
        integrate(
            lambda x, w=speed: w * torch.stack([x[..., 1], -x[..., 0]], -1),
            torch.tensor([[[1.0, 0.0]]]),
            times,
            Solver(method, tolerance, tolerance),
        )
        assert np.abs(np.subtract.outer(times[1:].numpy(), ends)).min(1).max() < 1e-6


def test_nonlinear_systems_agree_with_scipy():
    # Lotka-Volterra with its own rates in every network
    rates = torch.tensor([[1.0, 0.7], [2.0, 1.3], [0.5, 3.0]], dtype=torch.float64)
    start = torch.tensor([[1.0, 2.0], [0.3, 0.5]], dtype=torch.float64).expand(3, 2, 2)

    def velocity(x):
        prey, predator = x[..., 0], x[..., 1]
        a, b = rates[:, :1], rates[:, 1:]
        return torch.stack([a * prey * (1 - predator), b * predator * (prey - 1)], dim=-1)

    states = integrate(velocity, start, 4 * TIMES, Solver("dopri5", 1e-9, 1e-9))
    for n in range(3):
        a, b = rates[n].tolist()
        for m in range(2):
            expected = solve_ivp(
                lambda _, y, a=a, b=b: [a * y[0] * (1 - y[1]), b * y[1] * (y[0] - 1)],
                (0, 4),
                start[n, m],
                t_eval=4 * TIMES.numpy(),
                method="DOP853",
                rtol=1e-11,
                atol=1e-11,
            )
            np.testing.assert_allclose(states[n, m].T, expected.y, rtol=1e-6, atol=1e-7)


def test_error_falls_with_the_tolerance(linear):
    velocity, start, exact = linear
    errors = [
        np.abs(integrate(velocity, start, TIMES, Solver("dopri5", tol, tol)).numpy() - exact).max()
        for tol in (1e-2, 1e-4, 1e-6, 1e-8)
    ]
    assert all(later < earlier / 5 for earlier, later in zip(errors[:-1], errors[1:], strict=True))
    assert errors[-1] < 1e-6


def test_fixed_steps_of_fourth_order(linear):
    velocity, start, exact = linear

    def error(n):
        times = torch.linspace(0, 1, n + 1, dtype=torch.float64)
        return np.abs(integrate(velocity, start, times, Solver("rk4"))[:, :, -1].numpy() - exact[:, :, -1]).max()

    assert 10 < error(10) / error(20) < 24


def test_a_hard_network_is_not_diluted_by_easy_ones():
    """The error norm is the largest over networks and trajectories, so company changes nothing."""
    solver = Solver("dopri5", 1e-4, 1e-4)
    rate = torch.zeros(50, 1, 1, dtype=torch.float64)
    rate[0] = 20.0
    start = torch.ones(50, 2, 3, dtype=torch.float64)
    alone = integrate(lambda x: torch.cos(20 * x) * 20, start[:1], TIMES, solver)
    together = integrate(lambda x: torch.cos(20 * x) * rate, start, TIMES, solver)
    np.testing.assert_allclose(together[:1], alone, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blow_up_in_finite_time_is_a_divergence_error(dtype):
    # x' = x^2 from 2 reaches infinity at 1/2
    start = torch.full((2, 1, 3), 2.0, dtype=dtype)
    with pytest.raises(DivergenceError, match="integration failed"):
        integrate(torch.square, start, TIMES.to(dtype), Solver())


def test_blow_up_of_one_network_is_enough():
    start = torch.zeros(3, 1, 2, dtype=torch.float64)
    start[1] = 2.0
    with pytest.raises(DivergenceError):
        integrate(torch.square, start, TIMES, Solver())


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_blow_up_is_a_divergence_error_with_fixed_steps_too(method):
    start, times = torch.full((1, 1, 1), 50.0, dtype=torch.float64), torch.linspace(0, 1, 17, dtype=torch.float64)
    with pytest.raises(DivergenceError):
        integrate(torch.square, start, times, Solver(method))


@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_more_than_a_thousand_steps_are_a_divergence_error(method):
    """A rotation in which a step can hardly be longer than a radian."""
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    start, times = torch.ones(1, 1, 2, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert torch.isfinite(integrate(lambda x: 100 * x @ turn, start, times, Solver(method))).all()
    with pytest.raises(DivergenceError):
        integrate(lambda x: 5000 * x @ turn, start, times, Solver(method))


@pytest.mark.parametrize(("size", "rtol", "atol"), [(1e6, 1e-9, 1e-3), (1e-5, 1e-3, 1e-9)])
def test_large_states_are_as_exact_as_the_relative_tolerance_and_small_ones_as_the_absolute(linear, size, rtol, atol):
    velocity, start, exact = linear
    states = integrate(velocity, size * start, TIMES, Solver("dopri5", rtol, atol)).numpy()
    np.testing.assert_allclose(states / size, exact, rtol=0, atol=20 * (rtol + atol / size))


def test_gradients_pass_through_the_solve():
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    states = integrate(
        lambda x: -rate * x, torch.ones(1, 1, 1, dtype=torch.float64), TIMES, Solver("dopri5", 1e-8, 1e-8)
    )
    states[0, 0, -1, 0].backward()
    assert rate.grad.item() == pytest.approx(-np.exp(-0.7), rel=1e-5)
