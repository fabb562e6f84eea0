"""Acclaim motion capture: skeleton (.asf) and motion (.amc) files, and forward kinematics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

_Line = tuple[int, list[str]]  # number, and words
_Channels = dict[str, tuple[str, ...]]  # of every joint
_Frame = tuple[int, dict[str, list[float]]]  # number, and channels of every joint

ROOT = "root"
_METRES_PER_INCH = 0.0254
_ROOT_CHANNELS = ("tx", "ty", "tz", "rx", "ry", "rz")


@dataclass(frozen=True, eq=False)
class Bone:
    """One bone, named after the joint at its end.

    Parameters
    ----------
    offset
        From the parent joint to this joint while all angles are zero, in metres, 3.
    frame
        Orientation of the axes that the angles turn about.
    channels
        Angles in the order of the motion file: some of ``rx``, ``ry``, ``rz``.
    """

    offset: np.ndarray
    frame: Rotation
    channels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Joints in an order in which parents come first.

    Parameters
    ----------
    bones
        Bone that ends at every joint but the root.
    parents
        Parent joint of every joint but the root, in the same order.
    root_channels
        Channels of the root in the order of the motion file.
    root_axes
        Order of the root's rotations, such as ``"xyz"``.
    root_position, root_frame
        Where the root is, in metres, and how it is oriented, while all channels are zero.
    scale
        Metres per unit of length of the files.
    degrees
        Whether angles are in degrees, unless the motion file says otherwise.
    """

    bones: dict[str, Bone]
    parents: dict[str, str]
    root_channels: tuple[str, ...]
    root_axes: str
    root_position: np.ndarray
    root_frame: Rotation
    scale: float
    degrees: bool

    @property
    def joints(self) -> list[str]:
        """The root and the end of every bone."""
        return [ROOT, *self.parents]

    def channels(self) -> _Channels:
        """Channels of every joint that has some."""
        moving = {name: self.bones[name].channels for name in self.parents if self.bones[name].channels}
        return {ROOT: self.root_channels} | moving


@dataclass(frozen=True, eq=False)
class Motion:
    """Channels of every frame.

    Parameters
    ----------
    numbers
        Frame numbers, which follow each other.
    values
        Frames × channels of every joint.
    degrees
        Whether angles are in degrees.
    cut_off
        What is wrong with a last frame that was left out, ``None`` if all were read.
    """

    numbers: np.ndarray
    values: dict[str, np.ndarray]
    degrees: bool
    cut_off: str | None = None


def positions(skeleton: Skeleton, motion: Motion) -> np.ndarray:
    r"""Positions of all joints by forward kinematics, frames × joints × 3, in metres and the axes of the file.

    .. math:: R_b = R_{p(b)} C_b M_b C_b^{-1}, \qquad x_b = x_{p(b)} + R_b o_b

    - :math:`R_b`: rotation of the bone that ends at joint :math:`b`, :math:`p(b)` its parent,
    - :math:`C_b`: axes of the bone, :math:`M_b` the rotation by its channels, the first one first,
    - :math:`o_b`: offset of the bone.
    """
    root = dict(zip(skeleton.root_channels, motion.values[ROOT].T, strict=True))
    shift = np.stack([root["tx"], root["ty"], root["tz"]], axis=1) * skeleton.scale
    angles = np.stack([root[f"r{axis}"] for axis in skeleton.root_axes], axis=1)
    turn = Rotation.from_euler(skeleton.root_axes, angles, degrees=motion.degrees)
    rotations = {ROOT: skeleton.root_frame * turn * skeleton.root_frame.inv()}
    places = {ROOT: skeleton.root_position + shift}
    for name, parent in skeleton.parents.items():
        bone = skeleton.bones[name]
        rotations[name] = rotations[parent]
        if bone.channels:
            axes = "".join(channel[1] for channel in bone.channels)
            turn = Rotation.from_euler(axes, motion.values[name], degrees=motion.degrees)
            rotations[name] = rotations[parent] * bone.frame * turn * bone.frame.inv()
        places[name] = places[parent] + rotations[name].apply(bone.offset)
    return np.stack([places[name] for name in skeleton.joints], axis=1)


