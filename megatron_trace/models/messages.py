"""The messages of a chat, and what the policy said in one of its turns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]
"""`role` and `content`, both texts; a tool's answer may have `name` and `tool_call_id` too."""

Tool = Mapping[str, Any]
"""A tool that the policy may call, as a JSON schema: `{"type": "function", "function": …}`."""


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool, as the policy wrote it.

    Attributes:
        name: of the tool; it need not exist.
        arguments: as the policy gave them; nobody has compared them with the tool's schema.
        id: unique in its turn.
        fault: what makes the call unreadable; "" if it can be read.
    """

    name: str
    arguments: dict[str, Any]
    id: str
    fault: str = ""


@dataclass(frozen=True)
class Reply:
    """One turn of the policy.

    Attributes:
        text: what it said beside thoughts and calls, stripped.
        thought: what it said within `<think>` or the like, stripped.
        calls: its calls of tools, in their order; malformed ones too.
        fault: what makes the whole turn unreadable, such as a thought that has no end; "" if it can
            be read.
    """

    text: str
    thought: str = ""
    calls: tuple[ToolCall, ...] = ()
    fault: str = ""
