"""AT²PO: a turn is worth what follows it, the less certain followers weighing more.

Agentic Turn-based Policy Optimization via Tree Search, arXiv 2601.04767. Leaf rewards are
normalised within the tree. A turn's value is the mean of its children's values, weighted by the
softmax of the children's mean surprisal −log π over their sampled tokens. The value itself is the
advantage. Use it with `learning.loss.ratio: turn`. Ours to decide: the deviation is the
population's, as everywhere here.
"""

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.groups import leaf_rewards, normalised
from megatron_trace.tree import ROOT, RolloutTree


def estimate(tree: RolloutTree, settings: AdvantageConfig) -> NDArray[np.float64]:
    """A(n) = V(n) = Σ_c softmax_c(H(c))·V(c) over the children c of n, H their mean surprisal in
    nats [turns].

    At a leaf V = (r − mean) / (σ + 1e-6) over the tree's leaves; `learning.advantage.std: false`
    leaves σ out.
    """
    leaves, rewards = leaf_rewards(tree)
    values = np.zeros(len(tree.turns))
    values[leaves] = normalised(rewards, std=settings.std)
    surprisal = np.array([-np.mean(turn.logprobs) if turn.logprobs else 0.0 for turn in tree.turns])
    children = tree.children()
    for index in range(len(tree.turns) - 1, ROOT, -1):
        if below := children[index]:
            # The largest is subtracted so that the exponentials stay finite.
            weight = np.exp(surprisal[below] - surprisal[below].max())
            values[index] = weight @ values[below] / weight.sum()
    return values
