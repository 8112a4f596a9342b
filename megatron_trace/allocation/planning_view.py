"""What a strategy sees when it plans."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from megatron_trace.allocation.beliefs import Beliefs
from megatron_trace.tree import ROOT, Anchor, RolloutTree

Floats = NDArray[np.float64]

Plans = list[dict[Anchor, int]]
"""For each tree the anchors to continue, and how often."""


@dataclass(frozen=True)
class PlanningView:
    """The trees of a step at the time of a plan, and what is left to spend.

    Attributes:
        trees: all candidates of the step, also those without rollouts.
        pending: of each tree, rollouts that have been planned and have not ended (strategies that
            stream).
        failed: of each tree, rollouts of this step that failed in their environment.
        round: 0 in the first plan of the step, then 1, 2, ...
        total: rollouts that the step's whole budget pays for.
        left: what is left of the budget, in the budget's unit; pending rollouts are paid.
        cost: expected cost of one rollout from an anchor of a tree, in the budget's unit.
        calibrate: (raw predictions, whether they are of roots) -> success probabilities.
        beliefs: what is believed of roots and prefixes.
        root_logit_std: standard deviation, in logits, of the roots' true success about their
            calibrated predictions.
        rng: random numbers of this plan.
    """

    trees: Sequence[RolloutTree]
    pending: Sequence[Mapping[Anchor, int]]
    failed: Sequence[int]
    round: int
    total: int
    left: float
    cost: Callable[[RolloutTree, Anchor], float]
    calibrate: Callable[[Floats, bool], Floats]
    beliefs: Beliefs
    root_logit_std: float
    rng: np.random.Generator

    @cached_property
    def rollouts(self) -> int:
        """Rollouts from roots that what is left pays for."""
        if not self.trees:
            return 0
        root_cost = self.cost(self.trees[0], ROOT)
        # `left` is a difference of sums. Its rounding must not turn 8 rollouts into 7.
        return max(0, int(self.left / root_cost + 1e-9))

    @cached_property
    def roots(self) -> Floats:
        """Predicted success probability of every root, [trees]."""
        predictions = [tree.turns[ROOT].prediction for tree in self.trees]
        return self.calibrate(_floats(predictions), True)

    def success(self, tree: RolloutTree) -> Floats:
        """Predicted success probability of every turn's history, [turns]; nan if there is none."""
        predictions = _floats([turn.prediction for turn in tree.turns])
        calibrated = self.calibrate(predictions, False)
        calibrated[ROOT] = self.calibrate(predictions[:1], True)[0]
        return calibrated

    def nothing(self) -> Plans:
        """A plan of no rollouts, to be filled in."""
        return [{} for _ in self.trees]

    def at_roots(self, counts: Mapping[int, int]) -> Plans:
        """A plan of bare rollouts: tree index -> count."""
        plans = self.nothing()
        for index, count in counts.items():
            if count:
                plans[index] = {ROOT: count}
        return plans

    def fresh(self) -> list[int]:
        """Indices of the trees without a rollout, in order."""
        return [
            index
            for index, tree in enumerate(self.trees)
            if not tree.rollouts and not self.pending[index]
        ]


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
