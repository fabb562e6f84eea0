"""Starts and velocities of simulations that have names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sparsenode.model._simulation_arguments import given_starts, given_velocities

GENES, STARTS = pd.Index(["a", "b", "c"]), ["early", "late"]
VALUES = np.arange(6.0).reshape(2, 3)
TABLE = pd.DataFrame(VALUES, STARTS, GENES)


def test_columns_of_starts_and_velocities_are_matched_alike():
    """In the order of another AnnData, both are put into that of the model."""
    states, names = given_starts(TABLE[["c", "a", "b"]], GENES)
    np.testing.assert_array_equal(states, VALUES)
    assert names == STARTS
    np.testing.assert_array_equal(given_velocities(TABLE[["c", "a", "b"]], GENES, names), VALUES)
    np.testing.assert_array_equal(given_velocities(TABLE.loc["late", ["b", "c", "a"]], GENES, ["0"]), VALUES[1:])
    np.testing.assert_array_equal(given_velocities(TABLE.loc[["late"], ["b", "c", "a"]], GENES, ["0"]), VALUES[1:])


def test_arrays_are_in_the_order_of_the_model():
    np.testing.assert_array_equal(given_velocities(VALUES, GENES, STARTS), VALUES)
    np.testing.assert_array_equal(given_velocities([1, 2, 3], GENES, ["0"]), [[1.0, 2.0, 3.0]])


@pytest.mark.parametrize(
    ("v0", "message"),
    [
        (
            TABLE[::-1],
            r"index of `v0` to name the starts, \['early', 'late'\], in this order, found \['late', 'early'\]. Pass `v0",
        ),
        (TABLE.reset_index(drop=True), r"found \['0', '1'\]"),
        (TABLE[["a", "b"]], r"genes of the model as columns of `v0`.*missing are \['c'\]. Pass `v0.to_numpy\(\)`"),
        (TABLE[["a", "b", "c", "c"]], r"every gene once in `v0`, found \['c'\]"),
    ],
    ids=["order", "numbers", "missing", "twice"],
)
def test_velocities_that_cannot_be_matched(v0, message):
    with pytest.raises(ValueError, match=message):
        given_velocities(v0, GENES, STARTS)
