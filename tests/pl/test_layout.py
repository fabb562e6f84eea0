"""Places of nodes: nothing overlaps, whatever the graph."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsenode.pl._layout import LAYOUTS, _pack, arrange, separate


def overlaps(centres: np.ndarray, boxes: np.ndarray) -> int:
    """Pairs of boxes that share more than an edge, counted one by one."""
    low, high = centres - boxes / 2, centres + boxes / 2
    pairs = [(i, j) for i in range(len(boxes)) for j in range(i)]
    return sum(bool((np.minimum(high[i], high[j]) - np.maximum(low[i], low[j]) > 0.1).all()) for i, j in pairs)


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), n=st.integers(2, 40), layout=st.sampled_from(list(LAYOUTS)))
def test_nothing_overlaps(seed, n, layout):
    generator = np.random.default_rng(seed)
    graph = nx.DiGraph()
    for gene in range(n):
        graph.add_edge(f"g{gene}", f"g{(gene + generator.integers(1, n)) % n}")
    boxes = generator.uniform(10, 60, size=(len(graph), 2))
    centres, size = arrange(graph, layout, boxes)
    assert overlaps(centres, boxes) == 0
    assert (centres - boxes / 2 >= -1e-9).all()
    assert (centres + boxes / 2 <= size + 1e-9).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_components_are_apart(layout):
    graph = nx.DiGraph([("a", "b"), ("b", "c"), ("d", "e"), ("f", "g"), ("h", "g")])
    boxes = np.tile([30.0, 20.0], (8, 1))
    centres, _ = arrange(graph, layout, boxes)
    places = dict(zip(graph, centres, strict=True))
    parts = [np.array([places[name] for name in names]) for names in ("abc", "de", "fgh")]
    for i, first in enumerate(parts):
        for second in parts[:i]:
            gap = np.maximum(first.min(0) - second.max(0), second.min(0) - first.max(0)) - boxes[0]
            assert gap.max() > 5


def test_pairs_are_horizontal():
    centres, _ = arrange(nx.DiGraph([("a", "b")]), "spring", np.tile([30.0, 20.0], (2, 1)))
    assert abs(centres[0, 1] - centres[1, 1]) < 1e-6
    assert abs(centres[0, 0] - centres[1, 0]) > 40


def test_same_graph_same_places():
    graph = nx.gnp_random_graph(20, 0.1, seed=0, directed=True)
    boxes = np.full((20, 2), 20.0)
    np.testing.assert_array_equal(*(arrange(graph, "spring", boxes)[0] for _ in range(2)))


def test_separate_moves_nothing_that_is_apart():
    points = np.array([[0.0, 0.0], [30.0, 0.0], [0.0, 30.0]])
    np.testing.assert_array_equal(separate(points, np.full((3, 2), 25.0)), points)


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), n=st.integers(2, 25), width=st.sampled_from([30.0, 90.0, 160.0]))
def test_edges_are_seen_between_long_names(seed, n, width):
    generator = np.random.default_rng(seed)
    graph = nx.DiGraph()
    for gene in range(n):
        graph.add_edge(f"g{gene}", f"g{(gene + generator.integers(1, n)) % n}")
    boxes = np.tile([width, 22.0], (len(graph), 1))
    centres, _ = arrange(graph, "spring", boxes)
    index = {name: i for i, name in enumerate(graph)}
    for one, other in graph.edges:
        points = np.linspace(centres[index[one]], centres[index[other]], 2001)
        outside = np.ones(2001, dtype=bool)
        for end in (one, other):
            outside &= (np.abs(points - centres[index[end]]) > boxes[0] / 2).any(1)
        assert outside.mean() * np.linalg.norm(points[-1] - points[0]) > 10


def test_separate_coinciding_points():
    points = separate(np.zeros((6, 2)), np.full((6, 2), 10.0))
    assert overlaps(points, np.full((6, 2), 10.0)) == 0


def test_no_wide_strip_is_empty_between_hubs():
    """Two hubs that share one target: the layout pushes them far apart."""
    graph = nx.DiGraph([(hub, f"{hub}{i}") for hub in "ab" for i in range(40)] + [("a", "c"), ("b", "c")])
    boxes = np.tile([40.0, 25.0], (len(graph), 1))
    centres, _ = arrange(graph, "spring", boxes)
    assert overlaps(centres, boxes) == 0
    assert np.diff(np.sort(centres[:, 0])).max() <= 45 + 40
    assert np.diff(np.sort(centres[:, 1])).max() <= 45 + 25


def test_small_components_fill_the_room_beside_large_ones():
    sizes = np.array([[200.0, 200.0], *[[60.0, 25.0]] * 12])
    corners = _pack(sizes)
    assert overlaps(corners + sizes / 2, sizes) == 0
    span = (corners + sizes).max(0)
    assert sizes.prod(1).sum() > 0.6 * span.prod()
