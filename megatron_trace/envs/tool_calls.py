"""A call of a tool, whatever the tool does: its result or its failure becomes a text."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from megatron_trace.envs.schemas import as_text

ERROR = "Error: "
"""Begins what is told of a call that brought no result."""

NO_CALL = f"{ERROR}this call cannot be made"
"""Begins what is told of a malformed call."""

ERROR_CHARS = 300
"""Of an exception's message this much is told."""


@dataclass(frozen=True)
class Failed:
    """A call that brought no result.

    Attributes:
        why: for the policy.
        error: what was raised.
    """

    why: str
    error: BaseException


class LeftBehind(Failed):
    """A call that took too long; it may still run."""


def called(call: Callable[[], Any], limit_s: float) -> Any:
    """What `call` returns, or `Failed`.

    It runs in a thread of its own. No thread can be ended from outside: one that takes longer than
    `limit_s` seconds is left behind, and nobody looks at its result.
    """
    outcome: list[Any] = []

    def run() -> None:
        # SystemExit too: a tool must not end the worker.
        try:
            outcome.append(call())
        except BaseException as error:
            text = " ".join(str(error).split())[:ERROR_CHARS]
            name = type(error).__name__
            outcome.append(Failed(f"{name}: {text}" if text else name, error))

    thread = threading.Thread(target=run, name="tool", daemon=True)
    thread.start()
    thread.join(limit_s)
    # A result that comes in this moment may count; one that is not there cannot.
    if outcome:
        return outcome[0]
    why = f"no result within {limit_s:g} seconds"
    return LeftBehind(why, TimeoutError(why))


def shown(result: Any, most_chars: int) -> str:
    """A result as the policy reads it; a failure and an empty result are said in words."""
    if isinstance(result, Failed):
        return f"{ERROR}{result.why}."
    if isinstance(result, bytes | bytearray | memoryview):
        return f"{ERROR}the result is {len(result):,} bytes of binary data, which is no text."
    # A lone surrogate is no text that a tokenizer takes.
    text = as_text(result).encode(errors="replace").decode()
    if result is None or not text.strip():
        return "The call returned nothing."
    if len(text) > most_chars:
        return f"{text[:most_chars]}\n[cut: {most_chars:,} of {len(text):,} characters]"
    return text
