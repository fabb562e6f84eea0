"""Lineages and batches: what is read, and what is refused before anything is trained."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import sparsenode as sn
from sparsenode._input._observations import read_observations

TIME = "dpt_pseudotime"


class NamedArray(np.ndarray):
    """Like CellRank's ``Lineage``: an array that carries the names of its columns."""

    names = ["erythroid", "myeloid"]


# Lineages as a column


def test_missing_lineage_key_lists_both_places(adata, refused):
    refused(adata, KeyError, "`lineage_key`", "'lineages'", "'lineage'", "'memberships'", lineage_key="lineages")


def test_missing_lineages_are_counted_and_the_fix_works(adata, refused):
    adata.obs.iloc[:4, adata.obs.columns.get_loc("lineage")] = np.nan
    message = refused(adata, ValueError, "found 4 of 120 missing", "`adata.obs['lineage']`", lineage_key="lineage")
    fixed = eval(message.split("`")[-2].removeprefix("adata = "), {"adata": adata})
    sn.SparseNODE.setup_anndata(fixed, lineage_key="lineage")
    assert fixed.n_obs == 116


def test_float_lineages_point_to_obsm(adata, refused):
    adata.obs["fate"] = np.linspace(0, 1, 120)
    refused(adata, TypeError, "`adata.obs['fate']`", "float64", "adata.obsm", lineage_key="fate")


def test_lineage_in_both_places(adata, refused):
    adata.obsm["lineage"] = adata.obsm["memberships"]
    refused(adata, ValueError, "'lineage' in both", "Rename", lineage_key="lineage")


@pytest.mark.parametrize("n", [1, 9])
def test_lineage_with_too_few_cells(adata, refused, n):
    adata.obs["lineage"] = ["rare"] * n + ["common"] * (120 - n)
    refused(adata, ValueError, "at least 10 cells", f"found {n} in 'rare'", "Merge", lineage_key="lineage")


def test_ten_cells_are_enough(adata):
    adata.obs["lineage"] = ["rare"] * 10 + ["common"] * 110
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")


def test_too_few_cells_of_a_lineage_in_one_batch(make_adata, refused):
    adata = make_adata(n_donors=2)
    few = np.flatnonzero((adata.obs["lineage"] == "myeloid") & (adata.obs["donor"] == "donor1"))[9:]
    adata = adata[np.setdiff1d(np.arange(120), few)].copy()
    refused(adata, ValueError, "found 9 in 'myeloid, donor1'", lineage_key="lineage", batch_key="donor")


@pytest.mark.parametrize(
    "column",
    [
        pd.Categorical(["b", "a"] * 60, categories=["unused", "b", "a"]),
        np.array(["b", "a"] * 60, dtype=object),
        np.array([2, 1] * 60),
        np.array([True, False] * 60),
    ],
    ids=["categorical", "strings", "integers", "booleans"],
)
def test_lineages_of_any_kind(adata, column):
    adata.obs["lineage"] = column
    observations = read_observations(adata, TIME, "lineage", None)
    expected = [c for c in pd.Categorical(column).categories if c != "unused"]
    assert observations.lineage_names == [str(name) for name in expected]
    for k, name in enumerate(expected):
        np.testing.assert_array_equal(observations.memberships[:, k], np.asarray(column) == name)


def test_without_keys_there_is_one_trajectory(adata):
    observations = read_observations(adata, TIME, None, None)
    table = observations.trajectories()
    assert list(table.index) == ["all"]
    assert table.loc["all", "n_cells"] == 120
    assert (observations.memberships == 1).all()


# Lineages as a table


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (-0.25, ("non-negative", "2 cells below 0")),
        (np.nan, ("finite", "2 cells", "Replace")),
        (np.inf, ("finite", "2 cells")),
    ],
)
def test_unusable_memberships_are_counted(adata, refused, value, parts):
    table = adata.obsm["memberships"]
    table.iloc[[5, 9], 0] = value
    refused(adata, ValueError, "`adata.obsm['memberships']`", *parts, lineage_key="memberships")


