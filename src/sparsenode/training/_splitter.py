"""Which cells are held out, and loaders that hand every step the same full batch, or pairs that are drawn from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from scvi.dataloaders._data_splitting import validate_data_split
from torch.utils.data import DataLoader, Dataset, Sampler

_BY_SAMPLE = ("slope", "weight")  # tensors of pairs whose first axis is that of samples


def split_cells(
    n_cells: int, train_size: float, validation_size: float | None, shuffle: bool, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted indices of training, validation and test cells.

    Parameters
    ----------
    n_cells
        Number of cells.
    train_size, validation_size
        Shares in ``(0, 1]`` and ``[0, 1)``; without ``validation_size`` all other cells are held out for validation.
    shuffle
        Whether cells are drawn at random rather than taken in order.
    seed
        Seed of the draw.

    Raises
    ------
    ValueError
        If the shares are out of range or leave no training cells.
    """
    n_train, n_validation = validate_data_split(n_cells, train_size, validation_size)
    order = np.random.default_rng(seed).permutation(n_cells) if shuffle else np.arange(n_cells)
    return (
        np.sort(order[:n_train]),
        np.sort(order[n_train : n_train + n_validation]),
        np.sort(order[n_train + n_validation :]),
    )


def take_rows(tensors: dict[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Some of the pairs of a batch of coupled cells, by position or as a mask."""
    return {name: t[:, rows] if name in _BY_SAMPLE else t[rows] for name, t in tensors.items()}


class Batches(NamedTuple):
    """What a fit sees of the cells."""

    #: Full batch that steps are made on, or that minibatches are drawn from.
    training: dict[str, torch.Tensor]
    #: That of the held-out cells, if there are any.
    validation: dict[str, torch.Tensor] | None
    #: That of all training cells, where every seed trains on a sample of them; otherwise the first.
    full: dict[str, torch.Tensor]


class _Repeated(Dataset):
    """The same full batch, as often as there are steps in an epoch."""

    def __init__(self, tensors: dict[str, torch.Tensor], length: int) -> None:
        self.tensors = tensors
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, _: int) -> dict[str, torch.Tensor]:
        return self.tensors


class _Pairs(Dataset):
    """Coupled cells, from which a sampler takes many at once."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors["state"])

    def __getitem__(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        return take_rows(self.tensors, rows)


class _Draws(Sampler[torch.Tensor]):
    """Positions of the pairs of every step of an epoch, drawn with replacement; from epoch to epoch the draws go on."""

    def __init__(self, n_pairs: int, batch_size: int, n_steps: int, seed: int) -> None:
        self.n_pairs, self.batch_size, self.n_steps = n_pairs, batch_size, n_steps
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[torch.Tensor]:
        for _ in range(self.n_steps):
            yield torch.randint(self.n_pairs, (self.batch_size,), generator=self.generator)


class StatisticsSplitter(pl.LightningDataModule):
    """Loaders of full batches of training and held-out cells, or of minibatches of coupled cells, drawn with replacement.

    Parameters
    ----------
    batches
        Full batches.
    indices
        Training, validation and test cells.
    steps_per_epoch
        Optimisation steps in an epoch: a Lightning epoch costs milliseconds, a step not much more.
    batch_size
        Largest number of coupled cells in a step, of which more are drawn from; ``None`` for full batches.
    seed
        Seed of the draws.
    """

    def __init__(
        self,
        batches: Batches,
        indices: tuple[np.ndarray, np.ndarray, np.ndarray],
        steps_per_epoch: int,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.batches = batches
        self.train_idx, self.val_idx, self.test_idx = indices
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)
        # Torch takes no numpy integers.
        self.steps_per_epoch, self.batch_size = int(steps_per_epoch), None if batch_size is None else int(batch_size)
        self.seed = seed

    def train_dataloader(self) -> DataLoader:
        """The training batch, once per step, or minibatches of it."""
        training = self.batches.training
        if self.batch_size is None or len(training["state"]) <= self.batch_size:
            return _loader(_Repeated(training, self.steps_per_epoch))
        pairs = _Pairs(training)
        return _loader(pairs, _Draws(len(pairs), self.batch_size, self.steps_per_epoch, self.seed))

    def val_dataloader(self) -> DataLoader | list:
        """The held-out batch, once."""
        held_out = self.batches.validation
        return [] if held_out is None else _loader(_Repeated(held_out, 1))

    def release(self) -> None:
        """Empty the batches, which may be as large as the data: models keep their trainer, which refers to them."""
        for tensors in self.batches:
            if tensors is not None:
                tensors.clear()


def _loader(batches: Dataset, sampler: _Draws | None = None) -> DataLoader:
    """Loader that draws nothing from the global generator, as one without a generator of its own does."""
    return DataLoader(batches, batch_size=None, sampler=sampler, generator=torch.Generator())
