"""What an environment may return. Whatever else it returns is an error of the environment."""

import json
from collections.abc import Mapping
from math import isfinite
from numbers import Real
from typing import Any

from megatron_trace.envs.environment import StepResult

ROUNDING = 1e-6
"""How far a reward may lie outside [0, 1]: sums of float32 numbers are rounded."""


class BadResult(Exception):
    """An environment returned what its contract does not allow."""


def checked_messages(messages: Any, source: str = "reset") -> list[dict[str, Any]]:
    """Chat messages that `source` returned.

    Raises:
        BadResult: they are something else.
    """
    if not isinstance(messages, (list, tuple)) or not messages:
        raise BadResult(f"{source} returned {_shown(messages)}, which is no list of messages")
    for message in messages:
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            remedy = "which has no role and content"
            raise BadResult(f"{source} returned the message {_shown(message)}, {remedy}")
        for key in ("role", "content"):
            _check_text(f"the {key} of a message", message[key])
    return [dict(message) for message in messages]


def checked_result(result: Any, chat: bool = False) -> StepResult:
    """What `step` returned, with numbers and flags of Python's own types.

    Args:
        chat: it is a `ChatEnvironment`'s. Its observation is a list of messages; a text becomes a
            message of the user.

    A reward may be a bool, an int, a float, a scalar of numpy, or an array or tensor of one number.

    Raises:
        BadResult: it is no `StepResult`, or a field is not what the contract says.
    """
    if not isinstance(result, StepResult):
        raise BadResult(f"step returned {_shown(result)}, which is no StepResult")
    done, malformed = _flag("done", result.done), _flag("malformed", result.malformed)
    reward = _reward(result.reward, done)
    parts = _parts(result.parts)
    # What follows the end is not looked at.
    observation = "" if done else _observation(result.observation, chat)
    errors = _number(result.tool_errors)
    if errors is None or not errors.is_integer() or errors < 0:
        raise BadResult(f"tool_errors is {_shown(result.tool_errors)}, which is no number of calls")
    return StepResult(observation, done, reward, malformed, parts, int(errors))


def checked_snapshot(snapshot: Any) -> dict[str, Any]:
    """A copy of what `snapshot` returned, which later steps cannot change.

    Raises:
        BadResult: it is no dict of plain JSON data.
    """
    if not isinstance(snapshot, dict):
        raise BadResult(f"snapshot returned {_shown(snapshot)}, which is no dict")
    try:
        return json.loads(json.dumps(snapshot))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadResult(f"snapshot returned what is not plain JSON data: {error}") from None


def _observation(value: Any, chat: bool) -> str | list[dict[str, Any]]:
    if not chat or isinstance(value, str):
        _check_text("the observation", value)
        return [{"role": "user", "content": value}] if chat else value
    messages = checked_messages(value, "step")
    if any(message["role"] == "assistant" for message in messages):
        raise BadResult("step returned a message of the assistant; only the policy speaks for it")
    return messages


def _parts(value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise BadResult(f"the parts are {_shown(value)}, which is no mapping of names to numbers")
    parts = {}
    for name, part in value.items():
        number = _number(part)
        if number is None or not isfinite(number):
            raise BadResult(f"the part {name} of the reward is {_shown(part)}, which is no number")
        parts[str(name)] = number
    return parts


def _reward(value: Any, done: bool) -> float:
    if not done and value is None:
        return 0.0
    number = _number(value)
    if number is None:
        raise BadResult(f"the reward is {_shown(value)}, which is no number")
    if not done and number != 0.0:
        raise BadResult(f"the reward is {number:g} before the end; only the end is rewarded")
    if not isfinite(number) or not -ROUNDING <= number <= 1.0 + ROUNDING:
        remedy = "its mean is taken for a success probability, so scale it"
        raise BadResult(f"the reward is {number:g}, which is not in [0, 1]; {remedy}")
    return min(max(number, 0.0), 1.0)


def _flag(name: str, value: Any) -> bool:
    number = _number(value)
    if number not in (0.0, 1.0):
        raise BadResult(f"{name} is {_shown(value)}, which is neither true nor false")
    return bool(number)


def _number(value: Any) -> float | None:
    """A bool, a number, a scalar of numpy, or an array or tensor of one number; None for others."""
    try:
        if not isinstance(value, Real) and hasattr(value, "item"):
            value = value.item()
        return float(value) if isinstance(value, Real) else None
    # What `item` raises where there is not one number depends on the library.
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise BadResult(f"{name} is {_shown(value)}, which is no text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadResult(f"{name} holds a lone surrogate at character {error.start}") from None


def _shown(value: Any) -> str:
    """A value in an error's line: its type, and its beginning."""
    text = " ".join(repr(value).split())
    return f"{text[:80]} ({type(value).__name__})"
