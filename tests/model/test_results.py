"""What is written into the AnnData, and that it survives a file."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sparsenode as sn
from sparsenode import _keys
from sparsenode.model import _results


def assert_identical(one, other, path: str = "") -> None:
    """The same nested content: keys, types of containers, dtypes and values."""
    if isinstance(one, dict):
        assert isinstance(other, dict), path
        assert set(one) == set(other), path
        for key in one:
            assert_identical(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_exact=True, obj=path)
    elif isinstance(one, np.ndarray | list):
        left, right = np.asarray(one), np.asarray(other)
        assert left.shape == right.shape, path
        if left.dtype.kind in "OU":  # strings come back in another type
            assert list(map(str, left)) == list(map(str, right)), path
        else:
            np.testing.assert_array_equal(left, right, err_msg=path)
            assert left.dtype == right.dtype, path
    else:
        assert one == other, path


def written(adata) -> set[str]:
    """Every key of an AnnData that has to do with sparsenode."""
    places = {"obs": adata.obs, "var": adata.var, "obsm": adata.obsm, "varm": adata.varm, "layers": adata.layers}
    places |= {"obsp": adata.obsp, "varp": adata.varp, "uns": adata.uns}
    return {f"{place}/{key}" for place, table in places.items() for key in table if key and "scvi" not in key}


BEFORE = {"obs/dpt_pseudotime", "obs/lineage", "obs/donor", "obsm/memberships"}


# Keys


def test_keys(results):
    assert written(results) - BEFORE == {
        "varp/sparsenode_adjacency",
        "varp/sparsenode_adjacency_erythroid",
        "varp/sparsenode_adjacency_myeloid",
        "obsm/sparsenode_trajectory",
        "layers/sparsenode_velocity",
        "uns/sparsenode",
    }


def test_a_shared_field_has_one_adjacency(fitted_donors):
    assert set(fitted_donors.adata.varp) == {"sparsenode_adjacency"}


def test_a_field_of_transport_has_an_adjacency_for_each_lineage_though_it_is_shared(make_adata, fit):
    adata = make_adata(n_obs=240)
    model = fit(adata, objective=sn.objectives.Transport(min_cells=5), fields="shared")
    for lineage in model.lineages:
        found = adata.varp[f"sparsenode_adjacency_{lineage}"].toarray()
        np.testing.assert_array_equal(found, model.get_adjacency(lineage).to_numpy().astype(np.float32))


def test_another_key(adata, fit):
    fit(adata, train={"key_added": "night"})
    assert written(adata) - BEFORE == {
        "varp/night_adjacency",
        "varp/night_adjacency_erythroid",
        "varp/night_adjacency_myeloid",
        "obsm/night_trajectory",
        "layers/night_velocity",
        "uns/night",
    }


def test_no_key_writes_nothing(adata, fit):
    model = fit(adata, train={"key_added": None})
    assert written(adata) == BEFORE
    assert model.is_trained_
    model.write_results(key_added="later")
    assert "later" in adata.uns


def test_results_of_an_earlier_fit_are_replaced(adata, fit):
    fit(adata, seed=1)
    first = adata.obsm["sparsenode_trajectory"].copy()
    fit(adata, seed=2, fields="shared")
    assert adata.uns["sparsenode"]["parameters"]["seed"] == 2
    assert not np.array_equal(adata.obsm["sparsenode_trajectory"], first)
    # Networks of single lineages belong to the earlier fit, which had one field each.
    assert set(adata.varp) == {"sparsenode_adjacency"}


def test_results_that_were_removed_by_hand_are_written_anew(adata, fit):
    model = fit(adata)
    del adata.layers["sparsenode_velocity"], adata.varp["sparsenode_adjacency"]
    model.write_results()
    np.testing.assert_array_equal(adata.layers["sparsenode_velocity"], model.get_velocity())
    assert "sparsenode_adjacency" in adata.varp


def test_what_a_fit_did_not_write_stays(adata, fit, tmp_path):
    """Keys that begin like those of the fit, of users or of other fits."""
    kept = {f"sparsenode_{name}" for name in ("adjacency_prior", "frequency", "position_adjacency")}
    for key in kept:
        adata.varp[key] = np.eye(adata.n_vars)
    fit(adata, train={"max_epochs": 1})
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    fit(again, train={"max_epochs": 1}, fields="shared")
    assert set(again.varp) == kept | {"sparsenode_adjacency"}


def test_names_of_keys():
    assert _keys.adjacency() == "sparsenode_adjacency"
    assert _keys.trajectory("x") == "x_trajectory"
    assert _keys.velocity("x") == "x_velocity"
    assert _keys.lineage_adjacency("T/NK cells", "x") == "x_adjacency_T_NK cells"


# Values


def test_values_are_those_of_the_model(fitted, results):
    np.testing.assert_array_equal(results.obsm["sparsenode_trajectory"], fitted.predict())
    np.testing.assert_array_equal(results.layers["sparsenode_velocity"], fitted.get_velocity())
    for lineage, key in {None: "", "erythroid": "_erythroid", "myeloid": "_myeloid"}.items():
        matrix = results.varp[f"sparsenode_adjacency{key}"]
        expected = fitted.get_adjacency(lineage).to_numpy()
        assert matrix.format == "csr"
        np.testing.assert_allclose(matrix.toarray(), expected, rtol=1e-6)
    assert np.ptp(results.obsm["sparsenode_trajectory"], axis=0).max() > 0.3


def test_zeros_are_exact_and_not_stored(make_adata, fit):
    model = fit(make_adata(), regularizer=sn.regularizers.CNODE(1.0), train={"max_epochs": 10})
    adjacency, matrix = model.get_adjacency().to_numpy(), model.adata.varp["sparsenode_adjacency"]
    assert 0 < (adjacency == 0).mean() < 1
    assert matrix.nnz == (adjacency != 0).sum()
    np.testing.assert_array_equal(matrix.toarray() != 0, adjacency != 0)


def test_summary(fitted, results):
    uns = results.uns["sparsenode"]
    assert uns["orientation"] == "rows are targets, columns are regulators"
    assert uns["setup"] == {"time_key": "dpt_pseudotime", "lineage_key": "lineage"}
    pd.testing.assert_frame_equal(uns["scores"], fitted.evaluate())
    pd.testing.assert_frame_equal(uns["held_out_scores"], fitted.evaluate(indices=fitted.validation_indices))
    assert uns["sparsity"] == fitted.get_sparsity().to_dict()
    assert list(uns["genes"]) == list(fitted.genes)
    parameters = uns["parameters"]
    assert parameters["hidden"] == [8, 8]
    assert parameters["regularizer"].startswith("PathReg(strength=[0.1]")
    assert (parameters["seed"], parameters["selected_replicate"], parameters["n_knots"]) == (0, 0, 5)


def test_regulators_are_written_by_name(adata, fit):
    fit(adata, regulators=["gene5", "gene2"])
    assert adata.uns["sparsenode"]["parameters"]["regulators"].tolist() == ["gene2", "gene5"]


def test_trajectories_for_plots(fitted, results):
    fit = results.uns["sparsenode"]["trajectories"]
    assert list(fit["name"]) == ["erythroid", "myeloid"]
    assert list(fit["lineage"]) == ["erythroid", "myeloid"]
    assert list(fit["batch"]) == ["all", "all"]
    assert fit["values"].shape == (2, fit["times"].shape[1], 8)
    for m in range(2):
        start, end = fitted.trajectories.iloc[m][["start", "end"]]
        np.testing.assert_allclose(fit["times"][m][[0, -1]], [start, end])
        cells = np.flatnonzero(results.obs["lineage"] == fitted.lineages[m])
        times = results.obs["dpt_pseudotime"].to_numpy()[cells]
        for gene in (0, 7):
            interpolated = np.interp(times, fit["times"][m], fit["values"][m][:, gene])
            np.testing.assert_allclose(interpolated, fitted.predict()[cells, gene], atol=1e-3)


def test_history_for_plots(fitted, results):
    history = results.uns["sparsenode"]["history"]
    assert len(history) == 20
    assert set(history.columns) == set(fitted.history)
    assert set(map(str, history.dtypes)) == {"float64"}
    for name in history:
        np.testing.assert_array_equal(history[name], fitted.history[name].iloc[:, 0].astype(float))


def test_history_of_the_network_fit(make_adata, fit, tmp_path):
    adata = make_adata(n_obs=240)
    model = fit(adata, train={"max_epochs": 3}, objective="both", hidden=(6,))
    adata.write_h5ad(tmp_path / "a.h5ad")
    for uns in (adata.uns["sparsenode"], anndata.read_h5ad(tmp_path / "a.h5ad").uns["sparsenode"]):
        history = uns["network_history"]
        assert len(history) == 3
        assert history.index.name == uns["history"].index.name == "epoch"
        assert set(history.columns) == set(model.network_history_)
        losses = model.network_history_["train_loss"].iloc[:, 0].astype(float)
        np.testing.assert_array_equal(history["train_loss"], losses)
        assert not np.allclose(history["train_loss"], uns["history"]["train_loss"])


def test_no_history_of_a_network_fit_where_there_was_none(results):
    assert "network_history" not in results.uns["sparsenode"]


# Files


@pytest.mark.parametrize("which", ["fitted", "fitted_donors"])
def test_everything_survives_h5ad(which, request, tmp_path):
    adata = request.getfixturevalue(which).adata
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert written(again) == written(adata)
    assert_identical(adata.uns["sparsenode"], again.uns["sparsenode"])
    assert_identical(dict(adata.obsm), dict(again.obsm))
    assert_identical(adata.layers["sparsenode_velocity"], again.layers["sparsenode_velocity"])
    for key in adata.varp:
        assert sparse.issparse(again.varp[key])
        np.testing.assert_array_equal(again.varp[key].toarray(), adata.varp[key].toarray())


def test_everything_survives_zarr(fitted, tmp_path):
    fitted.adata.write_zarr(tmp_path / "a.zarr")
    again = anndata.read_zarr(tmp_path / "a.zarr")
    assert_identical(fitted.adata.uns["sparsenode"], again.uns["sparsenode"])


def test_names_with_a_slash_survive_h5ad(adata, fit, tmp_path):
    adata.obs["lineage"] = adata.obs["lineage"].cat.rename_categories({"myeloid": "T/NK"})
    adata.var_names = ["HLA/A", *adata.var_names[1:]]
    fit(adata)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert "sparsenode_adjacency_T_NK" in again.varp
    assert_identical(adata.uns["sparsenode"], again.uns["sparsenode"])


@pytest.mark.parametrize(
    "arguments",
    [
        *({"n_seeds": 2}, {"regularizer": "none", "decay": False}, {"hidden": [8], "initial_state": "first"}),
        {"objective": sn.objectives.Transport(windows=20)},
    ],
    ids=str,
)
def test_all_parameters_can_be_stored(adata, fit, tmp_path, arguments):
    fit(adata, train={"max_epochs": 1}, **arguments)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert_identical(adata.uns["sparsenode"], again.uns["sparsenode"])


def test_settings_of_an_objective_are_stored(adata, fit):
    fit(adata, train={"max_epochs": 1}, objective=sn.objectives.Transport(windows=20))
    assert "windows=20" in adata.uns["sparsenode"]["parameters"]["objective"]
    fit(adata, train={"max_epochs": 1}, objective="transport")
    assert adata.uns["sparsenode"]["parameters"]["objective"] == "transport"


@pytest.mark.parametrize(
    ("objective", "weights"),
    [("both", "balanced"), ("transport", "balanced"), ("trajectory", "paths"), (None, "paths")],
)
def test_objective_and_weights_are_stored_by_name(adata, fit, objective, weights):
    """Too few cells for the default, which is then trajectories alone."""
    fit(adata, train={"max_epochs": 1}, objective=objective)
    parameters = adata.uns["sparsenode"]["parameters"]
    assert (parameters["objective"], parameters["weights"]) == (objective or "trajectory", weights)


def test_what_is_done_to_stored_tables_does_not_reach_the_model(adata, fit):
    model = fit(adata, regularizer=sn.regularizers.CNODE([0.1, 1.0]))
    del adata.uns["sparsenode"]["regularization_path"]["validation_error"]
    assert "validation_error" in model.select("best", key_added=None)


# Other cells


def test_permuted_genes_get_results_in_their_own_order(fitted, make_adata):
    other = make_adata(n_obs=100, seed=5)
    order = np.random.default_rng(2).permutation(8)
    permuted = other[:, order].copy()
    fitted.write_results(other)
    fitted.write_results(permuted, key_added="p")
    np.testing.assert_allclose(permuted.obsm["p_trajectory"], other.obsm["sparsenode_trajectory"][:, order], atol=1e-5)
    np.testing.assert_allclose(permuted.layers["p_velocity"], other.layers["sparsenode_velocity"][:, order], atol=1e-5)
    matrix = pd.DataFrame(permuted.varp["p_adjacency"].toarray(), permuted.var_names, permuted.var_names)
    expected = fitted.get_adjacency()
    for target, regulator in [("gene0", "gene1"), ("gene6", "gene2"), ("gene3", "gene3")]:
        assert matrix.loc[target, regulator] == pytest.approx(expected.loc[target, regulator], rel=1e-5)
    np.testing.assert_allclose(
        matrix.reindex(index=expected.index, columns=expected.columns), expected, rtol=1e-5, atol=1e-7
    )
    pd.testing.assert_frame_equal(permuted.uns["p"]["scores"], other.uns["sparsenode"]["scores"])
    assert "held_out_scores" not in other.uns["sparsenode"]
    assert list(permuted.uns["p"]["genes"]) == list(permuted.var_names)
    curves, ordered = (one["trajectories"]["values"] for one in (permuted.uns["p"], other.uns["sparsenode"]))
    np.testing.assert_allclose(curves, ordered[:, :, order], atol=1e-5)


@pytest.mark.parametrize("other", [{"note": "mine"}, [1, 2]])
def test_what_is_not_of_a_fit_is_not_overwritten(adata, fit, other):
    adata.uns["pca"] = other
    with pytest.raises(ValueError, match=r"`uns\['pca'\]` to be free.*found something else"):
        fit(adata, train={"key_added": "pca"})
    assert adata.uns["pca"] == other
    with pytest.raises(ValueError, match="found something else"):
        fit(adata, train={"key_added": None}).write_results(key_added="pca")


def test_data_of_users_are_not_overwritten(adata, fit):
    """Found before training, and all that are taken at once."""
    adata.layers["rna_velocity"] = adata.X.copy()
    adata.obsm["rna_trajectory"] = np.zeros((adata.n_obs, 2))
    adata.varp["rna_adjacency_myeloid"] = np.eye(adata.n_vars)
    model = fit(adata, fields="lineage", train={"key_added": None})
    before = written(adata)
    taken = r"`varp\['rna_adjacency_myeloid'\]`, `obsm\['rna_trajectory'\]`, `layers\['rna_velocity'\]`, which no fit"
    for call in (model.write_results, lambda key_added: model.train(1, key_added=key_added)):
        with pytest.raises(ValueError, match=taken):
            call(key_added="rna")
    assert written(adata) == before
    np.testing.assert_array_equal(adata.layers["rna_velocity"], adata.X)
    del adata.obsm["rna_trajectory"], adata.layers["rna_velocity"]
    with pytest.raises(ValueError, match=r"remove them: `del adata.varp\['rna_adjacency_myeloid'\]`"):
        model.write_results(adata, key_added="rna")


@pytest.mark.parametrize("earlier", [False, True])
def test_what_the_model_reads_is_not_overwritten(adata, fit, earlier):
    """Not even where it is a result of an earlier fit."""
    if earlier:
        fit(adata)
    else:
        adata.layers["sparsenode_velocity"] = adata.X.copy()
    kept = adata.layers["sparsenode_velocity"].copy()
    setup = {"layer": "sparsenode_velocity", "lineage_key": "lineage"}
    with pytest.raises(ValueError, match=r"model does not read, found `layers\['sparsenode_velocity'\]`"):
        fit(adata, setup=setup)
    np.testing.assert_array_equal(adata.layers["sparsenode_velocity"], kept)
    fit(adata, setup=setup, train={"key_added": "second"})
    adata.obsm["fates_trajectory"] = adata.obsm["memberships"]
    with pytest.raises(ValueError, match=r"does not read, found `obsm\['fates_trajectory'\]`"):
        fit(adata, setup={"lineage_key": "fates_trajectory"}, train={"key_added": "fates"})


def test_results_of_a_fit_under_another_key_are_not_overwritten(adata, fit):
    model = fit(adata)
    adata.varp["sparsenode_adjacency_adjacency"] = adata.varp["sparsenode_adjacency"].copy()
    with pytest.raises(ValueError, match=r"`varp\['sparsenode_adjacency_adjacency'\]`"):
        model.write_results(key_added="sparsenode_adjacency")
    model.write_results()


@pytest.mark.parametrize("options", [{}, {"fields": "shared", "n_seeds": 2}, {"order": 2}])
def test_keys_that_are_checked_are_those_that_are_written(adata, fit, options):
    model = fit(adata, train={"max_epochs": 1}, **options)
    assert sorted(adata.uns["sparsenode"]["written"]["varp"]) == sorted(model._networks("sparsenode"))


@pytest.mark.parametrize("options", [{}, {"order": 2}, {"regularizer": sn.regularizers.LassoNet(skip="outer")}])
def test_the_trajectories_of_cells_are_integrated_once(make_adata, fit, monkeypatch, options):
    """For networks of all lineages and blocks, predictions, scores and velocities together; of others the model's own, too."""
    adata, other = make_adata(), make_adata(seed=1)
    model = fit(adata, train={"max_epochs": 1}, **options)
    expected = {lineage: model.get_adjacency(lineage).to_numpy(np.float32) for lineage in model.lineages}
    velocities, n_solves = model.get_velocity(), []
    original = sn.SparseNODE._integrate
    monkeypatch.setattr(sn.SparseNODE, "_integrate", lambda *args: n_solves.append(1) or original(*args))
    model.write_results()
    assert len(n_solves) == 1
    np.testing.assert_array_equal(adata.layers["sparsenode_velocity"], velocities)
    model.write_results(other)
    assert len(n_solves) == 3
    for lineage, table in expected.items():
        for cells in (adata, other):
            np.testing.assert_array_equal(cells.varp[f"sparsenode_adjacency_{lineage}"].toarray(), table)


