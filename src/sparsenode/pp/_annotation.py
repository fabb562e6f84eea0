"""Gene annotation: genes, transcripts and exons with coordinates."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import re
import zlib
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import bioframe
import numpy as np
import pandas as pd

from sparsenode import _checks

FEATURES = ("gene", "transcript", "exon")
# First bytes of compressed files, whatever their names, with what pandas calls them
_COMPRESSED: dict[bytes, tuple[str, Callable[..., Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bz2", bz2.open),
    b"\xfd7zXZ": ("xz", lzma.open),
}
_NAMES = "gene_name"
COLUMNS = ("chrom", "start", "end", "strand", "gene", "feature")


def read_annotation(path: str | PathLike[str], gene_attribute: str = _NAMES) -> pd.DataFrame:
    """Read genes, transcripts and exons from a GTF file, such as those of GENCODE and Ensembl.

    Do not use another annotation than the reads were mapped with: other releases name genes differently and move their ends.

    Parameters
    ----------
    path
        GTF file, plain or compressed by gzip, bzip2 or xz.
    gene_attribute
        Attribute with the gene names as in ``var_names`` of the expression: ``"gene_name"``, the default, or ``"gene_id"``. Rows without it
        get their ``gene_id``. If no row has it, this is an error, unless it is the default.

    Returns
    -------
    One row per gene, transcript and exon, with the columns ``chrom``, ``start``, ``end``, ``strand``, ``gene`` and ``feature``. Coordinates
    are 0-based and half-open, as in BED files: the ``start`` of the GTF minus one, and its ``end``.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file cannot be read as text or holds no genes, coordinates are not integers, no row has an attribute other than the default,
        or rows have neither the attribute nor a ``gene_id``.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"Expected `path` to be a GTF file, found no file at {str(path)!r}.")
    table = _read(Path(path))
    table = table[table["feature"].isin(FEATURES)]
    names = _attribute(table["attributes"], gene_attribute)
    if len(table) and names.isna().all() and gene_attribute != _NAMES:
        raise ValueError(
            f"Expected the attribute {gene_attribute!r} in rows of {str(path)!r}, found it in none of {len(table)}, such as "
            f"{table['attributes'].iloc[0]!r}. Name one of these attributes."
        )
    if gene_attribute != "gene_id":
        names = names.where(names.notna(), _attribute(table["attributes"], "gene_id"))
    if names.isna().any():
        raise ValueError(
            f"Expected the attribute {gene_attribute!r} or 'gene_id' in every row, found neither in {int(names.isna().sum())} "
            f"of {len(names)}, such as {table['attributes'][names.isna()].iloc[0]!r}. Is it a GTF file, not GFF3?"
        )
    places = {column: pd.to_numeric(table[column], errors="coerce") for column in ("start", "end")}
    for column, values in places.items():
        wrong = table[column][values.isna() | (values % 1 != 0)]
        if len(wrong):
            raise ValueError(
                f"Expected integers as {column} of rows in {str(path)!r}, found {len(wrong)} others, such as {wrong.iloc[0]!r}."
            )
    result = pd.DataFrame(
        {
            "chrom": table["chrom"].astype(str),
            "start": places["start"].astype(np.int64) - 1,
            "end": places["end"].astype(np.int64),
            "strand": table["strand"].astype(str),
            "gene": names.astype(str),
            "feature": table["feature"].astype(str),
        }
    ).reset_index(drop=True)
    return check_annotation(result, str(path))


def _read(path: Path) -> pd.DataFrame:
    """The table of a GTF file; comments are lines that begin with a #, which elsewhere, as in a description, is text."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
        compression, reader = next(
            (pair for magic, pair in _COMPRESSED.items() if start.startswith(magic)), (None, open)
        )
        with reader(path, "rb") as lines:
            comments = [number for number, line in enumerate(lines) if line.startswith(b"#")]
        options = {"skiprows": comments, "quoting": csv.QUOTE_NONE, "dtype": {"chrom": str}, "keep_default_na": False}
        return bioframe.read_table(str(path), schema="gtf", compression=compression, **options)
    except (UnicodeDecodeError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(
            f"Expected a GTF file, plain text in UTF-8 or compressed by gzip, bzip2 or xz, in {str(path)!r}: {error}"
        ) from error


def _attribute(attributes: pd.Series, name: str) -> pd.Series:
    return attributes.str.extract(rf'(?:^|;)\s*{re.escape(name)} "([^"]*)"', expand=False).replace("", np.nan)


def check_annotation(annotation: pd.DataFrame, name: str = "annotation") -> pd.DataFrame:
    """The annotation with the columns in order, after refusing what cannot be used.

    Raises
    ------
    TypeError
        If it is not a table.
    KeyError
        If columns are missing.
    ValueError
        If there are no genes, or if coordinates, strands, features or names of genes are none.
    """
    if not isinstance(annotation, pd.DataFrame):
        raise TypeError(
            f"Expected `{name}` to be a data frame, found {type(annotation).__name__}. `pp.read_annotation` makes it of a GTF file."
        )
    _checks.columns(name, annotation, COLUMNS)
    table = annotation[list(COLUMNS)].reset_index(drop=True)
    used = table["feature"].isin(FEATURES)
    for column in ("chrom", "strand", "gene", "feature"):
        missing = int(table[column][used].isna().sum())
        if missing:
            raise ValueError(
                f"Expected a {column} in every row of `{name}`, found {missing} of {int(used.sum())} missing. Fill them, genes without a name "
                "with their identifiers, or remove these rows."
            )
        table[column] = table[column].astype(str)
    for feature in ("gene", "exon"):
        if not (table["feature"] == feature).any():
            raise ValueError(
                f"Expected rows whose `feature` is 'gene' and rows whose `feature` is 'exon' in `{name}`, found "
                f"{sorted(set(table['feature']))[:5]}. Without {feature}s peaks cannot be assigned."
            )
    table = check_intervals(table, name)
    strange = sorted(set(table["strand"]) - {"+", "-"})
    if strange:
        raise ValueError(
            f"Expected the strands '+' and '-' in `{name}`, found {strange[:5]}. Write 1 as '+' and -1 as '-', and remove "
            "rows without a strand."
        )
    return table


def check_intervals(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table with coordinates of 64 bits, in which differences fit, after refusing what are no integers and intervals without a base."""
    for column in ("start", "end"):
        if not pd.api.types.is_integer_dtype(table[column]) or table[column].isna().any():
            raise ValueError(f"Expected integers in the column {column!r} of `{name}`, found {table[column].dtype}.")
    wrong = (table["start"] < 0) | (table["end"] <= table["start"])
    if wrong.any():
        row = table[wrong].iloc[0]
        raise ValueError(
            f"Expected `0 <= start < end` in `{name}`, found {int(wrong.sum())} other rows, such as "
            f"{row['chrom']}:{row['start']}-{row['end']}. Coordinates are 0-based and half-open."
        )
    return table.astype({"start": np.int64, "end": np.int64})
