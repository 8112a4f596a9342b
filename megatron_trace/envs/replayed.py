"""`Replayed`: continues an episode, whose state cannot be copied, by its actions."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from megatron_trace.envs.awaiting import settled
from megatron_trace.envs.environment import Environment, StepResult
from megatron_trace.models.messages import Reply, ToolCall


class Replayed(Environment):
    """An episode of an environment that `replays`: its snapshot is the task and all actions so far.

    `restore` starts the task again and takes the actions again. The environment must then come to
    the same state: what is random in it follows from the task.
    """

    def __init__(self, episode: Environment) -> None:
        """Wrap a new `episode`."""
        super().__init__(episode.options, episode.max_turns, episode.shared)
        self.episode = episode
        self.stop, self.chat, self.tools = episode.stop, episode.chat, episode.tools
        self.retryable = episode.retryable
        self._task: Mapping[str, Any] = {}
        self._actions: list[Any] = []

    def check_task(self, task: Mapping[str, Any]) -> None:
        """Refuse a task on which no episode can be judged."""
        self.episode.check_task(task)

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Start on `task`."""
        self._task, self._actions = task, []
        messages = settled(self.episode.reset(task))
        self.tools = self.episode.tools
        return messages

    def step(self, action: Any) -> StepResult:
        """Take one action."""
        self._actions.append(_as_json(action))
        return settled(self.episode.step(action))

    def snapshot(self) -> dict[str, Any]:
        """Task and actions."""
        return {"task": dict(self._task), "actions": list(self._actions)}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Start again, and take the actions again."""
        self.reset(snapshot["task"])
        for action in snapshot["actions"]:
            self.step(_from_json(action))


def _as_json(action: Any) -> Any:
    return asdict(action) if is_dataclass(action) and not isinstance(action, type) else action


def _from_json(action: Any) -> Any:
    if isinstance(action, str):
        return action
    calls = tuple(ToolCall(**call) for call in action["calls"])
    return Reply(action["text"], action["thought"], calls, action["fault"])
