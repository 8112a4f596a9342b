"""What estimators share: rewards compared within a group, and leaves' values carried to the turns above them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from megatron_trace.tree import ROOT, RolloutTree

EPSILON = 1e-6
"""Added to standard deviations; groups that deviate by no more have no contrast."""


def leaf_rewards(tree: RolloutTree) -> tuple[list[int], NDArray[np.float64]]:
    """The terminal turns of `tree` and their rewards [leaves]."""
    leaves = tree.leaves()
    return leaves, np.array([tree.turns[leaf].reward for leaf in leaves], dtype=np.float64)


def normalised(values: NDArray[np.float64], *, std: bool) -> NDArray[np.float64]:
    """(x − mean) / (standard deviation + 1e-6) of every value of a group [n], the deviation that of the population.

    Exactly 0 where the group has no contrast.

    Args:
        std: whether to divide (GRPO, arXiv 2402.03300) or not (Dr. GRPO, arXiv 2503.20783).
    """
    deviation = values.std() if len(values) else 0.0
    if deviation <= EPSILON:
        return np.zeros_like(values)
    return (values - values.mean()) / (deviation + EPSILON if std else 1.0)


def mean_below(
    tree: RolloutTree, leaves: Sequence[int], values: NDArray[np.float64], *, discount: float = 1.0
) -> NDArray[np.float64]:
    """For every turn the mean of `values` [leaves] over the leaves below it [turns]; 0 for the root.

    Where papers train on whole rollouts, a turn that several of them share gets each one's value once. It is learned
    from once here, with their mean.

    Args:
        discount: what a leaf's value is multiplied by for each turn from there to it.
    """
    total, count = np.zeros(len(tree.turns)), np.zeros(len(tree.turns))
    total[leaves], count[leaves] = values, 1.0
    for index in range(len(tree.turns) - 1, ROOT, -1):
        total[tree.turns[index].parent] += discount * total[index]
        count[tree.turns[index].parent] += count[index]
    means = total / np.maximum(count, 1.0)
    means[ROOT] = 0.0
    return means
