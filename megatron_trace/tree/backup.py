"""Recursive backup over a tree, and what it says about contrast."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from megatron_trace.tree.rollout_tree import ROOT, RolloutTree


def leaf_statistics(tree: RolloutTree) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
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