def test_data_that_cannot_take_results_are_found_before_training(fitted, make_adata, tmp_path):
    fitted.save(tmp_path / "model")
    wider = make_adata(n_vars=9)
    model = sn.SparseNODE.load(tmp_path / "model", wider)
    with pytest.raises(ValueError, match="the 8 genes of the model to write results, found 9"):
        model.train(max_epochs=1, accelerator="cpu")
    model.train(max_epochs=1, accelerator="cpu", steps_per_epoch=1, enable_progress_bar=False, key_added=None)


def test_more_genes_than_the_model(fitted, make_adata):
    other = make_adata(n_vars=9)
    with pytest.raises(
        ValueError, match=r"the 8 genes of the model to write results, found 9. Select them .*adata\[:, model.genes\]"
    ):
        fitted.write_results(other)
    selected = other[:, fitted.genes].copy()
    fitted.write_results(selected)
    assert "sparsenode" in selected.uns


def test_too_many_values_to_store(fitted, make_adata, monkeypatch):
    monkeypatch.setattr(_results, "MAX_DENSE", 100 * 8 - 1)
    other = make_adata(n_obs=100, seed=5)
    with pytest.warns(UserWarning, match="100 cells × 8 genes are too many"):
        fitted.write_results(other)
    expected = {
        "varp/sparsenode_adjacency",
        "varp/sparsenode_adjacency_erythroid",
        "varp/sparsenode_adjacency_myeloid",
        "uns/sparsenode",
    }
    assert written(other) - BEFORE == expected
    monkeypatch.undo()
    fitted.write_results(other)
    monkeypatch.setattr(_results, "MAX_DENSE", 100 * 8 - 1)
    with pytest.warns(UserWarning, match="too many"):
        fitted.write_results(other)
    assert written(other) - BEFORE == expected


