"""What estimators share: rewards compared within a group, leaves' values carried up the tree."""

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
    """(x − mean) / (σ + 1e-6) of each value of a group [n]; σ is the population's deviation.

    Exactly 0 where the group has no contrast.

    Args:
        std: whether to divide (GRPO, arXiv 2402.03300) or not (Dr. GRPO, arXiv 2503.20783).
    """
    deviation = values.std() if len(values) else 0.0
    # Exactly 0, not a rounding error: rows whose advantages are all 0 need no backward pass.
    if deviation <= EPSILON:
        return np.zeros_like(values)
    scale = deviation + EPSILON if std else 1.0
    return (values - values.mean()) / scale


def mean_below(
    tree: RolloutTree, leaves: Sequence[int], values: NDArray[np.float64], *, discount: float = 1.0
) -> NDArray[np.float64]:
    """The mean of `values` [leaves] over the leaves below each turn [turns]; 0 for the root.

    Papers train on whole rollouts. There a turn that several rollouts share is learned from once
    for each of them, with that rollout's value. Here it is learned from once, with the mean of the
    values.

    Args:
        discount: factor of a leaf's value for each turn between the leaf and the turn above.
    """
    total, count = np.zeros(len(tree.turns)), np.zeros(len(tree.turns))
    total[leaves], count[leaves] = values, 1.0
    # A turn comes after its parent in `tree.turns`, so backwards every turn is complete when it is
    # used.
    for index in range(len(tree.turns) - 1, ROOT, -1):
        parent = tree.turns[index].parent
        total[parent] += discount * total[index]
        count[parent] += count[index]
    means = total / np.maximum(count, 1.0)
    means[ROOT] = 0.0
    return means
