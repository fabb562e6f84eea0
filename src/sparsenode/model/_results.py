"""Results written into the AnnData."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from numbers import Number
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from sparsenode import _checks, _keys
from sparsenode._errors import DivergenceError
from sparsenode._input._expression import gene_positions
from sparsenode.model._assemble import EXPRESSION, REGULATORS, spread_results
from sparsenode.model._edges import Block
from sparsenode.model._evaluation import EvaluationMixin
from sparsenode.model._history import history_table
from sparsenode.model._network import NetworkMixin
from sparsenode.model._written import WRITTEN, check_free, check_key, remove_results

if TYPE_CHECKING:
    from sparsenode.model._data import Cells
    from sparsenode.model._prediction import FittedTrajectories

# Cells × genes beyond which the two dense results would take more than 1.6 GB.
MAX_DENSE = 200_000_000
ORIENTATION = "rows are targets, columns are regulators"


class ResultsMixin(NetworkMixin, EvaluationMixin):
    """Method of :class:`sparsenode.SparseNODE` that writes results."""

    #: Table of :meth:`get_regularization_path` without the selection; ``None`` before training.
    regularization_path_: pd.DataFrame | None
    #: Strength, errors and feature sparsity of every replicate in every step of an iterative schedule; ``None`` without one.
    sparsification_: pd.DataFrame | None
    #: Only with ``objective="both"``, after training: history of the transport fit.
    network_history_: dict[str, pd.DataFrame] | None
    _regulators: list[int] | None

    def write_results(self, adata: AnnData | MuData | None = None, key_added: str = _keys.KEY_ADDED) -> None:
        """Write network, trajectories, velocities and scores into an AnnData; :meth:`train` calls it.

        Results of an earlier fit under the same key (those that its ``uns`` lists) are replaced. Nothing else is removed or overwritten.

        Parameters
        ----------
        adata
            Cells with exactly the genes of the model. Default: those of the model.
        key_added
            Prefix of the keys. Default: ``"sparsenode"``.

        Returns
        -------
        Nothing, but writes

        - ``.varp["{key_added}_adjacency"]``: signed sparse adjacency; rows are targets, columns are regulators. In second order the union
          of its blocks, which are in ``.varp["{key_added}_position_adjacency"]`` and ``.varp["{key_added}_velocity_adjacency"]``,
        - ``.varp["{key_added}_adjacency_{lineage}"]``: the same for each of several lineages, but not if they share a field that was fitted
          without transport,
        - ``.varp["{key_added}_frequency"]``: share of the seeds that find an edge, if there are several seeds,
        - ``.obsm["{key_added}_trajectory"]``: predicted expression of every cell, cells × genes. ``.uns["{key_added}"]["genes"]`` names its
          columns, which stay as they are when the genes of ``adata`` are subset or reordered,
        - ``.layers["{key_added}_velocity"]``: velocity of every cell, as in :meth:`get_velocity`,
        - ``.uns["{key_added}"]``: parameters, scores, sparsity, history, regularization path, and trajectories for the plots. ``"history"``
          is a table with a row per epoch and a column per metric; with ``objective="both"`` that of the trajectories, and
          ``"network_history"`` that of the transport fit. ``"written"`` lists the keys above that this fit wrote.

        With MuData they are written into the modality of the expression. If two modalities were fitted together, each gets its own part of
        ``.obsm`` and ``.layers``, and ``mdata`` gets ``.uns`` and ``.varp`` over the variables of both.

        Two kinds of results are left out, with a warning:

        - the dense ones (``.obsm``, ``.layers``), if there are more than 2e8 entries (cells × genes),
        - those that need trajectories (``.obsm``, scores, and velocities in second order or with a skip after the integration), if no
          trajectories were fitted and the solution diverges, as it may after transport. The network is written all the same.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        DivergenceError
            If trajectories were fitted, and those of these cells leave the finite numbers.
        KeyError
            If a key that the model was set up with is not in ``adata``.
        TypeError
            If ``adata`` is neither AnnData nor MuData, or holds values that are not numeric.
        ValueError
            If the genes are not those of the model, a lineage is new, or one of the keys above holds something that was not written by a
            fit under ``key_added``.

        Notes
        -----
        Do not use it for cells with other genes, or if dense results would be too large: :meth:`predict` and :meth:`get_velocity` return
        arrays and leave the AnnData unchanged.
        """
        self._require_trained()
        if isinstance(adata, MuData) and adata.is_view:
            raise ValueError("Expected `adata` to be no view of a MuData, which cannot be written to. Call `.copy()`.")
        self._write(self._cells(adata), adata, key_added)

    def _write(self, cells: Cells, adata: AnnData | MuData | None, key_added: str) -> None:
        """Write results for some cells into the data that they are from; public methods call it, for the sake of warnings."""
        target = cells.adata
        origin = self._origin(target, adata)
        self._check_target(target, origin, key_added)
        order = np.argsort(gene_positions(target, list(self.genes)))
        fitted = None
        try:
            fitted = self._integrate(cells)
        except DivergenceError as error:
            if self.fitted_ == "trajectory":
                raise
            warnings.warn(
                f"The trajectories of this {self._objective_name} fit diverge: its network was written, but neither predictions nor scores. "
                f"{error}",
                UserWarning,
                stacklevel=3,
            )
        networks = {
            key: sparse.csr_matrix(make()[np.ix_(order, order)].astype(np.float32))
            for key, make in self._networks(key_added, self._own_trajectories(cells, fitted)).items()
        }
        summary = self._summary(cells, fitted, order)
        dense = {}
        if _is_small(target):
            dense = self._dense(cells, fitted, order, key_added)
        else:
            warnings.warn(
                f"{target.n_obs} cells × {target.n_vars} genes are too many to store predictions of every cell: "
                "`.obsm` and `.layers` were not written. Use `predict` and `get_velocity` on subsets.",
                UserWarning,
                stacklevel=3,
            )
        remove_results(target, key_added)
        written = {"varp": networks} | dense
        for place, arrays in written.items():
            getattr(target, place).update(arrays)
        target.uns[key_added] = summary | {
            WRITTEN: {place: np.asarray(list(keys), dtype=str) for place, keys in written.items()}
        }
        if origin is not None and self._is_joint:
            spread_results(target, origin, self._modalities, key_added)

    def _dense(
        self, cells: Cells, fitted: FittedTrajectories | None, order: np.ndarray, key_added: str
    ) -> dict[str, dict[str, np.ndarray]]:
        """What goes to ``.obsm`` and ``.layers``, as far as trajectories are there for it."""
        dense: dict[str, dict[str, np.ndarray]] = {}
        if fitted is not None:
            dense["obsm"] = {_keys.trajectory(key_added): self._predict_cells(cells, fitted)[:, order]}
        if fitted is not None or not self._velocities_need_trajectories:
            velocities = self._velocities(cells, np.arange(len(cells.times)), self.selected_, fitted)
            dense["layers"] = {_keys.velocity(key_added): velocities[:, order]}
        return dense

    def _check_target(self, target: AnnData, origin: MuData | None, key_added: str) -> None:
        """Refuse data that cannot take the results, and keys that hold something else there or where they come from."""
        _checks.key_added(key_added)
        if target.n_vars != len(self.genes):
            raise ValueError(
                f"Expected the {len(self.genes)} genes of the model to write results, found {target.n_vars}. Select them with "
                "`adata[:, model.genes].copy()`, or pass `key_added=None` to `train`."
            )
        joint = origin if self._is_joint else None
        for data in (target, *([] if joint is None else [joint])):
            check_key(data, key_added)
        networks, dense = {"varp": list(self._networks(key_added))}, self._dense_keys(target, key_added)
        self._check_unread(dense)
        if joint is None:
            check_free(target, key_added, networks | dense, origin, self._modalities.get(EXPRESSION))
            return
        check_free(joint, key_added, networks)  # what was joined is the model's own
        for name in self._modalities.values():
            check_free(joint.mod[name], key_added, dense, joint, name)

    def _check_unread(self, dense: dict[str, list[str]]) -> None:
        """Refuse to replace what the model reads."""
        setup = self.registry["setup_args"]
        read = {"layers": (EXPRESSION, REGULATORS), "obsm": ("time_key", "lineage_key")}
        for place, keys in dense.items():
            for argument in read[place]:
                if setup.get(argument) in keys:
                    raise ValueError(
                        f"Expected keys of results that the model does not read, found `{place}[{setup[argument]!r}]`. Choose another "
                        "`key_added`."
                    )

    def _dense_keys(self, target: AnnData, key_added: str) -> dict[str, list[str]]:
        """Keys of what is written for every cell and gene, by place; none where it would be too large."""
        if not _is_small(target):
            return {}
        return {"obsm": [_keys.trajectory(key_added)], "layers": [_keys.velocity(key_added)]}

    def _own_trajectories(self, cells: Cells, fitted: FittedTrajectories | None) -> FittedTrajectories | None:
        """Trajectories of the model, where the signs of its edges are read along them, given those of some cells."""
        if self._is_training_data(cells):
            return fitted
        return self._integrate(None) if self.objective == "trajectory" else None

    def _networks(
        self, key_added: str, fitted: FittedTrajectories | None = None
    ) -> dict[str, Callable[[], np.ndarray]]:
        """What goes to ``.varp``: the key of every matrix, and what makes it; ``fitted`` as for :meth:`_edges`."""

        def adjacency(lineage: str | None = None, block: Block | None = None) -> np.ndarray:
            return self._edges(lineage, True, None, self._default_weights, block, fitted)

        found: dict[str, Callable[[], np.ndarray]] = {_keys.adjacency(key_added): adjacency}
        if self.module.n_fields > 1 or (self._couples_cells and len(self.lineages) > 1):
            for lineage in self.lineages:
                found[_keys.lineage_adjacency(lineage, key_added)] = partial(adjacency, lineage)
        if self.module.order == 2:
            for block in get_args(Block):
                found[_keys.block_adjacency(block, key_added)] = partial(adjacency, block=block)
        if len(self.module.seeds) > 1:
            found[_keys.frequency(key_added)] = lambda: self.get_edge_frequency().to_numpy()
        return found

    def _summary(self, cells: Cells, fitted: FittedTrajectories | None, order: np.ndarray) -> dict[str, Any]:
        """Everything that goes to ``.uns``, in types that h5ad can store, with genes in the order of the cells' data."""
        setup = {key: value for key, value in self.registry["setup_args"].items() if value is not None}
        table = cells.trajectories.rename_axis("name").reset_index()
        trajectories = {name: np.asarray(table[name], dtype=str) for name in ("name", "lineage", "batch")}
        summary = {
            "orientation": ORIENTATION,
            "setup": setup,
            "parameters": self._parameters(),
            "sparsity": self.get_sparsity().to_dict(),
            "genes": np.asarray(self.genes[order], dtype=str),
            "trajectories": trajectories,
        }
        if fitted is not None:
            start, end = cells.trajectories["start"].to_numpy(float), cells.trajectories["end"].to_numpy(float)
            grid = np.linspace(0.0, 1.0, fitted.states.shape[1])
            trajectories["times"] = start[:, None] + grid * (end - start)[:, None]
            trajectories["values"] = fitted.states[:, :, order].astype(np.float32)
            summary |= self._stored_scores(cells, fitted)
        for name, history in {"history": self.history_, "network_history": self.network_history_}.items():
            if history:
                summary[name] = history_table(history)
        if self.regularization_path_ is not None:
            summary["regularization_path"] = self.regularization_path_.copy()
        if self.sparsification_ is not None:
            summary["sparsification"] = self.sparsification_.copy()
        return summary

    def _stored_scores(self, cells: Cells, fitted: FittedTrajectories) -> dict[str, pd.DataFrame]:
        """What :meth:`evaluate` returns for all of these cells; of the model's, some or all, also for its held-out ones."""
        nulls, every = self._nulls(cells, fitted, forecast=False), np.ones(len(cells.times), dtype=bool)
        scores = {"scores": self._scores(cells, fitted, every, nulls)}
        held_out = self.validation_indices
        if self._is_training_data(cells) and held_out is not None and len(held_out) > 0:
            # Held-out positions are those in the model's own data.
            own = cells if cells.adata is self.adata else self._cells()
            scores["held_out_scores"] = self._scores(own, fitted, np.isin(np.arange(len(own.times)), held_out), nulls)
        return scores

    def _parameters(self) -> dict[str, Any]:
        """Arguments of the model as strings and numbers."""
        arguments = self.init_params_["non_kwargs"]
        kept: dict[str, Any] = {key: value for key, value in arguments.items() if isinstance(value, str | Number)}
        kept |= {"regularizer": repr(self.module.regularizer), "hidden": list(map(int, arguments["hidden"]))}
        if "objective" not in kept:  # the default, or one with settings of its own
            kept["objective"] = self.objective if isinstance(self.objective, str) else repr(self.objective)
        if self._regulators is not None:
            kept["regulators"] = np.asarray(self.genes[self._regulators], dtype=str)
        return kept | {"weights": self._default_weights, "selected_replicate": self.selected_}


def _is_small(target: AnnData) -> bool:
    """Whether results for every cell and gene are written."""
    return target.n_obs * target.n_vars <= MAX_DENSE
