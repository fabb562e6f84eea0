"""What benchmarks read from folders of users."""

from __future__ import annotations

import gzip
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import sparsenode as sn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
GENES = ["g0", "g1", "g2", "g3"]
# One interpreter for all scripts, since the imports take the most time.
STARTS = """
import runpy, sys
from pathlib import Path
for script in sys.argv[1:]:
    sys.path[0], sys.argv = str(Path(script).parent), [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        assert not end.code, script
"""


@pytest.fixture
def beeline(monkeypatch):
    if not BENCHMARKS.exists():  # a source distribution has no benchmarks
        pytest.skip("no benchmarks here")
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("beeline")
    # Scripts quieten the whole process and choose its threads.
    monkeypatch.setattr(module, "silence", lambda: None)
    yield module
    for name in ("beeline", "_common", "_timing"):
        sys.modules.pop(name, None)


@pytest.fixture
def bone_marrow(beeline):
    yield importlib.import_module("bone_marrow")
    sys.modules.pop("bone_marrow", None)


@pytest.fixture
def refused(monkeypatch, capsys):
    """What a script says where it refuses arguments, before it begins with its work."""

    def call(script, work, *arguments) -> str:
        monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
        monkeypatch.setattr(script, work, lambda *_: pytest.fail("too late"))
        monkeypatch.setattr(script, "silence", lambda: None, raising=False)
        with pytest.raises(SystemExit):
            script.main()
        return capsys.readouterr().err

    return call


@pytest.fixture
def donors(tmp_path) -> Path:
    """Two donors with two lineages: one sparse, the other dense with two genes less, in another order."""
    folder = tmp_path / "bone_marrow"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, genes in {"a": ["g0", "g1", "g2", "g3"], "b": ["g3", "g1"]}.items():
        counts = generator.poisson(3, (60, len(genes))).astype(np.float32)
        obs = pd.DataFrame({"dpt_pseudotime": np.linspace(0, 1, 60)}, index=[f"{name}{i}" for i in range(60)])
        adata = AnnData(sparse.csr_matrix(counts) if name == "a" else counts, obs=obs, var=pd.DataFrame(index=genes))
        adata.obsm["lineages"] = pd.DataFrame({"x": np.arange(60) < 50, "y": np.arange(60) >= 30}, index=obs.index)
        adata.write_h5ad(folder / f"{name}.h5ad")
    return tmp_path


@pytest.fixture
def run(tmp_path) -> Path:
    """A chain of four genes in 60 cells of two lineages and nine of a third; cells are numbers, and two are of neither of the two."""
    folder = tmp_path / "chain" / "7"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    times = np.sort(generator.uniform(0, 1, 60))
    curves = 1 / (1 + np.exp(-12 * (times - np.array([[0.2], [0.4], [0.6], [0.8]]))))
    expression = pd.DataFrame(curves + generator.normal(0, 0.05, curves.shape), index=GENES, columns=range(60))
    expression.to_csv(folder / "ExpressionData.csv")
    lineages = pd.DataFrame({"PseudoTime1": times, "PseudoTime2": times + 0.2})
    lineages.loc[5:30:2, "PseudoTime1"] = np.nan
    lineages.loc[[3, 8]] = np.nan
    lineages["PseudoTime3"] = np.where(lineages.index < 9, times, np.nan)
    lineages.sample(frac=1, random_state=0).to_csv(folder / "PseudoTime.csv")
    reference = pd.DataFrame({"Type": ["+", "-", None], "Gene1": GENES[:3], "Gene2": GENES[1:], "Note": "x"})
    reference.to_csv(folder / "refNetwork.csv", index=False)
    return folder


