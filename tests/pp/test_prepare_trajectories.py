"""From counts to trajectories."""

from __future__ import annotations

import warnings

import anndata
import dask.array
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse
from scipy.stats import spearmanr

import sparsenode as sn
from sparsenode import pp
from sparsenode.pp._prepare_trajectories import _root_position, check_counts


@pytest.fixture(scope="module")
def prepared(counts) -> AnnData:
    rna = counts["rna"]
    factors = [*rna.var_names[rna.var["is_tf"]], "TF_unknown"]
    return pp.prepare_trajectories(
        rna, "stem", counts.uns["lineages"], batch_key="donor", n_top_genes=100, keep_genes=factors
    )


def test_recovers_time_and_lineages(counts, prepared):
    rna = counts["rna"]
    for name, types in counts.uns["lineages"].items():
        member = prepared.obsm["lineages"][name].to_numpy()
        np.testing.assert_array_equal(member, prepared.obs["cell_type"].isin(types))
        fate = member & (prepared.obs["true_lineage"] == name).to_numpy()
        rho = spearmanr(prepared.obs["dpt_pseudotime"][fate], prepared.obs["true_time"][fate])[0]
        assert rho > 0.9
    time = prepared.obs["dpt_pseudotime"]
    assert time.min() == 0
    assert time.max() == 1
    assert prepared.obs["cell_type"].iloc[prepared.uns["iroot"]] == "stem"
    assert time.iloc[prepared.uns["iroot"]] == 0
    assert list(prepared.obs_names) == list(rna.obs_names)


