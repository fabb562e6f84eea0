"""MuData: the same fit as with AnnData, from wherever the annotations are, and back into the modalities."""

from __future__ import annotations

import logging
import warnings
from contextlib import nullcontext

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

import sparsenode as sn

SETUP = {"lineage_key": "lineage", "modalities": {"layer": "rna"}}
QUICK = {"max_epochs": 2, "steps_per_epoch": 3, "accelerator": "cpu", "enable_progress_bar": False}
SMALL = {"objective": "trajectory", "hidden": (8, 8), "n_knots": 5}


@pytest.fixture(autouse=True)
def _pull_nothing():
    # mudata before 0.4 copies columns into the whole unless it is told not to
    with mudata.set_options(pull_on_update=False) if hasattr(mudata, "set_options") else nullcontext():
        yield


def bundle(rna: AnnData, n_peaks: int = 3) -> MuData:
    """Expression beside a modality whose cells stand in another order, and whose variables share a name with a gene."""
    generator = np.random.default_rng(3)
    order = generator.permutation(rna.n_obs)
    x = (rna.X[:, :n_peaks] + generator.normal(0, 0.1, (rna.n_obs, n_peaks)))[order].astype(np.float32)
    names = [rna.var_names[0], *(f"region{k}" for k in range(1, n_peaks))]
    atac = AnnData(x, obs=pd.DataFrame(index=rna.obs_names[order]), var=pd.DataFrame(index=names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that repeat
        return MuData({"atac": atac, "rna": rna})


@pytest.fixture
def mdata(adata) -> MuData:
    return bundle(adata)


def train(mdata: MuData, setup: dict | None = None, **model) -> sn.SparseNODE:
    sn.SparseNODE.setup_mudata(mdata, **(SETUP if setup is None else setup))
    fitted = sn.SparseNODE(mdata, **(SMALL | model))
    fitted.train(**QUICK)
    return fitted


JOINT = {"lineage_key": "lineage", "modalities": {"layer": "rna", "regulator_layer": "atac"}}


def test_is_the_fit_of_the_anndata(make_adata, fit):
    model = train(bundle(make_adata()))
    plain = fit(make_adata())
    assert model.adata is model.mdata["rna"]
    np.testing.assert_array_equal(model.get_adjacency(), plain.get_adjacency())
    np.testing.assert_array_equal(model.predict(), plain.predict())
    pd.testing.assert_frame_equal(model.evaluate(), plain.evaluate())
    for attribute in ("varp", "obsm", "layers"):
        for key, value in getattr(plain.adata, attribute).items():
            if str(key).startswith("sparsenode"):
                found = getattr(model.mdata["rna"], attribute)[key]
                np.testing.assert_array_equal(*(v.toarray() if sparse.issparse(v) else v for v in (found, value)))


@pytest.mark.parametrize("place", ["mdata", "other"])
def test_annotations_from_elsewhere(make_adata, place):
    keys = {"time_key": "dpt_pseudotime", "lineage_key": "lineage", "batch_key": "donor"}
    expected = train(bundle(make_adata(n_donors=2)), SETUP | keys).get_adjacency()
    mdata = bundle(make_adata(n_donors=2))
    rna, atac = mdata["rna"], mdata["atac"]
    obs = rna.obs[list(keys.values())].copy()
    rna.obs = rna.obs.drop(columns=obs.columns)
    named = {"layer": "rna"}
    if place == "mdata":
        for key in obs:
            mdata.obs[key] = obs[key].reindex(mdata.obs_names)
    else:
        atac.obs = obs.reindex(atac.obs_names)
        named |= dict.fromkeys(keys, "atac")
    np.testing.assert_array_equal(train(mdata, {"modalities": named} | keys).get_adjacency(), expected)
    pd.testing.assert_frame_equal(rna.obs[obs.columns], obs, check_categorical=False)


def test_memberships_of_the_whole(make_adata):
    setup = {"lineage_key": "memberships", "modalities": {"layer": "rna"}}
    expected = train(bundle(make_adata()), setup).get_adjacency()
    mdata = bundle(make_adata())
    table = mdata["rna"].obsm.pop("memberships")
    mdata.obsm["memberships"] = table.reindex(mdata.obs_names)
    np.testing.assert_array_equal(train(mdata, setup).get_adjacency(), expected)


def test_results_survive_a_file(mdata, tmp_path):
    model = train(mdata)
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    read = mudata.read_h5mu(tmp_path / "cells.h5mu")["rna"]
    np.testing.assert_array_equal(read.varp["sparsenode_adjacency"].toarray(), model.get_adjacency().astype(np.float32))
    np.testing.assert_array_equal(read.obsm["sparsenode_trajectory"], mdata["rna"].obsm["sparsenode_trajectory"])
    assert dict(read.uns["sparsenode"]["setup"]["modalities"]) == {"layer": "rna"}
    assert sn.pl.trajectory(read, genes=[read.var_names[0]], show=False) is not None


@pytest.mark.parametrize("setup", [SETUP, JOINT], ids=["one", "joint"])
def test_save_and_load(mdata, setup, tmp_path):
    model = train(mdata, setup)
    model.save(tmp_path / "model", save_anndata=True)
    assert {file.name for file in (tmp_path / "model").iterdir()} == {"mdata.h5mu", "model.pt"}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*var_names.*does not match")
        loaded = sn.SparseNODE.load(tmp_path / "model")
        again = sn.SparseNODE.load(tmp_path / "model", adata=mdata)
    assert isinstance(loaded.mdata, MuData)
    for other in (loaded, again):
        np.testing.assert_array_equal(other.get_adjacency(), model.get_adjacency())
        np.testing.assert_array_equal(other.predict(), model.predict())
        assert list(other.genes) == list(model.genes)
    loaded.train(**QUICK)
    assert "sparsenode_trajectory" in loaded.mdata["rna"].obsm


def test_a_model_of_mudata_is_not_loaded_with_anndata(mdata, tmp_path):
    train(mdata).save(tmp_path / "model")
    with pytest.raises(TypeError, match=r"`adata` to be a MuData object, .* found AnnData. Pass .*`MuData\({"):
        sn.SparseNODE.load(tmp_path / "model", mdata["rna"])


@pytest.mark.parametrize("setup", [SETUP, JOINT], ids=["one", "joint"])
def test_baselines_without_order_of_what_a_mudata_was_set_up_with(mdata, setup):
    """Annotations have been brought into the modality, or into the joined data: it is as if these had been set up."""
    model = train(mdata, setup)
    found = sn.tl.network_baselines(model.adata, "shuffled_time", regulators=list(model.genes[:2]))
    plain = model.adata.copy()
    sn.SparseNODE.setup_anndata(plain, lineage_key="lineage")
    expected = sn.tl.network_baselines(plain, "shuffled_time", regulators=list(model.genes[:2]))
    pd.testing.assert_frame_equal(found["shuffled_time"], expected["shuffled_time"])


def test_files_with_a_prefix(mdata, tmp_path):
    model = train(mdata)
    model.save(tmp_path / "model", prefix="first_", save_anndata=True)
    assert {file.name for file in (tmp_path / "model").iterdir()} == {"first_mdata.h5mu", "first_model.pt"}
    loaded = sn.SparseNODE.load(tmp_path / "model", prefix="first_")
    np.testing.assert_array_equal(loaded.predict(), model.predict())


@pytest.mark.parametrize("other", ["rna2", "rna:x"])
def test_blocks_of_modalities_whose_names_begin_alike(make_adata, other):
    parts = bundle(make_adata()).mod
    mdata = MuData({"rna": parts["rna"], other: parts["atac"]})
    model = train(mdata, {"lineage_key": "lineage", "modalities": {"layer": "rna", "regulator_layer": other}})
    blocks = model.get_adjacency_blocks()
    assert list(blocks) == [("rna", "rna"), ("rna", other), (other, "rna"), (other, other)]
    assert blocks["rna", other].shape == (8, 3)
    assert list(blocks[other, "rna"].columns) == list(parts["rna"].var_names)
    assert list(blocks[other, other].index) == list(parts["atac"].var_names)


def test_other_donors(make_adata, fit):
    model, plain = train(bundle(make_adata())), fit(make_adata())
    other, same = bundle(make_adata(seed=5)), make_adata(seed=5)
    pd.testing.assert_frame_equal(model.evaluate(other), plain.evaluate(same))
    np.testing.assert_array_equal(model.predict(other), plain.predict(same))
    np.testing.assert_array_equal(model.get_velocity(other), plain.get_velocity(same))
    model.write_results(other, key_added="new")
    assert "new_adjacency" in other["rna"].varp
    assert "new" not in model.mdata["rna"].uns
    with pytest.raises(TypeError, match="set up with AnnData"):
        plain.predict(other)


def test_views_can_be_read_and_not_written(make_adata):
    model = train(bundle(make_adata()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that repeat
        view = model.mdata[model.mdata["rna"].obs_names[::2]]
        same = view.copy()
    assert view.is_view
    np.testing.assert_array_equal(model.predict(view), model.predict(same))
    pd.testing.assert_frame_equal(model.evaluate(view), model.evaluate(same))
    with pytest.raises(ValueError, match="no view of a MuData"):
        model.write_results(view)
    with pytest.raises(ValueError, match="`mdata` to be no view"):
        sn.SparseNODE.setup_mudata(view, **SETUP)


def test_two_modalities_are_one_state(make_adata, fit):
    mdata = bundle(make_adata())
    rna, atac = mdata["rna"], mdata["atac"]
    cells = rna.copy()
    model = train(mdata, JOINT)
    names = [*(f"rna:{n}" for n in rna.var_names), *(f"atac:{n}" for n in atac.var_names)]
    assert list(model.genes) == names
    both = AnnData(
        np.hstack([rna.X, atac[rna.obs_names].X]), obs=cells.obs, var=pd.DataFrame(index=names), obsm=dict(cells.obsm)
    )
    plain = fit(both)
    np.testing.assert_array_equal(model.get_adjacency(), plain.get_adjacency())
    np.testing.assert_array_equal(model.predict(), plain.predict())
    blocks = model.get_adjacency_blocks()
    assert set(blocks) == {(t, r) for t in ("rna", "atac") for r in ("rna", "atac")}
    n = rna.n_vars
    np.testing.assert_array_equal(blocks["rna", "atac"], plain.get_adjacency().iloc[:n, n:])
    np.testing.assert_array_equal(blocks["atac", "rna"], plain.get_adjacency().iloc[n:, :n])
    assert list(blocks["rna", "atac"].columns) == list(atac.var_names)
    assert list(blocks["rna", "atac"].index) == list(rna.var_names)
    of_one = model.get_adjacency_blocks("myeloid")["rna", "atac"]
    np.testing.assert_array_equal(of_one, plain.get_adjacency("myeloid").iloc[:n, n:])


def test_results_of_two_modalities(make_adata, tmp_path):
    mdata = bundle(make_adata())
    rna, atac = mdata["rna"], mdata["atac"]
    train(mdata)
    assert "sparsenode_adjacency" in rna.varp
    model = train(mdata, JOINT, n_seeds=2)
    assert "sparsenode" not in rna.uns
    assert not rna.varp
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    read = mudata.read_h5mu(tmp_path / "cells.h5mu")
    predicted = pd.DataFrame(model.predict(), rna.obs_names, model.genes)
    velocity = pd.DataFrame(model.get_velocity(), rna.obs_names, model.genes)
    for name, adata in (("rna", rna), ("atac", atac)):
        columns = [f"{name}:{n}" for n in adata.var_names]
        expected = predicted.loc[adata.obs_names, columns]
        np.testing.assert_array_equal(read[name].obsm["sparsenode_trajectory"], expected)
        np.testing.assert_array_equal(read[name].layers["sparsenode_velocity"], velocity.loc[adata.obs_names, columns])
    order = [f"atac:{n}" for n in atac.var_names] + [f"rna:{n}" for n in rna.var_names]  # of the MuData
    for lineage in (None, *model.lineages):
        key = "sparsenode_adjacency" if lineage is None else f"sparsenode_adjacency_{lineage}"
        expected = model.get_adjacency(lineage).loc[order, order].astype(np.float32)
        np.testing.assert_array_equal(read.varp[key].toarray(), expected)
    assert "sparsenode_frequency" in read.varp
    assert "scores" in read.uns["sparsenode"]
    del mdata.uns["sparsenode"]["scores"]
    assert "scores" in model.adata.uns["sparsenode"]
    other = bundle(make_adata(seed=4))
    model.write_results(other)
    assert other["atac"].obsm["sparsenode_trajectory"].shape == atac.shape


def test_results_in_some_cells_of_two_modalities_stay_with_them(mdata):
    model = train(mdata, JOINT)
    some = model.adata[::2].copy()
    model.write_results(some, key_added="new")
    assert "new" in some.uns
    assert "new" not in mdata.uns
    assert "new_velocity" not in mdata["rna"].layers


def test_results_of_an_earlier_fit_of_two_modalities_are_replaced(mdata, monkeypatch):
    mdata.varp["sparsenode_adjacency_prior"] = np.eye(mdata.n_vars)
    train(mdata, JOINT)
    monkeypatch.setattr("sparsenode.model._results.MAX_DENSE", 0)
    with pytest.warns(UserWarning, match="too many"):
        train(mdata, JOINT, fields="shared")
    assert set(mdata.varp) == {"sparsenode_adjacency", "sparsenode_adjacency_prior"}
    assert "sparsenode_trajectory" not in mdata["atac"].obsm
    assert "sparsenode_velocity" not in mdata["rna"].layers


def test_the_second_modality_regulates(mdata):
    mdata["rna"].var["is_tf"] = [True] + [False] * 7
    mdata["rna"].X = sparse.csr_matrix(mdata["rna"].X)
    model = train(mdata, JOINT, regulators="atac")
    adjacency = model.get_adjacency().to_numpy()
    assert (adjacency[:, :8] == 0).all()
    assert (adjacency[:, 8:] != 0).any()
    again = sn.SparseNODE(mdata, **SMALL, regulators="is_tf")
    assert again._regulators == [0]
    prior = pd.DataFrame({"source": [f"atac:{mdata['atac'].var_names[1]}"], "target": ["rna:gene3"]})
    weighted = sn.SparseNODE(mdata, **SMALL, regularizer="cnode", prior=prior)
    assert weighted.module is not None


def test_layers_of_both(mdata):
    expected = train(mdata, JOINT).get_adjacency()
    for name, layer in {"rna": "values", "atac": "openness"}.items():
        mdata[name].layers[layer] = mdata[name].X.copy()
        mdata[name].X = np.zeros_like(mdata[name].X)
    mdata["atac"].layers["values"] = mdata["atac"].X
    found = train(mdata, JOINT | {"layer": "values", "regulator_layer": "openness"}).get_adjacency()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize(("large", "small"), [("atac", "rna"), ("rna", "atac")])
def test_warns_of_uneven_modalities(mdata, large, small, convert):
    """Where the mean variance is more than ten times as large; means do not matter."""
    for name, spread in {large: 1.0, small: 1.0 / np.sqrt(15)}.items():
        x = mdata[name].X - mdata[name].X.mean(0)
        mdata[name].X = convert((5.0 + spread * x / x.std()).astype(np.float32))
    with pytest.warns(UserWarning, match=f"'{large}' varies 15 times as much as '{small}'"):
        sn.SparseNODE.setup_mudata(mdata, **JOINT)


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix])
def test_warns_of_no_modality_for_its_mean(mdata, convert):
    for name, mean in {"atac": 50.0, "rna": 1.0}.items():
        x = mdata[name].X - mdata[name].X.mean(0)
        mdata[name].X = convert((mean + (2.0 if name == "rna" else 1.0) * x / x.std()).astype(np.float32))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".* varies .* times as much")
        sn.SparseNODE.setup_mudata(mdata, **JOINT)


def test_two_modalities_keep_what_plots_need(mdata):
    """Embeddings and colours of the modality of the expression; what is done to its cells later does not reach them."""
    rna = mdata["rna"]
    rna.obsm["X_umap"] = np.arange(240.0).reshape(120, 2)
    rna.uns["lineage_colors"] = ["#ff0000", "#0000ff"]
    sn.SparseNODE.setup_mudata(mdata, **JOINT)
    joined = sn.SparseNODE(mdata, **SMALL).adata
    np.testing.assert_array_equal(joined.obsm["X_umap"], rna.obsm["X_umap"])
    assert list(joined.uns["lineage_colors"]) == ["#ff0000", "#0000ff"]
    before = joined.obs["dpt_pseudotime"].to_numpy().copy()
    rna.obs["dpt_pseudotime"] = 0.0
    np.testing.assert_array_equal(joined.obs["dpt_pseudotime"], before)
    rna.obsm["X_umap"][:] = 0.0
    assert joined.obsm["X_umap"].max() == 239


@pytest.mark.parametrize("convert", [lambda table: table, pd.DataFrame.to_numpy], ids=["table", "array"])
def test_memberships_of_another_modality_follow_its_cells(make_adata, convert):
    setup = {"lineage_key": "memberships", "modalities": {"layer": "rna"}}
    expected = train(bundle(make_adata()), setup).get_adjacency()
    mdata = bundle(make_adata())
    table = mdata["rna"].obsm.pop("memberships")
    mdata["atac"].obsm["memberships"] = convert(table.reindex(mdata["atac"].obs_names))
    setup["modalities"] = {"layer": "rna", "lineage_key": "atac"}
    np.testing.assert_array_equal(train(mdata, setup).get_adjacency(), expected)


def test_two_backed_modalities_are_refused(mdata, tmp_path):
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    backed = mudata.read_h5mu(tmp_path / "cells.h5mu", backed="r")
    with pytest.raises(ValueError, match=r"in memory to fit two together, found \['rna', 'atac'\] backed"):
        sn.SparseNODE.setup_mudata(backed, **JOINT)


def test_a_key_of_the_mudata_that_holds_something_else_is_found_before_training(mdata):
    sn.SparseNODE.setup_mudata(mdata, **JOINT)
    model = sn.SparseNODE(mdata, objective="trajectory", hidden=(8, 8), n_knots=5)
    mdata.uns["sparsenode"] = {"note": "mine"}
    with pytest.raises(ValueError, match=r"`uns\['sparsenode'\]` to be free"):
        model.train(max_epochs=1, accelerator="cpu")
    assert not model.is_trained_
    assert "sparsenode" not in model.adata.uns


@pytest.mark.parametrize("place", ["varp", "obsm", "layers"])
def test_what_users_have_under_these_keys_is_not_overwritten(mdata, place):
    holder = mdata if place == "varp" else mdata["atac"]
    key = {"varp": "sparsenode_adjacency", "obsm": "sparsenode_trajectory", "layers": "sparsenode_velocity"}[place]
    kept = np.zeros({"varp": (mdata.n_vars, mdata.n_vars)}.get(place, mdata["atac"].shape))
    getattr(holder, place)[key] = kept
    with pytest.raises(ValueError, match=rf"`{place}\['{key}'\]`, which no fit"):
        train(mdata, JOINT)
    assert getattr(holder, place)[key] is kept
    assert "sparsenode" not in mdata.uns
    del getattr(holder, place)[key]
    train(mdata, JOINT)
    train(mdata, JOINT)  # those of a fit are replaced


def test_results_of_one_modality_and_of_two_replace_each_other(mdata):
    alone = train(mdata)
    joint = train(mdata, JOINT)
    assert "sparsenode_trajectory" in mdata["atac"].obsm
    alone = train(mdata)
    np.testing.assert_array_equal(mdata["rna"].obsm["sparsenode_trajectory"], alone.predict())
    sn.SparseNODE.setup_mudata(mdata, **JOINT)
    assert "sparsenode_trajectory" not in sn.SparseNODE(mdata, **SMALL).adata.obsm
    joint.write_results(mdata, key_added="other")
    alone.write_results(mdata, key_added="other")
    np.testing.assert_array_equal(mdata["rna"].obsm["other_trajectory"], alone.predict())


def test_a_third_modality_is_none_of_an_earlier_joint_fit(make_adata):
    """Its data are not overwritten, and nothing is left in a modality that is no longer fitted."""
    mdata = bundle(make_adata())
    third = mdata["atac"].copy()
    third.var_names = [f"protein{k}" for k in range(third.n_vars)]
    mdata = MuData({"rna": mdata["rna"], "atac": mdata["atac"], "protein": third})
    train(mdata, JOINT)
    kept = mdata["protein"].layers["sparsenode_velocity"] = np.full(third.shape, 7.0)
    train(mdata, JOINT)
    assert mdata["protein"].layers["sparsenode_velocity"] is kept
    others = JOINT | {"modalities": {"layer": "rna", "regulator_layer": "protein"}}
    with pytest.raises(ValueError, match=r"del mdata\['protein'\].layers\['sparsenode_velocity'\]"):
        train(mdata, others)
    assert mdata["protein"].layers["sparsenode_velocity"] is kept
    assert "sparsenode_velocity" in mdata["atac"].layers
    del mdata["protein"].layers["sparsenode_velocity"]
    train(mdata, others)
    assert "sparsenode_velocity" not in mdata["atac"].layers
    assert "sparsenode_velocity" in mdata["protein"].layers
    # what was fitted alone since is no longer of the joint fit
    alone = train(mdata)
    columns = ["dpt_pseudotime", "lineage"]
    mdata["protein"].obs[columns] = mdata["rna"].obs.loc[mdata["protein"].obs_names, columns]
    train(mdata, JOINT | {"modalities": {"layer": "protein", "regulator_layer": "atac"}})
    np.testing.assert_array_equal(mdata["rna"].obsm["sparsenode_trajectory"], alone.predict())


def test_other_entries_of_uns_are_no_results(mdata):
    mdata["rna"].uns["export"] = mdata.uns["note"] = {"written": "2026-11-29"}
    train(mdata, JOINT)
    assert mdata["rna"].uns["export"] == mdata.uns["note"] == {"written": "2026-11-29"}


def test_variances_of_integers_do_not_overflow(mdata):
    for name, factor in {"rna": 10, "atac": 20}.items():
        values = mdata[name].X
        mdata[name].X = (factor * (values - values.min()) / np.ptp(values) * 12).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".* varies .* times as much")
        sn.SparseNODE.setup_mudata(mdata, **JOINT)


