"""Pseudotime, as a column or a table: what is read, what is refused, and what a table changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from mudata import MuData

import sparsenode as sn
from sparsenode._input._observations import read_observations
from sparsenode._input._pseudotime import read_pseudotime

TIME, TABLE = "dpt_pseudotime", "slingshot"


@pytest.fixture
def table(adata) -> pd.DataFrame:
    """The pseudotime of every cell in each of its lineages, slower by half in one, added to the cells."""
    member = adata.obsm["memberships"] > 0
    times = pd.DataFrame({"erythroid": adata.obs[TIME], "myeloid": 1.5 * adata.obs[TIME] + 0.1}).where(member)
    adata.obsm[TABLE] = times
    return times


# A column


def test_missing_pseudotime_names_argument_and_columns(adata, refused):
    del adata.obs[TIME]
    parts = ("`adata.obs` or `adata.obsm`", TIME, "'lineage'", "'donor'", "['memberships'] in `adata.obsm`")
    refused(adata, KeyError, "`time_key`", *parts, "If you have none yet, `sn.pp.prepare_trajectories`")
    assert "none yet" not in refused(adata, KeyError, "found 'age'", time_key="age")  # misspelt rather than missing


@pytest.mark.parametrize("dtype", ["str", "category", "bool"])
def test_non_numeric_pseudotime(adata, refused, dtype):
    adata.obs[TIME] = adata.obs[TIME].astype(dtype)
    refused(adata, TypeError, f"`adata.obs['{TIME}']`", "numeric", str(adata.obs[TIME].dtype), ".astype(float)")


@pytest.mark.parametrize(
    ("convert", "expected"),
    [
        (lambda days: "day" + days.astype(str), lambda days: days),
        (lambda days: pd.Categorical("day " + days.astype(str) + ".5"), lambda days: days + 0.5),
        (lambda days: days.astype(str), lambda days: days),
        (lambda days: "day-" + days.astype(str), lambda days: days),
        (lambda days: (days + 1).astype(str) + "e-05", lambda days: (days + 1) * 1e-5),
        (lambda days: pd.to_timedelta(days, unit="D"), lambda days: days),
        (lambda days: pd.Timestamp("2026-11-01") + pd.to_timedelta(days, unit="D"), lambda days: days),
    ],
    ids=["text", "categories", "digits", "hyphens", "exponents", "durations", "dates"],
)
def test_the_fix_for_other_times_gives_numbers(adata, refused, convert, expected):
    days = pd.Series(np.arange(120) % 8, adata.obs_names)
    adata.obs["day"] = convert(days)
    message = refused(adata, TypeError, "`adata.obs['day']` to be numeric", time_key="day")
    exec(message.split("`")[-2], {"adata": adata})
    np.testing.assert_allclose(read_pseudotime(adata, "day", False), expected(days))


@pytest.mark.parametrize("values", [["E11.5", "P2"], ["0,5", "1,5"], ["day -1", "day 1"], ["early", "late"]], ids=str)
def test_text_that_does_not_say_which_number_is_left_to_the_user(adata, refused, values):
    adata.obs["day"] = values * 60
    refused(adata, TypeError, f".map({{{values[0]!r}: …, {values[1]!r}: …}}).astype(float)`", time_key="day")


def test_numbers_in_text_with_missing_ones(adata, refused):
    adata.obs["day"] = [None, "1e-05", "2e-04"] * 40
    message = refused(adata, TypeError, "to be numeric", time_key="day")
    exec(message.split("`")[-2], {"adata": adata, "pd": pd})
    np.testing.assert_allclose(adata.obs["day"].to_numpy()[1:3], [1e-5, 2e-4])
    assert adata.obs["day"].isna().sum() == 40


@pytest.mark.parametrize(("value", "word"), [(np.nan, "missing (NaN)"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_pseudotime_that_is_not_finite_is_counted_and_the_fix_works(adata, refused, value, word):
    adata.obs.iloc[[3, 50, 51], adata.obs.columns.get_loc(TIME)] = value
    message = refused(adata, ValueError, f"`adata.obs['{TIME}']`", "found 3 of 120 cells", word)
    fix = message.split("`")[-2]
    assert fix.startswith("adata = ")
    fixed = eval(fix.removeprefix("adata = "), {"adata": adata, "np": np})
    sn.SparseNODE.setup_anndata(fixed)
    assert fixed.n_obs == 117


def test_infinite_pseudotime_mentions_diffusion_pseudotime(adata, refused):
    adata.obs.iloc[0, adata.obs.columns.get_loc(TIME)] = np.inf
    refused(adata, ValueError, "found 1 of 120 cells", "root cannot reach")


def test_nullable_pseudotime_with_a_missing_value(adata, refused):
    adata.obs[TIME] = adata.obs[TIME].astype("Float64")
    adata.obs.iloc[7, adata.obs.columns.get_loc(TIME)] = pd.NA
    message = refused(adata, ValueError, "found 1 of 120 cells missing (NaN)")
    fixed = eval(message.split("`")[-2].removeprefix("adata = "), {"adata": adata, "np": np})
    assert fixed.n_obs == 119


def test_constant_pseudotime(adata, refused):
    adata.obs[TIME] = 0.25
    refused(adata, ValueError, f"`adata.obs['{TIME}']`", "to vary", "0.25", "all 120 cells")


def test_constant_pseudotime_within_a_lineage(adata, refused):
    adata.obs.loc[adata.obs["lineage"] == "myeloid", TIME] = 1.5
    refused(adata, ValueError, "1.5 in all 60 cells of 'myeloid'", "time_key", lineage_key="lineage")


@pytest.mark.parametrize("dtype", ["float32", "int64", "Float64"])
def test_any_numeric_pseudotime_is_read(adata, dtype):
    adata.obs[TIME] = (adata.obs[TIME] * 100).round().astype(dtype)
    times = read_pseudotime(adata, TIME, False)
    assert times.dtype == np.float64
    np.testing.assert_array_equal(times, adata.obs[TIME].to_numpy(dtype=float))


# A table


def test_a_table_says_which_cells_are_in_which_lineage(adata, table):
    observations = read_observations(adata, TABLE, None, None)
    assert observations.lineage_names == ["erythroid", "myeloid"]
    np.testing.assert_array_equal(observations.memberships, table.notna())
    member = observations.memberships > 0
    assert 0 < member.all(1).sum() < len(member)
    np.testing.assert_array_equal(observations.times[member], table.to_numpy()[member])
    assert np.isfinite(observations.times).all()
    rows = observations.trajectories()
    np.testing.assert_array_equal(rows["start"], table.min())
    np.testing.assert_array_equal(rows["end"], table.max())
    np.testing.assert_array_equal(rows["n_cells"], table.notna().sum())


def test_memberships_weight_the_cells_of_a_table(adata, table):
    adata.obsm[TABLE] = table[["myeloid", "erythroid"]]  # columns go by name
    observations = read_observations(adata, TABLE, "memberships", None)
    np.testing.assert_array_equal(observations.memberships, adata.obsm["memberships"])
    np.testing.assert_array_equal(observations.trajectories()["end"], table.max())


def test_a_category_chooses_among_the_times_of_a_cell(adata, table):
    adata.obsm[TABLE] = pd.DataFrame({"erythroid": adata.obs[TIME], "myeloid": 2 * adata.obs[TIME]})
    observations = read_observations(adata, TABLE, "lineage", None)
    own = adata.obs["lineage"] == "myeloid"
    assert observations.trajectories().loc["myeloid", "end"] == 2 * adata.obs[TIME][own].max()


@pytest.mark.parametrize("objective", ["trajectory", "transport", "both", "collocation"])
def test_one_time_for_all_lineages_is_as_a_column(make_adata, objective):
    """Where a cell is no member its time has no meaning."""
    fits = []
    for key in (TIME, TABLE):
        adata = make_adata(n_obs=300)
        member = adata.obsm["memberships"] > 0
        adata.obsm[TABLE] = pd.DataFrame(dict.fromkeys(member, adata.obs[TIME])).where(member)
        sn.SparseNODE.setup_anndata(adata, time_key=key, lineage_key="memberships")
        model = sn.SparseNODE(adata, objective=objective)
        model.train(2, accelerator="cpu", enable_progress_bar=False)
        fits.append((model, adata))
    (one, first), (other, second) = fits
    pd.testing.assert_frame_equal(one.get_network(), other.get_network())
    pd.testing.assert_frame_equal(one.evaluate(), other.evaluate())
    np.testing.assert_array_equal(first.obsm["sparsenode_trajectory"], second.obsm["sparsenode_trajectory"])
    np.testing.assert_array_equal(first.layers["sparsenode_velocity"], second.layers["sparsenode_velocity"])


def test_each_lineage_has_its_clock(adata, table):
    """The same as a row for every cell of each lineage, which needs no table."""
    both = pd.concat([table[name].dropna().rename("time").to_frame().assign(lineage=name) for name in table])
    names = np.char.add(both.index.to_numpy(str), both["lineage"].to_numpy(str))
    rows = AnnData(adata[both.index].X, both.set_index(names), adata.var)
    fits = []
    for cells, keys in ((adata, {"time_key": TABLE}), (rows, {"time_key": "time", "lineage_key": "lineage"})):
        sn.SparseNODE.setup_anndata(cells, **keys)
        model = sn.SparseNODE(cells, objective="trajectory")
        model.train(3, train_size=1.0, accelerator="cpu", enable_progress_bar=False)
        fits.append(model)
    one, other = fits
    pd.testing.assert_frame_equal(one.trajectories, other.trajectories)
    pd.testing.assert_frame_equal(one.evaluate(), other.evaluate(), rtol=1e-4)
    times = np.linspace(1.0, 2.0, 7)
    np.testing.assert_allclose(one.predict(times=times), other.predict(times=times), rtol=1e-4, atol=1e-5)
    alone = (table["erythroid"].notna() & table["myeloid"].isna()).to_numpy()
    in_rows = rows.obs_names.get_indexer(adata.obs_names[alone] + "erythroid")
    np.testing.assert_allclose(one.predict()[alone], other.predict()[in_rows], rtol=1e-4, atol=1e-5)


def test_transport_orders_the_cells_of_a_lineage_by_its_clock(adata, table, monkeypatch):
    seen = []
    from sparsenode.model import _preparation

    couple = _preparation.couple_cells
    monkeypatch.setattr(_preparation, "couple_cells", lambda times, *args: seen.append(times) or couple(times, *args))
    table["myeloid"] = table["myeloid"].max() - table["myeloid"]  # the other way round
    adata.obsm[TABLE] = table
    sn.SparseNODE.setup_anndata(adata, time_key=TABLE)
    model = sn.SparseNODE(adata, objective="transport")
    model.train(1, train_size=1.0, accelerator="cpu", enable_progress_bar=False)
    for m, name in enumerate(table):
        member = table[name].notna().to_numpy()
        scaled = (table[name] - table[name].min()) / (table[name].max() - table[name].min())
        np.testing.assert_allclose(seen[0][member, m], scaled[member])


def test_other_cells_need_the_lineages_that_they_have(adata, table, make_adata):
    sn.SparseNODE.setup_anndata(adata, time_key=TABLE)
    model = sn.SparseNODE(adata, objective="trajectory")
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    other = make_adata(seed=1)
    other.obsm[TABLE] = pd.DataFrame({"myeloid": other.obs[TIME] + 3.0})
    assert list(model.evaluate(other).index) == ["myeloid", "total"]
    other.obsm[TABLE]["erythroid"] = np.nan
    assert list(model.evaluate(other).index) == ["myeloid", "total"]
    other.obsm[TABLE]["none"] = np.nan
    assert list(model.evaluate(other).index) == ["myeloid", "total"]
    other.obsm[TABLE] = table.set_axis([0, 1], axis=1)
    with pytest.raises(ValueError, match="no column names") as caught:
        model.evaluate(other)
    exec(str(caught.value).split("`")[-2], {"adata": other, "pd": pd, "np": np})
    assert list(model.evaluate(other).index) == ["erythroid", "myeloid", "total"]
    del other.obsm[TABLE]
    other.obs[TABLE] = other.obs[TIME]
    with pytest.raises(ValueError, match=r"a table .* with the columns \['erythroid', 'myeloid'\], found a column"):
        model.evaluate(other)
    del other.obs[TABLE]
    other.obsm[TABLE] = pd.DataFrame({"lymphoid": other.obs[TIME]})
    with pytest.raises(ValueError, match=r"new ones in 'slingshot': \['lymphoid'\]"):
        model.evaluate(other)
    some = adata[::2].copy()
    np.testing.assert_allclose(model.predict(some), model.predict()[::2], rtol=1e-5)


def test_a_fit_with_a_table_is_saved_written_and_plotted(adata, table, tmp_path):
    sn.SparseNODE.setup_anndata(adata, time_key=TABLE)
    model = sn.SparseNODE(adata, objective="trajectory")
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    model.view_anndata_setup()
    place = model.adata_manager.data_registry["trajectories"]
    assert (place["attr_name"], place["attr_key"]) == ("obsm", TABLE)
    model.save(str(tmp_path / "model"))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    cells = read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(cells.obsm[TABLE], table, check_freq=False)
    loaded = sn.SparseNODE.load(str(tmp_path / "model"), cells)
    np.testing.assert_array_equal(loaded.predict(), model.predict())
    pd.testing.assert_frame_equal(loaded.evaluate(), model.evaluate())


def test_other_cells_with_a_table_where_the_model_has_a_column(adata, table):
    sn.SparseNODE.setup_anndata(adata)
    model = sn.SparseNODE(adata, objective="trajectory")
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    other = adata.copy()
    del other.obs[TIME]
    other.obsm[TIME] = table
    with pytest.raises(ValueError, match=f"a column `adata.obs.'{TIME}'.`, found a table"):
        model.evaluate(other)


@pytest.mark.parametrize("names", [["all"], ["all", "some"]])
def test_a_lineage_of_a_table_that_is_named_as_that_of_a_column(adata, names):
    adata.obsm[TABLE] = pd.DataFrame(dict.fromkeys(names, adata.obs[TIME]))
    sn.SparseNODE.setup_anndata(adata, time_key=TABLE)
    model = sn.SparseNODE(adata, objective="trajectory")
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    assert list(model.evaluate(adata.copy()).index) == [*names, "total"]


def test_a_table_of_numbers_that_may_be_missing(adata, table):
    expected = read_observations(adata, TABLE, None, None)
    adata.obsm[TABLE] = table.astype("Float64")
    assert adata.obsm[TABLE].isna().any(axis=None)
    found = read_observations(adata, TABLE, None, None)
    np.testing.assert_array_equal(found.times, expected.times)
    np.testing.assert_array_equal(found.memberships, expected.memberships)


@pytest.mark.parametrize("kind", ["float64", "Float64"])
def test_a_table_in_mudata_must_be_that_of_the_modality(adata, table, kind):
    whole = table.astype(kind)
    mdata = MuData({"rna": adata})
    mdata.obsm[TABLE], adata.obsm[TABLE] = whole, whole.copy()
    sn.SparseNODE.setup_mudata(mdata, time_key=TABLE)
    for change in (whole + 1.0, whole.rename(columns={"erythroid": "Ery"}), whole.fillna(0.0)):
        mdata.obsm[TABLE] = change
        with pytest.raises(ValueError, match="different values") as caught:
            sn.SparseNODE.setup_mudata(mdata, time_key=TABLE)
    exec(str(caught.value).split("`")[-2], {"mdata": mdata})
    sn.SparseNODE.setup_mudata(mdata, time_key=TABLE)
    with pytest.raises(KeyError, match="memberships"):
        sn.SparseNODE.setup_mudata(mdata, time_key="slingshots")


def test_a_table_in_mudata(adata, table):
    whole = table.copy()
    del adata.obsm[TABLE]
    mdata = MuData({"rna": adata})
    mdata.obsm[TABLE] = whole
    sn.SparseNODE.setup_mudata(mdata, time_key=TABLE)
    model = sn.SparseNODE(mdata, objective="trajectory")
    assert list(model.trajectories.index) == ["erythroid", "myeloid"]
    np.testing.assert_array_equal(model.trajectories["end"], whole.max())


# A table that is refused


def test_one_key_in_both_places(adata, table, refused):
    adata.obs[TABLE] = adata.obs[TIME]
    message = refused(adata, ValueError, "`time_key`", "'slingshot' in both", "Rename one", time_key=TABLE)
    exec(message.split("`")[-2], {"adata": adata})
    sn.SparseNODE.setup_anndata(adata, time_key=TABLE)


def test_an_array_has_no_names_and_the_fix_works(adata, table, refused):
    adata.obsm[TABLE] = table.to_numpy()
    message = refused(adata, TypeError, "`adata.obsm['slingshot']`", "found ndarray", time_key=TABLE)
    fix = message.split("`")[-2].replace("[names of the lineages]", "['erythroid', 'myeloid']")
    exec(fix, {"adata": adata, "pd": pd})
    pd.testing.assert_frame_equal(read_pseudotime(adata, TABLE, False), table)


@pytest.mark.parametrize(
    "convert", [lambda table: table.astype(str), lambda table: table.notna()], ids=["text", "booleans"]
)
def test_tables_of_text_or_booleans(adata, table, refused, convert):
    adata.obsm[TABLE] = convert(table)
    message = refused(
        adata, TypeError, "`adata.obsm['slingshot']` to be numeric", "['erythroid', 'myeloid']", time_key=TABLE
    )
    if pd.api.types.is_string_dtype(adata.obsm[TABLE]["erythroid"]):
        exec(message.split("`")[-2], {"adata": adata, "pd": pd})
        pd.testing.assert_frame_equal(read_pseudotime(adata, TABLE, False), table)


def test_columns_that_read_the_same(adata, table, refused):
    adata.obsm[TABLE] = table.set_axis([1, "1"], axis=1)
    refused(adata, ValueError, "unique column names, found ['1', '1']", time_key=TABLE)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_times_are_counted_and_the_fix_works(adata, table, refused, value):
    adata.obsm[TABLE].iloc[:3] = value
    message = refused(adata, ValueError, "infinite ones in 3 of 120 cells", time_key=TABLE)
    exec(message.split("`")[-2], {"adata": adata, "np": np})
    assert np.isnan(adata.obsm[TABLE].iloc[:3]).all(axis=None)


def test_complex_times_and_the_fix_works(adata, refused):
    """As numbers they would lose a part of them."""
    adata.obs[TIME] = adata.obs[TIME] + 1j
    message = refused(adata, TypeError, f"`adata.obs['{TIME}']`, found dtype complex128", time_key=TIME)
    exec(message.split("`")[-2], {"adata": adata, "np": np})
    sn.SparseNODE.setup_anndata(adata, time_key=TIME)


def test_complex_numbers_and_tables_without_columns(adata, table, refused):
    adata.obsm[TABLE] = table.assign(myeloid=1j)
    refused(adata, TypeError, "`adata.obsm['slingshot']['myeloid']`, found dtype complex128", time_key=TABLE)
    adata.obsm[TABLE] = table[[]]
    refused(adata, ValueError, "a column per lineage", "found none", time_key=TABLE)


@pytest.mark.parametrize("kind", ["float64", "Float64"])
def test_cells_without_a_time_are_counted_and_the_fix_works(adata, table, refused, kind):
    adata.obsm[TABLE].iloc[:4] = np.nan
    if kind == "Float64":  # numbers that are NaN, which before pandas 3 are not missing
        adata.obsm[TABLE] = adata.obsm[TABLE].fillna(0.0).astype(kind) / adata.obsm[TABLE].notna().astype(kind)
    message = refused(adata, ValueError, "`adata.obsm['slingshot']` for 4 of 120 cells", time_key=TABLE)
    fixed = eval(message.split("`")[-2].removeprefix("adata = "), {"adata": adata})
    sn.SparseNODE.setup_anndata(fixed, time_key=TABLE)
    assert fixed.n_obs == 116


def test_lineages_without_cells_and_the_fix_works(adata, table, refused):
    adata.obsm[TABLE]["lymphoid"] = np.nan
    message = refused(adata, ValueError, "only missing values for ['lymphoid']", time_key=TABLE)
    exec(message.split("`")[-2], {"adata": adata})
    assert list(adata.obsm[TABLE]) == ["erythroid", "myeloid"]


def test_members_without_a_time(adata, table, refused):
    adata.obsm[TABLE].loc[adata.obs_names[:120:40], "erythroid"] = np.nan
    adata.obsm["memberships"]["erythroid"] = 1.0
    missing = int(adata.obsm[TABLE]["erythroid"].isna().sum())
    parts = (f"for {missing} of the 120 cells of 'erythroid'", "leave out `lineage_key`")
    refused(adata, ValueError, *parts, time_key=TABLE, lineage_key="memberships")
    adata.obsm["memberships"]["erythroid"] = np.where(np.arange(120) < 30, 0.1, 0.0)
    missing = int(adata.obsm[TABLE]["erythroid"][:30].isna().sum())
    assert 0 < missing < 30
    parts = (f"for {missing} of the 30 cells of 'erythroid'",)
    adata.obsm["memberships"]["myeloid"] = 1.0 - adata.obsm["memberships"]["erythroid"]
    refused(adata, ValueError, *parts, time_key=TABLE, lineage_key="memberships")


def test_columns_are_the_lineages(adata, table, refused):
    keys = {"time_key": TABLE, "lineage_key": "memberships"}
    adata.obsm[TABLE] = table.rename(columns={"myeloid": "Myeloid"})
    refused(adata, ValueError, "['erythroid', 'myeloid']", "none for ['myeloid']", "'Myeloid']", **keys)
    adata.obsm[TABLE] = table.assign(lymphoid=1.0)
    message = refused(adata, ValueError, "found ['lymphoid']", **keys)
    exec(message.split("`")[-2], {"adata": adata})
    pd.testing.assert_frame_equal(adata.obsm[TABLE], table)
    adata.obsm[TABLE] = table.assign(lymphoid=np.nan)  # a subset of cells has no more
    assert read_observations(adata, TABLE, "memberships", None).lineage_names == ["erythroid", "myeloid"]


def test_pseudotimes_are_no_memberships(adata, table, refused):
    adata.obsm[TABLE] = table.fillna(0.0)
    refused(adata, ValueError, "`lineage_key`", "for both keys", time_key=TABLE, lineage_key=TABLE)


def test_a_constant_time_in_one_lineage(adata, table, refused):
    adata.obsm[TABLE]["myeloid"] = table["myeloid"].where(table["myeloid"].isna(), 2.0)
    refused(adata, ValueError, "found 2 in all", "'myeloid'", time_key=TABLE)
