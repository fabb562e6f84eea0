"""Cells of a model that were changed since it was trained."""

from __future__ import annotations

import copy
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import sparsenode as sn

QUICK = {"max_epochs": 2, "steps_per_epoch": 2, "accelerator": "cpu", "enable_progress_bar": False}
CHANGED = "are no longer those that the model was trained on"


@pytest.fixture
def cells(make_adata):
    return make_adata(n_obs=200)


def fitted(cells: anndata.AnnData, layer: str | None = None) -> sn.SparseNODE:
    sn.SparseNODE.setup_anndata(cells, layer=layer, lineage_key="lineage")
    model = sn.SparseNODE(cells, objective="trajectory", hidden=(4,))
    model.train(**QUICK)
    return model


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("evaluate", {}),
        ("get_jacobian", {"indices": [3]}),
        ("get_velocity", {}),
        ("predict", {}),
        ("write_results", {}),
        ("train", QUICK),
    ],
)
def test_expression_that_was_scaled_after_training(cells, call, arguments):
    model = fitted(cells)
    sc.pp.scale(cells)
    with pytest.warns(UserWarning, match=f"Cells or their expression in `adata.X` {CHANGED}"):
        getattr(model, call)(**arguments)


def test_training_again_takes_the_cells_as_they_are(cells):
    model = fitted(cells)
    cells.X = cells.X + 1
    with pytest.warns(UserWarning, match=CHANGED):
        model.train(**QUICK)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", f".*{CHANGED}")
        model.evaluate()


@pytest.mark.parametrize(("order", "objective"), [(1, "collocation"), (1, "trajectory"), (2, "trajectory")])
def test_a_longer_stretch_of_time_leaves_rates_as_they_were(order, objective):
    """With one clock for all batches, what was learned per unit of pseudotime holds when later cells come."""
    system = sn.datasets.random_linear_system(n_genes=4, density=0.4, seed=1)
    everything = system.simulate(n_trials=6, n_times=40, noise=0.02, seed=1)
    half = everything.obs["time"].max() / 2
    early = everything[everything.obs["time"] <= half].copy()
    sn.SparseNODE.setup_anndata(early, time_key="time", batch_key="trial")
    model = sn.SparseNODE(early, "none", objective=objective, order=order, hidden=(4,), align_batches=False)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "key_added": None}
    model.train(2, steps_per_epoch=5, **quiet)
    before = model.get_jacobian([5])
    model.adata = everything
    model.train(1, steps_per_epoch=1, plan_kwargs={"lr": 1e-9}, **quiet)
    place = everything.obs_names.get_loc(early.obs_names[5])
    np.testing.assert_allclose(model.get_jacobian([place]), before, rtol=0.02, atol=1e-3 * np.abs(before).max())
    assert model.trajectories["end"].max() > 1.9 * half


def test_one_cell_of_many_is_enough_where_it_is_compared(cells):
    model = fitted(cells)
    cells.X[-1, 0] += 0.01
    with pytest.warns(UserWarning, match=CHANGED):
        model.evaluate()


def test_cells_that_were_removed_in_place(cells):
    model = fitted(cells)
    cells._inplace_subset_obs(np.arange(200) < 190)
    with pytest.warns(UserWarning, match=CHANGED):
        model.evaluate()


@pytest.mark.parametrize("n_obs", [20, 200])
@pytest.mark.parametrize("layer", [None, "log"])
def test_what_else_may_change(make_adata, tmp_path, n_obs, layer):
    """Results, other layers, another place in memory, and another file."""
    cells = make_adata(n_obs=n_obs)
    cells.layers["log"] = cells.X.copy()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", f".*{CHANGED}")
        model = fitted(cells, layer)
        if layer is None:
            cells.layers["log"] += 1
            cells.X = sparse.csc_matrix(cells.X)
        else:
            cells.X += 1
        model.evaluate()
        model.write_results(key_added="again")
        model.save(str(tmp_path / "model"), save_anndata=True)
        sn.SparseNODE.load(str(tmp_path / "model")).evaluate()
        sn.SparseNODE.load(str(tmp_path / "model"), cells.copy()).evaluate()
        # the model's cells in another order, and cells of another donor
        sn.SparseNODE.load(str(tmp_path / "model"), cells[::-1].copy()).evaluate()
        other = make_adata(n_obs=n_obs, seed=5)
        other.layers["log"] = other.X
        model.evaluate(other)
        other.obs_names = [f"other {name}" for name in other.obs_names]
        sn.SparseNODE.load(str(tmp_path / "model"), other).evaluate()


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_expression_in_single_precision_is_the_same(form):
    """Among many sums over genes some are near zero, where rounding is large beside them."""
    rng = np.random.default_rng(18)
    x = rng.normal(8, 2, (100, 500))
    obs = {"dpt_pseudotime": rng.uniform(size=100), "lineage": ["a"] * 100}
    cells = anndata.AnnData(form(x), obs)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", f".*{CHANGED}")
        model = fitted(cells)
        cells.X = cells.X.astype(np.float32)
        model.predict()


