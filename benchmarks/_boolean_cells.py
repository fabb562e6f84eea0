"""Single cells of Boolean networks: stochastic mRNA and protein kinetics in the manner of BoolODE, one cell a trajectory.

Regulators act through Hill functions of their proteins, activators joined by "or", repressors by "and not". Constants are those of
BoolODE (Pratapa et al. 2020): transcription 20, decay of mRNA 10, translation 10, decay of protein 1, threshold 10, exponent 10, and
noise in proportion to the square root of each amount.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

_TRANSCRIPTION, _MRNA_DECAY, _TRANSLATION, _PROTEIN_DECAY, _THRESHOLD, _HILL = 20.0, 10.0, 10.0, 1.0, 10.0, 10
_STEP = 0.01
_MAX_LINEAGES = 5


@dataclass
class BooleanNetwork:
    """Regulators of every gene, by position, and where cells start and stop."""

    n_genes: int
    end: float
    activators: dict[int, list[int]] = field(default_factory=dict)
    repressors: dict[int, list[int]] = field(default_factory=dict)
    on: tuple[int, ...] = ()
    branches: bool = False  # whether cells end in several states, which become lineages

    def add(self, source: int, target: int, sign: int) -> None:
        """Add an edge, unless there is one."""
        known = self.activators.get(target, []) + self.repressors.get(target, [])
        if source not in known:
            (self.activators if sign > 0 else self.repressors).setdefault(target, []).append(source)

    def edges(self) -> pd.DataFrame:
        """Long table ``source, target, weight`` with signs as weights."""
        rows = [
            (f"g{source}", f"g{target}", sign)
            for sign, table in ((1.0, self.activators), (-1.0, self.repressors))
            for target, sources in table.items()
            for source in sources
        ]
        return pd.DataFrame(rows, columns=["source", "target", "weight"])

    def activity(self, protein: np.ndarray) -> np.ndarray:
        """Share of full transcription of every gene: cells × genes."""
        bound = protein**_HILL / (_THRESHOLD**_HILL + protein**_HILL)
        result = np.ones_like(protein)
        for target, sources in self.activators.items():
            result[:, target] = 1.0 - np.prod(1.0 - bound[:, sources], axis=1)
        for target, sources in self.repressors.items():
            result[:, target] *= np.prod(1.0 - bound[:, sources], axis=1)
        return result


def simulate(
    network: BooleanNetwork, n_cells: int, seed: int, off: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """mRNA of every cell, cells × genes, when it is sampled, and that time; genes that are off are never transcribed."""
    rng = np.random.default_rng(seed)
    times = rng.uniform(0.0, network.end, n_cells)
    allowed = np.isin(np.arange(network.n_genes), off, invert=True).astype(float)
    mrna = np.tile(np.isin(np.arange(network.n_genes), network.on) * allowed, (n_cells, 1))
    protein = mrna * _TRANSLATION / _PROTEIN_DECAY
    sampled = mrna.copy()
    for step in range(1, int(round(network.end / _STEP)) + 1):
        made = _TRANSCRIPTION * network.activity(protein) * allowed, _TRANSLATION * mrna
        noise = np.sqrt(_STEP) * rng.standard_normal((2, *mrna.shape))
        mrna = np.maximum(mrna + _STEP * (made[0] - _MRNA_DECAY * mrna) + np.sqrt(mrna) * noise[0], 0.0)
        protein = np.maximum(protein + _STEP * (made[1] - _PROTEIN_DECAY * protein) + np.sqrt(protein) * noise[1], 0.0)
        now = (times > (step - 1) * _STEP) & (times <= step * _STEP)
        sampled[now] = mrna[now]
    return sampled, times


def cells(network: BooleanNetwork, n_cells: int, seed: int) -> AnnData:
    """Cells with a noisy pseudotime, and with lineages by the state that they are in or next to."""
    mrna, times = simulate(network, n_cells, seed)
    names = [f"cell{i}" for i in range(n_cells)]
    error = 0.05 if network.branches else 0.02
    pseudotime = times + error * network.end * np.random.default_rng([seed, 1]).standard_normal(n_cells)
    adata = AnnData(
        mrna.astype(np.float32),
        obs=pd.DataFrame({"pseudotime": pseudotime}, index=names),
        var=pd.DataFrame(index=[f"g{i}" for i in range(network.n_genes)]),
    )
    member = _lineages(mrna, times / network.end) if network.branches else np.ones((n_cells, 1), dtype=bool)
    adata.obsm["lineages"] = pd.DataFrame(member, index=names).add_prefix("lineage")
    return adata


def _lineages(mrna: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Members of each lineage, cells × lineages: the cells nearest to its end state, and all of the first quarter."""
    late = mrna[share > 0.6]

    def fit(k: int) -> KMeans:
        return KMeans(k, n_init=3, random_state=0).fit(late)

    best = max(range(2, _MAX_LINEAGES + 1), key=lambda k: silhouette_score(late, fit(k).labels_))
    member = np.eye(best, dtype=bool)[fit(best).predict(mrna)]
    member[share < 0.25] = True
    return member


