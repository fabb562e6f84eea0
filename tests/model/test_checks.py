from __future__ import annotations

import numpy as np
import pytest

from sparsenode.model import _checks


def test_choice_lists_the_valid_values():
    _checks.choice("fields", "shared", ("shared", "lineage"))
    with pytest.raises(ValueError, match=r"`fields` to be one of \['shared', 'lineage'\], found 'lineages'"):
        _checks.choice("fields", "lineages", ("shared", "lineage"))


@pytest.mark.parametrize("value", [2, np.int64(3)])
def test_at_least_accepts(value):
    _checks.at_least("n_seeds", value, 2)


@pytest.mark.parametrize("value", [1, 2.0, "2", None, True, np.nan, [2]], ids=repr)
def test_at_least_refuses(value):
    with pytest.raises(ValueError, match="`n_seeds` to be an integer of at least 2, found"):
        _checks.at_least("n_seeds", value, 2)


@pytest.mark.parametrize("value", [1, 1e-9, np.float64(0.5), np.float32(0.5)], ids=repr)
def test_positive_accepts(value):
    _checks.positive("rtol", value)


@pytest.mark.parametrize("value", [0, -1.0, np.inf, np.nan, "1", None, True], ids=repr)
def test_positive_refuses(value):
    with pytest.raises(ValueError, match="`rtol` to be a positive number, found"):
        _checks.positive("rtol", value)


@pytest.mark.parametrize("value", [(1,), [20, 20], (np.int64(4), 4)], ids=repr)
def test_positive_integers_accepts(value):
    _checks.positive_integers("hidden", value)


@pytest.mark.parametrize("value", [(), 100, "100", (0,), (8, -8), (8.0, 8), None, ("8",)], ids=repr)
def test_positive_integers_refuses(value):
    with pytest.raises(ValueError, match=r"`hidden` to be a sequence of positive integers such as \(100, 100\), found"):
        _checks.positive_integers("hidden", value)