def test_cells_in_single_precision_are_recognised():
    """As some of those that were trained on, and not as another donor; the same holds for expression in small units."""
    rng = np.random.default_rng(2)
    time = rng.uniform(size=300)
    x = 2 + np.sin(3 * time[:, None] + rng.uniform(0, 6, 300)) + 0.5 * rng.normal(size=(300, 300))
    for unit in (1.0, 1e-8):
        obs = pd.DataFrame({"dpt_pseudotime": time, "lineage": "a"}, [f"c{k}" for k in range(300)])
        cells = anndata.AnnData(unit * x, obs)
        model = fitted(cells)
        early = cells[time < 0.4].copy()
        expected = model.predict(cells)[time < 0.4]
        for dtype in (np.float64, np.float32):
            early.X = early.X.astype(dtype)
            np.testing.assert_allclose(model.predict(early), expected, rtol=1e-5)
        early.X = 1.001 * early.X
        assert np.abs(model.predict(early) - expected).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("gone", ["layer", "value", "gene"])
def test_what_needs_no_expression_does_not_read_it(make_adata, gone):
    cells = make_adata(n_obs=200)
    cells.layers["log"] = cells.X.copy()
    model = fitted(cells, "log")
    expected = model.predict()
    if gone == "layer":
        del cells.layers["log"]
    elif gone == "value":
        cells.layers["log"][0, 0] = np.nan
    else:
        cells._inplace_subset_var(np.arange(8) < 7)
    np.testing.assert_array_equal(model.predict(), expected)
    with pytest.raises((KeyError, ValueError), match="Expected"):
        model.evaluate()


def test_what_is_not_in_memory_is_not_read_for_it(make_adata):
    """All cells of a chunk would be, for every one that is compared."""
    dask_array = pytest.importorskip("dask.array")
    cells, read = make_adata(n_obs=200), []

    def look(block):
        read.append(len(block))
        return block

    cells.X = dask_array.from_array(cells.X, chunks=(50, 8)).map_blocks(
        look, dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )
    model = fitted(cells)
    read.clear()
    model.predict()
    assert read == []


def test_a_model_that_is_loaded_with_changed_cells(cells, tmp_path):
    fitted(cells).save(str(tmp_path / "model"))
    cells.X = cells.X + 1
    model = sn.SparseNODE.load(str(tmp_path / "model"), cells)
    with pytest.warns(UserWarning, match=CHANGED):
        model.evaluate()


REARRANGED = "Times, lineages or batches of the cells are no longer those"


def reverse_time(cells):
    cells.obs["dpt_pseudotime"] = cells.obs["dpt_pseudotime"].max() - cells.obs["dpt_pseudotime"]


def later(cells):
    cells.obs["dpt_pseudotime"] += 1.0


def swap_lineages(cells):
    first, second = cells.obs["lineage"].cat.categories
    cells.obs["lineage"] = cells.obs["lineage"].cat.rename_categories({first: second, second: first})


def move_one_cell(cells):
    inner = cells.obs["dpt_pseudotime"].rank().to_numpy().argsort()[100]
    cells.obs.iloc[inner, cells.obs.columns.get_loc("dpt_pseudotime")] += 0.05


@pytest.mark.parametrize("change", [reverse_time, later, swap_lineages, move_one_cell])
@pytest.mark.parametrize("call", ["evaluate", "predict", "write_results"])
def test_annotations_that_were_computed_anew(cells, change, call):
    cells.obs["lineage"] = cells.obs["lineage"].astype("category")
    model = fitted(cells)
    change(cells)
    with pytest.warns(UserWarning, match=REARRANGED):
        getattr(model, call)()


