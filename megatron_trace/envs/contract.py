"""A test of the contract of an environment, for any class; see docs/environments.md."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from megatron_trace.envs.environment import Environment, StepResult
from megatron_trace.envs.results import BadResult, checked_messages, checked_result


def check_contract(
    make: Callable[[], Environment], task: Mapping[str, Any], actions: Sequence[str]
) -> None:
    """Play `actions` on `task`, and again from a snapshot after every turn.

    Args:
        make: makes an episode, as `make_environments` returns it.
        actions: at least two. The last one ends the episode, and no other does.

    Raises:
        AssertionError: the environment breaks its contract; the message says how.
    """
    episode = make()
    _check(all(episode.stop), "stop holds an empty string")
    try:
        checked_messages(episode.reset(task))
    except BadResult as error:
        raise AssertionError(str(error)) from None
    snapshots: list[str] = []
    results: list[StepResult] = []
    for action in actions:
        # As text: a snapshot travels between processes as JSON, and must not change with later
        # steps.
        snapshots.append(json.dumps(episode.snapshot()))
        results.append(episode.step(action))
        _check_result(results[-1], last=len(results) == len(actions))
    # TRACE continues a rollout from any of its turns, in a new episode of any worker.
    for number, text in enumerate(snapshots):
        _check_fork(make(), json.loads(text), actions[number:], results[number:])


def _check_result(result: StepResult, last: bool) -> None:
    try:
        checked_result(result)
    except BadResult as error:
        raise AssertionError(str(error)) from None
    _check(result.done == last, "the last action, and only that one, must end the episode")
    _check(not (result.done and result.observation), "an observation after the end")


def _check_fork(
    fork: Environment, snapshot: Any, actions: Sequence[str], results: Sequence[StepResult]
) -> None:
    """An episode restored from a snapshot sees what the original saw."""
    before = json.dumps(snapshot)
    fork.restore(snapshot)
    _check(json.dumps(fork.snapshot()) == before, "snapshot after restore is another")
    for action, expected in zip(actions, results, strict=True):
        found = fork.step(action)
        _check(found == expected, f"a restored episode gives {found} instead of {expected}")
    _check(json.dumps(snapshot) == before, "later steps have changed a snapshot")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
