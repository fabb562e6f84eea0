"""What the objectives are computed from, and the null models that fits are compared with; plain arrays only."""

from sparsenode.objectives._collocation import SmoothedTrajectories, smooth
from sparsenode.objectives._common_motion import share_by_chance, take_out
from sparsenode.objectives._initial import InitialState, early_cells, initial_weights
from sparsenode.objectives._local import local_weights
from sparsenode.objectives._nulls import NullModels
from sparsenode.objectives._relaxation import regression_within, share_at_rest
from sparsenode.objectives._statistics import CellTable, StreamedData, TrajectoryStatistics, stream
from sparsenode.objectives._transport import Pairs, Transport, couple_cells, noise_to_signal
from sparsenode.objectives._window_means import WindowMeans

__all__ = [
    "CellTable",
    "InitialState",
    "NullModels",
    "Pairs",
    "SmoothedTrajectories",
    "StreamedData",
    "TrajectoryStatistics",
    "Transport",
    "WindowMeans",
    "couple_cells",
    "early_cells",
    "initial_weights",
    "local_weights",
    "noise_to_signal",
    "regression_within",
    "share_at_rest",
    "share_by_chance",
    "smooth",
    "stream",
    "take_out",
]
