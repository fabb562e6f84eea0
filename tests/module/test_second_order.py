"""Second-order dynamics: the same properties as in first order, on states of positions and velocities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from sparsenode.module import Field, _start
from sparsenode.module._diverging import diverging
from sparsenode.module._prune import prune_field
from sparsenode.module._start import start_accelerations
from sparsenode.module._velocity import velocity
from sparsenode.regularizers import CNODE, L0, GroupLasso, LassoNet, NoRegularizer, PathReg

METHODS = [
    *(NoRegularizer(), CNODE(0.1), L0(0.1), PathReg(0.1, gates="weight"), PathReg(0.1, gates="unit")),
    *(GroupLasso(0.1), LassoNet(0.1), LassoNet(0.1, skip="outer")),
]
by_method = pytest.mark.parametrize("regularizer", METHODS, ids=lambda r: f"{r.name}-{r.gates or r.skip}")


@pytest.fixture(scope="module")
def second(architecture) -> dict:
    """The architectures of first order, reading positions and velocities."""
    inputs = None if architecture["inputs"] is None else (4, 0, 2)
    return architecture | {"inputs": inputs, "order": 2}


def shake(module, seed=0, size=0.3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return module


@pytest.mark.parametrize("gates", [None, "unit", "weight"])
def test_the_fast_evaluation_has_the_gradients_of_autograd(make_field, second, gates):
    field = make_field(gates=gates, **second)
    x = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    found = []
    for fast in (True, False):
        effective = field.effective_weights()
        plain = lambda s, e=effective: torch.cat([s[..., 3:], Field.evaluate(s, e)], -1)
        f = velocity(effective) if fast else plain
        y = x + 0.3 * f(x)
        y = y + 0.2 * f(torch.sin(y))
        found.append(torch.autograd.grad((y**2).sum(), [x, *field.parameters()], allow_unused=True))
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_damping_acts_on_velocities_alone(make_field):
    field, still = make_field(order=2), make_field(order=2)
    with torch.no_grad():
        still.raw_decay.fill_(-100.0)
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        gap = still.evaluate(x, still.effective_weights()) - field.evaluate(x, field.effective_weights())
        torch.testing.assert_close(gap, field.decay * x[..., 3:])


def test_jacobian_has_a_block_for_positions_and_one_for_velocities(make_field, second):
    field = make_field(**second | {"skip": None if second["skip"] == "outer" else second["skip"]}, decay=False)
    effective, x = field.effective_weights(), torch.randn(4, 6, dtype=torch.float64)
    for network in range(2):

        def one(point, network=network):
            return field.evaluate(point.expand(2, 1, -1), effective)[network, 0]

        expected = torch.stack([torch.autograd.functional.jacobian(one, point) for point in x]).mean(0)
        torch.testing.assert_close(field.jacobian(x, effective, network), expected)


@by_method
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.2, 0.5, 0.8]))
@settings(max_examples=8)
def test_zero_in_either_block_proves_independence(make_field, regularizer, seed, share):
    options = {"skip": regularizer.skip, "per_target": regularizer.per_target, "gates": regularizer.gates}
    field = make_field(n_vars=3, hidden=(4, 5), seed=seed % 1000, order=2, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in field.weights:
            weight *= torch.rand(weight.shape, generator=generator) > share
        effective = field.effective_weights()
        zero = field.path_matrix(effective) == 0
        x = 2 * torch.randn(2, 7, 6, generator=generator, dtype=torch.float64)
        at_x = field.evaluate(x, effective) + field.decay * x[..., 3:]
        for column in range(6):
            moved = x.clone()
            moved[..., column] += 1.7
            there = field.evaluate(moved, effective) + field.decay * moved[..., 3:]
            unmoved = zero[:, None, :, column].expand_as(at_x)
            torch.testing.assert_close(there[unmoved], at_x[unmoved], rtol=0.0, atol=1e-14)


@pytest.mark.parametrize(
    "regularizer", [r for r in METHODS if r.proximal], ids=lambda r: f"{r.name}-{r.gates or r.skip}"
)
def test_proximal_steps_reach_zero_in_both_blocks(make_field, regularizer):
    options = {"skip": regularizer.skip, "per_target": regularizer.per_target, "gates": regularizer.gates}
    field = make_field(order=2, hidden=(4,), **options)
    if field.gates is not None:
        with torch.no_grad():
            [logits.fill_(3.0) for logits in field.gate_logits]
    alive = []
    for _ in range(400):
        effective = field.effective_weights()
        alive.append((field.path_matrix(effective) > 0).double().mean((0, 1)))
        steps = [torch.full_like(w, 0.1) for w in field.weights]
        regularizer.prox(field, effective, torch.tensor([20.0, 20.0], dtype=torch.float64), steps)
    assert (alive[0] == 1).all()
    assert (alive[-1] == 0).all()


@pytest.mark.parametrize("gates", [None, "unit", "weight"])
def test_a_pruned_field_is_the_same_function(make_field, second, gates):
    weights = torch.rand(3, 6, generator=torch.Generator().manual_seed(2))
    field = make_field(3, (4, 5), 2, gates, path_weights=weights, **second)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in field.weights:
            n, rows, columns = weight.shape
            for shape in ((n, rows, 1), (1, 1, columns)):
                weight *= torch.rand(shape, generator=generator) > 0.4
        pruned, sizes = prune_field(field)
        x = torch.randn(2, 9, 6, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(
            pruned.evaluate(x, pruned.effective_weights()), field.evaluate(x, field.effective_weights())
        )
    assert (pruned.order, pruned.path_weights.shape) == (2, (3, len(sizes["inputs"])))
    torch.testing.assert_close(pruned.path_weights.double(), weights[:, sizes["inputs"]].double())


# The module


def numpy_solution(module, network: int, trajectory: int, times: np.ndarray, skip: str | None) -> np.ndarray:
    """Positions from scipy alone: weights as matrices, damping, skip, unit of time."""
    effective = module.field.effective_weights()
    weights = [w[network].detach().numpy() for w in effective.weights]
    biases = [b[network].detach().numpy() for b in effective.biases]
    decay, clock = effective.decay[network].detach().numpy(), float(module.relative_span[trajectory] * module.rate[0])
    start = module.initial_state[trajectory].numpy()

    def acceleration(s):
        h = s[None]
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=False)):
            h = h @ weight.T + bias
            h = np.where(h > 0, h, np.expm1(np.minimum(h, 0))) if layer < len(biases) - 1 else h
        return (h - decay * s[4:])[0] + (weights[-1] @ s if skip == "inner" else 0.0)

    with torch.no_grad():
        first = torch.zeros(module.field.n_networks, 1, 4, dtype=torch.float64)
        first[:] = module.initial_state[trajectory]
        speed = module.initial_velocity(first)[network, 0].numpy()
    rhs = lambda _, s: clock * np.concatenate([s[4:], acceleration(s)])
    solution = solve_ivp(rhs, (0, 1), np.concatenate([start, speed]), t_eval=times, rtol=1e-10, atol=1e-10)
    drift = weights[-1] @ np.concatenate([start, speed]) if skip == "outer" else np.zeros(4)
    return solution.y[:4].T + 0.5 * (clock * times[:, None]) ** 2 * drift


@pytest.mark.parametrize("fields", ["lineage", "shared"])
@pytest.mark.parametrize("skip", [None, "inner", "outer"])
def test_trajectories_are_those_of_scipy(problem, make_module, fields, skip):
    regularizer = NoRegularizer() if skip is None else LassoNet(0.1, skip=skip)
    module = shake(make_module(regularizer, (0, 1), fields, order=2)).eval()
    module.rate.fill_(1.7)
    times = torch.linspace(0, 1, 6, dtype=torch.float64)
    with torch.no_grad():
        states, derivatives = module.trajectories(
            module.field.effective_weights(), module.start(), module.relative_span, module.lineages, times
        )
    assert states.shape == derivatives.shape == (2, 3, 6, 8)
    for replicate in range(2):
        for m, lineage in enumerate(problem.lineages):
            network = replicate * module.n_fields + (lineage if module.n_fields > 1 else 0)
            expected = numpy_solution(module, network, m, times.numpy(), skip)
            np.testing.assert_allclose(states[replicate, m, :, :4], expected, rtol=1e-6, atol=1e-7)
    # The velocity in the state is the derivative of the position, in units of the rate.
    clock = 1.7 * module.relative_span.view(1, 3, 1, 1)
    torch.testing.assert_close(derivatives[..., :4], clock * states[..., 4:], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("lineages", [1, 2])
@by_method
def test_replicates_equal_single_modules(problem, make_module, regularizer, lineages, monkeypatch):
    monkeypatch.setattr(_start, "_WARM_UP_STEPS", 20)  # a mistake between replicates shows in the first of them
    fields = "lineage" if lineages == 2 else "shared"
    strengths = np.array([0.1, 0.4])
    make = lambda strength: type(regularizer)(
        **{"strength": strength}
        | ({"gates": regularizer.gates} if regularizer.gates else {})
        | ({"skip": regularizer.skip} if regularizer.skip else {})
    )
    if isinstance(regularizer, NoRegularizer):
        make, strengths = (lambda _: NoRegularizer()), np.zeros(1)
    tensors = problem.tensors(9)

    def losses(regularizer, seeds):
        module = make_module(regularizer, seeds, fields, order=2)
        module.start_velocity_network(initial_velocity)
        start_accelerations(module, curves)
        module.train()
        module.seed_generators()
        _, output = module(tensors)
        return [output.extra_metrics[key].detach().numpy() for key in ("error", "penalty")]

    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    initial_velocity = draw(3, 4)
    curves = {"states": draw(1, 3, 5, 8), "derivatives": draw(1, 3, 5, 4), "precision": draw(1, 3, 5, 4).exp() / 100}
    together = losses(make(strengths if len(strengths) > 1 else 0.0), (0, 3))
    for row, (strength, seed) in enumerate((strength, seed) for strength in strengths for seed in (0, 3)):
        alone = losses(make(float(strength)), (seed,))
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[row], b[0], rtol=1e-6)


@pytest.mark.parametrize("order", [1, 2])
def test_noise_moves_starts_and_clocks_by_what_is_drawn(problem, make_module, order):
    """In training the error is that of a module whose starts, velocities and spans are what was drawn."""
    tensors = problem.tensors(9)
    noisy = make_module(order=order, seeds=(0, 3), start_noise=0.3, clock_noise=0.2, own_velocities=True)
    noisy.train()
    noisy.seed_generators()
    _, output = noisy(tensors)
    noisy.eval()
    _, still = noisy(tensors)
    for index, seed in enumerate((0, 3)):
        alone = make_module(order=order, seeds=(seed,), own_velocities=True)
        _, quiet = alone(tensors)
        torch.testing.assert_close(still.extra_metrics["error"][[index]], quiet.extra_metrics["error"])
        generator = torch.Generator().manual_seed(seed)
        draw = torch.empty(order, *alone.initial_state.shape)
        draw.normal_(generator=generator)
        clock = torch.empty(len(alone.relative_span)).normal_(generator=generator)
        with torch.no_grad():
            alone.initial_state += 0.3 * draw[0]
            if order == 2:
                # The offset makes up for what the network says at the new start.
                alone.velocity_offset += 0.3 * draw[1]
            alone.relative_span *= torch.exp(0.2 * clock)
        _, expected = alone(tensors)
        found = float(output.extra_metrics["error"][index].detach())
        assert found == pytest.approx(float(expected.extra_metrics["error"].detach()), rel=1e-5)
        assert found != pytest.approx(float(still.extra_metrics["error"][index].detach()), rel=1e-3)


def test_regulators_and_path_weights_hold_for_both_blocks(make_module):
    weights = torch.arange(16.0).view(4, 4)
    module = make_module(order=2, inputs=[1, 3], path_weights=weights)
    assert module.field.inputs.tolist() == [1, 3, 5, 7]
    torch.testing.assert_close(module.field.path_weights.float(), weights[:, [1, 3, 1, 3]])
    assert (module.path_matrix()[..., [0, 2, 4, 6]] == 0).all()


def test_the_warm_start_learns_accelerations(make_module):
    """A linear system, whose curves are known: the field starts close to it."""
    system = np.block([[np.zeros((4, 4)), np.eye(4)], [-np.diag([1.0, 2.0, 1.5, 0.5]), -0.2 * np.eye(4)]])
    rng = np.random.default_rng(0)
    states = np.stack([[expm(system * t) @ start for t in np.linspace(0, 3, 20)] for start in rng.normal(size=(3, 8))])
    accelerations = states @ system.T[:, 4:]
    module = make_module(order=2, hidden=(20,), fields="shared")
    clock = 1.0 * module.relative_span.numpy()[:, None, None]
    gained = clock * accelerations
    arrays = {"states": states, "derivatives": gained, "precision": np.full_like(gained, 1 / np.square(gained).sum())}
    start_accelerations(module, {name: torch.as_tensor(array[None]) for name, array in arrays.items()})
    with torch.no_grad():
        found = module.field.evaluate(torch.as_tensor(states.reshape(1, -1, 8)), module.field.effective_weights())
    error = np.square(found.numpy().ravel() - accelerations.ravel()).mean()
    assert error < 0.02 * accelerations.var()


def test_a_start_that_flies_off_is_calmed(make_module, monkeypatch):
    """Seen for a tenth of the time, x'' = 400 x grows by exp(20) over all of it; the other replicate stays as it is."""
    starts = np.random.default_rng(0).normal(size=(3, 4))
    growth = np.exp(20 * np.linspace(0, 0.1, 20))[:, None] * starts[:, None]
    states = np.concatenate([growth, 20 * growth], 2)[None]
    accelerations = np.stack([400 * growth, -growth])  # one for each seed

    def start():
        module = make_module(seeds=(0, 1), order=2, hidden=(20,), fields="shared")
        module.initial_state.copy_(torch.as_tensor(starts))
        gained = module.relative_span.numpy()[:, None, None] * accelerations
        precision = np.ones_like(gained) / np.square(gained).sum((1, 2, 3), keepdims=True)
        arrays = {"states": states, "derivatives": gained, "precision": precision}
        start_accelerations(module, {name: torch.as_tensor(array) for name, array in arrays.items()})
        return module

    calm = start()
    monkeypatch.setattr(_start, "_calm", lambda module: None)
    wild = start()
    assert diverging(wild) == [0]
    assert diverging(calm) == []
    for found, expected in zip(calm.field.parameters(), wild.field.parameters(), strict=True):
        torch.testing.assert_close(found[1], expected[1], rtol=0, atol=0)
    assert calm.field.weights[-1][0].abs().max() < wild.field.weights[-1][0].abs().max()


@pytest.mark.parametrize("fields", ["lineage", "shared"])
def test_velocities_of_their_own_start_as_observed_and_move_with_the_network(make_module, fields):
    module = make_module(seeds=(0, 1), order=2, fields=fields, own_velocities=True)
    observed = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    module.start_velocity_network(observed)
    with torch.no_grad():
        torch.testing.assert_close(module.start_speed(), observed.expand(2, -1, -1))
        module.initial_velocity.bias += 0.7
        torch.testing.assert_close(module.start_speed(), observed.expand(2, -1, -1) + 0.7)
