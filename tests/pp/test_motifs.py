"""Motifs in sequences, against a search word by word."""

from __future__ import annotations

import itertools
import re
import sys

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from sparsenode import pp
from sparsenode.pp import _motifs

BASES = "ACGT"
COMPLEMENT = str.maketrans(BASES, BASES[::-1])


@pytest.fixture(scope="module")
def genome(tmp_path_factory) -> tuple:
    """Two chromosomes, one of them in lower case and with unknown bases."""
    rng = np.random.default_rng(0)
    one, two = ("".join(rng.choice(list(BASES), 3000)) for _ in range(2))
    two = two[:500].lower() + "N" * 40 + two[540:]
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    lines = [
        f">{name} any text\n" + "\n".join(s[k : k + 60] for k in range(0, len(s), 60))
        for name, s in (("chr1", one), ("chr2", two))
    ]
    path.write_text("\n".join(lines) + "\n")
    intervals = [("chr1", s, s + w) for s, w in zip(range(0, 2900, 90), itertools.cycle([30, 71, 8, 3]), strict=False)]
    intervals += [("chr2", s, s + 60) for s in range(450, 1200, 50)]
    names = [f"{c}:{s}-{e}" for c, s, e in intervals]
    sequences = {"chr1": one, "chr2": two.upper()}
    words = [sequences[c][s:e] for c, s, e in intervals]
    return path, AnnData(np.zeros((1, len(names))), var=pd.DataFrame(index=names)), words


def exact_words(counts: np.ndarray, share: float) -> set[str]:
    """The best-scoring words that make up at most this share of all words; the score must be clear."""
    smooth = (counts + 0.1) / (counts + 0.1).sum(1, keepdims=True)
    words = list(itertools.product(range(4), repeat=len(counts)))
    scores = np.array([sum(np.log2(4 * smooth[k, base]) for k, base in enumerate(word)) for word in words])
    order = np.argsort(-scores)
    n = int(share * len(words))
    assert scores[order[n - 1]] - scores[order[n]] > 0.5  # far more than what scores are rounded to
    return {"".join(BASES[b] for b in words[k]) for k in order[:n]}


def test_as_word_by_word(genome):
    path, peaks, sequences = genome
    strict = 20.0 * np.eye(4)[[0, 1, 2, 0]]
    loose = np.array([[9, 1, 1, 1], [1, 9, 1, 1], [14, 0, 0, 14], [0, 20, 0, 0]])
    either = {}
    for name, counts, share in (("strict", strict, 1 / 4**4), ("loose", loose, 2 / 4**4)):
        words = exact_words(counts, share)
        either[name] = words | {word.translate(COMPLEMENT)[::-1] for word in words}
    expected = {name: np.array([any(w in s for w in words) for s in sequences]) for name, words in either.items()}
    assert all(0 < found.sum() < len(found) for found in expected.values())
    for name, counts, share in (
        ("strict", strict, 1),
        ("loose", loose, 2),
        ("strict", strict, 1.5),
        ("loose", loose, 2.5),
    ):
        pvalue = share / 4**4  # at most
        hits = pp.scan_motifs(peaks, path, {name: counts}, pvalue=pvalue)
        np.testing.assert_array_equal(hits[name], expected[name])
        assert list(hits.index) == list(peaks.var_names)


@pytest.mark.parametrize("length", [6, 8])
def test_any_motif_as_all_words(tmp_path, length):
    """Scores that lie close together: the share of all words that score as high, counted one by one."""
    rng = np.random.default_rng(length)
    code = rng.integers(0, 4, 60_000)
    path = tmp_path / "g.fa"
    path.write_text(">c\n" + "".join(BASES[base] for base in code) + "\n")
    names = [f"c:{start}-{start + 300}" for start in range(0, 60_000, 300)]
    peaks = AnnData(np.zeros((1, 200)), var=pd.DataFrame(index=names))
    motifs = {f"F{k}": rng.integers(0, 20, (length, 4)) + 1.0 for k in range(12)}
    pvalue, clear = 4.5 / 4**length, 0
    hits = pp.scan_motifs(peaks, path, motifs, pvalue=pvalue)
    for name, counts in motifs.items():
        odds = np.log2(4 * (counts + 0.1) / (counts + 0.1).sum(1, keepdims=True))
        every = odds[0]
        for position in odds[1:]:
            every = (every[:, None] + position).ravel()
        windows = np.lib.stride_tricks.sliding_window_view(code, length)
        forward, backward = (odds[np.arange(length), one].sum(1) for one in (windows, 3 - windows[:, ::-1]))
        score = np.maximum(forward, backward)
        within = length * _motifs._BIN  # what a score and those it is counted among are rounded by together, at most
        found = []
        for itself, moved in ((0, -within), (1, within)):
            share = (len(every) - np.searchsorted(np.sort(every), score + moved) + itself) / len(every)
            found.append(np.array([(share[i : i + 301 - length] <= pvalue).any() for i in range(0, 60_000, 300)]))
        clear += (found[0] == found[1]).all()
        assert (hits[name] >= found[0]).all()
        assert (hits[name] <= found[1]).all()
    assert clear >= 6


