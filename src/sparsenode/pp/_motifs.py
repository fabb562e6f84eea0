"""Motifs in peaks: matched in the sequence, from a packaged collection or given as counts."""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from os import PathLike
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
from anndata import AnnData

from sparsenode import _checks
from sparsenode._logging import logger
from sparsenode.pp._peaks import peak_coordinates

_BASES = "ACGT"
_CHUNK_BASES = 10_000_000  # in memory at a time, a few bytes each
_PSEUDOCOUNT = 0.1
_BIN = 2.0**-8  # bits to which log odds are rounded, to count sequences by score


def scan_motifs(
    peaks: AnnData,
    fasta: str | PathLike[str],
    motifs: str | Mapping[str, np.ndarray] = "JASPAR2024",
    species: int | Sequence[int] = 9606,
    pvalue: float = 1e-4,
) -> pd.DataFrame:
    """Find the motifs of transcription factors in the sequence of peaks.

    A peak contains a motif if a position on either strand, with no unknown bases, scores at least as high as the share ``pvalue`` of random
    sequences with equal shares of the four bases. Do not take hits for binding: they say where a factor could bind. Factors of one family
    share motifs, and many hits are never bound.

    Needs the extra ``motifs``: ``pip install "sparsenode[motifs]"``. The first call compiles for half a minute.

    Parameters
    ----------
    peaks
        Peaks as variables, with coordinates as in :func:`assign_peaks`.
    fasta
        Sequence of the genome that the reads were mapped to. An index (``.fai``) is written beside it if there is none.
    motifs
        Release of JASPAR :cite:p:`rauluseviciute2024jaspar` whose collection CORE is used, by default ``"JASPAR2024"``. Or counts by name
        of the factor, each an array of positions × 4 in the order A, C, G, T, or a table with these column names. ``::`` joins several
        factors of one motif, each of which gets its hits.
    species
        Taxonomy identifiers of the species whose motifs are taken from JASPAR. Default: 9606, human.
    pvalue
        Largest share of random positions that match. Default: 1e-4, as in FIMO. It suits motifs of seven positions and more: those of k
        positions cannot have hits below 4 to the power of -k, and a warning is logged for shorter ones.

    Returns
    -------
    Table of peaks × factors, true where the peak contains a motif of the factor. Factors are named as in the collection. If your expression
    has other names, such as those of another species, rename them: ``hits.rename(columns=str.capitalize)``. To keep the table with the
    data: ``mdata["atac"].varm["motifs"] = hits``.

    Raises
    ------
    ImportError
        If the extra is not installed.
    TypeError
        If ``peaks`` is not an AnnData.
    FileNotFoundError
        If the FASTA file does not exist.
    ValueError
        If there are no peaks, they have no coordinates, their chromosomes or ends are not in the FASTA, there are no motifs, counts are
        invalid, an argument is out of range, or no motif matched.

    Notes
    -----
    The scan is that of FIMO :cite:p:`grant2011fimo`, as implemented in memelite, with log odds rounded to 1/256 bit.
    """
    if not isinstance(pvalue, Real) or not 0 < float(pvalue) < 1:
        raise ValueError(f"Expected `pvalue` to be in (0, 1), found {pvalue!r}.")
    _checks.anndata(peaks, "peaks")
    if peaks.n_vars == 0:
        raise ValueError("Expected peaks in `peaks`, found none.")
    coordinates = peak_coordinates(peaks)
    counts = _jaspar(motifs, species) if isinstance(motifs, str) else _check_counts(motifs)
    short = sorted({name for name, matrix in counts if 4.0 ** -len(matrix) > pvalue})
    if short:
        logger.warning("%d motifs are too short to match at `pvalue` %g, such as %s.", len(short), pvalue, short[:5])
    names = sorted({factor for name, _ in counts for factor in name.split("::")})
    columns = {factor: position for position, factor in enumerate(names)}
    hits = np.zeros((len(coordinates), len(names)), dtype=bool)
    for positions, sequences in _chunks(coordinates, fasta):
        for (name, _), found in zip(counts, _matches(sequences, counts, float(pvalue)), strict=True):
            for factor in name.split("::"):
                hits[positions[found], columns[factor]] = True
    if not hits.any():
        raise ValueError(
            f"Expected motifs in the peaks, none of {len(counts)} matched in {len(coordinates)} peaks. Check that the FASTA is the "
            f"genome of the peaks, or raise `pvalue`, {pvalue:g}."
        )
    logger.info("%d of %d factors have a motif in %d peaks.", int(hits.any(0).sum()), len(names), len(hits))
    return pd.DataFrame(hits, index=peaks.var_names, columns=names)