@pytest.mark.parametrize("kind", [bool, float])
def test_a_lineage_that_some_donors_lack_is_named_and_the_fix_works(adata, refused, kind):
    adata.obsm["memberships"] = (adata.obsm["memberships"] > 0).astype(kind)
    other = adata.copy()
    other.obsm["memberships"] = pd.DataFrame({"own": np.ones(120, dtype=kind)}, index=other.obs_names)
    both = anndata.concat({"a": adata, "b": other}, join="outer", index_unique="-")
    message = refused(both, ValueError, "in 240 cells, in ['erythroid', 'myeloid', 'own']", lineage_key="memberships")
    both.obsm["memberships"] = eval(message.split("`")[-2].split(" = ")[1], {"adata": both, "np": np})
    assert read_observations(both, TIME, "memberships", None).lineage_names == ["erythroid", "myeloid", "own"]


def test_infinite_memberships_have_a_fix_that_works(adata, refused):
    adata.obsm["memberships"].iloc[[3, 9]] = [1.0, np.inf]
    message = refused(adata, ValueError, "2 cells, in ['myeloid']", lineage_key="memberships")
    adata.obsm["memberships"] = eval(message.split("`")[-2].split(" = ")[1], {"adata": adata, "np": np})
    sn.SparseNODE.setup_anndata(adata, lineage_key="memberships")


def test_missing_memberships_of_an_array_have_a_fix_that_works(adata, refused):
    adata.obsm["memberships"] = np.where(np.arange(240).reshape(120, 2) % 7, 1.0, np.nan)
    message = refused(adata, ValueError, "in ['0', '1']", lineage_key="memberships")
    adata.obsm["memberships"] = eval(message.split("`")[-2].split(" = ")[1], {"adata": adata, "np": np})
    assert (read_observations(adata, TIME, "memberships", None).memberships > 0).sum() == 205


def test_cells_without_any_membership_are_counted_and_the_fix_works(adata, refused):
    adata.obsm["memberships"].iloc[[1, 2, 3]] = 0.0
    message = refused(adata, ValueError, "found 3 cells", "`adata.obsm['memberships']`", lineage_key="memberships")
    fixed = eval(message.split("`")[-2].removeprefix("adata = "), {"adata": adata, "np": np})
    sn.SparseNODE.setup_anndata(fixed, lineage_key="memberships")
    assert fixed.n_obs == 117


def test_lineage_that_nobody_belongs_to(adata, refused):
    adata.obsm["memberships"]["empty"] = 0.0
    refused(adata, ValueError, "['empty']", "Drop", lineage_key="memberships")


def test_memberships_of_too_few_cells(adata, refused):
    adata.obsm["memberships"]["rare"] = np.r_[np.full(9, 0.01), np.zeros(111)]
    refused(adata, ValueError, "found 9 in 'rare'", lineage_key="memberships")


def test_tiny_memberships_of_many_cells_are_too_few(adata, refused):
    adata.obsm["memberships"]["rare"] = np.r_[np.full(6, 0.9), np.full(114, 0.003)]
    parts = (
        "at least 10 cells of the largest weight",
        "found 6.38 in the 120 cells of 'rare'",
        "Merge",
        "leave it out",
    )
    refused(adata, ValueError, *parts, lineage_key="memberships")
    adata.obsm["memberships"]["rare"] = np.r_[np.full(10, 0.1), np.zeros(110)]  # ten cells, whatever their weight
    sn.SparseNODE.setup_anndata(adata, lineage_key="memberships")


def test_memberships_of_too_few_cells_in_a_batch(make_adata, refused):
    adata = make_adata(n_donors=2)
    other = (adata.obs["donor"] == "donor1").to_numpy()
    adata.obsm["memberships"].loc[other, "myeloid"] *= 0.01
    adata.obsm["memberships"].loc[other, "erythroid"] = 1.0
    refused(adata, ValueError, "cells of 'myeloid, donor1'", lineage_key="memberships", batch_key="donor")


def test_repeated_names_of_lineages(adata, refused):
    adata.obsm["memberships"] = adata.obsm["memberships"].set_axis(["a", "a"], axis=1)
    refused(adata, ValueError, "unique", "['a', 'a']", lineage_key="memberships")


