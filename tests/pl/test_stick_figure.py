from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import sparse

import sparsenode as sn
from sparsenode.pl._common import PALETTE

GREY, BLUE, ORANGE = to_hex("0.65"), PALETTE[0].lower(), PALETTE[1].lower()
JOINTS = ["root", "knee", "head"]


@pytest.fixture
def motion() -> AnnData:
    """Two trials of ten frames of three joints; the root walks along x. The columns are in no order."""
    generator = np.random.default_rng(0)
    x = generator.uniform(0.5, 1.0, (20, 3, 3))
    x[:, :, 0] += np.arange(20)[:, None]
    names = [f"{joint}_{axis}" for joint in JOINTS for axis in "xyz"]
    var = pd.DataFrame({"joint": np.repeat(JOINTS, 3), "axis": np.tile(list("xyz"), 3)}, index=names)
    obs = pd.DataFrame(
        {"time": np.tile(np.arange(10) / 10, 2), "trial": pd.Categorical(["b"] * 10 + ["a"] * 10)},
        index=[f"f{i}" for i in range(20)],
    )
    adata = AnnData(x.reshape(20, 9), obs, var)
    adata.uns["skeleton"] = pd.DataFrame({"parent": ["root", "root"], "child": ["knee", "head"], "length": [1.0, 1.0]})
    return adata[:, generator.permutation(9)].copy()


def frames(axis: Axes) -> dict[str, list[np.ndarray]]:
    """Bones of the figures, bones × ends × 2, by colour."""
    result: dict[str, list[np.ndarray]] = {}
    for collection in axis.collections:
        (color,) = {to_hex(color) for color in collection.get_colors()}
        result.setdefault(color, []).append(np.array(collection.get_segments()))
    return result


def coordinates(adata: AnnData, values: np.ndarray, joint: str) -> np.ndarray:
    return np.stack([values[:, adata.var_names.get_loc(f"{joint}_{axis}")] for axis in "xyz"], axis=1)


def test_observed_frames(motion):
    axis = sn.pl.stick_figure(motion, n_frames=4, azimuth=0.0)
    (drawn,) = frames(axis).values()
    assert len(drawn) == 4
    steps = np.diff([bones[0, 0, 0] for bones in drawn])
    np.testing.assert_allclose(steps, steps[0])
    for bones, row in zip(drawn, (0, 3, 6, 9), strict=True):
        root = coordinates(motion, motion.X, "root")[row]
        for k, joint in enumerate(("knee", "head")):
            place = coordinates(motion, motion.X, joint)[row]
            np.testing.assert_allclose(bones[k, 1] - bones[k, 0], (place - root)[[0, 2]])  # seen along y
            np.testing.assert_allclose(bones[k, :, 1], [root[2], place[2]])  # heights are those in the data
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.00", "0.30", "0.60", "0.90"]
    np.testing.assert_allclose(axis.get_xticks(), [bones[0, 0, 0] for bones in drawn])
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("time (s), b", "height (m)")
    assert axis.get_aspect() == 1.0
    assert axis.get_legend() is None


def test_from_the_front(motion):
    bones = next(iter(frames(sn.pl.stick_figure(motion, n_frames=1, azimuth=90.0)).values()))[0]
    apart = coordinates(motion, motion.X, "knee")[0] - coordinates(motion, motion.X, "root")[0]
    np.testing.assert_allclose(bones[0, 1] - bones[0, 0], apart[1:])


def test_reconstructed_and_extrapolated(motion):
    shift = 0.25 * (motion.var["axis"] == "z").to_numpy()
    axis = sn.pl.stick_figure(motion, predictions=motion.X + shift, fitted_until=0.4, n_frames=10, trial="a")
    drawn = frames(axis)
    assert {color: len(figures) for color, figures in drawn.items()} == {GREY: 10, BLUE: 5, ORANGE: 5}
    for observed, predicted in zip(drawn[GREY], drawn[BLUE] + drawn[ORANGE], strict=True):
        np.testing.assert_allclose(predicted - observed, np.broadcast_to([0, 0.25], (2, 2, 2)), atol=1e-12)
    legend = [text.get_text() for text in axis.get_legend().get_texts()]
    assert legend == ["observed", "reconstructed", "extrapolated"]
    assert axis.get_xlabel() == "time (s), a"