def test_every_script_starts():
    scripts = [str(path) for path in sorted(BENCHMARKS.rglob("*.py")) if not path.name.startswith("_")]
    if not scripts:
        pytest.skip("no benchmarks here")
    found = subprocess.run([sys.executable, "-c", STARTS, *scripts], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("usage: ") == len(scripts)


def test_cells_and_reference_of_a_run(beeline, run, capsys):
    adata, reference = beeline.read(run)
    printed = capsys.readouterr().out
    assert "chain/7: fewer than 10 cells in ['PseudoTime3'], left out" in printed
    assert "chain/7: 2 of 60 cells are in no lineage, left out" in printed
    expression = pd.read_csv(run / "ExpressionData.csv", index_col=0).T
    times = pd.read_csv(run / "PseudoTime.csv", index_col=0).sort_index().drop(columns="PseudoTime3")
    kept = np.delete(np.arange(60), [3, 8])
    assert list(adata.obs_names) == [str(cell) for cell in kept]
    assert list(adata.var_names) == GENES
    np.testing.assert_allclose(adata.X, expression.iloc[kept], rtol=1e-6)
    np.testing.assert_allclose(adata.obsm["pseudotime"], times.iloc[kept])
    np.testing.assert_array_equal(adata.obsm["lineages"], times.iloc[kept].notna())
    assert reference.to_dict("list") == {"source": GENES[:3], "target": GENES[1:], "weight": [1.0, -1.0, 0.0]}


def test_names_are_read_as_they_are_written(beeline, run, capsys):
    names = dict(zip(GENES, ["007", "NA", "1e3", "HLA-A"], strict=True))
    expression = pd.read_csv(run / "ExpressionData.csv", index_col=0).rename(index=names)
    expression.columns = [f"{int(cell):03d}" for cell in expression]
    times = pd.read_csv(run / "PseudoTime.csv", index_col=0)
    times.index = [f"{cell:03d}" for cell in times.index]
    reference = pd.read_csv(run / "refNetwork.csv").replace(names)
    reference["Gene2"] += " "
    for table, name in ((expression, "ExpressionData"), (times, "PseudoTime")):
        table.to_csv(run / f"{name}.csv")
    reference.to_csv(run / "refNetwork.csv", index=False)
    before = beeline.read(run)[0]
    assert list(before.var_names) == ["007", "NA", "1e3", "HLA-A"]
    assert list(before.obs_names[:4]) == ["000", "001", "002", "004"]
    assert list(beeline.read(run)[1]["target"]) == ["NA", "1e3", "HLA-A"]
    # without a name for the column of names, as R writes it
    lines = (run / "PseudoTime.csv").read_text().splitlines()
    (run / "PseudoTime.csv").write_text("\n".join([lines[0].lstrip(","), *lines[1:]]))
    np.testing.assert_array_equal(beeline.read(run)[0].X, before.X)
    assert "not in the expression" not in capsys.readouterr().out


def test_genes_that_the_expression_lacks_are_named(beeline, run, capsys):
    path = run / "ExpressionData.csv"
    pd.read_csv(path, index_col=0).drop(index="g3").to_csv(path)
    beeline.read(run)
    printed = capsys.readouterr().out
    assert "chain/7: not in the expression are ['g3']. Their pairs count as not predicted, which raises" in printed
    pd.read_csv(path, index_col=0).rename(index=str.upper).to_csv(path)
    with pytest.raises(ValueError, match=r"found none. They look like \['g0', 'g1', 'g2'\], those of .* like \['G0'"):
        beeline.read(run)


def test_a_cell_that_stands_twice_is_refused(beeline, run):
    times = pd.read_csv(run / "PseudoTime.csv", index_col=0).sort_index()
    pd.concat([times, times.iloc[:2]]).to_csv(run / "PseudoTime.csv")
    with pytest.raises(ValueError, match=r"every cell once.*chain.*found 2 more than once: \['0', '1'\]"):
        beeline.read(run)


def test_folders_that_are_no_runs_are_found(beeline, run, tmp_path):
    for folder in (tmp_path / "deep" / "chain" / "7", tmp_path / "chain" / "8"):
        folder.mkdir(parents=True)
        (folder / "ExpressionData.csv").touch()
    assert beeline.left_out(tmp_path, beeline.find_runs(tmp_path)) == ["chain/8", "deep/chain/7"]


def test_networks_without_a_seed_are_named(beeline, run, tmp_path, capsys):
    other = tmp_path / "other" / "a-1"
    other.mkdir(parents=True)
    (other / "refNetwork.csv").touch()
    runs = beeline.find_runs(tmp_path)
    assert beeline.of_seeds(runs, ["7"]) == [run]
    assert capsys.readouterr().out == "without a run of the seeds ['7'], left out: ['other']\n"
    assert beeline.of_seeds(runs, ["7", "a-1"]) == runs
    assert not beeline.of_seeds(runs, ["8"])
    assert not capsys.readouterr().out


def test_multiome_looks_for_its_cells_first(beeline, tmp_path, refused):
    multiome = importlib.import_module("multiome")
    said = refused(multiome, "recover", "--data", str(tmp_path))
    assert re.search(r"cells of erythropoiesis in .*mouse_bone_marrow.h5ad, found none. Name another --data", said)
    sys.modules.pop("multiome")


def test_a_reference_without_signs(beeline, run):
    path = run / "refNetwork.csv"
    pd.read_csv(path)[["Gene2", "Gene1"]].to_csv(path, index=False)
    assert (beeline.read_reference(path)["weight"] == 0).all()
    assert list(beeline.read_reference(path)["source"]) == GENES[:3]
    path.write_text("Gene1,Gene2,Type\ng0,g1,NA\nNA,g2, -\n")  # as R writes what is missing; a gene may be called so
    found = beeline.read_reference(path)
    assert found.to_numpy().tolist() == [["g0", "g1", 0.0], ["NA", "g2", -1.0]]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("refNetwork.csv", lambda t: t.assign(Type="activates"), r"'\+', '-' or nothing.*refNetwork.csv, found \['act"),
        ("refNetwork.csv", lambda t: t.rename(columns={"Gene1": "TF"}), "columns Gene1, Gene2 and Type in"),
        (
            "refNetwork.csv",
            lambda t: t.assign(Gene2=[" ", "g2", None]),
            "two genes in every row of .*found 2 rows without",
        ),
        ("ExpressionData.csv", lambda t: t.assign(**{"7": "x"}), r"numbers in .*found others in 1 columns: \['7'\]"),
        (
            "ExpressionData.csv",
            lambda t: t.replace("g3", "g1"),
            r"every gene once in .*more than once: \['g1'\]. Rename",
        ),
        (
            "ExpressionData.csv",
            lambda t: t.iloc[:, :1],
            "commas between them, in .*ExpressionData.csv, found one column",
        ),
        (
            "PseudoTime.csv",
            lambda t: t.iloc[:, [0, 3]],
            "lineages of 10 cells or more in PseudoTime.csv of .*, found none",
        ),
        ("refNetwork.csv", lambda t: t.iloc[:0], "edges in .*refNetwork.csv, found none"),
        ("PseudoTime.csv", lambda t: t.iloc[:50], r"PseudoTime.csv of .*chain.7, 10 of 60 are missing: \["),
    ],
)
def test_files_that_cannot_be_read(beeline, run, name, change, message):
    change(pd.read_csv(run / name)).to_csv(run / name, index=False)
    with pytest.raises(ValueError, match=message):
        beeline.read(run)


