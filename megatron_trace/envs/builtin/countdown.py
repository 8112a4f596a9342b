"""Countdown, one operation a turn: reach a target from a few numbers (TinyZero's task, played).

    Numbers: 3 7 8 Target: 59
    <op> 7 * 8 </op>
    <numbers> 3 56 </numbers>
    <op> 56 + 3 </op>

The terminal reward is 1 when the target is among the numbers. The value of every prefix to a player
who chooses at random is known exactly (`value`), so the error of a predictor can be measured.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megatron_trace.config import setting
from megatron_trace.envs.countdown_rules import Operation, after, fault_of, random_value
from megatron_trace.envs.environment import Environment, StepResult

INSTRUCTION = (
    "Reach the target from the numbers. In each turn do one operation with two of the numbers: "
    "write <op> A + B </op>, <op> A - B </op>, <op> A * B </op> or <op> A / B </op>. The two "
    "numbers are replaced by the result, which must be a whole number above 0. You are shown the "
    "numbers that are left. You win as soon as the target is among them; you need not use all "
    "numbers.\n"
)
"""The rules, before the numbers of a task."""

FEWEST, MOST = 3, 6
"""Numbers of a task."""

LARGEST = 1_000_000
"""Of a task's numbers and target."""

_TAG = re.compile(r"</?op>")
# No number that can be reached has more digits: a product of 6 numbers of 1,000,000 has 37.
_ACTION = re.compile(r".*?<op>\s*([0-9]{1,40})\s*([-+*/])\s*([0-9]{1,40})\s*</op>\s*", re.DOTALL)


def parse(text: str) -> Operation | None:
    """The operation of a turn: a thought, then `<op> A sign B </op>`; None where there is no such.

    What comes before the last `</think>` is not looked at.
    """
    text = text.rpartition("</think>")[2]
    match = _ACTION.fullmatch(text)
    if match is None or len(_TAG.findall(text)) != 2:
        return None
    return Operation(int(match[1]), match[2], int(match[3]))


class Countdown(Environment):
    """One game. What parses but is illegal is told, and costs its turn; the numbers stay."""

    stop = ("</op>",)

    @dataclass
    class Options:
        """What the policy is told."""

        instruction: str = setting(INSTRUCTION, "text before the numbers")

    def __init__(self, options: Options, max_turns: int, shared: None = None) -> None:
        """A game that `reset` or `restore` starts."""
        super().__init__(options, max_turns, shared)
        self._task: dict[str, Any] = {}
        self._numbers: tuple[int, ...] = ()
        self._turns = self._illegal = 0

    def check_task(self, task: Mapping[str, Any]) -> None:
        """Refuse a task whose numbers or target are none.

        Raises:
            ValueError: what is wrong.
        """
        numbers, target = task.get("numbers"), task.get("target")
        if not isinstance(numbers, list) or not FEWEST <= len(numbers) <= MOST:
            raise ValueError(f"numbers must be a list of {FEWEST} to {MOST}, not {numbers!r}")
        for number in [*numbers, target]:
            # True is an int.
            if type(number) is not int or not 1 <= number <= LARGEST:
                what = f"must be whole numbers from 1 to {LARGEST:,}"
                raise ValueError(f"numbers and target {what}, not {number!r}")
        if target in numbers:
            raise ValueError(f"the target {target} is among the numbers {numbers}")

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, str]]:
        """Start on `task` (`numbers`, `target`); the prompt is one user message."""
        self._task = dict(task)
        self._numbers = tuple(sorted(task["numbers"]))
        self._turns = self._illegal = 0
        game = f"Numbers: {self._shown()} Target: {task['target']}"
        return [{"role": "user", "content": self.options.instruction + game}]

    def step(self, action: str) -> StepResult:
        """Do one operation. What does not parse ends the game, and so does the last turn."""
        self._turns += 1
        operation = parse(action)
        if operation is None:
            return self._end(won=False, malformed=True)
        fault = fault_of(operation, self._numbers)
        if fault:
            self._illegal += 1
        else:
            self._numbers = after(operation, self._numbers)
        won = self._task["target"] in self._numbers
        if won or len(self._numbers) == 1 or self._turns >= self.max_turns:
            return self._end(won, malformed=False)
        told = f" <error> {fault} </error>" if fault else ""
        observation = f"\n<numbers> {self._shown()} </numbers>{told}\n"
        return StepResult(observation, done=False, reward=0.0, malformed=False)

    def snapshot(self) -> dict[str, Any]:
        """The task, the numbers that are left, and the turns used."""
        return {
            "task": dict(self._task),
            "numbers": list(self._numbers),
            "turns": self._turns,
            "illegal": self._illegal,
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continue from `snapshot`."""
        self._task, self._numbers = dict(snapshot["task"]), tuple(snapshot["numbers"])
        self._turns, self._illegal = int(snapshot["turns"]), int(snapshot["illegal"])

    def _end(self, won: bool, malformed: bool) -> StepResult:
        parts = {"won": float(won), "illegal_operations": float(self._illegal)}
        return StepResult("", done=True, reward=float(won), malformed=malformed, parts=parts)

    def _shown(self) -> str:
        return " ".join(map(str, self._numbers))


def value(snapshot: Mapping[str, Any], max_turns: int) -> float:
    """The probability of winning from `snapshot` for a player who chooses at random.

    The player chooses uniformly among the legal operations of every turn, so never an illegal one;
    see `random_value`. The best player wins for certain where this is above 0, and never where it
    is 0.

    Args:
        snapshot: of a game that is not over, as `Countdown.snapshot` returns it.
        max_turns: `environment.max_turns`.
    """
    left = max_turns - snapshot["turns"]
    return random_value(snapshot["numbers"], snapshot["task"]["target"], left)


def best_value(snapshot: Mapping[str, Any], max_turns: int) -> float:
    """1.0 where the best player wins from `snapshot`, else 0.0; arguments as of `value`."""
    return float(value(snapshot, max_turns) > 0.0)
