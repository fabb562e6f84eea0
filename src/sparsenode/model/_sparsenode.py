"""The model class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data._utils import _check_if_view
from scvi.train import TrainRunner

from sparsenode import _keys
from sparsenode._errors import DivergenceError
from sparsenode.model import _checks
from sparsenode.model._data import full_batch, relative_spans
from sparsenode.model._fields import TRAJECTORIES, ExpressionField, TrajectoryField
from sparsenode.model._regularization import RegularizationMixin
from sparsenode.model._regulators import SelfEdges, path_weight_matrix, regulator_positions
from sparsenode.module import Solver, SparseNODEModule
from sparsenode.module._solve import ADAPTIVE, FIXED_STEP
from sparsenode.objectives import InitialState, NullModels
from sparsenode.regularizers import Regularizer, get
from sparsenode.training import IterativeSparsification, StatisticsSplitter, TrainingPlan, limited_threads, split_cells

_STEPS_PER_EPOCH = 10
_MAX_EPOCHS = 50


class SparseNODE(RegularizationMixin):
    r"""Sparse neural ODE on pseudotime-ordered cells.

    Fits a vector field :math:`dx/dt = f(x) - \gamma \odot x` to the mean expression trajectory of every lineage
    :cite:p:`aliee2022sparsity`. A penalty on the input-output paths of :math:`f` switches most of them off; what is
    left is a gene network with exact zeros.

    Parameters
    ----------
    adata
        Cells with pseudotime, log-normalised expression recommended. If :meth:`setup_anndata` was not called, it is
        called with its defaults and a warning says so.
    regularizer
        One of ``"pathreg"``, ``"cnode"``, ``"l0"``, ``"grouplasso"``, ``"lassonet"``, ``"none"``, or an object of
        :mod:`sparsenode.regularizers`. If its ``strength`` is a sequence, one replicate is fitted per strength and seed, all in one go.
    hidden
        Widths of the hidden layers, with ELU in between.
    n_seeds
        Replicates per strength, with seeds ``seed, seed + 1, …``.
    fields
        ``"lineage"``: every lineage has its own field, and so its own network. ``"shared"``: one field for all, which
        asks more of the data and predicted unseen donors less well in our benchmarks.
    decay
        Learn a rate :math:`\gamma > 0` of linear decay for every gene, apart from the network.
    skip
        Add a linear skip :math:`S x` to the field, whose entries are paths of their own. It helps where dynamics are near to
        linear. :class:`~sparsenode.regularizers.LassoNet` has one in any case.
    regulators
        Genes that may regulate others: their names, or a boolean column of ``adata.var``. Other genes are targets only: their
        columns of the adjacency are zero. All genes by default.
    path_weights
        Weight of the path from each regulator to each target in the penalty: a data frame with targets as index and
        regulators as columns. Below one for edges that are expected, above one for edges that are not, zero for free ones;
        one for edges that it does not hold.
    self_edges
        ``"penalised"`` like all edges, or ``"free"``: a gene may depend on itself at no cost.
    initial_state
        ``"kernel"``: mean of the cells weighted by half a Gaussian over time, at the start of the trajectory.
        ``"first"``: mean of the five earliest cells, as in the paper. ``"learned"``: fitted along with the field, from the
        earliest observation; for time series, where that one is as good as any other.
    initial_bandwidth
        Standard deviation of that Gaussian, as a share of the trajectory.
    bootstrap
        Draw initial states anew in each training step by bootstrapping early cells, so that the field learns from a
        cloud of starts. By default it does, unless initial states are learned.
    align_batches
        Stretch pseudotime linearly so that a lineage is equally long in every batch, and in every AnnData that is
        predicted later. Diffusion pseudotime is scaled by the farthest cell of each run, so its unit differs between
        donors. Set it to ``False`` where time has a unit that all batches share.
    n_knots
        Solver outputs per trajectory; cells are interpolated between them with cubic Hermite polynomials.
    solver
        Method of :func:`torchdiffeq.odeint`: an adaptive one (``"dopri5"``, ``"dopri8"``, ``"bosh3"``, ``"fehlberg2"``,
        ``"adaptive_heun"``) or one with a step per knot (``"euler"``, ``"midpoint"``, ``"heun3"``, ``"rk4"``).
    rtol, atol
        Tolerances of the solver, relative to the standard deviation of the data.
    seed
        Seed of the first replicate and of the split into training and held-out cells. The same seed gives the same
        network, bit for bit, on one machine.
    registry
        Set by :meth:`load`; not for users.

    Raises
    ------
    ValueError, TypeError, KeyError
        If an argument or the data cannot be used; messages name the value, the place and the fix.

    Notes
    -----
    Do not use it without a pseudotime that you trust, for steady-state data, or to rank edges from mean trajectories
    alone: they hold little information on direction. ``evaluate`` says whether a fit beats trivial predictors; where it
    does not, do not interpret the network.

    Examples
    --------
    >>> import sparsenode as sn
    >>> adata = sn.datasets.krumsiek11()
    >>> sn.SparseNODE.setup_anndata(adata, time_key="simulation_time", lineage_key="lineage")
    >>> model = sn.SparseNODE(adata)
    >>> model.train()
    >>> model.get_network().head()
    """

    _module_cls = SparseNODEModule
    _data_splitter_cls = StatisticsSplitter
    _training_plan_cls = TrainingPlan
    _train_runner_cls = TrainRunner

    def __init__(
        self,
        adata: AnnData | None = None,
        regularizer: str | Regularizer = "pathreg",
        hidden: Sequence[int] = (100, 100),
        n_seeds: int = 1,
        fields: Literal["shared", "lineage"] = "lineage",
        decay: bool = True,
        skip: bool = False,
        regulators: str | Sequence[str] | None = None,
        path_weights: pd.DataFrame | None = None,
        self_edges: SelfEdges = "penalised",
        initial_state: InitialState = "kernel",
        initial_bandwidth: float = 0.2,
        bootstrap: bool | None = None,
        align_batches: bool = True,
        n_knots: int = 17,
        solver: str = "dopri5",
        rtol: float = 1e-3,
        atol: float = 1e-3,
        seed: int = 0,
        registry: dict | None = None,
    ) -> None:
        penalty = get(regularizer)
        _checks.choice("fields", fields, ("shared", "lineage"))
        _checks.choice("initial_state", initial_state, ("kernel", "first", "learned"))
        _checks.choice("self_edges", self_edges, ("penalised", "free"))
        if (path_weights is not None or self_edges == "free") and not penalty.weights_paths:
            raise ValueError(
                f"Expected a regularizer that penalises paths for `path_weights` and free `self_edges`, found {penalty!r}. "
                "Use 'pathreg', 'cnode' or 'grouplasso'."
            )
        hidden = _checks.positive_integers("hidden", hidden)
        _checks.at_least("n_seeds", n_seeds, 1)
        _checks.at_least("n_knots", n_knots, 3)
        _checks.at_least("seed", seed, 0)
        for name, value in {"initial_bandwidth": initial_bandwidth, "rtol": rtol, "atol": atol}.items():
            _checks.positive(name, value)
        _checks.choice("solver", solver, (*ADAPTIVE, *FIXED_STEP))
        if adata is not None and not isinstance(adata, AnnData):
            raise TypeError(f"Expected `adata` to be an AnnData object, found {type(adata).__name__}.")
        if adata is not None and self._get_most_recent_anndata_manager(adata) is None:
            warnings.warn(
                f"This AnnData was not set up: using `adata.obs[{_keys.TIME_KEY!r}]` as pseudotime, one lineage, one "
                "batch and `adata.X`. Call `SparseNODE.setup_anndata` to choose others.",
                UserWarning,
                stacklevel=2,
            )
            self.setup_anndata(adata)
        super().__init__(adata, registry)
        state = self.registry["field_registries"][TRAJECTORIES]["state_registry"]
        self.trajectories = pd.DataFrame(state["trajectories"]).set_index("trajectory")
        self.lineages: list[str] = list(state["lineages"])
        self.genes = pd.Index(self.registry["field_registries"]["X"]["state_registry"]["column_names"], dtype=object)
        self._initial_state: InitialState = initial_state
        self._initial_bandwidth = initial_bandwidth
        self._align_batches = align_batches
        self._seed = seed
        self._regulators = regulator_positions(regulators, self.genes, self.adata)
        weights = path_weight_matrix(path_weights, self_edges, self.genes)
        if isinstance(regulators, str) and self._regulators is not None:
            regulators = list(self.genes[self._regulators])  # saved with the model, which may be loaded without data
        self.module = SparseNODEModule(
            n_vars=len(self.genes),
            lineages=[self.lineages.index(name) for name in self.trajectories["lineage"]],
            n_lineages=len(self.lineages),
            regularizer=penalty,
            seeds=range(seed, seed + n_seeds),
            hidden=hidden,
            fields=fields,
            decay=decay,
            bootstrap=initial_state != "learned" if bootstrap is None else bootstrap,
            n_knots=n_knots,
            solver=Solver(solver, rtol, atol),
            learned_start=initial_state == "learned",
            skip=skip,
            inputs=self._regulators,
            path_weights=None if weights is None else torch.as_tensor(weights, dtype=torch.float32),
        )
        self.regularization_path_: pd.DataFrame | None = None
        self.sparsification_: pd.DataFrame | None = None
        self.pruned_: dict[str, list[int]] | None = None
        self.null_models_: NullModels | None = None
        self.selected_: int = 0
        self._model_summary_string = (
            f"SparseNODE with {len(self.genes)} genes, {len(self.trajectories)} trajectories of {len(self.lineages)} "
            f"lineages, {penalty!r}, {self.module.n_replicates} replicates"
        )
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        time_key: str = _keys.TIME_KEY,
        lineage_key: str | None = None,
        batch_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Register expression, pseudotime, lineages and batches; a trajectory is one lineage of one batch.

        Parameters
        ----------
        adata
            Cells × genes. In memory, backed or with dask arrays; dense or sparse.
        layer
            Layer with the expression, ``adata.X`` if ``None``.
        time_key
            Column of ``adata.obs`` with the pseudotime, finite numbers.
        lineage_key
            A categorical column of ``adata.obs``, or a table in ``adata.obsm`` with a column per lineage that holds
            memberships or fate probabilities. They weight the cells, so a stem cell may belong to all lineages. Without
            it, all cells are one lineage.
        batch_key
            Column of ``adata.obs`` with the donor, sample or trial.
        **kwargs
            ``source_registry``, passed by :meth:`load`.

        Raises
        ------
        KeyError
            If a key is not there.
        TypeError
            If pseudotime, memberships or expression are not numeric.
        ValueError
            If pseudotime is missing, infinite or constant; if lineages are missing, negative, all zero or have fewer
            than 10 cells in a batch; if gene names repeat; if expression is NaN or infinite; if there are no cells.
        """
        if not isinstance(adata, AnnData):
            raise TypeError(f"Expected `adata` to be an AnnData object, found {type(adata).__name__}.")
        setup_method_args = cls._get_setup_method_args(**locals())
        _check_if_view(adata, copy_if_view=True)
        manager = AnnDataManager(
            fields=[
                ExpressionField(REGISTRY_KEYS.X_KEY, layer),
                TrajectoryField(time_key, lineage_key, batch_key),
            ],
            setup_method_args=setup_method_args,
        )
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    def train(
        self,
        max_epochs: int = _MAX_EPOCHS,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float = 0.9,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        early_stopping: bool = False,
        steps_per_epoch: int = _STEPS_PER_EPOCH,
        schedule: Literal["sparse", "iterative"] | IterativeSparsification | None = None,
        half_samples: bool = False,
        plan_kwargs: dict[str, Any] | None = None,
        key_added: str | None = _keys.KEY_ADDED,
        **trainer_kwargs: Any,
    ) -> None:
        """Fit the field, and write the results into the AnnData.

        One pass over the cells accumulates what the loss needs; after it, a step costs the same for any number of
        cells.

        Parameters
        ----------
        max_epochs
            Number of epochs.
        accelerator, devices
            As in :class:`lightning.pytorch.Trainer`.
        train_size, validation_size
            Shares of the cells for training and validation. Held-out cells get their own statistics.
        shuffle_set_split
            Whether the held-out cells are drawn at random (with ``seed`` of the model) or the last ones.
        early_stopping
            Stop when ``validation_loss`` no longer falls; see :class:`scvi.train.Trainer` for its settings.
        steps_per_epoch
            Optimisation steps in an epoch, each on all cells.
        schedule
            ``"sparse"``: the full strength from the start. ``"iterative"``, or an
            :class:`~sparsenode.training.IterativeSparsification` with other settings: train without penalty for
            ``max_epochs``, then raise the strength step by step; the steps are in ``model.sparsification_``. By default the
            choice of the regularizer: iterative for LassoNet, sparse for all others.
        half_samples
            Give every seed another random half of the training cells, as in stability selection: seeds come in pairs with
            complementary halves. Needs ``n_seeds > 1``; see :meth:`get_edge_frequency`.
        plan_kwargs
            ``lr``, ``gate_lr``, ``weight_decay`` and ``max_grad_norm``; see :class:`sparsenode.training.TrainingPlan`.
        key_added
            Results are written under this key, as by :meth:`write_results`; ``None`` writes nothing.
        **trainer_kwargs
            Further arguments of :class:`scvi.train.Trainer`, for instance ``enable_checkpointing=True``.

        Raises
        ------
        DivergenceError
            If the integration or the loss leaves the finite numbers. The model holds the best state so far.
        ValueError
            If expression is NaN or infinite, if a trajectory has no training cells, or if an argument is out of range.
        """
        _checks.at_least("max_epochs", max_epochs, 1)
        _checks.at_least("steps_per_epoch", steps_per_epoch, 1)
        if self.adata is None:
            raise ValueError("Expected the model to hold data, found none. Load it with `adata=…` to train it further.")
        indices = split_cells(self.adata.n_obs, train_size, validation_size, shuffle_set_split, self._seed)
        if early_stopping and len(indices[1]) == 0:
            raise ValueError("Expected held-out cells for `early_stopping`, found none. Lower `train_size`.")
        if half_samples and len(self.module.seeds) < 2:
            raise ValueError("Expected at least two seeds for `half_samples`, found one. Raise `n_seeds`.")
        plan_kwargs = dict(plan_kwargs or {})
        iterative = self._schedule(schedule)
        if iterative is not None:
            plan_kwargs |= {"schedule": iterative, "dense_epochs": max_epochs}
            max_epochs += iterative.n_epochs
        plan = self._training_plan_cls(self.module, **plan_kwargs)
        splitter = self._prepare(indices, steps_per_epoch, half_samples)
        if splitter.validation_tensors is not None:
            trainer_kwargs.setdefault("check_val_every_n_epoch", 1)
        trainer_kwargs.setdefault("early_stopping_monitor", "validation_loss")
        runner = self._train_runner_cls(
            self,
            training_plan=plan,
            data_splitter=splitter,
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            early_stopping=early_stopping,
            **trainer_kwargs,
        )
        try:
            with limited_threads(sum(parameter.numel() for parameter in self.module.parameters())):
                runner()
        except DivergenceError as error:
            self._restore(plan)
            raise DivergenceError(
                f"Training diverged: {error} Lower the learning rate, for instance "
                f"`plan_kwargs={{'lr': {plan.lr / 3:.2g}}}`, or raise the strength of the regularizer. "
                "The model keeps the best state so far."
            ) from error
        self.regularization_path_ = self._make_path(splitter, self._regulators)
        self.sparsification_ = pd.DataFrame(plan.records) if plan.records else None
        errors = self.regularization_path_["train_error" if splitter.validation_tensors is None else "validation_error"]
        self.selected_ = int(errors.argmin())
        if key_added is not None:
            self.write_results(key_added=key_added)

    def _schedule(self, schedule: str | IterativeSparsification | None) -> IterativeSparsification | None:
        """The schedule as an object, ``None`` for sparse training."""
        chosen = self.module.regularizer.schedule if schedule is None else schedule
        if isinstance(chosen, IterativeSparsification):
            return chosen
        _checks.choice("schedule", chosen, ("sparse", "iterative"))
        return IterativeSparsification() if chosen == "iterative" else None

    def _half_samples(self, training: np.ndarray) -> list[np.ndarray]:
        """Masks of half of the training cells each; with its complement, each serves two seeds."""
        rng, cells = np.random.default_rng(self._seed), np.flatnonzero(training)
        masks = []
        for _ in range((len(self.module.seeds) + 1) // 2):
            mask = np.zeros_like(training)
            mask[rng.permutation(cells)[: len(cells) // 2]] = True
            masks.append(mask)
        return masks

    def _restore(self, plan: TrainingPlan) -> None:
        """Put the best state of a failed training back."""
        if plan.best_state is not None:
            self.module.load_state_dict(plan.best_state)
            self.is_trained_ = True
        self.module.eval()

    def _prepare(
        self, indices: tuple[np.ndarray, np.ndarray, np.ndarray], steps_per_epoch: int, half_samples: bool
    ) -> StatisticsSplitter:
        """Stream the cells, set the data-derived buffers of the module, and build the loaders."""
        cells = self._cells()
        training, validation = np.zeros((2, self.adata.n_obs), dtype=bool)
        training[indices[0]], validation[indices[1]] = True, True
        module = self.module
        data = cells.stream(
            training,
            validation,
            module.n_knots,
            self._initial_state,
            self._initial_bandwidth,
            self._seed,
            self._half_samples(training) if half_samples else [],
        )
        centre = data.training.mean
        null = data.training.centred(centre).square.sum()
        if null <= 0:
            raise ValueError(
                "Expected expression to vary between the cells of a trajectory, found every gene constant."
            )
        scale = float(np.sqrt(null / data.training.weight.sum() / len(self.genes)))
        spans, unit = relative_spans(cells.lineages, cells.spans, self._align_batches)
        with torch.no_grad():
            module.scale.fill_(scale)
            module.time_unit.fill_(unit)
            module.relative_span.copy_(torch.as_tensor(spans))
            module.initial_state.copy_(torch.as_tensor(data.initial_state / scale))
        self.null_models_ = NullModels.fit(data, cells.lineages, len(self.lineages))
        held_out = None
        if data.validation.weight.sum() > 0:
            held_out = full_batch([data.validation], centre, scale, data.early)
        full = full_batch([data.training], centre, scale, data.early)
        halves = data.halves[: len(module.seeds)]
        training_batch = full_batch(halves, centre, scale, data.early) if halves else full
        return self._data_splitter_cls(training_batch, held_out, indices, steps_per_epoch, full)
