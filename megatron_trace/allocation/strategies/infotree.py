"""InfoTree: greedy maximisation of a tree's informativeness, and a reserve for uniform trees.

Maximizing rollout informativeness under a fixed budget, arXiv 2605.05262. The states to expand
maximise a monotone submodular function, by one-step greedy selection (within 1 − 1/e of the best).
A state's marginal gain is the sum of a value, a count and a token-entropy term. Expansion is
speculative: it continues while at most a few results are unseen. An allocator adds less than 5 % of
the budget to rescue prompts whose tree has one outcome only.

Ours, as the abstract leaves it open:
- The objective is f_s(k) = [1 − v^m − (1−v)^m] + c·√m + λ·h·(1 − 2^−k) with m = n + k for k
  expansions of state s, summed over the states (`informativeness.py` has the proof). v is the mean
  of the rewards below s and the predictor's value. The prompt is not a state.
- The reserve is part of the budget and follows a rule instead of being learned. Its rollouts go to
  uniform trees when all others are planned; if no tree is uniform, to trees short of their group.
  So mixed trees are the first to stay short.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from megatron_trace.allocation.branching import Branching
from megatron_trace.allocation.informativeness import informativeness, sampled_entropy
from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.allocation.solvers.greedy import best_units
from megatron_trace.config import setting
from megatron_trace.tree import Anchor, Requires, leaf_statistics
from megatron_trace.tree.backup import is_mixed


class InfoTree(Branching):
    """Expands the most informative states a few at a time; keeps a reserve for uniform trees."""

    requires = frozenset({Requires.entropies})

    @dataclass
    class Options:
        """The objective's weights, and the schedule of expansion."""

        count_weight: float = setting(0.25, "c, weight of the count term", at_least=0)
        entropy_weight: float = setting(0.25, "λ, weight of the entropy term, per nat", at_least=0)
        staleness: int = setting(
            2,
            "most rollouts of a tree whose results are unseen when the tree is expanded",
            at_least=1,
        )
        speculative: bool = setting(
            False, "plan whenever a rollout has ended, instead of when all have"
        )
        rescue: float = setting(
            0.04,
            "share of the budget kept for trees that are still uniform",
            at_least=0,
            below=0.05,
        )

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.streams = self.options.speculative

    def plan(self, view: PlanningView) -> Plans:
        owed = self.owed(view)
        if not owed:
            return self.open(view)
        reserve = int(self.options.rescue * view.total)
        regular = view.rollouts - reserve
        if regular > 0:
            return self.spread(view, self._fresh_enough(view, owed), regular)
        # Which trees stay uniform is known only when nothing runs any more.
        if any(view.pending):
            return view.nothing()
        begun = (i for i, tree in enumerate(view.trees) if tree.rollouts)
        uniform = {i: view.rollouts for i in begun if not is_mixed(view.trees[i])}
        return self.spread(view, self._fresh_enough(view, uniform or owed), view.rollouts)

    def expand(self, view: PlanningView, index: int, share: int) -> dict[Anchor, int]:
        tree, pending = view.trees[index], view.pending[index]
        anchors = tree.prefixes(of_continuations=True)
        if not anchors:
            return {}
        leaves, mean, _ = leaf_statistics(tree)
        prediction = np.nan_to_num(view.success(tree), nan=0.5)
        # The prediction counts as one more outcome.
        success = (leaves * mean + prediction) / (leaves + 1)
        taken = Counter(rollout.anchor for rollout in tree.rollouts)
        ended = np.array([[taken[anchor]] for anchor in anchors])
        unseen = np.array([[pending.get(anchor, 0)] for anchor in anchors])
        value = informativeness(
            success[anchors, None],
            leaves[anchors, None] - ended,
            sampled_entropy(tree)[anchors, None],
            ended + unseen + np.arange(share + 1),
            count_weight=self.options.count_weight,
            entropy_weight=self.options.entropy_weight,
        )
        gains = np.diff(value, axis=1)
        counts = best_units(gains, np.ones(len(anchors)), share).tolist()
        return {anchor: count for anchor, count in zip(anchors, counts, strict=True) if count}

    def _fresh_enough(self, view: PlanningView, room: dict[int, int]) -> dict[int, int]:
        """Room of each tree, cut to the rollouts that may be unseen; uniform trees first."""
        fresh = {}
        for index in sorted(room, key=lambda index: is_mixed(view.trees[index])):
            unseen = sum(view.pending[index].values())
            most = min(room[index], self.options.staleness - unseen)
            if most > 0:
                fresh[index] = most
        return fresh
