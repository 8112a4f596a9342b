"""Turns as token ids: how a prompt, an action and an observation are written and read.

An environment either exchanges plain text with the policy, or messages of a chat. What was sampled
is never tokenized again: the ids of a text need not be those that were sampled, and the trainer must
learn from the very tokens that the sampler chose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from megatron_trace.config import Thoughts
from megatron_trace.models.chat import TextCodec
from megatron_trace.models.messages import Message, Reply, Tool
from megatron_trace.models.renderer import Renderer, make_renderer
from megatron_trace.models.thoughts import (
    NoThoughts,
    ThoughtMarks,
    thought_marks,
    without_thought,
)

Observation = str | Sequence[Message]


@dataclass(frozen=True)
class Stop:
    """What ends a turn.

    Attributes:
        ids: token ids.
        texts: strings; looked for only where no token id says the same.
    """

    ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Following:
    """What follows a turn.

    Attributes:
        observation_ids: token ids of the observation.
        new_history: `Turn.new_history`.
    """

    observation_ids: list[int]
    new_history: list[int] | None = None


class Turns(Protocol):
    """How the turns of an environment are written. Several threads may use it.

    Attributes:
        stop: what ends a turn.
    """

    stop: Stop

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        """Token ids of the first messages, up to where the policy begins to speak."""
        ...

    def action(self, history_ids: list[int], sampled_ids: list[int]) -> Any:
        """What `Environment.step` is given for the sampled token ids."""
        ...

    def following(
        self, history_ids: list[int], sampled_ids: list[int], observed: Observation, enough: int
    ) -> Following | None:
        """What follows a turn that the environment answered.

        Args:
            history_ids: everything before the sampled tokens.
            enough: of a longer observation, this number of tokens may do.

        Returns:
            None if nothing can follow what was sampled.
        """
        ...


class TextTurns:
    """Plain text in, plain text out: tags and stop strings are the environment's own."""

    def __init__(self, codec: TextCodec, stop: Sequence[str]) -> None:
        """`stop` are the strings that end a turn."""
        self._codec, self._endings = codec, tuple(stop)
        # Stops that all are added tokens are found without turning every sampled token into text.
        # No other token may do: `;` also ends within a token `;;`.
        ids = [codec.token_id(text) for text in stop]
        known = [id for id in ids if id is not None]
        self.stop = Stop(known, list(stop) if len(known) < len(ids) else [])

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        """Token ids of the first messages, by the chat template."""
        return self._codec.prompt_ids(messages, tools)

    def action(self, history_ids: list[int], sampled_ids: list[int]) -> str:
        """The text of a turn, up to the end of the stop string that ended it.

        A stop string may end inside a token, such as `</answer>` inside `>.`. The history keeps the
        whole token, which is what was sampled and what is learned from.

        Args:
            sampled_ids: the stop string, if there is one, ends in the last of them.
        """
        text = self._codec.decode(sampled_ids)
        before_last_token = len(self._codec.decode(sampled_ids[:-1]))
        ends = []
        for ending in self._endings:
            # One that ends before the last token did not end the turn.
            found = text.find(ending, max(0, before_last_token + 1 - len(ending)))
            if found >= 0:
                ends.append(found + len(ending))
        return text[: min(ends)] if ends else text

    def following(
        self, history_ids: list[int], sampled_ids: list[int], observed: Observation, enough: int
    ) -> Following:
        """The observation, none of its tokens a control token."""
        assert isinstance(observed, str), "checked_result lets nothing else through"
        return Following(self._codec.encode(observed, enough))


class ChatTurns:
    """Messages in, messages out, as the model's family writes them."""

    def __init__(self, renderer: Renderer, stripped: ThoughtMarks | None = None) -> None:
        """
        Args:
            renderer: knows the family.
            stripped: what begins and ends a thought that later prompts do not have; None: they have
                all thoughts.
        """
        self._renderer, self._stripped = renderer, stripped
        self.stop = Stop(renderer.stop_ids)

    def prompt_ids(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        """Token ids of the first messages, up to where the policy begins to speak."""
        return self._renderer.prompt_ids(messages, tools)

    def action(self, history_ids: list[int], sampled_ids: list[int]) -> Reply:
        """What the sampled token ids say."""
        return self._renderer.reply(history_ids, sampled_ids)

    def following(
        self, history_ids: list[int], sampled_ids: list[int], observed: Observation, enough: int
    ) -> Following | None:
        """The new messages, up to the policy's next turn; without the turn's thought, if so set."""
        assert not isinstance(observed, str), "checked_result makes messages of it"
        new = self._renderer.next_ids(history_ids, sampled_ids, observed)
        if new is None:
            return None
        stripped = self._stripped and without_thought(history_ids, sampled_ids, self._stripped)
        return Following(new, [*stripped, *new] if stripped else None)


def make_turns(
    codec: TextCodec, chat: bool, stop: Sequence[str], renderer: str, thoughts: Thoughts
) -> TextTurns | ChatTurns:
    """How the turns of an environment are written.

    Args:
        chat, stop: `Environment.chat` and `Environment.stop`.
        renderer, thoughts: `environment.renderer` and `environment.thoughts`.

    Raises:
        ValueError: the model cannot be rendered as `renderer` says.
        NoThoughts: the thoughts of this model, or environment, cannot be stripped.
    """
    strip = thoughts is Thoughts.strip
    if chat:
        return ChatTurns(make_renderer(codec, renderer), thought_marks(codec) if strip else None)
    if strip:
        raise NoThoughts("only chats have thoughts that can be stripped; set keep")
    return TextTurns(codec, stop)
