"""`Environment`: what an agent acts in, forkable at every turn. See docs/environments.md."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from megatron_trace.models.messages import Message, Tool


@dataclass(frozen=True)
class StepResult:
    """What an action brought.

    Attributes:
        observation: what is appended to the history after the action; empty when `done`. A text is
            appended as it is. A `ChatEnvironment` observes messages; a text is one of the user's.
        done: the episode is over.
        reward: terminal reward in [0, 1]; 0.0 unless `done`.
        malformed: the action did not parse.
        parts: what the reward is made of, or whatever else shall be in the metrics, by name.
        tool_errors: calls of tools that raised or took too long; they are in the metrics.
    """

    observation: str | Sequence[Message]
    done: bool
    reward: float
    malformed: bool
    parts: Mapping[str, float] = field(default_factory=dict)
    tool_errors: int = 0


class Environment:
    """One episode. Its methods may block: a worker calls them in threads, beside its engine.

    `reset` and `step` may be coroutines. These run in the worker's event loop and must not block.

    Attributes:
        stop: strings that end a turn's action; they belong to the action.
        chat: whether it is a `ChatEnvironment`.
        tools: schemas of the tools that the prompt tells of; known after `reset`.
        replays: whether its state cannot be copied. Then it needs no `snapshot` and no `restore`:
            an episode is continued by `reset` and the same actions again.
        retryable: exceptions after which `reset` or a step may be tried again, such as those of a
            tool that is overloaded. A step is tried again on a new object, after `restore`.
        Options: its settings, a dataclass whose fields are `setting(default, meaning, bounds)`.
            They are given as `environment.options.NAME.OPTION`.
        options: an instance of `Options`, within its bounds.
        max_turns: an episode must end with this turn at the latest (`environment.max_turns`).
        shared: what `load` returned. Episodes run in threads: it must be safe to use from several.
    """

    stop: tuple[str, ...]
    chat: bool = False
    tools: Sequence[Tool] = ()
    replays: bool = False
    retryable: tuple[type[BaseException], ...] = ()

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
    def reads(cls, options: Any) -> Mapping[str, Path | str]:
        """What episodes depend on beside settings and tasks, by a name for messages.

        A run is continued only where it is the same. A path stands for what the file holds, wherever
        it lies. A text stands for itself, such as the version of a package. Files that options name
        by `setting(..., files=True)` are compared anyway.
        """
        return {}

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

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Start an episode; returns the prompt as chat messages (`role`, `content`)."""
        raise NotImplementedError

    def step(self, action: Any) -> StepResult:
        """Take one action. The result must depend on the state and the action alone.

        Args:
            action: the turn's text; a `ChatEnvironment` is given a `Reply`.
        """
        raise NotImplementedError

    def snapshot(self) -> dict[str, Any]:
        """The state as plain JSON data, task included. Later steps must not change it."""
        raise NotImplementedError

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continue from `snapshot`: later steps give what the original would have given."""
        raise NotImplementedError