def test_writes_what_it_brings_into_the_log(mdata, caplog):
    mdata.obs["time"] = mdata["rna"].obs["dpt_pseudotime"].reindex(mdata.obs_names)
    with caplog.at_level(logging.INFO, "sparsenode"):
        sn.SparseNODE.setup_mudata(mdata, time_key="time", modalities={"layer": "rna"})
    assert "Wrote 'time' into the modality 'rna'" in caplog.text
    assert "time" in mdata["rna"].obs


@pytest.mark.parametrize("wrong", ["time", "lineage", "elsewhere"])
def test_what_cannot_be_used_is_not_left_in_the_modality(mdata, wrong):
    """So that it can be put right where it is: the modality would hold the old values, and the two would differ."""
    rna = mdata["rna"]
    mdata.obs["time"] = rna.obs["dpt_pseudotime"].reindex(mdata.obs_names)
    mdata.obs["fate"] = rna.obs.pop("lineage").astype(str).reindex(mdata.obs_names)
    mdata.update()
    right = {key: mdata.obs[key].copy() for key in ("time", "fate")}
    broken = {
        "time": ("time", right["time"].where(np.arange(mdata.n_obs) > 2), "found 3 of 120 cells missing"),
        "lineage": ("fate", right["fate"].where(np.arange(mdata.n_obs) > 2, "few"), "found 3 in 'few'"),
        "elsewhere": ("fate", None, "found 'fate' in neither"),
    }
    key, values, message = broken[wrong]
    mdata.obs[key] = values
    if values is None:
        del mdata.obs[key]
    setup = {"time_key": "time", "lineage_key": "fate", "modalities": {"layer": "rna"}}
    with pytest.raises((ValueError, KeyError), match=message):
        sn.SparseNODE.setup_mudata(mdata, **setup)
    assert not {"time", "fate"} & {*rna.obs}
    mdata.obs[key] = right[key]
    sn.SparseNODE.setup_mudata(mdata, **setup)
    assert {"time", "fate"} <= {*rna.obs}


