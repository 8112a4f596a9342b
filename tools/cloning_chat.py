"""Behaviour cloning of a chat: demonstrations as a rollout writes them.

Used by make_math_policy.py, make_text_game_policy.py and cloning_tools.py.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from cloning import Episode

from megatron_trace.models.chat import TextCodec
from megatron_trace.models.messages import Message, Reply
from megatron_trace.models.renderer import Renderer

Answer = Callable[[Reply], Sequence[Message] | None]
"""The messages after a turn of the policy; None after the last one."""


def call(name: str, /, **arguments: Any) -> str:
    """A call as Qwen3 writes it."""
    body = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{body}\n</tool_call>"


def demonstration(
    renderer: Renderer, codec: TextCodec, prompt: list[int], said: Iterable[str], answer: Answer
) -> Episode:
    """Token ids of an episode as a rollout makes them, and for each whether it is learnt.

    Args:
        prompt: token ids of the first messages.
        said: what the policy says, turn by turn.
    """
    ids, learn = prompt, [False] * len(prompt)
    for sampled, following in conversation(renderer, codec, prompt, said, answer):
        ids = ids + sampled + following
        learn += [True] * len(sampled) + [False] * len(following)
    return ids, learn


def conversation(
    renderer: Renderer, codec: TextCodec, prompt: list[int], said: Iterable[str], answer: Answer
) -> Iterator[tuple[list[int], list[int]]]:
    """For each turn the token ids of what the policy said, and of what followed (see `demonstration`)."""
    ids = prompt
    for text in said:
        sampled = [*codec.encode(text), renderer.stop_ids[0]]
        messages = answer(renderer.reply(ids, sampled))
        following = (renderer.next_ids(ids, sampled, messages) or []) if messages else []
        yield sampled, following
        ids = ids + sampled + following
