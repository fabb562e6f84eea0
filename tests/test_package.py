"""The public surface, and rules of the house that hold for every file."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from lightning.pytorch import LightningModule

import sparsenode as sn

SOURCE = Path(sn.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
NAMESPACES = ("datasets", "objectives", "pl", "pp", "regularizers", "tl", "training")


def public() -> dict[str, object]:
    """Every public function, class and method of this package, by dotted name; hooks that Lightning documents are left out."""
    found: dict[str, object] = {}
    for module in (sn, *(getattr(sn, name) for name in NAMESPACES)):
        for name in module.__all__:
            thing = getattr(module, name)
            if not inspect.ismodule(thing):
                found[f"{module.__name__}.{name}"] = thing
            for base in getattr(thing, "__mro__", ()):
                if base.__module__.startswith("sparsenode."):
                    methods = [key for key, value in vars(base).items() if callable(getattr(base, key))]
                    for method in methods:
                        if not method.startswith("_") and not (
                            issubclass(thing, LightningModule) and hasattr(LightningModule, method)
                        ):
                            found[f"{module.__name__}.{name}.{method}"] = getattr(thing, method)
    return found


PUBLIC = public()


def test_names():
    assert set(sn.__all__) == {"DivergenceError", "SparseNODE", *NAMESPACES}
    for name in sn.__all__:
        assert hasattr(sn, name)
    assert sn.__version__ == version("sparsenode")
    assert {"PathReg", "CNODE", "L0", "NoRegularizer"} <= set(sn.regularizers.__all__)
    fits = {"adjacency", "history", "intervention", "network", "regularization_path", "skill", "trajectory", "velocity"}
    assert set(sn.pl.__all__) == fits | {"comparison", "stick_figure"}
    methods = {name.rsplit(".", 1)[1] for name in PUBLIC if name.startswith("sparsenode.SparseNODE.")}
    wanted = {"setup_anndata", "train", "predict", "get_velocity", "get_adjacency", "get_network", "get_sparsity"}
    assert wanted | {"evaluate", "write_results"} <= methods


@pytest.mark.parametrize("module", [sn, *(getattr(sn, name) for name in NAMESPACES)], ids=lambda m: m.__name__)
def test_every_listed_name_exists_and_is_listed_once(module):
    assert module.__doc__
    assert len(module.__all__) == len(set(module.__all__))
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_every_module_can_be_imported():
    for module in pkgutil.walk_packages([str(SOURCE)], "sparsenode."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


CALLABLE = [name for name, thing in PUBLIC.items() if not (isinstance(thing, type) and issubclass(thing, Exception))]
# The arguments of these are described by the base class, once for all regularizers.
REGULARIZER_METHODS = ("penalty", "gradient_penalty", "penalties", "prox", "open_share")


def sections(thing: object) -> dict[str, str]:
    """Sections of a numpydoc docstring, the summary as the section without a name."""
    doc = inspect.cleandoc(thing.__doc__ or "")
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", doc, flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings_have_a_summary(name):
    summary = sections(PUBLIC[name])[""].split("\n\n")[0]
    assert 10 < len(summary.replace("\n", " ")) <= 130
    assert summary[0].isupper() or not summary[0].isalpha()


@pytest.mark.parametrize("name", [name for name in CALLABLE if not name.endswith(REGULARIZER_METHODS)])
def test_docstrings_describe_every_parameter(name):
    parameters = inspect.signature(PUBLIC[name]).parameters
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    expected = {stars.get(p.kind, "") + key for key, p in parameters.items() if key not in {"self", "cls"}}
    lines = sections(PUBLIC[name]).get("Parameters", "").splitlines()
    headers = [line.split(":")[0] for line in lines if line and not line.startswith(" ")]
    assert {part.strip() for header in headers for part in header.split(",")} == expected


@pytest.mark.parametrize("name", [name for name in CALLABLE if not isinstance(PUBLIC[name], type)])
def test_docstrings_say_what_is_returned(name):
    """Methods of regularizers do so in their only sentence."""
    returned = inspect.signature(PUBLIC[name]).return_annotation
    if returned not in ("None", None) and not name.endswith(REGULARIZER_METHODS):
        assert len(sections(PUBLIC[name]).get("Returns", "")) > 10


@pytest.mark.parametrize("name", CALLABLE)
def test_signatures_are_annotated(name):
    parameters = inspect.signature(PUBLIC[name]).parameters
    bare = [key for key, p in parameters.items() if p.annotation is p.empty and key not in {"self", "cls"}]
    assert bare == []


def test_example_of_the_class_names_existing_keys():
    """The keys in the example are those of the data set that it loads."""
    code = "\n".join(re.findall(r"^>>> (.*)$", inspect.cleandoc(sn.SparseNODE.__doc__), re.MULTILINE))
    assert "datasets.krumsiek11()" in code
    keys = re.findall(r'(?:time|lineage|batch)_key="(\w+)"', code)
    assert keys
    assert set(keys) <= set(sn.datasets.krumsiek11().obs)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_rules_of_the_house(path):
    """No assertions for what users pass, no prints outside of the command line, no silenced errors, short files."""
    text = path.read_text()
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    assert not [node.lineno for node in nodes if isinstance(node, ast.Assert)]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    names = [ast.unparse(call.func) for call in calls]
    assert "logging.basicConfig" not in names
    if path.name != "_cli.py":
        assert "print" not in names
    handlers = [node for node in nodes if isinstance(node, ast.ExceptHandler)]
    assert not [node.lineno for node in handlers if node.type is None]
    assert len(text.splitlines()) < 500


@pytest.mark.parametrize("room", ["module", "regularizers", "objectives", "training"])
def test_tensor_code_never_imports_anndata(room):
    for path in (SOURCE / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [m for m in modules if m.split(".")[0] in {"anndata", "mudata", "scanpy"}], path


def test_typed():
    assert (SOURCE / "py.typed").exists()


def test_import_is_quiet():
    """Importing sparsenode, beyond importing scvi-tools, touches no logging, no random state and no backend."""
    code = """
        import logging, random, warnings
        import numpy as np
        import torch
        import scvi, scanpy, lightning.pytorch, matplotlib

        def state():
            root = logging.getLogger()
            return (
                list(root.handlers), root.level, logging.getLogger("scvi").level, list(warnings.filters),
                random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),
                torch.get_num_threads(), torch.get_default_dtype(), matplotlib.rcParams["figure.dpi"],
            )

        before = state()
        import sparsenode
        after = state()
        different = [i for i, (a, b) in enumerate(zip(before, after)) if a != b]
        assert not different, different
        assert not before[0], before[0]
    """
    done = subprocess.run(
        [sys.executable, "-c", inspect.cleandoc(code)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == ""
