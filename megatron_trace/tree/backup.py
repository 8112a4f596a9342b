"""Recursive backup over a tree, and what it says about contrast."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from megatron_trace.tree.rollout_tree import ROOT, RolloutTree

Statistics = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def leaf_statistics(tree: RolloutTree) -> Statistics:
    """Count, mean and standard deviation of the terminal rewards below every turn.

    The mean is TRACE's leaf-weighted backup, V̂(y) = Σ_c n_c V̂(c) / Σ_c n_c over the children c of y, with
    the terminal reward at a leaf and n the leaves below (arXiv 2606.11119). A turn without a leaf below it
    (only a root from which nothing was sampled) has count 0, mean and deviation 0.

    Returns:
        count, mean, deviation: arrays of shape [turns]; the deviation is that of the population.
    """
    count = np.zeros(len(tree.turns), dtype=np.int64)
    total = np.zeros(len(tree.turns))
    squares = np.zeros(len(tree.turns))
    for index in range(len(tree.turns) - 1, -1, -1):
        turn = tree.turns[index]
        if turn.terminal:
            count[index], total[index], squares[index] = 1, turn.reward, turn.reward**2
        if turn.parent >= 0:
            count[turn.parent] += count[index]
            total[turn.parent] += total[index]
            squares[turn.parent] += squares[index]
    leaves = np.maximum(count, 1)
    mean = total / leaves
    variance = np.maximum(squares / leaves - mean**2, 0.0)
    return count, mean, np.sqrt(variance)


def sampled_statistics(tree: RolloutTree) -> Statistics:
    """Count and mean of the terminal rewards sampled from every turn, and the deviation of those compared there.

    `leaf_statistics` mixes in outcomes that had a say in what was sampled: an anchor is often continued because its own
    rollout ended oddly. Here V̂(y) is the mean over the continuations taken at y, where there are any (at the root: over
    the bare rollouts), and elsewhere the outcome of the one rollout that sampled y. Continuations of a later turn count
    neither way. So V̂(y) of an anchor whose continuations were planned at once has the expectation V(y), whatever its
    choice looked at. (One left alone still has the outcome for which it was left alone, and continuations added because
    of what earlier ones brought lean to what was looked for; see docs/advantages.md.)

    The deviation is that of all outcomes that V̂(y) is held against: of the continuations, and of the rollout that
    sampled y. (Of a single continuation alone it would be 0, and the contrast with that rollout lost.)

    Returns:
        count, mean, deviation: arrays of shape [turns]; the count is of what the mean is over, the deviation is that of
        the population, 0 where nothing was continued. All are 0 for a root from which nothing was sampled.
    """
    turns = len(tree.turns)
    reward = np.zeros(len(tree.rollouts) + 1)
    for leaf in tree.leaves():
        reward[tree.turns[leaf].rollout] = tree.turns[leaf].reward
    sampler = np.array([turn.rollout for turn in tree.turns])
    sampled, own = sampler >= 0, reward[sampler]  # the root's −1 takes the spare entry, 0
    anchors = np.array([rollout.anchor for rollout in tree.rollouts], dtype=np.int64)
    taken = np.bincount(anchors, minlength=turns)
    total, squares = (
        np.bincount(anchors, reward[:-1] ** power, minlength=turns) for power in (1, 2)
    )
    mean = np.where(taken > 0, total / np.maximum(taken, 1), own)
    compared = np.maximum(taken + sampled, 1)
    variance = np.maximum((squares + own**2) / compared - ((total + own) / compared) ** 2, 0.0)
    count = np.where(taken > 0, taken, sampled).astype(np.int64)
    return count, mean, np.where(taken > 0, np.sqrt(variance), 0.0)


def is_mixed(tree: RolloutTree) -> bool:
    """Whether the tree holds both a success and a failure (rewards that differ)."""
    rewards = [tree.turns[leaf].reward for leaf in tree.leaves()]
    return bool(rewards) and min(rewards) < max(rewards)


def effective_ratio(trees: Sequence[RolloutTree]) -> float:
    """Share of the trees that hold both a success and a failure; 0 for no trees."""
    return float(np.mean([is_mixed(tree) for tree in trees])) if trees else 0.0


def mixed_probability(tree: RolloutTree) -> float:
    """Probability 1 − v^m − (1−v)^m, by the root's prediction v, that m bare rollouts are mixed."""
    v = tree.turns[ROOT].prediction
    bare = sum(rollout.stage == "bare" for rollout in tree.rollouts)
    return 0.0 if v is None or bare == 0 else 1.0 - v**bare - (1.0 - v) ** bare
