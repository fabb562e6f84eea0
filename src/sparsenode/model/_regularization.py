"""Which strength to use, smaller networks, and whose methods a model stands on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.resources import files
from time import perf_counter
from types import EllipsisType
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch

from sparsenode import _checks
from sparsenode.model._results import ResultsMixin
from sparsenode.module._prune import prune_field
from sparsenode.training._splitter import StatisticsSplitter
from sparsenode.training._threads import limited_threads

Rule = Literal["best", "one_standard_error", "sparsity"]
_N_REPEATS = 30  # of one evaluation of the field, whose median is its cost
_MAX_ITEMS = 5000  # held-out cells from which standard errors are computed
_MODEL_CITATIONS = ("aliee2022sparsity", "chen2018neural")
_OBJECTIVE_CITATIONS = {
    "both": "schiebinger2019optimal",
    "transport": "schiebinger2019optimal",
    "collocation": "craven1979smoothing",
}


def _warn_at_an_end(strengths: pd.Index, chosen: float) -> None:
    """Say that the best strength may lie beyond those of the path."""
    if len(strengths) == 1 or strengths.min() < chosen < strengths.max() or chosen == 0:
        return  # nothing is weaker than no penalty
    weak = chosen == strengths.min()
    warnings.warn(
        f"The {'weakest' if weak else 'strongest'} of {len(strengths)} strengths was chosen, {chosen:g}. "
        + ("Weaker ones may predict better" if weak else "Stronger ones may predict as well with fewer edges")
        + f": fit a path that goes {'down' if weak else 'up'} to {chosen / 10 if weak else chosen * 10:g}.",
        UserWarning,
        stacklevel=4,
    )


class RegularizationMixin(ResultsMixin):
    """Methods of :class:`sparsenode.SparseNODE` that concern the regularizer."""

    #: What the last training fitted (trajectories, displacements of single cells, or derivatives); ``None`` before training.
    fitted_: str | None
    #: Key under which the last training wrote its results; ``None`` if it wrote none.
    key_added_: str | None
    _seed: int
    #: What :meth:`prune` left: widths of the hidden layers (``hidden``) and coordinates of the state that are read (``inputs``).
    pruned_: dict[str, list[int]] | None

    def get_regularization_path(self, regulators: Sequence[str] | None = None) -> pd.DataFrame:
        """Errors and sparsities of every replicate.

        Parameters
        ----------
        regulators
            Genes that may regulate, for ``spurious_sparsity``, as in :meth:`get_sparsity`. Default: the ``regulators`` of the model.

        Returns
        -------
        One row per replicate; the index is named ``replicate``. The columns are

        - ``strength``, ``seed``; after an iterative schedule the full strength, which not every replicate may have reached (see
          ``sparsification_``),
        - ``train_error``, ``validation_error``: squared error as a share of the variance around the trajectory means (trajectories), of the
          variance of displacements (transport) or of the squared slopes (collocation). Gates are as at test time. Trajectories are solved
          with the tolerance of training; :meth:`predict` has a smaller one. ``validation_error`` is ``NaN`` if no cell was held out,
        - ``validation_se``: standard error of ``validation_error`` over held-out cells, each with all its trajectories; beyond 5000 cells
          estimated from 5000,
        - ``difference_se``: standard error, over the same cells, of the difference between the error of this strength and that of the best
          one, both means over seeds,
        - ``feature_sparsity``, ``weight_sparsity``: shares of zeros in the adjacency and in the weights; after :meth:`prune` in the weights
          that are left,
        - ``spurious_sparsity``: share of zeros in the columns of genes that are not among ``regulators``. Of those of the model, which is
          the share that :func:`sparsenode.pl.regularization_path` shows, it is 1; ``NaN`` without regulators,
        - ``selected``: whether this is the replicate that other methods report.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        TypeError
            If ``regulators`` is a string.
        ValueError
            If no regulator is among the genes.

        Notes
        -----
        Held-out cells belong to the trajectories that were fitted. Do not take their errors for those on another donor; use
        :meth:`evaluate`.
        """
        self._require_trained()
        if self.regularization_path_ is None:
            raise RuntimeError("Expected a regularization path, found none: the training diverged.")
        table = self.regularization_path_.copy()
        if regulators is not None:
            table["spurious_sparsity"] = [self.get_sparsity(regulators, replicate=r)["spurious"] for r in table.index]
        table["selected"] = table.index == self.selected_
        return table

    def select(
        self,
        rule: Rule = "one_standard_error",
        sparsity: float | None = None,
        key_added: str | EllipsisType | None = ...,
    ) -> pd.Series:
        """Choose the strength by a rule, and of its replicates the one with the smallest error.

        Replicates that were given up cannot be chosen, and do not count in means over seeds.

        Parameters
        ----------
        rule
            How to choose the strength, by means over seeds.

            - ``"one_standard_error"``, the default: the largest strength whose held-out error is at most one standard error of the
              difference above the smallest. For a network, which matters more than the last per cent of the error. The difference is taken
              cell by cell, so that cells that every strength predicts badly do not blur it. Differences within the squared tolerance of the
              solver do not count.
            - ``"best"``: the smallest held-out error.
            - ``"sparsity"``: the smallest strength whose feature sparsity is at least ``sparsity``.
        sparsity
            Target of the rule ``"sparsity"``, in ``[0, 1]``.
        key_added
            Key under which results are written again, as by :meth:`write_results`. Default: that of the last :meth:`train`. ``None`` writes
            nothing. If the trajectories of a transport or collocation fit diverge, what needs them is left out, with a warning.

        Returns
        -------
        The row of :meth:`get_regularization_path` of the replicate that other methods report from now on.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        DivergenceError
            As for :meth:`write_results`; the selection is then unchanged.
        ValueError
            If the rule is unknown, ``sparsity`` is given with another rule, the rule needs held-out cells and there are none, no strength
            is sparse enough, or the key cannot take results.

        Notes
        -----
        The rule of one standard error is that of Breiman, Friedman, Olshen and Stone (1984), *Classification and regression trees*, with
        the standard error of a paired difference. If this rule or ``"best"`` chooses the weakest or strongest of several strengths, a
        warning says that the path may end too early. With large noise, held-out cells of the same trajectories hardly tell strengths apart.
        Do not take the error of the selected replicate for its error on new data: it was selected for being small.
        """
        _checks.choice("rule", rule, get_args(Rule))
        if sparsity is not None and rule != "sparsity":
            raise ValueError(f"Expected `sparsity` with `rule='sparsity'` only, found {sparsity!r} with {rule!r}.")
        table = self.get_regularization_path().drop(index=self.given_up_)
        strength = self._chosen_strength(table, rule, sparsity)
        rows = table[table["strength"] == strength]
        column = "train_error" if rows["validation_error"].isna().all() else "validation_error"
        before, self.selected_ = self.selected_, int(rows.index[int(rows[column].argmin())])
        key = self.key_added_ if isinstance(key_added, EllipsisType) else key_added
        if key is not None and self.adata is not None:
            try:
                self._write(self._cells(), None, key)
            except BaseException:  # an interruption too
                self.selected_ = before  # results that are there are of that one
                raise
        return self.get_regularization_path().iloc[self.selected_]

    def _chosen_strength(self, table: pd.DataFrame, rule: Rule, sparsity: float | None) -> float:
        """The strength that a rule chooses, with a warning where a better one may not be among those of the path."""
        by_strength = table.groupby("strength")[["validation_error", "difference_se", "feature_sparsity"]].mean()
        if rule == "sparsity":
            _checks.share("sparsity", sparsity)
            enough = by_strength.index[by_strength["feature_sparsity"] >= sparsity]
            if len(enough) == 0:
                raise ValueError(
                    f"Expected a strength with a feature sparsity of {sparsity} or more, found at most "
                    f"{by_strength['feature_sparsity'].max():.3f}. Fit larger strengths."
                )
            return enough.min()
        error = by_strength["validation_error"]
        if error.isna().all():
            advice = "Lower `train_size`."
            if self.fitted_ == "collocation":
                advice = "Collocation has none: refit first, `train(objective='trajectory', refit=True)`."
            raise ValueError(f"Expected a held-out error for the rule {rule!r}, found none. {advice}")
        best = int(np.nanargmin(error.to_numpy()))
        strength = by_strength.index[best]
        if rule == "one_standard_error":
            solver = self.module.solver
            limit = error.iloc[best] + by_strength["difference_se"].fillna(0.0) + (solver.rtol + solver.atol) ** 2
            strength = by_strength.index[error <= limit].max()
        if self._is_empty(table.index[table["strength"] == strength]):
            self._warn_of_no_edges(table, strength)
        else:
            _warn_at_an_end(by_strength.index, strength)
        return strength

    def _warn_of_no_edges(self, table: pd.DataFrame, chosen: float) -> None:
        """Say that the best strength leaves no edge, and which one does."""
        advice = f"Fit a path of weaker ones, below {chosen:g}."
        for strength in sorted(table["strength"][table["strength"] < chosen].unique(), reverse=True):
            replicates = table.index[table["strength"] == strength]
            if not self._is_empty(replicates):
                advice = f"The strongest with edges is {strength:g}: `get_network(replicate={replicates[0]})` is one of its networks."
                break
        warnings.warn(
            f"No edge between different genes is left at the strength that was chosen, {chosen:g}: held-out cells are predicted as well "
            f"without. {advice}",
            UserWarning,
            stacklevel=4,
        )

    @torch.no_grad()
    def _is_empty(self, replicates: pd.Index) -> bool:
        """Whether these replicates have no edge between different genes."""
        own = np.tile(np.eye(len(self.genes), dtype=bool), self.module.order)
        return not any((self._paths(replicate).cpu().numpy() != 0)[:, ~own].any() for replicate in replicates)

    @torch.no_grad()
    def _make_path(self, splitter: StatisticsSplitter, regulators: list[int] | None) -> pd.DataFrame:
        """Table of :meth:`get_regularization_path`, without the selection."""
        module = self.module
        module.eval()
        errors = {}
        for name, tensors in (("train", splitter.batches.full), ("validation", splitter.batches.validation)):
            errors[name] = np.full(module.n_replicates, np.nan)
            if tensors is not None:
                _, output = module({key: value.to(module.device) for key, value in tensors.items()})
                errors[name] = output.extra_metrics["error"].double().cpu().numpy()
            errors[name][self.given_up_] = np.inf
        items, n_cells = self._held_out_errors(splitter, errors["validation"])
        sparsities = module.sparsity()
        spurious = np.full(module.n_replicates, np.nan)
        if regulators is not None and len(regulators) < len(self.genes):
            others = np.setdiff1d(np.arange(len(self.genes)), regulators)
            columns = np.concatenate([others + block * len(self.genes) for block in range(module.order)])
            matrices = (self._paths(replicate) for replicate in range(module.n_replicates))
            spurious = np.array([float((matrix[..., columns] == 0).double().mean()) for matrix in matrices])
        return pd.DataFrame(
            {
                "strength": np.repeat(module.regularizer.strength, len(module.seeds)),
                "seed": np.tile(module.seeds, len(module.regularizer.strength)),
                "train_error": errors["train"],
                "validation_error": errors["validation"],
                "validation_se": items.std(1, ddof=1) / np.sqrt(n_cells),
                "difference_se": self._differences(items, errors["validation"]).std(1, ddof=1) / np.sqrt(n_cells),
                "feature_sparsity": sparsities[:, 0],
                "weight_sparsity": sparsities[:, 1],
                "spurious_sparsity": spurious,
            },
            index=pd.RangeIndex(module.n_replicates, name="replicate"),
        )

    def _differences(self, items: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """Held-out errors of cells less those of the strength with the smallest error, both means over seeds: replicates × cells."""
        n_seeds = len(self.module.seeds)
        # Replicates that were given up have no errors.
        mean, total = (
            np.ma.masked_invalid(values.reshape(-1, n_seeds, *values.shape[1:])).mean(1).filled(np.nan)
            for values in (items, errors)
        )
        if np.isnan(total).all():
            return np.full_like(items, np.nan)
        return np.repeat(mean - mean[np.nanargmin(total)], n_seeds, axis=0)

    def _held_out_errors(self, splitter: StatisticsSplitter, mean: np.ndarray) -> tuple[np.ndarray, int]:
        """Errors of single held-out cells, replicates × cells, whose mean is the held-out error, and the number of these cells.

        They are of some cells where there are many.
        """
        items, n_cells = self._held_out_squares(splitter)
        if n_cells < 2:
            return np.full((self.module.n_replicates, 2), np.nan), 2
        items = items * (mean / items.mean(1))[:, None]
        items[self.given_up_] = np.nan
        return items, n_cells

    def _held_out_squares(self, splitter: StatisticsSplitter) -> tuple[np.ndarray, int]:
        """Squared errors of some held-out cells, each the sum over its trajectories: replicates × cells; and the number of all."""
        held_out, tensors = splitter.val_idx, splitter.batches.validation
        if tensors is None:
            return np.empty((self.module.n_replicates, 0)), 0
        if "slope" in tensors:
            on_device = {key: value.to(self.module.device) for key, value in tensors.items()}
            errors = self.module.pair_errors(self.module.field.effective_weights(), on_device).double().cpu().numpy()
            known, place = np.unique(tensors["cell"].numpy(), return_inverse=True)
            return np.stack([np.bincount(place, row, len(known)) for row in errors]), len(known)
        n_cells = len(held_out)
        if n_cells > _MAX_ITEMS:
            held_out = np.sort(np.random.default_rng(self._seed).choice(held_out, _MAX_ITEMS, replace=False))
        cells, fitted, scale = self._cells(), self._integrate_all(None), self._units[1]
        squares = np.zeros((self.module.n_replicates, len(held_out)))
        for first, x in cells.chunks(held_out):
            here = slice(first, first + len(x))
            times, weights = cells.times[held_out[here]], cells.weights[held_out[here]]
            for m in range(weights.shape[1]):
                members = weights[:, m] > 0
                for own, one in zip(squares, fitted, strict=True):
                    error = np.square((x[members] - one.at(m, times[members, m])) / scale).sum(1)
                    own[here][members] += error * weights[members, m]
        return squares, n_cells

    def prune(self) -> pd.Series:
        """Permanently remove hidden units and regulators that no open path passes through.

        Predictions do not change beyond rounding. Constant units are folded into the biases of the next layer. All replicates keep as many
        units as the one that needs the most.

        Returns
        -------
        Series with ``n_parameters_before`` and ``n_parameters_after``, ``seconds_before`` and ``seconds_after`` (of one evaluation of the
        field), and ``speed_up``.

        Raises
        ------
        RuntimeError
            If the model is not trained.

        Notes
        -----
        It pays if whole units are off: with ``gates="unit"``, and after strong penalties. A pruned model can be saved, loaded and trained
        further, but what was removed does not come back.
        """
        self._require_trained()
        before = self._cost()
        field, kept = prune_field(self.module.field)
        self.module.field = field
        self.pruned_ = kept
        if self.regularization_path_ is not None:
            self.regularization_path_["weight_sparsity"] = self.module.sparsity()[:, 1]
        after = self._cost()
        return pd.Series(
            {
                "n_parameters_before": before[0],
                "n_parameters_after": after[0],
                "seconds_before": before[1],
                "seconds_after": after[1],
                "speed_up": before[1] / after[1],
            },
            name="prune",
        )

    @torch.no_grad()
    def _cost(self) -> tuple[int, float]:
        """Number of parameters, and median seconds of one evaluation of the field."""
        field = self.module.field
        effective = field.effective_weights()
        x = torch.zeros(
            field.n_networks, len(self.module.lineages), field.architecture.n_state, device=self.module.device
        )
        seconds = []
        with limited_threads(self.module):
            for _ in range(_N_REPEATS):
                start = perf_counter()
                field.evaluate(x, effective)
                if x.device.type == "cuda":  # which works on while Python goes on
                    torch.cuda.synchronize(x.device)
                seconds.append(perf_counter() - start)
        return sum(p.numel() for p in field.parameters()), float(np.median(seconds))

    def citation(self) -> str:
        """BibTeX entries of the methods that this model uses.

        Returns
        -------
        BibTeX entries of

        - neural ODEs and the regularizer,
        - the objective, if it is not that of the paper,
        - stability selection, if there are several seeds,
        - the adaptive lasso, if the regularizer is adaptive.

        Raises
        ------
        KeyError
            If a regularizer of your own names a key in its ``citations`` that the package does not know.

        Notes
        -----
        It does not know which data, preprocessing or plots were used: their docstrings name their sources.
        """
        keys = [*_MODEL_CITATIONS, *self.module.regularizer.citations]
        objective = self._objective_name
        if objective in _OBJECTIVE_CITATIONS:
            keys.append(_OBJECTIVE_CITATIONS[objective])
        if len(self.module.seeds) > 1:
            keys.append("meinshausen2010stability")
        if self.module.regularizer.adaptive:
            keys.append("zou2006adaptive")
        entries, own = bibliography(), [key for key in keys if not key.lstrip().startswith("@")]
        unknown = [key for key in own if key not in entries]
        if unknown:
            raise KeyError(
                f"Expected `citations` of {type(self.module.regularizer).__name__} to be BibTeX entries or keys that the package knows, "
                f"found {unknown}. Put the whole entries there, which begin with '@'."
            )
        return "\n\n".join(entries.get(key, key) for key in dict.fromkeys(keys))


def bibliography() -> dict[str, str]:
    """BibTeX entries by key, from the file that the documentation uses."""
    text = files("sparsenode").joinpath("references.bib").read_text(encoding="utf-8")
    blocks = ["@" + block.strip() for block in text.split("\n@")[1:]]
    entries: dict[str, str] = {}
    for block in blocks:
        entry = block.split("\n\n")[0].split("\n%")[0].strip()
        entries[entry.partition("{")[2].partition(",")[0].strip()] = entry
    return entries
