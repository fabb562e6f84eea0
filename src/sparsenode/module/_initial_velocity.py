"""The network that gives initial velocities of second-order dynamics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

_WIDTH = 20
# Ridges of the linear fit that training starts from, per squared deviation of a variable: the one with the smallest
# leave-one-out error is taken, the largest of those alike. For two trajectories all are.
_RIDGES = 10.0 ** torch.arange(2.0, -9.0, -1.0, dtype=torch.float64)
_TIE = 1e-6  # relative difference of errors that may be rounding


class InitialVelocity(nn.Module):
    r"""Batch of small networks :math:`v(0) = g(x(0))`, one for every network of the field.

    .. math:: g(x) = b + \frac{1}{d} L z + \frac{1}{h} V \phi(d^{-1/2} U z + c), \qquad z = (x - m) / s

    with ELU, :math:`h = 20` hidden units, and centre :math:`m` and spread :math:`s` of the initial states of each field. The
    divisors make a step of Adam change velocities alike for any number of variables. :math:`V` starts at zero, and
    :math:`b` and :math:`L` at a ridge regression of observed initial slopes, so a fit does not start at rest; its strength is
    chosen by leave-one-out cross-validation, which for two trajectories says nothing: they start all but at their mean. With one
    trajectory all :math:`z` are zero, and :math:`g` is constant.

    Parameters
    ----------
    n_vars
        Number of variables, d.
    seeds
        One seed per network.
    n_fields
        Number of fields; those of one replicate follow one another on the leading axis.
    """

    def __init__(self, n_vars: int, seeds: Sequence[int], n_fields: int) -> None:
        super().__init__()
        n = len(seeds)
        self.bias = nn.Parameter(torch.zeros(n, 1, n_vars))
        self.linear = nn.Parameter(torch.zeros(n, n_vars, n_vars))
        self.hidden = nn.Parameter(torch.zeros(n, _WIDTH, n_vars))
        self.hidden_bias = nn.Parameter(torch.zeros(n, 1, _WIDTH))
        self.output = nn.Parameter(torch.zeros(n, n_vars, _WIDTH))
        self.register_buffer("centre", torch.zeros(n_fields, 1, n_vars))
        self.register_buffer("spread", torch.ones(n_fields, 1, 1))
        with torch.no_grad():
            for own, seed in zip(self.hidden, seeds, strict=True):
                own.normal_(generator=torch.Generator().manual_seed(int(seed)))

    # Registered buffers, declared for type checkers.
    centre: torch.Tensor
    spread: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Initial velocities for initial positions, both networks × trajectories × variables."""
        repeats = len(x) // len(self.centre)
        z = (x - self.centre.repeat(repeats, 1, 1)) / self.spread.repeat(repeats, 1, 1)
        n_vars = x.shape[2]
        h = functional.elu(torch.baddbmm(self.hidden_bias, z / math.sqrt(n_vars), self.hidden.mT))
        return self.bias + torch.bmm(z, self.linear.mT) / n_vars + torch.bmm(h, self.output.mT) / _WIDTH

    @torch.no_grad()
    def start_from(self, starts: torch.Tensor, slopes: torch.Tensor, fields: Sequence[int]) -> None:
        """Set centre and spread, and start from a ridge regression of slopes on initial positions.

        Parameters
        ----------
        starts, slopes
            Initial positions and velocities, trajectories × variables.
        fields
            Field of each trajectory.
        """
        n_fields = len(self.centre)
        for field in range(n_fields):
            own = [m for m, of in enumerate(fields) if of == field]
            x, v = starts[own].double(), slopes[own].double()
            deviation = x - x.mean(0)
            spread = float(deviation.square().mean().sqrt())
            z = deviation / (spread if spread > 0 else 1.0)
            slope = _ridge(z, v - v.mean(0))
            self.centre[field, 0] = x.mean(0)
            self.spread[field] = spread if spread > 0 else 1.0
            self.bias[field::n_fields, 0] = v.mean(0).to(self.bias)
            self.linear[field::n_fields] = (slope * x.shape[1]).to(self.linear)


def _ridge(z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Ridge regression of centred outputs on centred inputs with the strength of the smallest leave-one-out error.

    Parameters
    ----------
    z, v
        Centred inputs and outputs, trajectories × variables.

    Returns
    -------
    Outputs × inputs.
    """
    n, n_vars = z.shape
    # The constant direction is the intercept's: moved away from zero, it leaves the outputs, which are centred, as they are.
    gram = z @ z.T + n_vars
    best, slope = float("inf"), v.new_zeros(v.shape[1], n_vars)
    for ridge in (n_vars * _RIDGES).tolist():
        inverse = torch.linalg.inv(gram + ridge * torch.eye(n, dtype=z.dtype, device=z.device))
        # Errors without a trajectory are those with it over one minus its leverage. Both vanish with the ridge where there are
        # fewer trajectories than variables, so both are divided by it.
        weights = inverse @ v
        left = inverse.diagonal() - 1.0 / (n * (n * n_vars + ridge))
        error = float((weights / left[:, None]).square().sum())
        if error < (1.0 - _TIE) * best:
            best, slope = error, weights.T @ z
    return slope
