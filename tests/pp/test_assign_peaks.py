"""Peaks to genes, against a brute-force search."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from sparsenode import pp

ANNOTATION_COLUMNS = ["chrom", "start", "end", "strand", "gene", "feature"]


def gap(one: tuple[int, int], other: tuple[int, int]) -> int:
    """Bases between two intervals; -1 if they share any. Counts the bases one by one."""
    first, second = set(range(*one)), set(range(*other))
    if first & second:
        return -1
    low, high = (one, other) if one < other else (other, one)
    return len(range(low[1], high[0]))


def brute_force(peaks: pd.DataFrame, annotation: pd.DataFrame, promoter: tuple[int, int], reach: int) -> set[tuple]:
    """The rule, in the words of the docstring."""
    found = set()
    for peak in peaks.itertuples():
        own = annotation[annotation["chrom"] == peak.chrom]
        interval = (peak.start, peak.end)
        distances: dict[str, int] = {}
        for gene in own["gene"].unique():
            rows = own[own["gene"] == gene]
            starts = rows[rows["feature"] == "transcript"]
            if len(starts) == 0:
                starts = rows[rows["feature"] == "gene"]
            for row in starts.itertuples():
                base = row.start if row.strand == "+" else row.end - 1
                before, after = promoter if row.strand == "+" else promoter[::-1]
                # `promoter[1]` bases downstream, the base itself among them
                around = (base - before, base + after) if row.strand == "+" else (base - before + 1, base + 1 + after)
                distance = gap(interval, (max(around[0], 0), around[1]))
                distances[gene] = min(distances.get(gene, distance), distance)
        promoters = {g for g, d in distances.items() if d == -1}
        exons = {r.gene for r in own[own["feature"] == "exon"].itertuples() if gap(interval, (r.start, r.end)) == -1}
        bodies = {r.gene for r in own[own["feature"] == "gene"].itertuples() if gap(interval, (r.start, r.end)) == -1}
        nearest = min(distances.values(), default=reach + 1)
        if promoters:
            found |= {(peak.Index, g, "promoter", 0) for g in promoters}
        elif exons:
            found |= {(peak.Index, g, "exon", 0) for g in exons}
        elif bodies:
            found |= {(peak.Index, g, "intron", 0) for g in bodies}
        elif nearest <= reach:
            found |= {(peak.Index, g, "distal", d) for g, d in distances.items() if d == nearest}
    return found


@st.composite
def genomes(draw):
    """A few genes and peaks on two short chromosomes, crowded, so that all kinds of ties happen."""
    rows = []
    for k in range(draw(st.integers(1, 5))):
        start, length = draw(st.integers(0, 60)), draw(st.integers(4, 25))
        chrom, strand = draw(st.sampled_from(["chr1", "chr2"])), draw(st.sampled_from("+-"))
        rows.append((chrom, start, start + length, strand, f"g{k}", "gene"))
        for _ in range(draw(st.integers(0, 2))):
            shift = draw(st.integers(0, length - 2))
            rows.append((chrom, start + shift, start + length, strand, f"g{k}", "transcript"))
        for _ in range(draw(st.integers(1, 2))):
            shift = draw(st.integers(0, length - 2))
            rows.append((chrom, start + shift, start + shift + 2, strand, f"g{k}", "exon"))
    starts = draw(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 12)), min_size=1, max_size=6))
    chroms = [rows[0][0], *draw(st.lists(st.sampled_from(["chr1", "chr2"]), min_size=5, max_size=5))]
    peaks = pd.DataFrame(
        [(chrom, start, start + width) for chrom, (start, width) in zip(chroms, starts, strict=False)],
        columns=["chrom", "start", "end"],
    )
    peaks.index = [f"p{k}" for k in range(len(peaks))]
    promoter = (draw(st.integers(0, 6)), draw(st.integers(1, 4)))
    return peaks, pd.DataFrame(rows, columns=ANNOTATION_COLUMNS), promoter, draw(st.integers(0, 30))


@given(genomes())
def test_as_brute_force(genome):
    peaks, annotation, promoter, reach = genome
    table = pp.assign_peaks(peaks, annotation, promoter, reach)
    rows = list(table[["peak", "gene", "region", "distance"]].itertuples(index=False, name=None))
    assert len(rows) == len(set(rows))
    assert set(rows) == brute_force(peaks, annotation, promoter, reach)
    assert rows == sorted(rows, key=lambda row: (peaks.index.get_loc(row[0]), row[1]))  # genes that tie by name


def genes(*rows: tuple) -> pd.DataFrame:
    """Genes, each with one exon over its last ten bases."""
    table = []
    for chrom, start, end, strand, name in rows:
        table += [(chrom, start, end, strand, name, "gene"), (chrom, end - 10, end, strand, name, "exon")]
    return pd.DataFrame(table, columns=ANNOTATION_COLUMNS)


def peaks(*intervals: tuple[str, int, int]) -> pd.DataFrame:
    table = pd.DataFrame(list(intervals), columns=["chrom", "start", "end"])
    return table.set_index(pd.Index([f"p{k}" for k in range(len(table))]))


def test_both_nearest_promoters_when_they_tie():
    annotation = genes(("chr1", 10_000, 20_000, "-", "left"), ("chr1", 40_000, 50_000, "+", "right"))
    # promoters end at 21,000 and start at 39,000
    table = pp.assign_peaks(peaks(("chr1", 29_900, 30_100), ("chr1", 29_901, 30_101)), annotation)
    assert table.to_numpy().tolist() == [
        ["p0", "left", "distal", 8900],
        ["p0", "right", "distal", 8900],
        ["p1", "right", "distal", 8899],
    ]


@pytest.mark.parametrize(("start", "expected"), [(221_000, ["distal"]), (221_001, [])])
def test_reach_counts_the_bases_between_peak_and_promoter(start, expected):
    annotation = genes(("chr1", 10_000, 20_000, "-", "gene"))
    table = pp.assign_peaks(peaks(("chr1", start, start + 500)), annotation)
    assert table["region"].tolist() == expected


@pytest.mark.parametrize(
    ("start", "region"), [(8_500, "distal"), (8_501, "promoter"), (10_099, "promoter"), (10_100, "intron")]
)
def test_ends_of_a_promoter(start, region):
    annotation = genes(("chr1", 10_000, 20_000, "+", "gene"))
    for promoter in ((1000, 100), np.array([1000, 100]), pd.Series([1000, 100])):
        table = pp.assign_peaks(peaks(("chr1", start, start + 500)), annotation, promoter=promoter)
        assert table["region"].tolist() == [region]


def test_coordinates_from_names_intervals_and_columns():
    annotation = genes(("chr1", 10_000, 20_000, "+", "gene"))
    by_name = AnnData(
        np.zeros((1, 3)), var=pd.DataFrame(index=["chr1:9800-10100", "chr1-12000-12500", "chr1_5000_5500"])
    )
    table = pp.assign_peaks(by_name, annotation)
    assert table["region"].tolist() == ["promoter", "intron", "distal"]
    by_interval = AnnData(np.zeros((1, 1)), var=pd.DataFrame({"interval": ["chr1:9800-10100"]}, index=["a"]))
    assert pp.assign_peaks(by_interval, annotation)["peak"].tolist() == ["a"]
    by_column = AnnData(np.zeros((1, 1)), var=pd.DataFrame({"chrom": "chr1", "start": 9800, "end": 10100}, index=["b"]))
    assert pp.assign_peaks(by_column, annotation)["peak"].tolist() == ["b"]


def test_names_of_scaffolds_with_underscores():
    annotation = genes(("chr1_KI270706v1_random", 10_000, 20_000, "+", "gene"))
    adata = AnnData(np.zeros((1, 1)), var=pd.DataFrame(index=["chr1_KI270706v1_random:12000-12500"]))
    assert pp.assign_peaks(adata, annotation)["region"].tolist() == ["intron"]


def test_chromosomes_that_are_numbers():
    annotation = genes((1, 10_000, 20_000, "+", "gene"))
    table = peaks((1, 9_800, 10_000), (1, 12_000, 12_500))
    assert pp.assign_peaks(table, annotation)["region"].tolist() == ["promoter", "intron"]
    assert pp.assign_peaks(AnnData(np.zeros((1, 2)), var=table), annotation)["region"].tolist() == [
        "promoter",
        "intron",
    ]


def test_unknown_chromosomes_are_told(caplog):
    annotation = genes(("chr1", 10_000, 20_000, "+", "gene"))
    with caplog.at_level(logging.WARNING, "sparsenode"):
        table = pp.assign_peaks(peaks(("chr1", 9_800, 10_000), ("KI27", 5, 10)), annotation)
    assert table["peak"].tolist() == ["p0"]
    assert "1 of 2 peaks" in caplog.text
    assert "KI27" in caplog.text


def test_refuses_what_it_cannot_assign():
    annotation = genes(("chr1", 10_000, 20_000, "+", "gene"))
    some = peaks(("chr1", 5, 10))
    with pytest.raises(ValueError, match=r"peaks are on \['1'\], genes on \['chr1'\]"):
        pp.assign_peaks(peaks(("1", 5, 10)), annotation)
    with pytest.raises(ValueError, match="found none for 1, such as 'GATA1'"):
        pp.assign_peaks(AnnData(np.zeros((1, 2)), var=pd.DataFrame(index=["GATA1", "chr1:5-10"])), annotation)
    repeated = AnnData(np.zeros((1, 2)), var=some.iloc[[0, 0]])
    with pytest.raises(ValueError, match="unique names of peaks"):
        pp.assign_peaks(repeated, annotation)
    with pytest.raises(KeyError, match=r"\['strand', 'feature'\] not found"):
        pp.assign_peaks(some, annotation.drop(columns=["strand", "feature"]))
    with pytest.raises(ValueError, match="'exon'"):
        pp.assign_peaks(some, annotation[annotation["feature"] == "gene"])
    with pytest.raises(ValueError, match=r"strands.*found \['\.'\]"):
        pp.assign_peaks(some, annotation.assign(strand="."))
    with pytest.raises(ValueError, match=r"strands.*found \['1'\]. Write 1 as '\+'"):
        pp.assign_peaks(some, annotation.assign(strand=1))
    with pytest.raises(ValueError, match=r"chr1:10-10"):
        pp.assign_peaks(peaks(("chr1", 10, 10)), annotation)
    with pytest.raises(ValueError, match="integers in the column 'start'"):
        pp.assign_peaks(some.astype({"start": float}), annotation)
    with pytest.raises(KeyError, match=r"\['end'\] not found"):
        pp.assign_peaks(some.drop(columns="end"), annotation)
    with pytest.raises(TypeError, match="found list"):
        pp.assign_peaks([1], annotation)
    with pytest.raises(TypeError, match=r"to be a data frame, found str. `pp.read_annotation`"):
        pp.assign_peaks(some, "genes.gtf")
    with pytest.raises(ValueError, match=r"`promoter`.*\(10, 0\)"):
        pp.assign_peaks(some, annotation, promoter=(10, 0))
    with pytest.raises(ValueError, match="`max_distance`.*-1"):
        pp.assign_peaks(some, annotation, max_distance=-1)


@pytest.mark.parametrize("column", ["chrom", "strand", "gene"])
def test_names_that_are_missing_are_no_names(column):
    """A gene called nan would take peaks from its neighbours; rows of other features are not read."""
    annotation = genes(("chr1", 10_000, 20_000, "+", "gene"))
    some = peaks(("chr1", 5, 10))
    other = annotation[:1].assign(feature="CDS", gene=None)
    whole = pd.concat([annotation, other], ignore_index=True)
    pd.testing.assert_frame_equal(pp.assign_peaks(some, whole), pp.assign_peaks(some, annotation))
    whole.loc[0, column] = None
    with pytest.raises(ValueError, match=f"Expected a {column} in every row .* found 1 of 2 missing"):
        pp.assign_peaks(some, whole)


@pytest.mark.parametrize("start", [-5, pd.NA])
def test_refuses_coordinates_that_are_none(start):
    annotation = genes(("chr1", 10_000, 20_000, "+", "gene"))
    table = peaks(("chr1", 5, 10), ("chr1", 15, 20)).astype({"start": "Int64"})
    table.loc["p1", "start"] = start
    with pytest.raises(ValueError, match="chr1:-5-20|integers in the column 'start'"):
        pp.assign_peaks(table, annotation)


@pytest.mark.parametrize(
    "arguments",
    [
        *({"max_distance": 0.5}, {"max_distance": True}, {"max_distance": -1}),
        *({"promoter": (1000, 100, None)}, {"promoter": (-1, 100)}, {"promoter": (1.5, 2)}),
        *({"promoter": None}, {"promoter": 1000}, {"promoter": (True, 100)}),
    ],
)
def test_refuses_distances_that_are_no_bases(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
        pp.assign_peaks(peaks(("chr1", 5, 10)), genes(("chr1", 10_000, 20_000, "+", "gene")), **arguments)


@pytest.mark.parametrize("peaks_type", ["int16", "uint16", "uint32", "uint64", "UInt32"])
@pytest.mark.parametrize("genes_type", ["int64", "uint32", "uint64"])
def test_coordinates_of_any_integers(peaks_type, genes_type):
    """Differences of unsigned numbers are no distances; there is a promoter on either side, and a chromosome begins nearby."""
    rows = [("chr1", 2_000, 9_000, "+", "near"), ("chr1", 30_000, 31_000, "-", "far"), ("chr1", 100, 200, "+", "first")]
    annotation = pd.DataFrame(
        [(*row, feature) for row in rows for feature in ("gene", "exon")], columns=ANNOTATION_COLUMNS
    )
    peaks = pd.DataFrame(
        {"chrom": "chr1", "start": [20, 12_000, 25_000], "end": [40, 12_500, 25_100]}, index=list("abc")
    )
    expected = pp.assign_peaks(peaks, annotation)
    found = pp.assign_peaks(
        peaks.astype({"start": peaks_type, "end": peaks_type}),
        annotation.astype({"start": genes_type, "end": genes_type}),
    )
    pd.testing.assert_frame_equal(found, expected)
    assert expected["gene"].tolist() == ["first", "near", "far"]
    assert expected["distance"].tolist() == [0, 9_900, 5_800]


def test_refuses_no_peaks_and_repeated_ones():
    annotation = pd.DataFrame(
        [("chr1", 2_000, 9_000, "+", "a", feature) for feature in ("gene", "exon")], columns=ANNOTATION_COLUMNS
    )
    peaks = pd.DataFrame({"chrom": "chr1", "start": [20, 30], "end": [40, 50]}, index=["p", "p"])
    with pytest.raises(ValueError, match="unique names of peaks in the index of `peaks`, found 'p' more than once"):
        pp.assign_peaks(peaks, annotation)
    with pytest.raises(ValueError, match="Expected peaks in `peaks`, found none"):
        pp.assign_peaks(peaks[:0], annotation)
