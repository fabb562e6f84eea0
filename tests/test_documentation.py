"""Every block of Python code in the README and on the pages runs, and every public name is in the API reference."""

from __future__ import annotations

import importlib.util
import re
import sys
from ast import literal_eval
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scvi.model.base import BaseModelClass

import sparsenode as sn
from sparsenode import training
from sparsenode.model._options import DEFAULTS
from sparsenode.model._training import _MAX_EPOCHS, _PLANS

REPOSITORY = Path(__file__).resolve().parents[1]

FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ["README.md", *(str(p.relative_to(REPOSITORY)) for p in sorted((REPOSITORY / "docs").glob("**/*.md")))]
PAGES = [page for page in PAGES if "_build" not in page and FENCE.search((REPOSITORY / page).read_text())]


@pytest.fixture
def short_training(monkeypatch):
    """What a page trains for minutes is trained for a moment; everything else is as written."""
    train = sn.SparseNODE.train

    def short(self, *args, **kwargs):
        kwargs |= {"steps_per_epoch": 2, "enable_progress_bar": False, "accelerator": "cpu"}
        return train(self, 2, *args[1:], **{key: value for key, value in kwargs.items() if key != "max_epochs"})

    monkeypatch.setattr(sn.SparseNODE, "train", short)


class _Lineages(np.ndarray):
    """Fate probabilities as CellRank leaves them: an array with names."""

    names = ("erythroid", "myeloid")


@pytest.fixture
def cells(make_adata) -> AnnData:
    """Cells with every key that the pages name."""
    adata = make_adata(n_obs=160)
    adata.obsm["lineages"] = adata.obsm["lineages_fwd"] = adata.obsm["memberships"]
    adata.obs["dpt_pseudotime"] -= adata.obs["dpt_pseudotime"].min()
    adata.obs["time"], adata.obs["trial"] = adata.obs["dpt_pseudotime"], adata.obs["lineage"]
    adata.var["is_tf"] = np.arange(adata.n_vars) < 4
    names = ["GATA1", "KLF1", "RUNX1"]
    adata.var_names = names + list(adata.var_names[len(names) :])
    adata.X = adata.X + 2  # overexpression needs a positive highest value
    return adata