def test_scores_are_those_of_the_cells_that_are_written_to(fitted, make_adata):
    other = make_adata(n_obs=100, seed=5)
    fitted.write_results(other)
    pd.testing.assert_frame_equal(other.uns["sparsenode"]["scores"], fitted.evaluate(other))


def test_a_copy_of_the_cells_is_scored_as_new_cells(fitted):
    """It starts from all of its early cells, held-out ones among them."""
    other = fitted.adata.copy()
    fitted.write_results(other, key_added="copy")
    np.testing.assert_allclose(other.obsm["copy_trajectory"], fitted.predict(), atol=0.1)


@pytest.mark.filterwarnings("ignore:Fewer")
def test_scores_of_held_out_cells_are_those_of_the_cells_of_the_model(make_adata, fit):
    """Also where results are written into some of its cells, or into them in another order."""
    adata = make_adata()
    model = fit(adata, train={"train_size": 0.7, "shuffle_set_split": False})
    expected = model.evaluate(indices=model.validation_indices)
    pd.testing.assert_frame_equal(adata.uns["sparsenode"]["held_out_scores"], expected)
    for rows in (np.arange(120)[::-1], model.train_indices, np.flatnonzero(adata.obs["lineage"] == "myeloid")):
        other = adata[rows].copy()
        model.write_results(other)
        pd.testing.assert_frame_equal(other.uns["sparsenode"]["held_out_scores"], expected)
        pd.testing.assert_frame_equal(other.uns["sparsenode"]["scores"], model.evaluate(other))


@pytest.mark.parametrize("selected", [0, 1])
def test_everything_is_that_of_the_selected_replicate(fitted_donors, monkeypatch, selected):
    monkeypatch.setattr(fitted_donors, "selected_", selected)
    adata = fitted_donors.adata.copy()
    fitted_donors.write_results(adata, "again")
    velocity, prediction = fitted_donors.get_velocity(replicate=selected), fitted_donors.predict(replicate=selected)
    assert np.abs(velocity - fitted_donors.get_velocity(replicate=1 - selected)).max() > 1e-2
    np.testing.assert_allclose(adata.layers["again_velocity"], velocity, atol=1e-5)
    np.testing.assert_allclose(adata.obsm["again_trajectory"], prediction, atol=1e-5)
    adjacency = fitted_donors.get_adjacency(replicate=selected).to_numpy()
    np.testing.assert_allclose(adata.varp["again_adjacency"].toarray(), adjacency, rtol=1e-5)
    assert adata.uns["again"]["parameters"]["selected_replicate"] == selected
