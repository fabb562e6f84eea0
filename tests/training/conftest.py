"""A module small enough to be trained within a fraction of a second."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from sparsenode.module import SparseNODEModule
from sparsenode.module._solve import Solver
from sparsenode.objectives._hermite import hermite_basis
from sparsenode.regularizers import PathReg
from sparsenode.training import TrainingPlan
from sparsenode.training._splitter import Batches, StatisticsSplitter

N_KNOTS = 5


def _tensors(seed: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    t = rng.uniform(0, 1, 50)
    x = np.column_stack([np.exp(-3 * t), np.sin(3 * t), t**2]) + 0.05 * rng.normal(size=(50, 3))
    x -= [0.3, 0.5, 0.3]
    basis = hermite_basis(t, N_KNOTS).toarray()
    early = 0.05 * rng.normal(size=(1, 6, 3))
    arrays = {
        "gram": (basis.T @ basis)[None, None],
        "cross": (basis.T @ x)[None, None],
        "square": np.array([(x**2).sum()]),
        "centre": np.array([[0.3, 0.5, 0.3]]),
        "early": early - early.mean(1, keepdims=True),
        "early_mask": np.ones((1, 6)),
    }
    return {name: torch.as_tensor(array, dtype=torch.float32) for name, array in arrays.items()}


@pytest.fixture(scope="session")
def batch() -> dict[str, torch.Tensor]:
    return _tensors(0)


@pytest.fixture(scope="session")
def held_out() -> dict[str, torch.Tensor]:
    return _tensors(1)


@pytest.fixture(scope="session")
def make_module():
    def make(regularizer=None, seeds=(0, 1), hidden=(5,)) -> SparseNODEModule:
        module = SparseNODEModule(
            n_vars=3,
            lineages=[0],
            n_lineages=1,
            regularizer=regularizer or PathReg(0.1),
            seeds=seeds,
            hidden=hidden,
            fields="shared",
            decay=True,
            bootstrap=True,
            n_knots=N_KNOTS,
            solver=Solver(),
        )
        module.initial_state.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
        return module

    return make


@pytest.fixture(scope="session")
def fit(batch, held_out):
    """Train a plan with Lightning alone: no logger, no files, no progress bar."""

    def run(
        plan: TrainingPlan, max_epochs=3, steps_per_epoch=4, validation=held_out, callbacks=(), **kwargs
    ) -> pl.Trainer:
        indices = (np.arange(40), np.arange(40, 50), np.arange(0))
        splitter = StatisticsSplitter(Batches(batch, validation, batch), indices, steps_per_epoch)
        trainer = pl.Trainer(
            max_epochs=max_epochs,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=list(callbacks),
            **kwargs,
        )
        trainer.fit(plan, datamodule=splitter)
        return trainer

    return run
