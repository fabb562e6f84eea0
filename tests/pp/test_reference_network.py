"""Reference networks, against a direct search and the truth of a simulation."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from mudata import MuData

import sparsenode as sn
from sparsenode import pp
from sparsenode.pp._reference_network import merge_networks


@pytest.fixture(scope="module")
def reference(normalised) -> pp.ReferenceNetwork:
    arguments = (normalised.uns["annotation"], normalised.uns["lineages"])
    return pp.reference_network(normalised, "cell_type", "motifs", *arguments, max_pvalue=0.05)


def edges(table: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(table["source"], table["target"], strict=True))


def test_recovers_what_can_be_recovered(normalised, reference):
    truth = normalised.uns["true_network"]
    recoverable = truth[truth["recoverable"]]
    assert 0 < len(recoverable) < len(truth)
    tables = {tuple(types): reference.lineages[name] for name, types in normalised.uns["lineages"].items()}
    tables[tuple(truth["cell_type"].unique())] = reference.union
    for types, table in tables.items():
        wanted = edges(recoverable[recoverable["cell_type"].isin(types)])
        found = edges(table)
        assert len(found & wanted) / len(found) > 0.95
        assert len(found & wanted) / len(wanted) > 0.95


@pytest.mark.parametrize(
    ("method", "options"), [("t-test", {}), ("wilcoxon", {"promoter": (80, 50), "max_distance": 60_000})]
)
def test_as_a_direct_search(normalised, method, options):
    """The recipe in loops, with scanpy's own tables."""
    n_genes, n_peaks = 60, 250
    layers = {"expression_layer": "genes", "accessibility_layer": "peaks"}
    mdata = MuData({name: adata.copy() for name, adata in normalised.mod.items()})
    for adata, layer in zip(mdata.mod.values(), layers.values(), strict=True):
        adata.layers[layer], adata.X = adata.X, adata.X[:, ::-1]
    arguments = {"n_genes": n_genes, "n_peaks": n_peaks, "method": method, **layers, **options}
    network = pp.reference_network(mdata, "cell_type", "motifs", normalised.uns["annotation"], **arguments)
    top = {}
    for name, n in (("rna", n_genes), ("atac", n_peaks)):
        adata = normalised[name].copy()
        sc.tl.rank_genes_groups(adata, "cell_type", method=method, tie_correct=method == "wilcoxon")
        top[name] = {k: set(list(adata.uns["rank_genes_groups"]["names"][k])[:n]) for k in network.cell_types}
    motifs = normalised["atac"].varm["motifs"]
    assigned = pp.assign_peaks(normalised["atac"], normalised.uns["annotation"], **options)
    pd.testing.assert_frame_equal(network.peak_genes, assigned)
    for cell_type, table in network.cell_types.items():
        support: dict[tuple[str, str], int] = {}
        for row in assigned.itertuples():
            if row.peak in top["atac"][cell_type] and row.gene in top["rna"][cell_type]:
                for factor in motifs.columns[motifs.loc[row.peak]]:
                    if factor in top["rna"][cell_type]:
                        support[factor, row.gene] = support.get((factor, row.gene), 0) + 1
        found = zip(zip(table["source"], table["target"], strict=True), table["n_peaks"], strict=True)
        assert list(found) == sorted(support.items())


def test_a_cell_type_that_stands_twice_counts_once(normalised, reference):
    twice = {"once more": [*normalised.uns["lineages"]["erythroid"], "stem"]}
    found = pp.reference_network(
        normalised, "cell_type", "motifs", normalised.uns["annotation"], twice, max_pvalue=0.05
    )
    pd.testing.assert_frame_equal(found.lineages["once more"], reference.lineages["erythroid"])


def test_lineages_merge_their_cell_types(normalised, reference):
    for name, types in normalised.uns["lineages"].items():
        table = reference.lineages[name].set_index(["source", "target"])
        parts = [reference.cell_types[cell_type].set_index(["source", "target"])["n_peaks"] for cell_type in types]
        assert set(table.index) == set(itertools.chain(*(part.index for part in parts)))
        for edge, row in table.iterrows():
            values = [part[edge] for part in parts if edge in part.index]
            assert (row["n_cell_types"], row["n_peaks"]) == (len(values), max(values))
    assert edges(reference.union) == set().union(*map(edges, reference.cell_types.values()))