def test_times_are_those_of_the_trial(motion):
    motion.obs["time"] += np.where(motion.obs["trial"] == "a", 2.0, 0.0)
    axis = sn.pl.stick_figure(motion, predictions=motion.X, fitted_until=2.35, n_frames=4, trial="a")
    assert [label.get_text() for label in axis.get_xticklabels()] == ["2.00", "2.30", "2.60", "2.90"]
    assert {color: len(figures) for color, figures in frames(axis).items()} == {GREY: 4, BLUE: 2, ORANGE: 2}


def test_predictions_of_one_trial(motion):
    """A model that was fitted to one trajectory predicts that one."""
    axis = sn.pl.stick_figure(motion, predictions=motion.X[10:], trial="a", n_frames=3)
    drawn = frames(axis)
    np.testing.assert_allclose(drawn[GREY], drawn[BLUE])
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["observed", "reconstructed"]


def test_several_models(motion):
    axes = sn.pl.stick_figure(motion, predictions={"base": motion.X, "PathReg": motion.X + 0.1}, fitted_until=-1.0)
    assert [axis.get_title(loc="right") for axis in axes] == ["base", "PathReg"]
    np.testing.assert_allclose(frames(axes[0])[ORANGE], frames(axes[0])[GREY])
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["observed", "extrapolated"]
    assert (axes[0].get_xlabel(), axes[1].get_xlabel()) == ("", "time (s), b")
    positions = [axis.get_position() for axis in axes]
    assert positions[0].y0 > positions[1].y1


def test_trials_and_models_are_not_taken_for_mathematics(motion):
    motion.obs["trial"] = motion.obs["trial"].cat.rename_categories({"a": "$\\frac$"})
    models = {name: np.asarray(motion.X) for name in ("$x_1$", "$\\frac$")}
    axes = sn.pl.stick_figure(motion, predictions=models, trial="$\\frac$")
    axes[0].figure.canvas.draw()
    assert [axis.get_title(loc="right") for axis in axes] == list(models)


def test_results_of_a_fit(motion):
    motion.obsm["sparsenode_trajectory"] = np.asarray(motion.X) + 0.1
    assert set(frames(sn.pl.stick_figure(motion))) == {GREY, BLUE}
    assert set(frames(sn.pl.stick_figure(motion, key="other"))) == {GREY}


def test_sparse_data(motion):
    expected = frames(sn.pl.stick_figure(motion))[GREY]
    motion.X = sparse.csr_matrix(motion.X)
    np.testing.assert_allclose(frames(sn.pl.stick_figure(motion))[GREY], expected)


def test_more_frames_than_there_are(motion):
    assert len(frames(sn.pl.stick_figure(motion, n_frames=50))[GREY]) == 10


