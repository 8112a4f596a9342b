"""TreePO: a rollout against the rollouts it shares a history with, at every depth.

TreePO, arXiv 2508.17445. Every ancestor of a leaf defines a subgroup: the leaves below the
ancestor. A subgroup of one leaf says nothing; the others count equally. Ours to decide: a segment
is a turn; whitening is over the task's leaves, not over the batch as in the paper, so that a task's
advantages do not depend on other tasks.
"""

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.groups import leaf_rewards, mean_below, normalised
from megatron_trace.tree import RolloutTree, leaf_statistics


def estimate(tree: RolloutTree, settings: AdvantageConfig) -> NDArray[np.float64]:
    """A = whitened mean over the leaf's ancestors a with two leaves or more of r − mean reward
    below a [turns].
    """
    count, mean, _ = leaf_statistics(tree)
    leaves, rewards = leaf_rewards(tree)
    values = np.zeros(len(leaves))
    for number, leaf in enumerate(leaves):
        ancestors = tree.path(leaf)[:-1]
        groups = [ancestor for ancestor in ancestors if count[ancestor] > 1]
        if groups:
            values[number] = rewards[number] - mean[groups].mean()
    return mean_below(tree, leaves, normalised(values, std=settings.std))
