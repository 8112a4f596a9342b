"""Uniform (GRPO): the same number of bare rollouts for every task, no continuations.

The allocation of group-relative policy optimisation (arXiv 2402.03300), and the baseline of TRACE.
"""

from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.allocation.strategy import Strategy


class Uniform(Strategy):
    """`allocation.group` rollouts of as many tasks as the budget pays for."""

    def plan(self, view: PlanningView) -> Plans:
        group = self.settings.group
        return view.at_roots({index: group for index in view.fresh()[: view.rollouts // group]})
