"""A genome for the simulated multiome: genes far apart, and places for peaks around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

_WINDOW = 1_000_000  # bases for every gene, so that nobody else's promoter is within reach of its peaks
_GENES_PER_CHROMOSOME = 40
_N_EXONS = 6
_EXON, _INTRON = 800, 8_000
_BODY = _N_EXONS * _EXON + (_N_EXONS - 1) * _INTRON
PEAK = 500
# Starts of peaks relative to the start of transcription, downstream positive. The promoter that `pp.assign_peaks` takes by
# default ends 100 bases downstream; the first exon and the first intron are left out.
_PLACES = {
    "promoter": [-600],
    "exon": [k * (_EXON + _INTRON) + 150 for k in range(1, _N_EXONS)],
    "intron": [k * (_EXON + _INTRON) + _EXON + offset for k in range(1, _N_EXONS - 1) for offset in (1000, 3000, 5000)],
    "distal": [-distance for distance in range(10_000, 190_000, 5_000)],
    "far": [-distance for distance in range(250_000, 300_000, 10_000)],
}


@dataclass(frozen=True, eq=False)
class Gene:
    """A gene, and the places around it that are still free.

    Parameters
    ----------
    name, chrom, strand
        As in the annotation.
    first
        First transcribed base; to its left on the reverse strand.
    free
        Free places by region, in the order in which they are taken.
    """

    name: str
    chrom: str
    strand: str
    first: int
    free: dict[str, list[int]]

    def span(self, offset: int, length: int) -> tuple[int, int]:
        """Interval that starts ``offset`` bases downstream of the start of transcription."""
        if self.strand == "+":
            return self.first + offset, self.first + offset + length
        return self.first - offset - length + 1, self.first - offset + 1

    def take(self, region: str) -> tuple[str, int, int]:
        """Interval of a new peak in a region of the gene, or in another one where that is full."""
        region = region if self.free[region] else "distal"
        return (self.chrom, *self.span(self.free[region].pop(), PEAK))

    def annotation(self) -> list[tuple]:
        """Rows of the annotation: the gene, its transcript and its exons."""
        exons = [("exon", k * (_EXON + _INTRON), _EXON) for k in range(_N_EXONS)]
        rows = [("gene", 0, _BODY), ("transcript", 0, _BODY), *exons]
        return [(self.chrom, *self.span(offset, length), self.strand, self.name, name) for name, offset, length in rows]


def lay_out(names: list[str], generator: np.random.Generator) -> dict[str, Gene]:
    """Genes in random order, each in the middle of a million bases of its own, on random strands."""
    genes = {}
    for position, index in enumerate(generator.permutation(len(names))):
        chromosome, window = divmod(position, _GENES_PER_CHROMOSOME)
        first = window * _WINDOW + _WINDOW // 2 + int(generator.integers(-20_000, 20_000))
        free = {region: list(generator.permutation(places)) for region, places in _PLACES.items()}
        genes[names[index]] = Gene(names[index], f"chr{chromosome + 1}", str(generator.choice(["+", "-"])), first, free)
    return genes


def annotation_table(genes: dict[str, Gene]) -> pd.DataFrame:
    """Annotation in the form of :func:`sparsenode.pp.read_annotation`."""
    rows = [row for gene in genes.values() for row in gene.annotation()]
    return pd.DataFrame(rows, columns=["chrom", "start", "end", "strand", "gene", "feature"])
