"""Belief: a rollout against what was believed of its task, and against the other rollouts.

RLOO (arXiv 2402.14740) with a baseline that is shrunk towards what was known of the task before the
step. So a tree of one outcome teaches as far as the outcome was not expected, and a small group has
a less noisy baseline. Shrinkage Baselines (arXiv 2511.03710) shrink towards the batch's mean; PCL
(arXiv 2510.01135) takes the prediction alone. Ours: the shrinkage is the belief of
`allocation/belief.py`, whose strength is fitted online.
"""

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.groups import leaf_rewards, mean_below
from megatron_trace.tree import RolloutTree

UNKNOWN = (0.5, 0.5)
"""The belief about a task where none was stored: Jeffreys' prior."""


def estimate(tree: RolloutTree, settings: AdvantageConfig) -> NDArray[np.float64]:
    """A_i = r_i − (α + Σ_{j≠i} r_j) / (α + β + n_{−i}) [turns]; not normalised.

    j are the bare rollouts other than i, n_{−i} their number; α and β are `tree.belief`.
    """
    alpha, beta = tree.belief or UNKNOWN
    leaves, rewards = leaf_rewards(tree)
    # A continuation's anchor was picked for the outcomes before it. So its own outcome says little
    # about the task, and is in nobody's baseline.
    stages = [tree.rollouts[tree.turns[leaf].rollout].stage for leaf in leaves]
    bare = np.array([float(stage == "bare") for stage in stages])
    successes = alpha + bare @ rewards - bare * rewards
    baseline = successes / (alpha + beta + bare.sum() - bare)
    return mean_below(tree, leaves, rewards - baseline)
