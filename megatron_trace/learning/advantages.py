"""Tree-aware advantages: credit for a turn from the contrasts above it."""

import numpy as np
from numpy.typing import NDArray

from megatron_trace.tree import RolloutTree, leaf_statistics

EPSILON = 1e-6


def tree_advantages(tree: RolloutTree, *, std: bool = True) -> NDArray[np.float64]:
    """Group-relative advantage of every turn against the anchors above it at which the tree branches.

    With V̂ the leaf-weighted backup and σ the standard deviation of leaf rewards,
    A(n) = mean over a of (V̂(n) − V̂(a)) / (σ(a) + 1e-6), a running over the ancestors of n that have two or
    more children and leaves of both outcomes (arXiv 2606.11119; the normalisation is ours, docs/method.md).
    So a contrast at an anchor credits only what comes after it, and on a tree of bare rollouts this is GRPO.

    Args:
        std: divide by σ(a) + 1e-6; without it the differences count as they are (Dr. GRPO, arXiv 2503.20783).

    Returns:
        array of shape [turns]; 0 for the root and for turns without such an ancestor.
    """
    _, success, deviation = leaf_statistics(tree)
    branches = np.array([len(children) > 1 for children in tree.children()])
    contrast = branches & (deviation > EPSILON)
    scale = deviation + EPSILON if std else np.ones_like(deviation)
    advantages = np.zeros(len(tree.turns))
    for index in range(1, len(tree.turns)):
        above = [a for a in tree.path(index)[:-1] if contrast[a]]
        if above:
            advantages[index] = np.mean((success[index] - success[above]) / scale[above])
    return advantages
