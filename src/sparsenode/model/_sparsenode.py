"""The model class."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scvi.data import AnnDataManager
from scvi.data._utils import _check_if_view

from sparsenode import _checks, _keys
from sparsenode._input._regulators import (
    SelfEdges,
    path_weight_matrix,
    prior_weight_matrix,
    regulator_positions,
    report_path_weights,
)
from sparsenode.model._data import warn_of_lengths
from sparsenode.model._fields import CONSTANT_GENES, TRAJECTORIES
from sparsenode.model._options import Options, check_dynamics, check_knowledge, check_numbers, resolve, why_not_coupled
from sparsenode.model._prediction import InitialVelocities
from sparsenode.model._simulation import SimulationMixin
from sparsenode.model._training import TrainingMixin
from sparsenode.module import Solver, SparseNODEModule
from sparsenode.module._solve import ADAPTIVE, FIXED_STEP
from sparsenode.objectives import InitialState, Transport
from sparsenode.regularizers import Regularizer

_OPTIONS = tuple(option.name for option in dataclasses.fields(Options))


class SparseNODE(SimulationMixin, TrainingMixin):
    r"""Sparse neural ODE on pseudotime-ordered cells.

    Fits a vector field :math:`dx/dt = f(x) - \gamma \odot x` to cells along pseudotime :cite:p:`aliee2022sparsity`. A penalty on
    the input-output paths of :math:`f` switches most of them off; what is left is a gene network with exact zeros. By default
    the network is found from single cells, and the trajectories of the lineages are fitted with it.

    Parameters
    ----------
    adata
        Cells with pseudotime, log-normalised expression recommended. If :meth:`setup_anndata` was not called, it is
        called with its defaults and a warning says so. Or MuData, after :meth:`setup_mudata`.
    regularizer
        ``CNODE(0.1)`` by default, ``PathReg()`` with trajectories or collocation alone. One of ``"pathreg"``, ``"cnode"``,
        ``"l0"``, ``"grouplasso"``, ``"lassonet"``, ``"none"``, or an object of :mod:`sparsenode.regularizers`. If its
        ``strength`` is a sequence, one replicate is fitted per strength and seed, all in one go.
    hidden
        Widths of the hidden layers, with ELU in between: ``(32, 32)`` by default, ``(100, 100)`` with trajectories and
        ``(10,)`` with collocation alone; ``(10,)`` in any case for :class:`~sparsenode.regularizers.GroupLasso`, which has a
        network per target.
    n_seeds
        Replicates per strength, with seeds ``seed, seed + 1, …``.
    objective
        What the field is fitted to.

        - ``"both"``: the network of transport, then the trajectories, fitted anew while the zeros of that network are held: what
          is zero in the network is zero in the field that is integrated. Edge weights are those of the transport fit. The default
          in first order, where cells are enough: with fewer than 100 in a trajectory (the median), with more than 60,000, or with
          more than 2e8 values, it is ``"trajectory"``, and a warning says so.
        - ``"trajectory"``: integrate the field and fit the trajectories, as in the paper; for forecasts, without a network to rely on.
          The default in second order.
        - ``"transport"``, or a :class:`~sparsenode.objectives.Transport` with other settings: regress the displacements of single cells
          to later ones, coupled by optimal transport :cite:p:`schiebinger2019optimal`; for the network alone. Expression is then
          standardised per gene.
        - ``"collocation"``: regress the derivatives of smoothed trajectories on their states; for time series with little noise,
          whose equations it recovers, and as a start for the trajectories.
    order
        1: :math:`dx/dt = f(x) - \gamma \odot x`. 2: :math:`d^2x/dt^2 = f(x, v) - \gamma \odot v` with :math:`v = dx/dt` and
        :math:`v(0) = g(x(0))` from a small learned network :math:`g` of the initial state; for motion and other time
        series with inertia. The network then has a position and a velocity block, see :meth:`get_adjacency`. Not with
        transport, which would need observed velocities, and so not with both.
    fields
        ``"lineage"``: every lineage has its own field, and so its own network. ``"shared"``: one field for all. By default
        each lineage has its own with trajectories, which predicted unseen donors better in our benchmarks, and all share
        one with transport, which found networks better, and with collocation. With both, the fields of the lineages share one
        network: its zeros, and the edge weights that are reported.
    decay
        Learn a rate :math:`\gamma > 0` of linear decay for every gene, apart from the network; in second order of
        damping. By default with all objectives but collocation. Genes decay to their means; with both to zero, unless means are more than
        three times the spread (root mean squares over all genes), as of logarithms of intensities. With transport it is the part of the
        displacement that leads back to the mean: without it, targets that are no ``regulators`` seem to be repressed by all
        that they are co-expressed with.
    skip
        Add a linear skip :math:`S x` to the field, whose entries are paths of their own; by default, but not with
        trajectories alone. It helps where dynamics are near to linear. :class:`~sparsenode.regularizers.LassoNet` has one in any case.
    regulators
        Genes that may regulate others: their names, or a boolean column of ``adata.var``. Other genes are targets only:
        their columns of the adjacency are zero. All genes that vary between cells by default; those that do not never
        regulate, since their effect cannot be told from a constant.
        The logger ``"sparsenode"`` says how many of them, and of the edges of ``prior``, are used;
        ``logging.getLogger("sparsenode").setLevel(logging.ERROR)`` silences it.
    prior
        Edges that are known beforehand: a long table ``source, target[, weight]`` with weights in ``[0, 1]``, one by
        default. The penalty of an edge is lowered by 0.9 times its weight.
    hard_prior
        Forbid all edges that ``prior`` does not hold, but self-edges. Only with
        :class:`~sparsenode.regularizers.GroupLasso`, where every target has a network of its own, and without an iterative
        schedule, which begins without penalty.
    path_weights
        What ``prior`` is made into, for full control: a data frame with targets as index, regulators as columns, and
        the weight of each path in the penalty. Below one for edges that are expected, above one for edges that are
        not, zero for free ones; one for edges that it does not hold.
    self_edges
        ``"penalised"`` like all edges, the default with trajectories alone, or ``"free"``: a gene may depend on itself at no
        cost, the default otherwise where the regularizer penalises paths.
    initial_state
        ``"kernel"``: mean of the cells weighted by half a Gaussian over time, at the start of the trajectory; the default.
        ``"first"``: mean of the earliest cells that together count as five (five cells where memberships are 0 or 1), as in the paper. ``"learned"``: fitted along with the field, from the
        earliest observation; for time series, where that one is as good as any other, and so the default in second
        order and with collocation. Learned are positions; initial velocities are those that :math:`g` gives there.
    initial_bandwidth
        Standard deviation of that Gaussian, as a share of the trajectory: 0.2 by default, 0.1 in second order and with
        collocation. In second order also of the one in which observed initial velocities of new
        trajectories are estimated, by local quadratic regression.
    initial_velocity
        Only in second order. ``"network"``: trajectories start with the velocities that :math:`g` gives at their initial
        positions, the default. ``"observed"``: every trajectory has its own, which starts from the slope of the smoothed trajectory and,
        where trajectories are fitted, is learned along with the field; new ones start from the slope of their early cells, which sees more of them; where velocities
        are no function of positions, as in walks of different speed.
    bootstrap
        Draw initial states anew in each training step by bootstrapping early cells, so that the field learns from a
        cloud of starts. By default it does, unless initial states are learned.
    start_noise
        Standard deviation of Gaussian noise that is added to initial states, and in second order to initial velocities, anew in
        each training step; as a share of one standard deviation of the data, over all genes and around the means of trajectories, by
        default none. Scale genes that differ much in spread first (:func:`sparsenode.pp.min_max_scale`). The field then learns to lead
        back to the observed trajectories, which makes forecasts stable, and ever closer to the mean the more noise there is.
        Only where trajectories are fitted. See the user guide on motion capture.
    clock_noise
        Standard deviation of Gaussian noise on the logarithm of the length of every trajectory, anew in each training step; by
        default none. Other trials go faster or slower, by 10 % with 0.1, so phases are the less certain the later it is: forecasts
        then fall back to the mean in time. Only where trajectories are fitted.
    align_batches
        Stretch pseudotime linearly so that a lineage is equally long in every batch, and in every AnnData that is
        predicted later. Diffusion pseudotime is scaled by the farthest cell of each run, so its unit differs between
        donors. Set it to ``False`` where time has a unit that all batches share, which is the default in second order and
        with collocation.
    n_knots
        Solver outputs per trajectory, at least 3; cells are interpolated between them with cubic Hermite polynomials.
    solver
        Method of :func:`torchdiffeq.odeint`: an adaptive one (``"dopri5"``, ``"dopri8"``, ``"bosh3"``, ``"adaptive_heun"``) or one
        with a step per knot (``"euler"``, ``"midpoint"``, ``"heun3"``, ``"rk4"``).
    rtol, atol
        Tolerances of the solver, relative to the standard deviation of the data.
    seed
        Seed of the first replicate and of the split into training and held-out cells. The same seed gives the same
        network, bit for bit, on one machine.
    registry
        Set by :meth:`load`; not for users.

    Raises
    ------
    KeyError
        If a column, key or table that an argument names is not there.
    TypeError
        If ``adata`` is neither AnnData nor MuData, or ``regularizer``, ``regulators``, ``prior`` or a switch has another type.
    ValueError
        If an argument is out of range, arguments do not go together, the data cannot be used, or the default of torch is not single
        precision.

    Notes
    -----
    Do not use it without a pseudotime that you trust, for steady-state data, or with ``objective="trajectory"`` to rank edges:
    mean trajectories hold little information on direction. ``evaluate`` says whether trajectories beat trivial predictors; where
    they do not, do not use them for forecasts or knock-outs. It is no test of the network: compare that with
    :func:`sparsenode.tl.network_baselines` and :func:`sparsenode.tl.shuffle_time`.

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

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        regularizer: str | Regularizer | None = None,
        hidden: Sequence[int] | None = None,
        n_seeds: int = 1,
        objective: Literal["both", "trajectory", "transport", "collocation"] | Transport | None = None,
        order: Literal[1, 2] = 1,
        fields: Literal["shared", "lineage"] | None = None,
        decay: bool | None = None,
        skip: bool | None = None,
        regulators: str | Sequence[str] | None = None,
        prior: pd.DataFrame | None = None,
        hard_prior: bool = False,
        path_weights: pd.DataFrame | None = None,
        self_edges: SelfEdges | None = None,
        initial_state: InitialState | None = None,
        initial_bandwidth: float | None = None,
        initial_velocity: InitialVelocities = "network",
        bootstrap: bool | None = None,
        start_noise: float = 0.0,
        clock_noise: float = 0.0,
        align_batches: bool | None = None,
        n_knots: int = 17,
        solver: str = "dopri5",
        rtol: float = 1e-3,
        atol: float = 1e-3,
        seed: int = 0,
        registry: dict | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in _OPTIONS}
        noise = {"start_noise": start_noise, "clock_noise": clock_noise}
        check_dynamics(objective, order, initial_velocity, noise)
        order = 1 if order == 1 else 2  # no numpy integer from here on
        check_numbers(n_seeds, n_knots, seed, {"rtol": rtol, "atol": atol})
        _checks.single_precision()
        _checks.choice("solver", solver, (*ADAPTIVE, *FIXED_STEP))
        adata = self._set_up(adata)
        if objective is None:
            objective = self._default_objective(adata, order)
        self.objective: Literal["both", "trajectory", "collocation"] | Transport = (
            Transport() if objective == "transport" else objective
        )
        options = resolve(self._objective_name, order, given)
        check_knowledge(options, prior, hard_prior, path_weights)
        super().__init__(adata, registry)
        constant = self._read_registry()
        if align_batches is None and options.align_batches:
            warn_of_lengths(self.trajectories)
        self._initial_state, self._initial_bandwidth = options.initial_state, options.initial_bandwidth
        self._align_batches = options.align_batches
        self._seed = seed
        self._hard_prior = hard_prior
        if regulators is not None and not isinstance(regulators, str):
            regulators = list(regulators)  # saved with the model; a generator ends, and keys of a dict cannot be
        self._chosen_regulators = regulators is not None
        self._regulators = regulator_positions(regulators, self.genes, self.adata, constant)
        known = path_weights if prior is None else prior_weight_matrix(prior, hard_prior, self.genes, self._regulators)
        weights = path_weight_matrix(known, options.self_edges, self.genes)
        if path_weights is not None and registry is None:  # said when the model was made, not again when it is loaded
            report_path_weights(path_weights, self.genes, None if regulators is None else self._regulators)
        if isinstance(regulators, str) and self._regulators is not None:
            regulators = list(self.genes[self._regulators])  # saved with the model, which may be loaded without data
        self._module_arguments: dict[str, Any] = {
            "n_vars": len(self.genes),
            "lineages": [self.lineages.index(name) for name in self.trajectories["lineage"]],
            "n_lineages": len(self.lineages),
            "regularizer": options.regularizer,
            "seeds": range(seed, seed + n_seeds),
            "hidden": options.hidden,
            "fields": options.fields,
            "decay": options.decay,
            "bootstrap": options.bootstrap,
            "n_knots": n_knots,
            "solver": Solver(solver, rtol, atol),
            "learned_start": options.initial_state == "learned",
            "skip": options.skip,
            "inputs": self._regulators,
            "path_weights": None if weights is None else torch.as_tensor(weights, dtype=torch.float32),
            "order": order,
            "start_noise": float(start_noise),
            "clock_noise": float(clock_noise),
            "own_velocities": initial_velocity == "observed",
        }
        self.module = SparseNODEModule(**self._module_arguments)
        self._forget_training()
        self._model_summary_string = (
            f"SparseNODE with {len(self.genes)} genes, {len(self.trajectories)} trajectories of {len(self.lineages)} "
            f"lineages, {options.regularizer!r}, {self.module.n_replicates} replicates"
        )
        # A copy, since tables and regularizers are the user's, who may change them before the model is saved.
        self.init_params_ = copy.deepcopy(
            self._get_init_params(locals() | vars(options) | {"regularizer": regularizer})
        )

    def _set_up(self, adata: AnnData | MuData | None) -> AnnData | None:
        """The AnnData to fit, set up with defaults if it was not, with a warning."""
        if isinstance(adata, MuData):
            return self._registered(adata)
        if adata is None:
            return None
        if not isinstance(adata, AnnData):
            raise TypeError(f"Expected `adata` to be an AnnData object, found {type(adata).__name__}.")
        try:
            manager = self._get_most_recent_anndata_manager(adata)
        except ValueError as error:
            raise ValueError(
                "Expected an AnnData that was set up itself, found a copy or a subset of one. Call `SparseNODE.setup_anndata(adata, …)` "
                "with it too."
            ) from error
        if manager is None:
            warnings.warn(
                f"This AnnData was not set up: using `adata.obs[{_keys.TIME_KEY!r}]` as pseudotime, one lineage, one "
                "batch and `adata.X`. Call `SparseNODE.setup_anndata` to choose others.",
                UserWarning,
                stacklevel=3,
            )
            self.setup_anndata(adata)
        return adata

    def _default_objective(self, adata: AnnData | None, order: int) -> Literal["both", "trajectory"]:
        """The objective where none is named, with a warning where cells cannot be coupled."""
        if order == 2:
            return "trajectory"
        manager = None if adata is None else self._get_most_recent_anndata_manager(adata)
        if adata is None or manager is None:
            return "both"
        state = manager.registry["field_registries"][TRAJECTORIES]["state_registry"]
        reason = why_not_coupled(state["trajectories"], adata.shape)
        if reason is None:
            return "both"
        warnings.warn(
            f"Only the trajectories are fitted, as with `objective='trajectory'`, so do not rank edges by this model: {reason}. Name an "
            "`objective` to choose yourself.",
            UserWarning,
            stacklevel=3,
        )
        return "trajectory"

    def _read_registry(self) -> list[str]:
        """Take trajectories, lineages and genes from the registered data; the genes that do not vary are returned."""
        state = self.registry["field_registries"][TRAJECTORIES]["state_registry"]
        self.trajectories = pd.DataFrame(state["trajectories"]).set_index("trajectory")
        self.lineages: list[str] = list(state["lineages"])
        expression = self.registry["field_registries"]["X"]["state_registry"]
        self.genes = pd.Index(expression["column_names"], dtype=object)
        return expression.get(CONSTANT_GENES, [])

    def _forget_training(self) -> None:
        """Attributes that training sets, as they are before it; the mixins say what they hold."""
        self.regularization_path_ = self.sparsification_ = self.pruned_ = None
        self.network_ = self.network_units_ = self.network_decay_ = self.unshrunk_ = self.network_history_ = None
        self.deviation_ = self.lineage_deviation_ = self.data_range_ = self.null_models_ = None
        self.cells_digest_ = self.fingerprints_ = self.arrangement_ = None
        self.selected_, self.given_up_ = 0, []
        self.fitted_, self.key_added_ = None, _keys.KEY_ADDED

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
            Cells × genes. In memory, backed or with dask arrays; dense or sparse. Not a view of a backed file.
        layer
            Layer with the expression, ``adata.X`` if ``None``.
        time_key
            Column of ``adata.obs`` with the pseudotime, finite numbers. Or a data frame in ``adata.obsm`` with a column per lineage, which
            holds the pseudotime of each cell in that lineage and is missing (NaN) where the cell is in another, as slingshot returns it.
        lineage_key
            A categorical column of ``adata.obs``, or a table in ``adata.obsm`` with a column per lineage that holds
            memberships or fate probabilities. They weight the cells, so a stem cell may belong to all lineages. Without
            it, all cells are one lineage, or, where pseudotime is a table, cells are in the lineages for which they have one.
        batch_key
            Column of ``adata.obs`` with the donor, sample or trial.
        **kwargs
            ``source_registry``, passed by :meth:`load`.

        Returns
        -------
        Nothing, but registers the data; the AnnData gets no results.

        Raises
        ------
        KeyError
            If a key is not there.
        TypeError
            If ``adata`` is no AnnData, an argument is unknown, if pseudotime, memberships or expression are not numeric, or names of genes are numbers.
        ValueError
            If ``adata`` is a view of a backed file; if pseudotime is missing, infinite or constant, or a table of it does not have the
            lineages as columns; if lineages are missing,
            negative, all zero or have fewer than 10 cells in a batch, or memberships that add up to fewer (in units of the largest);
            if a lineage is named ``total``, or the results of two would get the same key; if gene names repeat; if expression is
            NaN or infinite; if there are no cells.

        Notes
        -----
        Nothing is scaled here. Genes that do not vary between cells are warned of, and regulate no others: data that are not
        in memory are read until every gene has varied. Do not register counts without a logarithm: the squared error would be that of a few
        abundant genes.
        """
        _checks.setup_arguments(kwargs, ("layer", "time_key", "lineage_key", "batch_key"))
        if not isinstance(adata, AnnData):
            raise TypeError(
                f"Expected `adata` to be an AnnData object, found {type(adata).__name__}. MuData has `setup_mudata`."
            )
        if adata.is_view and adata.isbacked:
            raise ValueError(
                "Expected `adata` to be no view of a backed file, found one: results could not be written to it. Read it into memory, "
                '`adata = adata.to_memory()`, or give it a file of its own, `adata = adata.copy("subset.h5ad")`.'
            )
        setup_method_args = cls._get_setup_method_args(**locals())
        _check_if_view(adata, copy_if_view=True)
        cls._register(AnnDataManager, adata, setup_method_args, **kwargs)
