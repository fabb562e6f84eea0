"""GTF files."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re

import pytest

from sparsenode import pp

GTF = """#!genome-build GRCh38
1\thavana\tgene\t11869\t14409\t.\t+\t.\tgene_id "ENSG1"; gene_version "5"; gene_name "DDX11L1"; tag "x";
1\thavana\ttranscript\t12010\t13670\t.\t+\t.\tgene_id "ENSG1"; transcript_id "T1"; gene_name "DDX11L1";
1\thavana\texon\t12010\t12057\t.\t+\t.\tgene_id "ENSG1"; gene_name "DDX11L1"; exon_number "1";
1\thavana\tCDS\t12010\t12057\t.\t+\t0\tgene_id "ENSG1"; gene_name "DDX11L1";
1\thavana\tgene\t20000\t21000\t.\t-\t.\tgene_id "ENSG2"; gene_version "1";
"""


@pytest.mark.parametrize("compressed", [False, True])
def test_reads_genes_transcripts_and_exons(tmp_path, compressed):
    path = tmp_path / ("genes.gtf.gz" if compressed else "genes.gtf")
    path.write_bytes(gzip.compress(GTF.encode()) if compressed else GTF.encode())
    assert pp.read_annotation(path).to_numpy().tolist() == [
        ["1", 11868, 14409, "+", "DDX11L1", "gene"],
        ["1", 12009, 13670, "+", "DDX11L1", "transcript"],
        ["1", 12009, 12057, "+", "DDX11L1", "exon"],
        ["1", 19999, 21000, "-", "ENSG2", "gene"],
    ]
    assert pp.read_annotation(path, "gene_id")["gene"].tolist() == ["ENSG1", "ENSG1", "ENSG1", "ENSG2"]


@pytest.mark.parametrize(("suffix", "opener"), [("", open), (".gz", gzip.open), (".bz2", bz2.open)])
def test_comments_are_lines(tmp_path, suffix, opener):
    """The sign of a comment is text elsewhere. In comments there may be quotes and any number of fields."""
    row = 'chr1#2\tmy#src\t{}\t101\t200\t.\t+\t.\tgene_id "G1"; description "clone #3"; gene_name "A#1";\n'
    lines = [
        "#!genome\tX\tgene\t1\t2\n",
        '##\t"chrom, source\n',
        row.format("gene"),
        "#" + "\t".join("abcdefghij") + "\n",
    ]
    lines += ["\n", "###\n", row.format("exon"), "#" + row.format("gene")]
    path = tmp_path / f"genes.gtf{suffix}"
    with opener(path, "wt") as file:
        file.write("".join(lines))
    found = pp.read_annotation(path).to_numpy().tolist()
    assert found == [["chr1#2", 100, 200, "+", "A#1", feature] for feature in ("gene", "exon")]


def test_refuses_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file at"):
        pp.read_annotation(tmp_path / "none.gtf")
    gff = tmp_path / "genes.gff3"
    gff.write_text("1\thavana\tgene\t5\t10\t.\t+\t.\tID=gene:ENSG1;Name=A\n")
    with pytest.raises(ValueError, match="not GFF3"):
        pp.read_annotation(gff)
    empty = tmp_path / "cds.gtf"
    empty.write_text(GTF.splitlines()[4] + "\n")
    with pytest.raises(ValueError, match="`feature` is 'gene'"):
        pp.read_annotation(empty)


def test_attributes_are_found_by_their_whole_name_and_empty_ones_are_none(tmp_path):
    path = tmp_path / "genes.gtf"
    attributes = 'havana_gene_name "H"; gene_id "ENSG1"; gene_name "{}"; parent_gene_id "P";'
    rows = [
        f"1\thavana\t{feature}\t1\t9\t.\t+\t.\t{attributes.format(name)}"
        for feature, name in (("gene", "A"), ("exon", ""))
    ]
    path.write_text("\n".join(rows) + "\n")
    assert pp.read_annotation(path)["gene"].tolist() == ["A", "ENSG1"]
    assert pp.read_annotation(path, "gene_id")["gene"].tolist() == ["ENSG1", "ENSG1"]


@pytest.mark.parametrize(
    "compress", [gzip.compress, bz2.compress, lzma.compress, bytes], ids=["gzip", "bzip2", "xz", "none"]
)
@pytest.mark.parametrize("name", ["genes.gtf", "genes.gtf.gz", "genes.gtf.bgz"])
def test_compression_is_told_by_the_file_and_not_by_its_name(tmp_path, compress, name):
    path = tmp_path / name
    path.write_bytes(compress(GTF.encode()))
    assert len(pp.read_annotation(path)) == 4


@pytest.mark.parametrize("content", [GTF.replace("tag", "naïve").encode("latin-1"), gzip.compress(GTF.encode())[:-20]])
def test_files_that_cannot_be_read_are_named(tmp_path, content):
    path = tmp_path / "genes.gtf"
    path.write_bytes(content)
    with pytest.raises(
        ValueError,
        match=r"Expected a GTF file, plain text in UTF-8 or compressed by gzip, bzip2 or xz, in '.*genes\.gtf'",
    ):
        pp.read_annotation(path)


@pytest.mark.parametrize("attribute", ["gene_nmae", "gene(name", "gene.name"])
def test_an_attribute_that_no_row_has(tmp_path, attribute):
    path = tmp_path / "genes.gtf"
    path.write_text(GTF)
    with pytest.raises(ValueError, match=rf"attribute '{re.escape(attribute)}' in rows .* none of 4, such as 'gene_id"):
        pp.read_annotation(path, attribute)


def test_a_chromosome_may_be_called_na(tmp_path):
    path = tmp_path / "genes.gtf"
    path.write_text(GTF.replace("\n1\t", "\nNA\t"))
    assert set(pp.read_annotation(path)["chrom"]) == {"NA"}


def test_without_names_genes_have_their_identifiers(tmp_path):
    """As in the annotation of RefSeq, whose identifiers are the names."""
    path = tmp_path / "genes.gtf"
    path.write_text(GTF.replace("gene_name", "gene"))
    assert pp.read_annotation(path)["gene"].tolist() == ["ENSG1", "ENSG1", "ENSG1", "ENSG2"]
    assert pp.read_annotation(path, "gene")["gene"].tolist() == ["DDX11L1", "DDX11L1", "DDX11L1", "ENSG2"]


def test_coordinates_that_are_none_are_named(tmp_path):
    path = tmp_path / "genes.gtf"
    path.write_text(GTF.replace("11869", ""))
    with pytest.raises(
        ValueError, match=r"Expected integers as start of rows in '.*genes\.gtf', found 1 others, such as ''"
    ):
        pp.read_annotation(path)
