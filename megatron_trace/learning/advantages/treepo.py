"""TreePO: a rollout against the rollouts it shares a history with, at every depth.

TreePO, arXiv 2508.17445. Every ancestor of a leaf names a subgroup, the leaves below it; a subgroup of one leaf says
nothing, the others count equally. Ours to decide: a segment is a turn; whitening is over the task's leaves where the
paper's is over the batch, so that here, too, a task's advantages are its own.
"""

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.groups import leaf_rewards, mean_below, normalised
from megatron_trace.tree import RolloutTree, leaf_statistics


def estimate(tree: RolloutTree, settings: AdvantageConfig) -> NDArray[np.float64]:
    """A = whitened mean over the leaf's ancestors a with two leaves or more of r − mean reward below a [turns]."""
    count, mean, _ = leaf_statistics(tree)
    leaves, rewards = leaf_rewards(tree)
    values = np.zeros(len(leaves))
    for place, leaf in enumerate(leaves):
        groups = [a for a in tree.path(leaf)[:-1] if count[a] > 1]
        if groups:
            values[place] = rewards[place] - mean[groups].mean()
    return mean_below(tree, leaves, normalised(values, std=settings.std))