def test_memberships_that_are_not_numbers(adata, refused):
    adata.obsm["memberships"]["erythroid"] = "yes"
    refused(adata, TypeError, "`adata.obsm['memberships']`", "numeric or boolean", lineage_key="memberships")


@pytest.mark.parametrize(
    ("convert", "error", "part"),
    [
        (lambda values: values + 1j, TypeError, "found dtype complex128"),
        (lambda values: np.ma.masked_less(values, 0.5), ValueError, "masked: what lies beneath"),
        (lambda values: np.full(values.shape, "yes"), TypeError, "numeric or boolean: could not convert"),
    ],
    ids=["complex", "masked", "text"],
)
def test_memberships_that_are_no_plain_numbers(adata, refused, convert, error, part):
    """As arrays; the other values would be lost without a word."""
    adata.obsm["memberships"] = convert(adata.obsm["memberships"].to_numpy())
    refused(adata, error, "`adata.obsm['memberships']`", part, lineage_key="memberships")


def test_complex_memberships_in_a_data_frame(adata, refused):
    adata.obsm["memberships"]["erythroid"] = 1j
    refused(
        adata, TypeError, "`adata.obsm['memberships']['erythroid']`, found dtype complex", lineage_key="memberships"
    )


@pytest.mark.parametrize(
    ("convert", "names"),
    [
        (lambda t: t, ["erythroid", "myeloid"]),
        (lambda t: t.to_numpy(), ["0", "1"]),
        (lambda t: sparse.csr_matrix(t.to_numpy()), ["0", "1"]),
        (lambda t: t.to_numpy().view(NamedArray), ["erythroid", "myeloid"]),
    ],
    ids=["frame", "array", "sparse", "named array"],
)
def test_tables_of_any_kind(adata, convert, names):
    table = adata.obsm["memberships"]
    expected = table.to_numpy()
    adata.obsm["memberships"] = convert(table)
    observations = read_observations(adata, TIME, "memberships", None)
    assert observations.lineage_names == names
    np.testing.assert_array_equal(observations.memberships, expected)


def test_boolean_table(adata):
    table = adata.obsm["memberships"] > 0
    adata.obsm["memberships"] = table
    np.testing.assert_array_equal(read_observations(adata, TIME, "memberships", None).memberships, table)


def test_memberships_of_three_dimensions(adata, refused):
    adata.obsm["memberships"] = np.ones((120, 2, 2))
    refused(adata, ValueError, "cells × lineages, found shape (120, 2, 2)", lineage_key="memberships")


# Batches


def test_missing_batch_key(adata, refused):
    refused(adata, KeyError, "`batch_key`", "'sample'", "'donor'", batch_key="sample")


def test_missing_batches_are_counted(adata, refused):
    adata.obs.iloc[:6, adata.obs.columns.get_loc("donor")] = np.nan
    refused(adata, ValueError, "found 6 of 120 missing", "`adata.obs['donor']`", batch_key="donor")


@pytest.mark.parametrize("key", ["lineage_key", "batch_key"])
def test_numbers_and_text_that_read_the_same(adata, refused, key):
    """As after tables were put together, one of which was read as numbers."""
    adata.obs["kind"] = pd.Series([1, "1"] * 60, adata.obs_names, dtype=object)
    message = refused(adata, ValueError, "`adata.obs['kind']`", "read the same: ['1']", **{key: "kind"})
    exec(message.split("`")[-2], {"adata": adata})
    assert read_observations(adata, TIME, None, "kind").batch_names == ["1"]


def test_names_of_trajectories_that_meet(adata, refused):
    adata.obs["lineage"] = pd.Categorical(np.where(np.arange(120) % 2, "a", "a, b"))
    adata.obs["batch"] = pd.Categorical(np.where(np.arange(120) % 2, "b, c", "c"))
    refused(adata, ValueError, "'a, b, c' for [('a', 'b, c'), ('a, b', 'c')]", lineage_key="lineage", batch_key="batch")


