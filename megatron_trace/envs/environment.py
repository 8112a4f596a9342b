"""`Environment`: text in, text out, forkable at every turn. See docs/environments.md."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self


@dataclass(frozen=True)
class StepResult:
    """What an action brought.

    Attributes:
        observation: text appended to the history after the action; empty when `done`.
        done: the episode is over.
        reward: terminal reward in [0, 1]; 0.0 unless `done`.
        malformed: the action did not parse.
    """

    observation: str
    done: bool
    reward: float
    malformed: bool


class Environment:
    """One episode. Its methods may block: a worker calls them in threads, beside its engine.

    Attributes:
        stop: strings that end a turn's action; they belong to the action.
        retryable: exceptions after which `reset` or a step may be tried again, such as those of a
            tool that is overloaded. A step is tried again on a new object, after `restore`.
        Options: its settings, a dataclass whose fields are `setting(default, meaning, bounds)`.
            They are given as `environment.options.NAME.OPTION`.
        options: an instance of `Options`, within its bounds.
        max_turns: an episode must end with this turn at the latest (`environment.max_turns`).
        shared: what `load` returned. Episodes run in threads: it must be safe to use from several.
    """

    stop: ClassVar[tuple[str, ...]]
    retryable: ClassVar[tuple[type[BaseException], ...]] = ()

    @dataclass
    class Options:
        """None."""

    def __init__(self, options: Any, max_turns: int, shared: Any = None) -> None:
        """An episode that awaits `reset` or `restore`."""
        self.options, self.max_turns, self.shared = options, max_turns, shared

    @classmethod
    def load(cls, options: Any) -> Any:
        """What the episodes of a worker share, such as an index. Called once in every worker."""
        return None

    @classmethod
    def maker(cls, options: Any, max_turns: int) -> Callable[[], Self]:
        """A function that makes an episode whenever it is called."""
        # Here and not in each episode: an index may take minutes and gigabytes, and a step makes
        # hundreds of episodes.
        shared = cls.load(options)
        return lambda: cls(options, max_turns, shared)

    def check_task(self, task: Mapping[str, Any]) -> None:
        """Refuse a task on which no episode can be judged. Every task is checked before a run starts.

        `reset` is called on every task as well, so this need not repeat what `reset` refuses.

        Raises:
            ValueError: what is wrong with the task; the message follows the task's name.
        """

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, str]]:
        """Start an episode; returns the prompt as chat messages (`role`, `content`)."""
        raise NotImplementedError

    def step(self, action: str) -> StepResult:
        """Take one action. The result must depend on the state and the action alone."""
        raise NotImplementedError

    def snapshot(self) -> dict[str, Any]:
        """The state as plain JSON data, task included. Later steps must not change it."""
        raise NotImplementedError

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continue from `snapshot`: later steps give what the original would have given."""
        raise NotImplementedError
