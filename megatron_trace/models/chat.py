"""A chat as token ids, by the model's chat template."""

from collections.abc import Mapping, Sequence
from typing import Any


def prompt_ids(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Token ids of a chat that asks for an answer.

    The sampler and the check of the tasks call this, so that both see the same prompt.

    Args:
        tokenizer: a tokenizer of transformers.
        messages: each with `role` and `content`.
    """
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return list(ids)
