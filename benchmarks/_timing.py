"""Timing of real training steps; imports sparsenode, so it is kept apart from what needs to stay light."""

from __future__ import annotations

import logging
import time
import warnings

import scvi
import torch

from sparsenode.training import TrainingPlan


class TimedPlan(TrainingPlan):
    """The training plan, timed."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.seconds: list[float] = []

    def optimizer_step(self, *args, **kwargs) -> None:
        """Forward, backward, clipping, AdamW and proximal step: all of it happens in here."""
        start = time.perf_counter()
        super().optimizer_step(*args, **kwargs)
        self.seconds.append(time.perf_counter() - start)


def quiet() -> None:
    """No advice from Lightning and scvi-tools."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    scvi.settings.verbosity = logging.ERROR
    warnings.filterwarnings("ignore", module="lightning")


def silence(threads: int = 1) -> None:
    """No advice and no warnings from anything, for scripts that print a table of many fits; and the threads they use."""
    quiet()
    logging.getLogger("sparsenode").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