def chain(n: int, end: float) -> BooleanNetwork:
    """Every gene activates the next; the last represses the first."""
    network = BooleanNetwork(n, end, on=(0,))
    for gene in range(1, n):
        network.add(gene - 1, gene, 1)
    network.add(n - 1, 0, -1)
    return network


def cycle(n: int, end: float) -> BooleanNetwork:
    """A ring with two repressions, which oscillates."""
    network = BooleanNetwork(n, end)
    for gene in range(n):
        network.add((gene - 1) % n, gene, -1 if gene in (0, n // 2) else 1)
    return network


def bifurcation(n: int, end: float) -> BooleanNetwork:
    """A driver, two genes of which one wins, and a chain behind each of them."""
    network = BooleanNetwork(n, end, on=(0,), branches=True)
    for source, target, sign in (
        (0, 1, 1),
        (1, 2, 1),
        (1, 3, 1),
        (2, 2, 1),
        (3, 3, 1),
        (2, 3, -1),
        (3, 2, -1),
        (2, 0, -1),
    ):
        network.add(source, target, sign)
    for gene in range(4, n):
        network.add(gene - 2, gene, 1)
    return network


def repressions(n: int, seed: int, end: float) -> BooleanNetwork:
    """Pairs that repress each other, and half as many repressions at random; all genes start on."""
    rng = np.random.default_rng(seed)
    network = BooleanNetwork(n, end, on=tuple(range(n)), branches=True)
    for gene in range(0, n - 1, 2):
        network.add(gene, gene + 1, -1)
        network.add(gene + 1, gene, -1)
    for _ in range(n // 2):
        target, source = rng.choice(n, 2, replace=False)
        network.add(int(source), int(target), -1)
    return network


def random(n: int, seed: int, end: float) -> BooleanNetwork:
    """One to three regulators a gene, three of five activate; the first draw whose genes move."""

    def draw(rng: np.random.Generator) -> BooleanNetwork:
        network = BooleanNetwork(n, end, on=tuple(np.flatnonzero(rng.random(n) < 0.3).tolist()))
        for target in range(n):
            others = np.delete(np.arange(n), target)
            for source in rng.choice(others, rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]), replace=False):
                network.add(int(source), target, 1 if rng.random() < 0.6 else -1)
        return network

    return _first(draw, seed, 0.75)


def attractors(n: int, seed: int, end: float) -> BooleanNetwork:
    """Pairs that activate themselves and repress each other, and one or two regulators a gene at random."""

    def draw(rng: np.random.Generator) -> BooleanNetwork:
        network = BooleanNetwork(n, end, on=tuple(np.flatnonzero(rng.random(n) < 0.35).tolist()), branches=True)
        genes = rng.permutation(n).tolist()
        for first, second in zip(genes[: n // 2 : 2], genes[1 : n // 2 : 2], strict=False):
            for source, target, sign in (
                (first, first, 1),
                (second, second, 1),
                (first, second, -1),
                (second, first, -1),
            ):
                network.add(source, target, sign)
        for target in range(n):
            others = np.delete(np.arange(n), target)
            for source in rng.choice(others, rng.choice([1, 2]), replace=False):
                network.add(int(source), target, 1 if rng.random() < 0.65 else -1)
        return network

    return _first(draw, seed, 0.85)


def myeloid(edges: pd.DataFrame, end: float) -> BooleanNetwork:
    """The network of Krumsiek et al. (2011) from its signed edges, in the order in which genes are named there."""
    genes = pd.unique(edges[["source", "target"]].to_numpy().ravel()).tolist()
    start = tuple(genes.index(gene) for gene in ("Gata2", "Cebpa", "Pu.1"))
    network = BooleanNetwork(len(genes), end, on=start, branches=True)
    for source, target, weight in edges[["source", "target", "weight"]].itertuples(index=False):
        network.add(genes.index(source), genes.index(target), int(np.sign(weight)))
    return network


def _first(draw: Callable[[np.random.Generator], BooleanNetwork], seed: int, share: float) -> BooleanNetwork:
    """The first network of which that share of the genes varies."""
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        network = draw(rng)
        mrna, _ = simulate(network, 200, 0)
        if (mrna.std(axis=0) > 0.35).mean() >= share:
            return network
    raise RuntimeError(f"Expected a network of {network.n_genes} genes that vary, found none for seed {seed}.")
