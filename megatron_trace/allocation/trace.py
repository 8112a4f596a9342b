"""TRACE: budget to the anchors whose descendants most likely hold both a success and a failure.

Tree Rollout Allocation for Contrastive Exploration, arXiv 2606.11119. Stage 1 maximises Σ V_root(v_i, m_i),
V_root(v, m) = 1 − v^m − (1−v)^m, over a pool of candidate tasks; stage 2 maximises, in each active task,
Σ V_pref(q, k), V_pref = 1 − q^k, over the prefixes of its bare rollouts, q the predicted probability that a
continuation ends as its rollout did. Ours to decide: the continuations are split evenly over the active tasks
(the remainder to the first), and the share of a tree without an open prefix goes to the others, or, where no
tree has one, to the roots.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from megatron_trace.allocation.solver import solve_prefixes, solve_roots
from megatron_trace.allocation.stateless import Stateless
from megatron_trace.allocation.value import same_outcome
from megatron_trace.config import AllocationConfig
from megatron_trace.tree import ROOT, Anchor, RolloutTree


class Trace(Stateless):
    """Both stages of TRACE. What it learns lies in the predictor, which is part of the policy."""

    def __init__(self, settings: AllocationConfig):
        self._settings = settings
        self.candidates = settings.pool

    def plan_roots(self, success: NDArray[np.float64]) -> NDArray[np.int64]:
        settings = self._settings
        return solve_roots(success, settings.bare_rollouts, floor=settings.floor, cap=settings.root_cap)

    def plan_prefixes(self, trees: Sequence[RolloutTree]) -> list[dict[Anchor, int]]:
        budget, cap = self._settings.budget - self._settings.bare_rollouts, self._settings.prefix_cap
        prefixes = [tree.prefixes() for tree in trees]
        room = [budget if cap is None else cap * len(anchors) for anchors in prefixes]
        shares = split_evenly(
            budget, [r if anchors else 0 for r, anchors in zip(room, prefixes, strict=True)]
        )
        plans = [
            _expand(tree, anchors, share, cap)
            for tree, anchors, share in zip(trees, prefixes, shares, strict=True)
        ]
        for plan, rest in zip(plans, split_evenly(budget - sum(shares), [budget] * len(trees)), strict=True):
            if rest:
                plan[ROOT] = rest
        return plans


def _expand(tree: RolloutTree, anchors: list[Anchor], share: int, cap: int | None) -> dict[Anchor, int]:
    # A prefix has a prediction: the turn after it was sampled.
    predictions = np.array([tree.turns[a].prediction for a in anchors], dtype=np.float64)
    outcomes = [tree.outcome_below(a) for a in anchors]
    counts = solve_prefixes(same_outcome(predictions, outcomes), share, cap=cap)
    return {anchor: int(count) for anchor, count in zip(anchors, counts, strict=True) if count}


def split_evenly(total: int, room: Sequence[int]) -> list[int]:
    """Shares of `total`, as equal as `room` allows, the remainder to the first; less than `total` only if full."""
    shares, left = [0] * len(room), total
    while left and (open_shares := [i for i, limit in enumerate(room) if shares[i] < limit]):
        each, remainder = divmod(left, len(open_shares))
        for rank, i in enumerate(open_shares):
            shares[i] += min(room[i] - shares[i], each + (rank < remainder))
        left = total - sum(shares)
    return shares