@pytest.mark.data
def test_real_motion(data_dir):
    folder = data_dir / "motion_capture"
    adata = sn.datasets.read_motion_capture(folder / "07.asf", folder / "07_10.amc", step=3)
    axis = sn.pl.stick_figure(adata)
    bones = np.array(frames(axis)[GREY])
    assert bones.shape == (8, 30, 2, 2)
    assert bones[..., 1].min() > -1e-9
    drawn = np.linalg.norm(bones[:, :, 0] - bones[:, :, 1], axis=2)
    assert (drawn <= adata.uns["skeleton"]["length"].to_numpy() + 1e-9).all()
    axis.figure.canvas.draw()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"trial": "c"}, ValueError, r"`trial` to name some of \['b', 'a'\].*found \['c'\]"),
        ({"n_frames": 0}, ValueError, "`n_frames` to be an integer of at least 1, found 0"),
        ({"n_frames": 2.5}, ValueError, "`n_frames` to be an integer of at least 1, found 2.5"),
        ({"time_key": "seconds"}, KeyError, "'seconds' in `adata.obs`"),
        ({"trial_key": "subject"}, KeyError, "'subject' in `adata.obs`"),
        ({"predictions": np.zeros((9, 9))}, ValueError, r"10 frames.*× 9 coordinates.*20 frames.*\(9, 9\) for 'model'"),
        ({"predictions": {"base": np.zeros((20, 8))}}, ValueError, "for 'base'"),
        ({"azimuth": np.nan}, ValueError, "Expected `azimuth` to be a finite number, found nan"),
        ({"fitted_until": "0.8"}, ValueError, "Expected `fitted_until` to be a finite number, found '0.8'"),
    ],
    ids=str,
)
def test_errors(motion, arguments, error, message):
    with pytest.raises(error, match=message):
        sn.pl.stick_figure(motion, **arguments)


def test_data_without_a_skeleton(motion, adata):
    with pytest.raises(KeyError, match="read_motion_capture"):
        sn.pl.stick_figure(adata)
    with pytest.raises(TypeError, match="AnnData object, found DataFrame"):
        sn.pl.stick_figure(motion.to_df())
    with pytest.raises(KeyError, match=r"\('knee', 'y'\)"):
        sn.pl.stick_figure(motion[:, motion.var_names != "knee_y"])
    with pytest.raises(KeyError, match="some joints missing"):
        sn.pl.stick_figure(motion[:, motion.var["joint"] != "head"])


def test_given_axes_and_show(motion, shown):
    figure, axis = plt.subplots()
    assert sn.pl.stick_figure(motion, ax=axis) is axis
    assert sn.pl.stick_figure(motion, ax=axis, return_fig=True) is figure
    assert isinstance(sn.pl.stick_figure(motion, return_fig=True), Figure)
    assert shown() == 0
    assert sn.pl.stick_figure(motion, show=True) is None
    assert shown() == 1


@pytest.mark.parametrize("n_frames", [1, 2, 4])
@pytest.mark.parametrize("azimuth", [20, 90])
@pytest.mark.parametrize("until", [None, 0.5])
def test_few_frames_have_room_for_the_legend(motion, is_within, n_frames, azimuth, until):
    """Of somebody who is tall and slender."""
    across = motion.var["axis"].to_numpy() != "z"
    motion.X = np.where(across, 0.1, 3.0) * motion.X
    figure = sn.pl.stick_figure(
        motion, predictions=motion.X, n_frames=n_frames, azimuth=azimuth, fitted_until=until, return_fig=True
    )
    assert is_within(figure)
    places = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert not any(one.overlaps(other) for i, one in enumerate(places) for other in places[:i])


def test_frames_are_drawn_in_the_order_of_their_times(motion):
    """Whatever the order of the rows, and predictions with them."""
    order = np.random.default_rng(1).permutation(20)
    drawn = frames(sn.pl.stick_figure(motion, predictions=motion.X + 0.1, trial="a", n_frames=4))
    mixed = motion[order].copy()
    axis = sn.pl.stick_figure(mixed, predictions=motion.X[order] + 0.1, trial="a", n_frames=4)
    for colour, found in frames(axis).items():
        np.testing.assert_allclose(found, drawn[colour])
    labels = [float(text.get_text()) for text in axis.get_xticklabels()]
    assert labels == sorted(labels)


def test_trials_that_are_numbers(motion):
    motion.obs["trial"] = motion.obs["trial"].map({"a": 1, "b": 10}).astype(int)
    assert sn.pl.stick_figure(motion, trial=10).get_xlabel() == "time (s), 10"


def test_no_frames(motion):
    """As of a trial whose name was mistyped in a filter."""
    with pytest.raises(ValueError, match="frames to draw in `adata`, found none. Check the filter"):
        sn.pl.stick_figure(motion[motion.obs["trial"] == "A"])
