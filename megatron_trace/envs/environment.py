"""The `Environment` protocol: text in, text out, forkable at every turn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


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


class Environment(Protocol):
    """One episode. Blocking calls are fine: the worker runs them off the engine's loop."""

    stop: tuple[str, ...]
    """Strings that end a turn's action; they belong to the action."""

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, str]]:
        """Start an episode; returns the prompt as chat messages (`role`, `content`)."""
        ...

    def step(self, action: str) -> StepResult:
        """Take one action. Deterministic given the state."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """The state as plain JSON data, task included."""
        ...

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continue from `snapshot`: later steps give what the original would have given."""
        ...