@pytest.mark.parametrize("content", [b"", b"Gene1,Gene2\ng0,\xe4\n"])
def test_files_that_pandas_cannot_read_are_named(beeline, run, content):
    (run / "refNetwork.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"refNetwork.csv: (No columns|'utf-8')"):
        beeline.read(run)


def test_a_bad_run_leaves_the_others(beeline, run, tmp_path, monkeypatch, capsys):
    for name in ("bad", "cut"):
        bad = tmp_path / name / "0"
        bad.mkdir(parents=True)
        (bad / "refNetwork.csv").write_text("Gene1,Gene2,Type\ng0,g1,+\n")
    (bad / "ExpressionData.csv.gz").write_bytes(gzip.compress((run / "ExpressionData.csv").read_bytes())[:500])
    published = {
        "dataset": ["chain", "chain", "other", "chain"],
        "seed": [7, 8, 7, 7],
        "method": ["pearson", "pearson", "pearson", "PIDC"],
        "auprc_ratio": [9.0, 99.0, 9.0, 5.0],
        "epr": [1.0, 1.0, 1.0, 2.0],
        "auroc": 1.0,
    }
    pd.DataFrame(published).to_csv(tmp_path / "published_methods.csv", index=False)
    adata = beeline.read(run)[0]
    edges = pd.DataFrame({"source": GENES[:3], "target": GENES[1:], "weight": [1.0, -1.0, 1.0]})
    monkeypatch.setattr(beeline, "infer", lambda cells: edges if cells.n_obs == adata.n_obs else None)
    out = tmp_path / "out.csv"
    monkeypatch.setattr(sys, "argv", ["beeline.py", str(tmp_path), "--out", str(out), "--no-baselines"])
    with pytest.raises(SystemExit) as stop:
        beeline.main()
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert "failed: bad/0: Expected ExpressionData.csv" in printed.err
    assert "failed: cut/0: Compressed file ended" in printed.err
    shown = [line.split("chain")[-1].split() for line in printed.out.splitlines()[-4:]]
    assert [row[:-5] for row in shown[1:3]] == [["published", "pearson"], ["published", "PIDC"]]
    assert shown[3] == "best published, score by score 9.000 2.000 1.000 NaN NaN".split()  # of the seeds that were run
    assert "other" not in printed.out
    table = pd.read_csv(out)
    assert list(table.columns) == beeline.COLUMNS
    assert table[["network", "seed", "method", "sign_accuracy"]].values.tolist() == [["chain", 7, "sparsenode", 1.0]]
    assert table["auprc_ratio"].tolist() == pytest.approx([4.0])


def test_a_table_is_written_before_it_is_summarised(beeline, run, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    monkeypatch.setattr(sys, "argv", ["beeline.py", str(tmp_path), "--out", str(out)])
    monkeypatch.setattr(beeline, "run_one", lambda *_: [dict.fromkeys(beeline.COLUMNS, "0")])
    monkeypatch.setattr(beeline, "summarise", lambda table: pytest.fail("no summary"))
    with pytest.raises(pytest.fail.Exception, match="no summary"):
        beeline.main()
    assert len(pd.read_csv(out)) == 1


def test_expression_that_is_there_twice(beeline, run):
    (run / "ExpressionData.csv.gz").write_bytes(gzip.compress((run / "ExpressionData.csv").read_bytes()))
    with pytest.raises(ValueError, match="Expected one of ExpressionData.csv and ExpressionData.csv.gz .*found both"):
        beeline.read(run)


def test_every_table_of_a_run_may_be_compressed(beeline, run, tmp_path):
    plain = beeline.read(run)
    for path in list(run.glob("*.csv")):
        path.with_suffix(".csv.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert beeline.find_runs(tmp_path) == [run]
    cells, reference = beeline.read(run)
    np.testing.assert_array_equal(cells.X, plain[0].X)
    pd.testing.assert_frame_equal(cells.obsm["pseudotime"], plain[0].obsm["pseudotime"])
    pd.testing.assert_frame_equal(reference, plain[1])
    (run / "PseudoTime.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"Expected PseudoTime.csv or PseudoTime.csv.gz in .*7, found neither"):
        beeline.read(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset,seed,method,auprc_ratio,epr\n", r"the columns \['auroc'\], found \['dataset', "),
        ("seed,method,auprc_ratio,epr,auroc\n", r"the columns \['dataset'\], found"),
        ("dataset,network,seed,method,auprc_ratio,epr,auroc\n", "'dataset' and 'network', found both"),
        ("network,seed,method,auprc_ratio,epr,auroc\n", "rows of published methods, found none"),
        ("network,seed,method,auprc_ratio,epr,auroc\na,0,PIDC,1,NA,high\n", r"in the column 'auroc', found \['high'\]"),
        ("", "No columns to parse"),
    ],
)
def test_published_methods_that_cannot_be_read(beeline, run, tmp_path, refused, text, message):
    (tmp_path / "published_methods.csv").write_text(text)
    assert re.search(f"published_methods.csv: .*{message}", refused(beeline, "infer", str(tmp_path)))


def test_published_methods_of_any_name(beeline, tmp_path):
    text = "dataset,seed,method,auprc_ratio,epr,auroc\nNA,007,nan,1,NA,0.5\n"
    (tmp_path / "published_methods.csv").write_text(text)
    found = beeline.published(tmp_path)
    assert list(found.columns) == beeline.COLUMNS
    assert found.iloc[0, :4].tolist() == ["NA", "007", "published nan", 1]
    assert np.isnan(found["epr"].item())


def test_where_the_table_goes_is_checked_first(beeline, run, tmp_path, refused):
    said = refused(beeline, "infer", str(tmp_path), "--out", str(tmp_path / "out.json"))
    assert "Expected a csv file to write to in --out" in said
    (tmp_path / "file").touch()
    said = refused(beeline, "infer", str(tmp_path), "--out", str(tmp_path / "file" / "out.csv"))
    assert f"Expected a folder to write to, found {tmp_path / 'file'}" in said
    assert sys.modules["_common"].folder(tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    assert not (tmp_path / "new").exists()


def test_donors_with_other_genes_dense_or_sparse(bone_marrow, donors, capsys):
    cells = bone_marrow.read_all(donors, ["a", "b"], "recommended")
    assert capsys.readouterr().out == "a: 2 of 4 genes are not in every donor, left out\n"
    for name, adata in cells.items():
        raw = anndata.read_h5ad(donors / "bone_marrow" / f"{name}.h5ad")[:, ["g1", "g3"]]
        raw = raw.X.toarray() if sparse.issparse(raw.X) else raw.X
        found = adata[:, ["g1", "g3"]].X
        np.testing.assert_allclose(found.toarray() if sparse.issparse(found) else found, np.log1p(raw))
    with pytest.raises(ValueError, match="a: Expected more than 30 cells in every lineage.*found 30 in 'y'"):
        bone_marrow.read_all(donors, ["a", "b"], "paper")


@pytest.fixture
def real_networks(bone_marrow):
    yield importlib.import_module("real_networks")
    sys.modules.pop("real_networks", None)


def test_pairs_of_genes_that_the_donor_lacks_are_left_out(real_networks, tmp_path, capsys):
    pairs = pd.DataFrame({"gene": ["g1", "g0", "g3"], "target": ["g3", "g1", "g2"], "score": 1.0})
    pairs.to_csv(tmp_path / "reference_x.csv.gz", index=False)
    found = real_networks.read_reference(tmp_path, "x", pd.Index(["g3", "g1", "g0"]))
    assert found[["source", "target"]].values.tolist() == [["g1", "g3"], ["g0", "g1"]]
    assert capsys.readouterr().out == "x: 1 of 3 pairs have genes that the donor lacks, left out\n"
    with pytest.raises(ValueError, match="genes of the donor in the reference of 'x', found none"):
        real_networks.read_reference(tmp_path, "x", pd.Index(["other"]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"source": ["g0"], "target": ["g1"]}, "in the reference of 'x', and .*found 1 of 1 in it"),
        ({"source": ["g0"], "target": ["g0"]}, "found 0 of 0 in it"),
        ({"source\ttarget": ["g0\tg1"]}, r"source and target in reference_x.csv.gz, found the column \['source.*'\]"),
    ],
)
def test_references_that_tell_nothing_apart_are_refused(real_networks, tmp_path, table, message):
    pd.DataFrame(table).to_csv(tmp_path / "reference_x.csv.gz", index=False)
    with pytest.raises(ValueError, match=message):
        real_networks.read_reference(tmp_path, "x", pd.Index(["g0", "g1"]))


def test_lineages_are_those_with_a_reference(real_networks, donors, refused, capsys):
    """Of any name, with the sources in any column of theirs."""
    folder = donors / "bone_marrow"
    said = refused(real_networks, "run", "--data", str(donors), "--donors", "a", "b")
    assert re.search(r"error: a: Expected lineages with a reference.*, \[\], found \['x', 'y'\]", said)
    pairs = pd.DataFrame({"score": 1.0, "target": ["g1", "g2", "g3"], "source": ["g0", "g0", "g1"]})
    for name in ("x", "z", "base"):
        pairs.to_csv(folder / f"reference_{name}.csv.gz", index=False)
    pd.DataFrame({"gene": ["g7"]}).to_csv(folder / "transcription_factors.csv", index=False)
    said = refused(real_networks, "run", "--data", str(donors), "--donors", "a")
    assert re.search("error: a: Expected .*regulators.*g7", said)
    capsys.readouterr()
    references = real_networks.read(folder, "a")[1]
    assert capsys.readouterr().out == (
        "a: lineages ['y'] have no reference, left out\na: lineages ['z'] are not in the donor, left out\n"
    )
    assert list(references) == ["x"]
    assert references["x"]["source"].tolist() == ["g0", "g0", "g1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "a", "--test", "c"], r"Expected \['c.h5ad'\] in .*, found none. Donors there: \['a', 'b'\]"),
        (["--train", "a", "--test", "a"], r"Expected every donor once, found \('a', 'a'\)"),
    ],
)
def test_donors_are_looked_for_first(bone_marrow, donors, refused, arguments, message):
    assert re.search(message, refused(bone_marrow, "run", "--data", str(donors), *arguments))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda adata: adata.obs["dpt_pseudotime"].where(adata.obs["dpt_pseudotime"] < 0.9),
            "found 6 of 60 cells without",
        ),
        (lambda adata: adata.obsm["lineages"].to_numpy(), "Expected a DataFrame .*found ndarray"),
        (
            lambda adata: adata.obsm["lineages"] & (np.arange(60) >= 55)[:, None],
            "at least 10 cells in every trajectory.*found 5 in 'y'",
        ),
        (lambda adata: adata.obsm["lineages"].add_suffix("2"), r"lineages that all of \['.', '.'\] have, found none"),
        (
            lambda adata: adata.obsm["lineages"].assign(x=True, y=np.arange(60) > 55),
            "at least 10 cells in every trajectory.*in 'y'",
        ),
        (lambda adata: adata.obsm["lineages"].assign(x="True"), r"b: Expected booleans or .*found others in \['x'\]"),
        (
            lambda adata: adata.obsm["lineages"].astype(float).replace(0, np.nan),
            r"b: .*lineages'\], found missing ones",
        ),
        (lambda adata: adata.obs["dpt_pseudotime"].astype(str), "b: Expected numbers in adata.obs"),
    ],
)
def test_donors_are_checked_before_a_fit(bone_marrow, donors, refused, change, message):
    path = donors / "bone_marrow" / "b.h5ad"
    adata = anndata.read_h5ad(path)
    changed = change(adata)
    if isinstance(changed, pd.Series):
        adata.obs["dpt_pseudotime"] = changed
    else:
        adata.obsm["lineages"] = changed
    adata.write_h5ad(path)
    for trained, predicted in ("ba", "ab"):
        arguments = ["--data", str(donors), "--train", trained, "--test", predicted, "--protocols", "recommended"]
        assert re.search(f"error: .*{message}", refused(bone_marrow, "run", *arguments))


