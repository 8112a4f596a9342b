"""Any Gymnasium environment whose observations are texts, as a chat.

A task is `{"seed": 3}`; it may have `arguments` of `gymnasium.make` and `options` of `reset` of its
own. The policy's text is the action: as it is for a text space, the number in it for a discrete one.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megatron_trace.config import setting
from megatron_trace.envs.chat_environment import ChatEnvironment
from megatron_trace.envs.environment import StepResult
from megatron_trace.models.messages import Reply


class GymnasiumText(ChatEnvironment):
    """One episode. Its reward is the sum of the environment's own rewards, which must be in [0, 1].

    Gymnasium has no way to copy a state, so an episode is continued by its actions. The environment
    must then follow from `seed`.
    """

    replays = True

    @dataclass
    class Options:
        """Which environment, and what the policy is told before it begins."""

        id: str = setting("", "id of the environment, as gymnasium.make takes it: MODULE:ID")
        arguments: dict[str, Any] = setting({}, "what gymnasium.make is given beside the id")
        instruction: str = setting("", "the system message; empty: none")

    @classmethod
    def load(cls, options: Options) -> Any:
        """The function `gymnasium.make`, after one environment has been made.

        Raises:
            ValueError: gymnasium is not installed, or there is no such environment, or its actions
                are neither texts nor discrete.
        """
        try:
            import gymnasium
        except ImportError:
            raise ValueError("it needs gymnasium: pip install gymnasium") from None
        try:
            made = gymnasium.make(options.id, **options.arguments)
        except Exception as error:
            raise ValueError(f"gymnasium.make({options.id!r}) fails: {error}") from None
        space = made.action_space
        if not isinstance(space, gymnasium.spaces.Text | gymnasium.spaces.Discrete):
            raise ValueError(f"the actions of {options.id} are neither texts nor discrete: {space}")
        made.close()
        return gymnasium.make

    def check_task(self, task: Mapping[str, Any]) -> None:
        """Refuse a task without a seed.

        Raises:
            ValueError: what is wrong.
        """
        seed = task.get("seed")
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"seed must be a whole number from 0 on, not {seed!r}")

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Make the environment and reset it with the task's seed."""
        arguments = self.options.arguments | task.get("arguments", {})
        self._environment = self.shared(self.options.id, **arguments)
        self._turns, self._reward = 0, 0.0
        observation, _ = self._environment.reset(seed=task["seed"], options=task.get("options"))
        first = [{"role": "user", "content": _text(observation)}]
        if self.options.instruction:
            return [{"role": "system", "content": self.options.instruction}, *first]
        return first

    def step(self, action: Reply) -> StepResult:
        """Take the action that the policy's text says."""
        self._turns += 1
        last = self._turns >= self.max_turns
        chosen = self._action(action.text)
        if chosen is None:
            if last:
                return StepResult("", done=True, reward=self._reward, malformed=True)
            told = f"Error: no such action. The actions: {self._environment.action_space}."
            return StepResult(told, done=False, reward=0.0, malformed=True)
        observation, reward, terminated, truncated, _ = self._environment.step(chosen)
        self._reward += float(reward)
        if terminated or truncated or last:
            return StepResult("", done=True, reward=self._reward, malformed=False)
        return StepResult(_text(observation), done=False, reward=0.0, malformed=False)

    def _action(self, text: str) -> Any:
        """The action in a text; None if there is none."""
        space = self._environment.action_space
        if not hasattr(space, "n"):
            return text if space.contains(text) else None
        numbers = re.findall(r"-?\d+", text)
        chosen = int(numbers[-1]) if numbers else None
        return chosen if chosen is not None and space.contains(chosen) else None


def _text(observation: Any) -> str:
    if isinstance(observation, str):
        return observation
    plain = observation.tolist() if hasattr(observation, "tolist") else observation
    try:
        return json.dumps(plain)
    except (TypeError, ValueError):
        return str(plain)
