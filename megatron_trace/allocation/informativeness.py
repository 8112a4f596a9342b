"""How informative expansions of a tree are: the objective of InfoTree (arXiv 2605.05262).

With k_s expansions of state s, F(k) = Σ_s f_s(k_s),
    f_s(k) = [1 − v^m − (1−v)^m] + c·√m + λ·h·(1 − 2^−k),  m = n + k,
where v is the success probability after s, n ≥ 1 the leaves below s without those of the expansions
of s, and h the token entropy of what is sampled at s. The gain of f_s from k to k + 1,
    v(1−v)[v^(m−1) + (1−v)^(m−1)] + c(√(m+1) − √m) + λ·h·2^−(k+1),
has three terms that are at least 0 and fall with k. So F is monotone. A set that holds more
expansions holds at least as many of each state, so an expansion adds no more to the larger set: F
is submodular, and taking the largest gain first is optimal.
"""

import numpy as np
from numpy.typing import NDArray

from megatron_trace.tree import RolloutTree

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def informativeness(
    success: Floats,
    leaves: Counts,
    entropy: Floats,
    expansions: Counts,
    *,
    count_weight: float,
    entropy_weight: float,
) -> Floats:
    """f_s(k) of states with k expansions; all broadcast.

    Args:
        success: v.
        leaves: n, at least 1; without those of the expansions.
        entropy: h, in nats.
        expansions: k.
        count_weight, entropy_weight: c and λ, at least 0.
    """
    v, m = success, leaves + expansions
    contrast = 1.0 - v**m - (1.0 - v) ** m
    return (
        contrast + count_weight * np.sqrt(m) + entropy_weight * entropy * (1.0 - 2.0**-expansions)
    )


def sampled_entropy(tree: RolloutTree) -> Floats:
    """Mean entropy of the tokens sampled at every history, in nats, [turns]; 0 without tokens."""
    # What is sampled at a history are the actions of the turns that follow it.
    sums, counts = np.zeros((2, len(tree.turns)))
    for turn in tree.turns[1:]:
        sums[turn.parent] += sum(turn.entropies)
        counts[turn.parent] += len(turn.entropies)
    return sums / np.maximum(counts, 1.0)