def test_regulators_that_are_no_genes_are_found_before_a_fit(bone_marrow, donors, monkeypatch):
    pd.DataFrame({"gene": ["g0", "g2"]}).to_csv(donors / "bone_marrow" / "transcription_factors.csv", index=False)
    monkeypatch.setattr(sn, "SparseNODE", None)
    with pytest.raises(SystemExit, match=r"among the 2 genes that all of \['a', 'b'\] have, found none of the 2 in"):
        bone_marrow.run(donors, ["a", "b"], "recommended", {}, 0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda adata: adata[:, ["g3", "g3"]], r"b: Expected every gene once, found 1 more than once: \['g3'\]"),
        (lambda adata: AnnData(adata.X - 3.5, adata.obs, adata.var, obsm=adata.obsm), "b: Expected normalised counts"),
        (lambda adata: AnnData(adata.X * np.nan, adata.obs, adata.var, obsm=adata.obsm), "found 120 values that are"),
    ],
)
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_expression_of_donors_is_checked(bone_marrow, donors, refused, change, message):
    path = donors / "bone_marrow" / "b.h5ad"
    change(anndata.read_h5ad(path)).write_h5ad(path)
    assert re.search(message, refused(bone_marrow, "run", "--data", str(donors), "--train", "a", "--test", "b"))


def test_lineages_that_some_donor_lacks_are_left_out(bone_marrow, donors, capsys):
    path = donors / "bone_marrow" / "b.h5ad"
    adata = anndata.read_h5ad(path)
    adata.obsm["lineages"] = pd.DataFrame({"z": np.arange(60) < 9, "x": np.arange(60) >= 5}, index=adata.obs_names)
    adata.write_h5ad(path)
    cells = bone_marrow.read_all(donors, ["a", "b"], "recommended")
    assert {name: found.n_obs for name, found in cells.items()} == {"a": 50, "b": 55}
    assert [list(found.obsm["lineages"]) for found in cells.values()] == [["x"], ["x"]]
    printed = "a: lineages ['y'] are not in every donor, left out with 10 of 60 cells\n"
    assert capsys.readouterr().out.startswith(
        printed + "b: lineages ['z'] are not in every donor, left out with 5 of 60"
    )
    adata.obsm["lineages"] = adata.obsm["lineages"].rename(columns={"z": "y"}) & [False, True]  # nor if without cells
    adata[5:].write_h5ad(path)
    again = bone_marrow.read_all(donors, ["a", "b"], "recommended")
    assert [list(found.obsm["lineages"]) for found in again.values()] == [["x"], ["x"]]
    assert capsys.readouterr().out.startswith(
        printed + "b: lineages ['y'] are not in every donor, left out with 0 of 55"
    )


def test_donors_have_a_time_in_every_lineage_and_cells_in_none_are_left_out(bone_marrow, donors, tmp_path, capsys):
    common = sys.modules["_common"]
    adata = anndata.read_h5ad(donors / "bone_marrow" / "a.h5ad")
    adata.obsm["lineages"] = pd.DataFrame({"x": np.arange(60) < 50}, index=adata.obs_names)
    adata.obs.loc[adata.obs_names[55:], "dpt_pseudotime"] = np.nan  # they are in no lineage
    path = tmp_path / "d.h5ad"
    adata.write_h5ad(path)
    assert common.trajectories(common.read_donor(path)).n_obs == 20
    assert capsys.readouterr().out == "d: 10 of 60 cells are in no lineage, left out\n"
    adata.obs.loc[adata.obs_names[:3], "dpt_pseudotime"] = np.nan
    adata.write_h5ad(path)
    with pytest.raises(ValueError, match="finite pseudotime .*found 3 of 50 cells without"):
        common.read_donor(path)


