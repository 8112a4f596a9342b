"""What a strategy sees when it plans."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from megatron_trace.tree import ROOT, Anchor, RolloutTree

Plans = list[dict[Anchor, int]]
"""For each tree the anchors to continue, and how often."""


@dataclass(frozen=True)
class PlanningView:
    """The trees of a step as they are view, and what is left to spend.

    Attributes:
        trees: all candidates of the step, also those without rollouts.
        pending: of each tree, rollouts that have been planned and not ended (strategies that stream).
        round: 0 in the first plan of the step, then 1, 2, ...
        total: rollouts that the step's whole budget pays for.
        left: what is left of the budget, pending rollouts paid, in the budget's unit.
        cost: expected cost of one rollout from an anchor of a tree, in the budget's unit.
        calibrate: raw predictions -> success probabilities, given whether they are of roots.
        root_logit_std: standard deviation, in logits, of the roots' true success about the calibrated predictions.
        rng: random numbers of this plan.
    """

    trees: Sequence[RolloutTree]
    pending: Sequence[Mapping[Anchor, int]]
    round: int
    total: int
    left: float
    cost: Callable[[RolloutTree, Anchor], float]
    calibrate: Callable[[NDArray[np.float64], bool], NDArray[np.float64]]
    root_logit_std: float
    rng: np.random.Generator

    @cached_property
    def rollouts(self) -> int:
        """Rollouts from roots that what is left pays for."""
        return max(0, int(self.left / self.cost(self.trees[0], ROOT) + 1e-9)) if self.trees else 0

    @cached_property
    def roots(self) -> NDArray[np.float64]:
        """Predicted success probability of every root, [trees]."""
        return self.calibrate(_floats([tree.turns[ROOT].prediction for tree in self.trees]), True)

    def success(self, tree: RolloutTree) -> NDArray[np.float64]:
        """Predicted success probability of every turn's history, [turns]; nan where there is none."""
        predictions = _floats([turn.prediction for turn in tree.turns])
        calibrated = self.calibrate(predictions, False)
        calibrated[ROOT] = self.calibrate(predictions[:1], True)[0]
        return calibrated

    def nothing(self) -> Plans:
        """A plan of no rollouts, to be filled in."""
        return [{} for _ in self.trees]

    def at_roots(self, counts: Mapping[int, int]) -> Plans:
        """Bare rollouts: tree index -> count."""
        return [
            {ROOT: counts[index]} if counts.get(index) else {} for index in range(len(self.trees))
        ]

    def fresh(self) -> list[int]:
        """Indices of the trees without a rollout, in order."""
        return [
            index
            for index, tree in enumerate(self.trees)
            if not tree.rollouts and not self.pending[index]
        ]


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
