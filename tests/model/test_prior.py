"""Prior edges through the model."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pandas as pd
import pytest

import sparsenode as sn
from sparsenode._input._regulators import prior_weight_matrix
from sparsenode.regularizers import CNODE, GroupLasso

GENES = pd.Index(["a", "b", "c"], dtype=object)
QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "key_added": None}


@pytest.fixture(scope="module")
def cells():
    adata = sn.datasets.krumsiek11()
    sn.SparseNODE.setup_anndata(adata, time_key="simulation_time", lineage_key="lineage")
    return adata


def test_weights_by_hand(caplog):
    prior = pd.DataFrame({"source": list("aaabx"), "target": list("bbbaa"), "weight": [0.5, 1.0, 0.3, 0.2, 1.0]})
    with caplog.at_level(logging.INFO, logger="sparsenode"):
        soft = prior_weight_matrix(prior, False, GENES)
    assert "4 of 5 prior edges are between genes of the model; not used are 1, such as x → a." in caplog.text
    np.testing.assert_allclose(soft, [[1, 0.82, 1], [0.1, 1, 1], [1, 1, 1]])
    hard = prior_weight_matrix(prior, True, GENES).to_numpy()
    assert (hard > 1e6).tolist() == [[False, False, True], [False, False, True], [True, True, False]]


def test_an_edge_of_no_confidence_costs_as_much_as_any_other():
    """And is forbidden by a hard prior."""
    prior = pd.DataFrame({"source": ["a", "b"], "target": ["b", "c"], "weight": [0.0, 1.0]})
    np.testing.assert_allclose(prior_weight_matrix(prior, False, GENES), [[1, 1, 1], [1, 1, 1], [1, 0.1, 1]])
    assert prior_weight_matrix(prior, True, GENES).loc["b", "a"] > 1e6


def test_names_that_are_numbers():
    prior = pd.DataFrame({"source": [7, 9], "target": [9, 12]})
    found = prior_weight_matrix(prior, False, pd.Index(["7", "9"], dtype=object))
    np.testing.assert_allclose(found, [[1, 1], [0.1, 1]])


def test_edges_of_other_genes_count_for_nothing():
    """Nor are they said to lack a regulator."""
    prior = pd.DataFrame({"source": ["a", "x", "a"], "target": ["b", "c", "y"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = prior_weight_matrix(prior, False, GENES, regulators=[0])
    np.testing.assert_allclose(found, [[1, 1, 1], [0.1, 1, 1], [1, 1, 1]])


def test_self_edges_of_a_hard_prior_cost_less_by_their_weight():
    prior = pd.DataFrame({"source": ["a"], "target": ["a"], "weight": [0.5]})
    np.testing.assert_allclose(np.diag(prior_weight_matrix(prior, True, GENES)), [0.55, 1, 1])


@pytest.mark.parametrize(
    ("prior", "error", "message"),
    [
        ([("a", "b")], TypeError, "found list"),
        (
            pd.DataFrame({"source": ["a", None], "target": ["b", "c"]}),
            ValueError,
            "every row of the column 'source' of `prior`, found none in row 1 and 1 such rows",
        ),
        (pd.DataFrame({"source": ["a"]}), KeyError, "'target'.*not found"),
        (
            pd.DataFrame({"source": ["a"], "target": ["b"], "weight": [2.0]}),
            ValueError,
            r"in \[0, 1\], found 2 in row 0 and 1",
        ),
        (
            pd.DataFrame({"source": "a", "target": ["b", "c"], "weight": [1.0, -1.0]}),
            ValueError,
            r"found -1 in row 1.*abs\(\)",
        ),
        (
            pd.DataFrame({"source": "a", "target": ["b", "c"], "weight": [np.nan, 1.0]}),
            ValueError,
            "nan in row 0.*drop rows",
        ),
        (
            pd.DataFrame({"source": ["a"], "target": ["b"], "weight": ["+"]}),
            TypeError,
            "numbers in the column `weight`",
        ),
        (pd.DataFrame({"source": ["x"], "target": ["b"]}), ValueError, "found none among 1.*'a', 'b'"),
    ],
)
def test_wrong_priors(prior, error, message):
    with pytest.raises(error, match=message):
        prior_weight_matrix(prior, False, GENES)


def test_prior_edges_from_genes_that_may_not_regulate_raise_a_warning(cells):
    prior = pd.DataFrame({"source": ["Gata1", "Pu.1", "SCL"], "target": ["cJun", "SCL", "cJun"]})
    given = {"objective": "transport", "hidden": (4,), "prior": prior}
    with pytest.warns(
        UserWarning, match="2 of 3 edges of `prior` cannot be used, such as Pu.1 → SCL, SCL → cJun"
    ) as caught:
        sn.SparseNODE(cells, regulators=["Gata1", "Fli1"], **given)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sn.SparseNODE(cells, regulators=["Gata1", "Pu.1", "SCL"], **given)
        sn.SparseNODE(cells, **given)


def test_a_prior_keeps_its_edges_longer(cells):
    """At a strength that closes most of the network, the edges of a wrong prior survive because they cost less."""
    prior = pd.DataFrame({"source": ["Gata1", "Pu.1"], "target": ["cJun", "SCL"]})
    networks = []
    for given in (None, prior):
        model = sn.SparseNODE(cells, CNODE(0.3), objective="transport", hidden=(4,), prior=given)
        model.train(max_epochs=20, **QUIET)
        networks.append(model.get_adjacency(weights="paths", signed=False))
    for source, target in prior.itertuples(index=False):
        assert networks[1].loc[target, source] > networks[0].loc[target, source]


def test_a_hard_prior_forbids_all_other_edges(cells):
    prior = sn.datasets.krumsiek11_network()[["source", "target"]]
    model = sn.SparseNODE(cells, GroupLasso(0.001), objective="transport", hidden=(4,), prior=prior, hard_prior=True)
    model.train(max_epochs=3, **QUIET)
    found = model.get_network()
    found = found[found["source"] != found["target"]]
    assert len(found) > 0
    allowed = set(prior.itertuples(index=False, name=None))
    assert set(zip(found["source"], found["target"], strict=True)) <= allowed


def test_a_hard_prior_does_not_go_with_a_phase_without_penalty(cells):
    prior = sn.datasets.krumsiek11_network()[["source", "target"]]
    model = sn.SparseNODE(cells, GroupLasso(0.001), objective="transport", hidden=(4,), prior=prior, hard_prior=True)
    with pytest.raises(ValueError, match="no `hard_prior` with an iterative schedule"):
        model.train(max_epochs=3, schedule="iterative", **QUIET)


@pytest.mark.parametrize(
    "settings",
    [
        {"regularizer": "l0", "prior": True},
        {"regularizer": "cnode", "prior": True, "hard_prior": True},
        {"regularizer": "grouplasso", "hard_prior": True},
        {"regularizer": "cnode", "prior": True, "path_weights": pd.DataFrame()},
    ],
)
def test_wrong_combinations(cells, settings):
    prior = sn.datasets.krumsiek11_network() if settings.pop("prior", False) else None
    with pytest.raises(ValueError, match="Expected"):
        sn.SparseNODE(cells, prior=prior, **settings)
