"""GiGPO: a rollout against the others, and a turn against those that set out from the same state.

Group-in-Group Policy Optimization, arXiv 2505.10978, eq. 3 to 8. Two turns set out from the same state where the
observation before them is the same, whatever came earlier. Ours to decide: a turn that several rollouts share is one
step, and its return the mean of theirs; rewards are the terminal ones alone.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.advantages.groups import leaf_rewards, mean_below, normalised
from megatron_trace.learning.advantages.grpo import grpo
from megatron_trace.tree import ROOT, RolloutTree


def gigpo(tree: RolloutTree, settings: AdvantageConfig) -> NDArray[np.float64]:
    """A = A_E + ω·A_S [turns], ω = `learning.advantage.gigpo_weight`.

    A_E is GRPO's. A_S = (R − mean) / (σ + 1e-6) over the turns of the tree with the same observation before them, with
    the return R = γ^k·r of a turn k turns before the end, γ = `learning.advantage.gigpo_discount`.
    `learning.advantage.std: false` leaves out both σ.
    """
    returns = mean_below(tree, *leaf_rewards(tree), discount=settings.gigpo_discount)
    steps = np.zeros(len(tree.turns))
    for group in same_state(tree):
        steps[group] = normalised(returns[group], std=settings.std)
    return grpo(tree, settings) + settings.gigpo_weight * steps


def same_state(tree: RolloutTree) -> list[list[int]]:
    """The turns, root excluded, in groups of those with the same observation before them."""
    groups = defaultdict(list)
    for index, turn in enumerate(tree.turns):
        if index != ROOT:
            groups[tuple(tree.turns[turn.parent].observation_ids)].append(index)
    return list(groups.values())
