"""The two commands, in this process."""

from __future__ import annotations

import os
import re
import runpy
import sys
from pathlib import Path

import anndata
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

import sparsenode as sn
from sparsenode import _cli

FIGURES = ("trajectory", "adjacency", "history")


@pytest.fixture
def path(adata, tmp_path) -> Path:
    """A file with cells, alone in its folder."""
    adata.obs["age"] = adata.obs.pop("dpt_pseudotime")
    adata.layers["log"] = adata.X.copy()
    (tmp_path / "in").mkdir()
    adata.write_h5ad(tmp_path / "in" / "cells.h5ad")
    return tmp_path / "in" / "cells.h5ad"


@pytest.fixture
def quick(monkeypatch):
    """Let the commands train for at most three epochs, and remember what they asked for."""
    seen: dict = {}
    train = sn.SparseNODE.train

    def quick_train(self, **arguments):
        seen.update(arguments, model=self)
        few = {"max_epochs": min(arguments.get("max_epochs", 2), 3), "steps_per_epoch": 2, "accelerator": "cpu"}
        train(self, **(arguments | few))

    monkeypatch.setattr(sn.SparseNODE, "train", quick_train)
    return seen


def failure(capsys) -> str:
    """The only line on the standard error stream that is a message of the command."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert re.match(r"sparsenode: [^'\"]", lines[0])  # no text in quotes, as Python shows the message of a KeyError
    return lines[0]


# fit


def test_fit(path, tmp_path, quick, capsys):
    out = tmp_path / "out.h5ad"
    arguments = ["fit", str(path), str(out), "--time", "age", "--lineages", "lineage", "--epochs", "3"]
    assert _cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "120 cells × 8 genes" in text
    for word in ("null_zero", "null_smoothed", "skill", "erythroid", "myeloid", "total", "Exact zeros", "source"):
        assert word in text
    adata = anndata.read_h5ad(out)
    assert adata.uns["sparsenode"]["setup"] == {"time_key": "age", "lineage_key": "lineage"}
    assert adata.uns["sparsenode"]["parameters"]["seed"] == 0
    assert len(adata.uns["sparsenode"]["history"]) == 3
    assert {"sparsenode_trajectory"} <= set(adata.obsm)
    np.testing.assert_array_equal(adata.X, anndata.read_h5ad(path).X)
    assert f"{adata.uns['sparsenode']['held_out_scores'].loc['total', 'mse']:.4f}" in text
    # Of means over all cells, where the command has those of the training cells
    centred = adata.to_df() - adata.to_df().groupby(adata.obs["lineage"]).transform("mean")
    left = np.square(adata.X - adata.obsm["sparsenode_trajectory"]).sum() / np.square(centred.to_numpy()).sum()
    shown = re.search(r"(-?\d+)% of the variance around the lineage means fitted", text)
    assert int(shown[1]) == pytest.approx(100 * (1 - left), abs=3)
    for name in FIGURES:
        picture = matplotlib.image.imread(tmp_path / f"out_{name}.png")
        assert picture.std() > 0.02  # something is drawn
        assert str(tmp_path / f"out_{name}.png") in text
    assert sorted(p.name for p in path.parent.iterdir()) == ["cells.h5ad"]  # nothing is left beside the input


def test_strongest_edges_are_between_different_genes(path, tmp_path, quick, capsys, monkeypatch):
    genes = [f"gene{i}" for i in range(8)]
    own = pd.DataFrame({"source": genes, "target": genes, "weight": np.arange(18.0, 10.0, -1)})
    others = pd.DataFrame({"source": genes[:3], "target": genes[1:4], "weight": [3.0, -2.0, 1.0]})
    monkeypatch.setattr(_cli, "_write", lambda *_: None)
    for network, expected in ((pd.concat([own, others]), ["+3.000", "-2.000", "+1.000"]), (own, [])):
        monkeypatch.setattr(sn.SparseNODE, "get_network", lambda _, network=network: network)
        assert _cli.main(["fit", str(path), str(tmp_path / "out.h5ad"), "--time", "age"]) == 0
        shown = capsys.readouterr().out.partition("Strongest edges between different genes")[2]
        lines = shown.partition(":\n")[2].splitlines()
        assert [line.split()[-1] for line in lines] == (["weight", *expected] if expected else ["none"])


def test_zeros_of_adjacencies_and_of_weights_are_told_apart(path, tmp_path, quick, capsys, monkeypatch):
    monkeypatch.setattr(_cli, "_write", lambda *_: None)
    monkeypatch.setattr(sn.SparseNODE, "get_sparsity", lambda _: pd.Series({"feature": 0.25, "weight": 0.5}))
    assert _cli.main(["fit", str(path), str(tmp_path / "out.h5ad"), "--time", "age"]) == 0
    assert "25% of the lineages' adjacencies, 50% of the weights" in capsys.readouterr().out


def test_fit_with_every_option(path, tmp_path, quick):
    out = tmp_path / "out.h5ad"
    options = {
        "--time": "age",
        "--lineages": "memberships",
        "--batch": "donor",
        "--layer": "log",
        "--regularizer": "cnode",
        "--fields": "shared",
        "--seed": "7",
        "--key-added": "mine",
        "--figures": str(tmp_path / "new" / "figures"),
    }
    assert _cli.main(["fit", str(path), str(out), *(word for pair in options.items() for word in pair)]) == 0
    adata = anndata.read_h5ad(out)
    uns = adata.uns["mine"]
    assert uns["setup"] == {"time_key": "age", "lineage_key": "memberships", "batch_key": "donor", "layer": "log"}
    assert uns["parameters"]["regularizer"].startswith("CNODE")
    assert (uns["parameters"]["fields"], uns["parameters"]["seed"]) == ("shared", 7)
    assert sorted(p.name for p in (tmp_path / "new" / "figures").iterdir()) == sorted(f"out_{n}.png" for n in FIGURES)
    assert "max_epochs" not in quick  # as many epochs as the model does by default


@pytest.mark.parametrize("form", ["file", "column"])
def test_regulators_and_prior(path, tmp_path, quick, monkeypatch, form):
    adata = anndata.read_h5ad(path)
    adata.var["tf"] = adata.var_names.isin(["gene1", "gene5"])
    adata.write_h5ad(path)
    (tmp_path / "tfs.txt").write_text("gene5\n\n gene1\nSOX2\n")
    (tmp_path / "prior.csv").write_text("source,target,weight\ngene1,gene2,0.5\n")
    regulators = {"file": str(tmp_path / "tfs.txt"), "column": "tf"}[form]
    options = ["--time", "age", "--regularizer", "cnode", "--regulators", regulators]
    options += ["--prior", str(tmp_path / "prior.csv")]
    monkeypatch.setattr(_cli, "_write", lambda *_: None)
    assert _cli.main(["fit", str(path), str(tmp_path / "out.h5ad"), *options]) == 0
    assert set(quick["model"].get_network()["source"]) == {"gene1", "gene5"}
    weights = np.ones((8, 2))  # targets × regulators
    weights[2, 0] = 0.55
    weights[[1, 5], [0, 1]] = quick["model"].module.field.path_weights[[1, 5], [0, 1]]  # self edges may be free
    np.testing.assert_allclose(quick["model"].module.field.path_weights, weights)


def test_names_in_files_are_read_as_they_are(path, tmp_path, quick, monkeypatch):
    """With the mark that some programs put before text, and genes that are called NA or nan."""
    adata = anndata.read_h5ad(path)
    adata.var_names = ["NA", "nan", *adata.var_names[2:]]
    adata.write_h5ad(path)
    (tmp_path / "tfs.txt").write_text("nan\ngene5\n", encoding="utf-8-sig")
    (tmp_path / "prior.csv").write_text("source,target,weight\nnan,NA,0.5\n", encoding="utf-8-sig")
    options = ["--time", "age", "--regularizer", "cnode", "--regulators", str(tmp_path / "tfs.txt")]
    monkeypatch.setattr(_cli, "_write", lambda *_: None)
    files = [str(path), str(tmp_path / "out.h5ad")]
    assert _cli.main(["fit", *files, *options, "--prior", str(tmp_path / "prior.csv")]) == 0
    model = quick["model"]
    assert [model.genes[k] for k in model._regulators] == ["nan", "gene5"]
    assert model.module.field.path_weights[0, 0] == pytest.approx(0.55)


def test_the_same_seed_writes_the_same(path, tmp_path, quick):
    for name in ("a", "b"):
        assert _cli.main(["fit", str(path), str(tmp_path / f"{name}.h5ad"), "--time", "age", "--seed", "3"]) == 0
    one, other = (anndata.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("a", "b"))
    np.testing.assert_array_equal(one.layers["sparsenode_velocity"], other.layers["sparsenode_velocity"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            [],
            "`time_key` to be in `adata.obs` or `adata.obsm`, found 'dpt_pseudotime'. Available: ['lineage', 'donor', 'age'] in",
        ),
        (["--time", "lineage"], "`adata.obs['lineage']` to be numeric"),
        (["--time", "age", "--lineages", "clusters"], "`lineage_key`"),
        (["--time", "age", "--batch", "sample"], "`batch_key`"),
        (["--time", "age", "--layer", "counts"], "`layer` to be one of ['log'], found 'counts'"),
        (["--time", "age", "--regularizer", "lasso"], "['cnode', 'grouplasso', 'l0', 'lassonet', 'none', 'pathreg']"),
        (["--time", "age", "--regulators", "tfs.txt"], "file with a name a line or a column of .var, found 'tfs.txt'"),
        (
            ["--time", "age", "--prior", "none.csv"],
            "Expected `--prior` to be a csv file of edges, found no file at 'none.csv'",
        ),
        (["--time", "age", "--fields", "both"], "`fields`"),
        (["--time", "age", "--seed", "-1"], "`seed`"),
        (["--time", "age", "--epochs", "-3"], "`max_epochs`"),
        (["--time", "age", "--epochs", "0"], "`max_epochs`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options(path, tmp_path, quick, capsys, options, message):
    out = tmp_path / "out.h5ad"
    assert _cli.main(["fit", str(path), str(out), *options]) == 1
    assert message in failure(capsys)
    assert not out.exists()


def test_a_prior_without_a_table_is_named(path, tmp_path, capsys):
    (tmp_path / "prior.csv").write_text("")
    options = ["--time", "age", "--prior", str(tmp_path / "prior.csv")]
    assert _cli.main(["fit", str(path), str(tmp_path / "out.h5ad"), *options]) == 1
    assert "prior.csv" in failure(capsys)


@pytest.mark.parametrize(
    ("row", "message"),
    [(",gene2,0.5", "a gene in every row of the column 'source'"), ("gene1,gene2,NA", "found nan in row 0")],
)
def test_what_is_missing_in_a_prior_is_found(path, tmp_path, capsys, row, message):
    (tmp_path / "prior.csv").write_text(f"source,target,weight\n{row}\ngene3,gene4,1\n")
    options = ["--time", "age", "--prior", str(tmp_path / "prior.csv")]
    assert _cli.main(["fit", str(path), str(tmp_path / "out.h5ad"), *options]) == 1
    assert message in failure(capsys)


@pytest.mark.parametrize(
    ("of_lineage", "of_all", "warned"), [(0.4, -0.1, True), (-0.4, 0.1, False), (0.4, 0.0, True), (0.4, np.nan, True)]
)
def test_the_skill_of_all_cells_decides_what_is_said_of_it(capsys, of_lineage, of_all, warned):
    scores = pd.DataFrame({"mse": 1.0, "null_mean": 2.0, "skill": [of_lineage, of_all]}, ["erythroid", "total"])
    _cli._report_scores(scores, scores)
    assert ("Skill is not positive" in capsys.readouterr().out) == warned


def test_bad_data(path, tmp_path, capsys):
    adata = anndata.read_h5ad(path)
    adata.obs.iloc[:2, adata.obs.columns.get_loc("age")] = np.nan
    adata.write_h5ad(path)
    assert _cli.main(["fit", str(path), str(tmp_path / "out.h5ad"), "--time", "age"]) == 1
    assert "found 2 of 120 cells missing" in failure(capsys)


def test_missing_input(tmp_path, capsys):
    assert _cli.main(["fit", str(tmp_path / "none.h5ad"), str(tmp_path / "out.h5ad")]) == 1
    assert "none.h5ad" in failure(capsys)


def test_input_that_is_no_h5ad(tmp_path, capsys):
    (tmp_path / "in.h5ad").write_text("gene,cell\n")
    assert _cli.main(["fit", str(tmp_path / "in.h5ad"), str(tmp_path / "out.h5ad")]) == 1
    assert "Expected an h5ad file to read, found '" in failure(capsys)


def test_input_of_several_modalities(adata, tmp_path, capsys):
    MuData({"rna": adata, "other": adata.copy()}).write_h5mu(tmp_path / "in.h5mu")
    assert _cli.main(["fit", str(tmp_path / "in.h5mu"), str(tmp_path / "out.h5ad")]) == 1
    assert "If it holds a MuData, write one modality" in failure(capsys)


def test_names_in_another_encoding(path, tmp_path, capsys):
    (tmp_path / "factors.txt").write_text("GATA1\n", encoding="utf-16")
    arguments = [
        "fit",
        str(path),
        str(tmp_path / "out.h5ad"),
        "--time",
        "age",
        "--regulators",
        str(tmp_path / "factors.txt"),
    ]
    assert _cli.main(arguments) == 1
    assert "Expected a text file in UTF-8" in failure(capsys)


def test_the_input_is_not_overwritten(path, tmp_path, quick, capsys):
    """By whatever path, or through a link."""
    before = path.read_bytes()
    (tmp_path / "link.h5ad").symlink_to(path)
    for same in (path.parent / "." / path.name, path.parent / ".." / "in" / path.name, tmp_path / "link.h5ad"):
        assert _cli.main(["fit", str(path), str(same), "--time", "age"]) == 1
        assert "another file than IN.h5ad" in failure(capsys)
    assert path.read_bytes() == before
    assert quick == {}


@pytest.mark.parametrize("name", ["out.csv", "out", "none/out.h5ad"])
def test_output_that_cannot_be_written_is_found_before_the_fit(path, tmp_path, quick, capsys, name):
    assert _cli.main(["fit", str(path), str(tmp_path / name), "--time", "age"]) == 1
    assert f"an .h5ad file in an existing folder to write to, found '{tmp_path / name}'" in failure(capsys)
    assert quick == {}


def test_output_that_is_a_folder_is_found_before_the_fit(path, tmp_path, quick, capsys):
    (tmp_path / "out.h5ad").mkdir()
    assert _cli.main(["fit", str(path), str(tmp_path / "out.h5ad"), "--time", "age"]) == 1
    assert f"found '{tmp_path / 'out.h5ad'}', which is a folder or read-only" in failure(capsys)
    assert quick == {}


@pytest.mark.parametrize("exists", [True, False])
def test_a_place_that_is_read_only_is_found_before_the_fit(path, tmp_path, quick, capsys, monkeypatch, exists):
    """Told by the system, whose administrator may write everywhere."""
    output = tmp_path / "out.h5ad"
    place = output if exists else tmp_path
    if exists:
        output.touch()
    monkeypatch.setattr(_cli.os, "access", lambda asked, mode: not (asked == place and mode == os.W_OK))
    assert _cli.main(["fit", str(path), str(output), "--time", "age"]) == 1
    assert f"found '{place}', which is a folder or read-only" in failure(capsys)
    assert quick == {}


def test_a_place_for_figures_that_is_a_file_is_found_before_the_fit(path, tmp_path, quick, capsys):
    (tmp_path / "figures").touch()
    arguments = ["fit", str(path), str(tmp_path / "out.h5ad"), "--time", "age", "--figures", str(tmp_path / "figures")]
    assert _cli.main(arguments) == 1
    assert "File exists" in failure(capsys)
    assert quick == {}


def test_divergence(path, tmp_path, monkeypatch, capsys):
    def diverge(self, **_):
        raise sn.DivergenceError("Training diverged: lower the learning rate.")

    monkeypatch.setattr(sn.SparseNODE, "train", diverge)
    assert _cli.main(["fit", str(path), str(tmp_path / "out.h5ad"), "--time", "age"]) == 1
    assert "lower the learning rate" in failure(capsys)


def test_a_network_whose_trajectories_diverge_is_written(path, tmp_path, quick, monkeypatch, capsys):
    def diverge(self, *_, **__):
        raise sn.DivergenceError("The solution diverged.")

    monkeypatch.setattr(sn.module.SparseNODEModule, "trajectories", diverge)
    arguments = ["fit", str(path), str(tmp_path / "out.h5ad"), "--time", "age", "--objective", "transport"]
    with pytest.warns(UserWarning, match="its network was written"):
        assert _cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "Exact zeros" in text
    assert "to be compared with those of correlations" in text
    assert "null_zero" not in text
    adata = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert adata.varp["sparsenode_adjacency"].nnz > 0
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["out_adjacency.png", "out_history.png"]


def test_a_mistake_of_ours_is_not_hidden(path, tmp_path, monkeypatch):
    def broken(self, **_):
        raise AttributeError("a bug")

    monkeypatch.setattr(sn.SparseNODE, "train", broken)
    with pytest.raises(AttributeError, match="a bug"):
        _cli.main(["fit", str(path), str(tmp_path / "out.h5ad"), "--time", "age"])


@pytest.mark.parametrize("arguments", [[], ["train"], ["fit"], ["fit", "a.h5ad"], ["fit", "a", "b", "--epochs", "x"]])
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        _cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: sparsenode" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["demo", "--help"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        _cli.main(arguments)
    assert caught.value.code == 0
    out = capsys.readouterr().out
    if arguments[0] == "fit":
        for option in ("--time", "--lineages", "--batch", "--regularizer", "--regulators", "--prior"):
            assert option in out


def test_python_m_sparsenode(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["sparsenode", "fit", str(tmp_path / "none.h5ad"), str(tmp_path / "out.h5ad")])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("sparsenode", run_name="__main__")
    assert caught.value.code == 1
    failure(capsys)


# demo


def test_demo(tmp_path, quick, capsys):
    assert _cli.main(["demo", "--out", str(tmp_path / "a" / "demo")]) == 0
    text = capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "a" / "demo").iterdir()) == sorted(
        ["krumsiek11.h5ad", *(f"krumsiek11_{name}.png" for name in FIGURES)]
    )
    adata = anndata.read_h5ad(tmp_path / "a" / "demo" / "krumsiek11.h5ad")
    assert {"sparsenode_adjacency", "sparsenode_adjacency_Mo"} <= set(adata.varp)
    # The comparison with the truth that was printed is that of the network that was written.
    matrix = adata.varp["sparsenode_adjacency"].toarray()
    target, source = np.nonzero(matrix)
    network = pd.DataFrame(
        {"source": adata.var_names[source], "target": adata.var_names[target], "weight": matrix[target, source]}
    )
    truth = sn.datasets.krumsiek11_network()
    scores = sn.tl.evaluate_network(network, truth)
    assert f"AUPRC ratio {scores['auprc_ratio']:.2f}" in text
    assert f"AUROC {scores['auroc']:.2f}" in text
    edges = [(a, b) for a in adata.var_names for b in adata.var_names if a != b]
    true = [edge in set(zip(truth["source"], truth["target"], strict=True)) for edge in edges]
    for name, values in (("Pearson", adata.X), ("Spearman", rankdata(adata.X, axis=0))):
        related = pd.DataFrame(np.abs(np.corrcoef(values.T)).round(9), adata.var_names, adata.var_names)
        ratio = average_precision_score(true, [related.loc[edge] for edge in edges]) / np.mean(true)
        assert f"{name} {ratio:.2f}" in text
    assert f"this network {scores['average_precision_ratio']:.2f}" in text
    assert (
        f"{scores['precision']:.0%} of its edges are true, {scores['recall']:.0%} of the true edges are found" in text
    )
    by_lineage = [adata.varp[f"sparsenode_adjacency_{name}"].toarray() for name in ("Mo", "Ery", "Mk", "Neu")]
    assert f"Exact zeros: {(np.array(by_lineage) == 0).mean():.0%} of the lineages' adjacencies" in text
    held_out = adata.uns["sparsenode"]["held_out_scores"].loc["total"]
    assert f"{held_out['skill']:.4f}" in text
    assert held_out["skill"] <= 0  # after so few epochs; users are told what that means
    assert "Skill is not positive" in text


def test_demo_where_it_cannot_write(adata, tmp_path, quick, capsys, monkeypatch):
    adata.uns["true_network"] = pd.DataFrame({"source": ["gene0"], "target": ["gene1"], "weight": [1.0]})
    adata.uns["true_network"].loc[1] = ["gene1", "gene2", -1.0]
    monkeypatch.setattr(sn.datasets, "krumsiek11", lambda: adata)
    (tmp_path / "file").write_text("")
    assert _cli.main(["demo", "--out", str(tmp_path / "file" / "demo")]) == 1
    failure(capsys)


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        _cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == f"sparsenode {sn.__version__}"
