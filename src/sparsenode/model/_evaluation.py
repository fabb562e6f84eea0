"""How well a model predicts, beside trivial predictors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from sparsenode.model import _checks
from sparsenode.model._prediction import PredictionMixin
from sparsenode.objectives._nulls import NULL_NAMES

if TYPE_CHECKING:
    from sparsenode.model._data import Cells
    from sparsenode.model._prediction import FittedTrajectories
    from sparsenode.objectives import NullModels

TOTAL = "total"


class EvaluationMixin(PredictionMixin):
    """Methods of :class:`sparsenode.SparseNODE` that score predictions."""

    null_models_: NullModels | None

    def evaluate(
        self, adata: AnnData | MuData | None = None, indices: Sequence[int] | None = None, replicate: int | None = None
    ) -> pd.DataFrame:
        r"""Mean squared error of the predicted trajectories, beside null models that know no dynamics.

        Parameters
        ----------
        adata
            Cells to score; those of the model by default, training cells among them. Another donor is matched by gene
            name and starts from its own early cells.
        indices
            Cells to score, all by default; ``model.validation_indices`` are the held-out ones.
        replicate
            Replicate to use; the selected one by default.

        Returns
        -------
        One row per trajectory and a last row ``total`` over all cells of all trajectories, so a cell counts in each of
        its lineages, with its weight. The columns are

        - ``n_cells``: number of cells with a positive weight,
        - ``mse``: mean over cells and genes of the squared error, in squared units of the data,
        - ``null_zero``: the same for the prediction zero,
        - ``null_initial``: for the initial state, held,
        - ``null_mean``: for the mean of the lineage in the training data,
        - ``null_smoothed``: for the training cells of the lineage, smoothed over time with a Gaussian of bandwidth 0.05,
        - ``skill``: :math:`1 - \mathrm{mse} / \min(\text{null models})`. It is positive if the model beats all of them.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If genes are missing, a lineage is new, or no cell is left.

        Notes
        -----
        On the training cells ``null_smoothed`` has seen the answer, and no smooth curve does much better. Look at
        held-out cells, or better at another donor.
        """
        self._require_trained()
        cells = self._cells(adata)
        chosen = np.zeros(len(cells.times), dtype=bool)
        chosen[_checks.cell_indices(indices, len(chosen))] = True
        if not chosen.any():
            raise ValueError("Expected cells to evaluate, found none in `indices`.")
        errors, n_cells, weight = self._squared_errors(cells, self._integrate(cells, replicate=replicate), chosen)
        present = n_cells > 0
        table = pd.DataFrame(errors[present] / (weight[present, None] * len(self.genes)), columns=["mse", *NULL_NAMES])
        table.insert(0, "n_cells", n_cells[present])
        table.index = pd.Index(cells.trajectories.index[present], name="trajectory")
        table.loc[TOTAL] = [n_cells.sum(), *(errors.sum(0) / (weight.sum() * len(self.genes)))]
        table["n_cells"] = table["n_cells"].astype(np.int64)
        table["skill"] = 1.0 - table["mse"] / table[list(NULL_NAMES)].min(axis=1)
        return table

    def _squared_errors(
        self, cells: Cells, fitted: FittedTrajectories, chosen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weighted sums of squared errors, trajectories × (model, null models), and the numbers and weights of cells."""
        if self.null_models_ is None:
            raise RuntimeError("Expected null models, found none. Call `train()` first.")
        n = len(cells.lineages)
        errors, n_cells, weight = np.zeros((n, 1 + len(NULL_NAMES))), np.zeros(n, dtype=np.int64), np.zeros(n)
        for first, x in cells.chunks():
            rows = slice(first, first + len(x))
            for m, lineage in enumerate(cells.lineages):
                members = (cells.weights[rows, m] > 0) & chosen[rows]
                if not members.any():
                    continue
                times, w = cells.times[rows, m][members], cells.weights[rows, m][members]
                nulls = self.null_models_.predict(lineage, times, fitted.initial_state[m])
                for column, prediction in enumerate([fitted.at(m, times), *(nulls[name] for name in NULL_NAMES)]):
                    errors[m, column] += w @ np.square(x[members] - prediction).sum(1)
                n_cells[m] += members.sum()
                weight[m] += w.sum()
        return errors, n_cells, weight
