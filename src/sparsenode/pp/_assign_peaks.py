"""Peaks to genes, by position."""

from __future__ import annotations

from collections.abc import Sequence

import bioframe
import numpy as np
import pandas as pd
from anndata import AnnData

from sparsenode import _checks
from sparsenode._logging import logger
from sparsenode.pp._annotation import check_annotation, check_intervals
from sparsenode.pp._peaks import peak_coordinates

PROMOTER = (1000, 100)
MAX_DISTANCE = 200_000
_INTERVAL = ["chrom", "start", "end"]


def assign_peaks(
    peaks: AnnData | pd.DataFrame,
    annotation: pd.DataFrame,
    promoter: tuple[int, int] = PROMOTER,
    max_distance: int = MAX_DISTANCE,
) -> pd.DataFrame:
    """Assign peaks to the genes whose promoter, exon or intron they overlap, or whose promoter is nearest.

    Every peak gets the first region that applies, and all genes to which it applies:

    1. ``promoter``: it overlaps the promoter of the gene, around the start of any of its transcripts,
    2. ``exon``: it overlaps an exon of the gene,
    3. ``intron``: it overlaps the gene, and no exon of any gene,
    4. ``distal``: no promoter is nearer, and it is at most ``max_distance`` away.

    The rule follows Appendix B.3 of :cite:t:`aliee2022sparsity`. Position tells which gene a peak may regulate, not which one it does
    regulate: do not rely on it alone if you have contact maps or correlations over many cells.

    Parameters
    ----------
    peaks
        Peaks as variables of an AnnData, with coordinates in ``.var`` (columns ``chrom``, ``start`` and ``end``, or ``interval``) or in the
        names of the peaks, such as ``chr1:100-600``. Or a table with the columns ``chrom``, ``start`` and ``end`` and the names of the
        peaks as index. Coordinates are 0-based and half-open.
    annotation
        Genes, exons and, for several promoters of a gene, transcripts, as from :func:`read_annotation`.
    promoter
        Numbers of bases upstream and downstream of the start of transcription, which counts as the first base downstream. Default: 1000 and
        100.
    max_distance
        Largest number of bases between a distal peak and the promoter. Default: 200,000.

    Returns
    -------
    Long table with the columns ``peak``, ``gene``, ``region`` and ``distance``: the bases between a distal peak and the promoter, zero
    otherwise. Peaks keep their order, and appear more than once if several genes tie. Peaks that are farther from all promoters are not in
    it.

    Raises
    ------
    KeyError
        If columns are missing.
    TypeError
        If peaks or annotation are not tables.
    ValueError
        If there are no peaks, their names repeat, they have no coordinates, none of their chromosomes is in the annotation, or an argument
        is out of range.

    Notes
    -----
    Overlaps are found by bioframe :cite:p:`bioframe2024`.
    """
    _check_arguments(promoter, max_distance)
    annotation = check_annotation(annotation)
    if isinstance(peaks, AnnData):
        peaks = peak_coordinates(peaks)
    elif not isinstance(peaks, pd.DataFrame):
        raise TypeError(f"Expected `peaks` to be an AnnData object or a data frame, found {type(peaks).__name__}.")
    _checks.columns("peaks", peaks, _INTERVAL)
    if len(peaks) == 0:
        raise ValueError("Expected peaks in `peaks`, found none.")
    if not peaks.index.is_unique:
        repeated = peaks.index[peaks.index.duplicated()][0]
        raise ValueError(f"Expected unique names of peaks in the index of `peaks`, found {repeated!r} more than once.")
    intervals = check_intervals(peaks[_INTERVAL], "peaks").astype({"chrom": str}).reset_index(drop=True)
    _check_chromosomes(intervals, annotation)
    table = assign_intervals(intervals, annotation, promoter, max_distance)
    table.insert(0, "peak", np.asarray(peaks.index, dtype=object)[table.pop("position").to_numpy()])
    return table


def _check_arguments(promoter: Sequence[int], max_distance: int) -> None:
    given = list(promoter) if isinstance(promoter, Sequence | np.ndarray | pd.Series) else []
    integers = [value for value in given if _checks.is_integer(value)]
    if len(integers) != 2 or len(given) != 2 or integers[0] < 0 or integers[1] < 1:
        raise ValueError(
            "Expected `promoter` to be bases upstream (0 or more) and downstream (1 or more), such as (1000, 100), found "
            f"{promoter!r}."
        )
    _checks.at_least("max_distance", max_distance, 0)


