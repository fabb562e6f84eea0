"""What a regularizer is: gates, a penalty, and optionally a proximal step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch

from sparsenode import _checks
from sparsenode.module import _paths

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sparsenode.module import Architecture, EffectiveWeights, Field
    from sparsenode.module._field import Gates, Skip


class Regularizer:
    """Base class: minimise ``error + strength * penalty`` in the parameters of a field.

    ``error`` is the squared error as a share

    - of the variance around the mean of each trajectory (trajectories), so it is 1 for a constant prediction,
    - of the variance of displacements (transport),
    - of the squared slopes (collocation).

    Every penalty is normalised so that ``strength`` means the same for any width, depth and number of variables: duplicating hidden units
    and halving their outgoing weights changes no penalty.

    Parameters
    ----------
    strength
        One non-negative number, or a sequence of them: one replicate is fitted per strength and seed.

    Raises
    ------
    ValueError
        If a strength is negative or not finite, or there is none.

    Notes
    -----
    Not to be used as such: it has no penalty. Derive from it to add a method, as the page *How to add a regularizer* shows.
    """

    #: Name of the method in :func:`get`.
    name: ClassVar[str]
    #: Strengths; one replicate is fitted per strength and seed.
    strength: np.ndarray
    #: Whether hard-concrete gates multiply weights or input units; ``None`` without gates.
    gates: Gates | None = None
    #: The linear skip that the method needs, if any.
    skip: Skip | None = None
    #: Whether the method gives every target a network of its own.
    per_target: ClassVar[bool] = False
    #: Whether the method has its own :meth:`prox`; set automatically.
    proximal: ClassVar[bool] = False
    #: Whether the penalty can weight the paths from each regulator to each target (``prior``, ``path_weights``, free self edges).
    weights_paths: ClassVar[bool] = False
    #: Whether, with fixed layers, the penalty is an L1 norm of the linear skip, so that the skip can be solved for.
    convex_skip: ClassVar[bool] = False
    #: Number of rounds of training after the first, with path weights from the round before.
    adaptive: int = 0
    #: Default ``schedule`` of ``train``.
    schedule: ClassVar[Literal["sparse", "iterative"]] = "sparse"
    #: Papers behind the method: keys of ``references.bib``, or whole BibTeX entries.
    citations: ClassVar[tuple[str, ...]] = ()

    def __init__(self, strength: ArrayLike) -> None:
        try:
            given = np.asarray(strength)
        except ValueError:  # sequences of several lengths
            given = np.empty(0)
        of_any_type = given.dtype.kind == "O"  # such as a row of a table that holds text, too
        is_number = all(map(_checks.is_number, given.flat)) if of_any_type else given.dtype.kind in "fiu"
        is_number = is_number and not np.ma.is_masked(strength)
        values = np.atleast_1d(given).astype(np.float64) if is_number else np.empty(0)
        if values.ndim != 1 or values.size == 0 or not np.all(np.isfinite(values)) or np.any(values < 0):
            raise ValueError(
                f"Expected `strength` to be a non-negative number or a sequence of them, found {strength!r}."
            )
        self.strength = values

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls.proximal = cls.prox is not Regularizer.prox

    def __repr__(self) -> str:
        settings = ", ".join(
            f"{key}={value.tolist() if isinstance(value, np.ndarray) else value!r}" for key, value in vars(self).items()
        )
        return f"{type(self).__name__}({settings})"

    def penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """Penalty of every network at strength 1.

        Parameters
        ----------
        field
            Field whose parameters are penalised.
        effective
            Its effective weights in this step.

        Returns
        -------
        Tensor of shape (networks,), without unit, differentiable.

        Raises
        ------
        NotImplementedError
            If a derived class does not define it.
        """
        raise NotImplementedError(f"Expected {type(self).__name__} to define `penalty(field, effective)`, found none.")

    def gradient_penalty(self, field: Field, effective: EffectiveWeights) -> torch.Tensor:
        """The part of the penalty that is minimised by gradient; :meth:`prox` does the rest.

        Parameters
        ----------
        field
            Field whose parameters are penalised.
        effective
            Its effective weights in this step.

        Returns
        -------
        Tensor of shape (networks,), differentiable. Default: the whole of :meth:`penalty`.
        """
        return self.penalty(field, effective)

    def penalties(self, field: Field, effective: EffectiveWeights) -> tuple[torch.Tensor, torch.Tensor]:
        """Both penalties of a training step. Override it if they share work.

        Parameters
        ----------
        field
            Field whose parameters are penalised.
        effective
            Its effective weights in this step.

        Returns
        -------
        :meth:`gradient_penalty`, and the value of :meth:`penalty` without gradients; both of shape (networks,).
        """
        smooth = self.gradient_penalty(field, effective)
        with torch.no_grad():
            return smooth, self.penalty(field, effective)

    def prox(
        self, field: Field, effective: EffectiveWeights, strength: torch.Tensor, steps: Sequence[torch.Tensor]
    ) -> None:
        """Proximal step in place, after the gradient step.

        Parameters
        ----------
        field
            Field whose ``weights`` are changed.
        effective
            Effective weights of the gradient step.
        strength
            Strength of every network, shape (networks,).
        steps
            Step size of every weight in the gradient step, in the shapes of ``field.weights``.
        """


def path_norm(effective: EffectiveWeights) -> torch.Tensor:
    r"""Mean over targets of :math:`\sum_j B_{ij} (|S| + |W^L| \cdots |W^1|)_{ij}`, of shape (networks,).

    :math:`S` is the linear skip, if there is one, and :math:`B` are the path weights, 1 by default.

    Parameters
    ----------
    effective
        Weights of a field, with its gates.

    Returns
    -------
    Norm of every network, shape (networks,), differentiable.

    Notes
    -----
    For your own regularizers. Do not minimise it by gradient if zeros are to be exact: use :func:`soft_threshold_paths`.

    References
    ----------
    Aliee, Theis and Kilbertus (2021), *Beyond predictions in neural ODEs: identification and interventions*.
    """
    return path_sums(effective.architecture, [weight.abs() for weight in effective.weights]).sum(0)


def path_sums(architecture: Architecture, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean over targets of the weighted row sums of the path matrix of every chain: chains × networks."""
    sums = []
    for chain in architecture.chains(matrices):
        if architecture.path_weights is None:
            sums.append(architecture.mean_over_targets(_paths.row_sums(chain)))
            continue
        n_rows = [*(above.shape[2] for above in chain[1:]), _n_rows(architecture, chain)]
        product = _paths.product([matrix.expand(-1, n, -1) for matrix, n in zip(chain, n_rows, strict=True)])
        weighted = product.reshape(-1, architecture.n_vars, product.shape[2]) * architecture.path_weights
        sums.append(weighted.sum(2).mean(1))
    return torch.stack(sums)


