"""Environments of the package verifiers, by id, as chats.

A task is a row of the environment's data set: `{"prompt": [{"role": "user", "content": "…"}],
"answer": "…", "example_id": 0}`; it may have `info`, and other columns that the reward reads.

A verifiers environment plays a whole rollout itself and asks a client for every turn. Here that
client is the policy: a request waits in the background until `step` brings the policy's reply. What
a request adds to the one before is the observation.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megatron_trace.config import setting
from megatron_trace.envs.chat_environment import ChatEnvironment
from megatron_trace.envs.environment import StepResult
from megatron_trace.envs.verifiers_messages import check_continues, spoken, with_names
from megatron_trace.envs.verifiers_rollout import Request, Rollout, Shared, shared_by_episodes
from megatron_trace.models.messages import Reply


class VerifiersEnv(ChatEnvironment):
    """One rollout. Its reward is the rubric's, which must be in [0, 1]; its metrics are the parts.

    A rollout's state cannot be copied, so an episode is continued by its replies. What the
    environment does must then follow from the task and from them.
    """

    replays = True

    @dataclass
    class Options:
        """Which environment, and how the policy's turns are given to it."""

        id: str = setting("", "id of the environment, as verifiers.load_environment takes it")
        arguments: dict[str, Any] = setting({}, "what load_environment is given beside the id")
        thoughts_in_text: bool = setting(
            False,
            "the environment reads thoughts in the text, between <think> tags; false: apart from "
            "the text, as reasoning_content",
        )
        turn_timeout_s: float = setting(
            600.0,
            "seconds that the environment may take until it asks for the next turn; then its "
            "rollout is cancelled",
            above=0,
        )

    def __init__(self, options: Options, max_turns: int, shared: Shared) -> None:
        """An episode that `reset` starts."""
        super().__init__(options, max_turns, shared)
        self._end: Any = lambda: None

    @classmethod
    def load(cls, options: Options) -> Shared:
        """Load the environment, and start the thread that plays its rollouts.

        Raises:
            ValueError: verifiers is not installed, or there is no such environment, or its rewards
                compare several rollouts.
        """
        return shared_by_episodes(options.id, options.arguments)

    def check_task(self, task: Mapping[str, Any]) -> None:
        """Refuse a task that is no row of an environment's data set.

        Raises:
            ValueError: what is wrong.
        """
        prompt = task.get("prompt")
        if not isinstance(prompt, list) or not prompt:
            raise ValueError(
                f"prompt must be a list of messages, not {prompt!r}; write tasks by "
                "load_environment(ID).get_dataset().to_json(FILE)"
            )

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Start the rollout; returns its first request."""
        self._end()
        self._turns, self._said = 0, []
        self._rollout = Rollout(self.shared, {"example_id": 0, **task})
        # An episode that nobody needs any more is dropped, without a call.
        self._end = weakref.finalize(self, self._rollout.cancel)
        asked = self._next()
        if not isinstance(asked, Request):
            raise ValueError("the environment ends the rollout before the policy has spoken")
        self.tools = asked.tools
        self._said = asked.messages
        return asked.messages

    def step(self, action: Reply) -> StepResult:
        """Answer the environment's request with the policy's turn."""
        self._turns += 1
        if action.fault:
            self._end()
            return StepResult("", done=True, reward=0.0, malformed=True)
        names = {tool["function"]["name"] for tool in self.tools}
        malformed = any(call.fault or call.name not in names for call in action.calls)
        message = spoken(action, self.options.thoughts_in_text)
        self._said = [*self._said, message]
        self._rollout.answer(message)
        asked = self._next()
        if not isinstance(asked, Request):
            parts = asked.get("metrics") or {}
            return StepResult("", True, asked["reward"], malformed, parts)
        if self._turns >= self.max_turns:
            self._end()
            return StepResult("", done=True, reward=0.0, malformed=malformed)
        new = asked.messages[len(self._said) :]
        self._said = asked.messages
        return StepResult(with_names(new, action), False, 0.0, malformed)

    def _next(self) -> Request | Mapping[str, Any]:
        """What the environment asks next; at the end, its output. Whatever fails ends the rollout."""
        try:
            asked = self._rollout.next(self.options.turn_timeout_s)
            if isinstance(asked, Request):
                self._check(asked)
            elif error := asked.get("error"):
                raise RuntimeError(f"the environment's rollout fails: {error['error_chain_repr']}")
            return asked
        except BaseException:
            self._end()
            raise

    def _check(self, asked: Request) -> None:
        if self._turns:
            check_continues(self._said, asked.messages)
            if asked.tools != self.tools:
                raise ValueError("the environment changes its tools within an episode")
        elif any("tool_calls" in message for message in asked.messages):
            raise ValueError("the first messages hold a tool call; only the policy calls tools")
