"""Replicates that diverge in training: the states they go back to, and how much slower each goes on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from sparsenode.module import SparseNODEModule

MOST = 3  # how often a replicate goes back
_SLOWER = 1 / 3  # steps after a setback, as a share of those before
_MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam


class Setbacks:
    """States from which replicates did not diverge, and how often each has gone back to its own.

    Parameters
    ----------
    module
        Module in training. The first axis of each of its parameters is that of the replicates, or of their networks.
    """

    def __init__(self, module: SparseNODEModule) -> None:
        self._module = module
        #: How often every replicate has gone back.
        self.counts = torch.zeros(module.n_replicates, dtype=torch.int64)
        #: Loss of the state that is kept of every replicate.
        self.losses = torch.empty(module.n_replicates, device=module.device)
        self.forget_losses()
        # Of every parameter its value and the moments of Adam, which are zero before the first step.
        self._kept = [[p.detach().clone(), *(torch.zeros_like(p) for _ in _MOMENTS)] for p in module.parameters()]
        self._before: list[torch.Tensor] = []

    def forget_losses(self) -> None:
        """Let the next states be kept, whatever their losses."""
        self.losses.fill_(float("inf"))

    @torch.no_grad()
    def keep(self, losses: torch.Tensor, optimizer: torch.optim.Optimizer | None) -> None:
        """Keep the state of every replicate whose loss is not above that of the state that is kept."""
        better = losses <= self.losses
        self.losses = torch.where(better, losses, self.losses)
        for value, kept in self._pairs(optimizer):
            kept[better] = value[better]

    @torch.no_grad()
    def go_back(self, replicates: list[int], optimizer: torch.optim.Optimizer) -> None:
        """Put the states of some replicates back, and the moments of Adam; their steps are shorter from now on."""
        self.counts[replicates] += 1
        for value, kept in self._pairs(optimizer):
            value[replicates] = kept[replicates]

    @torch.no_grad()
    def put_back(self) -> None:
        """Put the states of all replicates back."""
        for parameter, kept in zip(self._module.parameters(), self._kept, strict=True):
            parameter.copy_(kept[0])

    @property
    def shares(self) -> torch.Tensor:
        """Length of the steps of every replicate, as a share of those planned."""
        return _SLOWER ** self.counts.double()

    @torch.no_grad()
    def begin_step(self) -> None:
        """Remember where a step of the optimiser begins, if it is to be shortened."""
        slow = bool(self.counts.any())
        self._before = [p.detach().clone() for p in self._module.parameters()] if slow else []

    @torch.no_grad()
    def shorten_step(self) -> None:
        """Shorten the step of the replicates that have gone back; those of the others stay as they are, bit for bit."""
        slow = self.counts.nonzero()[:, 0].tolist()
        shares = self.shares[slow].tolist()
        for parameter, before in zip(self._module.parameters(), self._before, strict=False):
            value, start = (self._module.split_replicates(tensor) for tensor in (parameter, before))
            for replicate, share in zip(slow, shares, strict=True):
                value[replicate] = torch.lerp(start[replicate], value[replicate], share)

    def _pairs(self, optimizer: torch.optim.Optimizer | None) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """Parameters and their moments, and what is kept of them, by replicate."""
        for parameter, kept in zip(self._module.parameters(), self._kept, strict=True):
            state = {} if optimizer is None else optimizer.state.get(parameter, {})
            values = [parameter, *(state[name] for name in _MOMENTS if name in state)]
            split = self._module.split_replicates
            yield from ((split(v), split(k)) for v, k in zip(values, kept, strict=False))