def test_what_a_model_cannot_use_is_not_left_in_the_modality_of_others(make_adata):
    mdata, other = bundle(make_adata()), bundle(make_adata(seed=1))
    for one in (mdata, other):
        one.obs["fate"] = one["rna"].obs.pop("lineage").astype(str).reindex(one.obs_names)
    model = train(mdata, SETUP | {"lineage_key": "fate"})
    right = other.obs["fate"].copy()
    other.obs["fate"] = right.where(np.arange(other.n_obs) > 20, "new")
    with pytest.raises(ValueError, match=r"found new ones in 'fate': \['new'\]"):
        model.predict(other)
    other.obs["fate"] = right
    model.predict(other)


def test_a_model_is_loaded_with_cells_that_lack_a_lineage(make_adata, tmp_path):
    rna = make_adata()
    rna.obsm["fates"] = pd.get_dummies(rna.obs["lineage"]).astype(float)
    setup = SETUP | {"lineage_key": "fates"}
    model = train(bundle(rna), setup)
    model.save(tmp_path / "model")
    first = bundle(rna[rna.obsm["fates"].iloc[:, 0] > 0].copy())
    loaded = sn.SparseNODE.load(tmp_path / "model", adata=first)
    assert loaded.lineages == model.lineages
    without_cells = sn.SparseNODE.load(tmp_path / "model", adata=False)  # cells of others, as for the loaded one
    np.testing.assert_array_equal(loaded.predict(), without_cells.predict(first))


