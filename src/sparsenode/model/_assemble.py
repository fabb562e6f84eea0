"""From modalities to the AnnData that is fitted, and results back into the modalities."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from sparsenode import _checks
from sparsenode._input._expression import dense, expression
from sparsenode._input._modalities import cell_annotation, modality, same_values
from sparsenode._input._observations import read_observations
from sparsenode._logging import logger
from sparsenode.model._written import WRITTEN, all_written, remove_results

EXPRESSION, REGULATORS = "layer", "regulator_layer"
_ANNOTATIONS = {"time_key": ("obs", "obsm"), "lineage_key": ("obs", "obsm"), "batch_key": ("obs",)}
_ARGUMENTS = (EXPRESSION, REGULATORS, *_ANNOTATIONS)
_UNEVEN = 10.0  # ratio of variances beyond which one modality is most of the error
MODALITY, FEATURE = "modality", "feature"


def check_modalities(mdata: MuData, modalities: Mapping[str, str] | None) -> dict[str, str]:
    """The modality of every argument that names one, with that of the expression.

    Raises
    ------
    TypeError
        If the data are no MuData, or modalities no mapping.
    KeyError
        If a modality is not there.
    ValueError
        If an argument is unknown, or if the modality of the expression is not said.
    """
    if not isinstance(mdata, MuData):
        raise TypeError(f"Expected `mdata` to be a MuData object, found {type(mdata).__name__}.")
    if modalities is not None and not isinstance(modalities, Mapping):
        raise TypeError(
            f"Expected `modalities` to map arguments to modalities, such as {{'layer': {next(iter(mdata.mod), 'rna')!r}}}, found {modalities!r}."
        )
    named = {str(argument): str(name) for argument, name in (modalities or {}).items()}
    unknown = [argument for argument in named if argument not in _ARGUMENTS]
    if unknown:
        raise ValueError(f"Expected the keys of `modalities` to be among {list(_ARGUMENTS)}, found {unknown}.")
    if EXPRESSION not in named:
        if len(mdata.mod) > 1:
            raise ValueError(
                f"Expected `modalities` to name the modality of the expression, found none for {EXPRESSION!r}. Pass for instance "
                f"`modalities={{'layer': {next(iter(mdata.mod))!r}}}`; there are {list(mdata.mod)}."
            )
        named[EXPRESSION] = next(iter(mdata.mod))
    for argument, name in named.items():
        modality(mdata, name, f"modalities[{argument!r}]")
    if named.get(REGULATORS) == named[EXPRESSION]:
        raise ValueError(f"Expected two modalities in `modalities`, found {named[EXPRESSION]!r} for both.")
    return named


def assemble(mdata: MuData, setup: Mapping[str, Any], lineages: Sequence[str] | None) -> AnnData:
    """The AnnData to fit: the modality of the expression itself, or a new one that joins it with another.

    Parameters
    ----------
    mdata
        Modalities.
    setup
        Arguments of :meth:`sparsenode.SparseNODE.setup_mudata`, checked.
    lineages
        Those of the fitted model; ``None`` before there is one.

    Returns
    -------
    Cells in the order of the modality of the expression. Annotations that lie elsewhere are brought into its ``obs`` and
    ``obsm``, if they can be used. Joined variables are named ``modality:name``, ``.var`` holds both parts, a boolean column for each
    modality, and the boolean columns of both.

    Raises
    ------
    KeyError, TypeError, ValueError
        As :func:`read_observations`, or if an annotation is not there or lies in two places with different values.
    """
    name = setup["modalities"][EXPRESSION]
    joined = REGULATORS in setup["modalities"]
    adata = _join(mdata, setup) if joined else modality(mdata, name, "modalities")
    keys = {argument: setup[argument] for argument in _ANNOTATIONS}
    brought: dict[str, Any] = {}
    try:
        for argument, key in keys.items():
            if key is not None:
                _checks.key(mdata, argument, key)
                held = _bring(mdata, adata, name, setup["modalities"].get(argument), key, argument)
                brought |= {} if held is None else {key: held}
        observations = read_observations(adata, **keys, lineage_names=lineages)
        if lineages is None:
            observations.trajectories()
    except Exception:
        for key, held in brought.items():  # what is put right in its place would differ from what was left here
            del held[key]
        raise
    if brought and not joined:
        logger.info("Wrote %s into the modality %r.", ", ".join(map(repr, brought)), name)
    return adata


def _bring(mdata: MuData, adata: AnnData, name: str, source: str | None, key: str, argument: str) -> Any:
    """Write an annotation into the AnnData to fit, unless it is there; the ``obs`` or ``obsm`` it was written into, or ``None``."""
    attributes = _ANNOTATIONS[argument]
    if source is None:
        values: Any = cell_annotation(mdata, name, key, argument, attributes)
    else:
        values = _of_other(mdata, adata, source, key, argument, attributes)
    held = adata.obs if isinstance(values, pd.Series) else adata.obsm
    if key in held:
        if not same_values(held[key], values):
            raise ValueError(
                f"Expected `{argument}` of modality {source!r} not to differ from that of modality {name!r}, found {key!r} with other "
                "values in both. Rename or remove one of them."
            )
        return None
    if isinstance(values, pd.DataFrame):
        values = values.set_axis(adata.obs_names)
    held[key] = values.array if isinstance(values, pd.Series) else values
    return held


def _of_other(mdata: MuData, adata: AnnData, source: str, key: str, argument: str, attributes: tuple[str, ...]) -> Any:
    """Annotation of another modality for the cells of the AnnData."""
    other = modality(mdata, source, argument)
    positions = other.obs_names.get_indexer(adata.obs_names)
    if (positions < 0).any():
        raise ValueError(
            f"Expected all cells in modality {source!r}, which holds `{argument}`, found {int((positions < 0).sum())} missing."
        )
    for attribute in attributes:
        if key in getattr(other, attribute):
            values = getattr(other, attribute)[key]
            return values.iloc[positions] if isinstance(values, pd.Series | pd.DataFrame) else values[positions]
    raise KeyError(f"Expected `{argument}` in modality {source!r}, found no {key!r}.")


def _join(mdata: MuData, setup: Mapping[str, Any]) -> AnnData:
    """Two modalities side by side: a copy of their values."""
    names = [setup["modalities"][argument] for argument in (EXPRESSION, REGULATORS)]
    first, second = (modality(mdata, name, "modalities") for name in names)
    _check_cells(first, second, names)
    order = second.obs_names.get_indexer(first.obs_names)
    blocks = [expression(first, setup[EXPRESSION]), expression(second, setup[REGULATORS])[order]]
    _warn_uneven(blocks, names)
    if all(sparse.issparse(block) for block in blocks):
        joined = sparse.hstack(blocks, format="csr")
    else:
        joined = np.hstack([dense(block) for block in blocks])
    var = pd.concat([_variables(adata, name) for adata, name in zip((first, second), names, strict=True)])
    for column in var.columns.difference([MODALITY, FEATURE]):
        var[column] = var[column].eq(True).astype(bool)  # false where only the other modality has it
    for name in names:
        var[name] = (var[MODALITY] == name).to_numpy()
    results = all_written(first, "obsm") | all_written(mdata, "obsm")  # of other fits, of one modality or both
    kept = {key: values.copy() for key, values in first.obsm.items() if key not in results}
    adata = AnnData(joined, obs=first.obs.copy(), var=var, obsm=kept)
    adata.uns.update({key: value for key, value in first.uns.items() if str(key).endswith("_colors")})
    if setup[EXPRESSION] is not None:
        adata.layers[setup[EXPRESSION]] = adata.X  # the same array under the name that is read
    return adata


def _variables(adata: AnnData, name: str) -> pd.DataFrame:
    """Boolean columns of the variables, under names that hold the modality."""
    boolean = [column for column in adata.var if pd.api.types.is_bool_dtype(adata.var[column])]
    table = adata.var[boolean].copy()
    table[MODALITY], table[FEATURE] = name, adata.var_names.astype(str)
    return table.set_axis([f"{name}:{feature}" for feature in adata.var_names])


def _check_cells(first: AnnData, second: AnnData, names: list[str]) -> None:
    backed = [name for name, adata in zip(names, (first, second), strict=True) if adata.isbacked]
    if backed:
        raise ValueError(
            f"Expected modalities in memory to fit two together, found {backed} backed. Read them into memory."
        )
    shared = first.obs_names.intersection(second.obs_names)
    if len(shared) < max(first.n_obs, second.n_obs):
        raise ValueError(
            f"Expected the same cells in {names[0]!r} and {names[1]!r} to fit them together, found {first.n_obs - len(shared)} only "
            f"in the one and {second.n_obs - len(shared)} only in the other. Keep those of both: "
            f"`shared = mdata[{names[0]!r}].obs_names.intersection(mdata[{names[1]!r}].obs_names); mdata = mdata[shared].copy()`."
        )


def _warn_uneven(blocks: list[Any], names: list[str]) -> None:
    """Warn where one modality varies so much more that the other hardly counts."""
    variances = []
    for block in blocks:
        if sparse.issparse(block):
            block = block.astype(np.float64)
            square = np.asarray(block.multiply(block).mean(0)).ravel()
        else:  # without a copy: blocks may be large
            square = np.einsum("ij,ij->j", block, block, dtype=np.float64) / len(block)
        mean = np.asarray(block.mean(0, dtype=np.float64)).ravel()
        variances.append(float((square - mean**2).mean()))
    low, high = int(np.argmin(variances)), int(np.argmax(variances))
    if variances[high] > _UNEVEN * variances[low]:
        warnings.warn(
            f"{names[high]!r} varies {variances[high] / max(variances[low], 1e-300):.3g} times as much as {names[low]!r}: with "
            "`objective='trajectory'` its error is most of what is fitted. Scale both alike, for instance with "
            "`sn.pp.min_max_scale`.",
            UserWarning,
            stacklevel=6,
        )


def spread_results(joined: AnnData, mdata: MuData, modalities: Mapping[str, str], key_added: str) -> None:
    """Write the results of a joint fit into the modalities, and what concerns both into the MuData."""
    parts = {modalities[argument]: mdata.mod[modalities[argument]] for argument in (EXPRESSION, REGULATORS)}
    remove_results(mdata, key_added)
    written = joined.uns[key_added][WRITTEN]
    positions = np.full(joined.n_vars, -1)
    for name, adata in parts.items():
        remove_results(adata, key_added)  # of an earlier fit of this modality alone
        columns = np.flatnonzero(joined.var[MODALITY] == name)
        rows = joined.obs_names.get_indexer(adata.obs_names)
        for place in written.keys() - {"varp"}:
            for key in map(str, written[place]):
                getattr(adata, place)[key] = np.asarray(getattr(joined, place)[key])[np.ix_(rows, columns)]
        own = np.asarray(mdata.varmap[name]).ravel()
        positions[columns[own[own > 0] - 1]] = np.flatnonzero(own > 0)
    for key in map(str, written["varp"]):
        block = joined.varp[key].tocoo()
        shape = (mdata.n_vars, mdata.n_vars)
        entries = (block.data, (positions[block.row], positions[block.col]))
        mdata.varp[key] = sparse.csr_matrix(entries, shape=shape)
    mdata.uns[key_added] = copy.deepcopy(joined.uns[key_added])