def _check_chromosomes(peaks: pd.DataFrame, annotation: pd.DataFrame) -> None:
    """Refuse peaks whose chromosomes are named otherwise; tell of those on unknown ones."""
    known = peaks["chrom"].isin(annotation["chrom"].unique())
    if not known.any():
        raise ValueError(
            "Expected chromosomes of `peaks` to be in `annotation`, found none: peaks are on "
            f"{sorted(set(peaks['chrom']))[:3]}, genes on {sorted(set(annotation['chrom']))[:3]}. Rename them, for instance "
            "`annotation['chrom'] = 'chr' + annotation['chrom']`."
        )
    if not known.all():
        names = sorted(set(peaks["chrom"][~known]))
        logger.warning(
            "%d of %d peaks are on chromosomes that the annotation does not have, such as %s: they get no gene.",
            int((~known).sum()),
            len(known),
            names[:3],
        )


def assign_intervals(
    peaks: pd.DataFrame, annotation: pd.DataFrame, promoter: tuple[int, int], max_distance: int
) -> pd.DataFrame:
    """The rule of :func:`assign_peaks` for checked tables: columns position, gene, region and distance."""
    promoters = promoter_intervals(annotation, *promoter)
    regions = {
        "promoter": promoters,
        "exon": annotation[annotation["feature"] == "exon"],
        "intron": annotation[annotation["feature"] == "gene"],
    }
    left, pieces = np.arange(len(peaks)), []
    for region, intervals in regions.items():
        pairs = _overlaps(peaks.iloc[left], intervals).assign(region=region, distance=0)
        pieces.append(pairs)
        left = np.setdiff1d(left, pairs["position"])
    pieces.append(_nearest(peaks.iloc[left], promoters, max_distance).assign(region="distal"))
    table = pd.concat(pieces).sort_values(["position", "gene"], kind="stable").reset_index(drop=True)
    return table.astype({"position": np.int64, "distance": np.int64})[["position", "gene", "region", "distance"]]


def promoter_intervals(annotation: pd.DataFrame, upstream: int, downstream: int) -> pd.DataFrame:
    """Promoters of all transcripts of every gene, or of the gene where it has none: chrom, start, end and gene."""
    transcripts = annotation[annotation["feature"] == "transcript"]
    genes = annotation[(annotation["feature"] == "gene") & ~annotation["gene"].isin(transcripts["gene"])]
    rows = pd.concat([transcripts, genes])
    forward = (rows["strand"] == "+").to_numpy()
    start, end = rows["start"].to_numpy(), rows["end"].to_numpy()
    result = rows[["chrom", "gene"]].assign(
        start=np.maximum(np.where(forward, start - upstream, end - downstream), 0),
        end=np.where(forward, start + downstream, end + upstream),
    )
    return result[[*_INTERVAL, "gene"]].drop_duplicates(ignore_index=True)


def _overlaps(peaks: pd.DataFrame, intervals: pd.DataFrame) -> pd.DataFrame:
    """Peaks, by their index, and genes of the intervals that share a base with them; every pair once."""
    first, second = _pairs(peaks, intervals[[*_INTERVAL, "gene"]].reset_index(drop=True))
    genes = intervals["gene"].to_numpy()[second]
    return pd.DataFrame({"position": first, "gene": genes}).drop_duplicates(ignore_index=True)


def _nearest(peaks: pd.DataFrame, promoters: pd.DataFrame, max_distance: int) -> pd.DataFrame:
    """Genes of the nearest promoters within reach, all of them if several are equally near."""
    reach = max_distance + 1  # intervals that only touch do not overlap
    wide = peaks.assign(start=np.maximum(peaks["start"] - reach, 0), end=peaks["end"] + reach)
    first, second = _pairs(wide, promoters)
    starts, ends = peaks["start"].loc[first].to_numpy(), peaks["end"].loc[first].to_numpy()
    before = starts - promoters["end"].to_numpy()[second]
    after = promoters["start"].to_numpy()[second] - ends
    table = pd.DataFrame(
        {"position": first, "gene": promoters["gene"].to_numpy()[second], "distance": np.maximum(before, after)}
    )
    table["distance"] = table["distance"].clip(lower=0)
    nearest = table.groupby("position")["distance"].transform("min")
    return table[table["distance"] == nearest].drop_duplicates(["position", "gene"])


def _pairs(one: pd.DataFrame, other: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Index labels of all pairs of intervals that overlap."""
    if len(one) == 0 or len(other) == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    pairs = bioframe.overlap(one, other, how="inner", return_input=False, return_index=True)
    return pairs["index"].to_numpy(dtype=np.int64), pairs["index_"].to_numpy(dtype=np.int64)
