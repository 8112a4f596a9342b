"""GiGPO: a rollout against the others, and a turn against those that start from the same state.

Group-in-Group Policy Optimization, arXiv 2505.10978, eq. 3 to 8. Two turns start from the same
state if the observation before them is the same, whatever came earlier. Ours to decide: a turn that
several rollouts share is one step, and its return is the mean of theirs; only terminal rewards
count.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig, setting
from megatron_trace.learning.advantages import grpo
from megatron_trace.learning.groups import leaf_rewards, mean_below, normalised
from megatron_trace.tree import ROOT, RolloutTree


@dataclass
class Options:
    """The paper's ω and γ."""

    weight: float = setting(
        1.0,
        "ω, weight of the step-level advantage beside the episode's",
        at_least=0,
        reason="a negative weight would make better steps rarer",
    )
    discount: float = setting(
        0.95, "γ, discount per turn of the return that steps compare", above=0, at_most=1
    )


def estimate(tree: RolloutTree, settings: AdvantageConfig, options: Options) -> NDArray[np.float64]:
    """A = A_E + ω·A_S [turns].

    A_E is GRPO's. A_S = (R − mean) / (σ + 1e-6) over the turns of the tree with the same
    observation before them, with the return R = γ^k·r of a turn k turns before the end.
    `learning.advantage.std: false` leaves out both σ.
    """
    returns = mean_below(tree, *leaf_rewards(tree), discount=options.discount)
    steps = np.zeros(len(tree.turns))
    for group in same_state(tree):
        steps[group] = normalised(returns[group], std=settings.std)
    return grpo.estimate(tree, settings) + options.weight * steps


def same_state(tree: RolloutTree) -> list[list[int]]:
    """The turns, root excluded, in groups of those with the same observation before them."""
    groups = defaultdict(list)
    for index, turn in enumerate(tree.turns):
        if index != ROOT:
            groups[tuple(tree.turns[turn.parent].observation_ids)].append(index)
    return list(groups.values())
