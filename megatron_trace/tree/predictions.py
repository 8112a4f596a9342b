"""Predictions of success, the outcomes of what they predicted, and how good they were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_trace.tree.rollout_tree import ROOT, RolloutTree

Floats = NDArray[np.float64]

BINS = 10
"""Bins of equal width of the expected calibration error."""


@dataclass(frozen=True)
class Outcomes:
    """Predictions for n histories and the outcomes of rollouts from them.

    Attributes:
        prediction: predicted success probability of each history, [n].
        success: mean terminal reward of the rollouts that count for it, [n].
        weight: number of those rollouts, [n].
    """

    prediction: Floats
    success: Floats
    weight: Floats


def outcomes(trees: Sequence[RolloutTree], *, roots: bool) -> Outcomes:
    """Roots with their bare rollouts, or prefixes with the one rollout that added each.

    Continuations count neither for their anchor nor for the anchors above it: those anchors were
    picked for the outcomes they had, and would make the others look different from what they are
    (docs/method.md).
    """
    rows: list[tuple[float, float, float]] = []
    for tree in trees:
        rewards = {tree.turns[leaf].rollout: tree.turns[leaf].reward for leaf in tree.leaves()}
        if roots:
            rows += _root_outcome(tree, rewards)
        else:
            rows += _prefix_outcomes(tree, rewards)
    columns = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return Outcomes(*columns)


def _root_outcome(
    tree: RolloutTree, rewards: Mapping[int, float]
) -> list[tuple[float, float, float]]:
    bare = []
    for number, rollout in enumerate(tree.rollouts):
        if rollout.stage == "bare":
            bare.append(rewards[number])
    prediction = tree.turns[ROOT].prediction
    if not bare or prediction is None:
        return []
    return [(prediction, float(np.mean(bare)), float(len(bare)))]


def _prefix_outcomes(
    tree: RolloutTree, rewards: Mapping[int, float]
) -> list[tuple[float, float, float]]:
    return [
        (turn.prediction, rewards[turn.rollout], 1.0)
        for turn in tree.turns[1:]
        if turn.prediction is not None
    ]


def scores(found: Outcomes) -> dict[str, float]:
    """How good predictions were; what cannot be measured has no key.

    Returns:
        `brier`, the weighted mean squared difference of prediction and success; `brier_constant`,
        that of always predicting the mean success; `ece`, the expected calibration error
        (arXiv 1706.04599); `auc`, see the function.
    """
    if not len(found.prediction):
        return {}
    prediction, success, weight = found.prediction, found.success, found.weight
    mean_success = np.average(success, weights=weight)
    brier = np.average((prediction - success) ** 2, weights=weight)
    brier_constant = np.average((success - mean_success) ** 2, weights=weight)
    bin_of = np.minimum((prediction * BINS).astype(int), BINS - 1)
    gap = np.bincount(bin_of, weight * (prediction - success), BINS)
    numbers = {
        "brier": float(brier),
        "brier_constant": float(brier_constant),
        "ece": float(np.abs(gap).sum() / weight.sum()),
    }
    area = auc(found)
    return numbers if area is None else numbers | {"auc": area}


def auc(found: Outcomes) -> float | None:
    """Probability that a success was predicted higher than a failure; a tie counts half.

    Returns:
        None if all outcomes are successes, or all are failures.
    """
    # A history with success s and weight w counts as w·s successes and w·(1 − s) failures. That is
    # why this is not a library's function: rewards between 0 and 1 make both counts fractional.
    positive = found.weight * found.success
    negative = found.weight * (1 - found.success)
    if positive.sum() <= 0 or negative.sum() <= 0:
        return None
    _, group = np.unique(found.prediction, return_inverse=True)
    wins, losses = np.bincount(group, positive), np.bincount(group, negative)
    losses_below = np.cumsum(losses) - losses
    won_pairs = (wins * (losses_below + losses / 2)).sum()
    return float(won_pairs / (positive.sum() * negative.sum()))
