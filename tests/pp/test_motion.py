"""Frames made ready for a fit, against scikit-learn's principal components and reflections done by hand."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from sklearn.decomposition import PCA

from sparsenode import pp
from sparsenode.pp._motion import _late_starts

JOINTS = ("root", "lowerback", "lhipjoint", "rhipjoint", "lhand", "rhand")


@pytest.fixture
def frames() -> AnnData:
    """Two trials of a body that swings its hands in turn, walking along x."""
    rng = np.random.default_rng(0)
    tables = []
    for trial, n in (("b", 40), ("a", 30)):
        times = np.arange(n) / 20
        x = np.zeros((n, len(JOINTS), 3))
        x[:, :, 2] = np.arange(len(JOINTS))
        x[:, 0] += [0.1, 0.2, 0.0]
        x[:, 2, 1], x[:, 3, 1] = 0.3, -0.1
        x[:, 4, 0], x[:, 5, 0] = np.sin(4 * times), -np.sin(4 * times)
        x += 0.01 * rng.standard_normal(x.shape)
        obs = pd.DataFrame({"time": times, "trial": trial}, index=[f"{trial}{i}" for i in range(n)])
        tables.append((x.reshape(n, -1), obs))
    var = pd.DataFrame({"joint": np.repeat(JOINTS, 3), "axis": np.tile(list("xyz"), len(JOINTS))})
    var.index = var["joint"] + "_" + var["axis"]
    return AnnData(np.concatenate([x for x, _ in tables]), obs=pd.concat([obs for _, obs in tables]), var=var)


def reflected(x: np.ndarray) -> np.ndarray:
    """Mirror image of the frames of one trial by hand: left for right, y turned about the root."""
    points = x.reshape(len(x), len(JOINTS), 3)[:, [0, 1, 3, 2, 5, 4]].copy()
    points[:, :, 1] = 2 * x[:, 1].mean() - points[:, :, 1]
    return points.reshape(len(x), -1)


def test_components_are_those_of_frames_and_mirror_images(frames):
    made = pp.prepare_motion(frames, n_components=3, start_every=None)
    x = np.asarray(frames.X)
    everything = np.concatenate([x, reflected(x[:40]), reflected(x[40:])])
    reference = PCA(3).fit(everything)
    expected = reference.transform(everything)
    signs = np.sign((expected * made.X).sum(0))
    np.testing.assert_allclose(made.X * signs, expected, atol=1e-5)
    assert list(made.obs["trial"].cat.categories) == ["b", "a", "b mirrored", "a mirrored"]
    np.testing.assert_array_equal(made.obs["time"], np.tile(frames.obs["time"], 2))
    best = reference.inverse_transform(expected)
    np.testing.assert_allclose(pp.restore_motion(made.X, made), best, atol=1e-5)


def test_late_starts_are_the_ends_of_their_trials(frames):
    made = pp.prepare_motion(frames, n_components=2, start_every=0.5, shortest=0.4, mirror=False)
    # Trial b lasts 1.95, a lasts 1.45: starts before 1.55 and 1.05.
    assert list(made.obs["trial"].cat.categories) == [
        "b", "a", "b from 0.5", "b from 1", "b from 1.5", "a from 0.5", "a from 1"
    ]  # fmt: skip
    late = made[(made.obs["trial"] == "b from 1").to_numpy()]
    own = made[((made.obs["trial"] == "b") & (made.obs["time"] >= 1 - 1e-9)).to_numpy()]
    np.testing.assert_array_equal(late.X, own.X)
    np.testing.assert_array_equal(late.obs["time"], own.obs["time"])


def test_frames_are_named_after_their_runs(frames):
    made = pp.prepare_motion(frames, n_components=2, start_every=1.0)
    assert list(made.obs_names) == [
        f"{frame}|{trial}" for trial, n in made.obs["trial"].value_counts(sort=False).items() for frame in range(n)
    ]


def test_new_trials_are_projected_on_the_components_of_a_reference(frames):
    made = pp.prepare_motion(frames, n_components=2)
    new = frames[frames.obs["trial"] == "a"].copy()
    new.X = sparse.csr_matrix(new.X)
    found = pp.prepare_motion(new, reference=made)
    own = made[(made.obs["trial"] == "a").to_numpy()]
    np.testing.assert_allclose(found.X, own.X, atol=1e-6)
    assert list(found.obs["trial"].cat.categories) == ["a"]
    found.uns["motion"]["axes"][:] = 0.0
    assert np.abs(made.uns["motion"]["axes"]).max() > 0.1
    with pytest.raises(TypeError, match="`adata` to be an AnnData object, found DataFrame"):
        pp.prepare_motion(frames.to_df())
    with pytest.raises(ValueError, match="others in `adata`: them in another order"):
        pp.prepare_motion(new[:, ::-1].copy(), reference=made)
    other = new.copy()
    other.var_names = ["tail_x", *new.var_names[1:]]
    with pytest.raises(
        ValueError, match=rf"\['{new.var_names[0]}'\] missing and \['tail_x'\] new. Read trials of the same skeleton.$"
    ):
        pp.prepare_motion(other, reference=made)
    more = ad.concat([new, other[:, ["tail_x"]]], axis="var", merge="same")
    with pytest.raises(ValueError, match=r"\['tail_x'\] new. Take `adata") as caught:
        pp.prepare_motion(more, reference=made)
    kept = eval(str(caught.value).split("`")[-2], {"adata": more, "reference": made})
    np.testing.assert_array_equal(pp.prepare_motion(kept, reference=made).X, found.X)
    with pytest.raises(KeyError, match="prepare_motion"):
        pp.prepare_motion(new, reference=frames)
    with pytest.raises(KeyError, match="prepare_motion"):
        pp.restore_motion(np.zeros(2), frames)
    with pytest.raises(ValueError, match="Expected 2 components, found 3"):
        pp.restore_motion(np.zeros((4, 3)), made)


def test_what_cannot_be_prepared_is_refused(frames):
    with pytest.raises(KeyError, match="'clock'"):
        pp.prepare_motion(frames, time_key="clock")
    with pytest.raises(ValueError, match="n_components"):
        pp.prepare_motion(frames, n_components=19)
    with pytest.raises(ValueError, match="start_every"):
        pp.prepare_motion(frames, start_every=0.0)
    bare = AnnData(frames.X, obs=frames.obs)
    with pytest.raises(KeyError, match="'joint' and 'axis'"):
        pp.prepare_motion(bare)
    assert pp.prepare_motion(bare, n_components=2, mirror=False).n_vars == 2
    frames.var["joint"] = frames.var["joint"].str.replace("hipjoint", "knee")
    with pytest.raises(ValueError, match="lhipjoint"):
        pp.prepare_motion(frames)
    frames.X[0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        pp.prepare_motion(frames, mirror=False)


def test_mirror_images_without_the_root_are_turned_about_the_hips(frames):
    kept = np.flatnonzero(frames.var["joint"] != "root")
    frames.X = np.asarray(frames.X).copy()
    frames.X[:, 11] -= 1  # hips of one height
    made = pp.prepare_motion(frames[:, kept].copy(), n_components=15, start_every=None)
    restored = pp.restore_motion(made.X, made)
    middle = frames.X[:40].reshape(40, -1, 3)[:, 2:4, 1].mean()
    expected = reflected(np.asarray(frames.X[:40])).reshape(40, -1, 3)
    expected[:, :, 1] += 2 * (middle - frames.X[:40, 1].mean())
    np.testing.assert_allclose(restored[70:110], expected.reshape(40, -1)[:, kept], atol=1e-5)


def test_the_mirrored_axis_is_that_of_the_hips_where_a_body_turns_round(frames):
    """The hips lie along y in either direction, which cancel; along x they are a little apart all the time."""
    points = np.asarray(frames.X).reshape(70, -1, 3).copy()
    points[20:40, :, 1] *= -1
    points[55:, :, 1] *= -1
    points[:, 2, 0] += 0.1
    frames.X = points.reshape(70, -1)
    made = pp.prepare_motion(frames, n_components=18, start_every=None)
    found = pp.restore_motion(made.X, made).reshape(140, -1, 3)
    np.testing.assert_allclose(found[70:110, 1, 0], points[:40, 1, 0], atol=1e-5)  # the back, not turned along x


def test_warns_of_joints_at_one_side_alone(frames):
    """Not of those in the middle of the body whose names begin with l or r."""
    joint, axis = frames.var["joint"], frames.var["axis"]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Joints that have no counterpart")
        pp.prepare_motion(frames)
        pp.prepare_motion(frames[:, joint != "rhand"].copy(), mirror=False)
    with pytest.warns(
        UserWarning, match=r"no counterpart are taken for the middle of the body, among them \['lhand'\]"
    ):
        pp.prepare_motion(frames[:, joint != "rhand"].copy())
    with pytest.raises(ValueError, match="coordinate 'z' of 'rhand'"):
        pp.prepare_motion(frames[:, (joint != "rhand") | (axis != "z")].copy())


@pytest.mark.parametrize(
    ("every", "n_starts", "known"),
    [(0.05, 2619, ("a from 0.05", "a from 0.1", "a from 130.95")), (0.001, 6549, ("a from 0.001", "a from 0.021"))],
)
def test_many_late_starts_have_names_of_their_own(every, n_starts, known):
    """More than 130 seconds, 50 frames each: of starts before the same frame there is the first."""
    times = np.arange(6600) / 50
    found = _late_starts("a", times, times[:, None], every, 1.0)
    names = [name for name, *_ in found]
    assert len(set(names)) == len(names) == n_starts
    assert set(known) <= set(names)
    assert all(0 <= at[0] - float(name.split()[-1]) < 0.02 + 1e-9 for name, at, _ in found)


def test_the_rest_of_a_trial_after_a_late_start_is_longer_than_the_shortest():
    """Of 1.05 seconds, 0.25 are left after 0.8: as long as the shortest, but for rounding."""
    times = np.arange(127) / 120
    found = _late_starts("a", times, times[:, None], 0.2, 0.25)
    assert [name for name, *_ in found] == ["a from 0.2", "a from 0.4", "a from 0.6"]


@pytest.mark.parametrize(("column", "message"), [("time", "finite times"), ("trial", "a trial for every frame")])
def test_frames_without_time_or_trial(frames, column, message):
    frames.obs[column] = frames.obs[column].astype(object).where(np.arange(70) != 3)
    frames.obs["time"] = frames.obs["time"].astype(float)
    for reference in (None, pp.prepare_motion(frames[10:].copy())):
        with pytest.raises(ValueError, match=message):
            pp.prepare_motion(frames, reference=reference)


def test_what_is_done_by_default(frames):
    made = pp.prepare_motion(frames)
    assert made.n_vars == 6
    # Every 0.2 as long as a quarter of a second is left, and ten frames, which are half a second.
    starts = {"b": ("0.2", "0.4", "0.6", "0.8", "1", "1.2", "1.4"), "a": ("0.2", "0.4", "0.6", "0.8", "1")}
    assert list(made.obs["trial"].cat.categories) == [
        *("b", "a", "b mirrored", "a mirrored"),
        *(f"{name} from {start}" for name in "ba" for start in starts[name]),
        *(f"{name} mirrored from {start}" for name in "ba" for start in starts[name]),
    ]


@pytest.mark.parametrize(("shortest", "expected"), [(0.05, 5), (0.9, 3), (1.25, 2)])
def test_late_starts_are_long_enough_and_counted_from_the_first_frame(frames, shortest, expected):
    """Trial b, here from 3 s to 4.95 s: every 0.3 s, and with ten frames left at least, which begin at 4.5 s."""
    frames.obs["time"] += 3.0
    made = pp.prepare_motion(frames, n_components=2, start_every=0.3, shortest=shortest, mirror=False)
    names = [name for name in made.obs["trial"].cat.categories if name.startswith("b from")]
    assert names == [f"b from {0.3 * k:.4g}" for k in range(1, expected + 1)]
    times = made.obs["time"][made.obs["trial"] == names[-1]]
    assert times.min() == pytest.approx(3.0 + 0.3 * expected)
    assert len(times) >= 10


def test_the_order_of_the_frames_does_not_matter(frames):
    made = pp.prepare_motion(frames, n_components=2)
    order = np.random.default_rng(1).permutation(frames.n_obs)
    first = {name: np.flatnonzero(frames.obs["trial"] == name).min() for name in "ab"}
    order = np.concatenate([[first["b"]], order[order != first["b"]]])  # trials stay in their order
    again = pp.prepare_motion(frames[order].copy(), n_components=2)
    np.testing.assert_array_equal(again.obs["time"], made.obs["time"])
    signs = np.sign((again.X * made.X).sum(0))
    np.testing.assert_allclose(again.X * signs, made.X, atol=1e-5)


def test_mirror_images_of_a_body_that_faces_the_other_way(frames):
    """The axis between the hips is the same, whichever hip comes first along it."""
    turned = frames.copy()
    turned.X[:, np.isin(frames.var["axis"], ["x", "y"])] *= -1
    one, other = (pp.prepare_motion(each, n_components=3, start_every=None) for each in (frames, turned))
    lengths = [np.linalg.norm(made.X - made.X.mean(0), axis=1) for made in (one, other)]
    np.testing.assert_allclose(*lengths, atol=1e-5)


def test_new_trials_have_their_own_categories_only(frames):
    made = pp.prepare_motion(frames, n_components=2)
    frames.obs["trial"] = frames.obs["trial"].astype("category")
    one = frames.copy()[np.flatnonzero(frames.obs["trial"] == "a")].copy()
    one.obs["trial"] = pd.Categorical(one.obs["trial"], categories=["a", "b"])
    assert list(pp.prepare_motion(one, reference=made).obs["trial"].cat.categories) == ["a"]


@pytest.mark.parametrize("arguments", [{"shortest": 0.0}, {"n_components": 0}, {"n_components": 8}])
def test_refuses_what_few_frames_do_not_give(frames, arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
        pp.prepare_motion(frames[:7].copy(), **arguments)


def test_refuses_names_that_late_starts_and_mirror_images_have(frames):
    for other in ("a mirrored", "a from 0.2"):
        named = frames.copy()
        first, second = named.obs["trial"].unique()[:2]
        named.obs["trial"] = named.obs["trial"].astype(str).replace({str(first): "a", str(second): other})
        with pytest.raises(ValueError, match=f"differ from those of mirror images and late starts, found '{other}'"):
            pp.prepare_motion(named)


def test_trials_that_are_numbers_are_named_alike_with_a_reference(frames):
    frames.obs["trial"] = pd.factorize(frames.obs["trial"])[0]
    training = pp.prepare_motion(frames, start_every=None, mirror=False)
    again = pp.prepare_motion(frames, reference=training)
    assert list(again.obs["trial"]) == [str(name) for name in frames.obs["trial"]]
    assert set(again.obs["trial"]) == set(training.obs["trial"])


def test_what_is_no_reference_and_no_switch(frames):
    with pytest.raises(TypeError, match="Expected `reference` to be an AnnData object, found int"):
        pp.prepare_motion(frames, reference=3)
    with pytest.raises(TypeError, match="Expected `mirror` to be True or False, found 'no'"):
        pp.prepare_motion(frames, mirror="no")
    with pytest.raises(ValueError, match="found a single number"):
        pp.restore_motion(3.0, pp.prepare_motion(frames))
    made = pp.prepare_motion(frames)
    with pytest.raises(TypeError, match="Expected `values` to be numbers, found AnnData object"):
        pp.restore_motion(made, made)
    with pytest.raises(TypeError, match="Expected `reference` to be an AnnData object, found ndarray"):
        pp.restore_motion(made.X, made.X)
