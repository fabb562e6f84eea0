from __future__ import annotations

import itertools
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import sparsenode as sn
from sparsenode.pl._common import PALETTE


def simulation(n_genes: int = 6, trajectories: tuple[str, ...] = ("erythroid", "monocyte")) -> SimpleNamespace:
    """Gene i changes by i at the last time, up where i is even, and half as much in the next trajectory."""
    times = np.linspace(2.0, 4.0, 9) * (1.0 + 0.5 * np.arange(len(trajectories)))[:, None]
    generator = np.random.default_rng(0)
    baseline = generator.normal(size=(len(trajectories), 9, n_genes))
    change = np.arange(n_genes) * np.where(np.arange(n_genes) % 2 == 0, 1, -1)
    share = 0.5 ** np.arange(len(trajectories))
    states = baseline + share[:, None, None] * np.linspace(0, 1, 9)[:, None] * change
    genes = [f"g{i}" for i in range(n_genes)]
    effects = pd.DataFrame(itertools.product(trajectories, genes), columns=["start", "gene"])
    return SimpleNamespace(times=times, effects=effects, perturbed=states, unperturbed=baseline)


def test_structure():
    run = simulation()
    effects, *courses = sn.pl.intervention(run)
    assert [label.get_text() for label in effects.get_yticklabels()] == ["g5", "g4", "g3", "g2", "g1"]
    dots = [line for line in effects.lines if line.get_marker() == "o"]
    low, high = effects.get_ylim()
    assert low > high  # the largest is the uppermost
    assert [to_hex(line.get_color()) for line in dots] == [PALETTE[0].lower(), PALETTE[1].lower()]
    np.testing.assert_allclose(dots[0].get_xdata(), [-5, 4, -3, 2, -1], atol=1e-12)
    np.testing.assert_allclose(dots[1].get_xdata(), [-2.5, 2, -1.5, 1, -0.5], atol=1e-12)
    assert [axis.get_title() for axis in courses] == ["g5", "g4", "g3"]
    for axis, gene in zip(courses, (5, 4, 3), strict=True):
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("time since the start", "value\n(units of the data)")
        for k in range(2):
            for line, values, style in (
                (axis.lines[2 * k], run.unperturbed, "--"),
                (axis.lines[2 * k + 1], run.perturbed, "-"),
            ):
                np.testing.assert_array_equal(line.get_xdata(), run.times[k])
                np.testing.assert_array_equal(line.get_ydata(), values[k, :, gene])
                assert line.get_linestyle() == style
                assert to_hex(line.get_color()) == PALETTE[k].lower()
    (legend,) = effects.figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["intervention", "unperturbed", "erythroid", "monocyte"]


def test_no_effects():
    run = simulation()
    run.perturbed = run.unperturbed
    axes = sn.pl.intervention(run)
    assert [text.get_text() for text in axes[0].texts] == ["no effects"]
    assert not axes[0].lines


def test_chosen_genes_and_trajectories():
    run = simulation()
    axes = sn.pl.intervention(run, genes="g1", trajectories="monocyte", n_top=2, colors={"monocyte": "#123456"})
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["g5", "g4"]
    np.testing.assert_allclose(axes[0].lines[1].get_xdata(), [-2.5, 2])
    assert to_hex(axes[0].lines[1].get_color()) == "#123456"
    (baseline, states) = axes[1].lines
    np.testing.assert_array_equal(states.get_ydata(), run.perturbed[1, :, 1])
    assert to_hex(states.get_color()) == to_hex(baseline.get_color()) == "#123456"
    assert [t.get_text() for t in axes[0].figure.legends[0].get_texts()] == ["intervention", "unperturbed"]


def test_genes_are_ranked_by_their_largest_effect_in_any_trajectory():
    run = simulation(2)
    run.perturbed[:, -1] = run.unperturbed[:, -1] + [[2.0, 3.0], [2.0, 0.0]]
    assert [label.get_text() for label in sn.pl.intervention(run)[0].get_yticklabels()] == ["g1", "g0"]


def test_many_genes():
    effects, *courses = sn.pl.intervention(simulation(300, ("all",)))
    assert [label.get_text() for label in effects.get_yticklabels()][:2] == ["g299", "g298"]
    assert len(effects.get_yticklabels()) == 20
    assert len(courses) == 3
    assert len(sn.pl.intervention(simulation(1, ("all",)))) == 2


def test_held_genes_are_left_out_unless_they_are_named():
    run = simulation()
    run.effects["held"] = run.effects["gene"].isin(["g5", "g3"])
    effects, *courses = sn.pl.intervention(run, n_top=3)
    assert [label.get_text() for label in effects.get_yticklabels()] == ["g4", "g2", "g1"]
    np.testing.assert_allclose(effects.lines[1].get_xdata(), [4, 2, -1], atol=1e-12)
    assert [axis.get_title() for axis in courses] == ["g4", "g2", "g1"]
    assert sn.pl.intervention(run, genes="g5")[1].get_title() == "g5"
    run.effects["held"] = True
    assert not isinstance(sn.pl.intervention(run), list)  # the empty panel of effects