def _n_rows(architecture: Architecture, chain: Sequence[torch.Tensor]) -> int:
    """Targets of one network of a chain, whose last matrix may stand for rows that are all alike."""
    single = architecture.per_target and len(chain) == architecture.n_layers
    return 1 if single else architecture.n_vars


@torch.no_grad()
def soft_threshold_paths(
    field: Field, effective: EffectiveWeights, strength: torch.Tensor, steps: Sequence[torch.Tensor]
) -> None:
    """Soft-threshold every weight by its step size times the gradient of ``strength * path_norm`` with respect to its magnitude.

    Parameters
    ----------
    field
        Field whose ``weights`` are changed in place.
    effective
        Effective weights of the gradient step, which hold these gradients.
    strength
        Strength of every network, shape (networks,).
    steps
        Step size of every weight in the gradient step, in the shapes of ``field.weights``.

    Notes
    -----
    Call it from :meth:`Regularizer.prox`. Do not use it for a penalty that is not a function of the path norm.

    References
    ----------
    Parikh and Boyd (2014), *Proximal algorithms*, section 6.5.2.
    """
    scale = strength / field.n_vars
    gates: Sequence[torch.Tensor | None] = effective.gates or [None] * len(steps)
    above = [slope for chain in effective.paths for slope in chain.above]
    below = [slope for chain in effective.paths for slope in chain.below]
    for weight, step, high, low, gate in zip(field.weights, steps, above, below, gates, strict=True):
        if gate is not None and gate.shape[1] == 1:
            low = low * gate
        own = scale.repeat_interleave(len(weight) // len(scale)).view(-1, 1, 1)
        # In place: these tensors are as large as the weights, and fresh memory costs more than arithmetic.
        threshold = (step * (high * own)).mul_(low)
        if gate is not None and gate.shape[1] > 1:
            threshold *= gate
        weight.sub_(torch.clamp(weight, -threshold, threshold))
