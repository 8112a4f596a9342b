"""The base class of strategies: one class in one file, with defaults for all but `plan`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from megatron_trace.allocation.planning_view import PlanningView, Plans
from megatron_trace.config import AllocationConfig, SettingError
from megatron_trace.tree import Requires, RolloutTree


class Strategy:
    """Says which anchors of a step's trees to continue, and how often.

    Attributes:
        requires: what the strategy reads of sampled turns beyond log-probabilities and predictions.
        advantage: the strategy's own estimator, default of `learning.advantage.name`.
        branches: whether the strategy takes continuations.
        saves: whether the strategy leaves a part of a step's budget unspent on purpose.
        bare_share: default of `allocation.bare_share`, for strategies that branch.
        streams: whether `plan` is called whenever a rollout has ended, instead of when all have.
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
        """Refuse settings that this strategy cannot work with; here, groups of one rollout.

        Raises:
            SettingError: at the first setting that cannot work.
        """
        check_group(self.settings)

    @property
    def least(self) -> int:
        """Fewest rollouts that make a step: a budget of tokens is never less than their cost."""
        return self.settings.group

    def candidates(self, rollouts: int) -> int:
        """Number of candidate tasks of a step whose budget pays for `rollouts`."""
        return max(1, rollouts // self.settings.group)

    def plan(self, view: PlanningView) -> Plans:
        """The next rollouts.

        Called again when they have ended, until nothing is planned or the budget is spent.
        """
        raise NotImplementedError

    def observe(self, trees: Sequence[RolloutTree]) -> None:
        """Learn from the grown trees of a step."""

    def state(self) -> dict[str, Any]:
        """What a resumed run must know of what the strategy has learned, as JSON data."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""


def check_group(settings: AllocationConfig) -> None:
    """Refuse a group without contrast, and a budget that does not pay for whole groups.

    Raises:
        SettingError: at the first setting that cannot work.
    """
    group, budget = settings.group, settings.budget
    if group < 2:
        raise SettingError(
            "allocation.group", group, "must be at least 2: one rollout has no contrast"
        )
    # A rest below one group would stay unspent, and strategies are compared at equal cost.
    if settings.unit.value == "rollouts" and budget % group:
        remedy = f"must be a multiple of allocation.group ({group}) so that it is spent exactly"
        raise SettingError("allocation.budget", budget, remedy)
    if settings.unit.value == "tokens":
        check_pays(settings, group)


def check_pays(settings: AllocationConfig, rollouts: int) -> None:
    """Refuse a budget of tokens below the expected tokens of a group of `rollouts`.

    Raises:
        SettingError: the budget does not pay for the group.
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
        SettingError: the share is not above 0 and at most 1.
    """
    if settings.bare_share is not None and not 0.0 < settings.bare_share <= 1.0:
        raise SettingError(
            "allocation.bare_share", settings.bare_share, "must be above 0 and at most 1"
        )
