"""The common part of strategies that give every task an equal group and branch within it."""

from collections.abc import Mapping

from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.allocation.shares import split_evenly
from megatron_trace.allocation.strategy import Strategy, check_bare_share
from megatron_trace.tree import ROOT, Anchor


class Branching(Strategy):
    """`allocation.group` rollouts of every task: first chains from the root, then branches of them.

    A tree that has no prefix to branch at gets its branches at the root, so that the budget is
    spent exactly.

    Attributes:
        fewest: fewest chains that a task begins with.
    """

    branches = True
    fewest = 1

    def expand(self, view: PlanningView, index: int, share: int) -> dict[Anchor, int]:
        """The next continuations of the tree at `index`: at most `share`, none without a prefix."""
        raise NotImplementedError

    @property
    def chains(self) -> int:
        """Rollouts from the root that a task begins with."""
        group = self.settings.group
        wanted = max(self.fewest, round(self.bare_share * group))
        return min(group, wanted)

    def per_round(self, rounds: int) -> int:
        """Continuations of a task in each of `rounds` rounds of the same size."""
        continuations = self.settings.group - self.chains
        return max(1, -(-continuations // rounds))

    def plan(self, view: PlanningView) -> Plans:
        owed = self.owed(view)
        return self.spread(view, owed, view.rollouts) if owed else self.open(view)

    def owed(self, view: PlanningView) -> dict[int, int]:
        """Tree index -> rollouts that are missing in its group, of the tasks that have begun."""
        owed = {}
        for index, (tree, pending) in enumerate(zip(view.trees, view.pending, strict=True)):
            missing = self.settings.group - len(tree.rollouts) - sum(pending.values())
            if (tree.rollouts or pending) and missing > 0:
                owed[index] = missing
        return owed

    def spread(self, view: PlanningView, room: Mapping[int, int], rollouts: int) -> Plans:
        """`rollouts` spread evenly over trees, each with at most its room."""
        plans = view.nothing()
        # A tree without an ended rollout has nothing to branch at yet. It must wait, as a plan at
        # its root would make another chain.
        started = {index: most for index, most in room.items() if view.trees[index].rollouts}
        shares = split_evenly(rollouts, list(started.values()))
        for index, share in zip(started, shares, strict=True):
            if not share:
                continue
            plans[index] = self.expand(view, index, share)
            # While rollouts of the tree still run, they may bring prefixes to branch at.
            if not plans[index] and not view.pending[index]:
                plans[index] = {ROOT: share}
        return plans

    def open(self, view: PlanningView) -> Plans:
        """Chains of tasks that have none, as many tasks as whole groups can be paid."""
        tasks = view.rollouts // self.settings.group
        return view.at_roots({index: self.chains for index in view.fresh()[:tasks]})

    def check(self) -> None:
        """
        Raises:
            SettingError: a group has no contrast, or `allocation.bare_share` leaves no chains.
        """
        super().check()
        check_bare_share(self.settings)