def test_says_nothing_of_what_goes_into_the_joined_data(mdata, caplog):
    mdata.obs["time"] = mdata["rna"].obs["dpt_pseudotime"].reindex(mdata.obs_names)
    with caplog.at_level(logging.INFO, "sparsenode"):
        sn.SparseNODE.setup_mudata(mdata, **JOINT | {"time_key": "time"})
    assert "Wrote" not in caplog.text
    assert "time" not in mdata["rna"].obs
    assert "time" in sn.SparseNODE(mdata, objective="trajectory", hidden=(4,)).adata.obs


def test_refuses_what_it_cannot_set_up(mdata, adata):
    def refuse(error, match, data=mdata, **setup):
        with pytest.raises(error, match=match):
            sn.SparseNODE.setup_mudata(data, **(SETUP | setup))

    refuse(TypeError, "MuData object, found AnnData", adata)
    refuse(ValueError, "modality of the expression.*'layer': 'atac'", modalities=None)
    refuse(KeyError, r"'gex'.*\['atac', 'rna'\]", modalities={"layer": "gex"})
    refuse(ValueError, r"found \['expression'\]", modalities={"expression": "rna"})
    refuse(ValueError, "found 'rna' for both", modalities={"layer": "rna", "regulator_layer": "rna"})
    refuse(ValueError, "modality for `regulator_layer`", regulator_layer="values")
    refuse(KeyError, "`time_key`.*'age'.*in neither", time_key="age")
    refuse(KeyError, "modality 'atac', found no 'dpt_pseudotime'", modalities={"layer": "rna", "time_key": "atac"})
    refuse(KeyError, "'counts'", layer="counts")
    refuse(ValueError, "found one: results could not be written", mdata[:50])
    fewer = MuData({"rna": mdata["rna"], "atac": mdata["atac"][:100].copy()})
    refuse(ValueError, "found 20 only in the one and 0 only in the other", fewer, **JOINT)
    refuse(ValueError, "found 20 missing", fewer, modalities={"layer": "rna", "time_key": "atac"})
    with pytest.raises(ValueError, match=r"Call `SparseNODE.setup_mudata"):
        sn.SparseNODE(mdata)
    mdata.obs["dpt_pseudotime"] = 1.0
    refuse(ValueError, "different values in modality 'rna' and in `mdata`")
    del mdata.obs["dpt_pseudotime"]
    mdata["atac"].obs["lineage"] = "other"
    refuse(ValueError, "found 'lineage' with other values", modalities={"layer": "rna", "lineage_key": "atac"})
    sn.SparseNODE.setup_mudata(mdata, **SETUP)
    with pytest.raises(ValueError, match="or a copy"):
        sn.SparseNODE(mdata.copy())
    with pytest.raises(ValueError, match="model of two modalities"):
        sn.SparseNODE(mdata, **SMALL).get_adjacency_blocks()


