"""The gene network of a fitted model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from sparsenode import _checks
from sparsenode.model._velocity import VelocityMixin
from sparsenode.objectives import Transport
from sparsenode.training import limited_threads

Weights = Literal["paths", "jacobian", "effect", "standardised", "balanced"]
Block = Literal["position", "velocity"]

_GRID_STRIDE = 4  # every fourth grid point of the fitted trajectories enters the mean Jacobian


class NetworkMixin(VelocityMixin):
    """Methods of :class:`sparsenode.SparseNODE` that read the network out of the field."""

    #: With ``objective="both"`` the network of every replicate in the cells of every lineage, the standardised edge weights that the
    #: transport fit found, per standard deviation over all cells, targets × regulators. ``None`` otherwise, and before training.
    network_: list[list[sparse.csr_array]] | None
    #: With ``objective="both"`` the units of ``network_``, 2 × genes, which are the standard deviation of every gene, and that of its
    #: displacements, in standard deviations of the gene per unit of the module's time.
    network_units_: np.ndarray | None
    #: Standard deviation of every gene over the training cells; ``None`` before training, and where the units of the module hold it,
    #: as with transport.
    deviation_: np.ndarray | None
    #: Standard deviation of every gene over the training cells of every lineage, lineages × genes, zero where it is constant there;
    #: ``None`` before training.
    lineage_deviation_: np.ndarray | None

    @property
    def _couples_cells(self) -> bool:
        """Whether the network comes from single cells that transport couples."""
        return isinstance(self.objective, Transport) or self.objective == "both"

    @property
    def _default_weights(self) -> Weights:
        return "balanced" if self._couples_cells else "paths"

    def get_adjacency(
        self,
        lineage: str | None = None,
        signed: bool = True,
        replicate: int | None = None,
        weights: Weights | None = None,
        block: Block | None = None,
    ) -> pd.DataFrame:
        r"""Adjacency: how strongly each regulator can change, or does change, the velocity of each target.

        .. math:: A = |S| + |W^L \odot z^L| \cdots |W^1 \odot z^1|

        with the weights :math:`W^l` and gates :math:`z^l` of layer :math:`l`, and the linear skip :math:`S` if there is one
        :cite:p:`aliee2022sparsity`. :math:`A_{ij}` bounds :math:`|\partial f_i / \partial x_j|`, and
        :math:`A_{ij} = 0` proves that :math:`f_i` is constant in :math:`x_j`. The linear decay is not part of it.

        Parameters
        ----------
        lineage
            Lineage whose network is read; by default the mean over lineages. Its network is that of its own field, or that of its
            cells in a field that all share, as with transport: Jacobians are averaged over its cells, and regulators count by how
            much they vary among these.
        signed
            Give entries the sign of the mean Jacobian: along the fitted trajectories, or for a transport fit over training cells, and for
            collocation over the knots of smoothed trajectories, all or, if there are more, 256 that are drawn.
        replicate
            Replicate to use; the selected one by default.
        weights
            ``"paths"``: :math:`A`. ``"jacobian"``: the mean Jacobian where :math:`A` is not zero, and zero elsewhere.
            ``"effect"``: the same per standard deviation of the regulator, in standard deviations of the target, which makes
            edges of all genes comparable. ``"standardised"``: per standard deviation of the regulator, in standard deviations of
            the target's observed displacement, a standardised regression coefficient without unit. For a ``lineage`` these are
            per standard deviation of the regulator in its cells, by their memberships; those of the target are over all cells, so
            that lineages can be compared. With transport all cells count once in those, and otherwise by their memberships.
            ``"balanced"``: the geometric
            mean of that and of its share among the edges of its target, :math:`\beta_{ij} / \| \beta_i \|^{1/2}` without the
            self edge, so that targets of which little is explained are ranked with the others. These two exist only where cells
            were coupled by transport, and ``"balanced"`` is the default there. Otherwise ``"paths"`` is, as all genes share one
            scale. With ``objective="both"`` all but ``"paths"`` are those of the transport fit, and ``"paths"`` that of the fields
            that are integrated, with the same zeros.
        block
            Only in second order, where the acceleration of a target depends on the positions and on the velocities of its
            regulators: ``"position"`` or ``"velocity"``. By default their union, the stronger of both for each edge, with
            velocities in a unit that makes them as large as positions; it is zero where both are.

        Returns
        -------
        Genes × genes, the index is named ``target``, the columns ``regulator``. Entries are per unit of pseudotime, unless
        standardised; in second order those of the position block and of the union are per squared unit, and with ``"effect"`` those
        of the velocity block, too, which are per one unit of velocity for all genes.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If there is no such lineage or replicate, if a block is asked for in first order, or if ``"standardised"`` or
            ``"balanced"`` weights are asked of an objective that observes no displacements.

        Notes
        -----
        Magnitudes of ``"paths"`` are bounds, not effects: do not read them as coefficients, for which ``"jacobian"`` is
        there, or compare them between genes of different scales, for which the others are. ``"effect"`` ranks targets that
        change fast above others, ``"standardised"`` those of whose change the network explains much,
        ``"balanced"`` half as much so.
        """
        self._require_trained()
        self._check_block(block)
        read = self._places(lineage)
        chosen = self._default_weights if weights is None else weights
        _checks.choice("weights", chosen, get_args(Weights))
        unitless = chosen in ("standardised", "balanced")
        if unitless and not self._couples_cells:
            raise ValueError(
                f"Expected a transport fit for `weights={chosen!r}`, found another objective, which observes no displacements. "
                "Take 'effect'."
            )
        if self.network_ is not None and self.network_units_ is not None and chosen != "paths":
            by_lineage, (deviation, speed) = self.network_[self._replicate(replicate)], self.network_units_
            matrix = np.stack([by_lineage[place].toarray() for place in read]).mean(0, dtype=np.float64)
            if not unitless:
                matrix *= speed[:, None] / float(self.module.time_unit)
            if chosen == "jacobian":
                matrix *= deviation[:, None] / deviation
        else:
            if chosen == "paths":
                matrix = self._bounds(lineage, replicate, signed)
            else:
                matrix = self._mean_effects(lineage, replicate)
            if not unitless:
                matrix *= self._edge_units(chosen == "effect", block)
            matrix = self._take_block(matrix, block)
        if lineage is not None and chosen not in ("paths", "jacobian"):
            matrix *= self._variation(lineage)
        if chosen == "balanced":
            matrix = _balance(matrix)
        return self._by_gene(matrix if signed else np.abs(matrix))

    def _by_gene(self, matrix: np.ndarray) -> pd.DataFrame:
        """Targets × regulators with their names."""
        return pd.DataFrame(
            matrix, index=pd.Index(self.genes, name="target"), columns=pd.Index(self.genes, name="regulator")
        )

    @torch.no_grad()
    def get_jacobian(
        self,
        indices: Sequence[int] | np.ndarray,
        lineage: str | None = None,
        replicate: int | None = None,
        adata: AnnData | MuData | None = None,
        block: Block | None = None,
    ) -> np.ndarray:
        r"""Jacobian of the field at single cells, :math:`\partial f_i / \partial x_j`, without the decay.

        It is that of the field that is integrated, and zero wherever ``get_adjacency(weights="paths")`` is. Other weights of a
        lineage, but for ``weights="jacobian"``, are zero also for a regulator that is constant among its cells.

        Parameters
        ----------
        indices
            Cells, by position or as a mask.
        lineage
            Lineage whose field is read, where each has its own; by default the mean over lineages.
        replicate
            Replicate to use; the selected one by default.
        adata
            Cells to evaluate; those of the model by default.
        block
            As in :meth:`get_adjacency`. In second order cells are taken to move like their fitted trajectory.

        Returns
        -------
        Cells × targets × regulators, in the units of ``get_adjacency(weights="jacobian")``, genes in the order of ``model.genes``. Only the
        cells that are asked for are held in memory, so walk through many cells in pieces.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        IndexError
            If an index is out of range, or there are several dimensions.
        KeyError
            If a key that the model was set up with is not in ``adata``.
        TypeError
            If ``adata`` is neither AnnData nor MuData, or holds values that are not numeric; or if ``indices`` are neither
            integers nor booleans.
        ValueError
            If there is no such lineage, replicate or block, or if genes are missing.

        Notes
        -----
        Where cells are noisier than what the field was fitted to, single Jacobians are extrapolations; average them over
        groups of cells. With ``align_batches`` their unit of time is that of all batches in the mean, that of :meth:`get_velocity`
        each batch's own.
        """
        self._require_trained()
        self._check_block(block)
        cells, fields = self._cells(adata), self._fields(lineage)
        wanted = _checks.cell_indices(indices, len(cells.times))
        rows, back = np.unique(wanted, return_inverse=True)
        states = self._encode(cells.expression(rows)[back])
        chosen = self._replicate(replicate)
        if self.module.order == 2:
            velocities = self._slopes(cells, wanted, chosen, 1.0 / self._relative(cells)) / self._velocity_unit
            states = np.concatenate([states, velocities], 1)
        points = self._on_device(states)
        effective, first = self.module.field.effective_weights(), chosen * self.module.n_fields
        factor = self._edge_units(False, block)
        result = np.empty((len(wanted), len(self.genes), len(self.genes)), dtype=np.float32)
        with limited_threads(self.module):
            for row in range(len(wanted)):
                point = points[row : row + 1]
                found = [self.module.field.jacobian(point, effective, first + field).cpu().numpy() for field in fields]
                result[row] = self._take_block(np.mean(found, 0) * factor, block)
        return result

    def get_network(
        self, lineage: str | None = None, replicate: int | None = None, block: Block | None = None
    ) -> pd.DataFrame:
        """Signed edges with a non-zero weight, strongest first, and how often each of them is found.

        Parameters
        ----------
        lineage
            As in :meth:`get_adjacency`.
        replicate
            As in :meth:`get_adjacency`.
        block
            As in :meth:`get_adjacency`.

        Returns
        -------
        Long table with the columns ``source`` (regulator), ``target`` and ``weight``, self edges among them;
        :func:`sparsenode.tl.to_decoupler` takes it. With ``n_seeds > 1`` also ``frequency``; see :meth:`get_edge_frequency`.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If there is no such lineage, replicate or block.

        Notes
        -----
        Do not interpret it before it was compared with :func:`sparsenode.tl.network_baselines`, and with the same fit after
        :func:`sparsenode.tl.shuffle_time`. The skill of :meth:`evaluate` is that of the trajectories, and no test of it.
        """
        adjacency = self.get_adjacency(lineage, replicate=replicate, block=block)
        values = adjacency.to_numpy()
        target, source = np.nonzero(values)
        network = pd.DataFrame(
            {"source": self.genes[source], "target": self.genes[target], "weight": values[target, source]}
        )
        if len(self.module.seeds) > 1:
            network["frequency"] = self.get_edge_frequency(lineage, replicate, block).to_numpy()[target, source]
        return network.sort_values("weight", key=np.abs, ascending=False, kind="stable", ignore_index=True)

    def get_edge_frequency(
        self, lineage: str | None = None, replicate: int | None = None, block: Block | None = None
    ) -> pd.DataFrame:
        """Share of the replicates of one strength in which each edge is alive, without those that were given up.

        With ``n_seeds`` replicates these are fits from other starts; with ``train(half_samples=True)`` also on other
        halves of the cells, as in stability selection :cite:p:`meinshausen2010stability`: edges that only chance put
        there are rarely found in most of them.

        Parameters
        ----------
        lineage
            As in :meth:`get_adjacency`; without it an edge is alive if it is in any lineage.
        replicate
            A replicate of the strength in question; the selected one by default.
        block
            As in :meth:`get_adjacency`; without it an edge is alive if it is in either.

        Returns
        -------
        Genes × genes in ``[0, 1]``, the index is named ``target``, the columns ``regulator``.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If there is no such lineage, replicate or block, or if all replicates of the strength were given up.

        Notes
        -----
        With one seed it says no more than the adjacency. Shares in steps of ``1 / n_seeds`` need at least ten seeds to
        tell stable edges from others. The bound on false edges of stability selection is for half-samples, strengths at which
        few edges are alive, and false edges of which none is likelier than another; those between co-expressed genes are.
        """
        self._require_trained()
        self._check_block(block)
        n_seeds = len(self.module.seeds)
        first = self._replicate(replicate) // n_seeds * n_seeds
        kept = [r for r in range(first, first + n_seeds) if r not in self.given_up_]
        if not kept:
            raise ValueError(
                f"Expected a `replicate` of a strength that was not given up, found {self._replicate(replicate)}: all trajectories of its "
                f"strength diverged. Choose one that is not in `model.given_up_`, {self.given_up_}."
            )
        matrix = torch.stack([self._paths(r)[self._fields(lineage)] for r in kept])
        alive = self._take_block((matrix > 0).double().cpu().numpy(), block).any(1)
        return self._by_gene(alive.mean(0))

    def get_sparsity(
        self,
        regulators: Sequence[str] | None = None,
        lineage: str | None = None,
        tolerance: float = 0.0,
        replicate: int | None = None,
        block: Block | None = None,
    ) -> pd.Series:
        """Shares of zeros in the network and in the weights.

        Parameters
        ----------
        regulators
            Names of the known transcription factors. Names that are not among the genes are ignored.
        lineage
            Lineage whose field is read, where each has its own; by default all of them.
        tolerance
            Magnitudes up to this count as zero, in the units of ``get_adjacency(weights="paths")``: not in those of ``"balanced"``
            weights, the default of that with transport or both. The paper uses 1e-5 for methods without exact zeros.
        replicate
            Replicate to use; the selected one by default.
        block
            Only in second order: the block of the adjacency whose zeros are counted, ``"position"`` or ``"velocity"``; by
            default the entries of both.

        Returns
        -------
        ``feature``: share of zeros in the adjacency. ``weight``: share of zero weights. ``regulator``: share of the genes
        that drive no target, that is of zero columns. ``spurious``, if regulators are given: share of zeros in the
        columns of genes that are no transcription factors. Where every lineage has its own field, these are means over
        the lineages' adjacencies; their mean, which :meth:`get_adjacency` returns without
        ``lineage``, is zero only where all of them are.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        TypeError
            If ``regulators`` is a string.
        ValueError
            If no regulator is among the genes, there is no such lineage or replicate, or a block is asked for in first order.

        Notes
        -----
        A sparse network is not a right one: do not choose a strength by this table alone, see :meth:`select`.
        """
        self._require_trained()
        self._check_block(block)
        chosen, fields = self._replicate(replicate), self._fields(lineage)
        matrix = self._paths(chosen)[fields].cpu().numpy() * self._edge_units(False, block)
        # Fields × targets × blocks × regulators
        zero = matrix.reshape(*matrix.shape[:2], self.module.order, -1) <= tolerance
        if block is not None:
            zero = zero[:, :, [0 if block == "position" else 1]]
        weights = [
            w.unflatten(0, (self.module.n_replicates, self.module.n_fields, -1))[chosen, fields]
            for w in self.module.field.effective_weights().weights
        ]
        n_zero = sum(float((w == 0).sum()) for w in weights)
        result = {
            "feature": float(zero.mean()),
            "weight": n_zero / sum(w.numel() for w in weights),
            "regulator": float(zero.all((1, 2)).mean()),
        }
        if regulators is not None:
            if isinstance(regulators, str):
                raise TypeError(f"Expected `regulators` to be a sequence of genes, found the string {regulators!r}.")
            known = self.genes.isin(list(regulators))
            if not known.any():
                raise ValueError(
                    f"Expected `regulators` to name genes of the model, none of {len(list(regulators))} names is among "
                    f"its {len(self.genes)} genes. Genes look like {list(self.genes[:3])}, names like "
                    f"{list(regulators)[:3]}."
                )
            result["spurious"] = float(zero[..., ~known].mean()) if not known.all() else float("nan")
        return pd.Series(result, name="sparsity")

    def _check_block(self, block: str | None) -> None:
        """Refuse blocks that there are not."""
        if block is None:
            return
        if self.module.order == 1:
            raise ValueError(
                f"Expected no `block` of a first-order model, found {block!r}: it has no velocity block. Leave it out."
            )
        _checks.choice("block", block, get_args(Block))

    def _take_block(self, matrix: np.ndarray, block: Block | None) -> np.ndarray:
        """Columns of one block, or the stronger of both for each edge; in first order all columns."""
        if self.module.order == 1:
            return matrix
        position, velocity = np.split(matrix, 2, axis=-1)
        if block is None:
            return np.where(np.abs(position) >= np.abs(velocity), position, velocity)
        return position if block == "position" else velocity

    def _edge_units(self, effect: bool, block: Block | None) -> np.ndarray:
        """What a path or Jacobian in module units is multiplied by, targets × coordinates of the state."""
        module, scale = self.module, self._units[1]
        rate = module.rate.double().cpu().numpy() / float(module.time_unit)
        units = np.tile(rate[:, None] ** module.order, (1, len(scale)))
        if effect:
            ratio = np.ones_like(scale) if self.deviation_ is None else scale / self.deviation_
            units = units * (ratio[:, None] / ratio)
        else:
            units = units * (scale[:, None] / scale)
            if block == "velocity":
                units = units / rate
        return np.tile(units, (1, module.order))

    def _bounds(self, lineage: str | None, replicate: int | None, signed: bool) -> np.ndarray:
        """Path matrix, with the signs of the mean Jacobian if asked for, in module units: targets × coordinates of the state."""
        matrix = self._paths(replicate)[self._fields(lineage)].mean(0).cpu().numpy().astype(np.float64)
        return np.where(self._mean_jacobian(lineage, replicate) < 0, -matrix, matrix) if signed else matrix

    def _mean_effects(self, lineage: str | None, replicate: int | None) -> np.ndarray:
        """Mean Jacobian where there is a path, and zero elsewhere, in module units: targets × coordinates of the state."""
        alive = (self._paths(replicate)[self._fields(lineage)] > 0).any(0).cpu().numpy()
        return np.where(alive, self._mean_jacobian(lineage, replicate), 0.0)

    def _variation(self, lineage: str) -> np.ndarray:
        """Standard deviation of every gene in the cells of a lineage, relative to that in all cells."""
        deviation = self._units[1] if self.deviation_ is None else self.deviation_
        if self.network_units_ is not None:
            deviation = self.network_units_[0]
        own = cast("np.ndarray", self.lineage_deviation_)  # there, as the model is trained
        return own[self._places(lineage)] / deviation

    @torch.no_grad()
    def _mean_jacobian(self, lineage: str | None, replicate: int | None) -> np.ndarray:
        """Jacobian averaged along the fitted trajectories of a lineage, or over its cells, targets × coordinates of the state.

        Without a lineage it is the mean over lineages.
        """
        module, chosen = self.module, self._replicate(replicate)
        at_reference = self.objective not in ("trajectory", "both")
        if at_reference:
            states = module.reference.cpu().numpy()
        else:
            fitted = self._integrate(None, replicate=replicate)
            states = self._encode(fitted.states[:, ::_GRID_STRIDE])
            if module.order == 2:
                clock = module.relative_span.cpu().numpy()[:, None, None] * self._velocity_unit
                states = np.concatenate([states, fitted.derivatives[:, ::_GRID_STRIDE] / clock], 2)
        lineages = np.arange(len(states)) if at_reference else np.asarray(module.lineages)
        effective = module.field.effective_weights()
        read = self._places(lineage)
        total = np.zeros((len(self.genes), states.shape[2]))
        with limited_threads(module):
            for index in read:
                points = torch.as_tensor(states[lineages == index].reshape(-1, states.shape[2]), dtype=torch.float32)
                network = chosen * module.n_fields + module.field_of(index)
                weight = module.reference_weight[index] if at_reference else None
                total += module.field.jacobian(points.to(module.device), effective, network, weight).cpu().numpy()
        return total / len(read)


def _balance(matrix: np.ndarray) -> np.ndarray:
    """Edges over the root of the norm of their target's: targets × regulators. The self edge is in its own norm only."""
    norm = np.repeat(np.linalg.norm(matrix - np.diag(np.diagonal(matrix)), axis=1, keepdims=True), len(matrix), axis=1)
    np.fill_diagonal(norm, np.linalg.norm(matrix, axis=1))
    return matrix / np.sqrt(np.where(norm > 0, norm, 1.0))
