"""The gene network of a fitted model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData

from sparsenode import _checks
from sparsenode.model._edges import UNITLESS, Block, EdgesMixin, Weights
from sparsenode.training._threads import limited_threads


class NetworkMixin(EdgesMixin):
    """Methods of :class:`sparsenode.SparseNODE` that read the network out of the field."""

    def get_adjacency(
        self,
        lineage: str | None = None,
        signed: bool = True,
        replicate: int | None = None,
        weights: Weights | None = None,
        block: Block | None = None,
    ) -> pd.DataFrame:
        r"""Adjacency matrix: how strongly each regulator can change, or does change, the velocity of each target.

        .. math:: A = |S| + |W^L \odot z^L| \cdots |W^1 \odot z^1|

        has the weights :math:`W^l` and gates :math:`z^l` of layer :math:`l`, and the linear skip :math:`S` if there is one
        :cite:p:`aliee2022sparsity`. :math:`A_{ij}` bounds :math:`|\partial f_i / \partial x_j|`, and :math:`A_{ij} = 0` proves that
        :math:`f_i` is constant in :math:`x_j`. The linear decay is not part of it.

        Parameters
        ----------
        lineage
            Lineage whose network is read. Default: the mean over lineages. If lineages share one field, as with transport, the network is
            read in the cells of the lineage: Jacobians are averaged over them, and regulators count by how much they vary among them.
        signed
            Whether entries have the sign of the mean Jacobian, the default. The mean is along the fitted trajectories; for a transport fit
            over training cells, for collocation over knots of smoothed trajectories (all, or 256 that are drawn if there are more).
        replicate
            Replicate to use. Default: the selected one.
        weights
            Scale of the entries. Default: ``"balanced"`` with transport and ``"both"``; otherwise ``"paths"``, as all genes share one
            scale.

            - ``"paths"``: :math:`A`.
            - ``"jacobian"``: the mean Jacobian where :math:`A` is not zero, and zero elsewhere.
            - ``"effect"``: the same per standard deviation of the regulator, in standard deviations of the target, so that edges of all
              genes are comparable.
            - ``"standardised"``, only if transport coupled cells: :math:`\beta_{ij}`, per standard deviation of the regulator, in standard
              deviations of the target's observed displacement. This is a standardised regression coefficient without unit.
            - ``"balanced"``, only if transport coupled cells: :math:`\beta_{ij} / \| \beta_i \|^{1/2}`, the geometric mean of
              :math:`\beta_{ij}` and its share among the edges of its target; the norm leaves out the self edge. Targets of which little is
              explained are thus ranked with the others.

            For a ``lineage``, standard deviations of regulators in the last three are over its cells, weighted by membership. Those of
            targets are always over all cells, so that lineages can be compared; there every cell counts once with transport, and by its
            memberships otherwise. With ``objective="both"``, ``"paths"`` is read from the integrated fields and everything else from the
            transport fit, with the same zeros.
        block
            Only in second order, where the acceleration of a target depends on positions and velocities of its regulators: ``"position"``
            or ``"velocity"``. Default: their union, for each edge the stronger of both, with velocities in a unit that makes them as large
            as positions. It is zero where both are.

        Returns
        -------
        Genes × genes; the index is named ``target``, the columns ``regulator``. Units are

        - first order: per unit of pseudotime; ``"standardised"`` and ``"balanced"`` have none,
        - second order: per squared unit of pseudotime for the position block and the union. The velocity block is per unit; with
          ``"effect"`` it is per squared unit too, and per one unit of velocity for all genes.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        TypeError
            If ``signed`` is not a boolean.
        ValueError
            If the lineage or replicate does not exist, a block is asked for in first order, or ``"standardised"`` or ``"balanced"`` weights
            are asked for without transport, that is without observed displacements.

        Notes
        -----
        Magnitudes of ``"paths"`` are bounds, not effects: do not read them as coefficients (use ``"jacobian"``), and do not compare them
        between genes of different scales (use the others). ``"effect"`` ranks targets that change fast above others; ``"standardised"``
        those whose change the network largely explains; ``"balanced"`` half as much so.
        """
        self._require_trained()
        self._check_block(block)
        _checks.booleans(signed=signed)
        chosen = self._default_weights if weights is None else weights
        _checks.choice("weights", chosen, get_args(Weights))
        if chosen in UNITLESS and not self._couples_cells:
            raise ValueError(
                f"Expected a transport fit for `weights={chosen!r}`, found another objective, which observes no displacements. "
                "Take 'effect'."
            )
        return self._by_gene(self._edges(lineage, signed, replicate, chosen, block))

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

        It is read from the field that is integrated, and is zero wherever ``get_adjacency(weights="paths")`` is. With other weights than
        ``"paths"`` and ``"jacobian"``, the adjacency of a lineage is also zero for regulators that are constant among its cells.

        Parameters
        ----------
        indices
            Cells, by position or as a mask.
        lineage
            Lineage whose field is read, if each has its own. Default: the mean over lineages.
        replicate
            Replicate to use. Default: the selected one.
        adata
            Cells to evaluate. Default: those of the model.
        block
            As in :meth:`get_adjacency`. In second order cells are taken to move like their fitted trajectory.

        Returns
        -------
        Cells × targets × regulators, in the units of ``get_adjacency(weights="jacobian")``; genes in the order of ``model.genes``. Only the
        requested cells are held in memory, so process many cells in pieces.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        IndexError
            If an index is out of range, or ``indices`` have several dimensions.
        KeyError
            If a key that the model was set up with is not in ``adata``.
        TypeError
            If ``adata`` is neither AnnData nor MuData, or holds values that are not numeric; or if ``indices`` are neither integers nor
            booleans.
        ValueError
            If the lineage, replicate or block does not exist, or genes are missing.

        Notes
        -----
        Do not read single Jacobians where cells are noisier than what the field was fitted to: they are extrapolations. Average them over
        groups of cells. With ``align_batches`` their unit of time is the mean over batches; :meth:`get_velocity` uses that of each batch.
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
        factor = self._edge_units(block)
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
        Long table with the columns ``source`` (regulator), ``target`` and ``weight`` (the default ``weights`` of :meth:`get_adjacency`),
        including self edges; :func:`sparsenode.tl.to_decoupler` takes it. With ``n_seeds > 1`` also ``frequency``; see
        :meth:`get_edge_frequency`.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the lineage, replicate or block does not exist.

        Notes
        -----
        Do not interpret it before comparing it with :func:`sparsenode.tl.network_baselines`, shuffled pseudotime among them, by
        :func:`sparsenode.tl.compare_networks`. The skill of :meth:`evaluate` tests the trajectories, not the network.
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
        """Share of the replicates of one strength in which each edge is open, without those that were given up.

        The ``n_seeds`` replicates are fits from other starts; with ``train(half_samples=True)`` also to other halves of the cells, as in
        stability selection :cite:p:`meinshausen2010stability`. An edge that arose by chance is rarely found in most of them.

        Parameters
        ----------
        lineage
            As in :meth:`get_adjacency`; without it an edge is open if it is in any lineage.
        replicate
            A replicate of the strength in question. Default: the selected one.
        block
            As in :meth:`get_adjacency`; without it an edge is open if it is in either.

        Returns
        -------
        Genes × genes in ``[0, 1]``; the index is named ``target``, the columns ``regulator``.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the lineage, replicate or block does not exist, or all replicates of the strength were given up.

        Notes
        -----
        With one seed it says no more than the adjacency. Shares come in steps of ``1 / n_seeds``: use at least ten seeds to tell stable
        edges from others. Do not rely on the bound on false edges of stability selection: it holds for half-samples, for strengths with few
        open edges, and if no false edge is likelier than another, but those between co-expressed genes are.
        """
        self._require_trained()
        self._check_block(block)
        n_seeds = len(self.module.seeds)
        first = self._replicate(replicate) // n_seeds * n_seeds
        kept = [r for r in range(first, first + n_seeds) if r not in self.given_up_]
        if not kept:
            raise ValueError(
                f"Expected a `replicate` of a strength that was not given up, found {self._replicate(replicate)}: all replicates of its "
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
            Lineage whose field is read, if each has its own. Default: all of them.
        tolerance
            Magnitudes up to this count as zero, in the units of ``get_adjacency(weights="paths")``. These are not the units of
            ``"balanced"`` weights, the default of :meth:`get_adjacency` with transport and ``"both"``. Default: 0. The paper uses 1e-5 for
            methods without exact zeros.
        replicate
            Replicate to use. Default: the selected one.
        block
            Only in second order: the block of the adjacency whose zeros are counted, ``"position"`` or ``"velocity"``. Default: the entries
            of both.

        Returns
        -------
        Series with

        - ``feature``: share of zeros in the adjacency, over all pairs of genes, those that ``regulators`` of the model exclude among them,
        - ``weight``: share of zero weights,
        - ``regulator``: share of genes that drive no target, that is of zero columns,
        - ``spurious``, if ``regulators`` are given: share of zeros in the columns of genes that are not transcription factors.

        If every lineage has its own field, these are means over the adjacencies of the lineages. (:meth:`get_adjacency` without ``lineage``
        returns the mean adjacency, which is zero only where all of them are.)

        Raises
        ------
        RuntimeError
            If the model is not trained.
        TypeError
            If ``regulators`` is no list of names.
        ValueError
            If no regulator is among the genes, the lineage, replicate or block does not exist, or ``tolerance`` is negative or not finite.

        Notes
        -----
        A sparse network is not necessarily a right one: do not choose a strength by this table alone; see :meth:`select`.
        """
        self._require_trained()
        self._check_block(block)
        _checks.non_negative("tolerance", tolerance)
        chosen, fields = self._replicate(replicate), self._fields(lineage)
        matrix = self._paths(chosen)[fields].cpu().numpy() * self._edge_units(block)
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
            names = _checks.names("regulators", regulators)
            known = self.genes.isin(names)
            if not known.any():
                raise ValueError(
                    f"Expected `regulators` to name genes of the model, none of {len(names)} names is among its {len(self.genes)} genes. "
                    f"Genes look like {list(self.genes[:3])}, names like {names[:3]}."
                )
            result["spurious"] = float(zero[..., ~known].mean()) if not known.all() else float("nan")
        return pd.Series(result, name="sparsity")
