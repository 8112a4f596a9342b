"""Rollouts that an environment's error ended: what they were, and how many are too many.

A failed rollout joins no tree. It is no rollout of reward 0: neither policy nor predictor nor
calibration learn from it, as from an error nothing follows about the task.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from megatron_trace.supervise.health import UnhealthyRun
from megatron_trace.tree import RolloutTree

logger = logging.getLogger(__name__)

SHOWN = 3
"""Failures of a step that are told one by one."""


@dataclass(frozen=True)
class Failure:
    """An episode that could not begin or go on.

    Attributes:
        text: one line: environment, task, and what happened.
        trace: the stack at that point.
    """

    text: str
    trace: str = ""


class EpisodeFailed(Exception):
    """The environment of an episode failed."""

    def __init__(self, failure: Failure) -> None:
        """`failure` says how."""
        super().__init__(failure.text)
        self.failure = failure


@dataclass
class Attempts:
    """What a step or an evaluation tried.

    Attributes:
        tasks, rollouts: how many were tried.
        failed_tasks: of tasks on which no episode could begin.
        failed_rollouts: of rollouts that did not come to their end.
    """

    tasks: int = 0
    rollouts: int = 0
    failed_tasks: list[Failure] = field(default_factory=list)
    failed_rollouts: list[Failure] = field(default_factory=list)

    def opened(self, trees: Iterable[RolloutTree | Failure]) -> list[RolloutTree]:
        """Count the tasks; returns the trees of those on which an episode began."""
        begun = []
        for tree in trees:
            self.tasks += 1
            if isinstance(tree, Failure):
                self.failed_tasks.append(tree)
            else:
                begun.append(tree)
        return begun

    def ended(self, failure: Failure | None) -> bool:
        """Count a rollout; returns whether it came to its end."""
        self.rollouts += 1
        if failure is not None:
            self.failed_rollouts.append(failure)
        return failure is None

    def counts(self) -> dict[str, int]:
        """Metric name -> how many failed."""
        return {
            "failed_tasks": len(self.failed_tasks),
            "failed_rollouts": len(self.failed_rollouts),
        }

    def tell(self) -> list[str]:
        """A line for each of the first failures, and for how many there are; stacks go to the log."""
        failures = [*self.failed_tasks, *self.failed_rollouts]
        for failure in failures[:SHOWN]:
            logger.warning("%s\n%s", failure.text, failure.trace)
        lines = [f"failed: {failure.text}" for failure in failures[:SHOWN]]
        if len(failures) > SHOWN:
            lines.append(f"{len(failures)} episodes failed in the environment, counting these")
        return lines

    def check(self, limit: float | None) -> None:
        """Refuse to learn from what is left, if too much failed.

        Args:
            limit: `stop.failed`; None: only if all failed.

        Raises:
            UnhealthyRun: a larger share of the tasks or of the rollouts failed, or all.
        """
        for word, tried, failed in (
            ("tasks", self.tasks, self.failed_tasks),
            ("rollouts", self.rollouts, self.failed_rollouts),
        ):
            most = tried if limit is None else limit * tried
            if failed and (len(failed) > most or len(failed) == tried):
                raise UnhealthyRun(
                    f"{len(failed)} of {tried} {word} failed in the environment, more than "
                    f"stop.failed = {limit} allows; the first: {failed[0].text}"
                )
