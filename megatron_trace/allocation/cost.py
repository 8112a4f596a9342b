"""What a rollout costs: one, or the tokens that it is expected to sample."""

from collections.abc import Sequence
from typing import Any

from megatron_trace.config import AllocationConfig, BudgetUnit
from megatron_trace.tree import Anchor, RolloutTree

FORGETTING = 0.8
"""Weight of what was observed a step earlier."""


class RolloutCost:
    """Expected cost by the anchor's depth, from the rollouts of the last steps."""

    def __init__(self, settings: AllocationConfig) -> None:
        """Knows nothing yet: a rollout from the root takes `allocation.expected_tokens`."""
        self._in_tokens = settings.unit is BudgetUnit.tokens
        self._sums: list[float] = [float(settings.expected_tokens)]
        self._counts: list[float] = [1e-3]
        self._sums[0] *= self._counts[0]

    def __call__(self, tree: RolloutTree, anchor: Anchor) -> float:
        """Cost of a rollout from `anchor`; at depths where none was seen, that of the deepest seen."""
        if not self._in_tokens:
            return 1.0
        depth = min(len(tree.path(anchor)), len(self._counts)) - 1
        return max(1.0, self._sums[depth] / self._counts[depth])

    def spent(self, tree: RolloutTree, rollout: int) -> float:
        """What a rollout that has ended did cost."""
        if not self._in_tokens:
            return 1.0
        return float(sum(len(turn.action_ids) for turn in tree.turns if turn.rollout == rollout))

    def observe(self, trees: Sequence[RolloutTree]) -> None:
        """Learn from a step's trees: from each anchor on its path, what a rollout still sampled."""
        self._sums = [FORGETTING * total for total in self._sums]
        self._counts = [FORGETTING * count for count in self._counts]
        for tree in trees:
            for leaf in tree.leaves():
                path, tokens = tree.path(leaf), 0
                first = len(tree.path(tree.rollouts[tree.turns[leaf].rollout].anchor)) - 1
                for depth in range(len(path) - 2, first - 1, -1):
                    tokens += len(tree.turns[path[depth + 1]].action_ids)
                    while len(self._counts) <= depth:
                        self._sums.append(0.0)
                        self._counts.append(0.0)
                    self._sums[depth] += tokens
                    self._counts[depth] += 1.0
        while self._counts[-1] == 0.0:
            self._sums.pop()
            self._counts.pop()

    def state(self) -> dict[str, Any]:
        """As JSON data."""
        return {"sums": self._sums, "counts": self._counts}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._sums, self._counts = list(state["sums"]), list(state["counts"])
