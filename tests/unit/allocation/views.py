"""Situations for tests of strategies."""

import numpy as np

from megatron_trace.allocation import PlanningView
from megatron_trace.allocation.beliefs import Beliefs
from megatron_trace.tree import RolloutTree
from tests.unit.trees import empty_tree


def planning_view(
    trees: list[RolloutTree],
    *,
    total: int,
    round: int = 0,
    left: float | None = None,
    cost=None,
    beliefs: Beliefs | None = None,
    failed: list[int] | None = None,
) -> PlanningView:
    """Predictions as they are; what the trees' rollouts leave of `total`, where `left` is not
    given. Beliefs: those of a run that begins, where none are given.
    """
    spent = sum(len(tree.rollouts) for tree in trees)
    return PlanningView(
        trees=trees,
        pending=[{} for _ in trees],
        failed=[0] * len(trees) if failed is None else failed,
        round=round,
        total=total,
        left=total - spent if left is None else left,
        cost=cost or (lambda tree, anchor: 1.0),
        calibrate=lambda prediction, roots: prediction.copy(),
        beliefs=beliefs or Beliefs(),
        root_logit_std=0.0,
        rng=np.random.default_rng(0),
    )


def roots(*success: float) -> list[RolloutTree]:
    """Trees of only roots with these predictions."""
    return [empty_tree(v, f"task {number}") for number, v in enumerate(success)]
