"""Sums with a calculator: an environment in one file, with a tool and a setting.

A task is `{"id": …, "question": "What is 12 * 7 + 5 ?", "answer": 89}`. A turn calls the calculator
with `<calc> 12 * 7 </calc>`, or ends the episode with `<answer> 89 </answer>`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import add, mul, sub
from typing import Any

from megatron_trace.config import setting
from megatron_trace.envs import Environment, StepResult

ACTION = re.compile(r".*?<(calc|answer)>(.*?)</\1>\s*", re.DOTALL)
OPERATION = re.compile(r"\s*(-?\d+)\s*([-+*])\s*(-?\d+)\s*")
OPERATORS = {"+": add, "-": sub, "*": mul}
MALFORMED = StepResult("", done=True, reward=0.0, malformed=True)


class Calculator(Environment):
    """One sum. The calculator takes one operation on two integers."""

    stop = ("</calc>", "</answer>")

    @dataclass
    class Options:
        """Set as `environment.options.calculator.digits=6`."""

        digits: int = setting(9, "the calculator refuses longer numbers", at_least=1)

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, str]]:
        """The prompt is the question."""
        self.restore({"task": dict(task), "turns": 0})
        return [{"role": "user", "content": task["question"]}]

    def step(self, action: str) -> StepResult:
        """Calculate or answer. A malformed action ends the episode; so does a last turn without
        answer.
        """
        self.turns += 1
        parsed = ACTION.fullmatch(action)
        if parsed is None:
            return MALFORMED
        if parsed[1] == "answer":
            right = parsed[2].strip() == str(self.task["answer"])
            return StepResult("", done=True, reward=float(right), malformed=False)
        if self.turns >= self.max_turns:
            return StepResult("", done=True, reward=0.0, malformed=False)
        observation = f"\n<result> {self.calculate(parsed[2])} </result>\n"
        return StepResult(observation, done=False, reward=0.0, malformed=False)

    def calculate(self, text: str) -> str:
        """The result of one operation, or "error"."""
        operation = OPERATION.fullmatch(text)
        if operation is None or max(len(operation[1]), len(operation[3])) > self.options.digits:
            return "error"
        return str(OPERATORS[operation[2]](int(operation[1]), int(operation[3])))

    def snapshot(self) -> dict[str, Any]:
        """The task and the turns used."""
        return {"task": dict(self.task), "turns": self.turns}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continue from `snapshot`."""
        self.task, self.turns = dict(snapshot["task"]), snapshot["turns"]
