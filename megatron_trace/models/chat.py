"""Text to token ids and back. Text cannot become a control token; only the chat template writes one.

A control token begins or ends a message (`<|im_end|>`, `<|eot_id|>`). A document or a question that
quotes one would otherwise end the turn and could forge the next.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from megatron_trace.models.token_length import longest_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Message = Mapping[str, str]


class TextCodec:
    """A model's tokenizer and chat template. `encode` may be called from several threads.

    Attributes:
        control: the control tokens' texts, longest first: all special tokens, and all other added
            tokens that the chat template writes around a message. Other added tokens, such as
            `<think>` or an environment's `<information>`, are encoded as in any text.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerFast", options: Mapping[str, Any] | None = None
    ) -> None:
        """`options` go to the chat template (`environment.chat_template`)."""
        self._tokenizer = tokenizer
        self._options = dict(options or {})
        description = json.loads(tokenizer.backend_tokenizer.to_str())
        self.control = _control_tokens(description["added_tokens"], self._empty_message())
        self._plain = _plain_tokenizer(description, self.control)
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
        return self._tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False)

    def token_id(self, text: str) -> int | None:
        """The id of the added token, special or not, that `text` is; None if it is none."""
        return self._tokenizer.get_added_vocab().get(text)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a chat that asks for an answer, by the chat template."""
        # A template may trim, move or repeat what a message says. So what must not become a control
        # token is replaced before, by a mark that the template takes for an ordinary word.
        mark = _absent_from(messages)
        hidden = [dict(message) | {"content": self._hide(message, mark)} for message in messages]
        text = self._render(hidden, add_generation_prompt=True, **self._options)
        ids: list[int] = []
        # `split` gives text and numbers in turn.
        for place, part in enumerate(re.split(f"{mark}([0-9]+){mark}", text)):
            if place % 2:
                ids += self.encode(self.control[int(part)])
            else:
                ids += self._tokenizer.encode(part, add_special_tokens=False)
        return ids

    def _hide(self, message: Message, mark: str) -> str:
        """The message's content with every control token's text replaced by its number."""
        content = message["content"]
        for number, token in enumerate(self.control):
            content = content.replace(token, f"{mark}{number}{mark}")
        return content

    def _empty_message(self) -> str:
        """A message of no words, as the chat template writes it; "" without a template."""
        if not self._tokenizer.chat_template:
            return ""
        return self._render([{"role": "user", "content": ""}], add_generation_prompt=False)

    def _render(self, messages: Sequence[Message], **options: Any) -> str:
        return self._tokenizer.apply_chat_template(messages, tokenize=False, **options)


def _control_tokens(added: Sequence[Mapping[str, Any]], message: str) -> list[str]:
    """Texts of the control tokens, longest first.

    Args:
        added: the added tokens, as tokenizer.json describes them.
        message: an empty message, as the chat template writes it.
    """
    control = [one["content"] for one in added if one["special"] or one["content"] in message]
    # The longest first: one token's text may lie within another's.
    return sorted(control, key=len, reverse=True)


def _plain_tokenizer(description: Mapping[str, Any], control: Sequence[str]) -> Tokenizer:
    """The tokenizer of a tokenizer.json, to which the texts in `control` are ordinary text."""
    added = [one | {"special": one["content"] in control} for one in description["added_tokens"]]
    # A copy: the tokenizer in transformers is changed by its calls, which other threads would see.
    copied = {**description, "added_tokens": added, "truncation": None, "padding": None}
    tokenizer = Tokenizer.from_str(json.dumps(copied))
    # Of the added tokens this concerns those that are called special.
    tokenizer.encode_special_tokens = True
    return tokenizer


def _absent_from(messages: Sequence[Message]) -> str:
    """A text of private characters that is in no message."""
    mark = "\ue000"
    while any(mark in message["content"] for message in messages):
        mark += "\ue000"
    return mark
