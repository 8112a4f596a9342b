"""What a strategy of allocation is: one class in one file, with a default for everything but its plan."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.config import AllocationConfig, SettingError
from megatron_trace.tree import Requires, RolloutTree


class Strategy:
    """Says which anchors of a step's trees to continue, and how often.

    Attributes:
        requires: what it reads of the sampled turns beyond log-probabilities and predictions.
        advantage: the estimator of its paper, the default of `learning.advantage.name`.
        branches: whether it takes continuations.
        saves: whether it leaves a part of a step's budget unspent on purpose.
        bare_share: where it branches, the default of `allocation.bare_share`.
        streams: whether it plans anew whenever a rollout ends, instead of when all have.
        Options: its settings, a dataclass whose fields are `setting(default, meaning, bounds)`.
            They are given as `allocation.options.NAME.OPTION`.
        section: dotted name of the section that gives the options.
    """

    requires: ClassVar[frozenset[Requires]] = frozenset()
    advantage: ClassVar[str] = "grpo"
    branches: ClassVar[bool] = False
    saves: ClassVar[bool] = False
    bare_share: float = 0.5
    streams: bool = False

    @dataclass
    class Options:
        """None."""

    def __init__(
        self, settings: AllocationConfig, options: Any = None, section: str = "allocation.options"
    ) -> None:
        """`options` are an instance of `Options`, within their bounds; None: the defaults.

        Raises:
            SettingError: settings or options cannot work together.
        """
        self.settings, self.section = settings, section
        self.options: Any = self.Options() if options is None else options
        if settings.bare_share is not None:
            self.bare_share = settings.bare_share
        self.check()

    def check(self) -> None:
        """Refuse settings that this strategy cannot work with; the default wants groups of two at least.

        Raises:
            SettingError: at the first.
        """
        check_group(self.settings)

    def candidates(self, rollouts: int) -> int:
        """Tasks of which it wants to see the roots in a step that can pay for `rollouts`."""
        return max(1, rollouts // self.settings.group)

    def plan(self, view: PlanningView) -> Plans:
        """The next rollouts; called again when they have ended, until it plans none or the budget is spent."""
        raise NotImplementedError

    def observe(self, trees: Sequence[RolloutTree]) -> None:
        """Learn from the grown trees of a step."""

    def state(self) -> dict[str, Any]:
        """What it has learned so far and a resumed run must know, as JSON data."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""


def check_group(settings: AllocationConfig) -> None:
    """Refuse a group without contrast, and a budget that is no whole number of groups, or in tokens below one group.

    Raises:
        SettingError: at the first setting that cannot work.
    """
    group, budget = settings.group, settings.budget
    if group < 2:
        raise SettingError(
            "allocation.group", group, "must be at least 2: one rollout has no contrast"
        )
    if settings.unit.value == "rollouts" and budget % group:
        remedy = f"must be a multiple of allocation.group ({group}) so that it is spent exactly"
        raise SettingError("allocation.budget", budget, remedy)
    if settings.unit.value == "tokens":
        check_pays(settings, group)


def check_pays(settings: AllocationConfig, rollouts: int) -> None:
    """Refuse a budget of tokens below what the smallest group of `rollouts` is expected to take.

    Raises:
        SettingError: it is.
    """
    if settings.budget < rollouts * settings.expected_tokens:
        expected = (
            f"{rollouts} rollouts of {settings.expected_tokens} tokens (allocation.expected_tokens)"
        )
        remedy = f"must pay for a group of {expected} at least"
        raise SettingError("allocation.budget", settings.budget, remedy)


def check_bare_share(settings: AllocationConfig) -> None:
    """Refuse a share that leaves no bare rollouts.

    Raises:
        SettingError: it does.
    """
    if settings.bare_share is not None and not 0.0 < settings.bare_share <= 1.0:
        raise SettingError(
            "allocation.bare_share", settings.bare_share, "must be above 0 and at most 1"
        )
