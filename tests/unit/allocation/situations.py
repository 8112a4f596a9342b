"""Situations for tests of strategies."""

import numpy as np

from megatron_trace.allocation import Situation
from megatron_trace.tree import RolloutTree
from tests.unit.trees import empty_tree


def situation(
    trees: list[RolloutTree], *, total: int, round: int = 0, left: float | None = None, cost=None
) -> Situation:
    """Predictions as they are; what the trees' rollouts leave of `total`, where `left` is not given."""
    spent = sum(len(tree.rollouts) for tree in trees)
    return Situation(
        trees=trees,
        pending=[{} for _ in trees],
        round=round,
        total=total,
        left=total - spent if left is None else left,
        cost=cost or (lambda tree, anchor: 1.0),
        calibrate=lambda prediction, roots: prediction.copy(),
        root_deviation=0.0,
        rng=np.random.default_rng(0),
    )


def roots(*success: float) -> list[RolloutTree]:
    """Trees of only roots with these predictions."""
    return [empty_tree(v, f"task {number}") for number, v in enumerate(success)]
