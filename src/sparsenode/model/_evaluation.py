"""How well a model predicts, beside trivial predictors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from sparsenode import _checks
from sparsenode._input._observations import TOTAL
from sparsenode.model._prediction import InitialVelocities, PredictionMixin

if TYPE_CHECKING:
    from sparsenode.model._data import Cells
    from sparsenode.model._prediction import FittedTrajectories
    from sparsenode.objectives._nulls import NullModels

_LATER = 1e-9  # times within rounding of the end of a trajectory are no forecasts
Nulls = Callable[[int, np.ndarray], dict[str, np.ndarray]]


class EvaluationMixin(PredictionMixin):
    """Methods of :class:`sparsenode.SparseNODE` that score predictions."""

    #: Null models of :meth:`evaluate`, fitted to the training cells; ``None`` before training.
    null_models_: NullModels | None

    def evaluate(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        replicate: int | Literal["mean"] | None = None,
        forecast: bool = False,
        initial_velocity: InitialVelocities | None = None,
    ) -> pd.DataFrame:
        r"""Mean squared error of the predicted trajectories, beside null models that know no dynamics.

        Parameters
        ----------
        adata
            Cells to score. Default: those of the model, training cells among them. Another donor starts from its own early cells; genes are
            matched by name. A subset of the cells of the model stays on its trajectories.
        indices
            Cells to score, by position or as a mask. Default: all. ``model.validation_indices`` are the held-out ones.
        replicate
            Replicate to use. Default: the selected one. ``"mean"``: the mean of the trajectories of all replicates, as in :meth:`predict`.
        forecast
            ``False``, the default: every trajectory of another donor is a new one that starts from its own early cells at its own first
            time. ``True``: continue the trajectories of the model. Cells of ``adata`` belong to them by lineage and batch, and only those
            later than their last cell are scored.
        initial_velocity
            As in :meth:`predict`; ``"observed"`` not with ``forecast``.

        Returns
        -------
        One row per trajectory, and a last row ``total`` over the cells of all trajectories. A cell counts in each of its lineages, with its
        weight. The columns are

        - ``n_cells``: number of cells with a positive weight,
        - ``mse``: squared error, mean over cells and genes, in squared units of the data,
        - ``null_zero``: the same for the prediction zero,
        - ``null_initial``: for the initial state, kept constant,
        - ``null_mean``: for the mean of the lineage in the training data,
        - ``null_smoothed``: for the training cells of the lineage, smoothed over time with a Gaussian of bandwidth 0.05 of its length. With
          ``align_batches=True`` time is each batch's share of its own length; otherwise the common pseudotime, beyond whose ends it is
          flat,
        - ``null_linear``, only in second order: for linear extrapolation from the initial state with the slope of the early cells,
        - ``skill``: :math:`1 - \mathrm{mse} / \min(\text{null models})`. Positive if the model beats all of them; negative infinity if one
          of them is exact, as in a lineage that does not vary.

        With ``forecast`` the null models are instead

        - ``null_persistence``: the value at the end of the training trajectory, kept constant,
        - ``null_linear``: linear extrapolation from that value with the slope there. Both come from local linear regression with a
          bandwidth of 0.05; in second order mostly from the last four frames,
        - ``null_mean``: the mean of the training trajectory.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        IndexError
            If an index is out of range, or ``indices`` have several dimensions.
        KeyError
            If a key that the model was set up with is not in ``adata``.
        TypeError
            If ``adata`` is neither AnnData nor MuData, or holds values that are not numeric; if ``indices`` are neither integers nor
            booleans; or if ``forecast`` is not True or False.
        ValueError
            If genes are missing, a lineage is new (with ``forecast`` also a batch), the replicate does not exist, no cell is left, or
            ``initial_velocity="observed"`` is asked for in first order or with ``forecast``.
        DivergenceError
            If a solution leaves the finite numbers, as long forecasts may.

        Notes
        -----
        Do not judge a model by its training cells: ``null_smoothed`` has seen the answer there, and no smooth curve does much better. Score
        held-out cells, or better another donor.
        """
        self._require_trained()
        _checks.booleans(forecast=forecast)
        observed = self._observed(initial_velocity)
        if forecast and initial_velocity == "observed":
            raise ValueError("Expected `initial_velocity='network'` with `forecast`, found 'observed'.")
        cells = self._cells(adata, continued=forecast)
        chosen = np.zeros(len(cells.times), dtype=bool)
        chosen[_checks.cell_indices(indices, len(chosen))] = True
        if not chosen.any():
            raise ValueError(
                "Expected cells to evaluate, found none in `indices`. `model.validation_indices` are empty if no cells were held out, or if the "
                "model was given other cells than it was trained on."
            )
        if forecast:
            later = (cells.times > 1.0 + _LATER) & (cells.weights > 0) & chosen[:, None]
            if not later.any():
                raise ValueError(
                    "Expected cells later than the training trajectories to forecast, found none: these end at "
                    f"{self.trajectories['end'].max():g} or before."
                )
            cells = replace(cells, weights=np.where(later, cells.weights, 0.0))
            fitted = self._integrate(None, float(cells.times[later].max()), replicate, observed)
        else:
            fitted = self._integrate(cells, replicate=replicate, observed=observed)
        return self._scores(cells, fitted, chosen, self._nulls(cells, fitted, forecast))

    def _nulls(self, cells: Cells, fitted: FittedTrajectories, forecast: bool) -> Nulls:
        """Predictions of the null models for times in one of the trajectories."""
        nulls = cast("NullModels", self.null_models_)  # there, as the model is trained
        if forecast:
            return nulls.forecast
        slopes = self._initial_slopes(cells) if self.module.order == 2 else None
        clocks = self._lineage_clocks(cells)

        def predict(m: int, times: np.ndarray) -> dict[str, np.ndarray]:
            start, end = clocks[m]
            found = nulls.predict(cells.lineages[m], start + (end - start) * times, fitted.initial_state[m])
            if slopes is not None:
                found["null_linear"] = fitted.initial_state[m] + times[:, None] * slopes[m]
            return found

        return predict

    def _scores(self, cells: Cells, fitted: FittedTrajectories, chosen: np.ndarray, nulls: Nulls) -> pd.DataFrame:
        """The table of :meth:`evaluate`."""
        n = len(cells.lineages)
        n_cells, weight = np.zeros(n, dtype=np.int64), np.zeros(n)
        errors: dict[str, np.ndarray] = {}
        scored = np.flatnonzero(chosen & (cells.weights > 0).any(1))
        for first, x in cells.chunks(scored):
            rows = scored[first : first + len(x)]
            for m in range(n):
                members = cells.weights[rows, m] > 0
                if not members.any():
                    continue
                times, w = cells.times[rows[members], m], cells.weights[rows[members], m]
                predictions = {"mse": fitted.at(m, times), **nulls(m, times)}
                for name, prediction in predictions.items():
                    squares = w @ np.square(x[members] - prediction).sum(1)
                    errors.setdefault(name, np.zeros(n))[m] += squares
                n_cells[m] += members.sum()
                weight[m] += w.sum()
        present = n_cells > 0
        sums = pd.DataFrame(errors, index=pd.Index(cells.trajectories.index, name="trajectory"))[present]
        table = sums.div(weight[present] * len(self.genes), axis=0)
        table.insert(0, "n_cells", n_cells[present])
        table.loc[TOTAL] = [n_cells.sum(), *(sums.sum() / (weight.sum() * len(self.genes)))]
        table["n_cells"] = table["n_cells"].astype(np.int64)
        names = [name for name in errors if name != "mse"]
        table["skill"] = 1.0 - table["mse"] / table[names].min(axis=1)
        return table