def _require(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"`scan_motifs` needs {module!r}, which is not installed. Call `pip install 'sparsenode[motifs]'`."
        ) from error


def _jaspar(release: str, species: int | Sequence[int]) -> list[tuple[str, np.ndarray]]:
    """Names and counts of the collection CORE of a release."""
    pyjaspar = _require("pyjaspar")
    releases = pyjaspar.jaspardb().get_releases()
    if release not in releases:
        raise ValueError(f"Expected `motifs` to be counts or one of {sorted(releases)}, found {release!r}.")
    wanted = [str(species)] if isinstance(species, int | np.integer | str) else [str(item) for item in species]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Zero motifs")  # an error below
        found = pyjaspar.jaspardb(release=release).fetch_motifs(collection="CORE", species=wanted)
    if not found:
        raise ValueError(
            f"Expected motifs of the species {wanted} in {release}, found none. Human is 9606, mouse 10090."
        )
    named = [(re.sub(r"\(var\.\d+\)$", "", motif.name), motif) for motif in found]
    return [(name, np.array([motif.counts[base] for base in _BASES], dtype=float).T) for name, motif in named]


def _check_counts(motifs: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    if not isinstance(motifs, Mapping) or len(motifs) == 0:
        raise ValueError(
            f"Expected `motifs` to be a release of JASPAR or counts by name, found {type(motifs).__name__}."
        )
    result = []
    for name, counts in motifs.items():
        if isinstance(counts, pd.DataFrame) and set(counts) == set(_BASES):
            counts = counts[list(_BASES)]  # named, whatever their order
        elif isinstance(counts, pd.DataFrame) and (set(counts.index) == set(_BASES) or list(counts) != list(range(4))):
            raise ValueError(
                f"Expected a table of counts of {name!r} to have the columns {list(_BASES)}, found {list(counts)[:6]}. Rename or transpose "
                "them, or pass an array of positions × 4 in this order."
            )
        matrix = np.asarray(counts, dtype=float)
        if matrix.ndim != 2 or matrix.shape[1] != 4 or len(matrix) == 0:
            raise ValueError(
                f"Expected counts of {name!r} of shape positions × 4, found {matrix.shape}. Transpose them?"
            )
        wrong = matrix[~(np.isfinite(matrix) & (matrix >= 0)).all(1) | ~(matrix.sum(1) > 0)]
        if len(wrong):
            raise ValueError(
                f"Expected counts of {name!r} to be non-negative and finite, and some at every position, found {wrong[0].tolist()}."
            )
        result.append((str(name), matrix))
    return result


def _chunks(coordinates: pd.DataFrame, fasta: str | PathLike[str]) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Positions of peaks, and their sequences in upper case, a few million bases at a time."""
    if not Path(fasta).is_file():
        raise FileNotFoundError(f"Expected `fasta` to be a FASTA file, found no file at {str(fasta)!r}.")
    with _require("pyfaidx").Fasta(str(fasta), as_raw=True, sequence_always_upper=True) as genome:
        _check_sequences(coordinates, {record.name: len(record) for record in genome})
        length = (coordinates["end"] - coordinates["start"]).to_numpy()
        order = np.argsort(length, kind="stable")
        rows = list(coordinates[["chrom", "start", "end"]].itertuples(index=False))
        for positions in np.split(order, _cuts(length[order])):
            yield positions, [str(genome[rows[i][0]][rows[i][1] : rows[i][2]]) for i in positions]


def _cuts(lengths: np.ndarray) -> list[int]:
    """Where increasing lengths are cut into chunks, whose sequences are padded to the longest."""
    cuts, first = [], 0
    for place, length in enumerate(lengths):
        if place > first and (place + 1 - first) * length > _CHUNK_BASES:
            cuts.append(place)
            first = place
    return cuts


def _check_sequences(coordinates: pd.DataFrame, lengths: Mapping[str, int]) -> None:
    ends = coordinates["chrom"].map(lengths)
    if ends.isna().any():
        raise ValueError(
            f"Expected the chromosomes of all peaks in the FASTA, {int(ends.isna().sum())} peaks are on others: "
            f"{sorted(set(coordinates['chrom'][ends.isna()]))[:3]}; the FASTA has {list(lengths)[:3]}. Rename or remove them."
        )
    beyond = coordinates["end"] > ends
    if beyond.any():
        row = coordinates[beyond].iloc[0]
        raise ValueError(
            f"Expected peaks within the FASTA, found {int(beyond.sum())} beyond the end of their chromosome, such as "
            f"{row['chrom']}:{row['start']}-{row['end']} of {lengths[row['chrom']]} bases. Is it the genome of the peaks?"
        )


def _one_hot(sequences: Sequence[str]) -> np.ndarray:
    """Sequences × bases × positions; zero where the base is not known, and beyond the end of shorter sequences."""
    width = max(len(sequence) for sequence in sequences)
    letters = np.frombuffer("".join(s.ljust(width, "N") for s in sequences).encode("ascii"), dtype=np.uint8)
    letters = letters.reshape(len(sequences), 1, width)
    return (letters == np.frombuffer(_BASES.encode(), dtype=np.uint8)[:, None]).astype(np.int8)


def _matches(sequences: Sequence[str], motifs: Sequence[tuple[str, np.ndarray]], pvalue: float) -> Iterator[np.ndarray]:
    """For every motif, the positions of the sequences that hold it on either strand."""
    encoded = _one_hot(sequences)
    width = encoded.shape[2]
    unknown = np.zeros((len(sequences), width + 1), dtype=np.int64)  # bases before each position
    np.cumsum(encoded.sum(1) == 0, axis=1, out=unknown[:, 1:])
    usable = {str(k): _rounded_odds(counts).T for k, (_, counts) in enumerate(motifs) if len(counts) <= width}
    threshold = min(pvalue * (1 + 1e-9), 1.0)  # memelite takes what is below it
    fimo = _require("memelite").fimo
    tables = fimo(usable, encoded, bin_size=_BIN, eps=0.0, threshold=threshold) if usable else []
    found = dict(zip(usable, tables, strict=True))
    for k in range(len(motifs)):
        hits = found.get(str(k))
        if hits is None:
            yield np.zeros(0, dtype=np.int64)
            continue
        rows, start, end = (hits[name].to_numpy(dtype=np.int64) for name in ("sequence_name", "start", "end"))
        yield np.unique(rows[unknown[rows, end] == unknown[rows, start]])  # nor beyond the end of shorter ones


def _rounded_odds(counts: np.ndarray) -> np.ndarray:
    """A quarter of the odds of every base at every position, whose logarithms are multiples of the bin.

    memelite counts sequences by scores that are rounded to bins, and compares scores that are not: so they are rounded here.
    """
    smooth = counts + _PSEUDOCOUNT
    bins = np.round(np.log2(4.0 * smooth / smooth.sum(1, keepdims=True)) / _BIN)
    return 0.25 * 2.0 ** ((bins + 0.01) * _BIN)  # a little more, lest rounding takes a score below its own bin
