"""λ-weighted contrasts: a turn is compared with every ancestor, a near one more than a far one.

A(n) = Σ_k λ^(k−1)·(V(n) − V(a_k)) / Σ_k λ^(k−1), where a_1 is the turn before n, a_2 the one before
that, up to the root, and V is the mean reward of the rollouts that pass through a turn. λ = 0
compares with the turn before alone; λ = 1 compares with all ancestors alike.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig, setting
from megatron_trace.tree import ROOT, RolloutTree, leaf_statistics


@dataclass
class Options:
    """Set as `learning.advantage.options.lambda_contrast.decay=0.9`."""

    decay: float = setting(
        0.7, "λ, how much less an ancestor counts for each turn between", at_least=0, at_most=1
    )


def estimate(tree: RolloutTree, settings: AdvantageConfig, options: Options) -> NDArray[np.float64]:
    """A(n) of every turn, [turns]; 0 at the root."""
    _, success, _ = leaf_statistics(tree)
    advantages = np.zeros(len(tree.turns))
    for turn in range(ROOT + 1, len(tree.turns)):
        ancestors = tree.path(turn)[-2::-1]  # nearest first
        weights = options.decay ** np.arange(len(ancestors))
        contrasts = success[turn] - success[ancestors]
        advantages[turn] = weights @ contrasts / weights.sum()
    return advantages
