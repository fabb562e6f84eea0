"""The cells that a model holds, against those that it was made for and trained on."""

from __future__ import annotations

import copy
import hashlib
import warnings
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from sparsenode._input import _expression
from sparsenode._logging import logger
from sparsenode.model._data import Cells, sums_differ
from sparsenode.model._fields import TRAJECTORIES
from sparsenode.model._prediction import PredictionMixin

_N_COMPARED = 64  # cells whose expression tells whether it was changed
_N_SUMS = 2  # over the cells of a trajectory, which tell whether their times or weights were changed


class OwnCellsMixin(PredictionMixin):
    """What :class:`sparsenode.SparseNODE` does where its cells are not those that it was made for."""

    #: How the data were set up, as scvi-tools keeps it.
    registry_: dict[str, Any]
    #: Positions of the cells that were trained on; empty in a model that was given other cells or another order.
    train_indices: Any
    #: Positions of the held-out cells; empty in a model that was given other cells or another order.
    validation_indices: Any
    #: Positions of all other cells; empty in a model that was given other cells or another order.
    test_indices: Any
    #: Digest of the cell names, in order, at the start of the last training; ``None`` before training.
    cells_digest_: str | None
    #: A few numbers that identify the expression of these cells; ``None`` before training, with other cells, and if data are not in memory.
    fingerprints_: np.ndarray | None
    #: Sums that identify their times and weights in each trajectory; ``None`` before training and with other cells.
    arrangement_: np.ndarray | None

    @property
    def adata(self) -> Any:
        """Cells of the model. If other cells are assigned, it forgets which ones were held out."""
        return super().adata

    @adata.setter
    def adata(self, adata: AnnData | MuData) -> None:
        if isinstance(adata, MuData):
            adata = self._take_mudata(adata)
        super(OwnCellsMixin, type(self)).adata.fset(self, adata)
        if "trajectories" in self.__dict__:
            self._register_trajectories()
        self._check_held_out()

    @classmethod
    def load(cls, dir_path: str, adata: AnnData | None = None, *args: Any, **kwargs: Any) -> Any:
        """Load a saved model, as :meth:`scvi.model.base.BaseModelClass.load` does.

        Parameters
        ----------
        dir_path
            Folder that :meth:`save` wrote to.
        adata
            Cells of the model. Default: those that were saved with it. Genes are matched by name, in any order. ``False`` loads the model
            without cells; all cells that it is given then count as another donor, even its own.
        *args, **kwargs
            Further arguments of that method.

        Returns
        -------
        The model.

        Notes
        -----
        Load it with the cells that it was trained on, in their order. Otherwise a log message says that its held-out cells are not known.
        Do not load it with some of these cells: they count as another donor, whose pseudotime is stretched to the whole length
        (``align_batches``). Load all cells and pass ``indices``.
        """
        if not (adata is None or adata is False or isinstance(adata, AnnData | MuData)):
            raise TypeError(
                f"Expected `adata` to be an AnnData or MuData object, found {type(adata).__name__}. A file has to be read first."
            )
        with warnings.catch_warnings():
            # Genes of the model that are missing are an error of its own.
            warnings.filterwarnings("ignore", "`?var_names`? for", UserWarning)
            try:
                model = super().load(dir_path, adata, *args, **kwargs)
            except AttributeError as error:
                if not isinstance(error.obj, np.ndarray):
                    raise
                # scvi-tools looks for the genes of each modality, and there is none.
                raise TypeError(
                    "Expected `adata` to be a MuData object, from which the model was made, found AnnData. Pass the MuData that holds it: "
                    '`MuData({"rna": adata})`, if that was the name of the modality.'
                ) from error
        if model.adata is None:
            logger.info("Loaded without cells: all cells that it is given count as another donor, its own among them.")
        return model

    def _cells(self, adata: AnnData | MuData | None = None, continued: bool = False) -> Cells:
        """As for :class:`PredictionMixin`; warns where the model's own cells were changed since training."""
        cells = super()._cells(adata, continued)
        if cells.adata is self.adata:
            self._warn_of_other_expression(cells)
            if self.arrangement_ is not None and sums_differ(self.arrangement_, self._arrangement(cells)):
                warnings.warn(
                    "Times, lineages or batches of the cells are no longer those that the model was trained on. The present ones are "
                    "used. If they are those of another model that was set up with the same keys, errors and predictions of cells are wrong: "
                    "give each model its own columns or its own AnnData.",
                    UserWarning,
                    stacklevel=3,
                )
        return cells

    def _warn_of_other_expression(self, cells: Cells) -> None:
        """Warn where the expression of some of the model's cells is another than in training, as far as that is known."""
        if self.fingerprints_ is not None and sums_differ(self.fingerprints_, _some_fingerprints(cells)):
            place = _expression.place(self.registry["setup_args"]["layer"])
            warnings.warn(
                f"Cells or their expression in {place} are no longer those that the model was trained on. Predictions are in the units of "
                "the training; errors, and what is computed from the cells, are wrong. Put them back, and keep what is changed in a copy "
                "or in other layers.",
                UserWarning,
                stacklevel=4,
            )

    def _arrangement(self, cells: Cells) -> np.ndarray:
        """Sums over the cells of each trajectory with random signs and sizes: of times in units of the model's range, and of weights."""
        start, end = self.trajectories["start"].min(), self.trajectories["end"].max()
        clock = (cells.trajectories["start"].to_numpy(float) + cells.times * cells.spans - start) / (end - start)
        sums = np.random.default_rng(0).normal(size=(_N_SUMS, len(clock)))
        return np.stack([sums @ np.where(cells.weights > 0, clock, 0.0), sums @ (cells.weights / cells.weights.max())])

    def _training_cells(self) -> Cells:
        """Cells of the model's data, in the trajectories that it was made for; their numbers and times may differ."""
        cells = super()._cells()
        self._warn_of_other_expression(cells)
        known, found = (
            [f"{lineage}, {batch}" for lineage, batch in zip(table["lineage"], table["batch"], strict=True)]
            for table in (self.trajectories, cells.trajectories)
        )
        if found != known:
            new, missing = (
                [name for name in one if name not in other][:5] for one, other in ((found, known), (known, found))
            )
            raise ValueError(
                f"Expected the trajectories (lineage, batch) that the model was made for to train it, found new ones {new} and missing "
                f"ones {missing}. Name lineages and batches as in the data that it was made with, or make a new model."
            )
        return cells

    def _take_clock(self, cells: Cells) -> None:
        """Take names, numbers and times of the cells that are trained on, which may differ from those that were set up."""
        self.cells_digest_ = _digest(self.adata.obs_names)
        self.fingerprints_ = _some_fingerprints(cells)
        if not cells.trajectories.equals(self.trajectories):
            self.trajectories = cells.trajectories
            self._register_trajectories()
        self.arrangement_ = self._arrangement(cells)

    def _register_trajectories(self) -> None:
        """Write the trajectories of the model into its registry, where :meth:`load` looks for them."""
        self.registry_ = copy.deepcopy(self.registry_)  # other models may share it
        state = self.registry_["field_registries"][TRAJECTORIES]["state_registry"]
        state["trajectories"] = self.trajectories.reset_index().to_dict("list")

    def _check_held_out(self) -> None:
        """Forget which cells were held out if the model was given other cells, or its own in another order."""
        if self.adata is None or self.train_indices is None:
            return
        if self.cells_digest_ == _digest(self.adata.obs_names) and self._is_training_data(super()._cells()):
            return
        self.train_indices = self.validation_indices = self.test_indices = np.arange(0)
        self.fingerprints_ = self.arrangement_ = None
        logger.warning(
            "The model was given other cells than it was trained on, or its own in another order: `train_indices`, "
            "`validation_indices` and `test_indices` are empty. If these are some of its cells, give it all of them and pass "
            "`indices`: now they count as another donor%s.",
            ", whose pseudotime is stretched to the whole length" if self._align_batches else "",
        )


def _some_fingerprints(cells: Cells) -> np.ndarray | None:
    """Two numbers for each of some cells, if their expression is in memory: to read it for them alone would take too long."""
    try:
        x = _expression.expression(cells.adata, cells.layer)
        rows = np.unique(np.linspace(0, len(cells.times) - 1, _N_COMPARED).astype(int))  # spread evenly
        return cells.fingerprints(rows) if _expression.is_in_memory(x) else None
    except (KeyError, TypeError, ValueError):  # gone, or no finite numbers: an error of what needs it, and not all does
        return None


def _digest(names: pd.Index) -> str:
    """One string for names in their order."""
    return hashlib.sha256("\n".join(map(str, names)).encode()).hexdigest()
