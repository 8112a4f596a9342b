"""Screening: a few rollouts of many tasks, then the rest of the budget for the mixed tasks.

It needs no predictor: two rollouts that end differently show that a task is neither too easy nor
too hard. Of n tasks with success rates p, screened with s rollouts each, about Σ 1 − p^s − (1−p)^s
remain.
"""

from dataclasses import dataclass

from megatron_trace.allocation import PlanningView, Plans, Strategy
from megatron_trace.allocation.shares import split_evenly
from megatron_trace.config import setting
from megatron_trace.tree.backup import is_mixed


class Screening(Strategy):
    """Round 0 screens; the next round gives the rest to the mixed tasks, evenly."""

    advantage = "grpo"

    @dataclass
    class Options:
        """Set as `allocation.options.screening.share=0.6`."""

        share: float = setting(
            0.5, "share of the budget that screening may spend", above=0, at_most=1
        )
        each: int = setting(
            2, "rollouts that screen a task", at_least=2, reason="one rollout has no contrast"
        )

    def candidates(self, rollouts: int) -> int:
        return max(1, round(self.options.share * rollouts) // self.options.each)

    def plan(self, view: PlanningView) -> Plans:
        if view.round == 0:
            screened = view.fresh()[: self.candidates(view.total)]
            return view.at_roots({index: self.options.each for index in screened})
        sampled = [index for index, tree in enumerate(view.trees) if tree.rollouts]
        # If no task is mixed, the rest goes to all screened tasks, so that the budget is spent.
        chosen = [index for index in sampled if is_mixed(view.trees[index])] or sampled
        shares = split_evenly(view.rollouts, [view.rollouts] * len(chosen))
        return view.at_roots(dict(zip(chosen, shares, strict=True)))

    def check(self) -> None:
        """Any budget can be spent: groups need not be equal."""
