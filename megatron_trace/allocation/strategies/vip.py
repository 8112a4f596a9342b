"""VIP: the rollouts of a batch split so that the gradient has the least variance.

Variance-Informed Predictive allocation, arXiv 2602.01601. A Gaussian process over prompt
embeddings, updated with the observed success of every step, predicts each prompt's p
(`gaussian_process.py`). Then the gradient's variance, Σ p(1−p)/(n−1) with RLOO or Σ p(1−p)(n−1)/n²
with Dr. GRPO, is minimised under Σ n = C, lower ≤ n ≤ upper (`solvers/gradient_variance.py`).

The batch is given: budget / `allocation.group` tasks, each with at least `lower` rollouts;
`allocation.pool` is not used. Ours: the embedding is the mean of the policy's input embeddings over
the prompt, instead of a sentence encoder. The process does not use the predictor. The paper has
both objectives; RLOO's is the default, with its advantage. For Dr. GRPO set `objective: dr_grpo`,
`learning.advantage.name: grpo` and `learning.advantage.std: false`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_trace.allocation.gaussian_process import SuccessProcess
from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.allocation.solvers.gradient_variance import OBJECTIVES, solve_gradient_variance
from megatron_trace.allocation.strategy import Strategy
from megatron_trace.config import SettingError, setting
from megatron_trace.tree import Requires, RolloutTree


class Vip(Strategy):
    """Few rollouts where the outcome is certain, many where it is open."""

    requires = frozenset({Requires.embedding})
    advantage = "rloo"

    @dataclass
    class Options:
        """The programme's and the Gaussian process's."""

        objective: str = setting(
            "rloo", "advantage whose variance is minimised", one_of=tuple(OBJECTIVES)
        )
        lower: int = setting(4, "fewest rollouts of a task")
        upper: int = setting(32, "most rollouts of a task")
        memory: int = setting(2048, "number of newest prompts that make up the process", at_least=1)
        dimensions: int = setting(64, "numbers that an embedding is projected to", at_least=1)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._process = SuccessProcess(
            memory=self.options.memory, dimensions=self.options.dimensions
        )

    def plan(self, view: PlanningView) -> Plans:
        options = self.options
        groups = view.rollouts // self.settings.group
        tasks = view.fresh()[:groups]
        if not tasks:
            return view.nothing()
        embeddings = _embeddings([view.trees[index] for index in tasks])
        success = self._process.predict(embeddings)
        # More than `upper` rollouts of every task cannot be placed. A later plan gives the rest to
        # fresh tasks.
        counts = solve_gradient_variance(
            success,
            min(view.rollouts, options.upper * len(tasks)),
            lower=options.lower,
            upper=options.upper,
            objective=options.objective,
        )
        return view.at_roots(dict(zip(tasks, counts.tolist(), strict=True)))

    def observe(self, trees: Sequence[RolloutTree]) -> None:
        # Without trees there is no array of embeddings, and nothing to learn.
        if not trees:
            return
        successes = [sum(tree.turns[leaf].reward for leaf in tree.leaves()) for tree in trees]
        rollouts = [len(tree.rollouts) for tree in trees]
        self._process.observe(_embeddings(trees), successes, rollouts)

    def state(self) -> dict[str, Any]:
        return self._process.state()

    def restore(self, state: dict[str, Any]) -> None:
        self._process.restore(state)

    def check(self) -> None:
        """
        Raises:
            SettingError: the group is not within the bounds, or an option is out of its range.
        """
        super().check()
        options = self.options
        if options.lower < OBJECTIVES[options.objective]:
            least = OBJECTIVES[options.objective]
            raise _error(
                "lower",
                options.lower,
                f"must be at least {least}, from where the objective is convex",
            )
        if not options.lower <= self.settings.group <= options.upper:
            remedy = (
                f"must be from lower to upper ({options.lower} to {options.upper}): it is "
                "their mean"
            )
            raise SettingError("allocation.group", self.settings.group, remedy)


def _embeddings(trees: Sequence[RolloutTree]) -> NDArray[np.float64]:
    """[trees, width]."""
    return np.array([tree.embedding for tree in trees], dtype=np.float64)


def _error(name: str, value: object, remedy: str) -> SettingError:
    return SettingError(f"allocation.options.vip.{name}", value, remedy)
