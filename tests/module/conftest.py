"""Small fields, and a small problem whose cells are known one by one."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicHermiteSpline

from sparsenode import SparseNODE
from sparsenode.module import Field, SparseNODEModule
from sparsenode.module._solve import Solver
from sparsenode.regularizers import NoRegularizer

# Solves in float64 that are exact for all purposes of these tests.
TIGHT = Solver("dopri5", 1e-9, 1e-9)


@pytest.fixture(scope="session")
def tight() -> Solver:
    return TIGHT


@pytest.fixture(scope="session")
def default_knots() -> int:
    """What users get who do not choose ``n_knots``."""
    return inspect.signature(SparseNODE).parameters["n_knots"].default


@pytest.fixture(scope="session")
def make_field():
    """Field in float64 with random parameters; the logits are wide enough for gates that are exactly 0 or 1."""

    def make(n_vars=3, hidden=(4, 5), n_networks=2, gates=None, decay=True, seed=0, **architecture) -> Field:
        field = Field(n_vars, hidden, range(n_networks), gates, decay, **architecture).double()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in field.parameters():
                parameter.normal_(generator=generator)
            for logits in field.gate_logits:
                logits.mul_(4.0)
        return field

    return make


@pytest.fixture(
    scope="session",
    params=[
        {"skip": skip, "per_target": per_target, "inputs": inputs}
        for skip, per_target, inputs in product((None, "inner", "outer"), (False, True), (None, (2, 0)))
    ],
    ids=lambda a: f"{a['skip']}-{'per target' if a['per_target'] else 'joint'}-{a['inputs'] or 'all'}",
)
def architecture(request) -> dict:
    """Every combination of skip, networks per target and inputs, as arguments of a field."""
    return request.param


@dataclass(frozen=True)
class Problem:
    """Cells of three trajectories, two of them of one lineage."""

    lineages: tuple[int, ...]
    times: list[np.ndarray]
    weights: list[np.ndarray]
    x: list[np.ndarray]
    early: list[np.ndarray]
    initial_state: np.ndarray
    relative_span: np.ndarray

    @property
    def centre(self) -> np.ndarray:
        return np.stack([w @ x / w.sum() for w, x in zip(self.weights, self.x, strict=True)])

    @property
    def null(self) -> float:
        return sum(float(w @ ((x - c) ** 2).sum(1)) for w, x, c in zip(self.weights, self.x, self.centre, strict=True))

    def error(self, curves) -> float:
        """Share of the null error, given one array cells × variables per trajectory."""
        parts = [w @ ((x - curve) ** 2).sum(1) for w, x, curve in zip(self.weights, self.x, curves, strict=True)]
        return float(sum(parts)) / self.null

    def tensors(self, n_knots: int, dtype=torch.float64) -> dict[str, torch.Tensor]:
        """The full batch that :class:`SparseNODEModule` expects, from dense matrices."""
        knots, unit = np.linspace(0, 1, n_knots), np.eye(n_knots)
        values = CubicHermiteSpline(knots, unit, np.zeros_like(unit))
        slopes = CubicHermiteSpline(knots, np.zeros_like(unit), unit)
        gram, cross = [], []
        for t, w, x, centre in zip(self.times, self.weights, self.x, self.centre, strict=True):
            basis = np.hstack([values(t), slopes(t)])
            gram.append(basis.T @ (w[:, None] * basis))
            cross.append(basis.T @ (w[:, None] * (x - centre)))
        size = max(map(len, self.early))
        early = np.zeros((len(self.early), size, self.centre.shape[1]))
        mask = np.zeros(early.shape[:2])
        for m, x in enumerate(self.early):
            early[m, : len(x)] = x - x.mean(0)
            mask[m, : len(x)] = 1.0
        arrays = {
            "gram": np.stack(gram)[None],
            "cross": np.stack(cross)[None],
            "square": np.array([self.null]),
            "centre": self.centre,
            "early": early,
            "early_mask": mask,
        }
        return {name: torch.as_tensor(array, dtype=dtype) for name, array in arrays.items()}


def _curve(lineage: int, t: np.ndarray) -> np.ndarray:
    sign = 1 - 2 * lineage
    return np.column_stack([np.exp(-3 * t), sign * np.sin(2 * t), np.tanh(4 * t - 2), 1 + t**2])


@pytest.fixture(scope="session")
def problem() -> Problem:
    rng = np.random.default_rng(0)
    lineages = (0, 1, 0)
    times = [rng.uniform(0, 1, n) for n in (60, 45, 30)]
    times[0][:2] = 0.0, 1.0
    starts = np.stack([_curve(lineage, np.zeros(1))[0] for lineage in lineages])
    return Problem(
        lineages=lineages,
        times=times,
        weights=[rng.uniform(0.1, 2.0, len(t)) for t in times],
        x=[_curve(k, t) + 0.2 * rng.normal(size=(len(t), 4)) for k, t in zip(lineages, times, strict=True)],
        early=[start + 0.2 * rng.normal(size=(n, 4)) for n, start in zip((8, 5, 11), starts, strict=True)],
        initial_state=starts,
        relative_span=np.array([1.0, 0.8, 0.6]),
    )


@pytest.fixture(scope="session")
def make_module(problem, tight):
    """Module for the cells of ``problem``; float64 and a tight solver unless told otherwise."""

    def make(
        regularizer=None,
        seeds=(0,),
        fields="lineage",
        hidden=(6, 5),
        decay=True,
        bootstrap=False,
        n_knots=9,
        solver=tight,
        dtype=torch.float64,
        **options,
    ) -> SparseNODEModule:
        module = SparseNODEModule(
            n_vars=4,
            lineages=problem.lineages,
            n_lineages=2,
            regularizer=regularizer or NoRegularizer(),
            seeds=seeds,
            hidden=hidden,
            fields=fields,
            decay=decay,
            bootstrap=bootstrap,
            n_knots=n_knots,
            solver=solver,
            **options,
        )
        with torch.no_grad():
            module.initial_state.copy_(torch.as_tensor(problem.initial_state))
            module.relative_span.copy_(torch.as_tensor(problem.relative_span))
        return module.to(dtype)

    return make
