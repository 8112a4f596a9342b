"""Recursive backup over a tree, and what it says about contrast."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from megatron_trace.tree.rollout_tree import ROOT, RolloutTree

Statistics = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
"""Count, mean and standard deviation of rewards, each of shape [turns]."""


def leaf_statistics(tree: RolloutTree) -> Statistics:
    """Count, mean and standard deviation of the terminal rewards below every turn.

    The mean is TRACE's leaf-weighted backup, V̂(y) = Σ_c n_c V̂(c) / Σ_c n_c over the children c of
    y, with the terminal reward at a leaf and n the leaves below (arXiv 2606.11119).

    Returns:
        count, mean, deviation: arrays of shape [turns]; the deviation is that of the population.
        All are 0 at a turn without a leaf below it: a root from which nothing was sampled.
    """
    count = np.zeros(len(tree.turns), dtype=np.int64)
    total = np.zeros(len(tree.turns))
    squares = np.zeros(len(tree.turns))
    # Parents come before their children in `turns`. Backwards, a turn is complete when it is added
    # to its parent.
    for index in range(len(tree.turns) - 1, -1, -1):
        turn = tree.turns[index]
        if turn.terminal:
            count[index] = 1
            total[index] = turn.reward
            squares[index] = turn.reward**2
        if turn.parent >= 0:
            count[turn.parent] += count[index]
            total[turn.parent] += total[index]
            squares[turn.parent] += squares[index]
    leaves = np.maximum(count, 1)
    mean = total / leaves
    return count, mean, _deviation(squares / leaves, mean)


def sampled_statistics(tree: RolloutTree) -> Statistics:
    """Statistics of the rewards sampled from every turn, free of the choice of what to sample.

    `leaf_statistics` mixes in outcomes that decided what was sampled: an anchor is often continued
    because its own rollout ended oddly. Here V̂(y) is the mean over the continuations taken at y,
    if there are any (at the root: over the bare rollouts), else over the rollouts that sampled y.
    That is one rollout unless equal histories are one turn (`by_histories`). Continuations of a
    later turn do not count. So V̂(y) of an anchor whose continuations were planned at once has the
    expectation V(y), whatever the choice of the anchor looked at.

    Two biases remain; see docs/advantages.md. An anchor that was left alone has the outcome for
    which it was left alone. Continuations that were added because of what earlier ones brought lean
    towards what was looked for.

    Returns:
        count, mean, deviation: arrays of shape [turns]. The count is that of the rewards in the
        mean. The deviation, of the population, is that of all rewards which V̂(y) is compared with:
        of the continuations and of the rollouts that sampled y. It is 0 at a turn of one rollout
        that was not continued. All are 0 for a root from which nothing was sampled.
    """
    # Number, sum and sum of squares of the rewards, of each kind.
    sampled, continued = np.zeros((2, 3, len(tree.turns)))
    for leaf in tree.leaves():
        turn = tree.turns[leaf]
        moments = np.array([1.0, turn.reward, turn.reward**2])
        anchor = tree.rollouts[turn.rollout].anchor
        continued[:, anchor] += moments
        index = leaf
        while index != anchor:
            sampled[:, index] += moments
            index = tree.turns[index].parent
    taken = np.where(continued[0] > 0, continued, sampled)
    mean = taken[1] / np.maximum(taken[0], 1)
    # With the rollouts that sampled the turn: of a single continuation alone the deviation would
    # be 0, and the contrast between the two would be lost.
    compared = continued + sampled
    number = np.maximum(compared[0], 1)
    deviation = _deviation(compared[2] / number, compared[1] / number)
    return taken[0].astype(np.int64), mean, deviation


def _deviation(mean_square: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    # Equal rewards may give a difference just below 0.
    return np.sqrt(np.maximum(mean_square - mean**2, 0.0))


def is_mixed(tree: RolloutTree) -> bool:
    """Whether the tree holds both a success and a failure: rewards that differ."""
    rewards = [tree.turns[leaf].reward for leaf in tree.leaves()]
    return bool(rewards) and min(rewards) < max(rewards)


def effective_ratio(trees: Sequence[RolloutTree]) -> float:
    """Share of the trees that hold both a success and a failure; 0 for no trees."""
    if not trees:
        return 0.0
    return float(np.mean([is_mixed(tree) for tree in trees]))


def mixed_share(trees: Sequence[RolloutTree]) -> float:
    """Share of all rollouts that lie in trees with both a success and a failure; 0 for none."""
    rollouts = sum(len(tree.rollouts) for tree in trees)
    if not rollouts:
        return 0.0
    return sum(len(tree.rollouts) for tree in trees if is_mixed(tree)) / rollouts


def mixed_probability(tree: RolloutTree) -> float:
    """Probability 1 − v^m − (1−v)^m, by the root's prediction v, that m bare rollouts are mixed."""
    v = tree.turns[ROOT].prediction
    m = sum(rollout.stage == "bare" for rollout in tree.rollouts)
    if v is None or m == 0:
        return 0.0
    return 1.0 - v**m - (1.0 - v) ** m
