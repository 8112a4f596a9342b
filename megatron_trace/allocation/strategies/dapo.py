"""DAPO: fresh tasks in rounds, until enough groups are mixed.

Decoupled Clip and Dynamic Sampling Policy Optimization, arXiv 2503.14476. Dynamic sampling (eq. 11)
requires 0 < correct answers < group for every group of a batch: prompts are sampled until the batch
is full of such groups.

Ours: a step has a hard budget. It is spent in at most `rounds` equal rounds, each on groups of
fresh tasks. The step ends as soon as `enough` groups are mixed, and the rest of the budget is not
spent; with `run.rollouts` runs are still compared at equal cost. All that was sampled is learned
from; groups without contrast have the advantage 0 (`learning.advantage.filter_groups` takes them
out of the mean too). Clip-higher, token mean and overlong shaping are settings of `learning`
(docs/optimisation.md).
"""

from dataclasses import dataclass

from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.allocation.strategy import Strategy
from megatron_trace.config import setting
from megatron_trace.tree.backup import is_mixed


class Dapo(Strategy):
    """`allocation.group` rollouts of each task, as many tasks as it takes."""

    saves = True

    @dataclass
    class Options:
        """When a step ends."""

        rounds: int = setting(4, "most rounds of a step", at_least=1)
        enough: int | None = setting(
            None,
            "mixed groups that end a step; null: half of the groups that the budget pays for",
            at_least=1,
        )

    def plan(self, view: PlanningView) -> Plans:
        groups = max(1, view.total // self.settings.group)
        enough = -(-groups // 2) if self.options.enough is None else self.options.enough
        if view.round >= self.options.rounds or sum(map(is_mixed, view.trees)) >= enough:
            return view.nothing()
        # The last round may have less than its share left.
        share = min(-(-groups // self.options.rounds), view.rollouts // self.settings.group)
        return view.at_roots({index: self.settings.group for index in view.fresh()[:share]})
