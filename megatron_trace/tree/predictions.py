"""Predictions of success beside what came of them, and how good they were."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_trace.tree.rollout_tree import ROOT, RolloutTree

Floats = NDArray[np.float64]

BINS = 10


@dataclass(frozen=True)
class Outcomes:
    """Predictions and what came of them.

    Attributes:
        prediction: of histories, [n].
        success: mean terminal reward of the rollouts that were sampled through each, [n].
        weight: number of those rollouts, [n].
    """

    prediction: Floats
    success: Floats
    weight: Floats


def outcomes(trees: Sequence[RolloutTree], *, roots: bool) -> Outcomes:
    """Roots with their bare rollouts, or prefixes with the rollout that added each.

    Continuations do not count for the anchors above theirs, nor at theirs: those were picked for what had come of
    them, and would make the outcomes of the rest look different from what they are (docs/method.md).
    """
    rows: list[tuple[float, float, float]] = []
    for tree in trees:
        rewards = {tree.turns[leaf].rollout: tree.turns[leaf].reward for leaf in tree.leaves()}
        if roots:
            bare = [
                rewards[n] for n, rollout in enumerate(tree.rollouts) if rollout.stage == "bare"
            ]
            v = tree.turns[ROOT].prediction
            if bare and v is not None:
                rows.append((v, float(np.mean(bare)), float(len(bare))))
        else:
            rows += [
                (t.prediction, rewards[t.rollout], 1.0)
                for t in tree.turns[1:]
                if t.prediction is not None
            ]
    return Outcomes(*np.array(rows, dtype=np.float64).reshape(-1, 3).T)


def scores(found: Outcomes) -> dict[str, float]:
    """How good predictions were.

    `brier` is the weighted mean squared difference and `brier_constant` that of always predicting the mean success;
    `ece` the expected calibration error over ten bins of equal width (arXiv 1706.04599); for `auc` see there. What
    cannot be measured has no key.
    """
    if not len(found.prediction):
        return {}
    prediction, success, weight = found.prediction, found.success, found.weight
    place = np.minimum((prediction * BINS).astype(int), BINS - 1)
    gap = np.bincount(place, weight * (prediction - success), BINS)
    numbers = {
        "brier": float(np.average((prediction - success) ** 2, weights=weight)),
        "brier_constant": float(
            np.average((success - np.average(success, weights=weight)) ** 2, weights=weight)
        ),
        "ece": float(np.abs(gap).sum() / weight.sum()),
    }
    area = auc(found)
    return numbers if area is None else numbers | {"auc": area}


def auc(found: Outcomes) -> float | None:
    """Probability that a success was predicted higher than a failure, a tie counting half; None with one class.

    A history with success s and weight w counts as w·s successes and w·(1 − s) failures.
    """
    positive, negative = found.weight * found.success, found.weight * (1 - found.success)
    if positive.sum() <= 0 or negative.sum() <= 0:
        return None
    _, group = np.unique(found.prediction, return_inverse=True)
    wins, losses = np.bincount(group, positive), np.bincount(group, negative)
    below = np.cumsum(losses) - losses
    return float((wins * (below + losses / 2)).sum() / (positive.sum() * negative.sum()))
