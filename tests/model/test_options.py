"""What a model is made of where arguments are left out, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import sparsenode as sn
from sparsenode.model._options import DEFAULTS, resolve
from sparsenode.regularizers import CNODE, PathReg

QUICK = {"max_epochs": 2, "steps_per_epoch": 3, "accelerator": "cpu", "enable_progress_bar": False}
NOTHING = dict.fromkeys([*DEFAULTS["both"], "bootstrap"])


@pytest.fixture
def cells(make_adata):
    adata = make_adata(n_obs=240, seed=2)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    return adata


# What is refused


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"regularizer": "pathregg"},
            ValueError,
            r"one of \['cnode', 'grouplasso', 'l0', 'lassonet', 'none', 'pathreg'\].*found 'pathregg'",
        ),
        ({"regularizer": ""}, ValueError, "found ''"),
        ({"regularizer": sn.regularizers.PathReg}, TypeError, r"an object such as `PathReg\(strength=0.1\)`"),
        ({"regularizer": 0.1}, TypeError, "found 0.1"),
        ({"hidden": ()}, ValueError, "`hidden`"),
        ({"hidden": 100}, ValueError, r"`hidden`.*\(100, 100\), found 100"),
        ({"hidden": (8, 0)}, ValueError, r"`hidden`.*\(8, 0\)"),
        ({"hidden": (8, 8.5)}, ValueError, "`hidden`"),
        ({"n_seeds": 0}, ValueError, "`n_seeds`.*at least 1, found 0"),
        ({"n_seeds": 1.5}, ValueError, "`n_seeds`.*found 1.5"),
        ({"fields": "each"}, ValueError, r"`fields`.*\['shared', 'lineage'\], found 'each'"),
        ({"initial_state": "mean"}, ValueError, r"`initial_state`.*\['kernel', 'first', 'learned'\], found 'mean'"),
        ({"initial_bandwidth": 0.0}, ValueError, "`initial_bandwidth`.*found 0.0"),
        ({"n_knots": 2}, ValueError, "`n_knots`.*at least 3, found 2"),
        ({"rtol": -1e-3}, ValueError, "`rtol`"),
        ({"atol": float("nan")}, ValueError, "`atol`"),
        ({"seed": -1}, ValueError, "`seed`.*at least 0, found -1"),
        ({"seed": 2**32}, ValueError, r"`seed` to be below 2\*\*32.*found 4294967296"),
        ({"solver": "euler4"}, ValueError, "`solver`.*euler4"),
        ({"decay": "no"}, TypeError, "`decay` to be True or False, found 'no'"),
        ({"skip": 1}, TypeError, "`skip` to be True or False, found 1"),
        ({"order": 1.0}, ValueError, "`order` to be 1 or 2, found 1.0"),
        ({"start_noise": "a"}, ValueError, "`start_noise` to be non-negative and finite, found 'a'"),
        ({"bootstrap": "no"}, TypeError, "`bootstrap` to be True or False, found 'no'"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_wrong_arguments(adata, arguments, error, message):
    sn.SparseNODE.setup_anndata(adata)
    with pytest.raises(error, match=message):
        sn.SparseNODE(adata, **arguments)


# Defaults that depend on other arguments


def test_networks_per_target_are_small_by_default(adata):
    model = sn.SparseNODE(adata, "grouplasso")
    assert [w.shape for w in model.module.field.weights][:2] == [(8, 10, 8), (8, 1, 10)]
    assert sn.SparseNODE(adata, "pathreg", objective="trajectory").module.field.weights[0].shape[1] == 100
    assert sn.SparseNODE(adata, "grouplasso", hidden=(5,)).module.field.weights[0].shape[1] == 5


def test_hidden_as_an_array(adata):
    assert [
        w.shape[1:] for w in sn.SparseNODE(adata, objective="trajectory", hidden=np.array([5, 6])).module.field.weights
    ] == [(5, 8), (6, 5), (8, 6)]


# What a model does that names no objective


def test_both_by_default(cells):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = sn.SparseNODE(cells)
    assert model.objective == "both"
    assert isinstance(model.module.regularizer, CNODE)


def test_few_cells_are_fitted_by_trajectories_and_a_warning_says_so(make_adata, tmp_path):
    adata = make_adata(n_obs=120)
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    with pytest.warns(UserWarning, match="60 cells in the median.*needs 100. Name an `objective`") as caught:
        model = sn.SparseNODE(adata, hidden=(4,))
    assert caught[0].filename == __file__
    assert model.objective == "trajectory"
    assert isinstance(model.module.regularizer, PathReg)
    model.train(**QUICK)
    model.save(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Only the trajectories")
        loaded = sn.SparseNODE.load(tmp_path / "model", adata=adata)
    assert loaded.objective == "trajectory"


def test_too_many_cells_are_fitted_by_trajectories_and_a_warning_says_so(cells, monkeypatch):
    monkeypatch.setattr("sparsenode.model._options._LARGEST_TABLE", 1000)
    with pytest.warns(UserWarning, match="240 cells × 8 genes are too many.* takes 1000 values.*fewer genes"):
        assert sn.SparseNODE(cells, hidden=(4,)).objective == "trajectory"


def test_too_long_lineages_are_fitted_by_trajectories_and_a_warning_says_so(make_adata, monkeypatch):
    adata = make_adata(n_obs=240)
    adata.obsm["memberships"] = np.maximum(adata.obsm["memberships"], 0.001)
    sn.SparseNODE.setup_anndata(adata, lineage_key="memberships")
    monkeypatch.setattr("sparsenode.model._options._MOST_CELLS", 200)
    with pytest.warns(
        UserWarning, match="'erythroid' holds 240 cells.*takes 200;.*memberships that are set to 0 shrink"
    ):
        assert sn.SparseNODE(adata, hidden=(4,)).objective == "trajectory"


def test_second_order_is_fitted_by_trajectories(cells):
    assert sn.SparseNODE(cells, order=2, hidden=(4,)).objective == "trajectory"


# Options


@pytest.mark.parametrize("objective", DEFAULTS)
@pytest.mark.parametrize("order", [1, 2])
def test_what_is_given_stays(objective, order):
    """Also where it is false, or the opposite of the default."""
    defaults = vars(resolve(objective, order, NOTHING))
    opposite = {name: not value for name, value in defaults.items() if isinstance(value, bool)}
    given = NOTHING | opposite | {"fields": "shared", "hidden": [3], "initial_state": "first", "initial_bandwidth": 0.7}
    found = vars(resolve(objective, order, given))
    for name, value in given.items():
        if name not in ("regularizer", "self_edges", "hidden"):
            assert found[name] == value
    assert found["hidden"] == (3,)
    assert found["self_edges"] == defaults["self_edges"]


@pytest.mark.parametrize(
    ("objective", "order", "expected"),
    [("trajectory", 1, True), ("trajectory", 2, False), ("collocation", 1, False), ("both", 1, True)],
)
def test_learned_initial_states_are_not_bootstrapped(objective, order, expected):
    assert resolve(objective, order, NOTHING).bootstrap is expected
    assert not resolve(objective, order, NOTHING | {"initial_state": "learned"}).bootstrap
    assert resolve(objective, order, NOTHING | {"initial_state": "learned", "bootstrap": True}).bootstrap


@pytest.mark.parametrize("regularizer", ["l0", "none"])
def test_edges_of_genes_to_themselves_are_free_where_paths_are_penalised(regularizer):
    assert resolve("both", 1, NOTHING).self_edges == "free"
    assert resolve("both", 1, NOTHING | {"regularizer": regularizer}).self_edges == "penalised"


def test_defaults_are_the_same_after_use():
    before = repr(DEFAULTS)
    resolve("both", 2, NOTHING | {"regularizer": "grouplasso", "initial_state": "learned"})
    assert repr(DEFAULTS) == before
    assert resolve("both", 1, NOTHING).hidden == DEFAULTS["both"]["hidden"]