def test_training_with_other_times_takes_them(cells):
    model = fitted(cells)
    reverse_time(cells)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", f".*{REARRANGED}")
        model.train(**QUICK)
        model.evaluate()


def test_annotations_in_other_types_are_the_same(make_adata, tmp_path):
    cells = make_adata(n_obs=200)
    model = fitted(cells)
    model.save(str(tmp_path / "model"), save_anndata=True)
    expected = model.predict()
    cells.obs["dpt_pseudotime"] = cells.obs["dpt_pseudotime"].astype(np.float32)
    np.testing.assert_allclose(model.predict(), expected, atol=1e-5)
    cells.obs["lineage"] = cells.obs["lineage"].astype("category")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", f".*{REARRANGED}")
        model.evaluate()
        sn.SparseNODE.load(str(tmp_path / "model")).evaluate()
        sn.SparseNODE.load(str(tmp_path / "model"), cells).evaluate()
        sn.SparseNODE.load(str(tmp_path / "model"), make_adata(n_obs=200, seed=5)).evaluate()
        model.evaluate(make_adata(n_obs=200, seed=5))


def test_a_model_that_is_given_other_cells(make_adata, cells, caplog):
    model = fitted(cells)
    other = make_adata(n_obs=150, seed=5)
    expected = model.evaluate(other)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", f".*({CHANGED}|{REARRANGED})")
        model.adata = other
        assert "was given other cells" in caplog.text
        pd.testing.assert_frame_equal(model.evaluate(), expected)
    assert model.adata is other
    assert len(model.validation_indices) == len(model.train_indices) == 0


def test_a_model_that_is_given_its_cells_again(cells):
    model = fitted(cells)
    held_out, scores = model.validation_indices, model.evaluate()
    model.adata = cells
    np.testing.assert_array_equal(model.validation_indices, held_out)
    pd.testing.assert_frame_equal(model.evaluate(), scores)


@pytest.mark.parametrize("shift", [-0.3, 0.3])
def test_a_model_that_is_given_its_cells_at_other_times(cells, caplog, shift):
    model = fitted(cells)
    cells.obs["dpt_pseudotime"] += shift
    model.adata = cells
    assert "was given other cells" in caplog.text
    assert len(model.validation_indices) == 0


def test_training_on_another_clock_does_not_reach_another_model_of_the_same_setup(adata, tmp_path):
    """Both were made from one setup: the one that was trained before is saved with the times that it was trained on."""
    original = adata.copy()
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineage")
    options = {"objective": "trajectory", "hidden": (4,), "n_knots": 5}
    quick = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "key_added": None}
    first, second = sn.SparseNODE(adata, **options), sn.SparseNODE(adata, **options)
    first.train(**quick)
    before, registry = first.trajectories.copy(), copy.deepcopy(first.registry_)
    adata.obs["dpt_pseudotime"] = 3.0 * adata.obs["dpt_pseudotime"] + 1.0
    second.train(**quick)
    np.testing.assert_allclose(second.trajectories["end"], 3.0 * before["end"] + 1.0)
    assert first.registry_["field_registries"].keys() == registry["field_registries"].keys()
    pd.testing.assert_frame_equal(first.trajectories, before)
    first.save(str(tmp_path / "model"))
    loaded = sn.SparseNODE.load(str(tmp_path / "model"), adata=original)
    pd.testing.assert_frame_equal(loaded.trajectories, before)
    assert len(loaded.train_indices) > 0


def test_memberships_that_were_changed_are_warned_of(make_adata, fit, recwarn):
    """Though every cell is in the lineages that it was in."""
    import pytest

    adata = make_adata()
    model = fit(adata, {"lineage_key": "memberships"})
    recwarn.clear()
    model.evaluate()
    assert not [w for w in recwarn if "no longer those" in str(w.message)]
    adata.obsm["memberships"] = adata.obsm["memberships"].where(adata.obsm["memberships"] != 0.75, 0.6)
    with pytest.warns(UserWarning, match="Times, lineages or batches of the cells are no longer those"):
        model.evaluate()


def test_expression_that_was_changed_in_the_middle_is_noticed(adata, fit):
    """Not only that of the first cells and of the last."""
    import pytest

    model = fit(adata)
    adata.X[40:60] += 1.0
    with pytest.warns(UserWarning, match="are no longer those that the model was trained on"):
        model.predict()
