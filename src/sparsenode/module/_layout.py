"""How trajectories are spread over the batch of networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Layout:
    """Trajectories arranged as fields × places, so that one batched product serves every lineage.

    Parameters
    ----------
    grid
        Trajectory at each place of each field, shape fields × places. Unused places repeat the field's first one, or that of all.
    place
        Position of each trajectory in the flattened grid.
    """

    grid: torch.Tensor
    place: torch.Tensor

    @classmethod
    def of(cls, fields: Sequence[int], n_fields: int) -> Layout:
        """Layout for trajectories whose field index is given."""
        rows = [[i for i, f in enumerate(fields) if f == field] or [0] for field in range(n_fields)]
        width = max(len(row) for row in rows)
        place = torch.tensor([f * width + rows[f].index(i) for i, f in enumerate(fields)])
        return cls(torch.tensor([row + row[:1] * (width - len(row)) for row in rows]), place)

    def to(self, device: torch.device) -> Layout:
        """The same layout on another device."""
        return Layout(self.grid.to(device), self.place.to(device))

    @property
    def used(self) -> torch.Tensor:
        """One where a place is that of a trajectory, zero where it repeats another: fields × places."""
        return torch.zeros_like(self.grid).flatten().index_fill(0, self.place, 1).view_as(self.grid)

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """Replicates × trajectories × … to networks × places × …."""
        return x[:, self.grid].flatten(0, 1)

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """Networks × places × … back to replicates × trajectories × …."""
        return x.unflatten(0, (-1, self.grid.shape[0])).flatten(1, 2)[:, self.place]