def test_no_rows_replace_no_results(bone_marrow, tmp_path):
    with pytest.raises(SystemExit, match=r"Expected rows for donors.csv, found none"):
        sys.modules["_common"].save("donors", [], SimpleNamespace(quick=False, output=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def limits(bone_marrow):
    yield importlib.import_module("limits")
    for name in ("limits", "donors", "objectives"):
        sys.modules.pop(name, None)


def test_curves_that_have_seen_another_donor(limits):
    """On straight lines without noise every curve is exact, but for what it has not seen."""
    times = np.sort(np.random.default_rng(0).uniform(0, 1, 50))
    line = times[:, None] * np.array([1.0, -3.0])
    found = limits.predictions((times, line), (times, line + 2))
    off = {name: np.unique((line + 2 - prediction).round(8)).tolist() for name, prediction in found.items()}
    assert off == {
        "training donor": [2],
        "moved by early cells": [0],
        "moved by half of that": [1],
        "moved by half of the first quarter": [1],
        "moved by all cells": [0],
        "own curve": [0],
    }


def test_no_cell_is_predicted_from_itself(limits):
    times, x = np.linspace(0, 1, 50), np.random.default_rng(0).normal(size=(50, 2))
    other = x.copy()
    other[7] += 100
    before, after = limits.own_curve((times, x)), limits.own_curve((times, other))
    np.testing.assert_array_equal(before[7], after[7])
    assert np.abs(before[8] - after[8]).max() > 1


def test_skill_of_curves_on_two_donors(limits, bone_marrow, donors):
    rows = pd.DataFrame(limits.run(donors, ["a", "b"], "recommended"))
    assert list(rows.groupby(["trained", "predicted"]).size()) == [6, 6]
    cells = bone_marrow.read_all(donors, ["a", "b"], "recommended")
    squares = n = 0.0
    for name in ("x", "y"):
        known, own = (cells[donor][cells[donor].obsm["lineages"][name].to_numpy()] for donor in "ab")
        known_times, times = (
            (t - t.min()) / np.ptp(t) for t in (one.obs["dpt_pseudotime"].to_numpy() for one in (known, own))
        )
        squares += np.square(own.X - limits.curve((known_times, known.X.toarray()), times)).sum()
        n += own.X.size
    sn.SparseNODE.setup_anndata(cells["a"], lineage_key="lineages")
    model = sn.SparseNODE(cells["a"], objective="trajectory")
    model.train(1, key_added=None, enable_progress_bar=False)
    null = model.evaluate(cells["b"]).loc["total"].filter(like="null_").min()
    found = rows.query("trained == 'a' and curve == 'training donor'")["skill"].item()
    assert found == pytest.approx(1 - squares / n / null)


def test_later_cells_are_early_in_none_of_their_lineages(limits, bone_marrow, donors):
    """Of 60 cells in order, those from 0 to 49 are of one lineage, those from 30 on of the other."""
    cells = bone_marrow.read_all(donors, ["a", "b"], "recommended")["a"]
    found = importlib.import_module("donors").later(cells, "recommended")
    expected = np.ones(60, dtype=bool)
    expected[:13] = expected[30:38] = False
    np.testing.assert_array_equal(found, expected)


def test_donors_are_trained_on_one_by_one_and_all_but_one(limits):
    trained_on = importlib.import_module("donors").trained_on
    assert trained_on(["a", "b", "c"]) == [("a",), ("b",), ("c",), ("b", "c"), ("a", "c"), ("a", "b")]
    assert trained_on(["a", "b"]) == [("a",), ("b",)]


@pytest.fixture
def network_speed(bone_marrow):
    yield importlib.import_module("network_speed")
    sys.modules.pop("network_speed", None)


def test_a_fit_that_fails_ends_the_timing(network_speed, tmp_path):
    """It runs in a process of its own, which nothing may wait for afterwards."""
    options = SimpleNamespace(data=tmp_path / "none", network="chain/7", donor="a", threads=1, trees=1)
    with pytest.raises(FileNotFoundError):
        network_speed.measure(options, "beeline", "pearson", None)


def test_timings_look_for_their_data_first(network_speed, donors, refused):
    arguments = ["--data", str(donors), "--datasets", "beeline", "bone_marrow", "--network", "chain/7", "--donor", "a"]
    said = refused(network_speed, "measure", *arguments)
    assert re.search(r"Expected data in \['[^']*beeline.chain.7'\], found none", said)


def test_timings_try_every_data_set_first(network_speed, beeline, run, donors, refused):
    """The first is fine, and would be measured before the second fails."""
    (donors / "beeline").symlink_to(run.parents[1])
    pd.DataFrame({"gene": ["g7"]}).to_csv(donors / "bone_marrow" / "transcription_factors.csv", index=False)
    arguments = ["--data", str(donors), "--datasets", "beeline", "bone_marrow", "--network", "chain/7", "--donor", "a"]
    assert re.search("a.h5ad: Expected .*regulators.*g7", refused(network_speed, "measure", *arguments))
    (run / "PseudoTime.csv").unlink()
    assert re.search(
        r"chain.7: Expected PseudoTime.csv or PseudoTime.csv.gz in .*, found neither",
        refused(network_speed, "measure", *arguments),
    )


@pytest.mark.parametrize(("name", "work"), [("speed", "compare"), ("methods", "measure")])
def test_timings_of_steps_check_their_donor_first(bone_marrow, donors, refused, name, work):
    script = importlib.import_module(name)
    said = refused(script, work, "--data", str(donors), "--donor", "c")
    assert re.search(r"Expected \['c.h5ad'\] in .*Donors there: \['a', 'b'\]", said)
    said = refused(script, work, "--data", str(donors), "--donor", "a")
    assert "a: Expected more than 30 cells in every lineage" in said
    sys.modules.pop(name)


def test_objectives_say_where_no_networks_are(limits, tmp_path, refused):
    (tmp_path / "beeline").mkdir()
    objectives = importlib.import_module("objectives")
    said = refused(objectives, "donors", "--data", str(tmp_path), "--parts", "paper", "networks")
    assert re.search(r"runs of the seeds \[0, 1, 2\] in .*beeline, found none", said)


def test_objectives_leave_out_seeds_that_no_network_has(limits, run, tmp_path, monkeypatch, capsys):
    """The default has more seeds than the networks."""
    (tmp_path / "beeline").symlink_to(tmp_path)
    run.rename(run.parent / "0")
    objectives = importlib.import_module("objectives")
    for name, value in (("silence", lambda: None), ("network", lambda *_: {"epr": 1.0})):
        monkeypatch.setattr(objectives, name, value)
    arguments = ["--data", str(tmp_path), "--parts", "networks", "--methods", "both", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["objectives.py", *arguments])
    objectives.main()
    said = capsys.readouterr().out
    assert all(f"no network has a run of the seed {seed}, left out" in said for seed in (1, 2))
    assert pd.read_csv(tmp_path / "objectives.csv")[["data", "seed"]].to_numpy().tolist() == [["chain", 0]]


def test_timings_of_steps_say_once_what_is_left_out(bone_marrow, donors, monkeypatch, capsys):
    """Cells are read in processes of their own."""
    methods = importlib.import_module("methods")
    said = 'a: 10 of 60 cells are in no lineage, left out\n{"step_ms": 2.0, "peak_mb": 1.0}\n'
    monkeypatch.setattr(methods.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0, stdout=said))
    monkeypatch.setattr(bone_marrow, "check_donors", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["methods.py", "--data", str(donors), "--donor", "a", "--quick"])
    methods.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("a: 10 of 60 cells are in no lineage, left out") == 1
    sys.modules.pop("methods")


def no_fit():
    raise RuntimeError("no fit")


def test_networks_that_fail_leave_the_others(limits, run, tmp_path, monkeypatch):
    objectives = importlib.import_module("objectives")
    (tmp_path / "bad" / "7").mkdir(parents=True)
    (tmp_path / "bad" / "7" / "refNetwork.csv").touch()
    (tmp_path / "beeline").symlink_to(tmp_path)
    fits = {"transport": lambda: {"epr": 1.0}, "both": no_fit}
    monkeypatch.setattr(objectives, "network", lambda _, __, method, *___: fits[method]())
    failed = {}
    found = list(objectives.networks(tmp_path, list(fits), 7, 1, failed))
    assert found == [{"data": "chain", "seed": 7, "method": "transport", "epr": 1.0}]
    assert list(failed) == ["bad/7", "chain/7, both"]


@pytest.mark.parametrize(
    ("name", "arguments", "failures", "n_rows"),
    [
        ("stability", [], ["bad/7: Expected Exp"], 2),
        ("sensitivity", ["--seeds", "7"], ["bad/7: Expected Exp", "chain/7, ridge 2.0: no fit"], 32),
    ],
)
def test_scripts_over_runs_leave_out_a_bad_one(
    beeline, run, tmp_path, monkeypatch, capsys, name, arguments, failures, n_rows
):
    script = importlib.import_module(name)
    (tmp_path / "bad" / "7").mkdir(parents=True)
    (tmp_path / "bad" / "7" / "refNetwork.csv").touch()
    (tmp_path / "deep" / "chain" / "7").mkdir(parents=True)
    (tmp_path / "deep" / "chain" / "7" / "ExpressionData.csv").touch()

    def measure(adata, reference, settings):
        if isinstance(settings, dict) and getattr(settings.get("objective"), "ridge", None) == 2.0:
            no_fit()
        return {"auprc_ratio": 2.0}

    monkeypatch.setattr(script, "silence", lambda: None)
    monkeypatch.setattr(script, "measure", measure)
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path), "--output", str(tmp_path / "out"), *arguments])
    with pytest.raises(SystemExit) as stop:
        script.main()
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert "left out: ['deep/chain/7']" in printed.out
    failed = [line for line in printed.err.splitlines() if line.startswith("failed: ")]
    assert [line[len("failed: ") :][: len(start)] for line, start in zip(failed, failures, strict=True)] == failures
    assert len(pd.read_csv(tmp_path / "out" / f"{name}.csv")) == n_rows
    sys.modules.pop(name)


