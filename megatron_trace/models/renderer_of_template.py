"""A conversation by the model's own chat template, for families without rules of their own.

A template renders whole conversations. What follows a turn is found by rendering a conversation in
which a mark stands for that turn: the text after the mark is the turn's end, the new messages, and
the beginning of the next turn.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from megatron_trace.models.chat import TextCodec
from megatron_trace.models.messages import Message, Reply, Tool, ToolCall

TURN = "the turn goes here"
"""Stands for a turn of the policy; a template takes it for ordinary words."""

CALL = re.compile(r"<tool_call>(.*?)(</tool_call>|$)", re.DOTALL)
THOUGHT = re.compile(r"\s*<think>(.*?)(</think>|$)", re.DOTALL)

TOOLS_TEXT = (
    "You may call tools. Their signatures, one JSON object a line:\n<tools>\n{tools}\n</tools>\n"
    "To call a tool, write its name and its arguments as one JSON object between tags, such as\n"
    '<tool_call>\n{{"name": "TOOL", "arguments": {{"ARGUMENT": "VALUE"}}}}\n</tool_call>'
)
"""What a policy is told about its tools if its template has no place for them."""


class TemplateRenderer:
    """The model's own chat template; see `renderer.Renderer`.

    Tool calls are read as JSON between `<tool_call>` tags, thoughts between `<think>` tags.
    """

    name = "template"

    def __init__(self, codec: TextCodec) -> None:
        """
        Raises:
            ValueError: the template does not end a turn with a control token.
        """
        self._codec, self.reads_tools = codec, codec.reads_tools
        end = self._after_turn([{"role": "user", "content": "x"}])
        if not end or codec.decode(end[:1]) not in codec.control:
            raise ValueError("the chat template ends no turn with a control token")
        self.stop_ids = end[:1]

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """Token ids of the first messages, up to where the policy begins to speak."""
        if tools and not self.reads_tools:
            return self._codec.prompt_ids(_with_tools(messages, tools))
        return self._codec.prompt_ids(messages, tools)

    def reply(self, prompt_ids: list[int], sampled_ids: list[int]) -> Reply:
        """What the sampled token ids say."""
        if sampled_ids[-1:] == self.stop_ids:
            sampled_ids = sampled_ids[:-1]
        text = self._codec.decode(sampled_ids)
        thought, fault = "", ""
        if match := THOUGHT.match(text):
            thought, text = match[1].strip(), text[match.end() :]
            fault = "" if match[2] else "the thought has no end"
        calls = [_call(number, match) for number, match in enumerate(CALL.finditer(text))]
        return Reply(CALL.sub("", text).strip(), thought, tuple(calls), fault)

    def next_ids(
        self, prompt_ids: list[int], sampled_ids: list[int], messages: Sequence[Message]
    ) -> list[int] | None:
        """Token ids of what follows the sampled ones."""
        ids = self._after_turn(messages)
        return ids[1:] if sampled_ids[-1:] == self.stop_ids else ids

    def _after_turn(self, messages: Sequence[Message]) -> list[int]:
        before = [{"role": "user", "content": "x"}, {"role": "assistant", "content": TURN}]
        return self._codec.ids_after(TURN, [*before, *messages])


def _with_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """The messages with the tools told in the system message."""
    text = TOOLS_TEXT.format(tools="\n".join(json.dumps(tool) for tool in tools))
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _call(number: int, match: re.Match[str]) -> ToolCall:
    id = f"call_{number}"
    if not match[2]:
        return ToolCall("", {}, id, "it has no end")
    try:
        content: Any = json.loads(match[1])
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return ToolCall("", {}, id, "its body is no JSON object")
    name, arguments = content.get("name"), content.get("arguments") or {}
    if not isinstance(name, str) or not name:
        return ToolCall("", {}, id, "it names no tool")
    if not isinstance(arguments, dict):
        return ToolCall(name, {}, id, "its arguments are no JSON object")
    return ToolCall(name, arguments, id)