def test_trajectories_are_lineages_of_batches(make_adata):
    adata = make_adata(n_donors=2)
    table = read_observations(adata, TIME, "memberships", "donor").trajectories()
    assert list(table.index) == ["erythroid, donor0", "erythroid, donor1", "myeloid, donor0", "myeloid, donor1"]
    for name, row in table.iterrows():
        lineage, donor = name.split(", ")
        member = (adata.obsm["memberships"][lineage] > 0) & (adata.obs["donor"] == donor)
        times = adata.obs.loc[member, TIME]
        assert (row["n_cells"], row["start"], row["end"]) == (member.sum(), times.min(), times.max())


def test_arrays_that_lost_their_names_take_those_of_the_terminal_states(adata):
    """As CellRank's table after a file was written and read."""
    adata.obsm["lineages_fwd"] = adata.obsm["memberships"].to_numpy()
    states = pd.Categorical(["erythroid", "myeloid"] + [None] * (adata.n_obs - 2))
    adata.obs["term_states_fwd"] = states
    assert read_observations(adata, TIME, "lineages_fwd", None).lineage_names == ["erythroid", "myeloid"]
    adata.obs["term_states_fwd"] = states.remove_categories("myeloid")
    assert read_observations(adata, TIME, "lineages_fwd", None).lineage_names == ["0", "1"]


@pytest.mark.parametrize("known", [["erythroid", "myeloid"], ["0", "1"]])
@pytest.mark.parametrize("left", [["erythroid", "myeloid"], ["myeloid"], []])
def test_some_of_the_cells_have_the_lineages_of_the_model(adata, known, left):
    """Though none of them may be in a terminal state, whose category is gone then; and whatever the model called them."""
    adata.obsm["lineages_fwd"] = adata.obsm["memberships"].to_numpy()
    adata.obs["term_states_fwd"] = pd.Categorical([None] * adata.n_obs, categories=left)
    observations = read_observations(adata, TIME, "lineages_fwd", None, known)
    assert observations.lineage_names == known
    np.testing.assert_array_equal(observations.memberships, adata.obsm["memberships"])


def test_terminal_states_that_the_model_does_not_know_name_no_lineages(adata):
    adata.obsm["lineages_fwd"] = adata.obsm["memberships"].to_numpy()
    adata.obs["term_states_fwd"] = pd.Categorical(["other"] * adata.n_obs)
    with pytest.raises(ValueError, match="has no column names"):
        read_observations(adata, TIME, "lineages_fwd", None, ["erythroid", "myeloid"])


def test_combinations_without_cells_are_no_trajectories(make_adata):
    adata = make_adata(n_donors=2)
    adata = adata[~((adata.obs["lineage"] == "myeloid") & (adata.obs["donor"] == "donor1"))].copy()
    table = read_observations(adata, TIME, "lineage", "donor").trajectories()
    assert list(table.index) == ["erythroid, donor0", "erythroid, donor1", "myeloid, donor0"]


# Given the lineages of a model


def test_lineages_take_the_order_of_the_model(adata):
    observations = read_observations(adata, TIME, "lineage", None, ["myeloid", "absent", "erythroid"])
    assert observations.lineage_names == ["myeloid", "absent", "erythroid"]
    np.testing.assert_array_equal(observations.memberships[:, 0], adata.obs["lineage"] == "myeloid")
    np.testing.assert_array_equal(observations.memberships[:, 2], adata.obs["lineage"] == "erythroid")
    assert not observations.memberships[:, 1].any()


def test_a_lineage_of_the_model_may_have_no_cells_in_a_table(adata):
    cells = adata[adata.obsm["memberships"]["myeloid"] == 0].copy()
    observations = read_observations(cells, TIME, "memberships", None, ["erythroid", "myeloid"])
    np.testing.assert_array_equal(observations.memberships, np.tile([1.0, 0.0], (cells.n_obs, 1)))


def test_a_table_that_lost_its_names_is_told_from_new_lineages(adata):
    adata.obsm["memberships"] = adata.obsm["memberships"].to_numpy()
    with pytest.raises(ValueError, match=r"has no column names.*pd.DataFrame\(.*\['erythroid', 'myeloid'\]\)"):
        read_observations(adata, TIME, "memberships", None, ["erythroid", "myeloid"])


def test_new_lineages_are_listed(adata):
    with pytest.raises(ValueError, match=r"\['erythroid'\].*new ones in 'lineage': \['myeloid'\]"):
        read_observations(adata, TIME, "lineage", None, ["erythroid"])


