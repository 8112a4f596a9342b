"""Overlong shaping: a rollout that comes close to the longest history is worth less."""

from dataclasses import replace

from megatron_trace.tree import RolloutTree


def overlong_penalty(length: int, *, longest: int, buffer: int) -> float:
    """Soft overlong punishment in [−1, 0] of a history of `length` tokens (DAPO, arXiv 2503.14476, eq. 13).

    0 up to `longest − buffer` tokens, then falling linearly to −1 at `longest`.
    """
    return -min(max((length - (longest - buffer)) / buffer, 0.0), 1.0)


def shape_rewards(tree: RolloutTree, *, longest: int, buffer: int, penalty: float) -> RolloutTree:
    """A copy of `tree` whose terminal rewards are r + penalty·overlong_penalty, the length being the whole history's.

    It is for advantages alone: what the predictor learns, and whether a tree is mixed, are facts about the task.
    """
    turns = list(tree.turns)
    for leaf in tree.leaves():
        lost = penalty * overlong_penalty(
            len(tree.history_ids(leaf)), longest=longest, buffer=buffer
        )
        turns[leaf] = replace(turns[leaf], reward=turns[leaf].reward + lost)
    return RolloutTree(task=tree.task, turns=turns, rollouts=tree.rollouts)
