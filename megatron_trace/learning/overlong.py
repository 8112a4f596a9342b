"""Overlong shaping: a rollout that comes close to the longest history gets a lower reward."""

from dataclasses import replace

from megatron_trace.tree import RolloutTree


def overlong_penalty(length: int, *, longest: int, buffer: int) -> float:
    """Soft overlong punishment in [−1, 0] of a history of `length` tokens.

    Source: DAPO, arXiv 2503.14476, eq. 13. It is 0 up to `longest − buffer` tokens, then falling
    linearly to −1 at `longest`.
    """
    share = (length - (longest - buffer)) / buffer
    return -min(max(share, 0.0), 1.0)


def shape_rewards(tree: RolloutTree, *, longest: int, buffer: int, penalty: float) -> RolloutTree:
    """A copy of `tree` with the terminal rewards r + penalty·overlong_penalty(whole history).

    Use the copy for advantages alone.
    """
    turns = list(tree.turns)
    for leaf in tree.leaves():
        length = len(tree.history_ids(leaf))
        lost = penalty * overlong_penalty(length, longest=longest, buffer=buffer)
        turns[leaf] = replace(turns[leaf], reward=turns[leaf].reward + lost)
    return replace(tree, turns=turns)
