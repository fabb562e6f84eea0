"""Docstrings of public names: parameters as in the signature, returned values, errors and sources."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sparsenode as sn

API = Path(__file__).resolve().parents[1] / "docs" / "api.md"
TITLE = re.compile(r"^([A-Z][A-Za-z ]+)\n(-{3,})$", re.MULTILINE)


def _public() -> dict[str, Any]:
    """Every name of the API page, and the public methods and properties of its classes."""
    found = {}
    for section in API.read_text().split(".. currentmodule:: ")[1:]:
        module, *lines = section.splitlines()
        for name in re.findall(r"^    (\w[\w.]*)$", "\n".join(lines), re.MULTILINE):
            owner, member = importlib.import_module(module), None
            *path, last = name.split(".")
            for part in path:
                owner = getattr(owner, part)
            member = getattr(owner, last)
            found[f"{module}.{name}"] = member
            if inspect.isclass(member) and name != "SparseNODE":  # whose methods the page lists one by one
                for key, value in vars(member).items():
                    if not key.startswith("_") and (
                        inspect.isfunction(value) or isinstance(value, property | cached_property)
                    ):
                        found[f"{module}.{name}.{key}"] = value
    return found


PUBLIC = _public()


def _overridden(name: str) -> bool:
    """Whether a method repeats one of a base class, which holds the contract."""
    owner, _, method = name.rpartition(".")
    return inspect.isclass(PUBLIC.get(owner)) and any(method in vars(base) for base in PUBLIC[owner].__mro__[1:])


def _is_callable(name: str) -> bool:
    return not isinstance(PUBLIC[name], property | cached_property)


DOCUMENTED = [name for name in PUBLIC if _is_callable(name) and not _overridden(name)]
FUNCTIONS = [name for name in DOCUMENTED if not inspect.isclass(PUBLIC[name])]


def _sections(member: Any) -> dict[str, str]:
    text = inspect.getdoc(member) or ""
    titles = [match for match in TITLE.finditer(text) if len(match[1]) == len(match[2])]
    ends = [*(match.start() for match in titles[1:]), len(text)]
    sections = {match[1]: text[match.end() : end] for match, end in zip(titles, ends, strict=False)}
    assert len(sections) == len(titles), "a section stands there twice"
    return sections


def _entries(section: str) -> list[str]:
    """Names at the margin of a section, each of which needs a description."""
    lines = section.strip("\n").splitlines()
    names = []
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        if line and not line.startswith(" "):
            assert following.startswith("    "), f"no description of {line}"
            names += [name.strip().lstrip("*") for name in line.split(" : ")[0].split(",")]
    return names


@pytest.mark.parametrize("name", PUBLIC)
def test_there_is_a_summary(name):
    text = vars(PUBLIC[name]).get("__doc__") if inspect.isclass(PUBLIC[name]) else inspect.getdoc(PUBLIC[name])
    assert text
    assert len(text.strip().split("\n")[0]) > 10


@pytest.mark.parametrize("name", DOCUMENTED)
def test_parameters_are_those_of_the_signature(name):
    member = PUBLIC[name]
    if inspect.isclass(member) and issubclass(member, Exception):
        pytest.skip("exceptions take a message")
    parameters = [key for key in inspect.signature(member).parameters if key not in ("self", "cls")]
    assert _entries(_sections(member).get("Parameters", "")) == parameters


NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?"
STATED = re.compile(rf"Default: (``.+?``|{NUMBER}(?:(?:, | and ){NUMBER})*)|(``[^`]+``|{NUMBER})(?:, the| by) default")


def _defaults(name: str) -> list[tuple[list[Any], list[Any]]]:
    """Defaults that a docstring states as numbers or code, and those of the signature, for one or several parameters."""
    parameters, found = inspect.signature(PUBLIC[name]).parameters, []
    section = _sections(PUBLIC[name]).get("Parameters", "")
    for names, text in re.findall(r"^(\w[\w, ]*)\n((?: .*\n?|\n)+)", section, re.MULTILINE):
        match, values = STATED.search(" ".join(text.split())), [parameters[key].default for key in names.split(", ")]
        if match and None not in values:  # where it is None the value depends on others
            text = match[1] or match[2]
            stated = (
                [text.strip("`")] if "`" in text else [number.replace(",", "") for number in re.findall(NUMBER, text)]
            )
            flat = [one for value in values for one in (value if isinstance(value, tuple) else [value])]
            found.append(([ast.literal_eval(value) for value in stated], flat))
    return found


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if "Default: " in (inspect.getdoc(PUBLIC[name]) or "")])
def test_defaults_are_those_of_the_signature(name):
    for stated, default in _defaults(name):
        assert (stated * len(default) if len(stated) == 1 else stated) == default


def test_most_defaults_are_stated():
    assert sum(len(_defaults(name)) for name in DOCUMENTED if "Parameters" in _sections(PUBLIC[name])) > 80


@pytest.mark.parametrize("name", FUNCTIONS)
def test_returned_values_are_documented(name):
    returned = inspect.signature(PUBLIC[name]).return_annotation
    assert returned is not inspect.Signature.empty
    if returned not in (None, "None"):
        assert _sections(PUBLIC[name]).get("Returns", "").strip()


@pytest.mark.parametrize("name", [name for name, member in PUBLIC.items() if inspect.isclass(member)])
def test_attributes_are_documented(name):
    classes = [base for base in PUBLIC[name].__mro__ if base.__module__.startswith("sparsenode.")]
    declared = {key for base in classes for key in inspect.get_annotations(base) if not key.startswith("_")}
    source = "\n".join(inspect.getsource(base) for base in classes)
    commented = set(re.findall(r"^ +#: .+\n(?: +#: .+\n)* +(\w+): ", source, re.MULTILINE))
    assert declared - commented <= set(inspect.signature(PUBLIC[name]).parameters if declared else [])


def _tree(function: Any) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def _resolved(node: ast.expr, function: Any, owner: Any) -> Any:
    """What an expression such as `name`, `module.name` or `self.name` stands for, or nothing."""
    if isinstance(node, ast.Name):
        return function.__globals__.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        if node.value.id in ("self", "cls"):
            return inspect.getattr_static(owner, node.attr, None) if owner else None
        space = function.__globals__.get(node.value.id)
        return getattr(space, node.attr, None) if isinstance(space, ModuleType) else None
    return None


def _is_own(function: Any) -> bool:
    """Whether a function is written in this package, and not generated for a data class."""
    return function.__module__.startswith("sparsenode") and function.__code__.co_filename.endswith(".py")


def _raised(function: Any, owner: Any, depth: int) -> set[str]:
    """Errors that a function raises, and those of the functions of this package that it calls."""
    found = set()
    for node in ast.walk(_tree(function)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            maker = function.__globals__.get(node.exc.func.id)  # a function that words the message says what it makes
            found.add(maker.__annotations__["return"] if inspect.isfunction(maker) else node.exc.func.id)
        elif isinstance(node, ast.Call) and depth:
            called = _resolved(node.func, function, owner)
            called = inspect.unwrap(getattr(called, "__func__", called)) if callable(called) else None
            if inspect.isfunction(called) and _is_own(called):
                found |= _raised(called, owner, depth - 1)
    return found - {"NotImplementedError"}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_errors_are_documented(name):
    member = PUBLIC[name]
    owner = member if inspect.isclass(member) else PUBLIC.get(name.rpartition(".")[0])
    if inspect.isclass(member):
        makers = [vars(base).get(key) for base in member.__mro__ for key in ("__init__", "__post_init__")]
        functions = [one for one in makers if inspect.isfunction(one) and _is_own(one)]
    else:
        functions = [inspect.unwrap(getattr(member, "__func__", member))]
    raised = set().union(*(_raised(function, owner, depth=1) for function in functions))
    assert raised - IMPOSSIBLE.get(name, set()) <= set(_entries(_sections(member).get("Raises", "")))


# Errors of checks that cannot fail where they are called.
IMPOSSIBLE = {
    "sparsenode.pp.read_annotation": {"KeyError", "TypeError"},  # it checks a table that it has made
    "sparsenode.regularizers.NoRegularizer": {"ValueError"},  # its strength is zero
}


# What implements a published method, or comes from a publication, and says which.
PUBLISHED = [
    "sparsenode.SparseNODE",
    "sparsenode.SparseNODE.get_adjacency",
    "sparsenode.SparseNODE.get_edge_frequency",
    "sparsenode.objectives.Transport",
    "sparsenode.training.TrainingPlan",
    "sparsenode.training.IterativeSparsification",
    *(name for name in DOCUMENTED if name.startswith("sparsenode.regularizers.") and inspect.isclass(PUBLIC[name])),
    "sparsenode.pp.prepare_trajectories",
    "sparsenode.pp.reference_network",
    "sparsenode.pp.assign_peaks",
    "sparsenode.pp.scan_motifs",
    "sparsenode.tl.evaluate_network",
    "sparsenode.tl.network_baselines",
    "sparsenode.tl.to_networkx",
    "sparsenode.tl.to_decoupler",
    "sparsenode.pl.velocity",
    "sparsenode.pl.network",
    "sparsenode.datasets.krumsiek11",
    "sparsenode.datasets.krumsiek11_network",
    "sparsenode.datasets.second_order_system",
    "sparsenode.datasets.download",
    "sparsenode.datasets.read_motion_capture",
    "sparsenode.datasets.bone_marrow",
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_sources_are_named(name):
    member = PUBLIC[name]
    if member is sn.regularizers.Regularizer:
        pytest.skip("has no method of its own")
    section = _sections(member).get("References", "")
    assert re.search(r"\((19|20)\d\d\)", section) or re.search(r":cite:[pt]:`\w+", inspect.getdoc(member))


def test_cited_keys_are_in_the_bibliography():
    text = (API.parents[1] / "src" / "sparsenode" / "references.bib").read_text()
    keys = set(re.findall(r"^@\w+\{(\w+),$", text, re.MULTILINE))
    cited = {
        key
        for member in PUBLIC.values()
        for keys in re.findall(r":cite:[pt]:`([\w,]+)`", inspect.getdoc(member))
        for key in keys.split(",")
    }
    assert cited
    assert cited <= keys


# What someone could use where it misleads: its docstring says where not to.
LIMITED = [
    *(name for name in DOCUMENTED if name.startswith("sparsenode.SparseNODE") and not name.endswith(".citation")),
    *(name for name in DOCUMENTED if re.match(r"sparsenode\.(objectives|pl|pp|regularizers|tl)\.\w+$", name)),
]
LIMITED.remove("sparsenode.regularizers.get")
LIMIT = re.compile(r"\b([Dd]o\s+not|[Nn]ot\s+to\s+be|not\s+be\s+interpreted|is\s+no\s+ground\s+truth)\b")


@pytest.mark.parametrize("name", LIMITED)
def test_limits_are_named(name):
    assert LIMIT.search(inspect.getdoc(PUBLIC[name]))