def read_skeleton(path: Path) -> Skeleton:
    """Read a skeleton file.

    Raises
    ------
    ValueError
        If a section or an entry is missing or cannot be read; the message names file and line.
    """
    sections = _sections(path)
    for section in (":units", ":root", ":bonedata", ":hierarchy"):
        if section not in sections:
            raise ValueError(
                f"Expected a section `{section}` in {path.name}, found {list(sections)}. The file is cut off, or no "
                "Acclaim skeleton."
            )
    units = {words[0].lower(): (number, words[1:]) for number, words in sections[":units"]}
    length = _floats(path, units, "length", 1)[0]
    if length <= 0:
        raise ValueError(f"Expected a positive `length` in `:units` of {path.name}, found {length:g}.")
    number, words = units.get("angle", (0, ["deg"]))
    degrees = _in_degrees(words[0]) if words else None
    if degrees is None:
        raise ValueError(f"Expected `angle` deg or rad at line {number} of {path.name}, found {' '.join(words)!r}.")
    scale = _METRES_PER_INCH / length
    bones: dict[str, Bone] = {}
    for name, bone in _bones(path, sections[":bonedata"], scale, degrees):
        if name in bones:
            raise ValueError(f"Expected every bone once in `:bonedata` of {path.name}, found {name!r} again.")
        bones[name] = bone
    root = {words[0].lower(): (number, words[1:]) for number, words in sections[":root"]}
    channels = tuple(word.lower() for word in root.get("order", (0, []))[1])
    if sorted(channels) != sorted(_ROOT_CHANNELS):
        raise ValueError(
            f"Expected the `order` of the root in {path.name} to list {list(_ROOT_CHANNELS)}, found {list(channels)}."
        )
    axes = _axes(path, root, root.get("axis", (0, ["XYZ"]))[1])
    return Skeleton(
        bones=bones,
        parents=_parents(path, sections[":hierarchy"], bones),
        root_channels=channels,
        root_axes=axes,
        root_position=np.array(_floats(path, root, "position", 3)) * scale,
        root_frame=Rotation.from_euler(axes, _floats(path, root, "orientation", 3), degrees=degrees),
        scale=scale,
        degrees=degrees,
    )


def read_motion(path: Path, skeleton: Skeleton, keep_complete: bool) -> Motion:
    """Read a motion file.

    Parameters
    ----------
    path
        File to read.
    skeleton
        Skeleton that the channels belong to.
    keep_complete
        Leave a last frame out that is cut off, instead of refusing the file.

    Raises
    ------
    ValueError
        If a frame is cut off, or does not fit the skeleton; the message names file, frame and line.
    """
    channels = skeleton.channels()
    degrees = skeleton.degrees
    frames: list[_Frame] = []
    text = _text(path)
    lines = list(_lines(text))
    last_line = lines[-1][0] if lines else 0
    cut_off: ValueError | None = None
    for number, words in lines:
        if words[0].startswith(":"):
            unit = _in_degrees(words[0][1:])
            degrees = degrees if unit is None else unit
            continue
        try:
            _add_line(path, frames, channels, number, words)
        except ValueError as error:
            if number < last_line or text.endswith("\n"):
                raise
            cut_off = error  # the file ends within this line
    if not frames:
        raise cut_off or ValueError(
            f"Expected frames in {path.name}, found none. Is this an Acclaim motion file (.amc)?"
        )
    complete = frames
    try:
        _require_complete(path, frames[-1], channels, last_line)
    except ValueError as error:
        complete, cut_off = frames[:-1], error
    if cut_off is not None and (not keep_complete or not complete):
        raise cut_off
    values = {joint: np.array([frame[joint] for _, frame in complete]) for joint in channels}
    numbers = np.array([frame for frame, _ in complete])
    return Motion(numbers, values, degrees, None if cut_off is None else str(cut_off))


def _add_line(path: Path, frames: list[_Frame], channels: _Channels, number: int, words: list[str]) -> None:
    """Begin a frame, or add the channels of one joint to the last one."""
    if len(words) > 1 or not words[0].isdigit():
        _add_joint(path, frames, channels, number, words)
        return
    if frames:
        _require_complete(path, frames[-1], channels, number)
        if int(words[0]) != frames[-1][0] + 1:
            raise ValueError(f"Expected frame {frames[-1][0] + 1} at line {number} of {path.name}, found {words[0]}.")
    frames.append((int(words[0]), {}))


def _add_joint(path: Path, frames: list[_Frame], channels: _Channels, number: int, words: list[str]) -> None:
    """Add one line, the channels of one joint, to the last frame."""
    where = f"line {number} of {path.name}"
    joint = words[0]
    if not frames:
        raise ValueError(f"Expected a frame number at {where}, found {' '.join(words)!r}.")
    frame, values = frames[-1]
    if joint not in channels:
        raise ValueError(
            f"Expected one of the moving joints {list(channels)} at {where} (frame {frame}), found {joint!r}. Do the two "
            "files belong to the same subject?"
        )
    if joint in values:
        raise ValueError(f"Expected each joint once in frame {frame}, found {joint!r} again at {where}.")
    found = _numbers(words[1:])
    if found is None or len(found) > len(channels[joint]):
        raise ValueError(
            f"Expected {len(channels[joint])} numbers ({', '.join(channels[joint])}) for {joint!r} at {where} (frame "
            f"{frame}), found {' '.join(words[1:])!r}. Do the two files belong to the same subject?"
        )
    values[joint] = found


def _require_complete(path: Path, frame: _Frame, channels: _Channels, line: int) -> None:
    """Refuse a frame in which joints or numbers are missing."""
    number, values = frame
    missing = [joint for joint in channels if len(values.get(joint, [])) < len(channels[joint])]
    if missing:
        raise ValueError(
            f"Expected {len(channels)} joints in frame {number} of {path.name}, found the frame incomplete at line "
            f"{line}: {missing[:5]}{'…' if len(missing) > 5 else ''} missing or too short. If the file was cut off in its "
            'last frame, read the frames before it with `incomplete="drop"`.'
        )


