"""The allocator: spends each step's sampling budget by its strategy, and learns from the trees."""

from collections.abc import Sequence
from typing import Any

from megatron_trace.allocation.beliefs import Beliefs
from megatron_trace.allocation.calibration import Calibration
from megatron_trace.allocation.cost import RolloutCost
from megatron_trace.allocation.registry import make_strategy
from megatron_trace.allocation.step import AllocationStep
from megatron_trace.config import AllocationConfig, BudgetUnit
from megatron_trace.tree import ROOT, Requires, RolloutTree

SURPLUS_CANDIDATES = 1.5
"""Candidates seen with a budget of tokens, as a multiple of what expected lengths need.

Rollouts may be shorter than expected, and then the budget pays for more tasks."""


class Allocator:
    """Owns the budget, and what strategy, cost and calibration learn from step to step."""

    def __init__(self, settings: AllocationConfig, seed: int = 0) -> None:
        """
        Args:
            seed: `run.seed`. A strategy's random numbers are derived from it and the step's name.

        Raises:
            SettingError: the strategy is unknown, or cannot work with these settings.
        """
        self.strategy = make_strategy(settings)
        self._settings, self._seed = settings, seed
        self._in_tokens = settings.unit is BudgetUnit.tokens
        self._cost = RolloutCost(settings)
        self._calibration = Calibration(fitted=settings.calibrate, prior=settings.prior_rollouts)
        self._beliefs = Beliefs()
        self._carried = 0.0

    @property
    def requires(self) -> frozenset[Requires]:
        """What the strategy needs of the sampler beyond log-probabilities and predictions."""
        return self.strategy.requires

    @property
    def streams(self) -> bool:
        """Whether `AllocationStep.plan` is to be called whenever a rollout has ended."""
        return self.strategy.streams

    def candidates(self) -> int:
        """Number of tasks that a step begins with."""
        count = self.strategy.candidates(self._rollouts(self._budget()))
        return round(SURPLUS_CANDIDATES * count) if self._in_tokens else count

    def begin(self, trees: Sequence[RolloutTree], name: str) -> AllocationStep:
        """Begin the step called `name` with candidate `trees` of only roots.

        Raises:
            FloatingPointError: a prediction is not finite.
        """
        budget = self._budget()
        step = AllocationStep(
            list(trees),
            self._settings.merge,
            self.strategy,
            self._cost,
            self._calibration,
            self._beliefs,
            seed=f"{self._seed}/{name}",
            left=budget,
            total=self._rollouts(budget),
            in_tokens=self._in_tokens,
        )
        # What was believed before the step: a baseline that no rollout of the step has changed.
        alpha, beta = self._beliefs.roots(trees)
        for tree, successes, failures in zip(trees, alpha.tolist(), beta.tolist(), strict=True):
            tree.belief = (successes, failures)
        return step

    def finish(self, step: AllocationStep) -> tuple[list[RolloutTree], dict[str, float]]:
        """End the step and learn from it.

        Returns:
            The trees that were given rollouts, and metrics of the predictions that were used.
        """
        sampled = [tree for tree in step.trees if tree.rollouts]
        # The metrics judge the calibration that the step was planned with, so they come first.
        seen = [one.tree for one in step.histories if one.tree.rollouts]
        metrics = self._calibration.metrics(sampled) | self._beliefs.metrics(seen)
        self._calibration.observe(sampled)
        self._beliefs.observe(seen)
        self._cost.observe(sampled)
        self.strategy.observe(sampled)
        # Tokens left over, or spent too many, are carried to the next step, so that a budget of
        # tokens is met on average. A strategy that saves on purpose carries only its excess.
        keeps_rest = self._in_tokens and not self.strategy.saves
        self._carried = step.left if keeps_rest else min(step.left, 0.0)
        return sampled, metrics

    def state(self) -> dict[str, Any]:
        """What a resumed run must know, as JSON data."""
        return {
            "strategy": self.strategy.state(),
            "cost": self._cost.state(),
            "calibration": self._calibration.state(),
            "beliefs": self._beliefs.state(),
            "carried": self._carried,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned; an empty state is a fresh start."""
        if state:
            self.strategy.restore(state["strategy"])
            self._cost.restore(state["cost"])
            self._calibration.restore(state["calibration"])
            self._beliefs.restore(state["beliefs"])
            self._carried = state["carried"]

    def _budget(self) -> float:
        """What the next step may cost: at least the strategy's least, so that no step is empty."""
        # Tokens spent too many in one step could leave the next step with too few for any group.
        least = self.strategy.least * self._root_cost() if self._in_tokens else 0.0
        return max(self._settings.budget + self._carried, least)

    def _root_cost(self) -> float:
        """Expected cost of a bare rollout."""
        return self._cost(RolloutTree.from_prompt({}, [], prediction=None, state={}), ROOT)

    def _rollouts(self, budget: float) -> int:
        """Rollouts from roots that `budget` pays for."""
        return max(1, int(budget / self._root_cost() + 1e-9))
