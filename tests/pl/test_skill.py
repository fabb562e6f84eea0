from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import sparsenode as sn


@pytest.fixture
def scores() -> pd.DataFrame:
    """As ``model.evaluate()`` returns them: one row better than all null models, one worse, one much worse."""
    table = pd.DataFrame(
        {
            "n_cells": [3, 4, 5],
            "mse": [0.5, 2.0, 30.0],
            "null_zero": [2.0, 9.0, 6.0],
            "null_mean": [1.0, 1.0, 3.0],
        },
        index=pd.Index(["a", "b", "total"], name="trajectory"),
    )
    table["skill"] = 1 - table["mse"] / table[["null_zero", "null_mean"]].min(axis=1)
    return table


def points(axis: Axes) -> dict[str, np.ndarray]:
    """Ratios by label, from the first row down."""
    lines = {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
    return {name: np.asarray(line.get_xdata())[np.argsort(line.get_ydata())[::-1]] for name, line in lines.items()}


def test_structure(scores):
    axis = sn.pl.skill(scores)
    found = points(axis)
    assert set(found) == {"model", "zero", "mean"}
    np.testing.assert_allclose(found["model"], 1 - scores["skill"])
    np.testing.assert_allclose(found["mean"], [1, 1, 1])
    rows = dict(zip((label.get_text() for label in axis.get_yticklabels()), axis.get_yticks(), strict=True))
    assert sorted(rows, key=lambda name: -rows[name]) == ["a", "b", "total"]  # the total is the lowest row
    texts = [text.get_text() for text in axis.texts]
    assert texts == ["error", "skill", "0.50", "+0.50", "2.0", "-1.00", "30.", "-9.00"]
    for text, name in zip(axis.texts[3::2], rows, strict=True):
        assert text.xy[1] == rows[name]
    assert "best null model" in axis.get_xlabel()
    assert axis.get_xscale() == "log"
    axis.figure.canvas.draw()
    assert {"1", "2"} <= {label.get_text() for label in axis.get_xticklabels()}


def test_far_null_models_stand_at_the_edge(scores):
    axis = sn.pl.skill(scores.iloc[:2])
    high = axis.get_xlim()[1]
    assert 4 < high < 9
    (arrow,) = [text for text in axis.texts if text.get_text() == "→"]
    assert arrow.xy == (high, 0)  # the second row
    assert "off the scale" in axis.get_xlabel()
    model = next(line for line in axis.lines if line.get_label() == "model")
    null = next(line for line in axis.lines if line.get_label() == "mean")
    assert (model.get_markerfacecolor(), null.get_zorder() > model.get_zorder()) == ("white", True)
    np.testing.assert_allclose(points(axis)["zero"], [2.0, high])
    np.testing.assert_allclose(points(sn.pl.skill(scores))["zero"], [2.0, 9.0, 2.0])  # the model is further


def test_null_models_at_the_edge_stand_above_each_other(scores):
    scores["null_mean"], scores["null_zero"], scores["mse"] = 1.0, 50.0, 0.9
    scores["null_other"] = 70.0
    axis = sn.pl.skill(scores)
    zero, other = (next(line for line in axis.lines if line.get_label() == name) for name in ("zero", "other"))
    np.testing.assert_array_equal(zero.get_xdata(), other.get_xdata())
    np.testing.assert_allclose(other.get_ydata() - zero.get_ydata(), 0.22)
    np.testing.assert_allclose((other.get_ydata() + zero.get_ydata()) / 2, [2.0, 1.0, 0.0], atol=1e-12)


def test_very_large_errors_are_legible(scores):
    scores["mse"] = [1.0, 2e6, 3e12]
    axis = sn.pl.skill(scores)
    axis.figure.canvas.draw()
    texts = [text for text in axis.texts if text.get_text() not in ("→", "error", "skill")]
    boxes = [text.get_window_extent() for text in texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_any_null_models(scores):
    scores["null_persistence"] = scores["null_linear"] = 0.1
    found = points(sn.pl.skill(scores))
    assert set(found) == {"model", "zero", "mean", "persistence", "linear"}
    np.testing.assert_allclose(found["persistence"], 1.0)


def test_of_a_fit(cells):
    axis = sn.pl.skill(cells)
    stored = cells.uns["sparsenode"]
    table = stored.get("held_out_scores", stored["scores"])
    np.testing.assert_allclose(points(axis)["model"], 1 - table["skill"], rtol=1e-6)
    assert [label.get_text() for label in axis.get_yticklabels()] == list(table.index)


def test_evaluation_of_a_model(fitted):
    table = fitted.evaluate()
    np.testing.assert_allclose(points(sn.pl.skill(table))["model"], 1 - table["skill"], rtol=1e-6)


def test_many_trajectories():
    table = pd.DataFrame({"mse": np.linspace(1, 2, 300), "null_mean": 1.5}, index=[f"t{i}" for i in range(300)])
    axis = sn.pl.skill(table)
    assert len(points(axis)["model"]) == 300
    assert len(axis.get_yticklabels()) <= 80
    assert len(axis.texts) == 0
    assert axis.figure.get_size_inches()[1] < 30


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mse": None}, KeyError, "`mse`.*found"),
        ({"null_zero": None, "null_mean": None}, KeyError, "`null_…`"),
        ({"mse": np.nan}, ValueError, "finite, positive"),
        ({"null_mean": 0.0}, ValueError, "finite, positive errors in `scores`, found \\['.*Leave out"),
    ],
    ids=str,
)
def test_errors(scores, change, error, message):
    table = scores.drop(columns=[name for name, value in change.items() if value is None])
    table = table.assign(**{name: value for name, value in change.items() if value is not None})
    with pytest.raises(error, match=message):
        sn.pl.skill(table)


