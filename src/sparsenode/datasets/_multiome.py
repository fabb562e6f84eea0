"""Simulated differentiation with expression, accessibility and a known network."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from sparsenode import _checks
from sparsenode.datasets._multiome_genome import Gene, annotation_table, lay_out

_LINEAGES = {
    "erythroid": ["stem", "early_erythroid", "late_erythroid"],
    "myeloid": ["stem", "early_myeloid", "late_myeloid"],
}
_TYPES = list(dict.fromkeys(name for types in _LINEAGES.values() for name in types))
_BOUNDARIES = (0.3, 0.65)  # times at which cell types change
_SWITCH = 0.05  # width of a change, in the same units
_SHIFT = 0.04  # factors of a programme differ by at most this
_LAG = 0.04  # lifetime of the messenger RNA of targets
_GRID = 400
_FACTORS, _TARGETS = 3, 12  # of every cell type
_IDLE_FACTORS = 10  # expressed everywhere
_REGIONS = ("promoter", "exon", "intron", "distal")
_DISTRACTORS = ("closed", "other_cell_type", "constitutive", "no_motif")
_FAR = 0.2  # share of the genes with an enhancer out of reach
_CLOSED, _OPEN = 0.02, 0.8  # fragments of a peak in a cell
_BASE, _FOLD = 0.5, 12.0  # expression of a gene without its factors, and how much they raise it
_DISPERSION = 0.1
_MOTIF_RATE = 0.03  # share of peaks with the motif of a factor by chance


@dataclass(eq=False)
class _Design:
    """What is true of genes and peaks.

    Parameters
    ----------
    factors, targets
        Factors of every cell type, and the genes that they regulate, factors among them.
    regulators
        Factors of every target.
    peaks
        Rows of chrom, start, end, kind, and cell type in which the peak is open, ``""`` for none and ``"all"`` for all.
    motifs
        Factors with a motif in the peak, for every peak.
    edges
        Rows of source, target, peak, cell type, region and whether it is within reach.
    """

    factors: dict[str, list[str]]
    targets: dict[str, list[str]]
    regulators: dict[str, list[str]] = field(default_factory=dict)
    peaks: list[tuple] = field(default_factory=list)
    motifs: list[set[str]] = field(default_factory=list)
    edges: list[tuple] = field(default_factory=list)

    def add(self, interval: tuple[str, int, int], kind: str, opened: str, motifs: set[str]) -> str:
        """Add a peak; returns its name."""
        self.peaks.append((*interval, kind, opened))
        self.motifs.append(motifs)
        return peak_name(interval)


def peak_name(interval: tuple[str, int, int]) -> str:
    """Name of a peak, ``chr1:100-600``."""
    return f"{interval[0]}:{interval[1]}-{interval[2]}"


def simulated_multiome(
    n_cells: int = 900,
    n_background_genes: int = 225,
    n_background_peaks: int = 600,
    n_donors: int = 2,
    seed: int = 0,
) -> MuData:
    r"""Counts of genes and peaks of cells that differentiate into two fates, with the network behind them.

    Stem cells become erythroid or myeloid, each through an early and a late cell type. Every cell type has a programme: three transcription
    factors that switch on and off with it, and twelve genes, each regulated by one to three of these factors,

    .. math:: \frac{dx_i}{dt} = \frac{1}{\tau} \Big( \frac{1}{|R_i|} \sum_{j \in R_i} u_j(t) - x_i \Big),

    with the activity :math:`u_j` of the factor, the regulators :math:`R_i` and the lag :math:`\tau`.

    - The expression of a factor follows its own activity. Its regulators show in chromatin and motifs, but not in expression.
    - Every regulator has a motif in an enhancer of the gene that is open in the cell type of the programme: in the promoter, an exon, an
      intron or up to 190 kb away.
    - Counts are negative binomial for genes and Poisson for peaks, with library sizes that differ between cells and donors.

    Misleading on purpose are

    - peaks near regulated genes with motifs of their factors that are closed, open in another cell type, or open everywhere,
    - open peaks without such motifs, and motifs of other factors by chance,
    - factors with motifs that are expressed everywhere,
    - background genes and peaks, and enhancers that are too far away to be assigned.

    Parameters
    ----------
    n_cells
        Number of cells, at least 100. Default: 900.
    n_background_genes
        Number of genes in addition to the 75 regulated ones and the 10 factors that are expressed everywhere. Default: 225.
    n_background_peaks
        Number of peaks near background genes. Default: 600.
    n_donors
        Number of donors, which differ in sequencing depth. Default: 2.
    seed
        Seed; the same seed gives the same data.

    Returns
    -------
    Modalities ``rna`` and ``atac`` of the same cells, with counts in ``.X``, and

    - ``.obs`` of both: ``cell_type`` and ``donor``; of ``rna`` also ``true_time``, from 0 to 1, and ``true_lineage``, the fate of the cell,
    - ``mdata["rna"].var["is_tf"]``: genes with a motif,
    - ``mdata["atac"].var``: ``chrom``, ``start`` and ``end``, 0-based and half-open, and ``kind``: ``enhancer``, ``far``, ``background``,
      or what misleads,
    - ``mdata["atac"].varm["motifs"]``: peaks × factors, true where there is a motif,
    - ``mdata.uns["annotation"]``: genes, transcripts and exons, in the form of :func:`sparsenode.pp.read_annotation`,
    - ``mdata.uns["lineages"]``: cell types of every lineage,
    - ``mdata.uns["true_network"]``: ``source``, ``target``, ``peak``, ``cell_type``, ``region``, and ``recoverable``, which is false for
      enhancers too far away. An edge is listed once for every peak. About 15 % of the edges (13 to 19 % in thirty seeds) point to
      factors, and do not show in expression: to score a network from expression, leave them out of both.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    The genes of a programme are expressed together, and no factor represses. Real data are harder in every respect.

    Examples
    --------
    >>> import sparsenode as sn
    >>> mdata = sn.datasets.simulated_multiome()
    >>> mdata.uns["true_network"].query("recoverable").head()
    """
    for name, value, least in (
        ("n_cells", n_cells, 100),
        ("n_background_genes", n_background_genes, 0),
        ("n_background_peaks", n_background_peaks, 0),
        ("n_donors", n_donors, 1),
        ("seed", seed, 0),
    ):
        _checks.at_least(name, value, least)
    if n_background_peaks > 0 and n_background_genes < n_background_peaks / 20:
        raise ValueError(
            f"Expected a background gene for every 20 background peaks, found {n_background_genes} genes for "
            f"{n_background_peaks} peaks. Raise `n_background_genes`."
        )
    generator = np.random.default_rng(seed)
    factors = {name: [f"TF_{name}_{k}" for k in range(_FACTORS)] for name in _TYPES}
    targets = {name: factors[name] + [f"{name}_{k}" for k in range(_TARGETS)] for name in _TYPES}
    idle = [f"TF_idle_{k}" for k in range(_IDLE_FACTORS)]
    background = [f"background_{k}" for k in range(n_background_genes)]
    names = [*(gene for genes in targets.values() for gene in genes), *idle, *background]
    genome = lay_out(names, generator)
    design = _Design(factors, targets)
    _place_enhancers(design, genome, generator)
    _place_distractors(design, genome, idle, generator)
    _place_background(design, genome, background, n_background_peaks, generator)
    motifs = _motif_table(design, [*(f for own in factors.values() for f in own), *idle], generator)
    cells = _draw_cells(n_cells, n_donors, generator)
    rna, atac = _draw_expression(design, names, cells, generator), _draw_accessibility(design, cells, generator)
    rna.var["is_tf"] = rna.var_names.isin(motifs.columns)
    atac.varm["motifs"] = motifs
    mdata = _bundle({"rna": rna, "atac": atac})
    mdata.uns["annotation"] = annotation_table(genome)
    mdata.uns["lineages"] = {name: list(types) for name, types in _LINEAGES.items()}
    columns = ["source", "target", "peak", "cell_type", "region", "recoverable"]
    mdata.uns["true_network"] = pd.DataFrame(design.edges, columns=columns)
    return mdata


def _place_enhancers(design: _Design, genome: dict[str, Gene], generator: np.random.Generator) -> None:
    """Regulators of every gene of a programme, each with a motif in an open enhancer."""
    for cell_type, targets in design.targets.items():
        for target in targets:
            others = [name for name in design.factors[cell_type] if name != target]
            chosen = list(generator.choice(others, generator.integers(1, len(others) + 1), replace=False))
            far = []
            if len(chosen) > 1 and generator.random() < _FAR:
                far = [chosen.pop()]
            design.regulators[target] = [str(name) for name in [*chosen, *far]]
            for region, sources in [(str(generator.choice(_REGIONS)), [source]) for source in chosen] + [("far", far)]:
                if not sources:
                    continue
                kind = "far" if region == "far" else "enhancer"
                if not genome[target].free[region]:
                    region = "distal"
                peak = design.add(genome[target].take(region), kind, cell_type, set(map(str, sources)))
                design.edges += [(str(s), target, peak, cell_type, region, kind == "enhancer") for s in sources]


def _place_distractors(
    design: _Design, genome: dict[str, Gene], idle: list[str], generator: np.random.Generator
) -> None:
    """Peaks near regulated genes that support no edge: one of every kind."""
    for cell_type, targets in design.targets.items():
        others = [name for name in _TYPES if name != cell_type]
        for target in targets:
            motif = {str(generator.choice([name for name in design.factors[cell_type] if name != target]))}
            opened = {
                "closed": "",
                "other_cell_type": str(generator.choice(others)),
                "constitutive": "all",
                "no_motif": cell_type,
            }
            for kind in _DISTRACTORS:
                motifs = {str(generator.choice(idle))} if kind == "no_motif" else motif
                region = str(generator.choice(["intron", "distal"]))
                design.add(genome[target].take(region), kind, opened[kind], motifs)


def _place_background(
    design: _Design, genome: dict[str, Gene], genes: list[str], n_peaks: int, generator: np.random.Generator
) -> None:
    for k in range(n_peaks):
        opened = str(generator.choice(["", "all", *_TYPES]))
        design.add(genome[genes[k % len(genes)]].take("distal"), "background", opened, set())


def _motif_table(design: _Design, factors: list[str], generator: np.random.Generator) -> pd.DataFrame:
    """Peaks × factors: the motifs of the design, and others by chance where they support no edge."""
    hits = generator.random((len(design.peaks), len(factors))) < _MOTIF_RATE
    owner = np.array([name.removeprefix("TF_").rsplit("_", 1)[0] for name in factors])
    for row, (_, _, _, kind, opened) in enumerate(design.peaks):
        if kind not in {"background", "closed", "constitutive"}:
            hits[row, owner == opened] = False  # would be a true edge by all that can be observed
        hits[row, [factors.index(name) for name in design.motifs[row]]] = True
    names = [peak_name(peak[:3]) for peak in design.peaks]
    return pd.DataFrame(hits, index=names, columns=factors)


def _draw_cells(n_cells: int, n_donors: int, generator: np.random.Generator) -> pd.DataFrame:
    """Time, fate, cell type and donor of every cell."""
    times = generator.uniform(size=n_cells)
    stage = np.searchsorted(_BOUNDARIES, times)
    fates = generator.choice(list(_LINEAGES), n_cells)
    types = [_LINEAGES[fate][step] for fate, step in zip(fates, stage, strict=True)]
    donors = generator.integers(n_donors, size=n_cells)
    return pd.DataFrame(
        {
            "cell_type": pd.Categorical(types, categories=_TYPES),
            "donor": pd.Categorical([f"donor{k}" for k in donors], categories=[f"donor{k}" for k in range(n_donors)]),
            "true_time": times,
            "true_lineage": pd.Categorical(fates, categories=list(_LINEAGES)),
        },
        index=[f"cell{k}" for k in range(n_cells)],
    )


def activity(times: np.ndarray, stage: int, shift: float = 0.0) -> np.ndarray:
    """Activity of the programme of a stage: one within its times, zero outside, smooth in between."""
    result = np.ones_like(times)
    if stage > 0:
        result = result / (1 + np.exp(-(times - shift - _BOUNDARIES[stage - 1]) / _SWITCH))
    if stage < len(_BOUNDARIES):
        result = result / (1 + np.exp((times - shift - _BOUNDARIES[stage]) / _SWITCH))
    return result


def follow(drive: np.ndarray, step: float) -> np.ndarray:
    r"""Solution of :math:`\tau \dot x = u - x` on a grid, from the steady state of its first value."""
    decay = np.exp(-step / _LAG)
    result = np.empty_like(drive)
    result[0] = drive[0]
    for k in range(1, len(drive)):
        result[k] = decay * result[k - 1] + (1 - decay) * drive[k - 1]
    return result


def _draw_expression(design: _Design, names: list[str], cells: pd.DataFrame, generator: np.random.Generator) -> AnnData:
    """Negative binomial counts of genes."""
    grid = np.linspace(0, 1, _GRID)
    fold = np.zeros((len(cells), len(names)))
    for cell_type, targets in design.targets.items():
        fates = [fate for fate, types in _LINEAGES.items() if cell_type in types]
        member = cells["true_lineage"].isin(fates).to_numpy()
        stage = _LINEAGES[fates[0]].index(cell_type)
        shifts = generator.uniform(-_SHIFT, _SHIFT, len(design.factors[cell_type]))
        drives = {f: activity(grid, stage, s) for f, s in zip(design.factors[cell_type], shifts, strict=True)}
        for gene in targets:
            drive = np.mean([drives[name] for name in design.regulators[gene]], axis=0)
            curve = drives[gene] if gene in drives else follow(drive, grid[1])
            level = np.interp(cells["true_time"].to_numpy()[member], grid, curve)
            fold[member, names.index(gene)] = _FOLD * level
    mean = _BASE * generator.lognormal(0, 0.4, len(names)) * (1 + fold)
    rates = mean * _depths(cells, generator)[:, None] * generator.gamma(1 / _DISPERSION, _DISPERSION, mean.shape)
    counts = sparse.csr_matrix(generator.poisson(rates).astype(np.float32))
    return AnnData(counts, obs=cells.copy(), var=pd.DataFrame(index=names))


def _draw_accessibility(design: _Design, cells: pd.DataFrame, generator: np.random.Generator) -> AnnData:
    """Poisson counts of fragments in peaks."""
    table = pd.DataFrame(design.peaks, columns=["chrom", "start", "end", "kind", "opened"])
    table.index = pd.Index([peak_name(peak[:3]) for peak in design.peaks])
    times, fates = cells["true_time"].to_numpy(), cells["true_lineage"].to_numpy()
    state = {"": np.zeros(len(cells)), "all": np.ones(len(cells))}
    for fate, types in _LINEAGES.items():
        for stage, cell_type in enumerate(types):
            own = (fates == fate) | (stage == 0)
            state[cell_type] = activity(times, stage) * own
    opened = np.stack([state[name] for name in table.pop("opened")], axis=1)
    rates = (_CLOSED + (_OPEN - _CLOSED) * opened) * _depths(cells, generator)[:, None]
    counts = sparse.csr_matrix(generator.poisson(rates).astype(np.float32))
    return AnnData(counts, obs=cells[["cell_type", "donor"]].copy(), var=table.astype({"kind": "category"}))


def _depths(cells: pd.DataFrame, generator: np.random.Generator) -> np.ndarray:
    """Sequencing depth of every cell, around one."""
    donor = cells["donor"].cat.codes.to_numpy()
    donors = generator.lognormal(0, 0.2, donor.max() + 1)
    return generator.lognormal(0, 0.25, len(cells)) * donors[donor]


def _bundle(modalities: dict[str, AnnData]) -> MuData:
    """Modalities without columns of their own in the whole, which mudata before 0.4 copies there and warns about it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        mdata = MuData(modalities)
        mdata.obs, mdata.var = pd.DataFrame(index=mdata.obs_names), pd.DataFrame(index=mdata.var_names)
    return mdata
