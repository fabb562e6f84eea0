"""What benchmarks read from folders of users."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
GENES = ["g0", "g1", "g2", "g3"]


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
    np.testing.assert_allclose(adata.obs["pseudotime"], times.iloc[kept].mean(axis=1))
    np.testing.assert_array_equal(adata.obsm["lineages"], times.iloc[kept].notna())
    assert reference.to_dict("list") == {"source": GENES[:3], "target": GENES[1:], "weight": [1.0, -1.0, 0.0]}


def test_a_reference_without_signs(beeline, run):
    path = run / "refNetwork.csv"
    pd.read_csv(path)[["Gene2", "Gene1"]].to_csv(path, index=False)
    assert (beeline.read_reference(path)["weight"] == 0).all()
    assert list(beeline.read_reference(path)["source"]) == GENES[:3]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("refNetwork.csv", lambda t: t.assign(Type="activates"), r"'\+', '-' or nothing.*refNetwork.csv, found \['act"),
        ("refNetwork.csv", lambda t: t.rename(columns={"Gene1": "TF"}), "columns Gene1, Gene2 and Type in"),
        ("PseudoTime.csv", lambda t: t.iloc[:50], r"PseudoTime.csv of .*chain.7, 10 of 60 are missing: \["),
    ],
)
def test_files_that_cannot_be_read(beeline, run, name, change, message):
    change(pd.read_csv(run / name)).to_csv(run / name, index=False)
    with pytest.raises(ValueError, match=message):
        beeline.read(run)


def test_a_bad_run_leaves_the_others(beeline, run, tmp_path, monkeypatch, capsys):
    bad = tmp_path / "bad" / "0"
    bad.mkdir(parents=True)
    (bad / "refNetwork.csv").write_text("Gene1,Gene2,Type\ng0,g1,+\n")
    published = {
        "dataset": ["chain", "other"],
        "seed": 7,
        "method": "pearson",
        "auprc_ratio": 9.0,
        "epr": 1.0,
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
    assert "best published" in printed.out
    assert "other" not in printed.out
    table = pd.read_csv(out)
    assert list(table.columns) == beeline.COLUMNS
    assert table[["network", "seed", "method", "sign_accuracy"]].values.tolist() == [["chain", 7, "sparsenode", 1.0]]
    assert table["auprc_ratio"].tolist() == pytest.approx([4.0])


def test_where_the_table_goes_is_checked_first(beeline, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["beeline.py", str(tmp_path), "--out", str(tmp_path / "out.json")])
    with pytest.raises(SystemExit):
        beeline.main()
    assert "Expected a csv file to write to in --out" in capsys.readouterr().err
