"""The allocator: spends a step's sampling budget as its strategy says, and learns from what came of it."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

import numpy as np

from megatron_trace.allocation.calibration import Calibration
from megatron_trace.allocation.cost import RolloutCost
from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.allocation.registry import make_strategy
from megatron_trace.config import AllocationConfig, BudgetUnit
from megatron_trace.tree import ROOT, Anchor, Need, RolloutTree, Turn

SPARE = 1.5
"""Candidates seen where the budget is tokens, of those that rollouts of the expected length would need."""


class Allocator:
    """Owns the budget. A step is `begin`, then `plan` and `ended` in turn until nothing is planned, then `finish`."""

    def __init__(self, settings: AllocationConfig, seed: int = 0) -> None:
        """
        Args:
            seed: `run.seed`, from which a strategy's random numbers are derived by the step's name.

        Raises:
            SettingError: the strategy is unknown, or cannot work with these settings.
        """
        self.strategy = make_strategy(settings)
        self._settings, self._seed = settings, seed
        self._in_tokens = settings.unit is BudgetUnit.tokens
        self._cost = RolloutCost(settings)
        self._calibration = Calibration(fitted=settings.calibrate, prior=settings.prior_rollouts)
        self._carried = 0.0
        self._trees: list[RolloutTree] = []

    @property
    def needs(self) -> frozenset[Need]:
        """What the sampler is asked for."""
        return self.strategy.needs

    @property
    def streams(self) -> bool:
        """Whether `plan` is to be called whenever a rollout has ended."""
        return self.strategy.streams

    def candidates(self) -> int:
        """Tasks that a step begins with."""
        count = self.strategy.candidates(self._rollouts(self._budget()))
        return round(SPARE * count) if self._in_tokens else count

    def begin(self, trees: Sequence[RolloutTree], name: str) -> None:
        """A step called `name` begins, with `trees` of only roots.

        Raises:
            FloatingPointError: a prediction is not finite.
        """
        _check_predictions(turn for tree in trees for turn in tree.turns)
        self._trees, self._name, self._round = list(trees), name, 0
        self._pending: list[Counter[Anchor]] = [Counter() for _ in trees]
        self._left = self._budget()
        self._total = self._rollouts(self._left)

    def plan(self) -> Plans:
        """The next rollouts of each tree; none where the step is over, or (streaming) nothing is to be added yet.

        Raises:
            RuntimeError: the strategy plans what cannot be.
        """
        paid = sum(
            count * self._cost(tree, anchor)
            for tree, pending in zip(self._trees, self._pending, strict=True)
            for anchor, count in pending.items()
        )
        left = self._left - paid
        if not self._trees or left < (
            1.0 if not self._in_tokens else self._cost(self._trees[0], ROOT) / 2
        ):
            return []
        view = PlanningView(
            trees=self._trees,
            pending=self._pending,
            round=self._round,
            total=self._total,
            left=left,
            cost=self._cost,
            calibrate=self._calibration,
            root_logit_std=self._calibration.root_logit_std,
            rng=np.random.default_rng(_seed(f"{self._seed}/{self._name}/{self._round}")),
        )
        plans = [
            {anchor: int(n) for anchor, n in plan.items() if n} for plan in self.strategy.plan(view)
        ]
        self._check(plans, left)
        self._round += 1
        for pending, plan in zip(self._pending, plans, strict=True):
            pending.update(plan)
        return plans if any(plans) else []

    def ended(self, tree: int, anchor: Anchor, turns: Sequence[Turn]) -> None:
        """A planned rollout from `anchor` has ended: it becomes part of its tree.

        Raises:
            FloatingPointError: a prediction is not finite.
        """
        _check_predictions(turns)
        grown = self._trees[tree]
        grown.graft(anchor, turns)
        self._left -= self._cost.spent(grown, len(grown.rollouts) - 1)
        self._pending[tree][anchor] -= 1
        if not self._pending[tree][anchor]:
            del self._pending[tree][anchor]

    def finish(self) -> tuple[list[RolloutTree], dict[str, float]]:
        """The step is over: its trees that were given rollouts, and how good the predictions were."""
        sampled = [tree for tree in self._trees if tree.rollouts]
        numbers = self._calibration.metrics(sampled)
        self._calibration.observe(sampled)
        self._cost.observe(sampled)
        self.strategy.observe(sampled)
        self._carried = (
            self._left if self._in_tokens and not self.strategy.saves else min(self._left, 0.0)
        )
        return sampled, numbers

    def state(self) -> dict[str, Any]:
        """What a resumed run must know, as JSON data."""
        return {
            "strategy": self.strategy.state(),
            "cost": self._cost.state(),
            "calibration": self._calibration.state(),
            "carried": self._carried,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave; a fresh start where it is empty."""
        if state:
            self.strategy.restore(state["strategy"])
            self._cost.restore(state["cost"])
            self._calibration.restore(state["calibration"])
            self._carried = state["carried"]

    def _budget(self) -> float:
        """What the next step may cost. A group is always paid, so that no step is empty where rollouts grow dear."""
        group = self._settings.group * self._root_cost() if self._in_tokens else 0.0
        return max(self._settings.budget + self._carried, group)

    def _root_cost(self) -> float:
        return self._cost(RolloutTree.from_prompt({}, [], prediction=None, state={}), ROOT)

    def _rollouts(self, budget: float) -> int:
        """Rollouts from roots that `budget` pays for."""
        return max(1, int(budget / self._root_cost() + 1e-9))

    def _check(self, plans: Plans, left: float) -> None:
        name = self._settings.strategy
        if len(plans) != len(self._trees):
            raise RuntimeError(f"strategy {name} planned {len(plans)} trees of {len(self._trees)}")
        for tree, plan in zip(self._trees, plans, strict=True):
            for anchor, count in plan.items():
                if count < 0 or not 0 <= anchor < len(tree.turns) or tree.turns[anchor].terminal:
                    raise RuntimeError(
                        f"strategy {name} planned {count} rollouts from anchor {anchor}"
                    )
        planned = sum(sum(plan.values()) for plan in plans)
        if not self._in_tokens and planned > left:
            raise RuntimeError(
                f"strategy {name} planned {planned} rollouts where {left:g} are left"
            )


def _seed(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])


def _check_predictions(turns: Iterable[Turn]) -> None:
    for turn in turns:
        if turn.prediction is not None and not isfinite(turn.prediction):
            remedy = "the policy or its predictor holds numbers that are not finite"
            raise FloatingPointError(f"the sampler predicts {turn.prediction}: {remedy}")
