"""`ToolEnvironment`: an environment whose tools are methods. See docs/environments.md."""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from megatron_trace.config import setting
from megatron_trace.envs.awaiting import settled
from megatron_trace.envs.chat_environment import ChatEnvironment
from megatron_trace.envs.environment import StepResult
from megatron_trace.envs.schemas import arguments_fault, schema_of
from megatron_trace.envs.tool_calls import NO_CALL, Failed, LeftBehind, called, shown
from megatron_trace.models.messages import Reply, Tool, ToolCall

Method = TypeVar("Method", bound=Callable[..., Any])

MARK = "_is_tool"


def tool(method: Method) -> Method:
    """Make a method a tool. Its type hints and its docstring (with `Args:`) are its schema."""
    setattr(method, MARK, True)
    return method


class ToolEnvironment(ChatEnvironment):
    """The policy calls tools until it answers: a turn without a call is its answer.

    A subclass writes `start`, `score`, and one method for every tool, below `@tool`. A tool may be
    a coroutine; it has a loop of its own. What changes in an episode is in `self.state`, and nowhere
    else. A tool that raises, that takes too long, or whose result is huge ends nothing: the policy is
    told. What is in `retryable` is no fault of the policy, and is not told: the step is tried again,
    and then the rollout fails. TimeoutError there stands for a tool that takes too long.

    Attributes:
        task: what `start` was given. It must not be changed.
        state: plain JSON data.
        turns: turns so far, this one included.
        malformed_calls: calls so far that could not be made.
    """

    @dataclass
    class Options:
        """Limits of a call. A subclass may derive its own options from these."""

        tool_timeout_s: float = setting(
            60.0, "seconds that a call may take; then the policy is told so", above=0
        )
        tool_result_chars: int = setting(
            4_000, "a call's result is cut to this many characters", at_least=1
        )
        malformed_penalty: float = setting(
            0.0, "what each malformed call takes from the reward, down to 0", at_least=0, at_most=1
        )

    def __init__(self, options: Any, max_turns: int, shared: Any = None) -> None:
        """An episode that awaits `reset` or `restore`."""
        super().__init__(options, max_turns, shared)
        self.task: Mapping[str, Any] = {}
        self.state: dict[str, Any] = {}
        self.turns = self.malformed_calls = 0
        self._errors = 0
        self.tools = tool_schemas(type(self))  # type: ignore[arg-type]  # mypy's classes have no hash

    def start(self, task: Mapping[str, Any]) -> str | list[dict[str, Any]]:
        """Start on `task`; returns the first messages, or the user's first words."""
        raise NotImplementedError

    def score(self, answer: str) -> float | Mapping[str, float] | StepResult:
        """The reward of an answer, in [0, 1]; or its parts by name, whose sum is the reward; or the
        whole result, whose parts need not sum up to its reward.
        """
        raise NotImplementedError

    def use(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a tool. A subclass whose tools are no methods defines it, and sets `tools`."""
        return getattr(self, name)(**arguments)

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Start on `task`."""
        self.task, self.state = task, {}
        self.turns = self.malformed_calls = 0
        first = self.start(task)
        return [{"role": "user", "content": first}] if isinstance(first, str) else first

    def step(self, action: Reply) -> StepResult:
        """Make the calls of a turn, or end the episode with its answer."""
        self.turns += 1
        if action.fault:
            return StepResult("", done=True, reward=0.0, malformed=True)
        if not action.calls:
            return self._end(action.text)
        malformed_before, self._errors = self.malformed_calls, 0
        messages = [self._answer(call) for call in action.calls]
        malformed = self.malformed_calls > malformed_before
        if self.turns >= self.max_turns:
            return StepResult("", True, 0.0, malformed, tool_errors=self._errors)
        return StepResult(messages, False, 0.0, malformed, tool_errors=self._errors)

    def snapshot(self) -> dict[str, Any]:
        """Task, state and counts."""
        return {
            "task": dict(self.task),
            "state": deepcopy(self.state),
            "turns": self.turns,
            "malformed_calls": self.malformed_calls,
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continue from `snapshot`."""
        self.task, self.state = snapshot["task"], deepcopy(snapshot["state"])
        self.turns, self.malformed_calls = snapshot["turns"], snapshot["malformed_calls"]

    def _end(self, answer: str) -> StepResult:
        scored = self.score(answer)
        parts: dict[str, float] = {}
        if isinstance(scored, StepResult):
            reward, parts = scored.reward, dict(scored.parts)
        elif isinstance(scored, Mapping):
            parts = dict(scored)
            reward = sum(parts.values())
        else:
            reward = scored
        if penalty := self.options.malformed_penalty * self.malformed_calls:
            parts["malformed_penalty"] = -penalty
            reward = max(0.0, reward - penalty)
        return StepResult("", done=True, reward=reward, malformed=False, parts=parts)

    def _answer(self, call: ToolCall) -> dict[str, Any]:
        """The message that answers a call."""
        fault = call.fault or self._fault(call)
        if fault:
            self.malformed_calls += 1
            content = f"{NO_CALL}: {fault}."
        else:
            content = shown(self._result(call), self.options.tool_result_chars)
        return {"role": "tool", "content": content, "name": call.name, "tool_call_id": call.id}

    def _result(self, call: ToolCall) -> Any:
        """What a tool returned, or `Failed`."""
        # On a copy: a call that is left behind at its time limit may go on changing the state.
        episode = copy(self)
        episode.state = deepcopy(self.state)
        result = called(
            lambda: settled(episode.use(call.name, call.arguments)),
            self.options.tool_timeout_s,
        )
        if isinstance(result, Failed) and isinstance(result.error, self.retryable):
            raise result.error
        self._errors += isinstance(result, Failed)
        if not isinstance(result, LeftBehind):
            self.state = episode.state
        return result

    def _fault(self, call: ToolCall) -> str:
        """Why a call that can be read cannot be made, or ""."""
        schemas = {schema["function"]["name"]: schema["function"] for schema in self.tools}
        if call.name not in schemas:
            return f"there is no tool {json.dumps(call.name)}; there are {', '.join(schemas)}"
        return arguments_fault(call.arguments, schemas[call.name]["parameters"])


# An episode is made hundreds of times a step, and its schemas are always those of its class.
@cache
def tool_schemas(environment: type[ToolEnvironment]) -> Sequence[Tool]:
    """JSON schemas of a class's tools, in the order of their names.

    Raises:
        ValueError: a tool has no docstring, or an argument has no type or no description.
    """
    methods = [getattr(environment, name) for name in dir(environment)]
    return [schema_of(method) for method in methods if getattr(method, MARK, False)]