@settings(max_examples=30, deadline=None)
@given(codes=st.lists(st.integers(0, 3), min_size=1, max_size=40), data=st.data())
def test_categories_and_their_indicator_table_are_the_same(codes, data):
    names = data.draw(st.permutations(["p", "q", "r", "s"]))
    column = pd.Categorical.from_codes(codes, names)
    obs = pd.DataFrame({TIME: np.arange(len(codes)) + 0.5, "lineage": column}, [f"cell{i}" for i in range(len(codes))])
    adata = AnnData(np.zeros((len(codes), 1)), obs)
    if len(codes) == 1:
        with pytest.raises(ValueError, match="to vary"):
            read_observations(adata, TIME, "lineage", None)
        return
    table = pd.get_dummies(adata.obs["lineage"].cat.remove_unused_categories())
    adata.obsm["table"] = table
    one, other = (read_observations(adata, TIME, key, None) for key in ("lineage", "table"))
    assert one.lineage_names == other.lineage_names
    np.testing.assert_array_equal(one.memberships, other.memberships)
    np.testing.assert_array_equal(one.memberships.sum(1), 1)


# Names


def test_names_under_which_results_would_meet(adata, refused):
    adata.obs["lineage"] = adata.obs["lineage"].cat.rename_categories(["x/y", "x_y"])
    refused(adata, ValueError, "'lineage'", "'x/y' and 'x_y'", "'sparsenode_adjacency_x_y'", lineage_key="lineage")


def test_the_name_of_the_last_row_of_scores(adata, refused):
    adata.obs["lineage"] = adata.obs["lineage"].cat.rename_categories({"myeloid": "total"})
    refused(adata, ValueError, "no lineage named 'total' in 'lineage'", lineage_key="lineage")


@pytest.mark.parametrize("argument", ["time_key", "lineage_key", "batch_key"])
def test_a_list_of_keys(adata, refused, argument):
    refused(
        adata, TypeError, f"`{argument}` to be one name, found ['lineage', 'donor']", **{argument: ["lineage", "donor"]}
    )


@pytest.mark.parametrize("key", ["dpt_pseudotime", "lineage", "donor"])
def test_columns_of_one_name_and_the_fix_works(adata, refused, key):
    """As tables have that were put side by side."""
    adata.obs = pd.concat([adata.obs, adata.obs[[key]]], axis=1)
    keys = {"lineage_key": "lineage", "batch_key": "donor"}
    refused(
        adata, ValueError, f"one column {key!r} in `adata.obs`", "found 2", "`adata.obs = adata.obs.loc[:, ~", **keys
    )
    adata.obs = adata.obs.loc[:, ~adata.obs.columns.duplicated()]
    sn.SparseNODE.setup_anndata(adata, **keys)


def test_warns_of_cell_types_that_follow_each_other(make_adata):
    """Strays do not hide it, and it is the same for a table."""
    adata = make_adata(n_obs=200, n_donors=2)
    order = adata.obs["dpt_pseudotime"].rank(pct=True)
    stage = np.where(order < 0.4, "stem", np.where(order < 0.7, "early", "late"))
    stage[np.flatnonzero(stage == "late")[:2]] = "stem"
    adata.obs["cell_type"] = pd.Categorical(stage)
    adata.obsm["stages"] = pd.get_dummies(adata.obs["cell_type"])
    for key in ("cell_type", "stages"):
        with pytest.warns(
            UserWarning, match="The lineage 'late' begins where 'stem' has ended. If these are cell types"
        ):
            sn.SparseNODE.setup_anndata(adata, lineage_key=key, batch_key="donor")


@pytest.mark.parametrize("key", ["lineage", "memberships"])
def test_lineages_of_unequal_length_are_no_stages(make_adata, key):
    adata = make_adata(n_obs=200, n_donors=2)
    short = (adata.obs["lineage"] == "myeloid").to_numpy()
    times = adata.obs["dpt_pseudotime"]
    adata.obs["dpt_pseudotime"] = np.where(short, times.min() + 0.1 * (times - times.min()), times)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sn.SparseNODE.setup_anndata(adata, lineage_key=key, batch_key="donor")
