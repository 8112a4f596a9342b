"""The contract of an environment, tested by playing episodes; see docs/environments.md."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from megatron_trace.envs.awaiting import settled
from megatron_trace.envs.environment import Environment, StepResult
from megatron_trace.envs.results import BadResult, checked_messages, checked_result
from megatron_trace.models.messages import Tool

Make = Callable[[], Environment]
"""Makes an episode, as `make_environments` returns it."""

NextAction = Callable[[Environment, int], Any]
"""The action of a turn, counted from 0, for an episode."""


class Broken(AssertionError):
    """An environment breaks its contract; the message says where and how."""


def check_contract(make: Make, task: Mapping[str, Any], actions: Sequence[Any]) -> None:
    """Play `actions` on `task`, again from the task, and again from a snapshot after every turn.

    Args:
        actions: texts, or each a `Reply` for a `ChatEnvironment`. The last one ends the episode,
            and no other does.

    Raises:
        Broken: the environment breaks its contract.
    """

    def given(_: Environment, turn: int) -> Any:
        if turn == len(actions):
            raise Broken("the last action, and only that one, must end the episode")
        return actions[turn]

    results = check_episode(make, task, given)
    if len(results) < len(actions):
        raise Broken("the last action, and only that one, must end the episode")


def check_episode(make: Make, task: Mapping[str, Any], next_action: NextAction) -> list[StepResult]:
    """Play one episode, and compare it with its repetitions.

    TRACE continues a rollout from any of its turns, in a new episode of any worker. So everything
    must come again: after `reset` and the same actions, and after `restore`.

    Returns:
        What the actions brought.

    Raises:
        Broken: the environment breaks its contract.
    """
    episode = make()
    if not all(episode.stop):
        raise Broken("stop holds an empty string")
    prompt = first_messages(episode, task)
    actions: list[Any] = []
    snapshots: list[str] = []
    results: list[StepResult] = []
    while not results or not results[-1].done:
        if len(actions) >= episode.max_turns:
            raise Broken(f"no end by turn environment.max_turns = {episode.max_turns}")
        # As text: a snapshot travels between processes as JSON, and must not change with later
        # steps.
        snapshots.append(_snapshot(episode))
        actions.append(next_action(episode, len(actions)))
        results.append(_step(episode, actions[-1], f"turn {len(actions)}"))
    again = make()
    if first_messages(again, task) != prompt:
        raise Broken("a second reset gives another prompt")
    _repeat(again, actions, results, "played again from the task")
    for turn, text in enumerate(snapshots):
        _check_fork(make(), text, actions[turn:], results[turn:], f"restored after turn {turn}")
    return results


def first_messages(episode: Environment, task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Begin `episode`; returns the prompt.

    Raises:
        Broken: the prompt is none, or a tool has no description.
    """
    with _named("reset"):
        messages = checked_messages(settled(episode.reset(task)))
    for tool in episode.tools:
        _check_tool(tool)
    return messages


def _check_tool(tool: Tool) -> None:
    function = tool.get("function", {})
    if not function.get("description"):
        raise Broken(f"the tool {function.get('name')} has no description")


def _check_fork(
    fork: Environment,
    text: str,
    actions: Sequence[Any],
    results: Sequence[StepResult],
    where: str,
) -> None:
    """An episode restored from a snapshot sees what the original saw."""
    snapshot = json.loads(text)
    with _named(where):
        fork.restore(snapshot)
    if _snapshot(fork) != text:
        raise Broken(f"{where}: its snapshot after restore is another")
    _repeat(fork, actions, results, where)
    if json.dumps(snapshot, sort_keys=True) != text:
        raise Broken(f"{where}: later steps have changed a snapshot")


def _repeat(
    episode: Environment, actions: Sequence[Any], results: Sequence[StepResult], where: str
) -> None:
    for number, (action, expected) in enumerate(zip(actions, results, strict=True), start=1):
        found = _step(episode, action, f"{where}, step {number}")
        for part in ("observation", "done", "reward", "malformed"):
            before, after = getattr(expected, part), getattr(found, part)
            if before != after:
                said = f"{part} is {_short(after)} where it was {_short(before)}"
                raise Broken(f"{where}, step {number}: {said}, after the same actions")


def _step(episode: Environment, action: Any, where: str) -> StepResult:
    with _named(where):
        result = settled(episode.step(action))
        if result.done and result.observation:
            raise Broken(f"{where}: an observation after the end")
        return checked_result(result, episode.chat)


def _snapshot(episode: Environment) -> str:
    with _named("snapshot"):
        return json.dumps(episode.snapshot(), sort_keys=True)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Turn what an environment raises into `Broken`, with its place."""
    try:
        yield
    except Broken:
        raise
    except BadResult as error:
        raise Broken(f"{where}: {error}") from error
    except (Exception, SystemExit) as error:
        raise Broken(f"{where}: raises {type(error).__name__}: {error}") from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}…"