def test_is_ready_for_model_and_scores(counts, reference, fit):
    rna = counts["rna"]
    adata = pp.prepare_trajectories(
        rna, "stem", counts.uns["lineages"], n_top_genes=80, keep_genes=reference.regulators
    )
    model = fit(
        adata,
        {"lineage_key": "lineages"},
        regularizer=sn.regularizers.CNODE(0.05),
        prior=reference.union,
        regulators=reference.regulators,
        fields="shared",
    )
    assert 0 <= model.get_sparsity(regulators=reference.regulators)["spurious"] <= 1
    scores = sn.tl.evaluate_network(model.get_network(), reference.lineages["erythroid"], reference.regulators)
    assert scores["n_true"] == sum(s != t for s, t in edges(reference.lineages["erythroid"]))
    assert np.isnan(scores["sign_accuracy"])


def test_data_and_motifs_are_left_alone(normalised):
    before = {name: (list(a.uns), list(a.obs), list(a.varm)) for name, a in normalised.mod.items()}
    motifs = normalised["atac"].varm["motifs"]
    shuffled = motifs.sample(frac=1, random_state=0).iloc[:, ::-1].astype(int) * 3
    arguments = {"annotation": normalised.uns["annotation"], "n_genes": 50, "n_peaks": 200}
    one = pp.reference_network(normalised, "cell_type", shuffled, **arguments)
    other = pp.reference_network(normalised, "cell_type", "motifs", **arguments)
    pd.testing.assert_frame_equal(one.union, other.union)
    assert one.regulators == other.regulators
    assert before == {name: (list(a.uns), list(a.obs), list(a.varm)) for name, a in normalised.mod.items()}


def test_cell_types_of_the_whole_and_modalities_with_other_cells(normalised, reference):
    rna, atac = normalised["rna"][100:].copy(), normalised["atac"][:500].copy()
    labels = normalised["rna"].obs["cell_type"].astype(str)
    for adata in (rna, atac):
        del adata.obs["cell_type"]
    mdata = MuData({"gex": rna, "peaks": atac})
    mdata.obs["cell_type"] = labels.reindex(mdata.obs_names)
    arguments = {"annotation": normalised.uns["annotation"], "expression": "gex", "accessibility": "peaks"}
    found = pp.reference_network(mdata, "cell_type", "motifs", max_pvalue=0.05, **arguments)
    assert len(edges(found.union) & edges(reference.union)) > 0.9 * len(edges(reference.union))


def test_warns_when_nothing_is_selected(normalised):
    annotation = normalised.uns["annotation"]
    for n_genes in (310, 1000):
        with pytest.warns(UserWarning, match=f"All 310 genes are selected.*{n_genes}.*max_pvalue=0.05"):
            pp.reference_network(normalised, "cell_type", "motifs", annotation, n_peaks=100, n_genes=n_genes)
    with (
        pytest.warns(UserWarning, match="because `n_genes` is 1000"),
        pytest.warns(UserWarning, match="because `n_peaks` is 25000"),
    ):
        pp.reference_network(normalised, "cell_type", "motifs", annotation)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*are selected")
        pp.reference_network(normalised, "cell_type", "motifs", annotation, n_peaks=100, max_pvalue=0.05)


