from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes

import sparsenode as sn


def cells(strengths: list[float]) -> AnnData:
    """Results with a path over these strengths, and nothing else."""
    rising = np.linspace(0, 1, len(strengths))
    names = ["train_error", "validation_error", "validation_se", "feature_sparsity", "weight_sparsity"]
    table = pd.DataFrame(dict.fromkeys(names, rising) | {"strength": strengths, "spurious_sparsity": np.nan})
    stored = {"trajectories": {}, "regularization_path": table, "parameters": {"selected_replicate": 1}}
    return AnnData(np.zeros((1, 1)), uns={"sparsenode": stored})


def labels(axis: Axes) -> list[str]:
    """What is written along the strengths once the figure is drawn, large ticks and small."""
    axis.figure.canvas.draw()
    texts = [*axis.get_xticklabels(), *axis.get_xticklabels(minor=True)]
    return [text.get_text() for text in texts if text.get_text()]


@pytest.mark.parametrize("strengths", [[0.03, 0.1, 0.3], [0.1, 0.12, 0.15, 0.2], [0.0, 0.0123, 0.5]], ids=str)
def test_strengths_are_named(strengths):
    for axis in sn.pl.regularization_path(cells(strengths)):
        assert labels(axis) == [f"{strength:g}" for strength in strengths]


def test_names_of_many_strengths_do_not_touch():
    strengths = np.geomspace(1e-3, 10, 25)
    for axis in sn.pl.regularization_path(cells(list(strengths))):
        assert 4 <= len(labels(axis)) < 25
        boxes = [text.get_window_extent() for text in axis.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))
        ticks = np.sort([*axis.get_xticks(), *axis.get_xticks(minor=True)])
        np.testing.assert_allclose(ticks, strengths)
