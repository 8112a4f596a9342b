"""Text to token ids and back. Text cannot become a control token; only the chat template writes one.

A control token begins or ends a message (`<|im_end|>`, `<|eot_id|>`). A document or a question that
quotes one would otherwise end the turn and could forge the next.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from megatron_trace.models.folders import hf_assets_dir
from megatron_trace.models.messages import Message, Tool
from megatron_trace.models.token_length import longest_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TextCodec:
    """A model's tokenizer and chat template. `encode` may be called from several threads.

    Attributes:
        control: the control tokens' texts, longest first: all special tokens, and all other added
            tokens that the chat template writes around a message. Other added tokens, such as
            `<think>` or an environment's `<information>`, are encoded as in any text.
        tokenizer: the tokenizer itself, to which a text may be a control token.
        options: what the chat template is given.
        reads_tools: the chat template has a place for the schemas of tools.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerFast", options: Mapping[str, Any] | None = None
    ) -> None:
        """`options` go to the chat template (`environment.chat_template`)."""
        self.tokenizer = tokenizer
        self.options = dict(options or {})
        self.reads_tools = bool(re.search(r"\btools\b", str(tokenizer.chat_template or "")))
        description = json.loads(tokenizer.backend_tokenizer.to_str())
        self.control = _control_tokens(description["added_tokens"], self._empty_message())
        self._plain = _copy_of(description, self.control, as_text=True)
        self._marked = _copy_of(description, self.control, as_text=False)
        self._longest_token = longest_token(description)

    def encode(self, text: str, enough: int | None = None) -> list[int]:
        """Token ids of a text, control tokens' texts as ordinary text.

        Args:
            enough: of a longer text, this number of tokens may do. A very long text is then
                not tokenized to its end.

        Raises:
            UnicodeEncodeError, TypeError: the text has a lone surrogate, or is no text.
        """
        if enough is not None and self._longest_token is not None:
            text = text[: enough * self._longest_token]
        return self._plain.encode(text, add_special_tokens=False).ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids; no token is dropped, and no space."""
        return self.tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False)

    def token_id(self, text: str) -> int | None:
        """The id of the added token, special or not, that `text` is; None if it is none."""
        return self.tokenizer.get_added_vocab().get(text)

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """Token ids of a chat that asks for an answer, by the chat template.

        Args:
            tools: what the policy may call; a template may not read them.
        """
        # A template may trim, move or repeat what a message says. So what must not become a control
        # token is replaced before, by a mark that the template takes for an ordinary word.
        mark = _absent_from([*messages, *tools])
        hidden = [self._hide(message, mark) for message in messages]
        given = {"tools": [self._hide(tool, mark) for tool in tools]} if tools else {}
        text = self._render(hidden, add_generation_prompt=True, **given, **self.options)
        return self._revealed_ids(text, mark)

    def ids_after(self, turn: str, messages: Sequence[Message]) -> list[int]:
        """Token ids of what the chat template writes after the text `turn`, where it is last.

        Args:
            messages: a chat that asks for an answer and in which an assistant says `turn`.

        Raises:
            ValueError: the template does not write `turn`.
        """
        mark = _absent_from(messages)
        hidden = [self._hide(message, mark) for message in messages]
        text = self._render(hidden, add_generation_prompt=True, **self.options)
        _, found, after = text.rpartition(turn)
        if not found:
            raise ValueError("the chat template leaves out what an assistant said")
        return self._revealed_ids(after, mark)

    def _revealed_ids(self, text: str, mark: str) -> list[int]:
        """Token ids of what the template wrote, with the control tokens' texts back in it."""
        ids: list[int] = []
        # `split` gives text and numbers in turn.
        for place, part in enumerate(re.split(f"{mark}([0-9]+){mark}", text)):
            if place % 2:
                ids += self.encode(self.control[int(part)])
            else:
                ids += self._marked.encode(part, add_special_tokens=False).ids
        return ids

    def _hide(self, value: Any, mark: str) -> Any:
        """JSON data with every control token's text in it replaced by its number."""
        if isinstance(value, str):
            for number, token in enumerate(self.control):
                value = value.replace(token, f"{mark}{number}{mark}")
            return value
        if isinstance(value, Mapping):
            return {key: self._hide(one, mark) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._hide(one, mark) for one in value]
        return value

    def _empty_message(self) -> str:
        """A message of no words, as the chat template writes it; "" without a template."""
        if not self.tokenizer.chat_template:
            return ""
        return self._render([{"role": "user", "content": ""}], add_generation_prompt=False)

    def _render(self, messages: Sequence[Message], **options: Any) -> str:
        return self.tokenizer.apply_chat_template(messages, tokenize=False, **options)


def load_codec(folder: Path | str, options: Mapping[str, Any] | None = None) -> TextCodec:
    """The tokenizer and chat template of the policy in `folder`, an HF folder or a checkpoint.

    Raises:
        OSError, ValueError: there is none, or it cannot be used.
    """
    # It takes seconds to import.
    from transformers import AutoTokenizer

    return TextCodec(AutoTokenizer.from_pretrained(hf_assets_dir(Path(folder))), options)


def _control_tokens(added: Sequence[Mapping[str, Any]], message: str) -> list[str]:
    """Texts of the control tokens, longest first.

    Args:
        added: the added tokens, as tokenizer.json describes them.
        message: an empty message, as the chat template writes it.
    """
    control = [one["content"] for one in added if one["special"] or one["content"] in message]
    # The longest first: one token's text may lie within another's.
    return sorted(control, key=len, reverse=True)


def _copy_of(description: Mapping[str, Any], control: Sequence[str], as_text: bool) -> Tokenizer:
    """The tokenizer of a tokenizer.json.

    Args:
        as_text: to it, the texts in `control` are ordinary text.
    """
    added = [one | {"special": one["content"] in control} for one in description["added_tokens"]]
    # A copy: the tokenizer in transformers is changed by its calls, which other threads would see.
    copied = {**description, "added_tokens": added, "truncation": None, "padding": None}
    tokenizer = Tokenizer.from_str(json.dumps(copied))
    # Of the added tokens this concerns those that are called special.
    tokenizer.encode_special_tokens = as_text
    return tokenizer


def _absent_from(messages: Sequence[Mapping[str, Any]]) -> str:
    """A text of private characters that is in no message."""
    # As JSON, because a message may hold lists and objects too.
    text = json.dumps(list(messages), ensure_ascii=False)
    mark = "\ue000"
    while mark in text:
        mark += "\ue000"
    return mark
