"""What strategies have in common that give every task an equal group and branch within it."""

from collections.abc import Mapping

from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.allocation.shares import split_evenly
from megatron_trace.allocation.strategy import Strategy, check_bare_share
from megatron_trace.config import SettingError
from megatron_trace.tree import ROOT, Anchor


class Branching(Strategy):
    """`allocation.group` rollouts of every task: chains from the root first, then branches from their prefixes.

    What a tree without a prefix to branch at is owed goes to its root, so that the budget is spent exactly.

    Attributes:
        fewest: chains that a task begins with at least.
    """

    branches = True
    fewest = 1

    def expand(self, view: PlanningView, index: int, share: int) -> dict[Anchor, int]:
        """The next continuations of the tree at `index`: at most `share`, none where it has no prefix for them."""
        raise NotImplementedError

    @property
    def chains(self) -> int:
        """Rollouts from the root that a task begins with."""
        group = self.settings.group
        return min(group, max(self.fewest, round(self.bare_share * group)))

    def per_round(self, rounds: int) -> int:
        """Continuations of a task in each of `rounds` rounds of the same size."""
        return max(1, -(-(self.settings.group - self.chains) // rounds))

    def plan(self, view: PlanningView) -> Plans:
        owed = self.owed(view)
        return self.spread(view, owed, view.rollouts) if owed else self.open(view)

    def owed(self, view: PlanningView) -> dict[int, int]:
        """Tree index -> rollouts that it still lacks of its group, of the tasks that have begun."""
        lacks = {
            index: self.settings.group - len(tree.rollouts) - sum(pending.values())
            for index, (tree, pending) in enumerate(zip(view.trees, view.pending, strict=True))
            if tree.rollouts or pending
        }
        return {index: lack for index, lack in lacks.items() if lack > 0}

    def spread(self, view: PlanningView, room: Mapping[int, int], rollouts: int) -> Plans:
        """`rollouts` spread evenly over trees, each with at most its room; a tree that has none yet must wait."""
        plans, seen = (
            view.nothing(),
            {index: most for index, most in room.items() if view.trees[index].rollouts},
        )
        for index, share in zip(seen, split_evenly(rollouts, list(seen.values())), strict=True):
            if share:
                plans[index] = self.expand(view, index, share)
                if not plans[index] and not view.pending[index]:
                    plans[index] = {ROOT: share}
        return plans

    def open(self, view: PlanningView) -> Plans:
        """Chains of tasks that have none, as many tasks as whole groups can be paid."""
        return view.at_roots(
            {index: self.chains for index in view.fresh()[: view.rollouts // self.settings.group]}
        )

    def check(self) -> None:
        """
        Raises:
            SettingError: a group has no contrast, or `allocation.bare_share` leaves no chains.
        """
        super().check()
        check_bare_share(self.settings)

    def require(self, option: str, holds: bool, remedy: str) -> None:
        """
        Raises:
            SettingError: the value of `option` does not hold.
        """
        if not holds:
            strategy = type(self).__module__.rpartition(".")[2]
            raise SettingError(
                f"allocation.options.{strategy}.{option}", getattr(self.options, option), remedy
            )