@pytest.fixture
def motion(monkeypatch):
    if not BENCHMARKS.exists():
        pytest.skip("no benchmarks here")
    monkeypatch.syspath_prepend(BENCHMARKS / "paper")
    module = importlib.import_module("motion")
    monkeypatch.setattr(sys.modules["_paper"], "quiet", lambda: None)
    yield module
    for name in ("motion", "_recordings", "_paper", "_common"):
        sys.modules.pop(name, None)


def test_paths_check_walks_and_donor_first(motion, donors, tmp_path, monkeypatch, capsys):
    paths = importlib.import_module("regularization_paths")
    monkeypatch.setattr(sys.modules["_paper"], "spread", lambda *_: pytest.fail("too late"))
    monkeypatch.setattr(sys, "argv", ["paths", "--data", str(donors), "--donor", "c", "--output", str(tmp_path)])
    with pytest.raises(SystemExit):
        paths.main()
    assert re.search(r"'walks' recordings, found none at .*with --data\.\n", capsys.readouterr().err)
    monkeypatch.setattr(sys.modules["_recordings"], "check", lambda *_: None)
    with pytest.raises(SystemExit):
        paths.main()
    assert "Expected ['c.h5ad'] in" in capsys.readouterr().err
    for name in ("regularization_paths", "second_order", "bone_marrow"):
        sys.modules.pop(name)


@pytest.fixture
def bone_marrow_tables(real_networks, motion):
    yield importlib.import_module("bone_marrow_tables")
    sys.modules.pop("bone_marrow_tables")


def test_references_are_read_before_a_fit(bone_marrow_tables, donors, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["_paper"], "spread", lambda *_: pytest.fail("too late"))

    def said(*names, output="out", skip="0") -> str:
        arguments = ["--data", str(donors), "--output", str(tmp_path / output), "--skip", skip, "--donors", *names]
        monkeypatch.setattr(sys, "argv", ["bone_marrow_tables.py", *arguments])
        with pytest.raises(SystemExit):
            bone_marrow_tables.main()
        return capsys.readouterr().err

    folder = donors / "bone_marrow"
    # long enough for the paper's protocol
    for name in "ab":
        adata = anndata.read_h5ad(folder / f"{name}.h5ad")
        adata.obsm["lineages"] = pd.DataFrame({"x": True, "y": np.arange(60) < 58}, index=adata.obs_names)
        adata.write_h5ad(folder / f"{name}.h5ad")
    pairs = pd.DataFrame({"source": ["g1", "g0"], "target": ["g3", "g1"]})
    pd.DataFrame({"gene": ["g0"]}).to_csv(folder / "transcription_factors.csv", index=False)
    pairs.to_csv(folder / "reference_x.csv.gz", index=False)
    assert "table to add to with --skip, bone_marrow.csv in" in said("a", "b", skip="1")
    assert "two donors or more in --donors, of which the first is fitted, found ['a']" in said("a")
    assert "found 1 of 1 in it" in said("a", "b")  # of genes of both donors
    AnnData(adata.X[:, [0, 1, 1]], adata.obs, pd.DataFrame(index=["g3", "g1", "g0"]), obsm=adata.obsm).write_h5ad(
        folder / "b.h5ad"
    )
    pd.DataFrame({"gene": ["g3"]}).to_csv(folder / "transcription_factors.csv", index=False)
    assert "Expected some of 2 candidate edges to be in `reference`, found none" in said("a", "b")
    adata.obsm["lineages"] = adata.obsm["lineages"][["y"]]
    adata.write_h5ad(folder / "b.h5ad")
    assert "Expected lineages with a reference_LINEAGE.csv.gz in" in said("a", "b")


@pytest.mark.filterwarnings("ignore")  # of few cells
def test_lineages_without_a_reference_are_fitted_and_not_scored(bone_marrow_tables, donors, capsys):
    folder = donors / "bone_marrow"
    adata = anndata.read_h5ad(folder / "a.h5ad")
    adata.obsm["lineages"] = pd.DataFrame({"x": np.arange(60) > 1, "y": np.arange(60) > 5}, index=adata.obs_names)
    adata.write_h5ad(folder / "a.h5ad")
    pairs = pd.DataFrame({"source": ["g1", "g0"], "target": ["g3", "g1"]})
    pairs.to_csv(folder / "reference_x.csv.gz", index=False)
    pd.DataFrame({"gene": ["g0", "g1"]}).to_csv(folder / "transcription_factors.csv", index=False)
    (row,) = bone_marrow_tables.work(donors, ["a"], "recommended", "C-NODE", 1, 1, 0)
    said = capsys.readouterr().out
    assert "a: 2 of 60 cells are in no lineage, left out\na: lineages ['y'] have no reference, left out\n" in said
    assert np.isfinite(row["auprc_ratio_x"])
    assert not any(name.startswith(("auprc_ratio_y", "rank_")) for name in row)


