"""PCL: a rollout against what the predictor expected of its task.

Prompt Curriculum Learning, arXiv 2510.01135. The baseline is learned, so a single rollout teaches,
and so does a group of one outcome. Ours to decide: p is the prediction that came with the rollouts;
a turn shared by several rollouts gets their mean.
"""

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.groups import leaf_rewards, mean_below
from megatron_trace.tree import ROOT, RolloutTree


def estimate(tree: RolloutTree, settings: AdvantageConfig) -> NDArray[np.float64]:
    """A = r − p, p the predicted success probability of the root [turns]; not normalised.

    Raises:
        ValueError: the tree has rollouts, and its root no prediction.
    """
    leaves, rewards = leaf_rewards(tree)
    expected = tree.turns[ROOT].prediction
    if leaves and expected is None:
        raise ValueError(
            "learning.advantage.name = pcl needs the prediction of every root, and a tree has none"
        )
    return mean_below(tree, leaves, rewards - (expected or 0.0))
