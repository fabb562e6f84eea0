"""Small batched products run slower on many threads than on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

# Below this many parameters the threads wait for one another longer than they compute, and many times longer where
# other processes share the cores; far above it, two share the work.
_LARGE = 1_000_000
_MAX_THREADS = 2


@contextmanager
def limited_threads(module: nn.Module) -> Iterator[None]:
    """Let torch use one thread for small modules and two for large ones, and restore its setting afterwards."""
    before, n_parameters = torch.get_num_threads(), sum(parameter.numel() for parameter in module.parameters())
    torch.set_num_threads(min(before, _MAX_THREADS if n_parameters >= _LARGE else 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)
