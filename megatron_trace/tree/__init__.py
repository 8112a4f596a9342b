"""Rollout trees: the data, the backup and the contrast measures. NumPy only."""

from megatron_trace.tree.backup import (
    effective_ratio,
    leaf_statistics,
    mixed_probability,
    mixed_share,
)
from megatron_trace.tree.histories import Histories, as_sampled, by_histories
from megatron_trace.tree.rollout_tree import ROOT, Anchor, Requires, RolloutTree, Stage, Turn
from megatron_trace.tree.store import load_trees, save_trees

__all__ = [
    "ROOT",
    "Anchor",
    "Histories",
    "Requires",
    "RolloutTree",
    "Stage",
    "Turn",
    "as_sampled",
    "by_histories",
    "effective_ratio",
    "leaf_statistics",
    "load_trees",
    "mixed_probability",
    "mixed_share",
    "save_trees",
]
