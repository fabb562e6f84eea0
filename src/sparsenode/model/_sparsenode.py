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
from sparsenode._input._expression import expression
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
from sparsenode.module import SparseNODEModule
from sparsenode.module._solve import ADAPTIVE, FIXED_STEP, Solver
from sparsenode.objectives import Transport
from sparsenode.objectives._initial import InitialState
from sparsenode.regularizers import Regularizer

_OPTIONS = tuple(option.name for option in dataclasses.fields(Options))


class SparseNODE(SimulationMixin, TrainingMixin):
    r"""Sparse neural ODE on pseudotime-ordered cells.

    Fits a vector field :math:`dx/dt = f(x) - \gamma \odot x` to cells along pseudotime :cite:p:`aliee2022sparsity`. A penalty closes most
    input-output paths of :math:`f`. The paths that stay open are a gene network with exact zeros. By default the network is inferred from
    single cells first; then the trajectories of the lineages are fitted with its zeros. A trajectory is one lineage of one batch.

    Parameters
    ----------
    adata
        AnnData with expression (log-normalised recommended) and pseudotime, registered with :meth:`setup_anndata`. If it is not, it is
        registered with the defaults, with a warning. Or MuData after :meth:`setup_mudata`.
    regularizer
        Penalty: ``"pathreg"``, ``"cnode"``, ``"l0"``, ``"grouplasso"``, ``"lassonet"``, ``"none"``, or an object of
        :mod:`sparsenode.regularizers`. Default: ``CNODE(0.1)``; ``PathReg()`` with ``"trajectory"`` and ``"collocation"``. If its
        ``strength`` is a sequence, one replicate is fitted per strength and seed, all at once.
    hidden
        Widths of the hidden layers, with ELU between them. Default: ``(32, 32)``; ``(100, 100)`` with ``"trajectory"``; ``(10,)`` with
        ``"collocation"``, and always with :class:`~sparsenode.regularizers.GroupLasso`, which has a network per target.
    n_seeds
        Number of replicates per strength, with seeds ``seed, seed + 1, …``.
    objective
        What the field is fitted to.

        - ``"both"``, the default in first order: fit the network as with ``"transport"``, then the trajectories with new weights, holding
          the zeros. What is zero in the network is thus zero in the field that is integrated. Edge weights are those of the transport fit.
          If the median trajectory has fewer than 100 cells, a trajectory has more than 60,000, or there are more than 2e8 values, the
          default is ``"trajectory"``, with a warning.
        - ``"trajectory"``, the default in second order: integrate the field and fit the trajectories, as in the paper. For forecasts; do
          not rely on its network.
        - ``"transport"``, or a :class:`~sparsenode.objectives.Transport` with other settings: regress the displacements of single cells on
          their state. Displacements lead to later cells, coupled by optimal transport :cite:p:`schiebinger2019optimal`. For the network
          alone. Expression is standardised per gene.
        - ``"collocation"``: regress the derivatives of smoothed trajectories on their states. For time series with little noise, whose
          equations it recovers, and as a start for the trajectories.
    order
        Order of the dynamics.

        - 1, the default: :math:`dx/dt = f(x) - \gamma \odot x`.
        - 2, for motion and other time series with inertia: :math:`d^2x/dt^2 = f(x, v) - \gamma \odot v` with :math:`v = dx/dt`. A small
          network :math:`g`, learned along with :math:`f`, gives the initial velocity :math:`v(0) = g(x(0))`. The gene network has a
          position and a velocity block; see :meth:`get_adjacency`. Not with ``"transport"`` or ``"both"``: velocities of cells are not
          observed.
    fields
        ``"lineage"``: every lineage has a field of its own. ``"shared"``: all lineages share one. Default: ``"lineage"`` with
        ``"trajectory"``, since it predicted unseen donors better in our benchmarks; ``"shared"`` with ``"transport"``, since it found
        networks better, and with ``"collocation"``. With ``"both"`` every lineage has its own field, but all share the zeros and the
        reported edge weights of one network.
    decay
        Whether to learn a rate :math:`\gamma > 0` of linear decay (in second order of damping) for every gene, apart from the network.
        Default: ``True``, but ``False`` with ``"collocation"``. Genes decay to their mean. With ``"both"`` they decay to zero, unless means
        are more than three times the spread (root mean squares over all genes), as of logarithms of intensities. With transport, decay is
        the part of the displacement that leads back to the mean: without it, targets that are not ``regulators`` seem to be repressed by
        everything they are co-expressed with.
    skip
        Whether to add a linear skip :math:`S x` to the field, whose entries are paths of their own. Default: ``True``, but ``False`` with
        ``"trajectory"``. It helps where dynamics are nearly linear. :class:`~sparsenode.regularizers.LassoNet` always has a skip.
    regulators
        Genes that may regulate others: a list of names, or a boolean column of ``adata.var``. All other genes are targets only, with zero
        columns in the adjacency. Default: all genes. Genes that are constant in all cells never regulate, since their effect cannot be told
        from a constant. The logger ``"sparsenode"`` reports how many regulators, and edges of ``prior``, are used;
        ``logging.getLogger("sparsenode").setLevel(logging.ERROR)`` silences it.
    prior
        Edges that are known beforehand: a long table ``source, target[, weight]`` with weights in ``[0, 1]``, 1 by default. The penalty of
        an edge is lowered by 0.9 times its weight, the largest if it is listed more than once.
    hard_prior
        Whether to forbid all edges that are not in ``prior``, except self edges. Only with :class:`~sparsenode.regularizers.GroupLasso`,
        where every target has its own network, and not with an iterative schedule, which starts without penalty.
    path_weights
        Weight of each path in the penalty, for full control instead of ``prior``: a data frame, targets × regulators. Below 1 for expected
        edges, above 1 for unexpected ones, 0 for free ones. Edges that it does not contain have weight 1.
    self_edges
        ``"penalised"``: like all other edges. ``"free"``: a gene may depend on itself at no cost. Default: ``"free"``; ``"penalised"`` with
        ``"trajectory"`` and with regularizers that do not penalise paths.
    initial_state
        Where trajectories start.

        - ``"kernel"``, the default: the mean of the early cells, weighted by half a Gaussian over time.
        - ``"first"``, as in the paper: the mean of the earliest cells that together count as five (five cells if memberships are 0 or 1).
        - ``"learned"``, the default in second order and with ``"collocation"``: fitted along with the field, starting from the earliest
          observation. For time series, where the first observation is as good as any other. Only positions are learned; initial velocities
          are those that :math:`g` gives there.
    initial_bandwidth
        Standard deviation of that Gaussian, as a share of the trajectory's length. Default: 0.2; 0.1 in second order and with
        ``"collocation"``. In second order it is also the bandwidth of the local quadratic regression that estimates observed initial
        velocities of new trajectories.
    initial_velocity
        Only in second order.

        - ``"network"``, the default: :math:`g` gives the velocity at the initial position.
        - ``"observed"``, if velocities are not a function of positions, as in walks of different speed: every trajectory has its own. It
          starts from the slope of the smoothed trajectory, and is learned if trajectories are fitted. New trajectories start with the slope
          of their early cells, so the prediction uses more of their data.
    bootstrap
        Whether to draw initial states anew in every training step by bootstrapping early cells, so that the field learns from a cloud of
        starts. Default: ``True``, unless initial states are learned.
    start_noise
        Standard deviation of Gaussian noise that is added to initial states (in second order also to initial velocities) in every training
        step, as a share of one standard deviation of the data, over all genes and around the means of trajectories; scale genes that differ
        much in spread first (:func:`sparsenode.pp.min_max_scale`). Default: 0. With noise the field learns to lead back to the observed
        trajectories. This makes forecasts stable; but the more noise, the closer they stay to the mean. Only used when trajectories are
        fitted. See the user guide on motion capture.
    clock_noise
        Standard deviation of Gaussian noise on the logarithm of the length of every trajectory, drawn in every training step. Default: 0.
        With 0.1, trials are taken to run about 10 % faster or slower. Phases then become less certain with time, and forecasts fall back to
        the mean. Only used when trajectories are fitted.
    align_batches
        Whether to stretch pseudotime linearly so that a lineage has the same length in every batch, and in every AnnData that is predicted
        later. Default: ``True``, since diffusion pseudotime is scaled by the farthest cell of each run and so has another unit in every
        donor; ``False`` in second order and with ``"collocation"``. Use ``False`` if all batches share a unit of time.
    n_knots
        Number of solver outputs per trajectory, at least 3; 17 by default. Cubic Hermite polynomials between them give the values at the
        cells.
    solver
        Method of :func:`torchdiffeq.odeint`: adaptive (``"dopri5"``, the default, ``"dopri8"``, ``"bosh3"``, ``"adaptive_heun"``) or with
        one step per knot (``"euler"``, ``"midpoint"``, ``"heun3"``, ``"rk4"``).
    rtol, atol
        Tolerances of the solver in training, relative to the standard deviation of the data. Default: 1e-3.
    seed
        Seed of the first replicate, and of the split into training and held-out cells. On one machine the same seed gives the same network,
        bit for bit.
    registry
        Set by :meth:`load`; not for users.

    Raises
    ------
    KeyError
        If a column, key or table that an argument names does not exist.
    TypeError
        If ``adata`` is neither AnnData nor MuData, or ``regularizer``, ``regulators``, ``prior`` or a switch has the wrong type.
    ValueError
        If an argument is out of range, arguments contradict each other, the data cannot be used, or torch's default is not single
        precision.

    Notes
    -----
    Do not use it

    - without a pseudotime that you trust,
    - for steady-state data,
    - with ``objective="trajectory"`` to rank edges, since mean trajectories hold little information on direction,
    - for forecasts or knock-outs if :meth:`evaluate` shows that the trajectories do not beat trivial predictors.

    :meth:`evaluate` does not test the network. Compare the network with :func:`sparsenode.tl.network_baselines`, shuffled pseudotime among
    them, by :func:`sparsenode.tl.compare_networks`.

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
            # A list can be saved with the model; a generator ends, and keys of a dict cannot be saved.
            regulators = _checks.names("regulators", regulators)
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
        self._set_untrained()
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
            # What a set-up said stays in its process; a file or a worker gets its mark alone.
            where = " for SparseNODE in this process" if "_scvi_uuid" in adata.uns else ""
            warnings.warn(
                f"This AnnData was not set up{where}: using `adata.obs[{_keys.TIME_KEY!r}]` as pseudotime, one lineage, one "
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

    def _set_untrained(self) -> None:
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
            Cells × genes, dense or sparse; in memory, backed or with dask arrays. Not a view of a backed file.
        layer
            Layer with the expression. Default: ``adata.X``.
        time_key
            Pseudotime in finite numbers: a column of ``adata.obs``. Or, as slingshot returns it, a data frame in ``adata.obsm`` with a
            column per lineage: the pseudotime of each cell in that lineage, NaN for cells that are not in it.
        lineage_key
            Lineages: a categorical column of ``adata.obs``, or a table in ``adata.obsm`` with a column per lineage that holds memberships
            or fate probabilities. These weight the cells, so a stem cell may belong to all lineages. Default: all cells are one lineage; if
            pseudotime is a table, cells are in the lineages for which they have one. Cell types are no lineages, but stages of one: a
            warning says so if one of them begins where another has ended.
        batch_key
            Column of ``adata.obs`` with the donor, sample or trial. Default: one batch.
        **kwargs
            ``source_registry``, passed by :meth:`load`.

        Returns
        -------
        Nothing. The data are registered; the AnnData gets no results.

        Raises
        ------
        KeyError
            If a key does not exist.
        TypeError
            If ``adata`` is not an AnnData, an argument is unknown, pseudotime, memberships or expression are not numeric, or gene names are
            numbers.
        ValueError
            If one of these holds:

            - ``adata`` is a view of a backed file, or has no cells,
            - pseudotime is missing, infinite or constant, or the columns of its table are not the lineages,
            - lineages are missing, negative or all zero,
            - a lineage has fewer than 10 cells in a batch, or memberships that add up to less than 10 (in units of the largest),
            - a lineage is named ``total``, or the results of two lineages would get the same key,
            - gene names repeat, or expression is NaN, infinite or masked.

        Notes
        -----
        Nothing is scaled here. Genes that are constant in all cells cause a warning and never regulate. To find them, data that are not in
        memory are read until every gene has varied. Do not register counts without taking logarithms: a few abundant genes would dominate
        the squared error.
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
        if adata.is_view:
            expression(adata, layer)  # before a copy that would lose a mask
            _check_if_view(adata, copy_if_view=True)
        cls._register(AnnDataManager, adata, setup_method_args, **kwargs)
