"""RLOO: a rollout against the mean of the others, REINFORCE with a leave-one-out baseline.

Back to Basics, arXiv 2402.14740. Ours to decide: a continuation is one more rollout of the group; a
turn shared by several rollouts gets their mean; a lone rollout, which has no others, gets 0.
"""

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.groups import leaf_rewards, mean_below, normalised
from megatron_trace.tree import RolloutTree


def estimate(tree: RolloutTree, settings: AdvantageConfig) -> NDArray[np.float64]:
    """A_i = r_i − Σ_{j≠i} r_j / (n − 1) over the tree's n leaves [turns]; not normalised."""
    leaves, rewards = leaf_rewards(tree)
    # r − mean over all n, times n / (n − 1), is r − mean over the others.
    against_all = normalised(rewards, std=False)
    return mean_below(tree, leaves, against_all * len(leaves) / max(len(leaves) - 1, 1))
