"""Uniform (GRPO): the same number of bare rollouts for every task, no continuations.

The allocation of group-relative policy optimisation (arXiv 2402.03300), and the baseline of TRACE.
"""

from megatron_trace.allocation.situation import Plans, Situation
from megatron_trace.allocation.strategy import Strategy


class Uniform(Strategy):
    """`allocation.group` rollouts of as many tasks as the budget pays for."""

    def plan(self, now: Situation) -> Plans:
        group = self.settings.group
        return now.at_roots({index: group for index in now.fresh()[: now.rollouts // group]})
