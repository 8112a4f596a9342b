"""Equal histories as one: rollouts share the turns that they begin with alike.

    sampled                        by histories
    prompt ─ a ─ b ─ success       prompt ─ a ─ b ─┬─ success
           ├ a ─ b ─ failure                       └─ failure
           └ c ─ failure                  └ c ─ failure

Two rollouts that took the same actions and saw the same observations are in the same history. What
follows in one of them is an outcome of the other's turns as well. So the tree by histories has
contrasts where the sampled one has none, and more outcomes for every anchor. (GiGPO, arXiv
2505.10978, compares turns with equal observations, whatever came before them.)
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from megatron_trace.tree.rollout_tree import Anchor, Rollout, RolloutTree, Turn


class Histories(NamedTuple):
    """A tree read by its histories.

    Attributes:
        tree: it has one turn for every history, which is the first sampled one; every rollout
            keeps its own leaf.
        turn_of: the turn of `tree` for each sampled turn.
        first: the first sampled turn for each turn of `tree`.
    """

    tree: RolloutTree
    turn_of: Sequence[int]
    first: Sequence[Anchor]


def by_histories(tree: RolloutTree) -> Histories:
    """`tree` with equal histories as one.

    Token ids decide. Where an environment hides something in its state, the state of the first one
    stands for all.
    """
    known: dict[tuple[int, tuple[int, ...], tuple[int, ...]], int] = {}
    turn_of: list[int] = []
    first: list[Anchor] = []
    turns: list[Turn] = []
    for index, turn in enumerate(tree.turns):
        parent = turn_of[turn.parent] if turn.parent >= 0 else -1
        key = (parent, tuple(turn.action_ids), tuple(turn.observation_ids))
        # Every rollout has an outcome, so leaves stay apart.
        found = None if turn.terminal else known.get(key)
        if found is None:
            found = len(turns)
            turns.append(replace(turn, parent=parent))
            first.append(index)
        if not turn.terminal:
            known[key] = found
        turn_of.append(found)
    rollouts = [Rollout(turn_of[rollout.anchor]) for rollout in tree.rollouts]
    return Histories(replace(tree, turns=turns, rollouts=rollouts), turn_of, first)


def as_sampled(tree: RolloutTree) -> Histories:
    """`tree` as it is: every sampled turn is a history apart from all others."""
    every = range(len(tree.turns))
    return Histories(tree, every, every)
