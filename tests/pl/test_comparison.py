from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

import sparsenode as sn
from sparsenode.pl._common import PALETTE


@pytest.fixture
def runs() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        [
            (method, donor, seed)
            for method in ("pathreg", "cnode", "none")
            for donor in ("d2", "d1")
            for seed in range(4)
        ],
        columns=["method", "donor", "seed"],
    )
    return table.assign(mse=generator.uniform(1, 2, 24), skill=generator.normal(size=24))


def bars(axis: Axes) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Means, places and half lengths of the bars, by group."""
    result = []
    for container in axis.containers:
        assert isinstance(container, ErrorbarContainer)
        x, y = container.lines[0].get_data()
        segments = np.array(container.lines[2][0].get_segments())
        result.append((np.asarray(x, float), np.asarray(y, float), np.ptp(segments[:, :, 0], axis=1) / 2))
    return result


def test_methods_in_the_index_of_compared_networks():
    network = pd.DataFrame({"source": list("abca"), "target": list("bcac"), "weight": [1.0, 0.5, 0.2, -0.3]})
    scores = sn.tl.compare_networks(
        {"ours": network, "theirs": network.assign(weight=[0.1, 0.2, 0.3, 0.4])}, network.head(2)
    )
    axis = sn.pl.comparison(scores, "auprc_ratio")
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ours", "theirs"]
    np.testing.assert_array_equal(axis.lines[0].get_xdata(), scores["auprc_ratio"])
    assert "method" not in scores
    with pytest.raises(KeyError, match=r"\['method'\] not found"):  # numbers of rows are no methods
        sn.pl.comparison(scores.reset_index(drop=True), "auprc_ratio")


def test_structure(runs):
    axes = sn.pl.comparison(runs, ["mse", "skill"], labels={"mse": "error (m²)"}, reference={"skill": 0.0})
    assert [axis.get_xlabel() for axis in axes] == ["error (m²)", "skill"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["pathreg", "cnode", "none"]
    low, high = axes[0].get_ylim()
    assert low > high  # the first method is the uppermost
    for axis, measure in zip(axes, ("mse", "skill"), strict=True):
        ((means, places, half),) = bars(axis)
        grouped = runs.groupby("method", sort=False)[measure]
        np.testing.assert_allclose(means, grouped.mean())
        np.testing.assert_allclose(half, grouped.std())
        np.testing.assert_array_equal(places, [0, 1, 2])
        ticks = axis.lines[0]
        np.testing.assert_array_equal(ticks.get_xdata(), runs[measure])
        np.testing.assert_array_equal(ticks.get_ydata(), np.repeat([0, 1, 2], 8))
    reference = [line.get_xdata() for line in axes[1].lines if line.get_linestyle() == "--"]
    np.testing.assert_array_equal(reference, [[0, 0]])
    assert not [line for line in axes[0].lines if line.get_linestyle() == "--"]
    assert axes[0].get_legend() is None
    both = sn.pl.comparison(runs, ["mse", "skill"], reference={"skill": 0.0, "mse": 1.5})
    marked = [[line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"] for axis in both]
    assert marked == [[1.5], [0.0]]


def test_measures_are_not_taken_for_mathematics_but_labels_are(runs):
    runs = runs.rename(columns={"mse": "$\\frac$"})
    axes = sn.pl.comparison(runs, ["$\\frac$", "skill"], labels={"skill": "$R^2$"})
    axes[0].figure.canvas.draw()
    assert [axis.xaxis.label.get_parse_math() for axis in axes] == [False, True]


def test_groups_are_not_taken_for_mathematics(runs):
    runs = runs.rename(columns={"donor": "$\\frac$"}).replace({"d1": "$\\frac$"})
    figure, given = plt.subplots()
    for axis in (None, given):
        drawn = sn.pl.comparison(runs, "mse", groupby="$\\frac$", ax=axis)
        drawn.figure.canvas.draw()
    assert figure.axes == [given]


def test_groups(runs):
    axis = sn.pl.comparison(runs, "mse", groupby="donor")
    found = bars(axis)
    assert len(found) == 2
    for (means, places, _), donor, color in zip(found, ("d2", "d1"), PALETTE, strict=False):
        expected = runs[runs["donor"] == donor].groupby("method", sort=False)["mse"].mean()
        np.testing.assert_allclose(means, expected)
        np.testing.assert_array_equal(np.round(places), [0, 1, 2])
        container = next(c for c in axis.containers if c.get_label() == donor)
        assert to_hex(container.lines[0].get_color()) == color.lower()
    assert (found[0][1] < found[1][1]).all()
    assert axis.get_legend() is None  # above all panels, so that none is moved
    _, given = plt.subplots()
    sn.pl.comparison(runs, "mse", groupby="donor", ax=given)
    for legend in (axis.get_figure().legends[0], given.get_legend()):
        assert [text.get_text() for text in legend.get_texts()] == ["d2", "d1"]
        assert legend.get_title().get_text() == "donor"


def test_more_groups_than_the_palette_holds():
    names = [f"g{i}" for i in range(11)]
    axis = sn.pl.comparison(pd.DataFrame({"method": "a", "mse": 1.0, "donor": names}), "mse", groupby="donor")
    colors = {to_hex(container.lines[0].get_color()) for container in axis.containers}
    assert len(colors) == len(names)


def test_categories_give_the_order(runs):
    runs["method"] = pd.Categorical(runs["method"], categories=["none", "other", "cnode", "pathreg"])
    axis = sn.pl.comparison(runs, "mse")
    assert [label.get_text() for label in axis.get_yticklabels()] == ["none", "cnode", "pathreg"]
    np.testing.assert_allclose(bars(axis)[0][0][0], runs.loc[runs["method"] == "none", "mse"].mean())


@pytest.mark.parametrize("column", ["method", "donor"])
@pytest.mark.parametrize("categorical", [False, True])
def test_names_that_are_dates(runs, column, categorical):
    """As text they are days, to which pandas may add hours."""
    days = dict(zip(runs[column].unique(), pd.to_datetime(["2024-05-03", "2024-05-01", "2024-05-02"]), strict=False))
    dated = runs[column].map(days)
    dated = runs.assign(**{column: dated.astype("category") if categorical else dated})
    axis = sn.pl.comparison(dated, "mse", groupby="donor")
    names = {
        "method": [label.get_text() for label in axis.get_yticklabels()],
        "donor": [text.get_text() for text in axis.figure.legends[0].get_texts()],
    }[column]
    written = [f"{day:%Y-%m-%d}" for day in days.values()]
    assert [name.removesuffix(" 00:00:00") for name in names] == (sorted(written) if categorical else written)
    np.testing.assert_allclose(
        sorted(mean for found, _, _ in bars(axis) for mean in found),
        sorted(runs.groupby(["method", "donor"])["mse"].mean()),
    )


def test_another_column_and_missing_values(runs):
    runs = runs.rename(columns={"method": "penalty"})
    runs.loc[runs["penalty"] == "cnode", "mse"] = np.nan
    ((means, places, _),) = bars(sn.pl.comparison(runs, "mse", method="penalty"))
    np.testing.assert_array_equal(places, [0, 2])
    np.testing.assert_allclose(means, runs.groupby("penalty", sort=False)["mse"].mean().dropna())


def test_one_run_of_a_method(runs):
    axis = sn.pl.comparison(runs[(runs["seed"] == 0) & (runs["donor"] == "d1")], "mse")
    np.testing.assert_array_equal(bars(axis)[0][2], [0, 0, 0])


def test_names_stand_at_the_left_panel_only(runs):
    axes = sn.pl.comparison(runs, ["mse", "skill"])
    assert [label.get_text() for label in axes[1].get_yticklabels()] == ["", "", ""]
    figure, grid = plt.subplots(1, 2)
    given = sn.pl.comparison(runs, ["mse", "skill"], ax=grid)
    assert given == list(grid)
    assert [label.get_text() for label in grid[1].get_yticklabels()] == ["pathreg", "cnode", "none"]
    assert sn.pl.comparison(runs, "mse", ax=grid[0], return_fig=True) is figure
    with pytest.raises(ValueError, match="2 axes, one per panel, found 1"):
        sn.pl.comparison(runs, ["mse", "skill"], ax=grid[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"measures": "mae"}, KeyError, r"\['mae'\] not found in"),
        ({"measures": []}, KeyError, "no measure"),
        ({"measures": "mse", "method": "penalty"}, KeyError, r"\['penalty'\] not found in"),
        ({"measures": "mse", "groupby": "site"}, KeyError, r"\['site'\] not found in"),
        (
            {"measures": "text"},
            TypeError,
            "numbers in the column 'text' of `table`, found 'failed' in row 3 and 1 such",
        ),
        (
            {"measures": "mse", "reference": 0},
            TypeError,
            r"`reference` to be a dictionary by measure, .*'mse': .*found 0",
        ),
        ({"measures": "mse", "labels": "error"}, TypeError, "`labels` to be a dictionary by measure.*found 'error'"),
        ({"measures": ["mse", "nothing"]}, ValueError, r"none for \['nothing'\]"),
    ],
    ids=str,
)
def test_errors(runs, arguments, error, message):
    with pytest.raises(error, match=message):
        sn.pl.comparison(runs.assign(nothing=np.nan, text=["1.5", None, 2, "failed", *["1"] * 20]), **arguments)


def test_rows_without_a_place_are_refused(runs):
    no_donor = runs.assign(donor=runs["donor"].where(runs["seed"] > 0))
    with pytest.raises(ValueError, match="`donor` in every row of `table`, found none in 6 of 24 rows"):
        sn.pl.comparison(no_donor, "mse", groupby="donor")
    sn.pl.comparison(no_donor, "mse")
    with pytest.raises(ValueError, match=r"infinite ones in \['mse'\]"):
        sn.pl.comparison(runs.assign(mse=runs["mse"].where(runs["seed"] > 0, np.inf)), ["skill", "mse"])


def test_show(runs, shown):
    assert isinstance(sn.pl.comparison(runs, "mse", show=False), Axes)
    assert isinstance(sn.pl.comparison(runs, "mse", return_fig=True), Figure)
    assert shown() == 0
    assert sn.pl.comparison(runs, "mse", show=True) is None
    assert shown() == 1


def test_long_names_leave_room_for_the_panels():
    names = ["sparsenode, trained on two donors of bone marrow", "b"]
    axes = sn.pl.comparison(pd.DataFrame({"method": names, "mse": [1.0, 0.8], "auroc": [0.5, 0.6]}), ["mse", "auroc"])
    figure = axes[0].figure
    figure.canvas.draw()
    assert all(axis.get_window_extent().width / figure.dpi > 1.5 for axis in axes)


@pytest.mark.parametrize("n_groups", [4, 5, 9])
def test_legends_of_many_groups_lie_within_the_figure(n_groups, is_within):
    groups = [f"donor {i}" for i in range(n_groups)]
    runs = pd.DataFrame({"method": ["a", "b"] * n_groups, "donor": np.repeat(groups, 2), "mse": range(2 * n_groups)})
    figure = sn.pl.comparison(runs, "mse", groupby="donor", return_fig=True)
    assert is_within(figure)
    assert figure.axes[0].get_window_extent().height > 0.14 * n_groups * 2 * figure.dpi
    assert {text.get_text() for text in figure.legends[0].get_texts()} == set(groups)


@pytest.mark.parametrize(("style", "color"), [("default", "#f2f2f2"), ("dark_background", "#262626")])
def test_bands_are_near_the_background(runs, style, color):
    with plt.style.context(style):
        axis = sn.pl.comparison(runs, "mse")
    assert {to_hex(band.get_facecolor()) for band in axis.patches} == {color}
