"""Knapsack RL: rollouts to the tasks where a mixed group has the largest value.

Knapsack RL, arXiv 2509.25849. A task with success rate p and N rollouts has the value
[1 − p^N − (1−p)^N] · p(1−p)²: the probability of a mixed group, times the information gain p(1−p)²
of an update. The sum over tasks under Σ N = budget, lower ≤ N ≤ upper, is maximised by dynamic
programming; p is the success rate of the same task when it was last seen. The paper's bounds are 2
and 128.

Ours:
- A task that was not seen yet has the predictor's p.
- By default the tasks are chosen too: out of `allocation.pool` candidates a task gets none or at
  least `lower`. `every` is the paper's rule: the batch is given (budget / `allocation.group` tasks)
  and each of its tasks gets at least `lower`.
- Rates are kept within [0.001, 0.999]. A task that never succeeded then has a tiny value instead of
  0, and gets what the other tasks cannot use, as in the paper's fallback.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.allocation.solvers.dynamic_programme import best_counts
from megatron_trace.allocation.strategy import Strategy, check_group
from megatron_trace.allocation.value import root_value
from megatron_trace.config import SettingError, setting
from megatron_trace.tree import RolloutTree

RATE_MARGIN = 1e-3
"""Success rates are kept this far from 0 and 1."""


class Knapsack(Strategy):
    """Solves the dynamic programme. Remembers the success rate of every task that was sampled."""

    @dataclass
    class Options:
        """Bounds on the rollouts of a task."""

        lower: int = setting(
            2,
            "fewest rollouts of a task that gets any",
            at_least=2,
            reason="one rollout has no contrast",
        )
        upper: int = setting(128, "most rollouts of a task")
        every: bool = setting(False, "every candidate gets some rollouts, as in the paper")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._rates: dict[str, float] = {}

    def candidates(self, rollouts: int) -> int:
        return super().candidates(rollouts) if self.options.every else self.settings.pool

    def plan(self, view: PlanningView) -> Plans:
        tasks, options = view.fresh(), self.options
        if options.every:
            tasks = tasks[: view.rollouts // self.settings.group]
        budget = min(view.rollouts, options.upper * len(tasks))
        if not tasks or budget < options.lower:
            return view.nothing()
        known = [self._rate(view, index) for index in tasks]
        rates = np.clip(known, RATE_MARGIN, 1.0 - RATE_MARGIN)
        most = min(options.upper, budget)
        values = knapsack_value(rates[:, None], np.arange(most + 1))
        # −inf forbids a count.
        values[:, 1 : options.lower] = -np.inf
        values[:, 0] = -np.inf if options.every else 0.0
        counts = best_counts(values, budget).tolist()
        return view.at_roots(dict(zip(tasks, counts, strict=True)))

    def _rate(self, view: PlanningView, index: int) -> float:
        """Success rate of a task when it was last seen, or else the predicted rate."""
        task = str(view.trees[index].task["id"])
        return self._rates.get(task, view.roots[index])

    def observe(self, trees: Sequence[RolloutTree]) -> None:
        for tree in trees:
            rewards = [tree.turns[leaf].reward for leaf in tree.leaves()]
            self._rates[str(tree.task["id"])] = float(np.mean(rewards))

    def state(self) -> dict[str, Any]:
        return {"rates": dict(self._rates)}

    def restore(self, state: dict[str, Any]) -> None:
        self._rates = dict(state.get("rates", {}))

    def check(self) -> None:
        """
        Raises:
            SettingError: the budget cannot be spent exactly within the bounds.
        """
        options, settings = self.options, self.settings
        # Then every number from `lower` on is a sum of counts from lower to upper.
        if options.upper < 2 * options.lower - 1:
            raise _error(
                "upper",
                options.upper,
                "must be at least 2·lower − 1, so that any budget can be split",
            )
        if options.every:
            check_group(settings)
            if not options.lower <= settings.group <= options.upper:
                remedy = f"allocation.group ({settings.group}) must be from lower to upper"
                raise _error("every", options.every, remedy)
            return
        most = settings.pool * options.upper
        if settings.unit.value == "rollouts" and not options.lower <= settings.budget <= most:
            remedy = f"must be from lower ({options.lower}) to upper·allocation.pool ({most})"
            raise SettingError("allocation.budget", settings.budget, remedy)


def knapsack_value(success: ArrayLike, count: ArrayLike) -> NDArray[np.float64]:
    """[1 − p^N − (1−p)^N] · p(1−p)², 0 for N < 2. Broadcasts."""
    p = np.asarray(success, dtype=np.float64)
    return root_value(p, count) * p * (1.0 - p) ** 2


def _error(name: str, value: object, remedy: str) -> SettingError:
    return SettingError(f"allocation.options.knapsack.{name}", value, remedy)