def _in_degrees(unit: str) -> bool | None:
    """Whether a unit of angles is degrees; ``None`` if it is neither these nor radians."""
    return {"deg": True, "degree": True, "degrees": True, "rad": False, "radian": False, "radians": False}.get(
        unit.lower()
    )


def _text(path: Path) -> str:
    """What a file holds, without marks of its encoding and of its end in DOS; comments may be in any encoding."""
    return path.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip(b"\x1a").decode("latin-1")


def _lines(text: str) -> Iterator[_Line]:
    """Line numbers and words of all lines that hold something."""
    for number, line in enumerate(StringIO(text, newline=None), start=1):
        words = line.split("#")[0].split()
        if words:
            yield number, words


def _sections(path: Path) -> dict[str, list[_Line]]:
    """Lines of every section of a skeleton file."""
    sections: dict[str, list[_Line]] = {}
    current: list[_Line] = []
    for number, words in _lines(_text(path)):
        if words[0].startswith(":"):
            current = sections.setdefault(words[0].lower(), [])
        else:
            current.append((number, words))
    return sections


def _bones(path: Path, lines: list[_Line], scale: float, degrees: bool) -> Iterator[tuple[str, Bone]]:
    """Names and bones of the section ``:bonedata``."""
    entries: dict[str, _Line] = {}
    first = None
    for number, words in lines:
        key = words[0].lower()
        if key == "begin":
            entries, first = {}, number
        elif key == "end":
            yield _bone(path, entries, scale, degrees, first)
            first = None
        else:
            entries[key] = (number, words[1:])
    if first is not None:
        raise ValueError(f"Expected an `end` of the bone that begins at line {first} of {path.name}, found none.")


def _bone(path: Path, entries: dict[str, _Line], scale: float, degrees: bool, first: int | None) -> tuple[str, Bone]:
    if "name" not in entries or not entries["name"][1]:
        raise ValueError(f"Expected a `name` in the bone that begins at line {first} of {path.name}, found none.")
    channels = tuple(word.lower() for word in entries.get("dof", (0, []))[1])
    if not set(channels) <= {"rx", "ry", "rz"} or len(set(channels)) != len(channels):
        raise ValueError(
            f"Expected `dof` at line {entries['dof'][0]} of {path.name} to list some of rx, ry and rz, found "
            f"{list(channels)}. Bones that change their length are not supported."
        )
    direction = np.array(_floats(path, entries, "direction", 3))
    if not direction.any():
        raise ValueError(f"Expected a direction at line {entries['direction'][0]} of {path.name}, found 0 0 0.")
    axes = _axes(path, entries, entries.get("axis", (0, []))[1][3:4] or ["XYZ"])
    return entries["name"][1][0], Bone(
        offset=direction / np.linalg.norm(direction) * _floats(path, entries, "length", 1)[0] * scale,
        frame=Rotation.from_euler(axes, _floats(path, entries, "axis", 3), degrees=degrees),
        channels=channels,
    )


def _parents(path: Path, lines: list[_Line], bones: dict[str, Bone]) -> dict[str, str]:
    """Parent of every joint of the section ``:hierarchy``."""
    parents: dict[str, str] = {}
    for number, words in lines:
        if words[0].lower() in {"begin", "end"}:
            continue
        where = f"line {number} of {path.name}"
        if words[0] not in {ROOT, *parents}:
            raise ValueError(f"Expected `root` or a joint that was named before at {where}, found {words[0]!r}.")
        for child in words[1:]:
            if child not in bones or child in parents:
                raise ValueError(f"Expected a bone of `:bonedata` without another parent at {where}, found {child!r}.")
            parents[child] = words[0]
    if set(parents) != set(bones):
        raise ValueError(
            f"Expected every bone in the hierarchy of {path.name}, found {sorted(set(bones) - set(parents))} missing."
        )
    return parents


def _axes(path: Path, entries: dict[str, _Line], words: list[str]) -> str:
    axes = "".join(words).lower()
    if sorted(axes) != ["x", "y", "z"]:
        raise ValueError(
            f"Expected an order of axes such as XYZ at line {entries['axis'][0]} of {path.name}, found {axes!r}."
        )
    return axes


def _floats(path: Path, entries: dict[str, _Line], key: str, n: int) -> list[float]:
    """The first ``n`` numbers of an entry."""
    if key not in entries:
        lines = [number for number, _ in entries.values()]
        raise ValueError(f"Expected `{key}` near line {min(lines, default=1)} of {path.name}, found none.")
    number, words = entries[key]
    found = _numbers(words[:n])
    if found is None or len(found) < n:
        raise ValueError(
            f"Expected {n} numbers for `{key}` at line {number} of {path.name}, found {' '.join(words)!r}."
        )
    return found


def _numbers(words: list[str]) -> list[float] | None:
    """The words as finite numbers, ``None`` if one is none."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None
