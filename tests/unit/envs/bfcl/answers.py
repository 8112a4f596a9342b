"""Answers to BFCL's tasks: its ground truth, and what may go wrong in one, as replies."""

import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from megatron_trace.envs.bfcl.tasks import read_category
from megatron_trace.envs.bfcl.truth import truth_calls
from megatron_trace.envs.builtin.function_calling import FunctionCalling
from megatron_trace.models.messages import Reply, ToolCall

Call = dict[str, dict[str, Any]]
"""`{name: arguments}`, as BFCL's handlers decode it."""

Turns = list[list[list[Call]]]
"""The calls of the steps of the user's turns."""


def some(category: str, every: int) -> list[dict[str, Any]]:
    """One of `every` tasks."""
    return read_category(category)[::every]


def truth(task: dict[str, Any], together: bool = True) -> Turns:
    """The ground truth, each turn in one step or each call in one."""
    turns = [[{call.name: call.arguments} for call in calls] for calls in truth_calls(task)]
    if together:
        return [[calls] if calls else [] for calls in turns]
    return [[[call] for call in calls] for calls in turns]


def possible(task: dict[str, Any]) -> list[Call]:
    """The first possible answer of a single-turn task."""
    return [
        {name.replace(".", "_"): {key: _first(values) for key, values in options.items()
            if values and values[0] != ""} for name, options in call.items()}
        for call in task["ground_truth"]
    ]  # fmt: skip


def _first(values: list[Any]) -> Any:
    value = values[0]
    if isinstance(value, dict):
        # Within a dict every key has its own possible values.
        return {key: options[0] for key, options in value.items() if options[0] != ""}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_first([one]) for one in value]
    return value


def replies(turns: Turns) -> list[Reply]:
    """What the policy says: one reply for every step, and one that ends the user's turn."""
    said = []
    for turn in turns:
        said += [Reply("", calls=tool_calls(step)) for step in turn]
        said.append(Reply("Done."))
    return said


def tool_calls(calls: Sequence[Call]) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(name, deepcopy(arguments), f"call_{number}")
        for number, call in enumerate(calls)
        for name, arguments in call.items()
    )


def play(task: dict[str, Any], said: Sequence[Reply], **options: Any) -> Any:
    """The result of the last reply that is taken."""
    episode = FunctionCalling(FunctionCalling.Options(**options), 999)
    episode.reset(task)
    for reply in said:
        result = episode.step(reply)
        if result.done:
            return result
    raise AssertionError("the episode has not ended")


def mutated(calls: list[Call], rng: random.Random, names: Sequence[str]) -> list[Call]:
    """Calls with something wrong, or something more, that may or may not matter."""
    calls = deepcopy(calls)
    kinds: list[Callable[[list[Call], random.Random, Sequence[str]], None]]
    kinds = [_drop, _swap, _change, _retype, _rename, _forget, _repeat, _add, _unknown]
    rng.choice(kinds)(calls, rng, names)
    return calls


def _drop(calls: list[Call], rng: random.Random, names: Sequence[str]) -> None:
    if calls:
        calls.pop(rng.randrange(len(calls)))


def _swap(calls: list[Call], rng: random.Random, names: Sequence[str]) -> None:
    rng.shuffle(calls)


def _change(calls: list[Call], rng: random.Random, names: Sequence[str]) -> None:
    _put(calls, rng, lambda value: value + 1 if type(value) in (int, float) else f"{value} (x)")


def _retype(calls: list[Call], rng: random.Random, names: Sequence[str]) -> None:
    odd = [None, True, [], {}, "f (x)", 1e400, {"sort (a)": [1.5]}, "", "o'clock \"\n\\", "é\ud800"]
    _put(calls, rng, lambda value: rng.choice([*odd, str(value), [value], {"a": value}]))


def _put(calls: list[Call], rng: random.Random, change: Callable[[Any], Any]) -> None:
    places = [(values, key) for call in calls for values in call.values() for key in values]
    if places:
        values, key = rng.choice(places)
        values[key] = change(values[key])


def _rename(calls: list[Call], rng: random.Random, names: Sequence[str]) -> None:
    if calls:
        number = rng.randrange(len(calls))
        calls[number] = {rng.choice(names): next(iter(calls[number].values()))}


def _forget(calls: list[Call], rng: random.Random, names: Sequence[str]) -> None:
    places = [(values, key) for call in calls for values in call.values() for key in values]
    if places:
        values, key = rng.choice(places)
        del values[key]


def _repeat(calls: list[Call], rng: random.Random, names: Sequence[str]) -> None:
    if calls:
        calls.insert(rng.randrange(len(calls) + 1), deepcopy(rng.choice(calls)))


def _add(calls: list[Call], rng: random.Random, names: Sequence[str]) -> None:
    calls.insert(rng.randrange(len(calls) + 1), {rng.choice(names): {}})


def _unknown(calls: list[Call], rng: random.Random, names: Sequence[str]) -> None:
    wrong = {rng.choice(["fly", "a.b", "no name", "", "1"]): rng.choice([{}, {"from": 1}])}
    calls.insert(rng.randrange(len(calls) + 1), wrong)
