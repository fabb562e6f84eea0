"""Preprocessing: from counts to trajectories, and from chromatin and motifs to a reference network."""

from sparsenode.pp._annotation import read_annotation
from sparsenode.pp._assign_peaks import assign_peaks
from sparsenode.pp._min_max_scale import min_max_scale
from sparsenode.pp._motifs import scan_motifs
from sparsenode.pp._motion import prepare_motion, restore_motion
from sparsenode.pp._prepare_trajectories import prepare_trajectories
from sparsenode.pp._reference_network import ReferenceNetwork, reference_network

__all__ = [
    "ReferenceNetwork",
    "assign_peaks",
    "min_max_scale",
    "prepare_motion",
    "prepare_trajectories",
    "read_annotation",
    "reference_network",
    "restore_motion",
    "scan_motifs",
]
