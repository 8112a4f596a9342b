"""Tree-GRPO: a rollout against its task, and against its own tree.

Tree Search for LLM Agent Reinforcement Learning, arXiv 2509.21240. The paper grows several trees
for a task, each from one chain out of the prompt. So a tree of the paper corresponds to one child
of the root here: a bare rollout with its continuations. Ours to decide: a turn shared by several
rollouts gets their mean; a chain without continuations has nothing to compare with inside its tree
and gets 0 from it.
"""

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.groups import leaf_rewards, mean_below, normalised
from megatron_trace.tree import RolloutTree


def estimate(tree: RolloutTree, settings: AdvantageConfig) -> NDArray[np.float64]:
    """A = A_inter + A_intra [turns], each (r − mean) / (σ + 1e-6): over the task's leaves, and over
    its chain's.

    `learning.advantage.std: false` leaves out both σ.
    """
    leaves, rewards = leaf_rewards(tree)
    values = normalised(rewards, std=settings.std)
    chains = np.array([tree.path(leaf)[1] for leaf in leaves])
    for chain in np.unique(chains):
        own = chains == chain
        values[own] += normalised(rewards[own], std=settings.std)
    return mean_below(tree, leaves, values)