@pytest.mark.filterwarnings("ignore")
def test_the_example_of_the_readme_runs_as_it_stands(short_training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = [block for block in FENCE.findall((REPOSITORY / "README.md").read_text()) if "krumsiek11" in block]
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "fitted.h5ad").is_file()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES)
def test_code_blocks_run(page, cells, short_training, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    blocks = FENCE.findall((REPOSITORY / page).read_text())
    if page == "docs/user_guide/multiome.md":
        blocks = _with_activity(blocks)
    if page == "docs/user_guide/input.md":
        blocks = _with_times_of_slingshot(blocks)
        cells.obsm["lineages_fwd"] = cells.obsm["lineages"].to_numpy(dtype=float).view(_Lineages)
    if page == "docs/user_guide/motion.md":
        monkeypatch.setenv("SPARSENODE_DATA", str(request.getfixturevalue("data_dir")))
    if page == "docs/user_guide/comparison.md":
        monkeypatch.setitem(
            sys.modules, "cellrank", SimpleNamespace(kernels=SimpleNamespace(VelocityKernel=_VelocityKernel))
        )
    space = {"sn": sn, "np": np, "pd": pd, "adata": cells, "other_donor": cells.copy(), "__name__": page}
    setup = {"lineage_key": "lineages"} if page != "docs/user_guide/model.md" else {"lineage_key": "lineage"}
    sn.SparseNODE.setup_anndata(cells, **setup)
    space["model"] = sn.SparseNODE(cells, hidden=(8, 8))
    space["model"].train()
    cells.obs["donor"] = "donor0"
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, block {number}", "exec"), space)  # pages share names from block to block


class _VelocityKernel:
    """In place of that of CellRank, which cannot be installed beside the other packages: knows what it would look for."""

    def __init__(self, adata: AnnData, vkey: str, xkey: str) -> None:
        assert xkey == "X"
        assert adata.layers[vkey].shape == adata.shape

    def compute_transition_matrix(self) -> None: ...


def _with_activity(blocks: list[str]) -> list[str]:
    """The page leaves open where activities come from: here, from expression."""
    given = 'activity = rna[:, rna.var_names[:3]].copy()\nactivity.X = activity.X.toarray() if hasattr(activity.X, "toarray") else activity.X\n'
    return [given + block if "regulator_layer" in block else block for block in blocks]


def _with_times_of_slingshot(blocks: list[str]) -> list[str]:
    """The page reads a file that R wrote: here, from the lineages before it."""
    given = (
        'times = adata.obsm["lineages"].where(adata.obsm["lineages"] > 0).mul(adata.obs["dpt_pseudotime"], axis=0)\n'
        'times.to_csv("slingshot.csv", na_rep="NA")\n'
    )
    return [given + block if "slingshot.csv" in block else block for block in blocks]


def test_tables_are_those_of_the_results(monkeypatch):
    script = REPOSITORY / "benchmarks" / "tables.py"
    if not script.exists():  # a source distribution has no benchmarks
        pytest.skip("no benchmarks here")
    monkeypatch.syspath_prepend(script.parent)  # as Python does for a script
    spec = importlib.util.spec_from_file_location("tables", script)
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    pages = [page.read_text() for page in tables.PAGES]
    assert [tables.filled(page) == page for page in pages] == [True] * len(pages), "run `python benchmarks/tables.py`"
    named = [match[1] for page in pages for match in tables.REGION.findall(page)]
    assert sorted(named) == sorted(tables.TABLES)  # every table once
    page = (REPOSITORY / "docs" / "benchmarks" / "forecasts.md").read_text()
    forged = page.replace("| **both**, the default |", "| **both** |", 1)
    assert forged != page
    assert tables.filled(forged) == page


def test_every_public_name_is_in_the_reference():
    text = (REPOSITORY / "docs" / "api.md").read_text()
    listed = {}
    for section in text.split(".. currentmodule:: ")[1:]:
        module, *lines = section.splitlines()
        listed.setdefault(module, set()).update(re.findall(r"^    (\w[\w.]*)$", "\n".join(lines), re.MULTILINE))
    spaces = {name: getattr(sn, name) for name in sn.__all__ if name.islower()}
    assert {"datasets", "objectives", "pl", "pp", "regularizers", "tl", "training"} <= set(spaces)
    for name, module in spaces.items():
        missing = {one for one in module.__all__ if not one.startswith("_")} - listed[f"sparsenode.{name}"]
        assert not missing, name
    own = {name for base in sn.SparseNODE.__mro__ if base.__module__.startswith("sparsenode.") for name in vars(base)}
    methods = {name for name in own if not name.startswith("_") and callable(getattr(sn.SparseNODE, name, None))}
    methods -= {name for name in dir(BaseModelClass) if name != "setup_anndata" and name != "train"}  # the page says so
    assert {name.split(".")[1] for name in listed["sparsenode"] if "." in name} >= methods
    assert {"SparseNODE", "DivergenceError"} <= listed["sparsenode"]


def test_the_objectives_page_states_the_defaults():
    text = (REPOSITORY / "docs" / "user_guide" / "objectives.md").read_text().partition("## Defaults\n")[2]
    rows = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    names, table = rows[0][1:], {row[0]: row[1:] for row in rows[2:]}
    plan = {key: value.default for key, value in signature(training.TrainingPlan).parameters.items()}
    for column, name in enumerate(name.strip('"') for name in names):
        stated = {argument: row[column] for argument, row in table.items()}
        regularizer = sn.regularizers.get(DEFAULTS[name]["regularizer"])
        assert stated.pop("regularizer") == f"{type(regularizer).__name__}({regularizer.strength.item()})"
        expected = {key: value for key, value in DEFAULTS[name].items() if key != "regularizer"}
        expected["max_epochs"] = _MAX_EPOCHS[name]
        for rate in ("lr", "gate_lr"):
            expected[f'plan_kwargs["{rate}"]'] = _PLANS[name].get(rate, plan[rate])
        assert {argument: literal_eval(value) for argument, value in stated.items()} == expected


def test_tutorials_are_listed_and_executed():
    import json

    notebooks = sorted((REPOSITORY / "tutorials").glob("*.ipynb"))
    page = (REPOSITORY / "docs" / "tutorials.md").read_text()
    for path in notebooks:
        assert f"\n{path.stem}\n" in page
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell["outputs"]]
        assert outputs
        assert not [output for output in outputs if output["output_type"] == "error"]


def test_the_objectives_page_states_how_both_differs():
    text = " ".join((REPOSITORY / "docs" / "user_guide" / "objectives.md").read_text().split())
    assert DEFAULTS["both"] == DEFAULTS["transport"] | {"fields": "lineage"}
    assert "both" not in _PLANS
    assert '`"both"` has the settings of `"transport"`, but `fields="lineage"`' in text
