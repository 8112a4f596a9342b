"""The contract test that the author of an environment runs:

    python -m megatron_trace.envs.check examples/environment/shop.py \\
        --tasks examples/environment/tasks.jsonl

Random episodes are played on some tasks; see `contract.check_episode`. It exits with 1 if something
breaks the contract, and says what.
"""

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from megatron_trace.config import EnvironmentConfig, SettingError
from megatron_trace.config.plugins import option_name
from megatron_trace.envs.contract import Broken, Make, check_episode, first_messages
from megatron_trace.envs.environment import Environment, StepResult
from megatron_trace.envs.random_actions import random_action
from megatron_trace.envs.registry import make_environments
from megatron_trace.envs.tool_calls import ERROR, NO_CALL
from megatron_trace.files.problems import BadData
from megatron_trace.files.rows import load_rows
from megatron_trace.models.messages import Reply

BLOCKED_S = 0.5
"""Seconds without a turn for other threads, after which an episode is said to block them."""

ANSWER_KEYS = ("answer", "answers", "golden_answers", "solution")
"""Names that data sets give to a task's answer."""


@dataclass
class Findings:
    """What the episodes showed.

    Attributes:
        episodes, steps, malformed: how many there were.
        blocked_s: the longest time in which an episode kept all other threads from running.
        answers_shown: tasks whose prompt holds their answer.
        calls: calls of each tool, by its name.
        failures: tool -> what its failed calls told the policy.
    """

    episodes: int = 0
    steps: int = 0
    malformed: int = 0
    blocked_s: float = 0.0
    answers_shown: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    failures: dict[str, list[str]] = field(default_factory=dict)

    def count_calls(self, result: StepResult) -> None:
        """Count the calls of tools that a turn's messages answer."""
        if isinstance(result.observation, str):
            return
        for message in result.observation:
            name, told = str(message.get("name")), str(message["content"])
            if message["role"] != "tool" or told.startswith(NO_CALL):
                continue
            self.calls[name] += 1
            if result.tool_errors and told.startswith(ERROR):
                self.failures.setdefault(name, []).append(told)


def check_environment(
    make: Make, tasks: Sequence[Mapping[str, Any]], episodes: int, given: Sequence[str] = ()
) -> Findings:
    """Play random episodes of every task.

    Args:
        episodes: on each task.
        given: texts of turns with which each episode begins; further turns are random.

    Raises:
        Broken: the environment breaks its contract.
        ValueError: it refuses a task.
    """
    found = Findings()
    for task in tasks:
        try:
            episode = make()
            episode.check_task(task)
            if _shows_answer(first_messages(episode, task), task):
                found.answers_shown.append(str(task.get("id")))
            for number in range(episodes):
                results, blocked_s = watched(partial(_play, make, task, number, given))
                found.episodes += 1
                found.steps += len(results)
                found.malformed += sum(result.malformed for result in results)
                for result in results:
                    found.count_calls(result)
                found.blocked_s = max(found.blocked_s, blocked_s)
        except Broken as error:
            raise Broken(f"task {task.get('id')}: {error}") from error
    return found


def _play(
    make: Make, task: Mapping[str, Any], number: int, given: Sequence[str]
) -> list[StepResult]:
    rng = random.Random(f"{task.get('id')}/{number}")

    def next_action(episode: Environment, turn: int) -> Any:
        if turn < len(given):
            return Reply(given[turn]) if episode.chat else given[turn]
        # A turn that calls no tool ends a chat. Half of these answers are right.
        if episode.chat and (not episode.tools or rng.random() < 0.3):
            answers = _answers(task)
            return Reply(str(answers[0]) if answers and rng.random() < 0.5 else "x")
        return random_action(episode, task, rng)

    return check_episode(make, task, next_action)


def watched(play: Callable[[], Any]) -> tuple[Any, float]:
    """What `play` returns, and the longest time, in seconds, in which no other thread could run."""
    over = threading.Event()
    gaps: list[float] = []
    begun = time.monotonic()

    def tick() -> None:
        last, ended = begun, False
        while not ended:
            ended = over.wait(0.005)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        result = play()
    finally:
        over.set()
        ticking.join()
    # Only now: the thread may have had no turn since `play` gave it none.
    return result, max(gaps)


def _answers(task: Mapping[str, Any]) -> list[Any]:
    for key in ANSWER_KEYS:
        if key in task:
            value = task[key]
            return list(value) if isinstance(value, list) else [value]
    return []


def _shows_answer(prompt: Sequence[Mapping[str, Any]], task: Mapping[str, Any]) -> bool:
    said = " ".join(str(message["content"]) for message in prompt)
    # One or two characters are in every text.
    return any(len(str(answer)) > 2 and str(answer) in said for answer in _answers(task))


def main(argv: Sequence[str] | None = None) -> int:
    """Check the environment that the command line names."""
    args = _arguments(argv)
    try:
        make = make_environments(_settings(args.environment, args.option, args.max_turns))
        rows = load_rows(args.tasks)[: args.most]
        tasks = [{"id": row.place, **row.content} for row in rows]
        found = check_environment(make, tasks, args.episodes, args.action)
    except (SettingError, BadData, FileNotFoundError, ValueError, Broken) as error:
        print(f"broken: {error}", file=sys.stderr)
        return 1
    print(f"kept: {found.episodes} random episodes of {len(tasks)} tasks, {found.steps} turns")
    print(f"malformed turns: {found.malformed}, which are made on purpose")
    for name, count in sorted(found.calls.items()):
        failed = found.failures.get(name, [])
        first = f"; the first was told: {failed[0]}" if failed else ""
        print(f"calls of {name} with random arguments: {count}, {len(failed)} failed{first}")
        if len(failed) == count:
            print(f"warning: no call of {name} brought a result")
    if found.blocked_s > BLOCKED_S:
        print(
            f"warning: an episode kept all other threads of its worker from running for "
            f"{found.blocked_s:.1f} s; let it wait in Python's own calls, or in another process"
        )
    if found.answers_shown:
        some = ", ".join(found.answers_shown[:3])
        print(f"warning: {len(found.answers_shown)} prompts hold their task's answer: {some}")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m megatron_trace.envs.check",
        description="Play random episodes of an environment and test its contract.",
    )
    parser.add_argument("environment", help="name of an environment, or FILE.py")
    parser.add_argument("--tasks", required=True, help="tasks, as data.train takes them")
    parser.add_argument("--most", type=int, default=20, help="tasks that are played (%(default)s)")
    parser.add_argument(
        "--episodes", type=int, default=3, help="random episodes of each task (%(default)s)"
    )
    parser.add_argument(
        "--max-turns", type=int, default=6, help="environment.max_turns (%(default)s)"
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="one of its options"
    )
    parser.add_argument(
        "--action", action="append", default=[], help="text of a turn; every episode begins so"
    )
    return parser.parse_args(argv)


def _settings(name: str, options: Sequence[str], max_turns: int) -> EnvironmentConfig:
    from omegaconf import OmegaConf

    given = OmegaConf.to_container(OmegaConf.from_dotlist(list(options)))
    return EnvironmentConfig(name, max_turns, {option_name(name): given})


if __name__ == "__main__":
    sys.exit(main())
