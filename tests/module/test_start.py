"""Where fields start from: regressions on smooth curves, against normal equations, and how they are calmed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparsenode.module import SparseNODEModule, _start
from sparsenode.module._diverging import diverging
from sparsenode.module._solve import Solver
from sparsenode.module._start import start_accelerations, start_linear
from sparsenode.regularizers import CNODE, LassoNet


def _curves(n_samples, order=1, seed=0):
    """States that are not centred, what is gained over each trajectory, and weights of the errors."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    return {
        "states": 2.0 + draw(n_samples, 3, 7, 4 * order),
        "derivatives": draw(n_samples, 3, 7, 4),
        "precision": draw(n_samples, 3, 7, 4).exp(),
    }


@pytest.mark.parametrize("fields", ["lineage", "shared"])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("decay", [False, True])
def test_the_linear_start_solves_the_normal_equations_of_each_seed_and_field(
    make_module, problem, fields, order, noise, decay
):
    """Errors of all variables at one time weigh the same; noise on the inputs is a ridge of its variance a point."""
    options = {"order": order, "start_noise": noise, "inputs": [0, 3], "decay": decay}
    module = make_module(CNODE([0.1, 0.2]), seeds=(0, 1), fields=fields, skip=True, **options)
    module.rate.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0]))
    curves = _curves(2, order)
    start_linear(module, curves)
    read = [0, 3] if order == 1 else [0, 3, 4, 7]
    for network in range(module.field.n_networks):
        replicate, field = divmod(network, module.n_fields)
        rows = [m for m, lineage in enumerate(problem.lineages) if module.n_fields == 1 or lineage == field]
        states, gained, precision = (curves[name][replicate % 2, rows].numpy() for name in curves)
        slopes = gained / (problem.relative_span[rows, None, None] * np.array([0.5, 1.0, 2.0, 3.0]))
        if decay:
            slopes = slopes + module.field.decay[network].detach().numpy() * states[..., -4:]
        x = np.concatenate([states[..., read], np.ones((*states.shape[:2], 1))], 2).reshape(-1, len(read) + 1)
        clock = problem.relative_span[rows, None, None] * np.array([0.5, 1.0, 2.0, 3.0])
        weight = (precision * clock**2).mean(2).reshape(-1, 1)  # of a slope
        gram = x.T @ (weight * x)
        ridge = 1e-4 * np.diag(gram).mean() + noise**2 * weight.sum()
        expected = np.linalg.solve(gram + ridge * np.eye(len(gram)), x.T @ (weight * slopes.reshape(-1, 4)))
        found = module.field.weights[-1][network].detach().numpy().T, module.field.biases[-1][network].detach().numpy()
        np.testing.assert_allclose(np.vstack(found), expected, rtol=1e-4, atol=1e-5)


def test_a_skip_after_the_integration_has_no_linear_start(make_module):
    module = make_module(LassoNet(0.1, skip="outer"))
    before = [parameter.detach().clone() for parameter in module.parameters()]
    start_linear(module, _curves(1))
    assert all(torch.equal(found, was) for found, was in zip(module.parameters(), before, strict=True))


def test_noise_of_the_warm_start_is_that_of_each_seed(make_module, monkeypatch):
    monkeypatch.setattr(_start, "_WARM_UP_STEPS", 5)
    curves = _curves(1, 2)

    def start(seeds, noise):
        module = make_module(seeds=seeds, order=2, start_noise=noise, fields="shared")
        start_accelerations(module, curves)
        return [parameter.detach() for parameter in module.field.parameters()]

    together, still = start((0, 3), 0.5), start((0, 3), 0.0)
    for replicate, seed in enumerate((0, 3)):
        for found, expected in zip(together, start((seed,), 0.5), strict=True):
            torch.testing.assert_close(found[replicate], expected[0], rtol=1e-6, atol=1e-9)
    gaps = [(found - quiet).abs().amax((1, 2)) for found, quiet in zip(together, still, strict=True)]
    assert (torch.stack(gaps).amax(0) > 1e-3).all()


@pytest.mark.parametrize("skip", [False, True])
def test_a_field_is_calmed_as_a_whole_by_halves(make_module, skip):
    """Values, without the damping, are those of before by a power of two, the smallest that keeps trajectories near."""
    module = make_module(seeds=(0, 1), order=2, hidden=(5,), fields="shared", skip=skip, solver=Solver("rk4"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.field.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        for parameter in (*module.field.weights[1:], module.field.biases[-1]):
            parameter[0] *= 2000.0
    x = torch.randn(2, 6, 8, generator=generator, dtype=torch.float64)

    def values():
        with torch.no_grad():
            return module.field.evaluate(x, module.field.effective_weights()) + module.field.decay * x[..., 4:]

    before = values()
    assert diverging(module) == [0]
    _start._calm(module)
    assert diverging(module) == []
    halvings = torch.log2(before[0] / values()[0])
    torch.testing.assert_close(halvings, halvings.mean().round().expand_as(halvings))
    assert halvings.mean() > 2.5
    assert torch.equal(values()[1], before[1])
    with torch.no_grad():
        for parameter in (*module.field.weights[1:], module.field.biases[-1]):
            parameter[0] *= 2.0
    assert diverging(module) == [0]


@pytest.mark.parametrize("field", [0, 1])
def test_lineages_of_a_replicate_are_calmed_together(make_module, field):
    """Whichever of them flies off; fields of other replicates stay as they are."""
    module = make_module(seeds=(0, 1), order=2, hidden=(5,), fields="lineage", solver=Solver("rk4"))
    generator = torch.Generator().manual_seed(0)
    last = (*module.field.weights[1:], module.field.biases[-1])
    with torch.no_grad():
        for parameter in module.field.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        for parameter in last:
            parameter[2 + field] *= 2000.0  # the first two networks are those of the other replicate
    before = [parameter.detach().clone() for parameter in last]
    assert diverging(module) == [1]
    _start._calm(module)
    assert diverging(module) == []
    for found, was in zip(last, before, strict=True):
        assert torch.equal(found[:2], was[:2])
        ratio = torch.log2(was[2:] / found.detach()[2:])
        torch.testing.assert_close(ratio, ratio.mean().round().expand_as(ratio))
        assert ratio.mean() > 0.5


def test_the_linear_start_of_a_lineage_knows_no_trajectories_but_its_own():
    """Whatever their number: here three of one lineage, and two of the other, which are no more than they were alone."""
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    curves = {"states": draw(1, 5, 7, 4), "derivatives": draw(1, 5, 7, 4), "precision": draw(1, 5, 7, 4).exp()}
    lineages, spans = torch.tensor([0, 1, 0, 0, 1]), torch.tensor([1.0, 0.8, 0.6, 1.2, 0.5])

    def started(chosen: torch.Tensor, n_lineages: int) -> SparseNODEModule:
        own = [int(lineage) if n_lineages > 1 else 0 for lineage in lineages[chosen]]
        module = SparseNODEModule(
            4, own, n_lineages, CNODE(0.1), [0], (5,), "lineage", True, False, 7, Solver(), skip=True
        ).double()
        with torch.no_grad():
            module.relative_span.copy_(spans[chosen])
            start_linear(module, {name: values[:, chosen] for name, values in curves.items()})
        return module

    both = started(torch.arange(5), 2)
    for lineage in (0, 1):
        alone = started(torch.nonzero(lineages == lineage)[:, 0], 1)
        torch.testing.assert_close(both.field.weights[-1][lineage], alone.field.weights[-1][0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(both.field.biases[-1][lineage], alone.field.biases[-1][0], rtol=1e-5, atol=1e-6)
