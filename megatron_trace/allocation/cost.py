"""What a rollout costs: one, or the tokens that it is expected to sample."""

from collections.abc import Sequence
from typing import Any

from megatron_trace.config import AllocationConfig, BudgetUnit
from megatron_trace.tree import Anchor, RolloutTree

DECAY = 0.8
"""Factor by which the weight of earlier observations falls with every step."""

FIRST_WEIGHT = 1e-3
"""Weight of `allocation.expected_tokens`, so small that the first step's rollouts replace it."""


class RolloutCost:
    """Expected cost by the depth of the anchor, from the rollouts of the last steps."""

    def __init__(self, settings: AllocationConfig) -> None:
        """Before any observation a rollout from the root takes `allocation.expected_tokens`."""
        self._in_tokens = settings.unit is BudgetUnit.tokens
        self._sums: list[float] = [float(settings.expected_tokens) * FIRST_WEIGHT]
        self._counts: list[float] = [FIRST_WEIGHT]

    def __call__(self, tree: RolloutTree, anchor: Anchor) -> float:
        """Expected cost of a rollout from `anchor`.

        Anchors deeper than any observed one cost as much as the deepest observed.
        """
        if not self._in_tokens:
            return 1.0
        depth = min(len(tree.path(anchor)), len(self._counts)) - 1
        # At least one token, or a budget could pay for any number of rollouts.
        return max(1.0, self._sums[depth] / self._counts[depth])

    def spent(self, tree: RolloutTree, rollout: int) -> float:
        """What a rollout that has ended cost."""
        if not self._in_tokens:
            return 1.0
        tokens = 0
        for turn in tree.turns:
            if turn.rollout == rollout:
                tokens += len(turn.action_ids)
        return float(tokens)

    def observe(self, trees: Sequence[RolloutTree]) -> None:
        """Learn from a step's trees."""
        self._sums = [DECAY * total for total in self._sums]
        self._counts = [DECAY * count for count in self._counts]
        for tree in trees:
            for leaf in tree.leaves():
                self._observe_rollout(tree, leaf)
        self._drop_unobserved_depths()

    def _observe_rollout(self, tree: RolloutTree, leaf: int) -> None:
        """Learn from the rollout that ended in `leaf`.

        Every turn of it stands for a rollout from there: the tokens after it are what such a
        rollout would have sampled. Turns above the rollout's own anchor were sampled by others.
        """
        path = tree.path(leaf)
        own_anchor = tree.rollouts[tree.turns[leaf].rollout].anchor
        first_depth = len(tree.path(own_anchor)) - 1
        tokens = 0
        for depth in range(len(path) - 2, first_depth - 1, -1):
            tokens += len(tree.turns[path[depth + 1]].action_ids)
            while len(self._counts) <= depth:
                self._sums.append(0.0)
                self._counts.append(0.0)
            self._sums[depth] += tokens
            self._counts[depth] += 1.0

    def _drop_unobserved_depths(self) -> None:
        while self._counts[-1] == 0.0:
            self._sums.pop()
            self._counts.pop()

    def state(self) -> dict[str, Any]:
        """What a resumed run must know, as JSON data."""
        return {"sums": self._sums, "counts": self._counts}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._sums = list(state["sums"])
        self._counts = list(state["counts"])