def test_expression_is_log_normalised_counts(counts, prepared):
    raw = counts["rna"].X.toarray()
    size = raw.sum(1, keepdims=True)
    expected = pd.DataFrame(np.log1p(raw / size * np.median(size)), columns=counts["rna"].var_names)
    np.testing.assert_allclose(prepared.X.toarray(), expected[prepared.var_names], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(
        prepared.layers["counts"].toarray(), pd.DataFrame(raw, columns=expected.columns)[prepared.var_names]
    )


def test_genes_are_the_union_over_batches_and_the_listed(counts, prepared):
    assert set(counts["rna"].var_names[counts["rna"].var["is_tf"]]) <= set(prepared.var_names)
    full = counts["rna"].copy()
    sc.pp.normalize_total(full)
    sc.pp.log1p(full)
    expected = set()
    for donor in full.obs["donor"].cat.categories:
        found = sc.pp.highly_variable_genes(full[full.obs["donor"] == donor].copy(), n_top_genes=100, inplace=False)
        expected |= set(full.var_names[found["highly_variable"]])
    assert set(prepared.var_names[prepared.var["highly_variable"]]) == expected
    assert set(prepared.var_names) == expected | set(prepared.var_names[prepared.var["kept"]])


def test_report(prepared):
    report = prepared.uns["prepare_trajectories"]
    assert report["cells"] == {"kept": 600, "unassigned": 0, "unreachable": 0}
    assert report["missing_genes"].tolist() == ["TF_unknown"]
    assert report["root"] == prepared.obs_names[prepared.uns["iroot"]]


@pytest.mark.filterwarnings("ignore:.*slash:FutureWarning")
def test_the_report_survives_a_file_whatever_lineages_are_called(counts, tmp_path):
    types = counts.uns["lineages"]
    lineages = {"MEP → Ery, 1.": types["erythroid"], "B": types["myeloid"]}
    pp.prepare_trajectories(counts["rna"], "stem", lineages).write_h5ad(tmp_path / "found.h5ad")
    found = anndata.read_h5ad(tmp_path / "found.h5ad")
    report = found.uns["prepare_trajectories"]["lineages"]["n_cells"]
    assert report.to_dict() == {name: found.obs["cell_type"].isin(own).sum() for name, own in lineages.items()}


def test_slashes_in_names_of_lineages_are_refused(counts):
    """Files could not be written, or would hold a group instead of a column."""
    rna, types = counts["rna"].copy(), counts.uns["lineages"]
    rna.obsm["fates"] = pd.DataFrame(1.0, rna.obs_names, ["A/B", "C"])
    for lineages, name in (({"MEP/Ery": types["erythroid"]}, "MEP/Ery"), ("fates", "A/B")):
        with pytest.raises(ValueError, match=rf"without a slash.*found \['{name}'\]. Rename"):
            pp.prepare_trajectories(rna, "stem", lineages)


def test_fits_and_survives_a_file(prepared, tmp_path):
    prepared.write_h5ad(tmp_path / "prepared.h5ad")
    adata = anndata.read_h5ad(tmp_path / "prepared.h5ad")
    assert adata.uns["prepare_trajectories"]["cells"]["kept"] == 600
    sn.SparseNODE.setup_anndata(adata, lineage_key="lineages", batch_key="donor")
    model = sn.SparseNODE(adata, objective="trajectory", hidden=(4,))
    assert model.lineages == ["erythroid", "myeloid"]


def test_unassigned_and_unreachable_cells_are_dropped_and_counted(counts):
    rna = counts["rna"].copy()
    rna.layers["raw"] = rna.X.copy()
    rna.obsm["X_umap"] = np.arange(2 * rna.n_obs).reshape(-1, 2)
    island = np.flatnonzero(rna.obs["cell_type"] == "late_myeloid")
    values = rna.layers["raw"].tolil()
    values[island] = 0
    values[np.ix_(island, range(200, 300))] = 50
    rna.layers["raw"] = values.tocsr()
    lineages = {"both": ["stem", "early_erythroid", "late_myeloid"], "none": ["stem"]}
    adata = pp.prepare_trajectories(rna, "stem", lineages, layer="raw", n_neighbors=5)
    kinds = rna.obs["cell_type"].value_counts()
    cells = adata.uns["prepare_trajectories"]["cells"]
    assert cells["unassigned"] == kinds["late_erythroid"] + kinds["early_myeloid"]
    assert cells["unreachable"] == kinds["late_myeloid"]
    assert cells["kept"] == adata.n_obs == kinds["stem"] + kinds["early_erythroid"]
    assert np.isfinite(adata.obs["dpt_pseudotime"]).all()
    np.testing.assert_array_equal(adata.obsm["X_umap"][:, 0] // 2, rna.obs_names.get_indexer(adata.obs_names))
    assert adata.obs_names[adata.uns["iroot"]] == adata.uns["prepare_trajectories"]["root"]
    assert adata.obs["dpt_pseudotime"].iloc[adata.uns["iroot"]] == 0
    assert adata.uns["prepare_trajectories"]["lineages"]["n_cells"].to_dict() == {
        "both": adata.n_obs,
        "none": kinds["stem"],
    }
    with pytest.raises(ValueError, match=r"all cells of \['island'\] are unreachable"):
        pp.prepare_trajectories(rna, "stem", lineages | {"island": ["late_myeloid"]}, layer="raw", n_neighbors=5)


class Lineage(np.ndarray):
    """What CellRank leaves: an array that carries its names."""

    names = ("ery", "mye")


@pytest.mark.parametrize("kind", ["lineage", "frame", "array"])
def test_fate_probabilities(counts, kind):
    rna = counts["rna"].copy()
    values = np.random.default_rng(0).dirichlet([1, 1], rna.n_obs)
    values[:7] = np.nan
    if kind == "frame":
        rna.obsm["lineages_fwd"] = pd.DataFrame(values, rna.obs_names, ["ery", "mye"])
    elif kind == "lineage":
        rna.obsm["lineages_fwd"] = values.view(Lineage)
    else:
        rna.obsm["lineages_fwd"] = values
        with pytest.raises(ValueError, match="names of the 2 lineages"):
            pp.prepare_trajectories(rna, "stem", "lineages_fwd")
        rna.obs["term_states_fwd"] = pd.Categorical([None, "mye", "ery"] * 200, categories=["ery", "mye"])
    adata = pp.prepare_trajectories(rna, "stem", "lineages_fwd")
    np.testing.assert_array_equal(adata.obsm["lineages"].to_numpy(), values[7:])
    assert list(adata.obsm["lineages"].columns) == ["ery", "mye"]
    assert adata.uns["prepare_trajectories"]["cells"]["unassigned"] == 7
    assert adata.uns["prepare_trajectories"]["lineages"]["n_cells"].to_dict() == {
        "ery": adata.n_obs,
        "mye": adata.n_obs,
    }


def test_one_lineage_a_root_cell_and_dense_counts(counts):
    rna = counts["rna"].copy()
    rna.X = rna.X.toarray()
    root = rna.obs_names[int(rna.obs["true_time"].argmin())]
    adata = pp.prepare_trajectories(rna, root)
    assert adata.obs["dpt_pseudotime"][root] == 0
    assert list(adata.obsm["lineages"].columns) == ["all"]
    again = pp.prepare_trajectories(rna, root)
    pd.testing.assert_series_equal(adata.obs["dpt_pseudotime"], again.obs["dpt_pseudotime"])
    assert "dpt_pseudotime" not in rna.obs


def test_what_was_prepared_can_be_prepared_again(counts, prepared):
    again = pp.prepare_trajectories(
        prepared, "stem", "lineages", batch_key="donor", layer="counts", n_top_genes=prepared.n_vars
    )
    clean = AnnData(prepared.layers["counts"].copy(), obs=prepared.obs[["cell_type", "donor"]].copy())
    clean.obs_names, clean.var_names = prepared.obs_names, prepared.var_names
    clean = pp.prepare_trajectories(
        clean, "stem", counts.uns["lineages"], batch_key="donor", n_top_genes=prepared.n_vars
    )
    np.testing.assert_allclose(again.obs["dpt_pseudotime"], clean.obs["dpt_pseudotime"], atol=1e-5)


def test_refuses_what_it_cannot_prepare(counts):
    rna = counts["rna"]
    lineages = counts.uns["lineages"]
    logged = sc.pp.log1p(rna, copy=True)
    with pytest.raises(
        ValueError, match="they look log-transformed.*layer='counts'.*Without counts.*`SparseNODE.setup_anndata`"
    ):
        pp.prepare_trajectories(logged, "stem", lineages)
    with pytest.raises(ValueError, match="negative values: they were scaled"):
        pp.prepare_trajectories(AnnData(np.full((30, 3), -1.0), obs=rna.obs[:30]), "stem")
    with pytest.raises(KeyError, match="'HSC'.*cell types are"):
        pp.prepare_trajectories(rna, "HSC", lineages)
    cells = rna.copy()
    cells.obs["cell_type"] = np.array([np.str_(name) for name in rna.obs["cell_type"]], dtype=object)
    with pytest.raises(KeyError, match=r"cell types are \['early_"):
        pp.prepare_trajectories(cells, "HSC", lineages)
    with pytest.raises(KeyError, match=r"'HSC', and no column 'clusters' in `adata.obs`.*There are \["):
        pp.prepare_trajectories(rna, "HSC", groupby="clusters")
    with pytest.raises(ValueError, match=r"no cells of \['B'\].*early_erythroid"):
        pp.prepare_trajectories(rna, "stem", {"b": ["stem", "B"]})
    with pytest.raises(ValueError, match="list of cell types for the lineage 'b', found 'stem'"):
        pp.prepare_trajectories(rna, "stem", {"b": "stem"})
    with pytest.raises(KeyError, match="'clusters'"):
        pp.prepare_trajectories(rna, rna.obs_names[0], lineages, groupby="clusters")
    with pytest.raises(KeyError, match="CellRank writes 'lineages_fwd'"):
        pp.prepare_trajectories(rna, "stem", "lineages_fwd")
    with pytest.raises(KeyError, match="'site'"):
        pp.prepare_trajectories(rna, "stem", batch_key="site")
    with pytest.raises(TypeError, match=r"`batch_key` to be one name, found \['donor'\]"):
        pp.prepare_trajectories(rna, "stem", batch_key=["donor"])
    with pytest.raises(ValueError, match=r"yours like \['GATA1'\]"):
        pp.prepare_trajectories(rna, "stem", keep_genes=["GATA1"])
    with pytest.raises(ValueError, match="found the str"):
        pp.prepare_trajectories(rna, "stem", keep_genes="GATA1")
    with pytest.raises(ValueError, match="cells of the root 'stem' in a lineage"):
        pp.prepare_trajectories(rna, "stem", {"late": ["late_erythroid", "early_erythroid"]})
    stem = rna.obs_names[rna.obs["cell_type"] == "stem"][0]
    with pytest.raises(ValueError, match="root cell"):
        pp.prepare_trajectories(rna, stem, {"late": ["late_erythroid", "early_erythroid"]})
    untyped = rna.copy()
    del untyped.obs["cell_type"]
    assert pp.prepare_trajectories(untyped, untyped.obs_names[0]).n_obs > 0  # a cell as root needs no cell types
    numbered = rna.copy()
    numbered.obs_names = ["stem", *rna.obs_names[1:]]
    with pytest.raises(ValueError, match="a cell or a cell type, found both of the name 'stem'"):
        pp.prepare_trajectories(numbered, "stem", lineages)
    with pytest.raises(ValueError, match="at least 20 cells in lineages, found 8"):
        pp.prepare_trajectories(rna[rna.obs["cell_type"] == "stem"][:8], "stem")
    with pytest.raises(TypeError, match="MuData"):
        pp.prepare_trajectories(counts, "stem")
    with pytest.raises(ValueError, match="`n_pcs`"):
        pp.prepare_trajectories(rna, "stem", n_pcs=1)


def test_backed_counts_are_to_be_read_first(counts, tmp_path):
    rna = counts["rna"].copy()
    rna.layers["counts"] = rna.X.copy()
    rna.write_h5ad(tmp_path / "rna.h5ad")
    backed = anndata.read_h5ad(tmp_path / "rna.h5ad", backed="r")
    for each in (backed, backed[:500]):
        with pytest.raises(ValueError, match=r"in memory, found `adata` backed by a file. Pass `adata.to_memory\(\)`"):
            pp.prepare_trajectories(each, "nowhere")  # before anything else is looked at
    lineages = counts.uns["lineages"]
    expected = pp.prepare_trajectories(backed.to_memory(), "stem", lineages)
    np.testing.assert_array_equal(expected.X.toarray(), pp.prepare_trajectories(rna, "stem", lineages).X.toarray())
    # Layers are in memory.
    found = pp.prepare_trajectories(backed, "stem", lineages, layer="counts")
    np.testing.assert_array_equal(found.X.toarray(), expected.X.toarray())
    backed.file.close()


def test_shapes_of_known_data_sets():
    """scanpy's pbmc68k_reduced is scaled: told so; its raw part is logged: told so. A shape like paul15 passes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pbmc = sc.datasets.pbmc68k_reduced()
    with pytest.raises(ValueError, match="negative values: they were scaled"):
        pp.prepare_trajectories(pbmc, "CD34+", groupby="bulk_labels")
    with pytest.raises(ValueError, match="log-transformed"):
        pp.prepare_trajectories(pbmc.raw.to_adata(), "CD34+", groupby="bulk_labels")
    generator = np.random.default_rng(0)
    times = generator.uniform(size=500)
    mean = generator.lognormal(-1, 1, 900) * np.exp(2 * np.sin(3 * times[:, None] + generator.uniform(0, 6, 900)))
    paul = AnnData(
        sparse.csr_matrix(generator.poisson(mean).astype(np.float64)),
        obs=pd.DataFrame(
            {"paul15_clusters": pd.Categorical.from_codes((times * 4).astype(int), ["7MEP", "8", "9", "10GMP"])}
        ),
    )
    adata = pp.prepare_trajectories(
        paul, "7MEP", {"gmp": ["7MEP", "8", "9", "10GMP"]}, groupby="paul15_clusters", n_top_genes=300
    )
    assert adata.shape == (500, 300)
    assert spearmanr(adata.obs["dpt_pseudotime"], times)[0] > 0.9


def line(n_cells: int = 40, n_genes: int = 30) -> AnnData:
    """Counts of cells along a line, in two batches by turns."""
    generator = np.random.default_rng(0)
    times = np.linspace(0, 1, n_cells)
    mean = 3 * np.exp(2 * np.sin(3 * times[:, None] + generator.uniform(0, 6, n_genes)))
    obs = pd.DataFrame({"batch": ["one", "two"] * (n_cells // 2)}, index=[f"c{k}" for k in range(n_cells)])
    return AnnData(sparse.csr_matrix(generator.poisson(mean).astype(np.float32)), obs=obs)


def test_settings_reach_every_step(monkeypatch):
    """Components, neighbours, diffusion components and the seed; components are lowered to what few genes allow."""
    found = {}

    def watch(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, **kwargs: found.update({name: kwargs}) or function(*args, **kwargs)
        )

    for module, name in ((sc.pp, "pca"), (sc.pp, "neighbors"), (sc.tl, "diffmap"), (sc.tl, "dpt")):
        watch(module, name)
    arguments = {"n_neighbors": 6, "n_diffusion_components": 5, "n_top_genes": 10, "keep_genes": ["0", "1", "2"]}
    adata = pp.prepare_trajectories(line(), "c0", n_pcs=4, seed=7, **arguments)
    assert (found["pca"]["n_comps"], found["pca"]["random_state"]) == (4, 7)
    assert adata.obsm["X_pca"].shape == (40, 4)
    assert [found["neighbors"][name] for name in ("n_neighbors", "n_pcs", "random_state")] == [6, 4, 7]
    assert (found["diffmap"]["n_comps"], found["diffmap"]["random_state"]) == (5, 7)
    assert found["dpt"]["n_dcs"] == 5
    added = (adata.var["kept"] & ~adata.var["highly_variable"]).to_numpy()
    assert added.any()
    assert (np.abs(adata.varm["PCs"][added]).sum(1) > 0).all()  # genes to keep take part
    few = pp.prepare_trajectories(line(), "c0", **arguments)
    assert few.obsm["X_pca"].shape == (40, few.n_vars - 1)


def test_genes_that_are_seen_in_any_batch():
    """Where fewer genes are seen than wanted, all of these are taken of a batch, and none that it lacks."""
    adata = line()
    one = (adata.obs["batch"] == "one").to_numpy()
    x = adata.X.toarray()
    x[one, 0] = x[~one, 1] = x[:, 2] = 0
    adata.X = x
    found = pp.prepare_trajectories(adata, "c0", batch_key="batch", keep_genes=["5", "x", "x", "5"])
    assert set(found.var_names) == set(adata.var_names) - {"2"}
    assert found.uns["prepare_trajectories"]["missing_genes"].tolist() == ["x"]
    adata.obs.loc["c3", "batch"] = None
    with pytest.raises(ValueError, match="missing values in `adata.obs\\['batch'\\]`"):
        pp.prepare_trajectories(adata, "c0", batch_key="batch")


def test_twenty_cells_are_enough_and_colours_are_kept():
    adata = line(20)
    adata.obs["batch"] = adata.obs["batch"].astype("category")
    adata.uns = {"batch_colors": ["#000000", "#ffffff"], "other": 1}
    found = pp.prepare_trajectories(adata, "c0")
    assert found.n_obs == 20
    assert list(found.uns["batch_colors"]) == ["#000000", "#ffffff"]
    assert "other" not in found.uns
    with pytest.raises(ValueError, match="at least 20 cells in lineages, found 19"):
        pp.prepare_trajectories(adata[:19].copy(), "c0")


def test_a_root_that_reaches_few_cells_is_refused():
    adata = line(60)
    x = adata.X.toarray()
    x[:15, :] = 0
    x[:15, :5] = 40 + np.arange(15)[:, None]
    adata.X = sparse.csr_matrix(x)
    with pytest.raises(ValueError, match="root 'c3' to reach at least 20 cells, found 15"):
        pp.prepare_trajectories(adata, "c3", n_neighbors=5)


def test_the_root_of_a_type_is_nearest_to_all_others_in_diffusion_distance():
    """Squared distances of diffusion pseudotime to the cells of the type, summed pair by pair; other cells do not count."""
    generator = np.random.default_rng(3)
    for _ in range(20):
        values = np.array([1.0, *np.sort(generator.uniform(0.2, 0.98, 4))[::-1]])
        adata = AnnData(np.zeros((12, 1)), obs=pd.DataFrame({"kind": list("aabbbbbbbbba")}))
        adata.obsm["X_diffmap"] = generator.normal(1.0, 1.0, (12, 5))
        adata.uns["diffmap_evals"] = values
        own = range(2, 11)
        far = {
            i: sum(
                (values[k] / (1 - values[k]) * (adata.obsm["X_diffmap"][i, k] - adata.obsm["X_diffmap"][j, k])) ** 2
                for j in own
                for k in range(1, 5)
            )
            for i in own
        }
        assert _root_position(adata, "b", "kind") == min(far, key=far.__getitem__)


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix])
def test_counts_are_told_from_logarithms(convert):
    """By values that are no whole numbers, wherever they stand, unless they are too large for a logarithm."""
    counts = np.array([[1.0, 2.0], [3.0, 1.0]])
    check_counts(AnnData(convert(counts)), None)
    check_counts(AnnData(convert(counts * 10.3)), None)  # divided by a library size
    counts[1, 1] = 0.7
    with pytest.raises(ValueError, match="log-transformed"):
        check_counts(AnnData(convert(counts)), None)


def test_colours_of_the_cell_types_that_are_left(counts):
    rna = counts["rna"].copy()
    types = list(rna.obs["cell_type"].cat.categories)
    rna.uns["cell_type_colors"] = [f"#00000{number}" for number in range(len(types))]
    kept = ["early_erythroid", "late_erythroid"]
    made = sn.pp.prepare_trajectories(rna, "early_erythroid", {"erythroid": kept}, n_top_genes=50)
    assert list(made.obs["cell_type"].cat.categories) == kept
    assert list(made.uns["cell_type_colors"]) == [f"#00000{types.index(name)}" for name in kept]
    assert len(rna.uns["cell_type_colors"]) == len(types)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lineages": {1: ["stem"], "1": ["early_myeloid"]}}, ValueError, r"found \['1'\] more than once"),
        ({"lineages": "fates"}, ValueError, r"found \['x'\] more than once"),
        ({"lineages": {"a": None}}, ValueError, "list of cell types for the lineage 'a', found None"),
        ({"root": ["stem"]}, TypeError, "name of a cell or a cell type as a string"),
        ({"keep_genes": None}, ValueError, "list of names, found the NoneType None"),
        ({"n_neighbors": 2}, ValueError, "`n_neighbors` to be an integer of at least 3"),
        ({"n_top_genes": 1}, ValueError, "at least 3 genes for principal components, found [12]"),
    ],
)
def test_more_that_it_cannot_prepare(counts, arguments, error, message):
    rna = counts["rna"].copy()
    if arguments.get("lineages") == "fates":
        rna.obsm["fates"] = pd.DataFrame(np.ones((rna.n_obs, 2)), rna.obs_names, ["x", "y"])
        rna.obsm["fates"].columns = ["x", "x"]
    with pytest.raises(error, match=message):
        sn.pp.prepare_trajectories(rna, **{"root": "stem", "lineages": counts.uns["lineages"]} | arguments)


def test_three_neighbours_are_enough(counts):
    assert "dpt_pseudotime" in sn.pp.prepare_trajectories(counts["rna"], "stem", n_neighbors=3).obs


def test_sparse_arrays_are_as_sparse_matrices(counts):
    rna = counts["rna"].copy()
    expected = sn.pp.prepare_trajectories(rna, "stem", n_top_genes=50)
    rna.X = sparse.csr_array(rna.X)
    found = sn.pp.prepare_trajectories(rna, "stem", n_top_genes=50)
    assert (found.X != expected.X).sum() == 0
    pd.testing.assert_series_equal(found.obs["dpt_pseudotime"], expected.obs["dpt_pseudotime"])


def test_counts_that_are_not_in_memory_are_refused(counts):
    rna = counts["rna"].copy()
    rna.X = dask.array.from_array(rna.X.toarray())
    with pytest.raises(TypeError, match=r"counts in memory in `adata\.X`, found Array"):
        sn.pp.prepare_trajectories(rna, "stem")
