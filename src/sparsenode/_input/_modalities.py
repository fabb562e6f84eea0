"""What is read from MuData: modalities, and annotations that lie in a modality or in the whole."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData
from mudata import MuData

from sparsenode._input._expression import dense


def modality(mdata: MuData, name: str, argument: str) -> AnnData:
    """A modality by name.

    Raises
    ------
    TypeError
        If the data are no MuData.
    KeyError
        If there is no such modality; the message lists those that there are.
    """
    if not isinstance(mdata, MuData):
        raise TypeError(f"Expected `mdata` to be a MuData object, found {type(mdata).__name__}.")
    if name not in mdata.mod:
        raise KeyError(
            f"Expected `{argument}` to name a modality of `mdata`, found {name!r}. It has {list(mdata.mod)}."
        )
    return mdata.mod[name]


def cell_annotation(
    mdata: MuData, name: str, key: str, argument: str, attributes: tuple[str, ...] = ("obs",)
) -> object:
    """Annotation of the cells of a modality: its own, or that of the whole MuData in the order of the modality.

    Parameters
    ----------
    mdata
        Data.
    name
        Modality whose cells are annotated.
    key
        Name of the annotation.
    argument
        What it was passed as, for messages.
    attributes
        Where it may lie: ``"obs"``, or also ``"obsm"``.

    Returns
    -------
    Column or table with a row per cell of the modality.

    Raises
    ------
    KeyError
        If it is nowhere.
    ValueError
        If modality and MuData hold it with different values.
    """
    adata = modality(mdata, name, argument)
    own = [getattr(adata, attribute)[key] for attribute in attributes if key in getattr(adata, attribute)]
    shared = [
        _rows(mdata, adata, getattr(mdata, attribute)[key])
        for attribute in attributes
        if key in getattr(mdata, attribute) and not (attribute == "obsm" and key in mdata.mod)
    ]
    if own and shared and not same_values(own[0], shared[0]):
        place = next(place for place in attributes if key in getattr(mdata, place))
        raise ValueError(
            f"Expected one {key!r} for `{argument}`, found different values in modality {name!r} and in `mdata`. Remove one, "
            f"for instance `del mdata.{place}[{key!r}]`."
        )
    found = own + shared
    if not found:
        places = " or ".join(f"`.{attribute}`" for attribute in attributes)
        available = [str(column) for attribute in attributes for column in [*getattr(adata, attribute)]][:20]
        everywhere = [str(column) for attribute in attributes for column in [*getattr(mdata, attribute)]][:20]
        raise KeyError(
            f"Expected `{argument}` to be in {places} of modality {name!r} or of `mdata`, found {key!r} in neither. "
            f"The modality has {available}, `mdata` has {everywhere}."
        )
    return found[0]


def _rows(mdata: MuData, adata: AnnData, values: object) -> object:
    """Rows of an annotation of all cells for the cells of a modality."""
    positions = mdata.obs_names.get_indexer(adata.obs_names)
    if isinstance(values, pd.Series | pd.DataFrame):
        return values.iloc[positions]
    return values[positions]  # type: ignore[index]


def same_values(one: object, other: object) -> bool:
    """Whether two columns or tables hold the same, missing values and names of columns included."""
    if isinstance(one, pd.DataFrame) and isinstance(other, pd.DataFrame) and [*map(str, one)] != [*map(str, other)]:
        return False
    if type(one) is not type(other) and not (hasattr(one, "shape") and hasattr(other, "shape")):
        return False
    first, second = map(dense, (one, other))
    if first.shape != second.shape:
        return False
    missing = pd.isna(first)
    return bool((missing == pd.isna(second)).all() and (first[~missing] == second[~missing]).all())