def test_a_copy_that_is_set_up_leaves_the_original_set_up(mdata, tmp_path):
    model = train(mdata)
    other = mdata.copy()
    train(other)
    model.save(tmp_path / "model", save_anndata=True)
    loaded = sn.SparseNODE.load(tmp_path / "model")
    assert sn.SparseNODE(mdata, **SMALL).mdata is mdata
    assert sn.SparseNODE(other, **SMALL).mdata is other
    np.testing.assert_array_equal(loaded.predict(), model.predict())


def test_a_model_that_is_given_another_mudata(mdata):
    sn.SparseNODE.setup_mudata(mdata, **JOINT)
    model = sn.SparseNODE(mdata, objective="trajectory", hidden=(4,))
    model.train(1, accelerator="cpu", enable_progress_bar=False, steps_per_epoch=2)
    other = mdata.copy()
    sn.SparseNODE.setup_mudata(other, **JOINT)
    expected = model.evaluate(other)
    model.adata = other
    assert isinstance(model.adata, AnnData)
    pd.testing.assert_frame_equal(model.evaluate(), expected)


@pytest.mark.parametrize("setup", [JOINT, SETUP])
def test_mudata_that_a_model_is_given_stays_as_it_was_set_up(mdata, setup):
    """For other models that are made of it."""
    other = mdata.copy()
    model = train(mdata, setup)
    without = {name: value for name, value in setup.items() if name != "lineage_key"}
    sn.SparseNODE.setup_mudata(other, **without)
    model.adata = other
    assert model.lineages == ["erythroid", "myeloid"]
    made = sn.SparseNODE(other, **SMALL)
    assert made.lineages == ["all"]
    assert made.mdata is model.mdata is other
    made.train(**QUICK, key_added="made")
    model.train(**QUICK)
    assert len(model.evaluate()) == 3
    assert len(made.evaluate()) == 2


