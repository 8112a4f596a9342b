"""A step of an allocator whose rollouts end as a test says."""

from collections.abc import Callable

from megatron_trace.allocation import Allocator, Plans
from megatron_trace.tree import RolloutTree
from tests.unit.trees import chain


def sample_step(
    allocator: Allocator,
    trees: list[RolloutTree],
    reward: Callable[[RolloutTree, int], float],
    name: str = "step 1",
    turns: int = 2,
    tokens_per_turn: int = 2,
) -> tuple[list[RolloutTree], list[Plans]]:
    """Sample what is planned; `reward(tree, n)` is that of a tree's n-th rollout. Returns the trees
    and the plans.
    """
    step = allocator.begin(trees, name)
    plans = []
    while plan := step.plan():
        plans.append(plan)
        for index, anchors in enumerate(plan):
            for anchor, count in anchors.items():
                for _ in range(count):
                    number = len(trees[index].rollouts)
                    grown = chain(100 * number, turns, reward(trees[index], number))
                    for turn in grown:
                        turn.action_ids = turn.action_ids[:1] * tokens_per_turn
                    step.ended(index, anchor, grown)
    return allocator.finish(step)[0], plans


def half(tree: RolloutTree, number: int) -> float:
    """Every other rollout succeeds."""
    return float(number % 2)


def never(tree: RolloutTree, number: int) -> float:
    """All fail."""
    return 0.0
