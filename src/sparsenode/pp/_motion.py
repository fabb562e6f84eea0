"""Motion capture made ready for a fit: few components, mirror images, late starts."""

from __future__ import annotations

import copy
import warnings

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

from sparsenode import _checks
from sparsenode._input._expression import dense, expression
from sparsenode._input._observations import MIN_CELLS

_KEY = "motion"
_ROUNDING = 1e-9  # of times
_ROOT, _HIPS = "root", ("lhipjoint", "rhipjoint")
_MIDDLE = (_ROOT, "lowerback", "lowerneck")  # names of the middle of the body that begin like those of a side


def prepare_motion(
    adata: AnnData,
    n_components: int = 6,
    start_every: float | None = 0.2,
    shortest: float = 0.25,
    mirror: bool = True,
    time_key: str = "time",
    trial_key: str = "trial",
    reference: AnnData | None = None,
) -> AnnData:
    r"""Project frames on their principal components, and add mirror images and late starts of every trial.

    A hundred frames are a stride or less, of 93 coordinates that move together. This makes the most of them:

    - *Components.* The coordinates become their first principal components, :math:`z = A^\top (x - c)`, with centre :math:`c` and axes
      :math:`A` from the frames and their mirror images. Walking has two to four modes.
    - *Mirror images.* The body is symmetric: with left and right exchanged, a walk is another walk, half a stride later.
    - *Late starts.* The same trials from later and later frames on are added as trajectories of their own, so that field and initial
      velocities are learned from many starts.

    Parameters
    ----------
    adata
        Frames × coordinates to be fitted, as from :func:`sparsenode.datasets.read_motion_capture`.
    n_components
        Number of components. Default: 6.
    start_every
        Time between late starts, in the unit of ``time_key`` (seconds). Default: 0.2; ``None`` for no late starts. If several fall between
        the same two frames, one is kept.
    shortest
        Length, in the same unit, that the rest of the trial must exceed after a late start. Default: 0.25; at least ten frames in any case.
    mirror
        Whether to add mirror images. Default: ``True``; not for movements that have a side, such as a golf swing. Needs
        ``adata.var["joint"]`` and ``adata.var["axis"]``.

        - Joints whose names differ only in their first letter, ``l`` or ``r``, are exchanged. Others are taken for the middle of the body,
          with a warning if the name may be one of a side.
        - The horizontal axis that is nearest to the line between the hips is reversed about the mean position, in the trial, of the joint
          ``root``, or of the midpoint of the hips if there is none.
    time_key, trial_key
        Columns of ``adata.obs`` with the time and the trial.
    reference
        Result of an earlier call, for new trials: frames are projected on its components and keep their order, and nothing is added.

    Returns
    -------
    Frames × components, in the unit of the coordinates, with

    - ``.obs[time_key]`` and ``.obs[trial_key]``: time and name of the trajectory. The trials come first under their own names, then
      ``"07_01 mirrored"``, ``"07_01 from 0.2"`` and ``"07_01 mirrored from 0.2"``,
    - ``.uns["motion"]``: ``centre``, ``axes`` (coordinates × components) and the names of the coordinates.

    Raises
    ------
    KeyError
        If a column is missing.
    TypeError
        If ``adata`` or ``reference`` is not an AnnData, times are not numbers, or ``mirror`` is not True or False.
    ValueError
        If an argument is out of range, there are not enough frames, times or trials are missing, a trial has the name of a mirror image or
        late start, a joint lacks a coordinate that the one on the other side has, or coordinates differ from those of the reference.

    Notes
    -----
    Do not use mirror images for movements that have a side, or components to ask which joint drives which. The components are computed from
    ``adata``: pass only the frames to be fitted, and others later with ``reference``. Distances to the subspace are lost: report errors of
    the coordinates that :func:`restore_motion` gives back.

    Examples
    --------
    >>> import sparsenode as sn
    >>> frames = sn.datasets.read_motion_capture("07.asf", ["07_01.amc", "07_10.amc"])  # doctest: +SKIP
    >>> training = sn.pp.prepare_motion(frames)  # doctest: +SKIP
    """
    _checks.anndata(adata)
    _checks.booleans(mirror=mirror)
    x = _coordinates(adata, time_key, trial_key)
    if reference is not None:
        return _prepare_like(reference, adata, x, time_key, trial_key)
    if mirror and "joint" in adata.var:
        _warn_of_one_side(adata.var["joint"].astype(str))
    _checks.at_least("n_components", n_components, 1)
    _checks.positive("shortest", shortest)
    if start_every is not None:
        _checks.positive("start_every", start_every)
    if n_components > min(x.shape):
        raise ValueError(
            f"Expected `n_components` to be at most {min(x.shape)} for {x.shape} values, found {n_components}."
        )
    names = adata.obs[trial_key].astype(str).to_numpy()
    times = adata.obs[time_key].to_numpy(dtype=np.float64)
    runs: list[tuple[str, np.ndarray, np.ndarray]] = []
    for name in dict.fromkeys(names):
        rows = np.flatnonzero(names == name)
        rows = rows[np.argsort(times[rows], kind="stable")]
        runs.append((name, times[rows], x[rows]))
    if mirror:
        runs += [(f"{name} mirrored", t, _mirrored(values, adata.var)) for name, t, values in runs]
    frames = np.concatenate([values for *_, values in runs])
    centre = frames.mean(0)
    axes = np.linalg.svd(frames - centre, full_matrices=False)[2][:n_components].T
    found = {"centre": centre, "axes": axes, "coordinates": adata.var_names.to_numpy(dtype=object).astype(str)}
    if start_every is not None:
        runs += [late for run in runs for late in _late_starts(*run, start_every, shortest)]
    repeated = pd.Index([name for name, *_ in runs])
    repeated = repeated[repeated.duplicated()]
    if len(repeated):
        raise ValueError(
            f"Expected names of trials that differ from those of mirror images and late starts, found {repeated[0]!r} for two of them. Rename "
            f"trials in `adata.obs[{trial_key!r}]`."
        )
    tables = [_project(values, pd.DataFrame({time_key: t, trial_key: name}), found) for name, t, values in runs]
    result = anndata.concat(tables, keys=[name for name, *_ in runs], index_unique="|")
    # In the order of the runs: the trials themselves first.
    result.obs[trial_key] = pd.Categorical(result.obs[trial_key], categories=[name for name, *_ in runs])
    result.uns[_KEY] = found
    return result


