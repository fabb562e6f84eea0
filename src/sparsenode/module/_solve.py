"""Integration with torchdiffeq."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchdiffeq import odeint

from sparsenode._errors import DivergenceError

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")
FIXED_STEP = ("euler", "midpoint", "heun3", "rk4")
_MAX_STEPS = 1000


@dataclass(frozen=True)
class Solver:
    """How to integrate: a torchdiffeq method and its tolerances, relative to the scale of the data."""

    method: str = "dopri5"
    rtol: float = 1e-3
    atol: float = 1e-3


def _largest_rms(y: torch.Tensor) -> torch.Tensor:
    """Error norm of the solver: root mean square over variables, the largest over networks and trajectories."""
    return y.square().mean(-1).sqrt().max()


# Dormand-Prince 5(4): weights of its seven stages at the end and in the middle of a step (Shampine 1986), and the
# fourth-order interpolant through both as polynomials of the stages, a row for each power from 1 to 4.
_END = np.array([35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0])
_MIDDLE = 0.5 * np.array(
    [
        6025192743 / 30085553152,
        0,
        51252292925 / 65400821598,
        -2691868925 / 45128329728,
        187940372067 / 1594534317056,
        -1776094331 / 19743644256,
        11237099 / 235043384,
    ]
)
_INTERPOLANT = (
    np.array([[1, 0, 0, 0, 0, 0, 0], [-4, 0, 0, 0, 0, 0, 1], [5, 0, 0, 0, 0, 0, -3], [-2, 0, 0, 0, 0, 0, 2]])
    + np.outer([0, -5, 14, -8], _END)
    + np.outer([0, 16, -32, 16], _MIDDLE)
)
# The first step, as a share of the time: most fitted trajectories need three steps. torchdiffeq's own guess costs an
# evaluation, starts with a tiny step, and lets gradients pass through the length of that step.
_FIRST_STEP = 0.3


class _Recorder:
    """Right-hand side for torchdiffeq that keeps the accepted steps of dopri5 for dense output."""

    def __init__(self, velocity: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.velocity = velocity
        self.steps: list[tuple[float, float, list[torch.Tensor]]] = []
        self._stages: list[torch.Tensor] = []

    def __call__(self, _: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Derivative."""
        self._stages.append(self.velocity(x))
        return self._stages[-1]

    def callback_step(self, *_: torch.Tensor) -> None:
        """A step begins, of which the first stage is known: after a rejected step the same one again."""
        self._stages = self._stages[:1]

    def callback_accept_step(self, time: torch.Tensor, state: torch.Tensor, length: torch.Tensor) -> None:
        """A step ends; its last stage is the first one of the next step."""
        self.steps.append((float(time), float(length), [state, *self._stages]))
        self._stages = self._stages[-1:]

    def states(self, times: torch.Tensor) -> torch.Tensor:
        """States at all times in one product, networks × trajectories × times × variables."""
        wanted = times.double().cpu().numpy()
        starts, lengths = np.array([step[:2] for step in self.steps]).T
        place = np.searchsorted(starts, wanted).clip(1) - 1
        u = (wanted - starts[place]) / lengths[place]
        matrix = np.zeros((len(wanted), len(starts), 8))
        rows = np.arange(len(wanted))
        matrix[rows, place, 0] = 1.0
        matrix[rows, place, 1:] = lengths[place, None] * (u[:, None] ** np.arange(1, 5) @ _INTERPOLANT)
        columns = torch.stack([column for *_, step in self.steps for column in step], 2)
        basis = torch.as_tensor(matrix.reshape(len(wanted), -1), dtype=columns.dtype, device=columns.device)
        return basis @ columns


def _step_ends(times: torch.Tensor) -> torch.Tensor:
    """Where steps are to end: at the times after the first, but for a shift that makes each step shorter than the one before.

    Where a step of the same length would end exactly at the next of these times, torchdiffeq forgets all that follow.
    """
    span = times[-1] - times[0]
    share = (times[1:] - times[0]) / span
    return times[1:] + torch.finfo(times.dtype).eps ** 0.5 * span * share * (1.0 - share)


def integrate(
    velocity: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, times: torch.Tensor, solver: Solver
) -> torch.Tensor:
    """Solve the autonomous system ``dx/dt = velocity(x)``.

    Parameters
    ----------
    velocity
        Maps states, networks × trajectories × variables, to derivatives of that shape.
    start
        State at ``times[0]``.
    times
        Strictly increasing.
    solver
        Method and tolerances.

    Returns
    -------
    States at ``times``, networks × trajectories × times × variables.

    Raises
    ------
    DivergenceError
        If the solution leaves the finite numbers or needs more than 1000 steps between two times.
    """
    options: dict[str, Any] = {}
    # With this one we interpolate ourselves, at all times at once.
    dense = solver.method == "dopri5"
    if solver.method in ADAPTIVE:
        options = {
            "dtype": torch.float64,
            "norm": _largest_rms,
            "max_num_steps": _MAX_STEPS,
            "first_step": _FIRST_STEP * float(times[-1] - times[0]),
        }
        # Between steps torchdiffeq interpolates, far less accurately than the tolerance says: steps end at all times.
        options |= {} if dense else {"step_t": _step_ends(times.to(options["dtype"]))}
    recorder = _Recorder(velocity)
    try:
        states = odeint(
            recorder if dense else lambda _, x: velocity(x),
            start,
            times[[0, -1]] if dense else times,
            rtol=solver.rtol,
            atol=solver.atol,
            method=solver.method,
            options=options,
        )
    except AssertionError as error:  # torchdiffeq's way to say: step too small, too many steps, not finite
        raise DivergenceError(f"The integration failed: {str(error)[:80]}.") from error
    states = recorder.states(times) if dense else states.permute(1, 2, 0, 3)
    if not torch.isfinite(states).all():
        raise DivergenceError("The integration failed: the solution is not finite.")
    return states