@pytest.mark.parametrize(("n", "named"), [(10, 10), (20, 0)])
def test_many_starts_differ_in_colour(n, named):
    axes = sn.pl.intervention(simulation(3, tuple(f"c{i}" for i in range(n))))
    assert len({to_hex(line.get_color()) for line in axes[1].lines}) == n
    assert len(axes[0].figure.legends[0].get_texts()) == 2 + named


def test_legend_of_long_names_lies_within_the_figure():
    names = tuple(f"Megakaryocyte–erythroid progenitors, donor{k}" for k in range(9))
    figure = sn.pl.intervention(simulation(6, names), return_fig=True)
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0 < legend.x1 <= figure.bbox.x1
    assert figure.bbox.y0 <= legend.y0
    assert legend.y1 <= min(axis.get_tightbbox().y0 for axis in figure.axes)


def test_given_axes_and_show(shown):
    figure, grid = plt.subplots(1, 3)
    assert sn.pl.intervention(simulation(), genes=["g1", "g2"], ax=grid) == list(grid)
    assert grid[2].get_legend() is not None
    assert figure.legends == []
    with pytest.raises(ValueError, match="4 axes, one per panel, found 3"):
        sn.pl.intervention(simulation(), ax=grid)
    assert isinstance(sn.pl.intervention(simulation(), return_fig=True), Figure)
    assert shown() == 0
    assert sn.pl.intervention(simulation(), show=True) is None
    assert shown() == 1


def test_takes_what_the_model_simulates(fitted):
    result = fitted.simulate(knockout="gene0")
    effects, course = sn.pl.intervention(result, genes="gene1", trajectories=fitted.trajectories.index[1])
    assert len(effects.get_yticklabels()) == len(fitted.genes) - 1
    np.testing.assert_array_equal(course.lines[1].get_ydata(), result.perturbed[1, :, 1])
    np.testing.assert_array_equal(course.lines[0].get_ydata(), result.unperturbed[1, :, 1])


def test_errors():
    with pytest.raises(ValueError, match=r"`genes` to name some of \['g0'.*found \['SOX2'\]"):
        sn.pl.intervention(simulation(), genes="SOX2")
    with pytest.raises(ValueError, match=r"`trajectories` to name some of.*found \['lymphoid'\]"):
        sn.pl.intervention(simulation(), trajectories="lymphoid")
    with pytest.raises(ValueError, match="`n_top` to be an integer of at least 1, found 0"):
        sn.pl.intervention(simulation(), n_top=0)
    with pytest.raises(TypeError, match=r"result of `model.simulate\(knockout=…\)`, found DataFrame"):
        sn.pl.intervention(simulation().effects)
    run = simulation()
    run.perturbed = run.perturbed[:, :-1]
    with pytest.raises(ValueError, match=r"\(2, 9, 6\).*found \(2, 8, 6\), \(2, 9, 6\) and \(2, 9\)"):
        sn.pl.intervention(run)
    run = simulation()
    run.times = run.times[0]
    with pytest.raises(ValueError, match=r"`times` as starts × times, found .* and \(1, 9\)"):
        sn.pl.intervention(run)


def test_dollar_signs_are_no_mathematics(tmp_path):
    """A name that is no valid mathematics would fail when it is drawn."""
    run = simulation(2)
    run.effects["gene"] = run.effects["gene"].map({"g0": "$\\frac$", "g1": "a$b^c$"})
    figure = sn.pl.intervention(run, return_fig=True)
    figure.savefig(tmp_path / "names.png")
    titles = [axis.title for axis in figure.axes[1:]]
    assert [title.get_text() for title in titles] == ["a$b^c$", "$\\frac$"]
    assert not any(title.get_parse_math() for title in titles)


def test_colors_of_trajectories_that_are_not_there():
    with pytest.raises(ValueError, match=r"`colors` to name some of .*found \['monocytes'\]"):
        sn.pl.intervention(simulation(), colors={"monocytes": "red"})


def test_a_single_time_is_drawn_as_dots():
    """A line needs two."""
    run = simulation()
    run.times, run.perturbed, run.unperturbed = run.times[:, -1:], run.perturbed[:, -1:], run.unperturbed[:, -1:]
    for axis in sn.pl.intervention(run)[1:]:
        assert [line.get_marker() for line in axis.lines] == ["o"] * 4
        assert [line.get_markerfacecolor() == "none" for line in axis.lines] == [True, False] * 2
    assert {line.get_marker() for axis in sn.pl.intervention(simulation())[1:] for line in axis.lines} == {"None"}


@pytest.mark.parametrize("genes", [None, ["g5"]], ids=["three courses", "one course"])
@pytest.mark.parametrize("longer", ["|ENSG00000123456.7|ENST0001234", "|ENSG00000123456.7|ENST00000123456.7"])
def test_long_titles_lie_within_the_figure(is_within, longer, genes):
    """Also where the names beside the effects leave little room for the panels."""
    run = simulation()
    run.effects["gene"] = [gene + longer for gene in run.effects["gene"]]
    assert is_within(sn.pl.intervention(run, genes=genes and [gene + longer for gene in genes], return_fig=True))


@pytest.mark.usefixtures("looks_of_scanpy")
def test_labels_in_the_letters_of_scanpy_lie_within_the_figure(is_within):
    assert is_within(sn.pl.intervention(simulation(trajectories=tuple("abcdefgh")), return_fig=True))