@pytest.fixture
def recordings(tmp_path) -> list[str]:
    """Arguments for three trials of legs that swing, whose names are numbers; the last is as short as it may be."""
    bones = {"lhipjoint": "1 0 0", "rhipjoint": "-1 0 0", "lfemur": "0 -1 0", "rfemur": "0 -1 0"}
    bones |= {"ltibia": "0 -1 0", "rtibia": "0 -1 0"}
    text = ":units\nlength 1\nangle deg\n:root\norder TX TY TZ RX RY RZ\nposition 0 0 0\norientation 0 0 0\n:bonedata\n"
    for name, direction in bones.items():
        degrees = "" if "hip" in name else "dof rx\n"
        text += f"begin\nname {name}\ndirection {direction}\nlength 10\naxis 0 0 0 XYZ\n{degrees}end\n"
    text += ":hierarchy\nbegin\nroot lhipjoint rhipjoint\n"
    text += "".join(f"{side}hipjoint {side}femur\n{side}femur {side}tibia\n" for side in "lr") + "end\n"
    (tmp_path / "5.asf").write_text(text)
    for trial, length in {"01": 60, "02": 50, "03": 43}.items():
        swing = 30 * np.sin(np.arange(length) / 15 + int(trial))
        frames = (
            f"{i + 1}\nroot 0 0 0 0 0 0\nlfemur {x}\nrfemur {-x}\nltibia {x * x / 40}\nrtibia {x / 2}\n"
            for i, x in enumerate(swing)
        )
        (tmp_path / f"{trial}.amc").write_text(":degrees\n" + "".join(frames))
    return ["--skeleton", str(tmp_path / "5.asf"), "--trials", *(str(tmp_path / f"0{i}.amc") for i in (1, 2, 3))]


@pytest.fixture
def run_motion(motion, monkeypatch, tmp_path):
    def call(*arguments):
        given = ["motion.py", "--output", str(tmp_path / "out"), "--jobs", "1", *arguments]
        monkeypatch.setattr(sys, "argv", given)
        motion.main()

    return call


def test_defaults_are_those_of_the_committed_results(motion):
    parser = sys.modules["_paper"].arguments("")
    sys.modules["_recordings"].add_arguments(parser)
    options = parser.parse_args([])
    plan = motion.planned(*sys.modules["_recordings"].chosen(parser, options), options.held_out, options.parts)
    keys = ["part", "movement", "frame_rate", "held_out", "method"]
    table = pd.read_csv(BENCHMARKS / "paper" / "results" / "motion.csv", keep_default_na=False)[keys].drop_duplicates()
    expected = [(part, own.movement, 120 / step, held_out or "", name) for part, own, step, held_out, name in plan]
    assert list(table.itertuples(index=False, name=None)) == expected


@pytest.mark.filterwarnings("ignore")  # of what is extrapolated, and coordinates that stay at zero
def test_other_recordings_are_fitted_and_one_is_held_out(motion, recordings):
    paths = [Path(name) for name in recordings if name.endswith("mc")]
    for held_out, name, trajectories in (
        ("03", "recipe", 4),
        (None, "C-NODE 0.1, small and damped, 93 coordinates", 3),
    ):
        own = sys.modules["_recordings"].Recordings("other", Path(recordings[1]), tuple(paths), 60.0)
        (row,) = motion.work("folds", own, 3, held_out, name, 1, 1)
        assert (row["movement"], row["frame_rate"], row["held_out"]) == ("other", 20, held_out)
        assert row["method"] == name.replace("93", "21")
        assert row["trajectories"] == trajectories
        assert np.isfinite(row["extrapolation_skill"])
        assert np.isfinite(row.get("unseen_skill", 0))


def test_every_trial_is_held_out_in_turn(motion, recordings, run_motion, tmp_path, monkeypatch, capsys):
    def work(part, own, step, held_out, name, n_seeds, epochs):
        row = {"part": part, "frame_rate": own.frame_rate / step, "held_out": held_out, "seed": 0, "diverged": False}
        return [row | {"extrapolation_skill": 0.25, "unseen_skill": -0.5}]

    monkeypatch.setattr(motion, "work", work)
    monkeypatch.setattr(motion, "stick_figure", lambda *_: None)
    run_motion(*recordings, "--parts", "folds")
    assert "  40.0       01                 0.25          -0.5" in capsys.readouterr().out
    run_motion(*recordings, "--parts", "folds", "--skip", "8")
    table = pd.read_csv(tmp_path / "out" / "motion.csv", dtype=str)
    assert table["held_out"].tolist() == [*("03", "03", "02", "02", "01", "01", "03", "02", "01"), "01"]
    assert (tmp_path / "out" / "motion_folds.png").exists()
    assert str(tmp_path) not in (tmp_path / "out" / "motion.json").read_text()


def test_the_summary_of_motion_says_why_it_has_no_skills(motion):
    table = pd.DataFrame({"part": ["levers"], "frame_rate": [40.0], "held_out": ["01"], "diverged": [False]})
    assert "not among the results: they are a part of their own, `--parts folds`" in motion.summary(table)
    assert motion.summary(table.assign(part="folds", diverged=True)) == "All fits of the folds diverged."