def test_log_odds_are_on_the_grid_or_just_above():
    """None may be taken for the bin below, by which its word would be counted among more than score as high."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        counts = rng.integers(0, 20, (8, 4)) + 1.0
        exact = np.log2(4 * (counts + 0.1) / (counts + 0.1).sum(1, keepdims=True)) * 2**8
        found = np.log2(4 * _motifs._rounded_odds(counts)) * 2**8
        np.testing.assert_array_equal(np.floor(found), np.round(exact))
        assert (found - np.floor(found) < 0.05).all()


def test_factors_that_share_a_motif(genome):
    path, peaks, _ = genome
    one, two = 20 * np.eye(4)[[0, 1, 2, 3]], 20 * np.eye(4)[[3, 3, 1, 1]]
    alone = pp.scan_motifs(peaks, path, {"A": one, "B": two}, pvalue=0.005)
    joined = pp.scan_motifs(peaks, path, {"A::B": one, "B": two}, pvalue=0.005)
    np.testing.assert_array_equal(joined["A"], alone["A"])
    np.testing.assert_array_equal(joined["B"], alone["A"] | alone["B"])


@pytest.mark.parametrize("chunk", [1, 40, 10_000_000])
def test_both_strands_and_ends_of_peaks(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(_motifs, "_CHUNK_BASES", chunk)
    word = "ACGTTGCAAC"
    counts = 50 * np.eye(4)[[BASES.index(b) for b in word]]
    path = tmp_path / "g.fa"
    path.write_text(">c\n" + "T" * 20 + word + "T" * 20 + word.translate(COMPLEMENT)[::-1] + "T" * 20 + "\n")
    names = ["c:20-30", "c:21-40", "c:10-29", "c:50-60", "c:45-65", "c:0-20", "c:60-80"]
    hits = pp.scan_motifs(AnnData(np.zeros((1, 7)), var=pd.DataFrame(index=names)), path, {"F": counts}, pvalue=2e-6)
    assert hits["F"].tolist() == [True, False, False, True, True, False, False]


def test_unknown_bases_match_nothing(tmp_path):
    """A motif of twelve bases of which one is unknown, on either strand and at the end of a peak."""
    word = "ACGTTGCAAGCT"
    places = [word, word[:11] + "N", "N" + word[1:], word.translate(COMPLEMENT)[::-1], word[:6] + "n" + word[7:]]
    (tmp_path / "g.fa").write_text("".join(f">{k}\n{'T' * 20 + w + 'T' * 20}\n" for k, w in enumerate(places)))
    names = [f"{k}:{start}-{end}" for k in range(5) for start, end in ((0, 52), (15, 32))]
    peaks = AnnData(np.zeros((1, 10)), var=pd.DataFrame(index=names))
    counts = 100.0 * np.eye(4)[[BASES.index(base) for base in word]]
    hits = pp.scan_motifs(peaks, tmp_path / "g.fa", {"F": counts})
    assert hits["F"].tolist() == [True, True, False, False, False, False, True, True, False, False]


def test_packaged_collection(tmp_path, caplog):
    """The canonical site of CTCF on either strand, but not its complement read in the same direction."""
    path, site = tmp_path / "g.fa", "TGGCCACCAGGGGGCGCTA"
    texts = "CC" * 40 + "ACAGATTAGAA" + "CC" * 40, site, site.translate(COMPLEMENT)[::-1], site.translate(COMPLEMENT)
    path.write_text("".join(f">chr{k}\n{text}\n" for k, text in enumerate(texts, 1)))
    names = ["chr1:60-120", "chr1:100-160", "chr2:0-19", "chr3:0-19", "chr4:0-19"]
    peaks = AnnData(np.zeros((1, 5)), var=pd.DataFrame(index=names))
    with caplog.at_level("WARNING", "sparsenode"):
        hits = pp.scan_motifs(peaks, path)
    assert "too short to match" in caplog.text
    assert hits["GATA1"].tolist() == [True, False, False, False, False]
    assert hits["CTCF"].tolist() == [False, False, True, True, False]
    assert not any("::" in name for name in hits.columns)
    assert hits.shape[1] > 500
    latest = {factor for name, _ in _motifs._jaspar("JASPAR2024", 9606) for factor in name.split("::")}
    assert set(hits) == latest


def test_packaged_collection_by_species_and_without_variants():
    """Of the collection CORE alone, of all species that are given, with variants of a motif under the name of the factor."""
    both = {name for name, _ in _motifs._jaspar("JASPAR2020", [9606, 10090])}
    human, mouse = ({name for name, _ in _motifs._jaspar("JASPAR2020", species)} for species in (9606, 10090))
    assert both == human | mouse
    assert len(both) > max(len(human), len(mouse))
    assert "RARA" in human
    assert not any("(" in name for name in both)
    pyjaspar = pytest.importorskip("pyjaspar")
    found = pyjaspar.jaspardb(release="JASPAR2020").fetch_motifs(collection="UNVALIDATED", species=["9606"])
    others = {re.sub(r"\(.*", "", motif.name) for motif in found}
    core = pyjaspar.jaspardb(release="JASPAR2020").fetch_motifs(collection="CORE", species=["9606"])
    others -= {re.sub(r"\(.*", "", motif.name) for motif in core}
    assert others
    assert not others & human


def test_files_are_closed_after_an_error(genome, monkeypatch):
    pyfaidx = pytest.importorskip("pyfaidx")
    path, *_ = genome
    closed, close = [], pyfaidx.Faidx.__exit__
    monkeypatch.setattr(pyfaidx.Faidx, "__exit__", lambda self, *error: (closed.append(self), close(self, *error)))
    with pytest.raises(ValueError, match="chrX"):
        pp.scan_motifs(AnnData(np.zeros((1, 1)), var=pd.DataFrame(index=["chrX:5-10"])), path, {"F": np.ones((3, 4))})
    assert closed


def test_refuses_what_it_cannot_scan(genome):
    path, peaks, _ = genome
    counts = np.ones((3, 4))
    with pytest.raises(FileNotFoundError, match="FASTA"):
        pp.scan_motifs(peaks, "nowhere.fa", {"F": counts})
    with pytest.raises(ValueError, match=r"\['chrX'\]; the FASTA has \['chr1', 'chr2'\]"):
        pp.scan_motifs(AnnData(np.zeros((1, 1)), var=pd.DataFrame(index=["chrX:5-10"])), path, {"F": counts})
    with pytest.raises(ValueError, match=r"1 peaks are on others: \['chrX'\]"):
        pp.scan_motifs(
            AnnData(np.zeros((1, 2)), var=pd.DataFrame(index=["chr1:5-10", "chrX:5-10"])), path, {"F": counts}
        )
    with pytest.raises(ValueError, match="chr1:2990-3010 of 3000 bases"):
        pp.scan_motifs(AnnData(np.zeros((1, 1)), var=pd.DataFrame(index=["chr1:2990-3010"])), path, {"F": counts})
    with pytest.raises(ValueError, match="positions × 4, found"):
        pp.scan_motifs(peaks, path, {"F": np.ones((4, 3))})
    with pytest.raises(ValueError, match=r"non-negative and finite.*found \[0.0, 0.0, 0.0, 0.0\]"):
        pp.scan_motifs(peaks, path, {"F": np.zeros((3, 4))})
    with pytest.raises(ValueError, match=r"non-negative and finite.*found \[3.0, 1.0, 1.0, -1.0\]"):
        pp.scan_motifs(peaks, path, {"F": [[3, 1, 1, -1]]})
    with pytest.raises(ValueError, match="non-negative and finite"):
        pp.scan_motifs(peaks, path, {"F": [[3, 1, 1, np.inf]]})
    with pytest.raises(ValueError, match="JASPAR2024"):
        pp.scan_motifs(peaks, path, "JASPAR1999")
    with pytest.raises(ValueError, match=r"species \['1'\]"):
        pp.scan_motifs(peaks, path, species=1)
    with pytest.raises(ValueError, match="`pvalue`"):
        pp.scan_motifs(peaks, path, {"F": counts}, pvalue=0)
    with pytest.raises(ValueError, match=r"`pvalue` to be in \(0, 1\), found 1"):
        pp.scan_motifs(peaks, path, {"F": counts}, pvalue=1)
    with pytest.raises(ValueError, match="none of 1 matched"):
        pp.scan_motifs(peaks, path, {"F": 50 * np.eye(4)[[0] * 12]}, pvalue=1e-7)
    with pytest.raises(ValueError, match="release of JASPAR or counts"):
        pp.scan_motifs(peaks, path, {})


def test_says_what_to_install(genome, monkeypatch):
    path, peaks, _ = genome
    monkeypatch.setitem(sys.modules, "memelite", None)
    with pytest.raises(ImportError, match=r"sparsenode\[motifs\]"):
        pp.scan_motifs(peaks, path, {"F": np.ones((3, 4))})


def test_says_which_motifs_are_too_short(genome, caplog):
    """The best word of four positions has a share of 4 to the power of -4, that of five positions a smaller one."""
    path, peaks, sequences = genome
    motifs = {
        name: 20 * np.eye(4)[[BASES.index(base) for base in sequences[0][:n]]] for name, n in (("four", 4), ("five", 5))
    }
    with caplog.at_level("WARNING", "sparsenode"):
        pp.scan_motifs(peaks, path, motifs, pvalue=1 / 4**4)
    assert "too short" not in caplog.text
    with caplog.at_level("WARNING", "sparsenode"):
        pp.scan_motifs(peaks, path, motifs, pvalue=0.9 / 4**4)
    assert "1 motifs are too short" in caplog.text
    assert "['four']" in caplog.text


def test_coordinates_in_columns(tmp_path):
    """Of chromosomes that are numbers; intervals without a base are refused before the sequence is read."""
    path = tmp_path / "g.fa"
    path.write_text(">1\nTTTTACGATTTT\n")
    var = pd.DataFrame({"chrom": 1, "start": [0, 4], "end": [4, 9]}, index=["a", "b"])
    motifs = {"F": 20 * np.eye(4)[[0, 1, 2, 0]]}
    hits = pp.scan_motifs(AnnData(np.zeros((1, 2)), var=var), path, motifs, pvalue=0.005)
    assert hits["F"].to_dict() == {"a": False, "b": True}
    with pytest.raises(ValueError, match="1:4-4"):
        pp.scan_motifs(AnnData(np.zeros((1, 2)), var=var.assign(end=4)), path, motifs)


def test_tables_of_counts_are_read_by_their_columns(genome):
    path, peaks, _ = genome
    counts = np.random.default_rng(3).dirichlet([0.3] * 4, 6) * 100
    expected = pp.scan_motifs(peaks, path, {"TF": counts}, pvalue=1e-2)
    table = pd.DataFrame(counts, columns=list(BASES))[list("TGCA")]
    pd.testing.assert_frame_equal(pp.scan_motifs(peaks, path, {"TF": table}, pvalue=1e-2), expected)


@pytest.mark.parametrize("columns", [list("tgca"), list("ACGU"), [1, 2, 3, 4], "transposed"], ids=str)
def test_tables_of_counts_with_other_columns(genome, columns):
    """They would be taken for A, C, G and T in the order in which they stand."""
    counts = np.ones((4, 4))
    table = pd.DataFrame(counts, list(BASES)) if columns == "transposed" else pd.DataFrame(counts, columns=columns)
    with pytest.raises(
        ValueError, match=r"counts of 'TF' to have the columns \['A', 'C', 'G', 'T'\], found .*Rename or transpose"
    ):
        pp.scan_motifs(*genome[1::-1], {"TF": table})
    assert _motifs._check_counts({"TF": pd.DataFrame(counts)})[0][1].shape == (4, 4)


def test_chunks_are_cut_by_what_they_take_when_padded(genome, monkeypatch):
    """A single long peak does not widen all others."""
    path, peaks, words = genome
    monkeypatch.setattr(_motifs, "_CHUNK_BASES", 200)
    found = list(_motifs._chunks(_motifs.peak_coordinates(peaks), path))
    assert len(found) > 5
    assert all(len(sequences) == 1 or len(sequences) * max(map(len, sequences)) <= 200 for _, sequences in found)
    assert sorted(np.concatenate([positions for positions, _ in found])) == list(range(peaks.n_vars))
    assert all(words[i] == text for positions, texts in found for i, text in zip(positions, texts, strict=True))


def test_peaks_are_an_anndata(genome):
    with pytest.raises(TypeError, match="Expected `peaks` to be an AnnData object, found DataFrame"):
        pp.scan_motifs(genome[1].var, genome[0], {"TF": np.ones((6, 4))})


def test_no_peaks(genome):
    with pytest.raises(ValueError, match="Expected peaks in `peaks`, found none"):
        pp.scan_motifs(genome[1][:, :0], genome[0], {"TF": np.ones((6, 4))})
