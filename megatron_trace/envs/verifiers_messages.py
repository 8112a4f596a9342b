"""Messages between the policy and an environment of the package verifiers."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from megatron_trace.models.messages import Message, Reply, Tool

MESSAGE_KEYS = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name")
"""What of a message is kept, and compared with the request before."""


def spoken(reply: Reply, thoughts_in_text: bool) -> dict[str, Any]:
    """The policy's turn as a message of verifiers, in the form of `plain`."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.thought and thoughts_in_text:
        message["content"] = f"<think>\n{reply.thought}\n</think>\n\n{reply.text}"
    elif reply.thought:
        message["reasoning_content"] = reply.thought
    if reply.calls:
        # Arguments that cannot be read are no JSON here either: the environment says so.
        message["tool_calls"] = [
            {
                "id": call.id,
                "name": call.name,
                "arguments": "" if call.fault else json.dumps(call.arguments),
            }
            for call in reply.calls
        ]
    return message


def plain(message: Any) -> dict[str, Any]:
    """A message of verifiers as a dict of `MESSAGE_KEYS`, without those that are empty.

    Raises:
        ValueError: it is none of a chat, or it is not all text.
    """
    given = message if isinstance(message, Mapping) else message.model_dump()
    if given["role"] not in ("system", "user", "assistant", "tool"):
        raise ValueError(f"the environment is no chat: a message has the role {given['role']!r}")
    kept = {key: given[key] for key in MESSAGE_KEYS if given.get(key)}
    return {**kept, "content": _text(given.get("content"))}


def schema(tool: Any) -> Tool:
    """The JSON schema of a `verifiers.types.Tool`."""
    function = {
        "name": tool.name,
        "description": tool.description or tool.name,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}


def check_continues(said: Sequence[Message], asked: Sequence[Message]) -> None:
    """Refuse a request that is not what was said, and more.

    Args:
        said: the messages of the request before, and the policy's reply.
        asked: the messages of this request.

    Raises:
        ValueError: the first message that was changed, or that there is no new one.
    """
    for number, message in enumerate(said):
        now = asked[number] if number < len(asked) else None
        if now != message:
            raise ValueError(
                f"the environment rewrites earlier messages: message {number + 1} was "
                f"{_short(message)}, and is {_short(now)}; the policy learns from what it has seen"
            )
    if len(asked) == len(said):
        raise ValueError("the environment asks for another turn without a new message")


def with_names(messages: Sequence[Message], reply: Reply) -> list[dict[str, Any]]:
    """Messages with the names of the tools that they answer, which some families write."""
    names = {call.id: call.name for call in reply.calls}
    return [
        {**message, "name": names[message["tool_call_id"]]}
        if message.get("tool_call_id") in names
        else dict(message)
        for message in messages
    ]


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    kinds = {part["type"] for part in content} - {"text"}
    if kinds:
        raise ValueError(f"a message of the environment holds {kinds.pop()}, which is no text")
    return "".join(part["text"] for part in content)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
