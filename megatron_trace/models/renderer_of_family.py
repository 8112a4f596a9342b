"""A family's rules from the package `renderers`, on our tokenizer: text never becomes a control token."""

from collections.abc import Iterator, Sequence
from typing import Any

from megatron_trace.models.chat import TextCodec
from megatron_trace.models.messages import Message, Reply, Tool, ToolCall

FAMILIES = ("qwen3", "llama-3", "deepseek-r1", "prime-qwen3")
"""Families that "auto" tries: those of the architectures that can be trained."""

FAULTS = {
    "invalid_json": "its body is no JSON object",
    "unclosed_block": "it has no end",
    "missing_name": "it names no tool",
    "malformed_structure": "it is not written as this model writes calls",
    "unknown_tool": "there is no tool of this name",
}
"""What the package calls a malformed call -> what the policy is told."""


class FamilyRenderer:
    """One family; see `renderer.Renderer`."""

    def __init__(self, name: str, codec: TextCodec) -> None:
        """
        Args:
            name: as the package calls the family, such as "qwen3" or "llama-3".

        Raises:
            ValueError: there is no such family, or it cannot use this tokenizer or what its chat
                template is given.
        """
        # It takes seconds to import, and only conversations need it.
        from renderers import create_renderer
        from renderers.configs import config_from_name

        try:
            default = config_from_name(name)
        except ValueError:
            some = ", ".join(FAMILIES)
            raise ValueError(
                f"no such family; set auto, template, {some}, or another of the package renderers"
            ) from None
        try:
            # Thoughts stay in the history, as everything that was sampled does.
            config = type(default)(thinking_retention="all")
            self._renderer = create_renderer(
                _PlainTokenizer(codec), config, chat_template_kwargs=codec.options
            )
        # An assert where the tokenizer lacks a control token, a ValueError for an option.
        except (AssertionError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(" ".join(str(error).split())[:300]) from None
        self.name = name
        self.stop_ids = list(self._renderer.get_stop_token_ids())

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """Token ids of the first messages, up to where the policy begins to speak."""
        return self._renderer.render_ids(
            list(messages), tools=list(tools) or None, add_generation_prompt=True
        )

    def reply(self, prompt_ids: list[int], sampled_ids: list[int]) -> Reply:
        """What the sampled token ids say."""
        parsed = self._renderer.parse_response(sampled_ids, prompt_ids=prompt_ids)
        return Reply(
            text=(parsed.content or "").strip(),
            thought=(parsed.reasoning_content or "").strip(),
            calls=tuple(_call(number, one) for number, one in enumerate(parsed.tool_calls)),
            fault="the thought has no end" if parsed.reasoning_complete is False else "",
        )

    def next_ids(
        self, prompt_ids: list[int], sampled_ids: list[int], messages: Sequence[Message]
    ) -> list[int] | None:
        """Token ids of what follows the sampled ones; None if nothing can follow."""
        rendered = self._renderer.bridge_to_next_turn(prompt_ids, sampled_ids, list(messages))
        known = len(prompt_ids) + len(sampled_ids)
        if rendered is None or rendered.token_ids[:known] != prompt_ids + sampled_ids:
            return None
        return rendered.token_ids[known:]


def family_renderers(codec: TextCodec) -> Iterator[FamilyRenderer]:
    """A renderer of every one of `FAMILIES` whose control tokens the tokenizer has."""
    for name in FAMILIES:
        try:
            yield FamilyRenderer(name, codec)
        except ValueError:
            continue


def _call(number: int, parsed: Any) -> ToolCall:
    """A call as the package parsed it; what it leaves open is a fault."""
    name, arguments = parsed.name, parsed.arguments
    fault = FAULTS.get(str(parsed.status), "")
    if not isinstance(name, str) or not name:
        name, fault = "", fault or FAULTS["missing_name"]
    # A call without arguments may have none at all.
    if arguments is None and not fault:
        arguments = {}
    if not isinstance(arguments, dict):
        fault = fault or "its arguments are no JSON object"
        arguments = {}
    return ToolCall(name, arguments, parsed.id or f"call_{number}", fault)


class _PlainTokenizer:
    """A tokenizer as the package wants it, to which no text is a control token."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec, self._tokenizer = codec, codec.tokenizer
        self.name_or_path = self._tokenizer.name_or_path
        self.unk_token_id = self._tokenizer.unk_token_id
        self.eos_token_id = self._tokenizer.eos_token_id
        self.bos_token_id = self._tokenizer.bos_token_id
        self.all_special_ids = self._tokenizer.all_special_ids

    def encode(self, text: str, *_: Any, **__: Any) -> list[int]:
        return self._codec.encode(text)

    def decode(self, token_ids: Any, *_: Any, **options: Any) -> str:
        return self._tokenizer.decode(token_ids, **options)

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        return self._tokenizer.convert_tokens_to_ids(tokens)
