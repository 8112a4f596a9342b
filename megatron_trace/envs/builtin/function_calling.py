"""Function calling as in the Berkeley leaderboard, BFCL v4. See docs/environments/function_calling.md.

The policy calls functions of simulated APIs, over several turns of the user. The reward is 1 where
BFCL's own checker accepts the calls, else 0.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from megatron_trace.config import setting
from megatron_trace.envs.bfcl import package
from megatron_trace.envs.bfcl.calls import call_text
from megatron_trace.envs.bfcl.schemas import tools_of
from megatron_trace.envs.bfcl.scores import is_right, turns_right
from megatron_trace.envs.bfcl.simulation import Simulation
from megatron_trace.envs.bfcl.tasks import added_docs, check_shape, docs_at_first, is_multi_turn
from megatron_trace.envs.chat_environment import ChatEnvironment
from megatron_trace.envs.environment import StepResult
from megatron_trace.envs.tool_calls import shown
from megatron_trace.models.messages import Reply, ToolCall


class FunctionCalling(ChatEnvironment):
    """One task. A reply without a call ends the user's turn; the last one ends the episode.

    All that happened is in the calls that were made. So a snapshot is the task and these calls, and
    the APIs of a restored episode make them again before the next one.
    """

    @dataclass
    class Options:
        """What the reward counts, and what the policy sees."""

        partial: bool = setting(
            False,
            "the reward of several turns is the share of them that are right, from the first on",
        )
        result_chars: int = setting(
            40_000,
            "a call's result is cut to this many characters; no result of the data has more",
            at_least=1,
        )

    def __init__(self, options: Options, max_turns: int, shared: Any = None) -> None:
        """An episode that awaits `reset` or `restore`."""
        super().__init__(options, max_turns, shared)
        self._task: Mapping[str, Any] = {}
        self._answers: list[list[list[str]]] = []
        self._taken = 0
        self._simulation: Simulation | None = None

    @classmethod
    def load(cls, options: Options) -> None:
        """Import BFCL's checkers, before threads use them.

        Raises:
            NotInstalled: the package bfcl-eval is missing.
        """
        package.require()
        package.ast_checker()

    @classmethod
    def reads(cls, options: Options) -> Mapping[str, str]:
        """The version of the package: its APIs answer the calls, and its checkers judge them.

        Raises:
            NotInstalled: the package bfcl-eval is missing.
        """
        return {package.NAME: package.version()}

    def check_task(self, task: Mapping[str, Any]) -> None:
        """Refuse a task that cannot be judged, or whose own ground truth BFCL does not accept.

        Raises:
            ValueError: what is wrong.
        """
        check_shape(task)
        if is_multi_turn(task):
            right = turns_right(task, [[turn] if turn else [] for turn in task["ground_truth"]])
            if right < len(task["ground_truth"]):
                raise ValueError(f"BFCL does not accept its own ground_truth at turn {right}")

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Start on a task of `tools/build_bfcl.py`; the prompt is the user's first turn."""
        self.restore({"task": task, "answers": [[]], "taken": 0})
        self.tools = tools_of(docs_at_first(task))
        return self._user_messages()

    def step(self, action: Reply) -> StepResult:
        """Make the calls of a reply, or go on to the user's next turn."""
        self._taken += 1
        malformed = bool(action.fault) or any(_fault(call) for call in action.calls)
        # Calls that cannot be read are no calls to BFCL's handlers.
        calls = [call for call in action.calls if not _fault(call)]
        if action.fault:
            return self._end(malformed, whole=False)
        if not is_multi_turn(self._task):
            reward = float(is_right(self._task, calls))
            return StepResult("", True, reward, malformed, {"turns_right": reward})
        if not calls:
            return self._next_turn(malformed)
        messages = [self._answer(call) for call in action.calls]
        steps = self._answers[-1]
        steps.append([call_text(call.name, call.arguments) for call in calls])
        if len(steps) > package.most_steps():
            # BFCL stops here, and judges what there is if this was the last turn.
            return self._end(malformed, whole=len(self._answers) == len(self._task["question"]))
        return self._observed(messages, malformed)

    def snapshot(self) -> dict[str, Any]:
        """The task, the calls so far, and the number of replies."""
        return {
            "task": dict(self._task),
            "answers": deepcopy(self._answers),
            "taken": self._taken,
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continue from `snapshot`. The calls are made again when the next call is."""
        self._task, self._taken = snapshot["task"], snapshot["taken"]
        self._answers = deepcopy(snapshot["answers"])
        self._simulation = None

    def _next_turn(self, malformed: bool) -> StepResult:
        if len(self._answers) == len(self._task["question"]):
            return self._end(malformed, whole=True)
        self._answers.append([])
        return self._observed(self._user_messages(), malformed)

    def _observed(self, messages: list[dict[str, Any]], malformed: bool) -> StepResult:
        if self._taken >= self.max_turns:
            return self._end(malformed, whole=False)
        return StepResult(messages, done=False, reward=0.0, malformed=malformed)

    def _end(self, malformed: bool, whole: bool) -> StepResult:
        """The end. Where it is not the `whole` task, the turn that was cut off is not right."""
        if not is_multi_turn(self._task):
            return StepResult("", True, 0.0, malformed, {"turns_right": 0.0})
        right = turns_right(self._task, self._answers)
        if not whole:
            right = min(right, len(self._answers) - 1)
        share = right / len(self._task["ground_truth"])
        reward = share if self.options.partial else float(share == 1.0)
        return StepResult("", True, reward, malformed, {"turns_right": share})

    def _user_messages(self) -> list[dict[str, Any]]:
        """What the user says in the turn that begins, functions that are added with it included."""
        turn = len(self._answers) - 1
        added = added_docs(self._task, turn)
        if not added:
            return [dict(message) for message in self._task["question"][turn]]
        # The tools of a prompt cannot change. BFCL tells models without tools in the same way.
        told = json.dumps(tools_of(added), ensure_ascii=False)
        return [{"role": "user", "content": f"{told}\n{package.more_functions_words()}"}]

    def _answer(self, call: ToolCall) -> dict[str, Any]:
        """The message that answers a call."""
        if fault := _fault(call):
            content = f"Error: this call cannot be made: {fault}."
        else:
            result = self._apis().call(call_text(call.name, call.arguments))
            content = shown(result, self.options.result_chars)
        return {"role": "tool", "content": content, "name": call.name, "tool_call_id": call.id}

    def _apis(self) -> Simulation:
        """The APIs, after all calls so far."""
        if self._simulation is None:
            self._simulation = Simulation(self._task, package.POLICY)
            for steps in self._answers:
                for calls in steps:
                    for text in calls:
                        self._simulation.call(text)
        return self._simulation


def _fault(call: ToolCall) -> str:
    """Why a call cannot be read, or ""."""
    if call.fault:
        return call.fault
    try:
        call_text(call.name, call.arguments)
    except ValueError as error:
        return str(error)
    return ""
