from __future__ import annotations

import itertools
import re
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest

import sparsenode as sn
from sparsenode.datasets._motion_capture import body_part

INCH = 0.0254
# Two bones in a row, 2 and 1 units long, and one without channels; a unit is two inches.
ASF = """# a comment
:version 1.10
:name two
:namespace NONE
:units
  mass 1.0
  length 0.5
  angle deg
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name upper
     direction 1 0 0
     length 2.0
     axis 0 0 0 XYZ
    dof rx ry rz
    limits (-20.0 45.0)
           (-30.0 30.0)
           (-30.0 30.0)
  end
  begin
     id 2
     name lower
     direction 0 2 0
     length 1.0
     axis 0 0 90 XYZ
    dof rx
  end
  begin
     id 3
     name fixed
     direction 0 0 1
     length 1.0
     axis 0 0 0 XYZ
  end
:hierarchy
  begin
    root upper fixed
    upper lower
  end
"""


def line(text, after=""):
    """Number of the first line of the skeleton that holds a text, after another text."""
    start = ASF.index(after)
    return ASF[: ASF.index(text, start)].count("\n") + 1


def frame(number, root="0 0 0 0 0 0", upper="0 0 0", lower="0"):
    return f"{number}\nroot {root}\nupper {upper}\nlower {lower}\n"


@pytest.fixture
def write(tmp_path):
    """Write files and read them, by default with nothing moved and in the axes and inches of the file."""

    def run(amc, asf=ASF, name="trial.amc", **arguments):
        (tmp_path / "two.asf").write_text(asf)
        (tmp_path / name).write_text(amc)
        steps = {"centre_frames": False, "centre_first": False, "floor": False}
        adata = sn.datasets.read_motion_capture(tmp_path / "two.asf", tmp_path / name, **(steps | arguments))
        places = adata.X.reshape(adata.n_obs, -1, 3)[:, :, [1, 2, 0]] / INCH
        return adata, dict(zip(adata.var["joint"][::3], places.transpose(1, 0, 2), strict=True))

    return run


# Forward kinematics


def test_rest_pose(write):
    _, places = write(frame(1, root="1 2 3 0 0 0"))
    np.testing.assert_allclose(places["root"], [[2, 4, 6]])
    np.testing.assert_allclose(places["upper"], [[2 + 4, 4, 6]])
    np.testing.assert_allclose(places["lower"], [[2 + 4, 4 + 2, 6]])
    np.testing.assert_allclose(places["fixed"], [[2, 4, 6 + 2]])


@pytest.mark.parametrize(
    ("angles", "upper", "lower"),
    [
        # The upper bone turns about z: x becomes y, and with it the lower bone: y becomes -x.
        ({"upper": "0 0 90"}, [0, 4, 0], [-2, 4, 0]),
        ({"upper": "0 90 0"}, [0, 0, -4], [0, 2, -4]),
        ({"upper": "90 0 0"}, [4, 0, 0], [4, 0, 2]),
        # First about x, then about z: the lower bone's y becomes z and stays there.
        ({"upper": "90 0 90"}, [0, 4, 0], [0, 4, 2]),
        # The lower bone's own x is the world's y, along which it lies: it does not move.
        ({"lower": "70"}, [4, 0, 0], [4, 2, 0]),
        ({"root": "0 0 0 0 0 180"}, [-4, 0, 0], [-4, -2, 0]),
    ],
    ids=str,
)
def test_two_bones_by_hand(write, angles, upper, lower):
    _, places = write(frame(1, **angles))
    np.testing.assert_allclose(places["upper"], [upper], atol=1e-12)
    np.testing.assert_allclose(places["lower"], [lower], atol=1e-12)


