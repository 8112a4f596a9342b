"""TRACE: credit for a turn from the contrasts above it.

Tree Rollout Allocation for Contrastive Exploration, arXiv 2606.11119: a tree-aware, group-relative
update from root-level and prefix-level contrast. Ours to decide: the form below, and that a
contrast needs a branch.
"""

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig, Backup
from megatron_trace.learning.groups import EPSILON
from megatron_trace.tree import RolloutTree, leaf_statistics
from megatron_trace.tree.backup import sampled_statistics


def estimate(tree: RolloutTree, settings: AdvantageConfig) -> NDArray[np.float64]:
    """A(n) = mean over a of (V̂(n) − V̂(a)) / (σ(a) + 1e-6), a the ancestors of n that branch and
    hold both outcomes.

    V̂ and σ are those of `learning.advantage.backup`: of all leaves below a turn
    (`leaf_statistics`), or of what was sampled from the turn (`sampled_statistics`). A contrast at
    an anchor credits only what comes after it. On bare rollouts this is GRPO.
    """
    unbiased = settings.backup is Backup.unbiased
    _, success, deviation = sampled_statistics(tree) if unbiased else leaf_statistics(tree)
    # Without a branch all rollouts below took the same turn, and there is nothing to compare it
    # with.
    branches = np.array([len(children) > 1 for children in tree.children()])
    contrast = branches & (deviation > EPSILON)
    scale = deviation + EPSILON if settings.std else np.ones_like(deviation)
    advantages = np.zeros(len(tree.turns))
    for index in range(1, len(tree.turns)):
        above = [ancestor for ancestor in tree.path(index)[:-1] if contrast[ancestor]]
        if above:
            advantages[index] = np.mean((success[index] - success[above]) / scale[above])
    return advantages
