"""Where nodes of a graph go so that neither they nor their labels overlap. Lengths are in points."""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx
import numpy as np

LAYOUTS: dict[str, Callable[[nx.Graph], dict[str, np.ndarray]]] = {
    "spring": lambda graph: nx.spring_layout(graph, weight=None, seed=0, iterations=300),
    "kamada_kawai": lambda graph: nx.kamada_kawai_layout(graph, weight=None),
}
_DISTANCE = 55.0  # of the median node to its nearest, before boxes are moved apart
_ROOM = 5.0  # area over that of all boxes, at most, before boxes are moved apart
_GAP = 14.0  # between components
_VISIBLE = 14.0  # length of an edge outside of the boxes that it connects, at least
_EMPTY = 45.0  # widest empty strip across a component
_ASPECT = 1.5  # width over height of all components
_MAX_PASSES = 1000


def arrange(graph: nx.DiGraph, layout: str, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the nodes' boxes, components apart from each other.

    Parameters
    ----------
    graph
        Graph, of whose edges only the ends matter.
    layout
        Key of ``LAYOUTS``.
    boxes
        Width and height of every node with its label, nodes × 2.

    Returns
    -------
    Centres, nodes × 2, in the order of the nodes, and width and height of what they span, boxes included.
    """
    undirected, names = graph.to_undirected(), list(graph)
    index = {name: i for i, name in enumerate(names)}
    parts = nx.connected_components(undirected)
    # In the order of the graph: sets of names differ between runs, and layouts follow the order of nodes.
    members = sorted((sorted(index[name] for name in part) for part in parts), key=lambda part: (-len(part), part[0]))
    blocks = [_component(undirected, layout, [names[i] for i in part], boxes[part]) for part in members]
    corners = _pack(np.array([size for _, size in blocks]))
    centres = np.zeros((len(names), 2))
    for part, (points, _), corner in zip(members, blocks, corners, strict=True):
        centres[part] = points + corner
    return centres, (centres + boxes / 2).max(0)


def _component(graph: nx.Graph, layout: str, names: list[str], boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres in one component, whose boxes start at 0, and its width and height."""
    part: nx.Graph = nx.Graph()
    part.add_nodes_from(names)
    part.add_edges_from((a, b) for a, b in graph.edges(names))
    found = LAYOUTS[layout](part)
    points = np.array([found[name] for name in names])
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    nearest = np.median(np.where(np.eye(len(names)) == 0, distances, np.inf).min(1))
    points = _turn(points)
    width, height = np.ptp(points, axis=0)
    area = width * max(height, width / 2)  # long ones count as if they were less so
    scale = min(_DISTANCE / nearest, np.sqrt(_ROOM * boxes.prod(1).sum() / area))
    index = {name: i for i, name in enumerate(names)}
    edges = np.array([(index[a], index[b]) for a, b in part.edges if a != b], dtype=np.int64).reshape(-1, 2)
    points = _close_strips(separate(points * scale, boxes, edges), boxes)
    low = (points - boxes / 2).min(0)
    return points - low, (points + boxes / 2).max(0) - low


def _turn(points: np.ndarray) -> np.ndarray:
    """Turn the longest axis to the horizontal, in which labels are longest too."""
    centred = points - points.mean(0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    axis = axis if axis[0] >= 0 else -axis
    return centred @ np.array([axis, [-axis[1], axis[0]]]).T


def separate(points: np.ndarray, boxes: np.ndarray, edges: np.ndarray | None = None) -> np.ndarray:
    """Move centres of boxes apart, as little as it takes, until no two boxes overlap and edges are seen between them.

    Parameters
    ----------
    points
        Centres, n × 2.
    boxes
        Width and height, n × 2.
    edges
        Pairs of boxes that are connected, m × 2.
    """
    points, needed = points.copy(), (boxes[:, None] + boxes[None]) / 2
    edges = np.empty((0, 2), dtype=np.int64) if edges is None else edges
    for _ in range(_MAX_PASSES):
        difference = points[:, None] - points[None]
        overlap = needed - np.abs(difference)
        clash = (overlap > 0.01).all(2)
        np.fill_diagonal(clash, False)
        longer = _lengthen(points, boxes, edges)
        if not clash.any() and not longer.any():
            break
        along_x = overlap[..., 0] < overlap[..., 1]
        push = np.where(np.stack([along_x, ~along_x], 2) & clash[..., None], overlap, 0.0)
        points += 0.5 * (push * _sign(difference)).sum(1) / np.maximum(clash.sum(1), 1)[:, None] + longer
    return points


def _lengthen(points: np.ndarray, boxes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Where to move centres so that enough of every edge lies outside of the boxes at its ends, n × 2."""
    moves, counts = np.zeros_like(points), np.zeros(len(points))
    along = points[edges[:, 1]] - points[edges[:, 0]]
    length = np.linalg.norm(along, axis=1)
    # Share of the edge within the box of either end
    within = (boxes[edges] / 2 / np.maximum(np.abs(along), 1e-9)[:, None]).min(2).sum(1)
    lack = _VISIBLE - length * (1.0 - within)
    short = (lack > 0.5) & (length > 0)
    step = (0.25 * lack / np.maximum(length, 1e-9))[short, None] * along[short]
    for end, sign in ((0, -1.0), (1, 1.0)):
        np.add.at(moves, edges[short, end], sign * step)
        np.add.at(counts, edges[short, end], 1.0)
    return moves / np.maximum(counts, 1.0)[:, None]


def _sign(difference: np.ndarray) -> np.ndarray:
    """Sign, antisymmetric where points coincide: the later one goes up and to the right."""
    order = np.arange(len(difference))
    tie = np.sign(order[:, None] - order[None])[..., None]
    return np.where(difference == 0, tie, np.sign(difference))


def _close_strips(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Narrow the empty strips that run across all boxes, upright or level, so that no two boxes come to overlap."""
    points = points.copy()
    for axis in (0, 1):
        order = np.argsort(points[:, axis] - boxes[:, axis] / 2)
        low = (points - boxes / 2)[order, axis]
        reached = np.maximum.accumulate((points + boxes / 2)[order, axis])
        excess = np.maximum(low[1:] - reached[:-1] - _EMPTY, 0.0)
        points[order[1:], axis] -= np.cumsum(excess)
    return points


def _pack(sizes: np.ndarray) -> np.ndarray:
    """Lower left corners of rectangles, each as high up as it fits beneath those before, the leftmost such place."""
    width = max(sizes[:, 0].max(), np.sqrt(_ASPECT * (sizes + _GAP).prod(1).sum()))
    corners, padded = np.zeros_like(sizes), sizes + _GAP  # y runs down until the end
    for i, size in enumerate(sizes):
        left, top = corners[:i, 0], corners[:i, 1]
        starts = np.unique(np.append(left + padded[:i, 0], 0.0))
        starts = starts[(starts + size[0] <= width) | (starts == 0)]
        above = (left < starts[:, None] + padded[i, 0]) & (starts[:, None] < left + padded[:i, 0])
        depth = np.where(above, top + padded[:i, 1], 0.0).max(1, initial=0.0)
        corners[i] = starts[depth.argmin()], depth.min()
    corners[:, 1] = (corners[:, 1] + sizes[:, 1]).max() - corners[:, 1] - sizes[:, 1]
    return corners