def turn(axis, degrees):
    """Rotation matrix, written out."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[[i, j], [i, j]] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def test_random_angles_against_matrices(write):
    generator = np.random.default_rng(0)
    r, u, lower = generator.uniform(-180, 180, (5, 6)), generator.uniform(-180, 180, (5, 3)), np.linspace(-90, 90, 5)
    asf = ASF.replace("axis 0 0 90 XYZ", "axis 20 -30 40 XYZ").replace("orientation 0 0 0", "orientation 10 20 -50")
    text = "".join(
        frame(
            i + 1, " ".join(map(repr, map(float, r[i]))), " ".join(map(repr, map(float, u[i]))), repr(float(lower[i]))
        )
        for i in range(5)
    )
    _, places = write(text, asf)
    base = turn("z", -50) @ turn("y", 20) @ turn("x", 10)
    axes = turn("z", 40) @ turn("y", -30) @ turn("x", 20)
    for i in range(5):
        root = base @ turn("z", r[i, 5]) @ turn("y", r[i, 4]) @ turn("x", r[i, 3]) @ base.T
        upper = root @ turn("z", u[i, 2]) @ turn("y", u[i, 1]) @ turn("x", u[i, 0])
        end = 2 * r[i, :3] + upper @ [4, 0, 0]
        np.testing.assert_allclose(places["upper"][i], end)
        last = upper @ axes @ turn("x", lower[i]) @ axes.T
        np.testing.assert_allclose(places["lower"][i], end + last @ [0, 2, 0])
        np.testing.assert_allclose(places["fixed"][i], 2 * r[i, :3] + root @ [0, 0, 2])


def test_order_of_channels_and_axes_of_the_root(write):
    asf = ASF.replace("order TX TY TZ RX RY RZ", "order RZ RY RX TX TY TZ").replace(
        "axis XYZ\n   pos", "axis ZYX\n   pos"
    )
    _, places = write(frame(1, root="10 20 30 1 2 3"), asf)
    root = turn("x", 30) @ turn("y", 20) @ turn("z", 10)
    np.testing.assert_allclose(places["upper"][0], [2, 4, 6] + root @ [4, 0, 0])


def test_radians(write):
    _, places = write(":RADIANS\n" + frame(1, upper=f"0 0 {np.pi / 2!r}"))
    np.testing.assert_allclose(places["upper"], [[0, 4, 0]], atol=1e-12)
    _, places = write(":DEGREES\n" + frame(1, upper="0 0 90"))
    np.testing.assert_allclose(places["upper"], [[0, 4, 0]], atol=1e-12)


def test_the_root_starts_where_the_skeleton_says(write):
    """In units of the file, like the channels, which are added."""
    _, places = write(frame(1, root="1 2 3 0 0 0"), ASF.replace("position 0 0 0", "position 10 -20 30"))
    np.testing.assert_allclose(places["root"], [[22, -36, 66]])
    np.testing.assert_allclose(places["upper"], [[22 + 4, -36, 66]])


def in_radians(match):
    return " ".join(repr(float(np.radians(float(number)))) for number in match[0].split())


@pytest.mark.parametrize("word", ["rad", "RAD"])
def test_skeletons_in_radians(write, word):
    """Also their axes, their orientation, and motion files that do not say otherwise."""
    degrees = ASF.replace("axis 0 0 90", "axis 20 -30 40").replace("orientation 0 0 0", "orientation 10 20 -50")
    radians = re.sub(r"(?<=axis )[-\d ]+|(?<=orientation )[-\d ]+", lambda m: in_radians(m) + " ", degrees)
    radians = radians.replace("angle deg", f"angle {word}")
    text = frame(1, "0 0 0 10 20 30", "40 50 60", "70")
    own = re.sub(r"(?<=root 0 0 0 ).*|(?<=upper ).*|(?<=lower ).*", in_radians, text)
    expected = write(text, degrees)[0].X
    for amc in (own, ":RADIANS\n" + own, ":DEGREES\n" + text):
        np.testing.assert_allclose(write(amc, radians)[0].X, expected, atol=1e-12)
    np.testing.assert_allclose(write(":RADIANS\n" + own, degrees)[0].X, expected, atol=1e-12)


@pytest.mark.parametrize("unit", ["radians", "RADIANS", "radian"])
def test_units_in_full(write, unit):
    """Of the skeleton, and of a motion without its own; other units are refused."""
    expected = write(frame(1, upper="0 0 90"))[1]
    axes = ASF.replace("0 0 90 XYZ", f"0 0 {np.pi / 2} XYZ")
    for amc, asf in (
        (frame(1, upper=f"0 0 {np.pi / 2}"), axes.replace("angle deg", f"angle {unit}")),
        (f":{unit}\n" + frame(1, upper=f"0 0 {np.pi / 2}"), ASF.replace("angle deg", "angle degrees")),
    ):
        found = write(amc, asf)[1]
        for joint in expected:
            np.testing.assert_allclose(found[joint], expected[joint], atol=1e-6)
    with pytest.raises(ValueError, match="`angle` deg or rad at line 8 of two.asf, found 'grad'"):
        write(frame(1), ASF.replace("angle deg", "angle grad"))


def test_marks_of_encodings_and_comments(tmp_path):
    """A byte order mark, line ends of any kind, an ellipsis of Windows within a comment, and the end of a file in DOS."""
    (tmp_path / "two.asf").write_bytes(b"\xef\xbb\xbf" + ASF.replace("\n", "\r\n").encode() + b"\x1a")
    amc = b"\xef\xbb\xbf# walk\x85 on\r" + frame(1, root="1 2 3 0 0 0").replace("\n", "\r").encode()
    (tmp_path / "trial.amc").write_bytes(amc + b"\x1a")
    read = sn.datasets.read_motion_capture(tmp_path / "two.asf", tmp_path / "trial.amc", floor=False)
    assert read.n_obs == 1


def test_a_bone_that_stands_twice(write):
    with pytest.raises(ValueError, match=r"every bone once in `:bonedata` of two.asf, found 'upper' again"):
        write(frame(1), ASF.replace("name lower", "name upper"))


def test_keys_in_capitals_and_angles_in_degrees_by_default(write):
    text = frame(1, upper="0 0 90")
    expected = write(text)[0].X
    for asf in (
        ASF.replace("  angle deg\n", ""),
        ASF.replace("  length 0.5", "  LENGTH 0.5").replace("order", "ORDER"),
    ):
        np.testing.assert_array_equal(write(text, asf)[0].X, expected)


# Layout


def test_layout(write, tmp_path):
    adata, _ = write("".join(frame(i) for i in (7, 8, 9)), frame_rate=50.0)
    assert adata.shape == (3, 12)
    assert list(adata.var_names[:4]) == ["root_x", "root_y", "root_z", "upper_x"]
    assert list(adata.var["axis"][:3]) == ["x", "y", "z"]
    assert list(adata.obs["frame"]) == [7, 8, 9]
    np.testing.assert_allclose(adata.obs["time"], [0, 0.02, 0.04])
    assert adata.uns["frame_rate"] == 50.0
    bones = adata.uns["skeleton"].set_index("child")
    assert bones["parent"].to_dict() == {"upper": "root", "fixed": "root", "lower": "upper"}
    np.testing.assert_allclose(bones.loc[["upper", "lower", "fixed"], "length"], np.array([4, 2, 2]) * INCH)
    adata.write_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(
        anndata.read_h5ad(tmp_path / "a.h5ad").uns["skeleton"].reset_index(drop=True),
        adata.uns["skeleton"],
        check_dtype=False,
    )


def test_step(write):
    text = "".join(frame(i, root=f"{i} 0 0 0 0 0") for i in range(1, 8))
    adata, places = write(text, frame_rate=120.0, step=3)
    assert list(adata.obs["frame"]) == [1, 4, 7]
    np.testing.assert_allclose(adata.obs["time"], [0, 1 / 40, 2 / 40])
    np.testing.assert_allclose(places["root"][:, 0], [2, 8, 14])
    assert adata.uns["frame_rate"] == 40.0


def test_several_trials(write, tmp_path):
    write(frame(1) + frame(2), name="a.amc")
    write(frame(1, root="5 0 0 0 0 0"), name="b.amc")
    paths = [tmp_path / "b.amc", str(tmp_path / "a.amc")]
    adata = sn.datasets.read_motion_capture(str(tmp_path / "two.asf"), paths, centre_frames=False, centre_first=False)
    assert list(adata.obs["trial"]) == ["b", "a", "a"]
    assert list(adata.obs["trial"].cat.categories) == ["b", "a"]
    assert list(adata.obs["time"]) == [0, 0, 1 / 120]
    assert adata.obs_names.is_unique
    np.testing.assert_allclose(adata.obsm["root"][:, 1] / INCH, [10, 0, 0])
    assert {"joint", "axis", "body_part"} <= set(adata.var)
    with pytest.raises(ValueError, match=r"different names, found \['a', 'a'\]"):
        sn.datasets.read_motion_capture(tmp_path / "two.asf", [tmp_path / "a.amc"] * 2)
    with pytest.raises(ValueError, match=r"one or more files.*found \[\]"):
        sn.datasets.read_motion_capture(tmp_path / "two.asf", [])


def test_preprocessing(write):
    """Every step by itself, and all of them."""
    text = "".join(
        frame(i, root=f"{i} {i * i} 1 {10 * i} 5 0", upper=f"{5 * i} 20 {-7 * i}", lower=f"{9 * i}") for i in (1, 2, 3)
    )
    raw, frames, first, floor, every = (
        write(text, **dict(zip(("centre_frames", "centre_first", "floor"), flags, strict=True)))[0]
        for flags in ([False] * 3, (True, False, False), (False, True, False), (False, False, True), [True] * 3)
    )
    shape = (3, 4, 3)
    x, in_frames, in_first, on_floor, done = (a.X.reshape(shape) for a in (raw, frames, first, floor, every))
    np.testing.assert_allclose(in_frames, x - x[:, :1])
    np.testing.assert_allclose(in_first, x - x[0].mean(0))
    np.testing.assert_allclose(in_first[0].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(on_floor[..., :2], x[..., :2])
    np.testing.assert_allclose(on_floor[..., 2], x[..., 2] - x[..., 2].min())
    assert done[..., 2].min() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(done[0, :, :2].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(np.ptp(done[:, 0], axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(done - done[:, :1], in_frames, atol=1e-12)
    for adata in (frames, first, floor, every):
        np.testing.assert_allclose(adata.obsm["root"], x[:, 0])


def test_every_step_is_taken_by_default(write, tmp_path):
    every = write(frame(1, root="1 2 3 4 5 6"), centre_frames=True, centre_first=True, floor=True)[0]
    adata = sn.datasets.read_motion_capture(tmp_path / "two.asf", tmp_path / "trial.amc")
    np.testing.assert_array_equal(adata.X, every.X)


def test_body_parts():
    parts = {
        "left leg": ["lhipjoint", "ltoes"],
        "right arm": ["rclavicle", "rthumb"],
        "trunk": ["root", "lowerback", "upperback", "thorax"],
        "head": ["lowerneck", "upperneck", "head"],
        "other": ["tail", "lower", "r", "leftfoot"],
    }
    for part, joint in [(part, joint) for part, joints in parts.items() for joint in joints]:
        assert body_part(joint) == part, joint


# Damaged files


def test_files_that_are_cut_off(write):
    """Wherever the last of three frames is cut off: an error that names the frame, or the two frames before."""
    complete = "".join(frame(i, root=f"{i} 2 3 4 5 6", upper="10 20 30", lower="40") for i in (1, 2, 3))
    start = complete.index("3\nroot") + 2
    expected = write(complete)[0].X[:2]
    for end in range(start, len(complete) - 3):  # at the very end, "4" and "40" are both numbers
        with pytest.raises(ValueError, match=r"frame 3 of trial\.amc.*line \d+.*incomplete=\"drop\""):
            write(complete[:end])
        with pytest.warns(UserWarning, match="Dropped the last frame.*frame 3"):
            adata, _ = write(complete[:end], incomplete="drop")
        np.testing.assert_array_equal(adata.X, expected)


def test_whole_files_give_no_warning(write):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(frame(1) + frame(2), incomplete="drop")
        write((frame(1) + frame(2)).rstrip("\n"))


@pytest.mark.parametrize("incomplete", ["error", "drop"])
@pytest.mark.parametrize(
    ("amc", "message"),
    [
        ("", "Expected frames in trial.amc, found none"),
        ("1\nroot 0 0 0 0 0 0\nupper 0 0", r"frame 1 of trial.amc.*line 3: \['upper', 'lower'\]"),
        (frame(1)[:-8] + frame(2), r"frame 1 of trial.amc.*line 4: \['lower'\]"),
        ((frame(1, upper="0 a 0") + frame(2)).rstrip("\n"), r"for 'upper' at line 3.*found '0 a 0'"),
        (frame(1) + frame(3), "Expected frame 2 at line 5 of trial.amc, found 3"),
        (frame(1) + "tail 0 0\n", r"moving joints \['root', 'upper', 'lower'\] at line 5.*'tail'.*same subject"),
        (frame(1, lower="0 0"), r"1 numbers \(rx\) for 'lower' at line 4 of trial.amc \(frame 1\), found '0 0'"),
        (frame(1, upper="0 a 0"), r"3 numbers \(rx, ry, rz\) for 'upper' at line 3.*found '0 a 0'"),
        (frame(1, upper="0 nan 0"), "found '0 nan 0'"),
        (frame(1) + "lower 1\n", "found 'lower' again at line 5"),
        ("root 0 0 0 0 0 0\n", "Expected a frame number at line 1 of trial.amc, found 'root"),
    ],
    ids=lambda value: value[:30] if "\n" in value else None,
)
def test_damaged_motion(write, amc, message, incomplete):
    with pytest.raises(ValueError, match=message):
        write(amc, incomplete=incomplete)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((ASF[ASF.index(":hier") :], ""), r"section `:hierarchy` in two.asf, found \[':version'"),
        ((ASF[ASF.index("  begin\n    root") :], ""), r"every bone in the hierarchy.*\['fixed', 'lower', 'upper'\]"),
        (("root upper fixed", "root upper"), r"hierarchy of two.asf, found \['fixed'\] missing"),
        (("upper lower", "upper other"), f"line {line('upper lower')} of two.asf, found 'other'"),
        (
            ("upper lower", "upper fixed"),
            f"without another parent at line {line('upper lower')} of two.asf, found 'fixed'",
        ),
        (
            ("    upper lower", "    lower upper"),
            f"named before at line {line('upper lower')} of two.asf, found 'lower'",
        ),
        (
            ("direction 0 2 0", "direction 0 2"),
            f"3 numbers for `direction` at line {line('direction 0 2')} of two.asf, found '0 2'",
        ),
        (("direction 0 2 0", "direction 0 0 0"), f"direction at line {line('direction 0 2')} of two.asf, found 0 0 0"),
        (("     length 1.0\n", ""), f"`length` near line {line('id 2')} of two.asf"),
        (("length 0.5", "length 0"), "positive `length`"),
        (("dof rx\n", "dof rx l\n"), f"`dof` at line {line('dof rx', 'id 2')}" + r".*found \['rx', 'l'\]"),
        (("axis 0 0 90 XYZ", "axis 0 0 90 XXZ"), f"order of axes such as XYZ at line {line('axis 0 0 90')}.*'xxz'"),
        (("dof rx ry rz", "dof rx ry rx"), f"`dof` at line {line('dof rx ry')}" + r".*found \['rx', 'ry', 'rx'\]"),
        (("order TX TY TZ RX RY RZ", "order TX TY TZ"), "`order` of the root in two.asf"),
        (("order TX TY TZ RX RY RZ", "order TX TY TZ RX RY RY"), "`order` of the root in two.asf"),
        (("     name lower\n", ""), f"`name` in the bone that begins at line {line('id 2') - 1}"),
        (("     axis 0 0 0 XYZ\n  end\n:hier", ":hier"), f"`end` of the bone that begins at line {line('id 3') - 1}"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_damaged_skeleton(write, change, message):
    assert change[0] in ASF
    with pytest.raises(ValueError, match=message):
        write(frame(1), ASF.replace(*change))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frame_rate": 0.0}, r"`frame_rate` to be a positive number, found 0\.0"),
        ({"step": 0}, "`step` to be an integer of at least 1, found 0"),
        ({"incomplete": "skip"}, r"`incomplete` to be one of \['error', 'drop'\], found 'skip'"),
    ],
)
def test_errors_of_arguments(write, arguments, message):
    with pytest.raises(ValueError, match=message):
        write(frame(1), **arguments)


@pytest.mark.parametrize("step", ["centre_frames", "centre_first", "floor"])
def test_words_are_no_switches(write, step):
    with pytest.raises(TypeError, match=f"Expected `{step}` to be True or False, found 'no'"):
        write(frame(1), **{step: "no"})


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.asf"):
        sn.datasets.read_motion_capture(tmp_path / "none.asf", tmp_path / "none.amc")


# The database


@pytest.fixture(scope="module")
def walking(data_dir):
    folder = data_dir / "motion_capture"
    trials = [folder / f"07_{trial}.amc" for trial in ("01", "10")]
    return sn.datasets.read_motion_capture(folder / "07.asf", trials, centre_frames=False, centre_first=False)


def joint(adata, name):
    return adata[:, adata.var["joint"] == name].X


@pytest.mark.data
def test_bones_keep_their_lengths(walking):
    assert walking.shape == (316 + 301, 93)
    assert len(walking.uns["skeleton"]) == 30
    for parent, child, length in walking.uns["skeleton"].itertuples(index=False):
        distance = np.linalg.norm(joint(walking, child) - joint(walking, parent), axis=1)
        np.testing.assert_allclose(distance, length, rtol=1e-9)


@pytest.mark.data
def test_a_person_walks(walking):
    """Forward along x at a walking speed, left side to the left, feet on the floor and in opposite phase."""
    for trial, speeds in (("07_01", (1.2, 1.5)), ("07_10", (1.5, 1.8))):
        adata = walking[walking.obs["trial"] == trial]
        root = adata.obsm["root"]
        np.testing.assert_array_equal(root[:, :2], joint(adata, "root")[:, :2])
        assert speeds[0] < (root[-1, 0] - root[0, 0]) / adata.obs["time"].max() < speeds[1]
        left, right = joint(adata, "ltoes"), joint(adata, "rtoes")
        assert ((joint(adata, "lfemur") - joint(adata, "rfemur"))[:, 1] > 0).all()
        assert np.minimum(left[:, 2], right[:, 2]).max() < 0.15
        assert np.corrcoef((left - root)[:, 0], (right - root)[:, 0])[0, 1] < -0.7
        assert 1.4 < joint(adata, "head")[:, 2].mean() < 1.8
        # A foot that stands does not slide.
        speed = np.linalg.norm(np.diff(left, axis=0), axis=1) * 120
        assert np.quantile(speed, 0.2) < 0.25


@pytest.mark.data
def test_left_and_right_are_alike(walking):
    bones = walking.uns["skeleton"].set_index("child")["length"]
    pairs = [(name, "r" + name[1:]) for name in bones.index if name[0] == "l" and "r" + name[1:] in bones.index]
    assert len(pairs) == 12
    for left, right in itertools.islice(pairs, 8):
        assert bones[left] == pytest.approx(bones[right], rel=0.3)
    assert set(walking.var["body_part"]) == {"trunk", "head", "left arm", "right arm", "left leg", "right leg"}
    assert (walking.var["body_part"] == "left arm").sum() == (walking.var["body_part"] == "right arm").sum() == 21


@pytest.mark.data
def test_golf_swing_is_cut_off(data_dir):
    files = data_dir / "motion_capture" / "golf.asf", data_dir / "motion_capture" / "golf_01.amc"
    with pytest.raises(ValueError, match=r"frame 444 of golf_01\.amc.*line 13313.*'lfemur'.*incomplete=\"drop\""):
        sn.datasets.read_motion_capture(*files)
    with pytest.warns(UserWarning, match="frame 444"):
        adata = sn.datasets.read_motion_capture(*files, incomplete="drop")
    assert adata.shape == (443, 93)
    hands = np.linalg.norm(joint(adata, "lhand") - joint(adata, "rhand"), axis=1)
    assert hands[:300].max() < 0.25  # on one club
