"""Permuted pseudotime: what stays, what does not, and that a model takes the copy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sparsenode as sn


def test_permutes_within_each_lineage_and_batch(make_adata):
    adata = make_adata(n_obs=200, n_donors=2)
    shuffled = sn.tl.shuffle_time(adata, lineage_key="lineage", batch_key="donor")
    before, after = adata.obs["dpt_pseudotime"], shuffled.obs["dpt_pseudotime"]
    for _, cells in adata.obs.groupby(["lineage", "donor"], observed=True).groups.items():
        assert sorted(before[cells]) == sorted(after[cells])
        assert (before[cells] != after[cells]).mean() > 0.8
    assert abs(np.corrcoef(before, after)[0, 1]) < 0.5


def test_only_time_changes(adata):
    before = adata.copy()
    shuffled = sn.tl.shuffle_time(adata, lineage_key="lineage")
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(
        shuffled.obs.drop(columns="dpt_pseudotime"), before.obs.drop(columns="dpt_pseudotime")
    )
    np.testing.assert_array_equal(shuffled.X, before.X)
    pd.testing.assert_frame_equal(shuffled.obsm["memberships"], before.obsm["memberships"])
    assert not np.shares_memory(shuffled.X, adata.X)


def test_without_lineages_all_cells_are_permuted(adata):
    shuffled = sn.tl.shuffle_time(adata)
    one = adata.obs["lineage"] == "erythroid"
    assert sorted(shuffled.obs["dpt_pseudotime"]) == sorted(adata.obs["dpt_pseudotime"])
    assert sorted(shuffled.obs["dpt_pseudotime"][one]) != sorted(adata.obs["dpt_pseudotime"][one])


def test_lineages_that_share_cells_are_permuted_together(make_adata):
    """No order is left: cells of every lineage are as late as the others, whatever they belong to beside it."""
    adata = make_adata(n_obs=2000)
    shared = adata.obsm["memberships"].to_numpy().max(1) < 1
    assert adata.obs["dpt_pseudotime"][shared].max() < 1.2
    differences = []
    for seed in range(20):
        times = sn.tl.shuffle_time(adata, lineage_key="memberships", seed=seed).obs["dpt_pseudotime"]
        assert sorted(times) == sorted(adata.obs["dpt_pseudotime"])
        differences += [
            times[shared].mean() - times[own & ~shared].mean() for own in adata.obsm["memberships"].to_numpy().T > 0
        ]
    assert abs(np.mean(differences)) < 4 * np.std(differences) / np.sqrt(len(differences))
    assert np.std(differences) < 0.1


def test_lineages_that_share_no_cells_of_a_batch_keep_their_times(make_adata):
    adata = make_adata(n_obs=400, n_donors=2)
    hard = adata.obs["donor"] == "donor0"
    table = adata.obsm["memberships"]
    table[hard] = pd.get_dummies(adata.obs["lineage"]).astype(float)[hard]
    times = sn.tl.shuffle_time(adata, lineage_key="memberships", batch_key="donor").obs["dpt_pseudotime"]
    for donor, kept in (("donor0", True), ("donor1", False)):
        for lineage in ("erythroid", "myeloid"):
            own = (adata.obs["donor"] == donor) & (adata.obs["lineage"] == lineage)
            assert (sorted(times[own]) == sorted(adata.obs["dpt_pseudotime"][own])) is kept


@pytest.mark.parametrize("alone", [0, 1, 2])
def test_a_lineage_that_shares_no_cells_is_left_out_of_those_that_do(make_adata, alone):
    """Two of three lineages share cells, whichever they are: the third keeps its times, and the two are one."""
    adata = make_adata(n_obs=300)
    places, third = np.delete(np.arange(3), alone), np.arange(300) < 100
    table = np.zeros((300, 3))
    table[:, places] = adata.obsm["memberships"].to_numpy()
    table[third] = np.eye(3)[alone]
    adata.obsm["memberships"] = pd.DataFrame(table, adata.obs_names, ["one", "two", "three"])
    before = adata.obs["dpt_pseudotime"]
    after = sn.tl.shuffle_time(adata, lineage_key="memberships").obs["dpt_pseudotime"]
    for own, kept in (
        (third, True),
        (~third, True),
        (table[:, places[0]] == 1, False),
        (table[:, places[1]] == 1, False),
    ):
        assert (sorted(before[own]) == sorted(after[own])) is kept


@pytest.mark.parametrize("order", [["a", "b", "c"], ["c", "a", "b"]])
def test_each_of_three_lineages_keeps_its_times(make_adata, order):
    adata = make_adata(n_obs=150)
    adata.obs["lineage"] = pd.Categorical(np.array(["a", "b", "c"])[np.arange(150) // 50], categories=order)
    before = adata.obs["dpt_pseudotime"]
    after = sn.tl.shuffle_time(adata, lineage_key="lineage").obs["dpt_pseudotime"]
    for name in order:
        own = adata.obs["lineage"] == name
        assert sorted(before[own]) == sorted(after[own])


def test_memberships_of_one_lineage_are_categories(adata):
    """Weights 0 and 1 leave no choice."""
    adata.obsm["hard"] = pd.get_dummies(adata.obs["lineage"]).astype(float)
    pd.testing.assert_series_equal(
        *(sn.tl.shuffle_time(adata, lineage_key=key).obs["dpt_pseudotime"] for key in ("hard", "lineage"))
    )


def test_a_table_is_permuted_within_each_lineage_and_batch(make_adata):
    """Whatever cells lineages share: each has its own times."""
    adata = make_adata(n_obs=400, n_donors=2)
    member = adata.obsm["memberships"] > 0
    times = pd.DataFrame({"myeloid": 1.5 * adata.obs["dpt_pseudotime"], "erythroid": adata.obs["dpt_pseudotime"]})
    adata.obsm["times"] = times.where(member)
    before = adata.copy()
    shuffled = sn.tl.shuffle_time(adata, time_key="times", batch_key="donor")
    pd.testing.assert_frame_equal(adata.obsm["times"], before.obsm["times"])
    pd.testing.assert_frame_equal(shuffled.obs, before.obs)
    after = shuffled.obsm["times"]
    pd.testing.assert_frame_equal(after.isna(), ~member[list(after)])
    for name in times:
        for donor in ("donor0", "donor1"):
            own = member[name] & (adata.obs["donor"] == donor)
            assert sorted(after[name][own]) == sorted(times[name][own])
            assert abs(np.corrcoef(after[name][own], times[name][own])[0, 1]) < 0.3
    both = member.all(axis=1)
    assert abs(np.corrcoef(after[both].to_numpy().T)[0, 1]) < 0.5
    for kind in ("Float64", pd.SparseDtype(float)):
        adata.obsm["times"] = before.obsm["times"].astype(kind).set_axis([1, 2], axis=1)
        other = sn.tl.shuffle_time(adata, time_key="times", batch_key="donor").obsm["times"]
        pd.testing.assert_frame_equal(other.astype(float).set_axis(list(after), axis=1), after)
    adata.obsm["times"] = before.obsm["times"].assign(none=np.nan)
    other = sn.tl.shuffle_time(adata, "times", "memberships", "donor").obsm["times"]
    pd.testing.assert_frame_equal(other, after.assign(none=np.nan))
    some = sn.tl.shuffle_time(adata, "times", "lineage", "donor").obsm["times"]  # others of the table are no members
    left = (adata.obs["lineage"] == "myeloid") & member["erythroid"]
    np.testing.assert_array_equal(some["erythroid"][left], times["erythroid"][left])


def test_seed(adata):
    first, same, other = (sn.tl.shuffle_time(adata, seed=seed).obs["dpt_pseudotime"] for seed in (0, 0, 1))
    assert first.equals(same)
    assert not first.equals(other)


def test_other_column_and_type(adata):
    adata.obs["day"] = np.arange(adata.n_obs) % 7
    shuffled = sn.tl.shuffle_time(adata, "day")
    assert shuffled.obs["day"].dtype == adata.obs["day"].dtype
    assert shuffled.obs["dpt_pseudotime"].equals(adata.obs["dpt_pseudotime"])


def test_control_and_original_can_both_be_fitted(adata, fit):
    """scvi-tools must not take the copy for the original."""
    model = fit(adata)
    control = fit(sn.tl.shuffle_time(adata, lineage_key="lineage"))
    again = fit(adata)
    assert model.get_adjacency().equals(again.get_adjacency())
    assert not model.get_adjacency().equals(control.get_adjacency())


def test_set_up_original_stays_set_up(adata):
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    control = sn.tl.shuffle_time(adata, lineage_key="lineage")
    sn.SparseNODE.setup_anndata(control, lineage_key="lineage")
    sn.SparseNODE(adata, objective="trajectory", hidden=(4,))
    sn.SparseNODE(control, objective="trajectory", hidden=(4,))


def test_backed_and_view(adata, tmp_path):
    import anndata

    expected = sn.tl.shuffle_time(adata).obs["dpt_pseudotime"]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = sn.tl.shuffle_time(anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r"))
    assert not backed.isbacked
    np.testing.assert_array_equal(backed.obs["dpt_pseudotime"], expected)
    view = sn.tl.shuffle_time(adata[10:50])
    assert view.n_obs == 40
    assert not view.is_view


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"time_key": "day"}, KeyError, "`time_key`.*found 'day'"),
        ({"lineage_key": "fate"}, KeyError, "`lineage_key`"),
        ({"batch_key": "plate"}, KeyError, "`batch_key`.*found 'plate'"),
        ({"time_key": "donor"}, TypeError, "to be numeric"),
        ({"seed": -1}, ValueError, "`seed` to be an integer of at least 0, found -1"),
    ],
    ids=str,
)
def test_errors(adata, arguments, error, message):
    with pytest.raises(error, match=message):
        sn.tl.shuffle_time(adata, **arguments)


def test_missing_times(adata):
    adata.obs.loc["cell3", "dpt_pseudotime"] = np.nan
    with pytest.raises(ValueError, match="1 of 120 cells missing"):
        sn.tl.shuffle_time(adata)


def test_no_cells(adata):
    with pytest.raises(ValueError, match="Expected cells with a pseudotime, found none. Check the filter"):
        sn.tl.shuffle_time(adata[[]].copy())
