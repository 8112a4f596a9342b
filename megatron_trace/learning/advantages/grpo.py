"""GRPO: a rollout against all others of its task.

DeepSeekMath, arXiv 2402.03300, section 4.1.2. Without the division it is Dr. GRPO, arXiv
2503.20783. Ours to decide: a continuation is one more rollout of the group; a turn shared by
several rollouts gets their mean.
"""

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.groups import leaf_rewards, mean_below, normalised
from megatron_trace.tree import RolloutTree


def estimate(tree: RolloutTree, settings: AdvantageConfig) -> NDArray[np.float64]:
    """A = (r − mean) / (σ + 1e-6) over the tree's leaves [turns]; `learning.advantage.std: false`
    leaves σ out.
    """
    leaves, rewards = leaf_rewards(tree)
    return mean_below(tree, leaves, normalised(rewards, std=settings.std))