def restore_motion(values: np.ndarray, reference: AnnData) -> np.ndarray:
    """Coordinates from principal components.

    Parameters
    ----------
    values
        … × components, for instance what ``predict`` returns.
    reference
        Result of :func:`prepare_motion`.

    Returns
    -------
    … × coordinates, in the order of ``reference.uns["motion"]["coordinates"]``.

    Raises
    ------
    KeyError
        If ``reference`` holds no components.
    TypeError
        If ``values`` are no numbers, or ``reference`` is no AnnData.
    ValueError
        If the number of components differs.

    Notes
    -----
    What the components left out does not come back. Do not use the result to judge the errors of a fit in single joints without comparing
    it with the frames themselves.
    """
    found = _components(reference)
    values = _checks.numbers("values", values)
    if values.ndim == 0 or values.shape[-1] != found["axes"].shape[1]:
        raise ValueError(
            f"Expected {found['axes'].shape[1]} components, found {values.shape[-1] if values.ndim else 'a single number'}."
        )
    return values @ found["axes"].T + found["centre"]


def _coordinates(adata: AnnData, time_key: str, trial_key: str) -> np.ndarray:
    """Frames × coordinates, after refusing frames without a place, a time or a trial."""
    for key in (time_key, trial_key):
        if key not in adata.obs:
            raise KeyError(f"Expected column {key!r} in `adata.obs`, found {list(adata.obs)}.")
    x = dense(expression(adata, None)).astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError("Expected finite coordinates, found NaN or infinite ones.")
    if not np.isfinite(_checks.numbers(f"adata.obs[{time_key!r}]", adata.obs[time_key])).all():
        raise ValueError(f"Expected finite times in `adata.obs[{time_key!r}]`, found NaN or infinite ones.")
    if adata.obs[trial_key].isna().any():
        raise ValueError(f"Expected a trial for every frame in `adata.obs[{trial_key!r}]`, found missing ones.")
    return x


def _prepare_like(reference: AnnData, adata: AnnData, x: np.ndarray, time_key: str, trial_key: str) -> AnnData:
    """The frames themselves in the components of a reference."""
    found = copy.deepcopy(_components(reference))  # a reference keeps its own
    _check_coordinates(adata, found["coordinates"])
    table = _project(x, adata.obs[[time_key, trial_key]].copy(), found)
    trials = table.obs[trial_key].astype("category").cat.remove_unused_categories()
    # Strings, as without a reference.
    table.obs[trial_key] = trials.cat.rename_categories(list(map(str, trials.cat.categories)))
    return table