def test_refuses_what_it_cannot_use(counts, normalised, tmp_path):
    annotation = normalised.uns["annotation"]
    motifs = normalised["atac"].varm["motifs"]

    def build(mdata=normalised, groupby="cell_type", motifs=motifs, annotation=annotation, **arguments):
        return pp.reference_network(mdata, groupby, motifs, annotation, **({"max_pvalue": 0.05} | arguments))

    with pytest.raises(TypeError, match="MuData"):
        build(normalised["rna"])
    with pytest.raises(KeyError, match=r"`accessibility`.*'chromatin'.*\['rna', 'atac'\]"):
        build(accessibility="chromatin")
    with pytest.raises(ValueError, match="found integers up to .*: counts"):
        build(counts)
    with pytest.raises(KeyError, match="`groupby`.*'leiden'"):
        build(groupby="leiden")
    with pytest.raises(TypeError, match=r"`groupby` to be one name, found \['cell_type'\]"):
        build(groupby=["cell_type"])
    with pytest.raises(ValueError, match=r"fewer of \['B'\]"):
        build(lineages={"b": ["stem", "B"]})
    with pytest.raises(ValueError, match="lineage 'b', found 'stem'"):
        build(lineages={"b": "stem"})
    with pytest.raises(KeyError, match="'hits'"):
        build(motifs="hits")
    with pytest.raises(TypeError, match="data frame with peaks as index"):
        build(motifs=motifs.to_numpy())
    with pytest.raises(ValueError, match="to name peaks"):
        build(motifs=motifs.reset_index(drop=True).rename(str))
    with pytest.raises(ValueError, match=r"str.capitalize"):
        build(motifs=motifs.rename(columns=str.lower))
    with pytest.raises(ValueError, match="none matched"):
        build(motifs=motifs & False)
    with pytest.raises(ValueError, match="more than once|twice"):
        build(motifs=pd.concat([motifs, motifs]))
    with pytest.raises(ValueError, match=r"peaks are on \['chr1', 'chr2', 'chr3'\], genes on \['1', '2', '3'\]"):
        build(annotation=annotation.assign(chrom=annotation["chrom"].str.removeprefix("chr")))
    with pytest.raises(ValueError, match="gene_attribute"):
        build(annotation=annotation.assign(gene="ENSG" + annotation["gene"]))
    with pytest.raises(FileNotFoundError, match="GTF"):
        build(annotation=tmp_path / "none.gtf")
    with pytest.raises(ValueError, match="`n_peaks`"):
        build(n_peaks=0)
    nameless = normalised["atac"].copy()
    nameless.var = pd.DataFrame(index=[f"peak{k}" for k in range(nameless.n_vars)])
    with pytest.raises(ValueError, match="'peak0'.*'chrom', 'start' and 'end'"):
        build(MuData({"rna": normalised["rna"], "atac": nameless}), motifs=motifs.set_axis(nameless.var_names))
    missing = normalised["rna"].copy()
    missing.obs["cell_type"] = missing.obs["cell_type"].where(np.arange(missing.n_obs) > 2)
    with pytest.raises(ValueError, match="3 of 600 missing"):
        build(MuData({"rna": missing, "atac": normalised["atac"]}))


def test_peaks_without_a_row_missing_and_negative_values_are_no_motifs(normalised):
    """And a factor without any motif is no regulator."""
    motifs = normalised["atac"].varm["motifs"].astype(float)
    bare, odd = motifs.copy(), motifs.copy()
    factor = motifs.columns[-1]
    bare[factor] = odd[factor] = 0.0
    cells = np.argwhere(motifs.to_numpy() > 0)
    for k, value in ((0, np.nan), (1, -1.0)):
        for row, column in cells[k::4]:
            odd.iat[row, column], bare.iat[row, column] = value, 0.0
    # Nothing of the first row or of the last is taken for others.
    bare.iloc[[0, -1]] = odd.iloc[[0, -1]] = (motifs.columns != factor).astype(float)
    absent = np.arange(1, len(motifs) - 1, 5)
    bare.iloc[absent] = 0.0
    odd = odd.drop(index=motifs.index[absent])
    arguments = {"annotation": normalised.uns["annotation"], "max_pvalue": 0.05}
    one, other = (pp.reference_network(normalised, "cell_type", table, **arguments) for table in (odd, bare))
    pd.testing.assert_frame_equal(one.union, other.union)
    assert len(one.union) > 0
    assert one.regulators == other.regulators
    assert factor in normalised["rna"].var_names
    assert factor not in one.regulators


def test_merged_edges_have_the_largest_support():
    one = pd.DataFrame({"source": ["b", "a"], "target": ["x", "x"], "n_peaks": [2, 5]})
    two = pd.DataFrame({"source": ["a", "a"], "target": ["x", "y"], "n_peaks": [3, 1]})
    merged = merge_networks([one, two])
    assert merged[["source", "target", "n_cell_types", "n_peaks"]].to_numpy().tolist() == [
        ["a", "x", 2, 5],
        ["a", "y", 1, 1],
        ["b", "x", 1, 2],
    ]
    assert len(merge_networks([])) == 0


