"""Weights of edges; what users get of them is tested with the network."""

from __future__ import annotations

import numpy as np
import pytest

import sparsenode as sn
from sparsenode.model._edges import _balance


def test_a_self_edge_is_in_its_own_norm_alone():
    balanced = _balance(np.array([[3.0, 4.0], [0.0, 2.0]]))
    np.testing.assert_allclose(balanced, [[3.0 / np.sqrt(5.0), 4.0 / np.sqrt(4.0)], [0.0, 2.0 / np.sqrt(2.0)]])


@pytest.mark.parametrize("weights", ["paths", "jacobian", "effect"])
def test_trajectories_that_are_passed_are_not_integrated_again(fitted, monkeypatch, weights):
    expected = fitted.get_adjacency("myeloid", weights=weights).to_numpy()
    trajectories = fitted._integrate(None)
    monkeypatch.setattr(sn.SparseNODE, "_integrate_all", None)
    found = fitted._edges("myeloid", True, None, weights, None, trajectories)
    np.testing.assert_array_equal(found, expected)
