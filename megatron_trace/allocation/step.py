"""One step of the allocation: plans, and what has ended of them, until the budget is spent."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from megatron_trace.allocation.beliefs import Beliefs
from megatron_trace.allocation.calibration import Calibration
from megatron_trace.allocation.cost import RolloutCost
from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.allocation.strategy import Strategy
from megatron_trace.tree import ROOT, Anchor, Histories, RolloutTree, Turn, as_sampled, by_histories


@dataclass
class AllocationStep:
    """Call `plan` and `ended` in turn until nothing is planned. `Allocator.begin` makes it.

    Attributes:
        trees: all candidates of the step, grown as rollouts end.
        histories: the same trees, as the strategy sees them.
        merge: whether the strategy sees equal histories as one.
        strategy, cost, calibration, beliefs: the allocator's; they do not change during a step.
        seed: name from which the random numbers of the step's plans are derived.
        left: what is left of the budget; rollouts are paid when they end.
        total: rollouts from roots that the whole budget pays for.
        in_tokens: whether the budget counts sampled tokens.
    """

    trees: list[RolloutTree]
    merge: bool
    strategy: Strategy
    cost: RolloutCost
    calibration: Calibration
    beliefs: Beliefs
    seed: str
    left: float
    total: int
    in_tokens: bool
    histories: list[Histories] = field(init=False)
    _pending: list[Counter[Anchor]] = field(init=False)
    _failed: list[int] = field(init=False)
    _round: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        _check_predictions(turn for tree in self.trees for turn in tree.turns)
        self.histories = [as_sampled(tree) for tree in self.trees]
        self._pending = [Counter() for _ in self.trees]
        self._failed = [0] * len(self.trees)

    def plan(self) -> Plans:
        """The next rollouts of each tree.

        The plan is empty when the step is over. With a strategy that streams it is also empty
        while nothing is to be added to the rollouts that run.

        Raises:
            RuntimeError: the strategy plans an impossible rollout, or more than is left.
        """
        left = self.left - self._pending_cost()
        if self._spent(left):
            return []
        plans = []
        for plan in self.strategy.plan(self._view(left)):
            plans.append({anchor: int(count) for anchor, count in plan.items() if count})
        self._check(plans, left)
        plans = [
            {seen.first[anchor]: count for anchor, count in plan.items()}
            for seen, plan in zip(self.histories, plans, strict=True)
        ]
        self._round += 1
        for pending, plan in zip(self._pending, plans, strict=True):
            pending.update(plan)
        return plans if any(plans) else []

    def ended(self, tree: int, anchor: Anchor, turns: Sequence[Turn]) -> None:
        """A planned rollout from `anchor` of the tree at index `tree` has ended: graft and pay it.

        Raises:
            FloatingPointError: a prediction is not finite.
        """
        _check_predictions(turns)
        grown = self.trees[tree]
        grown.graft(anchor, turns)
        self.histories[tree] = by_histories(grown) if self.merge else as_sampled(grown)
        self.left -= self.cost.spent(grown, len(grown.rollouts) - 1)
        self._no_longer_pending(tree, anchor)

    def failed(self, tree: int, anchor: Anchor) -> None:
        """A planned rollout has failed in its environment: pay what was expected of it.

        The tree stays as it is. It is paid so that a tool that always fails ends the step.
        """
        self.left -= self.cost(self.trees[tree], anchor)
        self._failed[tree] += 1
        self._no_longer_pending(tree, anchor)

    def _no_longer_pending(self, tree: int, anchor: Anchor) -> None:
        pending = self._pending[tree]
        pending[anchor] -= 1
        # No zeros may stay: a tree whose `pending` is not empty counts as one with rollouts
        # running.
        if not pending[anchor]:
            del pending[anchor]

    def _pending_cost(self) -> float:
        """Expected cost of the rollouts that have been planned and not ended."""
        return sum(
            count * self.cost(tree, anchor)
            for tree, pending in zip(self.trees, self._pending, strict=True)
            for anchor, count in pending.items()
        )

    def _spent(self, left: float) -> bool:
        """Whether `left` pays for no further rollout."""
        if not self.trees:
            return True
        if not self.in_tokens:
            return left < 1.0
        # Half a rollout, not a whole one: a rollout is started when it is closer to the budget
        # with it than without. The next step carries the difference.
        return left < self.cost(self.trees[0], ROOT) / 2

    def _view(self, left: float) -> PlanningView:
        # Every round has its own generator, derived from names alone. So a resumed run draws the
        # same numbers, and a draw more in one round changes nothing in the next.
        return PlanningView(
            trees=[seen.tree for seen in self.histories],
            pending=[
                _by_turn(pending, seen.turn_of)
                for pending, seen in zip(self._pending, self.histories, strict=True)
            ],
            failed=self._failed,
            round=self._round,
            total=self.total,
            left=left,
            cost=self.cost,
            calibrate=self.calibration,
            beliefs=self.beliefs,
            root_logit_std=self.calibration.root_logit_std,
            rng=np.random.default_rng(_hash(f"{self.seed}/{self._round}")),
        )

    def _check(self, plans: Plans, left: float) -> None:
        name = self.strategy.settings.strategy
        if len(plans) != len(self.trees):
            raise RuntimeError(f"strategy {name} planned {len(plans)} trees of {len(self.trees)}")
        for seen, plan in zip(self.histories, plans, strict=True):
            for anchor, count in plan.items():
                if count < 0 or not _can_continue(seen.tree, anchor):
                    raise RuntimeError(
                        f"strategy {name} planned {count} rollouts from anchor {anchor}"
                    )
        planned = sum(sum(plan.values()) for plan in plans)
        if not self.in_tokens and planned > left:
            raise RuntimeError(
                f"strategy {name} planned {planned} rollouts where {left:g} are left"
            )


def _can_continue(tree: RolloutTree, anchor: Anchor) -> bool:
    return 0 <= anchor < len(tree.turns) and not tree.turns[anchor].terminal


def _by_turn(pending: Counter[Anchor], turn_of: Sequence[int]) -> Counter[Anchor]:
    """Rollouts under way at the turns that a strategy sees."""
    seen: Counter[Anchor] = Counter()
    for anchor, count in pending.items():
        seen[turn_of[anchor]] += count
    return seen


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])


def _check_predictions(turns: Iterable[Turn]) -> None:
    for turn in turns:
        if turn.prediction is not None and not isfinite(turn.prediction):
            remedy = "the policy or its predictor holds numbers that are not finite"
            raise FloatingPointError(f"the sampler predicts {turn.prediction}: {remedy}")
