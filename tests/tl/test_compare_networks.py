"""Networks beside each other: the scores of each, and a warning where the first is no better."""

from __future__ import annotations

import warnings

import pandas as pd
import pytest

import sparsenode as sn


def table(*edges: tuple) -> pd.DataFrame:
    return pd.DataFrame(edges, columns=["source", "target", "weight"])


# Genes a, b, c: six candidates, two of them true.
REFERENCE = table(("a", "b", 1.0), ("b", "c", -1.0))
RIGHT = table(("a", "b", 0.9), ("b", "c", -0.8), ("c", "a", 0.1))
HALF = table(("a", "b", 0.9), ("c", "a", 0.8), ("b", "c", -0.1))
WRONG = table(("c", "a", 0.9), ("c", "b", 0.8))


@pytest.mark.parametrize("regulators", [None, ["a", "b"]])
def test_rows_are_the_scores_of_each_network(regulators):
    networks = {"right": RIGHT, "wrong": WRONG, "none": table()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the first is better than the others
        found = sn.tl.compare_networks(networks, REFERENCE, regulators)
    assert list(found.index) == list(networks)
    for name, network in networks.items():
        alone = sn.tl.evaluate_network(network, REFERENCE, regulators)
        pd.testing.assert_series_equal(found.loc[name], alone, check_names=False)
    assert found[["n_true", "n_candidates"]].dtypes.eq("int64").all()


def test_a_network_that_loses_says_so():
    with pytest.warns(UserWarning, match="ours") as said:
        found = sn.tl.compare_networks({"ours": HALF, "wrong": WRONG, "right": RIGHT}, REFERENCE)
    (warning,) = said
    own, best = found.loc[["ours", "right"], "average_precision_ratio"]
    assert f"ours ranks the edges of `reference` no better than right {best:.2f} (" in str(warning.message)
    assert f"its own is {own:.2f}" in str(warning.message)
    assert "wrong" not in str(warning.message)
    assert warning.filename == __file__


def test_a_tie_is_no_better():
    with pytest.warns(UserWarning, match=r"ours ranks .* no better than right 3\.00, same 3\.00"):
        sn.tl.compare_networks({"ours": RIGHT, "right": RIGHT, "same": RIGHT[::-1]}, REFERENCE)


def test_short_lists_are_compared_fairly():
    """By the trapezoid rule one true edge alone would beat a good ranking of all pairs."""
    short, dense = table(("a", "b", 1.0)), table(("b", "c", 1.0), ("c", "b", 0.9), ("a", "b", 0.8), ("a", "c", 0.1))
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        found = sn.tl.compare_networks({"dense": dense, "short": short}, REFERENCE)
    assert found.loc["short", "auprc"] > found.loc["dense", "auprc"]
    assert found.loc["short", "average_precision_ratio"] < found.loc["dense", "average_precision_ratio"]


def test_messages_name_the_network():
    with pytest.raises(KeyError, match=r"`networks\['other'\]`, \['weight'\] not found"):
        sn.tl.compare_networks({"right": RIGHT, "other": RIGHT.drop(columns="weight")}, REFERENCE)
    with pytest.raises(ValueError, match=r"genes of `networks\['other'\]` in `reference`"):
        sn.tl.compare_networks({"right": RIGHT, "other": table(("x", "y", 1.0))}, REFERENCE)
    more = pd.concat([REFERENCE, table(("d", "e", 1.0))])
    with pytest.warns(UserWarning, match=r"3 of the 5 genes .* not in `networks\['few'\]`") as said:
        sn.tl.compare_networks({"right": RIGHT, "few": table(("a", "b", 1.0))}, more)
    assert {warning.filename for warning in said} == {__file__}


def test_what_is_no_mapping_of_networks():
    with pytest.raises(TypeError, match=r"tables by name, such as .* found DataFrame"):
        sn.tl.compare_networks(RIGHT, REFERENCE)
    with pytest.raises(ValueError, match="in `networks`, found none"):
        sn.tl.compare_networks({}, REFERENCE)


def test_one_network_is_compared_with_none():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(sn.tl.compare_networks({"ours": WRONG}, REFERENCE)) == 1


def test_regulators_that_can_be_read_once():
    networks = {"right": RIGHT, "wrong": WRONG}
    found = sn.tl.compare_networks(networks, REFERENCE, (name for name in "ab"), targets=iter("bc"))
    pd.testing.assert_frame_equal(found, sn.tl.compare_networks(networks, REFERENCE, ["a", "b"], targets=["b", "c"]))


def test_candidates_are_those_of_each_network_alone():
    networks, only = {"right": RIGHT, "half": HALF}, {"targets": ["b", "c"], "exclude": WRONG}
    found = sn.tl.compare_networks(networks, REFERENCE, **only)
    for name, network in networks.items():
        alone = sn.tl.evaluate_network(network, REFERENCE, **only)
        pd.testing.assert_series_equal(found.loc[name], alone, check_names=False)
    assert (found["n_candidates"] == 3).all()  # a→b, a→c and b→c