def test_without_a_fit_nothing_is_written(motion, recordings, run_motion, tmp_path):
    for arguments in (["--minutes", "0"], ["--quick", "--skip", "1"]):
        with pytest.raises(SystemExit, match="Expected one fit or more, found none"):
            run_motion(*recordings, *arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "/none"], r"files of 'walking' recordings, found none at \['/none/.*/07.asf', .*--skeleton and"),
        (["--data", "/none", "--parts", "golf"], r"'golf' recordings, found none at .*leave golf out with --parts"),
        (["--trials", "{}/01.amc"], "--skeleton and --trials together"),
        (["--trials", "{}/01.amc", "--skeleton", "{}/5.asf"], r"two or more --trials, .*found \['01'\]"),
        (["{}/04.amc"], r"'other' recordings, found none at \['.*04.amc'\].*leave trials out of --trials"),
        (
            ["{}/short.amc"],
            r"43 or more frames in every trial, of which 15 are kept at 40 a second, found {'short': 42}",
        ),
        (["{}/still.amc"], r"every trial to move, found \['still'\] still.*leave trials out of --trials"),
        (["{}/5.asf"], "Expected a frame number at line 2 of 5.asf, found 'length 1'"),
        (["{}/01.amc"], r"every name once in --trials, found \['01', '02', '03', '01'\]"),
        (["--held-out", "07_05"], r"trials in --held-out, \['01', '02', '03'\], found \['07_05'\]"),
        (["--frame-rate", "0"], "positive --frame-rate, found 0"),
        (["--skip", "1"], "table to add to with --skip, motion.csv in .*out, found none"),
        (["--output", "{results}"], "an --output with --trials"),
        (["--seeds", "0"], "--seeds: Expected a whole number from 1 on, found '0'"),
    ],
)
def test_recordings_are_checked_first(
    motion, recordings, run_motion, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.setattr(sys.modules["_paper"], "spread", lambda *_: pytest.fail("too late"))
    lines = (tmp_path / "01.amc").read_text().split("\n43\n")[0]
    (tmp_path / "short.amc").write_text(lines)
    pose = lines.split("\n2\n")[0].partition("root")[2]
    (tmp_path / "still.amc").write_text("".join(f"{i + 1}\nroot{pose}\n" for i in range(50)))
    given = [part.format(tmp_path, results=BENCHMARKS / "paper" / "results") for part in arguments]
    alone = {"--data", "--trials"} & {arguments[0]}
    with pytest.raises(SystemExit):
        run_motion(*([] if alone else recordings), *given)
    assert re.search(message, capsys.readouterr().err)


def test_no_skill_over_a_null_model_that_is_exact(motion):
    found = sys.modules["_paper"].skills(0.1, {"persistence": 0.0, "mean": 0.2}, "unseen")
    assert found["unseen_skill"] == found["unseen_skill_persistence"] == -np.inf
    assert found["unseen_skill_mean"] == 0.5


@pytest.fixture
def other_walks(motion):
    yield importlib.import_module("other_walks")
    sys.modules.pop("other_walks", None)


def test_walks_are_played_backwards_faster_and_larger(other_walks, recordings):
    paths = [Path(name) for name in recordings if name.endswith("mc")]
    about = ("other", Path(recordings[1]), tuple(paths), 60.0)
    forwards, backwards = (kind(*about).read(3) for kind in (other_walks.Recordings, other_walks.Backwards))
    pd.testing.assert_frame_equal(forwards.obs, backwards.obs)
    for name in ("01", "02", "03"):
        own = (forwards.obs["trial"] == name).to_numpy()
        np.testing.assert_array_equal(backwards.X[own], forwards.X[own][::-1])
    trial = forwards[(forwards.obs["trial"] == "01").to_numpy()]
    np.testing.assert_allclose(other_walks.faster(trial, 2.0).X, trial.X[::2], atol=1e-6)
    np.testing.assert_allclose(other_walks.faster(trial, 1.0).X, trial.X, atol=1e-6)
    slow = other_walks.faster(trial, 0.5).X
    assert slow.shape == trial.shape  # it ends where it has as many frames as before
    np.testing.assert_allclose(slow[::2], trial.X[: len(slow[::2])], atol=1e-6)
    np.testing.assert_allclose(slow[1:-1:2], (trial.X[:9] + trial.X[1:10])[: len(slow[1:-1:2])] / 2, atol=1e-6)
    wide = other_walks.larger(trial, 1.5).X
    np.testing.assert_allclose(wide.mean(0), trial.X.mean(0), atol=1e-5)
    np.testing.assert_allclose(wide.std(0), 1.5 * trial.X.std(0), rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of what is extrapolated, and coordinates that stay at zero
def test_every_alteration_has_a_row(other_walks, recordings):
    paths = [Path(name) for name in recordings if name.endswith("mc")]
    walks = other_walks.Recordings("other", Path(recordings[1]), tuple(paths), 60.0)
    plan = other_walks.planned(walks)
    assert [(part, step, trial) for part, _, step, trial in plan] == [
        (part, step, trial) for part in ("backwards", "altered") for step in (3, 2, 1) for trial in walks.trials
    ]
    rows = pd.DataFrame(other_walks.work("altered", walks, 3, "03", 2, 1))
    assert rows.groupby(["part", "factor", "seed"]).size().to_dict() == {
        (part, factor, seed): 1
        for part in ("faster", "larger")
        for factor in other_walks.FACTORS
        for seed in (0, 1, "mean")
    }
    same = rows[rows["factor"] == 1.0].set_index(["part", "seed"])["unseen_mse"]
    np.testing.assert_allclose(same["faster"].to_numpy(float), same["larger"].to_numpy(float), rtol=1e-4)
    expected = pd.DataFrame(sys.modules["motion"].work("folds", walks, 3, "03", "recipe", 2, 1)).set_index("seed")
    np.testing.assert_allclose(same["larger"].to_numpy(float), expected["unseen_mse"].to_numpy(float), rtol=1e-4)
    assert other_walks.summary(rows.assign(seed=rows["seed"].astype(str))).count("\n") == 15
    (backwards, *_) = other_walks.work(*plan[2], 1, 1)
    assert (backwards["part"], backwards["held_out"]) == ("backwards", "03")
    assert np.isfinite(backwards["extrapolation_skill"])


@pytest.fixture
def dropouts(beeline, monkeypatch):
    module = importlib.import_module("dropouts")
    monkeypatch.setattr(module, "silence", lambda: None)
    yield module
    for name in ("dropouts", "simulated_networks", "_boolean_cells"):
        sys.modules.pop(name, None)


def test_low_values_drop_out(dropouts):
    x = np.random.default_rng(0).gamma(2.0, size=(4000, 3)).astype(np.float32)
    found = dropouts.dropped(AnnData(x.copy()), 0.7, seed=1).X
    kept = found == x
    np.testing.assert_array_equal(found[~kept], 0.0)
    for own, column in zip(kept.T, x.T, strict=True):
        low = column < np.quantile(column, 0.7)
        assert own[~low].all()
        assert abs(own[low].mean() - 0.3) < 0.03  # of 2800: more than three standard errors
    np.testing.assert_array_equal(dropouts.dropped(AnnData(x.copy()), 0.0, seed=1).X, x)


def test_regulators_are_ranked_by_their_numbers_of_targets(dropouts):
    """By hand: of a, b, c, d the numbers of targets are 2, 1, 0, 0, and the strengths 5, 1, 3, 0, whose ranks differ by 0, 1, 0.5 and 0.5."""
    rank = sys.modules["simulated_networks"].regulators
    genes = pd.Index(list("abcd"))
    reference = pd.DataFrame({"source": list("aabb"), "target": list("bcab"), "weight": 1.0})
    found = pd.DataFrame({"source": list("aabcc"), "target": list("bcada"), "weight": [-4.0, 1.0, 1.0, -1.0, 2.0]})
    ranks = np.array([[4, 3, 1.5, 1.5], [4, 2, 3, 1]])
    assert rank(found, reference, genes) == pytest.approx(np.corrcoef(ranks)[0, 1])
    ring = pd.DataFrame({"source": list("abcd"), "target": list("bcda")})
    assert np.isnan(rank(found, ring, genes))


def test_cells_with_dropouts_are_scored(dropouts, monkeypatch, tmp_path):
    scored = []

    def score(name, network, adata, seed):
        scored.append((name, adata.n_obs, float((adata.X == 0).mean())))
        return [{"network": name, "method": "sparsenode", "auprc_ratio": 1.0}]

    monkeypatch.setattr(sys.modules["simulated_networks"], "score", score)
    monkeypatch.setattr(dropouts, "N_CELLS", 50)
    ring = {"ring": sys.modules["_boolean_cells"].cycle(4, 2.0)}
    monkeypatch.setattr(sys.modules["simulated_networks"], "networks", lambda: ring)
    monkeypatch.setattr(sys, "argv", ["dropouts.py", "--output", str(tmp_path), "--quantiles", "0", "0.8"])
    dropouts.main()
    table = pd.read_csv(tmp_path / "dropouts.csv")
    assert table["quantile"].tolist() == [0.0, 0.8]
    np.testing.assert_allclose(table["zeros"], [share for *_, share in scored])
    assert [row[:2] for row in scored] == [("ring", 50)] * 2
    assert scored[1][2] > scored[0][2] + 0.5
    monkeypatch.setattr(sys, "argv", ["dropouts.py", "--output", str(tmp_path), "--quantiles", "50"])
    with pytest.raises(SystemExit):
        dropouts.main()
