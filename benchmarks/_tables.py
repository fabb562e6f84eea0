"""What the modules of tables share: committed results, and figures as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
DONORS = ("S1D2", "S1D1", "S2D1")
PROTOCOLS = ("paper", "recommended")
NETWORKS = ("VSC", "dyn-BF", "dyn-LI", "dyn-TF")
_LARGEST = 100  # errors beyond this are called so
METHODS = {
    "pathreg": "PathReg",
    "pathreg, first five cells": "PathReg, first five cells",
    "cnode": "C-NODE",
    "grouplasso": "GroupLasso",
    "l0": "L0",
    "lassonet": "LassoNet, inner",
    "lassonet_outer": "LassoNet, outer",
    "none": "no penalty",
    "pysindy": "PySINDy, degree 2",
    "pysindy_linear": "PySINDy, degree 1",
    "least_squares": "least squares, degree 2",
    "least_squares_linear": "least squares, degree 1",
}
OBJECTIVES = {
    "both": "**both**, the default",
    "trajectory": "trajectory",
    "transport": "transport",
    "transport, refitted": "transport, then refitted",
    "transport, fine-tuned": "transport, then fine-tuned",
    "both, ridge 1": "both, ridge 1 in both fits",
    "both, one field, ridge 1": "both, one field for all lineages, ridge 1",
}
Rows = list[list[str]]


def results(name: str) -> pd.DataFrame:
    """A committed table."""
    return pd.read_csv(HERE / name)


def signed(value: float, digits: int = 3) -> str:
    """With its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def small(value: float, digits: int = 2) -> str:
    """So many significant digits, without an exponent."""
    return np.format_float_positional(value, precision=digits, fractional=False, trim="-")


def spread(values: pd.Series, text: Callable[[float], str], unit: str = "") -> str:
    """Median, and the range where there is one."""
    low, median, high = (text(value) for value in (values.min(), values.median(), values.max()))
    return median + unit if low == high else f"{median}{unit} ({low} to {high})"


def strongest(values: Mapping[str, float], digits: int = 2, largest: bool = True) -> dict[str, str]:
    """Rounded, the best of them bold; what is equal after rounding is equally good."""
    rounded = {name: round(value, digits) for name, value in values.items()}
    best = (max if largest else min)(rounded.values())
    text = {
        name: f"{value:.{digits}f}".replace("-", "−") if value < _LARGEST else f"> {_LARGEST}"
        for name, value in rounded.items()
    }
    return {name: f"**{text[name]}**" if value == best else text[name] for name, value in rounded.items()}


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its header."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body]) + "\n"
