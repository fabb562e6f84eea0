from __future__ import annotations

import pytest
import torch

from sparsenode.training._threads import limited_threads


@pytest.fixture(params=[1, 2, 4])
def before(request):
    original = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(original)


@pytest.mark.parametrize(("width", "most"), [(30, 1), (3_000, 2)])
def test_threads_are_limited_and_restored(before, width, most):
    with limited_threads(torch.nn.Linear(width, width)):
        assert torch.get_num_threads() == min(before, most)
    assert torch.get_num_threads() == before


def test_threads_are_restored_after_an_error(before):
    with pytest.raises(RuntimeError, match="stop"), limited_threads(torch.nn.Linear(1, 1)):
        raise RuntimeError("stop")
    assert torch.get_num_threads() == before