def _check_coordinates(adata: AnnData, coordinates: np.ndarray) -> None:
    """Refuse others than those of the reference, and another order."""
    if list(coordinates) == list(adata.var_names):
        return
    missing = [str(name) for name in coordinates if name not in adata.var_names]
    new = [str(name) for name in adata.var_names if name not in set(coordinates)]
    if missing:
        found = f"{missing[:3]} missing and {new[:3]} new"
        remedy = "Read trials of the same skeleton."
    else:
        found = f"{new[:3]} new" if new else "them in another order"
        remedy = "Take `adata[:, reference.uns['motion']['coordinates']]`."
    raise ValueError(
        f"Expected the coordinates of `reference` in their order, found others in `adata`: {found}. {remedy}"
    )


def _components(reference: AnnData) -> dict[str, np.ndarray]:
    _checks.anndata(reference, "reference")
    if _KEY not in reference.uns:
        raise KeyError(f"Expected `reference` to come from `prepare_motion`, found no `reference.uns[{_KEY!r}]`.")
    return reference.uns[_KEY]


def _project(x: np.ndarray, obs: pd.DataFrame, found: dict[str, np.ndarray]) -> AnnData:
    z = ((x - found["centre"]) @ found["axes"]).astype(np.float32)
    obs.index = obs.index.astype(str)
    result = AnnData(z, obs=obs)
    result.var_names = [f"component {i}" for i in range(z.shape[1])]
    result.uns[_KEY] = found
    return result


def _late_starts(
    name: str, times: np.ndarray, values: np.ndarray, every: float, shortest: float
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """A trial from later and later frames on; of starts that lie before the same frame there is the first."""
    starts = np.arange(times[0] + every, times[-1] - shortest - _ROUNDING, every)
    frames, which = np.unique(np.searchsorted(times, starts - _ROUNDING), return_index=True)
    return [
        (f"{name} from {start - times[0]:.7g}", times[first:], values[first:])
        for first, start in zip(frames, starts[which], strict=True)
        if len(times) - first >= MIN_CELLS
    ]


def _mirrored(values: np.ndarray, var: pd.DataFrame) -> np.ndarray:
    """Mirror images of the frames of a trial: left for right, and one horizontal axis turned about the mean place of the root."""
    if not {"joint", "axis"} <= set(var):
        raise KeyError(f"Expected columns 'joint' and 'axis' in `adata.var` for `mirror=True`, found {list(var)}.")
    pairs = list(zip(var["joint"].astype(str), var["axis"].astype(str), strict=True))
    place = {pair: index for index, pair in enumerate(pairs)}
    joints = dict.fromkeys(joint for joint, _ in pairs)
    if not all((hip, axis) in place for hip in _HIPS for axis in "xy"):
        raise ValueError(f"Expected joints {_HIPS} with axes 'x' and 'y' for `mirror=True`, found {list(joints)[:5]}….")
    hips = {axis: [values[:, place[hip, axis]] for hip in _HIPS] for axis in "xy"}
    across = {axis: float(np.abs(left - right).mean()) for axis, (left, right) in hips.items()}
    side = max(across, key=lambda axis: across[axis])
    middle = np.mean(hips[side]) if (_ROOT, side) not in place else values[:, place[_ROOT, side]].mean()
    exchanged = [(_opposite(joint, joints), axis) for joint, axis in pairs]
    if not set(exchanged) <= set(place):
        lost = next(pair for pair in exchanged if pair not in place)
        raise ValueError(
            f"Expected the coordinate {lost[1]!r} of {lost[0]!r} for `mirror=True`, as on the other side, found none."
        )
    result = values[:, [place[pair] for pair in exchanged]]
    turned = [index for index, (_, axis) in enumerate(pairs) if axis == side]
    result[:, turned] = 2.0 * middle - result[:, turned]
    return result


def _warn_of_one_side(joints: pd.Series) -> None:
    """Warn of joints that may be at one side of the body, where those at the other side are missing."""
    known = dict.fromkeys(joints)
    alone = [joint for joint in known if joint[:1] in ("l", "r") and _opposite(joint, known) == joint]
    alone = [joint for joint in alone if joint not in _MIDDLE]
    if alone:
        warnings.warn(
            f"Joints that have no counterpart are taken for the middle of the body, among them {alone[:5]}. If they are at one side, "
            "mirror images are torn there: keep both joints of a pair, or neither.",
            UserWarning,
            stacklevel=3,
        )


def _opposite(joint: str, joints: dict[str, None]) -> str:
    """The joint on the other side of the body, or the joint itself."""
    other = {"l": "r", "r": "l"}.get(joint[:1], "") + joint[1:]
    return other if other in joints else joint
