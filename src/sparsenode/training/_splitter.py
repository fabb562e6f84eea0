"""Which cells are held out, and loaders that hand the same statistics to every step."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import torch
from scvi.dataloaders._data_splitting import validate_data_split
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler

BY_SAMPLE = ("slope", "weight")  # tensors of pairs whose first axis is that of samples


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


class _Repeated(Dataset):
    """The same full batch, as often as there are steps in an epoch."""

    def __init__(self, tensors: dict[str, torch.Tensor], length: int) -> None:
        self.tensors = tensors
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, _: int) -> dict[str, torch.Tensor]:
        return self.tensors


class StatisticsSplitter(pl.LightningDataModule):
    """Loaders of the statistics of training and held-out cells.

    Parameters
    ----------
    train_tensors, validation_tensors
        Full batches; no validation tensors where no cell is held out.
    indices
        Training, validation and test cells.
    steps_per_epoch
        Optimisation steps in an epoch: a Lightning epoch costs milliseconds, a step not much more.
    full_tensors
        Full batch of all training cells, where every seed trains on a sample of them.
    """

    def __init__(
        self,
        train_tensors: dict[str, torch.Tensor],
        validation_tensors: dict[str, torch.Tensor] | None,
        indices: tuple[np.ndarray, np.ndarray, np.ndarray],
        steps_per_epoch: int,
        full_tensors: dict[str, torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.train_tensors = train_tensors
        self.validation_tensors = validation_tensors
        self.full_tensors = train_tensors if full_tensors is None else full_tensors
        self.train_idx, self.val_idx, self.test_idx = indices
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)
        self.steps_per_epoch = steps_per_epoch

    def train_dataloader(self) -> DataLoader:
        """The training statistics, once per step."""
        return self._loader(_Repeated(self.train_tensors, self.steps_per_epoch))

    def val_dataloader(self) -> DataLoader | list:
        """The held-out statistics, once."""
        if self.validation_tensors is None:
            return []
        return self._loader(_Repeated(self.validation_tensors, 1))

    @staticmethod
    def _loader(batches: Dataset, sampler: Sampler | None = None) -> DataLoader:
        # A loader without a generator of its own draws from the global one.
        return DataLoader(batches, batch_size=None, sampler=sampler, generator=torch.Generator())


class _Pairs(Dataset):
    """Coupled cells, from which a sampler takes many at once."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors["state"])

    def __getitem__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        index = torch.as_tensor(rows)
        return {name: t[:, index] if name in BY_SAMPLE else t[index] for name, t in self.tensors.items()}


class PairsSplitter(StatisticsSplitter):
    """Loaders of minibatches of coupled cells, drawn with replacement.

    Parameters
    ----------
    train_tensors, validation_tensors
        All pairs of the training and of the held-out cells.
    indices
        Training, validation and test cells.
    steps_per_epoch
        Minibatches in an epoch.
    batch_size
        Pairs in a minibatch.
    seed
        Seed of the draws.
    full_tensors
        As in :class:`StatisticsSplitter`.
    """

    def __init__(
        self,
        train_tensors: dict[str, torch.Tensor],
        validation_tensors: dict[str, torch.Tensor] | None,
        indices: tuple[np.ndarray, np.ndarray, np.ndarray],
        steps_per_epoch: int,
        batch_size: int,
        seed: int,
        full_tensors: dict[str, torch.Tensor] | None = None,
    ) -> None:
        super().__init__(train_tensors, validation_tensors, indices, steps_per_epoch, full_tensors)
        self.batch_size, self.seed = batch_size, seed

    def train_dataloader(self) -> DataLoader:
        """Minibatches of training pairs."""
        pairs = _Pairs(self.train_tensors)
        generator = torch.Generator().manual_seed(self.seed)
        n_draws = self.steps_per_epoch * self.batch_size
        draws = RandomSampler(pairs, replacement=True, num_samples=n_draws, generator=generator)
        return self._loader(pairs, BatchSampler(draws, self.batch_size, drop_last=False))
