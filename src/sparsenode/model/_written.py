"""What earlier fits wrote into the data, and which keys are free for another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from anndata import AnnData
from mudata import MuData

WRITTEN = "written"  # in the results of a fit: where else it wrote, keys by place


def check_key(data: AnnData | MuData, key_added: str) -> None:
    """Refuse a key of ``uns`` that holds anything but results of an earlier fit."""
    if key_added in data.uns and not _is_fit(data.uns[key_added]):
        raise ValueError(
            f"Expected `uns[{key_added!r}]` to be free or to hold results of an earlier fit, found something else. Choose another "
            "`key_added`, or remove it."
        )


def check_free(
    data: AnnData | MuData,
    key_added: str,
    keys: Mapping[str, Iterable[str]],
    origin: MuData | None = None,
    name: str | None = None,
) -> None:
    """Refuse keys that hold anything but results of an earlier fit under ``key_added``.

    Those of a joint fit in ``data``, which is the modality ``name`` of ``origin``, are listed there.
    """
    holders = [data] if origin is None or name not in _parts(origin, key_added) else [data, origin]
    taken = []
    for place, names in keys.items():
        listed = [str(key) for one in holders for key in _written(one, key_added).get(place, ())]
        taken += [f"{place}[{key!r}]" for key in names if key in getattr(data, place) and key not in listed]
    if taken:
        held = "mdata" if isinstance(data, MuData) else "adata" if origin is None else f"mdata[{name!r}]"
        raise ValueError(
            f"Expected keys that are free for results, found {', '.join(f'`{key}`' for key in taken)}, which no fit that is in "
            f"`uns[{key_added!r}]` wrote. Choose another `key_added`, or remove them: `del {', '.join(f'{held}.{key}' for key in taken)}`."
        )


def remove_results(data: AnnData | MuData, key_added: str) -> None:
    """Remove the results of an earlier fit under this key, as far as they are listed there.

    Those of a joint fit lie in the MuData where they concern all variables, and otherwise in its modalities.
    """
    parts = [data]
    if isinstance(data, MuData):  # a modality with results of its own was fitted alone since
        parts = [data.mod[name] for name in _parts(data, key_added) if not _is_fit(data.mod[name].uns.get(key_added))]
    for place, keys in _written(data, key_added).items():
        for holder in [data] if place == "varp" else parts:
            for key in keys:
                getattr(holder, place).pop(str(key), None)
    if _is_fit(data.uns.get(key_added)):
        del data.uns[key_added]


def all_written(data: AnnData | MuData, place: str) -> set[str]:
    """Keys that all fits whose results are there wrote in one place."""
    return {str(key) for name in data.uns for key in _written(data, name).get(place, ())}


def _parts(mdata: MuData, key_added: str) -> list[str]:
    """Modalities that an earlier joint fit under this key wrote to."""
    earlier = mdata.uns.get(key_added)
    names = earlier.get("setup", {}).get("modalities", {}).values() if _is_fit(earlier) else ()
    return [str(name) for name in names if str(name) in mdata.mod]


def _is_fit(results: Any) -> bool:
    """Whether an entry of ``uns`` holds results of a fit."""
    return isinstance(results, Mapping) and isinstance(results.get(WRITTEN), Mapping)


def _written(data: AnnData | MuData, key_added: str) -> Mapping[str, Sequence[str]]:
    """Keys that an earlier fit under this key wrote, by place."""
    earlier = data.uns.get(key_added)
    return earlier[WRITTEN] if _is_fit(earlier) else {}