def test_more_errors(scores, adata):
    with pytest.raises(TypeError, match=r"table of `model.evaluate\(\)`.*found str"):
        sn.pl.skill("sparsenode")
    with pytest.raises(ValueError, match="found none"):
        sn.pl.skill(scores.iloc[:0])
    with pytest.raises(KeyError, match=r"adata.uns\['sparsenode'\]"):
        sn.pl.skill(adata)


def test_given_axes_and_show(scores, shown):
    figure, axis = plt.subplots()
    assert sn.pl.skill(scores, ax=axis) is axis
    assert sn.pl.skill(scores, ax=axis, return_fig=True) is figure
    assert isinstance(sn.pl.skill(scores, return_fig=True), Figure)
    assert shown() == 0
    assert sn.pl.skill(scores, show=True) is None
    assert shown() == 1


@pytest.mark.parametrize("n_nulls", [1, 4, 5, 11])
def test_rows_of_the_legend_are_as_full_as_each_other(scores, n_nulls):
    """In second order there is one entry more than fits a row, which stood alone in the next."""
    table = scores[["mse"]].assign(**{f"null_{k}": 1.0 for k in range(n_nulls)})
    legend = sn.pl.skill(table).get_legend()
    legend.figure.canvas.draw()
    heights = [round(text.get_window_extent().y0) for text in legend.get_texts()]
    counts = pd.Series(heights).value_counts()
    assert counts.max() <= 5
    assert counts.max() - counts.min() <= 1


def test_long_names_leave_room(scores):
    """The legend and the numbers lie within the figure, and the axis keeps its width."""
    scores.index = [f"Megakaryocyte–erythroid progenitors, donor{k}" for k in range(3)]
    axis = sn.pl.skill(scores)
    figure = axis.figure
    figure.canvas.draw()
    for box in (axis.get_legend().get_window_extent(), *(text.get_window_extent() for text in axis.texts)):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert axis.get_window_extent().width > 2 * figure.dpi


@pytest.mark.parametrize("width", [3.2, 6.4])
def test_numbers_and_legend_lie_within_given_axes(scores, width):
    """The neighbours of these axes begin at their right."""
    for name in ("null_persistence", "null_linear"):
        scores[name] = 3.0
    scores["null_zero"] *= 100.0  # off the scale
    figure, axis = plt.subplots(figsize=(width, 4.0))
    sn.pl.skill(scores, ax=axis)
    figure.canvas.draw()
    frame = axis.get_window_extent()
    for box in (text.get_window_extent() for text in (axis.get_legend(), axis.xaxis.label, *axis.texts)):
        assert frame.x0 - 1 <= box.x0 < box.x1 <= frame.x1 + 1
    texts = [text for text in axis.texts if text.get_text() != "→"]
    boxes = [text.get_window_extent() for text in texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    right = max(line.get_window_extent().x1 for line in axis.lines if line.get_label() in ("model", "zero"))
    assert all(box.x0 > right for box in boxes)
    places = axis.transData.transform([(tick, 0) for tick in axis.get_xticks()])[:, 0]
    assert (places < min(box.x0 for box in boxes)).all()


@pytest.mark.usefixtures("looks_of_scanpy")
def test_large_letters_lie_within_the_figure(scores, is_within):
    """The label of the scale is in two lines then, and the ring of the model is left of its name."""
    scores.loc["a", "null_zero"] = 100.0  # off the scale, as the label says
    axis = sn.pl.skill(scores)
    assert is_within(axis.figure)
    assert axis.get_xlabel().count("\n") == 1
    handles, texts = axis.get_legend().legend_handles, axis.get_legend().get_texts()
    ring = handles[-1].get_window_extent()
    assert ring.x1 < texts[-1].get_window_extent().x0


def test_the_label_of_the_scale_is_in_one_line_where_it_fits(scores):
    assert "\n" not in sn.pl.skill(scores).get_xlabel()
