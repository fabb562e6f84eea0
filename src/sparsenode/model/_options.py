"""What a model is made of: as chosen, or as was best for its objective, and which choices go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from sparsenode import _checks
from sparsenode._input._regulators import SelfEdges
from sparsenode.model._prediction import InitialVelocities
from sparsenode.objectives import Transport
from sparsenode.objectives._initial import InitialState
from sparsenode.regularizers import CNODE, Regularizer, get

_SEEDS = 2**32  # that numpy takes for the random state of others

# What was best for each objective in our benchmarks: forecasts for one, networks for the other.
DEFAULTS: dict[str, dict[str, Any]] = {
    "trajectory": {
        "regularizer": "pathreg",
        "hidden": (100, 100),
        "fields": "lineage",
        "decay": True,
        "skip": False,
        "self_edges": "penalised",
        "initial_state": "kernel",
        "initial_bandwidth": 0.2,
        "align_batches": True,
    },
    "collocation": {
        "regularizer": "pathreg",
        "hidden": (10,),
        "fields": "shared",
        "decay": False,
        "skip": True,
        "self_edges": "free",
        "initial_state": "learned",
        "initial_bandwidth": 0.1,
        "align_batches": False,
    },
    "transport": {
        "regularizer": CNODE(0.1),
        "hidden": (32, 32),
        "fields": "shared",
        "decay": True,
        "skip": True,
        "self_edges": "free",
        "initial_state": "kernel",
        "initial_bandwidth": 0.2,
        "align_batches": True,
    },
}
# The network of transport, and the starts and separate lineages of trajectories.
DEFAULTS["both"] = DEFAULTS["transport"] | {"fields": "lineage"}
# A network per target needs to find the regulators of one gene only, and costs as much as all others together.
_HIDDEN_PER_TARGET = (10,)
# Second order is for time series, whose clock is the same in all trials and whose first frame is as good as any.
_SECOND_ORDER: dict[str, Any] = {"initial_state": "learned", "initial_bandwidth": 0.1, "align_batches": False}
# Cells in a trajectory, a tenth of them held out: in fewer, lags of whole windows span more of it than a fifteenth, which loses the
# order of chains; in more, plans between windows take minutes and gigabytes. Transport reads the expression as a whole, of at most so many entries.
_FEWEST_CELLS, _MOST_CELLS, _LARGEST_TABLE = 100, 60_000, 200_000_000


@dataclass(frozen=True)
class Options:
    """Arguments of :class:`sparsenode.SparseNODE` whose defaults depend on others."""

    regularizer: Regularizer
    hidden: tuple[int, ...]
    fields: Literal["shared", "lineage"]
    decay: bool
    skip: bool
    self_edges: SelfEdges
    initial_state: InitialState
    initial_bandwidth: float
    align_batches: bool
    bootstrap: bool

    def __post_init__(self) -> None:
        _checks.choice("fields", self.fields, ("shared", "lineage"))
        _checks.choice("initial_state", self.initial_state, get_args(InitialState))
        _checks.choice("self_edges", self.self_edges, get_args(SelfEdges))
        switches = ("decay", "skip", "align_batches", "bootstrap")
        _checks.booleans(**{name: getattr(self, name) for name in switches})
        _checks.positive("initial_bandwidth", self.initial_bandwidth)


def resolve(objective: str, order: int, given: dict[str, Any]) -> Options:
    """Options as given, and by default those of the objective, after their checks.

    Parameters
    ----------
    objective
        Name of the objective.
    order
        Order of the dynamics.
    given
        Value of every option; ``None`` is the default.

    Raises
    ------
    TypeError
        If the regularizer is none, or a switch is no boolean.
    ValueError
        If an option is out of range.
    """
    defaults = DEFAULTS[objective] | (_SECOND_ORDER if order == 2 else {})
    named = {name: value for name, value in given.items() if value is not None}
    penalty = get(named.get("regularizer", defaults["regularizer"]))
    defaults["bootstrap"] = named.get("initial_state", defaults["initial_state"]) != "learned"
    if penalty.per_target:
        defaults["hidden"] = _HIDDEN_PER_TARGET
    if not penalty.weights_paths:
        defaults["self_edges"] = "penalised"
    chosen = defaults | named
    chosen |= {"regularizer": penalty, "hidden": _checks.positive_integers("hidden", chosen["hidden"])}
    return Options(**chosen)


def check_dynamics(
    objective: str | Transport | None,
    order: object,
    initial_velocity: InitialVelocities,
    noise: dict[str, float],
) -> None:
    """Refuse an order, initial velocities and noise that do not exist or that the objective does not have.

    Raises
    ------
    ValueError
        If there are any.
    """
    if order not in (1, 2) or not _checks.is_integer(order):
        raise ValueError(f"Expected `order` to be 1 or 2, found {order!r}.")
    _checks.choice("initial_velocity", initial_velocity, get_args(InitialVelocities))
    if initial_velocity == "observed" and order == 1:
        raise ValueError(
            "Expected `order=2` with `initial_velocity='observed'`, found 1: velocities are no part of its state."
        )
    if objective is not None and not isinstance(objective, Transport):
        _checks.choice("objective", objective, tuple(DEFAULTS))
    coupled = isinstance(objective, Transport) or objective == "transport"
    for name, value in noise.items():
        _checks.non_negative(name, value)
        if value > 0 and coupled:
            raise ValueError(
                f"Expected no `{name}` with transport, found {value!r}: no trajectory is solved in training. Leave it out."
            )
    if order == 2 and (coupled or objective == "both"):
        raise ValueError(
            f"Expected `objective='trajectory'` with `order=2`, found {objective!r}: transport would regress accelerations on "
            "positions and velocities, and the velocities of cells are not observed."
        )


def check_knowledge(
    options: Options, prior: pd.DataFrame | None, hard_prior: bool, path_weights: pd.DataFrame | None
) -> None:
    """Refuse knowledge about edges that the regularizer cannot heed.

    Raises
    ------
    TypeError
        If ``hard_prior`` is no boolean.
    ValueError
        If there is any.
    """
    _checks.booleans(hard_prior=hard_prior)
    penalty = options.regularizer
    if prior is not None and path_weights is not None:
        raise ValueError("Expected one of `prior` and `path_weights`, found both.")
    if hard_prior and (prior is None or not penalty.per_target or (penalty.strength == 0).any()):
        raise ValueError(
            f"Expected a `prior` and GroupLasso with a positive strength for `hard_prior`, found {penalty!r}: in other "
            "networks targets share hidden units, so single edges cannot be forbidden."
        )
    known = path_weights is not None or prior is not None or options.self_edges == "free"
    if known and not penalty.weights_paths:
        raise ValueError(
            "Expected a regularizer that penalises paths for `prior`, `path_weights` and free `self_edges`, found "
            f"{penalty!r}. Use 'pathreg', 'cnode' or 'grouplasso'."
        )


def check_numbers(n_seeds: object, n_knots: object, seed: object, tolerances: dict[str, float]) -> None:
    """Refuse counts and tolerances that are out of range.

    Raises
    ------
    ValueError
        If there are any.
    """
    _checks.at_least("n_seeds", n_seeds, 1)
    _checks.at_least("n_knots", n_knots, 3)
    if _checks.at_least("seed", seed, 0) >= _SEEDS:
        raise ValueError(f"Expected `seed` to be below 2**32, as numpy wants it, found {seed}.")
    for name, value in tolerances.items():
        _checks.positive(name, value)


def why_not_coupled(trajectories: Mapping[str, Sequence], shape: tuple[int, int]) -> str | None:
    """Why transport should not couple these cells by default; ``None`` if it can.

    Parameters
    ----------
    trajectories
        Columns ``trajectory`` and ``n_cells``, as they are registered.
    shape
        Numbers of cells and genes.
    """
    n_cells = np.asarray(trajectories["n_cells"])
    if np.median(n_cells) < _FEWEST_CELLS:
        return f"trajectories hold {np.median(n_cells):g} cells in the median, and a network from transport needs {_FEWEST_CELLS}"
    if shape[0] * shape[1] > _LARGEST_TABLE:
        return (
            f"{shape[0]} cells × {shape[1]} genes are too many to couple by transport, which takes {_LARGEST_TABLE:g} "
            "values; a network can be had from some of the cells, or fewer genes"
        )
    if n_cells.max() > _MOST_CELLS:
        return (
            f"trajectory {trajectories['trajectory'][int(n_cells.argmax())]!r} holds {n_cells.max()} cells with a weight above 0, too many to "
            f"couple by transport, which takes {_MOST_CELLS}; a network can be had from some of the cells, and small memberships "
            "that are set to 0 shrink a lineage"
        )
    return None