@pytest.mark.parametrize("setup", [JOINT, SETUP])
@pytest.mark.parametrize("has_data", [True, False])
def test_another_mudata_is_that_of_the_model_from_then_on(mdata, tmp_path, setup, has_data):
    """Results go there, and what is saved loads with it, also where the model was loaded without data."""
    other = mdata.copy()
    for one in (other, *other.mod.values()):
        one.obs_names = "other_" + one.obs_names
    model = train(mdata, setup)
    if not has_data:
        model.save(tmp_path / "without")
        model = sn.SparseNODE.load(tmp_path / "without", adata=False)
    model.adata = other
    assert model.mdata is other
    model.write_results()
    assert "sparsenode" in (other if setup is JOINT else other["rna"]).uns
    model.train(**QUICK)
    model.save(tmp_path / "model", save_anndata=True)
    for loaded in (sn.SparseNODE.load(tmp_path / "model"), sn.SparseNODE.load(tmp_path / "model", other)):
        assert isinstance(loaded.mdata, MuData)
        np.testing.assert_array_equal(loaded.predict(), model.predict())


@pytest.mark.parametrize("modalities", ["rna", ["rna", "atac"]], ids=str)
def test_modalities_that_are_no_mapping(mdata, modalities):
    with pytest.raises(
        TypeError, match=r"`modalities` to map arguments to modalities, such as \{'layer': '\w+'\}, found"
    ):
        sn.SparseNODE.setup_mudata(mdata, modalities=modalities)


def test_a_list_of_keys(mdata):
    with pytest.raises(TypeError, match=r"`batch_key` to be one name, found \['donor'\]"):
        sn.SparseNODE.setup_mudata(mdata, batch_key=["donor"], modalities={"layer": "rna"})
