from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicHermiteSpline
from torch.nn import functional
from torchdiffeq import odeint

from sparsenode.module import Field
from sparsenode.module._random_start import bootstrapped_start
from sparsenode.module._solve import Solver
from sparsenode.regularizers import CNODE, L0, GroupLasso, LassoNet, NoRegularizer, PathReg

REGULARIZERS = [NoRegularizer(), CNODE(0.1), L0(0.1), PathReg(0.1, gates="weight"), PathReg(0.1, gates="unit")]
by_name = pytest.mark.parametrize("regularizer", REGULARIZERS, ids=lambda r: f"{r.name}-{r.gates}")
DEFAULT = Solver()


def shake(module, seed=0, size=0.3):
    """Move all parameters, so that biases, decay and output weights differ from their first values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return module


def train(module, tensors, steps=40):
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    module.train()
    for _ in range(steps):
        optimizer.zero_grad()
        _, output = module(tensors)
        output.loss.backward()
        optimizer.step()
    return module.eval()


def errors(module, tensors):
    with torch.no_grad():
        return module(tensors)[1].extra_metrics["error"].double().numpy()


def directly_integrated(module, problem, network, trajectory):
    """States at the cells of a trajectory from torchdiffeq alone, without knots, batch or layout."""
    weights = [w[network].detach().double() for w in module.field.effective_weights().weights]
    biases = [b[network, 0].detach().double() for b in module.field.biases]
    decay = functional.softplus(module.field.raw_decay.detach().double())[network, 0]
    span = float(module.relative_span[trajectory])

    def velocity(_, x):
        h = x
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            h = functional.linear(functional.elu(h) if layer else h, weight, bias)
        return span * (h - decay * x)

    times, place = np.unique(np.append(0.0, problem.times[trajectory]), return_inverse=True)
    start = module.initial_state[trajectory].double()
    states = odeint(velocity, start, torch.as_tensor(times), rtol=1e-9, atol=1e-9, method="dopri5")
    return states.numpy()[place[1:]]


def direct_errors(module, problem):
    network = {"lineage": lambda r, m: 2 * r + problem.lineages[m], "shared": lambda r, _: r}
    of = network["lineage" if module.n_fields > 1 else "shared"]
    return np.array(
        [
            problem.error([directly_integrated(module, problem, of(r, m), m) for m in range(3)])
            for r in range(module.n_replicates)
        ]
    )


@by_name
@pytest.mark.parametrize("fields", ["lineage", "shared"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_quadratic_form_is_the_squared_error_of_the_interpolant(problem, make_module, regularizer, fields, dtype):
    module = shake(make_module(regularizer, (0, 1), fields, n_knots=4, solver=DEFAULT, dtype=dtype)).eval()
    found = errors(module, problem.tensors(module.n_knots, dtype))
    knots = torch.linspace(0, 1, module.n_knots)
    with torch.no_grad():
        effective = module.field.effective_weights()
        start = module.initial_state.expand(2, -1, -1)
        states, slopes = module.trajectories(effective, start, module.relative_span, module.lineages, knots)
    assert states.shape == slopes.shape == (2, 3, module.n_knots, 4)
    expected = [
        problem.error(
            [
                CubicHermiteSpline(knots.numpy(), states[r, m].numpy(), slopes[r, m].numpy())(problem.times[m])
                for m in range(3)
            ]
        )
        for r in range(2)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@by_name
@pytest.mark.parametrize("fields", ["lineage", "shared"])
def test_interpolated_loss_is_that_of_direct_integration_at_first(
    problem, make_module, default_knots, regularizer, fields
):
    module = make_module(regularizer, (0, 1), fields, n_knots=default_knots, solver=DEFAULT, dtype=torch.float32)
    found = errors(module.eval(), problem.tensors(default_knots, torch.float32))
    np.testing.assert_allclose(found, direct_errors(module, problem), rtol=1e-3)


@by_name
def test_interpolated_loss_is_that_of_direct_integration_after_training(
    problem, make_module, default_knots, regularizer
):
    """Most of the difference at default tolerances is the solver's; what the knots cost is far less."""
    tensors = problem.tensors(default_knots, torch.float32)
    module = make_module(
        regularizer, (0, 1), bootstrap=True, n_knots=default_knots, solver=DEFAULT, dtype=torch.float32
    )
    before = errors(module.eval(), tensors)
    found = errors(train(module, tensors), tensors)
    assert (found < 0.7 * before).all()
    expected = direct_errors(module, problem)
    np.testing.assert_allclose(found, expected, rtol=1e-2)
    module.solver = Solver(rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(errors(module, tensors), expected, rtol=1e-3)


def test_interpolation_error_falls_with_the_knots(problem, make_module, tight):
    differences = []
    for n_knots in (3, 9, 33):
        module = shake(make_module(seeds=(0, 1), n_knots=n_knots)).eval()
        found = errors(module, problem.tensors(n_knots))
        differences.append(np.abs(found - direct_errors(module, problem)).max())
    # The interpolant is of fourth order; 4 times as many intervals could gain a factor of 256.
    assert differences[1] < differences[0] / 20
    assert differences[2] < differences[1] / 20


def test_relative_span_is_the_length_of_the_integration(make_module, problem):
    module = shake(make_module()).eval()
    effective, start = module.field.effective_weights(), module.initial_state.expand(1, -1, -1)
    times = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    with torch.no_grad():
        short = module.trajectories(effective, start, 0.5 * torch.ones(3).double(), [0, 1, 0], times)
        long = module.trajectories(effective, start, torch.ones(3).double(), [0, 1, 0], times)
    np.testing.assert_allclose(short[0][:, :, 2], long[0][:, :, 1], rtol=1e-6)
    np.testing.assert_allclose(short[1][:, :, 2], 0.5 * long[1][:, :, 1], rtol=1e-6)


def test_derivatives_are_those_of_the_states(make_module):
    module = shake(make_module(seeds=(0, 1))).eval()
    h = 1e-4
    times = torch.tensor([0.0, 0.5 - h, 0.5, 0.5 + h], dtype=torch.float64)
    with torch.no_grad():
        effective, start = module.field.effective_weights(), module.initial_state.expand(2, -1, -1)
        states, slopes = module.trajectories(effective, start, module.relative_span, module.lineages, times)
    np.testing.assert_allclose(slopes[:, :, 2], (states[:, :, 3] - states[:, :, 1]) / (2 * h), rtol=1e-4, atol=1e-5)


def integrated(module, start):
    times = torch.linspace(0, 1, 6, dtype=torch.float64)
    with torch.no_grad():
        effective = module.field.effective_weights()
        return times.numpy(), *(
            a.numpy() for a in module.trajectories(effective, start, module.relative_span, module.lineages, times)
        )


def test_a_skip_after_the_integration_adds_a_drift_to_what_the_field_gives(problem, make_module):
    """The prediction is y(t) + t S x(0), where y solves dy/dt = f(y) without the skip; S reads the regulators only."""
    module = shake(make_module(LassoNet(skip="outer"), (0, 1), inputs=[0, 2, 3]), size=0.5)
    plain = make_module(seeds=(0, 1), inputs=[0, 2, 3])
    start = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain.field.load_state_dict(module.field.state_dict() | {}, strict=False)
    times, states, slopes = integrated(module, start)
    _, y, dy = integrated(plain, start)
    for r, m in np.ndindex(2, 3):
        skip = module.field.weights[-1][2 * r + problem.lineages[m]].detach().numpy()
        drift = problem.relative_span[m] * skip @ start[r, m, [0, 2, 3]].numpy()
        np.testing.assert_allclose(states[r, m], y[r, m] + times[:, None] * drift, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(slopes[r, m], dy[r, m] + drift, rtol=1e-6, atol=1e-7)
    assert np.abs(states - y).max() > 0.1


def test_other_lineages_can_be_integrated_than_those_of_training(make_module):
    module = shake(make_module(seeds=(0, 1))).eval()
    effective = module.field.effective_weights()
    times = torch.linspace(0, 1, 3)
    start = torch.full((2, 2, 4), 0.3, dtype=torch.float64)
    with torch.no_grad():
        one, _ = module.trajectories(effective, start[:, :1], torch.ones(1).double(), [1], times)
        two, _ = module.trajectories(effective, start, torch.ones(2).double(), [0, 1], times)
    np.testing.assert_allclose(two[:, 1:], one, rtol=1e-6)
    assert not np.allclose(two[:, :1], one, rtol=1e-2)


@pytest.mark.parametrize("fields", ["lineage", "shared"])
@pytest.mark.parametrize(
    "make",
    [
        *(CNODE, lambda s: L0(s, "weight"), lambda s: PathReg(s, "weight"), lambda s: PathReg(s, "unit")),
        *(GroupLasso, LassoNet, lambda s: LassoNet(s, "outer")),
    ],
    ids=["cnode", "l0", "pathreg-weight", "pathreg-unit", "grouplasso", "lassonet", "lassonet-outer"],
)
def test_replicates_equal_single_modules(problem, make_module, make, fields):
    strengths, seeds = (0.1, 0.5), (3, 8)
    tensors = problem.tensors(9)
    together = make_module(make(strengths), seeds, fields, bootstrap=True).train()
    effective, output = together(tensors)
    output.loss.backward()
    for replicate, (strength, seed) in enumerate((s, k) for s in strengths for k in seeds):
        alone = make_module(make(strength), (seed,), fields, bootstrap=True).train()
        own, single = alone(tensors)
        single.loss.backward()
        for a, b in zip(own.weights, effective.weights, strict=True):
            np.testing.assert_allclose(a.detach(), b.unflatten(0, (4, -1))[replicate].detach(), rtol=1e-4, atol=1e-7)
        for name in ("error", "penalty"):
            found = output.extra_metrics[name][replicate].detach()
            np.testing.assert_allclose(found, single.extra_metrics[name][0].detach(), rtol=1e-6)
        for a, b in zip(alone.parameters(), together.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None)
            if a.grad is not None:
                np.testing.assert_allclose(b.grad.unflatten(0, (4, -1))[replicate], a.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (torch.sum, r"shape \(\)"),
        (lambda penalty: penalty[:, None], r"shape \(2, 1\)"),
        (lambda _: None, "None"),
        (lambda _: 0.0, "0.0"),
    ],
    ids=["sum", "column", "no return", "number"],
)
def test_a_penalty_that_is_not_one_per_network_is_refused(problem, make_module, wrong, found):
    """A sum over the networks of one replicate would go unnoticed."""

    class Wrong(NoRegularizer):
        def penalty(self, field, effective):
            return wrong(sum(weight.abs().mean((1, 2)) for weight in effective.weights))

    module = make_module(Wrong(), (0,)).train()
    with pytest.raises(ValueError, match=rf"one penalty per network from Wrong, .* of shape \(2,\), found {found}\. "):
        module(problem.tensors(9))


def test_loss_is_the_sum_over_replicates_of_error_and_smooth_penalty(problem, make_module):
    regularizer = L0((0.5, 2.0))
    module = shake(make_module(regularizer, (0, 1))).eval()
    with torch.no_grad():
        effective, output = module(problem.tensors(9))
        penalty = regularizer.penalty(module.field, effective).numpy()
    assert output.loss.item() == pytest.approx(
        sum(float(output.extra_metrics[name].sum()) for name in ("error", "penalty"))
    )
    # Networks: strengths, then seeds, then lineages; the penalty of a replicate is the mean over its lineages.
    expected = np.repeat([0.5, 2.0], 2) * penalty.reshape(4, 2).mean(1)
    np.testing.assert_allclose(output.extra_metrics["penalty"], expected)


@pytest.mark.parametrize("share", [1.0, 0.25, 0.0])
def test_the_penalty_on_squares_is_part_of_the_loss_and_of_the_penalty(make_module, share):
    """It follows the strength in force like every penalty."""
    module = make_module(CNODE(0.0), seeds=(0, 1)).eval()
    module.ridge, module.strength_share = 0.7, share
    generator = torch.Generator().manual_seed(0)
    pairs = {
        "state": torch.randn(20, 4, generator=generator, dtype=torch.float64),
        "slope": torch.randn(1, 20, 4, generator=generator, dtype=torch.float64),
        "weight": torch.ones(1, 20, dtype=torch.float64),
        "lineage": torch.arange(20) % 2,
    }
    with torch.no_grad():
        effective, output = module(pairs)
        squares = module.field.path_squares(effective).view(2, 2).mean(1)  # replicates × lineages
    penalty = output.extra_metrics["penalty"]
    torch.testing.assert_close(penalty.double(), 0.7 * share * squares)
    torch.testing.assert_close(output.loss, (output.extra_metrics["error"] + penalty).sum())


def test_replicates_that_share_a_seed_share_gate_samples(make_module):
    module = make_module(PathReg((0.1, 0.2, 0.3)), seeds=(3, 8), fields="shared").train()
    gates = [gate.view(3, 2, *gate.shape[1:]) for gate in module.sample_weights().gates]
    for gate in gates:
        # To rounding: vectorised sigmoids differ in the last bit with the place in memory.
        assert torch.allclose(gate[0], gate[1], rtol=0, atol=1e-6)
        assert torch.allclose(gate[0], gate[2], rtol=0, atol=1e-6)
        assert (gate[0, 0] - gate[0, 1]).abs().max() > 0.1


def test_gate_samples_differ_from_step_to_step_and_repeat_from_the_seed(make_module):
    module = make_module(PathReg(0.1), seeds=(3,)).train()
    module.seed_generators()
    first, second = module.sample_weights().gates[1], module.sample_weights().gates[1]
    assert not torch.equal(first, second)
    module.seed_generators()
    assert torch.equal(module.sample_weights().gates[1], first)


def test_lineages_of_one_replicate_start_alike_but_draw_their_own_gates(make_module):
    module = make_module(PathReg(0.1), seeds=(3,)).train()
    assert torch.equal(module.field.weights[0][0], module.field.weights[0][1])
    gate = module.sample_weights().gates[1]
    assert not torch.equal(gate[0], gate[1])


def test_one_gate_sample_per_solve(problem, make_module, monkeypatch):
    module = make_module(PathReg(0.1)).train()
    drawn = []
    sample = module.sample_weights
    monkeypatch.setattr(module, "sample_weights", lambda: drawn.append(sample()) or drawn[-1])
    effective, _ = module(problem.tensors(9))
    assert len(drawn) == 1
    assert effective is drawn[0]


def test_gates_that_are_fixed_are_those_of_test_time_in_training(problem, make_module):
    module = make_module(PathReg(0.1)).train()
    module.fixed_gates = True
    effective, _ = module(problem.tensors(9))
    for found, expected in zip(effective.gates, module.field.effective_weights().gates, strict=True):
        assert torch.equal(found, expected)


def test_evaluation_draws_no_random_numbers(problem, make_module):
    module = make_module(PathReg(0.1), bootstrap=True).eval()
    tensors = problem.tensors(9)
    np.testing.assert_array_equal(errors(module, tensors), errors(module, tensors))
    assert torch.equal(bootstrapped_start(module, tensors), module.initial_state.unsqueeze(0))


@pytest.mark.parametrize("fields", ["lineage", "shared"])
def test_path_matrix_is_the_product_of_absolute_effective_weights(make_module, fields):
    module = shake(make_module(PathReg((0.1, 0.2)), (0, 1), fields), size=2.0)
    found = module.path_matrix().numpy()
    n_fields = 2 if fields == "lineage" else 1
    assert found.shape == (4, n_fields, 4, 4)
    weights = [w.detach().abs().numpy() for w in module.field.effective_weights().weights]
    for r in range(4):
        for f in range(n_fields):
            n = r * n_fields + f
            np.testing.assert_allclose(found[r, f], weights[2][n] @ weights[1][n] @ weights[0][n])


@pytest.mark.parametrize("fields", ["lineage", "shared"])
@pytest.mark.parametrize("regularizer", [PathReg((0.1, 0.2)), GroupLasso((0.1, 0.2))], ids=repr)
def test_path_matrices_and_sparsities_of_single_replicates(make_module, fields, regularizer, monkeypatch):
    """No more than one replicate is multiplied out at once: all of them can be far larger than the module."""
    module = shake(make_module(regularizer, (0, 1), fields), size=2.0)
    n_fields = 2 if fields == "lineage" else 1
    with torch.no_grad():
        for r, parameter in enumerate(module.field.weights[0].unflatten(0, (4, -1))):
            parameter[..., : r + 1] = 0.0
    together = module.path_matrix()
    effective = module.field.effective_weights()
    zero = torch.cat([(w == 0).view(4, -1) for w in effective.weights], 1)
    sizes, whole = [], Field.path_matrix
    monkeypatch.setattr(Field, "path_matrix", staticmethod(lambda own: [sizes.append(own.n_networks), whole(own)][1]))
    found = module.sparsity()
    for r in range(4):
        assert torch.equal(module.path_matrix(slice(r, r + 1))[0], together[r])
    assert set(sizes) == {n_fields}
    assert len(set(found[:, 0])) == 4
    np.testing.assert_array_equal(found[:, 0], (together == 0).double().mean((1, 2, 3)))
    np.testing.assert_array_equal(found[:, 1], zero.double().mean(1))


def test_prox_gets_the_share_of_each_network(make_module):
    class Recorder(CNODE):
        def prox(self, field, effective, strength, steps):
            self.found = strength, steps

    module = make_module(Recorder((0.2, 0.6)), seeds=(0, 1, 2), fields="lineage")
    steps = [torch.ones_like(w) for w in module.field.weights]
    module.prox(module.field.effective_weights(), steps)
    strength, passed = module.regularizer.found
    # The penalty of a replicate is the mean over its two lineages: half of the strength for each.
    np.testing.assert_allclose(strength, np.repeat([0.1, 0.3], 6), rtol=1e-6)
    assert passed is steps
    module.strength_share = 0.25
    module.prox(module.field.effective_weights(), steps)
    np.testing.assert_allclose(module.regularizer.found[0], np.repeat([0.025, 0.075], 6), rtol=1e-6)
    module.strength_share, module.regularizer.found = 0.0, None
    module.prox(module.field.effective_weights(), steps)
    assert module.regularizer.found is None  # the dense phase of a schedule takes no proximal steps


def test_state_dict_carries_what_was_derived_from_data(make_module):
    module = make_module(PathReg((0.1, 0.2)))
    other = make_module(PathReg((0.1, 0.2)))
    with torch.no_grad():
        for buffer in module.buffers():
            buffer += 1.0
        shake(module)
    other.load_state_dict(module.state_dict())
    for name in ("strength", "scale", "initial_state", "relative_span", "time_unit"):
        assert torch.equal(getattr(other, name), getattr(module, name))


@pytest.mark.parametrize(
    "regularizer",
    [CNODE([0.1, 0.2]), PathReg([0.1, 0.2], gates="weight"), GroupLasso([0.1, 0.2]), LassoNet([0.1, 0.2])],
    ids=lambda r: r.name,
)
def test_zeros_of_one_field_are_taken_over_in_all(make_module, regularizer):
    """Path matrices of every replicate are zero in both fields exactly where those of its single field are."""
    one = shake(make_module(regularizer, seeds=(0, 1), fields="shared", skip=True))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in one.field.weights:
            weight.mul_(torch.rand(weight.shape, generator=generator) < 0.4)
        for logits in one.field.gate_logits:
            logits.mul_(4.0)
    both = make_module(regularizer, seeds=(0, 1), fields="lineage", skip=True)
    before = [weight.detach().clone() for weight in both.field.weights]
    both.take_zeros(one)
    expected = one.path_matrix() == 0
    assert 0.05 < expected.double().mean() < 0.9
    torch.testing.assert_close(both.path_matrix() == 0, expected.expand(-1, 2, -1, -1))
    for weight, was in zip(both.field.weights, before, strict=True):
        assert torch.equal(weight, torch.where(weight == 0, torch.zeros_like(was), was))
    for own, given in zip(both.field.gate_logits, one.field.gate_logits, strict=True):
        own, given = own.unflatten(0, (4, 2, -1)), given.unflatten(0, (4, 1, -1))
        assert torch.equal(own, given.expand_as(own))


@pytest.mark.parametrize("fields", ["lineage", "shared"])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("skip", [None, "inner", "outer"])
def test_curves_that_solve_the_equation_have_no_collocation_error(make_module, fields, order, skip):
    """And those that gain something else have the weighted square of the difference."""
    regularizer = NoRegularizer() if skip is None else LassoNet((0.1, 0.2), skip=skip)
    module = shake(make_module(regularizer, (0, 1), fields, order=order)).eval()
    module.rate.fill_(1.7)
    knots = torch.linspace(0, 1, 7, dtype=torch.float64)
    with torch.no_grad():
        effective = module.field.effective_weights()
        states, gained = module.trajectories(effective, module.start(), module.relative_span, module.lineages, knots)
        generator = torch.Generator().manual_seed(0)
        difference, precision = torch.rand(2, *gained[..., -4:].shape, generator=generator, dtype=torch.float64)
        tensors = {"states": states, "derivatives": gained[..., -4:], "precision": precision}
        exact = module.collocation_error(effective, tensors)
        tensors["derivatives"] = tensors["derivatives"] + difference
        off = module.collocation_error(effective, tensors)
    torch.testing.assert_close(exact, torch.zeros_like(exact), rtol=0, atol=1e-12)
    torch.testing.assert_close(off, (precision * difference**2).sum((1, 2, 3)))


def test_a_solver_that_is_given_is_the_one_that_solves(make_module, tight):
    exact, rough = (shake(make_module(solver=solver)).eval() for solver in (tight, Solver("euler")))
    start = exact.initial_state.expand(1, -1, -1)
    times = torch.linspace(0, 1, 3, dtype=torch.float64)
    with torch.no_grad():
        found = [
            module.trajectories(module.field.effective_weights(), start, module.relative_span, [0, 1, 0], times, tight)
            for module in (exact, rough)
        ]
    torch.testing.assert_close(*(states for states, _ in found), rtol=0, atol=0)


@pytest.mark.parametrize("order", [1, 2])
def test_variables_that_are_not_free_stay_where_they_start(make_module, order):
    module = shake(make_module(order=order)).eval()
    start = module.initial_state.expand(1, -1, -1)
    free = torch.ones(start.shape[1:], dtype=torch.float64)
    free[1:, 1] = 0.0  # but in the first trajectory
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    with torch.no_grad():
        arguments = module.field.effective_weights(), start, module.relative_span, module.lineages, times
        states, slopes = module.trajectories(*arguments, free=free)
    held = states[:, 1:, :, 1]
    assert torch.equal(held, start[:, 1:, None, 1].expand_as(held))
    assert (slopes[:, 1:, :, 1 :: module.n_vars] == 0).all()
    assert (states[:, 0, -1, 1] != start[:, 0, 1]).all()
    assert ((states[:, :, -1] - states[:, :, 0]).abs().amax(1)[0, [0, 2, 3]] > 1e-3).all()


def test_beyond_the_reach_trajectories_follow_regulators_at_its_ends_and_their_own_decay(make_module):
    module = shake(make_module(fields="shared")).eval()
    low, high = -0.5 * torch.ones(1, 1, 4, dtype=torch.float64), 0.5 * torch.ones(1, 1, 4, dtype=torch.float64)
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    with torch.no_grad():
        effective, start = module.field.effective_weights(), 3.0 * module.initial_state.expand(1, -1, -1)
        arguments = effective, start, module.relative_span, module.lineages, times
        states, slopes = module.trajectories(*arguments, reach=(low, high))
        held = states.clamp(-0.5, 0.5)
        layers = module.field.evaluate(held.flatten(1, 2), effective).view_as(held) + module.field.decay * held
    expected = module.relative_span.view(1, 3, 1, 1) * (layers - module.field.decay * states)
    assert ((states - held).abs() > 0.1).any()
    torch.testing.assert_close(slopes, expected)


@pytest.mark.parametrize("regularizer", [L0((0.5, 2.0)), PathReg((0.5, 2.0)), CNODE((0.5, 2.0))], ids=lambda r: r.name)
def test_the_share_of_the_strength_in_force_scales_the_penalty(problem, make_module, regularizer):
    module, tensors = shake(make_module(regularizer)).eval(), problem.tensors(9)
    penalties, smooth = [], []
    with torch.no_grad():
        for share in (1.0, 0.25):
            module.strength_share = share
            output = module(tensors)[1]
            penalties.append(output.extra_metrics["penalty"])
            smooth.append(output.loss - output.extra_metrics["error"].sum())
    assert (penalties[0] > 0).all()
    torch.testing.assert_close(penalties[1], 0.25 * penalties[0])
    torch.testing.assert_close(smooth[1], 0.25 * smooth[0])


def test_trajectories_are_not_shrunk_by_the_penalty_on_squares_of_transport(problem, make_module):
    """It stays with the module when a transport fit is fine-tuned on its trajectories."""
    module, tensors = shake(make_module(CNODE(0.1))).eval(), problem.tensors(9)
    with torch.no_grad():
        before = module(tensors)[1]
        module.ridge = 0.7
        after = module(tensors)[1]
    assert torch.equal(after.loss, before.loss)
    assert torch.equal(after.extra_metrics["penalty"], before.extra_metrics["penalty"])


@pytest.mark.parametrize("skip", ["inner", "outer"])
@pytest.mark.parametrize("fields", ["shared", "lineage"])
def test_the_error_of_pairs_is_a_weighted_mean_against_numpy(make_module, skip, fields):
    """A skip of either kind adds to the slope; every pair is of the field of its lineage, and of the sample of its seed."""
    rng = np.random.default_rng(6)
    module = make_module(LassoNet([0.1, 0.2], skip=skip), seeds=(0, 1), fields=fields, hidden=(5,)).eval()
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in module.field.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    x, slope, weight = rng.normal(size=(30, 4)), rng.normal(size=(2, 30, 4)), rng.uniform(0.1, 3.0, (2, 30))
    lineage = rng.integers(0, 2, 30)
    tensors = {name: torch.as_tensor(a) for name, a in {"state": x, "slope": slope, "weight": weight}.items()}
    with torch.no_grad():
        found = module(tensors | {"lineage": torch.as_tensor(lineage)})[1].extra_metrics["error"].numpy()
    first, last, linear = (w.detach().numpy() for w in module.field.weights)
    below, above = (b.detach().numpy() for b in module.field.biases)
    decay = module.field.decay.detach().numpy()
    for replicate in range(4):
        expected = 0.0
        for i in range(30):
            n = replicate * module.n_fields + (lineage[i] if fields == "lineage" else 0)
            h = first[n] @ x[i] + below[n, 0]
            h = np.where(h > 0, h, np.expm1(np.minimum(h, 0.0)))
            field = last[n] @ h + above[n, 0] + linear[n] @ x[i] - decay[n, 0] * x[i]
            expected += weight[replicate % 2, i] * np.square(field - slope[replicate % 2, i]).mean()
        assert found[replicate] == pytest.approx(expected / weight[replicate % 2].sum(), rel=1e-9)
