"""Coordinates of the peaks of an AnnData."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from sparsenode.pp._annotation import check_intervals

_NAME = r"^(?P<chrom>.+?)[:\-_](?P<start>\d+)[\-_](?P<end>\d+)$"
_COLUMNS = ("chrom", "start", "end")


def peak_coordinates(adata: AnnData) -> pd.DataFrame:
    """Coordinates of peaks: the columns ``chrom``, ``start`` and ``end`` of ``adata.var``, its ``interval``, or its names.

    Names and intervals look like ``chr1:100-600``, ``chr1-100-600`` or ``chr1_100_600``.

    Raises
    ------
    ValueError
        If peak names repeat, or if peaks have no coordinates.
    """
    if not adata.var_names.is_unique:
        raise ValueError("Expected unique names of peaks, found repeated ones. Call `adata.var_names_make_unique()`.")
    if all(column in adata.var for column in _COLUMNS):
        table = adata.var[list(_COLUMNS)].copy()
        table["chrom"] = table["chrom"].astype(str)
    else:
        texts = adata.var["interval"] if "interval" in adata.var else pd.Series(adata.var_names, adata.var_names)
        table = texts.astype(str).str.extract(_NAME)
        unread = table["chrom"].isna()
        if unread.any():
            raise ValueError(
                f"Expected coordinates of all {len(table)} peaks, found none for {int(unread.sum())}, such as "
                f"{texts[unread].astype(str).iloc[0]!r}. Put them in the columns 'chrom', 'start' and 'end' of `.var`, or name peaks "
                "like 'chr1:100-600'."
            )
        table = table.astype({"start": np.int64, "end": np.int64})
    return check_intervals(table, "peaks")