def test_refuses_cell_types_that_cannot_be_compared(normalised):
    def build(change, **arguments):
        rna, atac = normalised["rna"].copy(), normalised["atac"].copy()
        for adata, kinds in ((rna, change[0]), (atac, change[1])):
            adata.obs["cell_type"] = adata.obs["cell_type"].astype(str)
            adata.obs.iloc[: len(kinds), list(adata.obs).index("cell_type")] = kinds
        pp.reference_network(
            MuData({"rna": rna, "atac": atac}),
            "cell_type",
            "motifs",
            normalised.uns["annotation"],
            max_pvalue=0.05,
            **arguments,
        )

    with pytest.raises(ValueError, match=r"modality 'rna', found fewer of \['rare'\]"):
        build((["rare"], ["rare", "rare"]))
    with pytest.raises(ValueError, match=r"modality 'atac', found fewer of \['rare'\]"):
        build((["rare"] * 5, []))
    every = ["stem"] * normalised.n_obs
    with pytest.raises(ValueError, match=r"at least two cell types in 'cell_type' of modality 'rna'"):
        build((every, every), lineages={"one": ["stem"]})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_pvalue": 5}, ValueError, r"Expected `max_pvalue` to be in \[0, 1\], found 5"),
        ({"max_pvalue": "0.05"}, ValueError, "Expected `max_pvalue`"),
        ({"method": "logreg"}, ValueError, "Expected `method` to be one of .*found 'logreg'"),
        (
            {"lineages": {"a": iter(["stem"])}},
            ValueError,
            "Expected a list of cell types for the lineage 'a', found .*iterator",
        ),
        ({"lineages": {"a": ["stem"], "b": []}}, ValueError, r"list of cell types for the lineage 'b', found \[\]"),
        ({"lineages": {}}, ValueError, "at least one lineage in `lineages`, found none"),
        ({"lineages": "lineages"}, TypeError, "Expected `lineages` to be cell types by lineage"),
        ({"motifs": "text"}, TypeError, "Expected numbers or booleans in `motifs`, found 'yes' in the column"),
    ],
)
def test_arguments_out_of_range(normalised, arguments, error, message):
    if arguments.get("motifs") == "text":
        arguments = {"motifs": normalised["atac"].varm["motifs"].astype(object).replace({True: "yes", False: "yes"})}
    given = {"motifs": "motifs", "annotation": normalised.uns["annotation"]} | arguments
    with pytest.raises(error, match=message):
        pp.reference_network(normalised, "cell_type", **given)


@pytest.mark.parametrize("modality", ["rna", "atac"])
def test_values_that_are_missing_do_not_take_edges_away(normalised, modality):
    broken = {name: adata.copy() for name, adata in normalised.mod.items()}
    broken[modality].X[0, 0] = np.nan
    with pytest.raises(ValueError, match="found 1 NaN or infinite values"):
        pp.reference_network(MuData(broken), "cell_type", "motifs", normalised.uns["annotation"], max_pvalue=0.05)


def test_names_of_genes_are_unique(normalised):
    twice = {name: adata.copy() for name, adata in normalised.mod.items()}
    twice["rna"].var_names = [twice["rna"].var_names[1], *twice["rna"].var_names[1:]]
    with pytest.raises(ValueError, match="unique names of genes in modality 'rna'"):
        pp.reference_network(MuData(twice), "cell_type", "motifs", normalised.uns["annotation"])


@pytest.mark.parametrize("convert", ["boolean", "Int64", "category", "object", "Float32"])
def test_motif_tables_of_any_type_may_have_missing_values(normalised, convert):
    motifs = normalised["atac"].varm["motifs"].copy()
    arguments = (normalised.uns["annotation"],)
    expected = pp.reference_network(normalised, "cell_type", motifs, *arguments, max_pvalue=0.05).union
    numbers = motifs.astype(int) if convert not in ("boolean", "object") else motifs
    missing = numbers.astype(convert if convert != "category" else object).where(
        motifs, pd.NA if convert != "category" else None
    )
    missing = missing.astype("category") if convert == "category" else missing
    found = pp.reference_network(normalised, "cell_type", missing, *arguments, max_pvalue=0.05).union
    pd.testing.assert_frame_equal(found, expected)
