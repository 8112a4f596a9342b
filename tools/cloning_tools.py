"""Demonstrations in which tools are called, as token ids, and the tokenizer for them.

Used by make_shop_policy.py.
"""

import argparse
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from cloning import Episode, batches, train
from cloning_chat import conversation
from cloning_tokenizer import word_tokenizer
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from megatron_trace.data.tasks import Task
from megatron_trace.envs import Environment
from megatron_trace.models.chat import TextCodec
from megatron_trace.models.messages import Message, Reply
from megatron_trace.models.renderer import make_renderer

EXCHANGED = 0.8
"""Share of demonstrations whose words are exchanged for others."""

FAMILY = "qwen3"
"""Whose way of calling tools is learnt."""


def chat_tokenizer(
    episode: Environment, task: Task, texts: Iterable[str]
) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the words of `texts`, and of the prompt that tells of the tools.

    Args:
        task: any task of `episode`.
        texts: questions, turns and observations.
    """
    # What the family writes around the schemas is known only with a tokenizer: one of bytes will do.
    codec = TextCodec(word_tokenizer([]))
    prompt = make_renderer(codec, FAMILY).prompt_ids(episode.reset(task), episode.tools)
    return word_tokenizer([*texts, codec.decode(prompt)])


@dataclass(frozen=True)
class Played:
    """Token ids of an episode, message by message.

    Attributes:
        tools: the prompt up to the question: the same in all episodes.
        question: of the prompt, the rest.
        turns: for each turn what the policy said, and what followed (nothing after the last).
    """

    tools: list[int]
    question: list[int]
    turns: list[tuple[list[int], list[int]]]

    def whole(self) -> Episode:
        """The episode as a rollout has it; every turn is learnt."""
        ids = self.tools + self.question
        learn = [False] * len(ids)
        for said, following in self.turns:
            ids = ids + said + following
            learn += [True] * len(said) + [False] * len(following)
        return ids, learn

    def exchanged(self, new: Mapping[int, int]) -> "Played":
        """The same episode with other tokens.

        Args:
            new: token -> the token in its place.
        """
        swap = lambda ids: [new.get(token, token) for token in ids]  # noqa: E731
        turns = [(swap(said), swap(following)) for said, following in self.turns]
        return Played(self.tools, swap(self.question), turns)

    def excerpts(self) -> list[Episode]:
        """Each turn alone: the question, what was observed last, and the turn, which is learnt.

        Where there is less to look at, copying is learnt in a fraction of the steps.
        """
        found: list[Episode] = []
        seen: list[int] = []
        for said, following in self.turns:
            before = self.question + seen
            found.append((before + said, [False] * len(before) + [True] * len(said)))
            seen = following
        return found


class Demonstrator:
    """Plays episodes, and writes them as a rollout does."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """`tokenizer` is that of the policy."""
        self._codec = TextCodec(tokenizer)
        self._renderer = make_renderer(self._codec, FAMILY)

    def play(self, episode: Environment, task: Task, said: Iterable[str]) -> Played:
        """An episode in which the policy says `said`, turn by turn."""
        ids = self._renderer.prompt_ids(episode.reset(task), episode.tools)
        # The system message, which tells of the tools, comes first.
        tools = ids.index(self._renderer.stop_ids[0]) + 1

        def answer(reply: Reply) -> Sequence[Message] | None:
            result = episode.step(reply)
            # A tool answers with messages.
            return None if result.done else result.observation  # type: ignore[return-value]

        turns = conversation(self._renderer, self._codec, ids, said, answer)
        return Played(ids[:tools], ids[tools:], list(turns))


class Exchange:
    """Exchanges words for others, so that they are copied from a conversation rather than guessed.

    A number from 2 to 12 is guessed well enough for a policy to stay with guessing; one of hundreds
    is not. And what was never a target in training is never said later.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, words: Iterable[str]) -> None:
        """`words` are texts of single tokens, such as numbers."""
        self._tokens: list[int] = []
        for word in sorted(set(words)):
            (token,) = tokenizer.encode(word, add_special_tokens=False)
            self._tokens.append(token)
        self._known = frozenset(self._tokens)

    def __call__(self, played: Played, rng: random.Random) -> Played:
        """The same episode with other words; a word is the same one wherever it occurs."""
        ids = dict.fromkeys(played.whole()[0])
        return played.exchanged(
            {old: rng.choice(self._tokens) for old in ids if old in self._known}
        )


def clone(
    model: Qwen3ForCausalLM,
    draw: Callable[[], Played],
    exchange: Exchange,
    args: argparse.Namespace,
    excerpts: int,
    rng: random.Random,
) -> None:
    """Train `model`: first on single turns, then on whole episodes.

    Args:
        draw: plays a demonstration.
        args: the command line; see `cloning.arguments`.
        excerpts: steps on single turns, before `args.steps`.
    """
    waiting: list[Episode] = []

    def mixed() -> Played:
        return exchange(draw(), rng) if rng.random() < EXCHANGED else draw()

    def turn() -> Episode:
        if not waiting:
            waiting.extend(mixed().excerpts())
        return waiting.pop()

    # A batch of whole episodes counts the tools' schemas in every row, but computes them once.
    first = batches(turn, args.tokens_per_batch, rng)
    then = batches(lambda: mixed().whole(), 4 * args.tokens_per_batch, rng)
    stream = chain(islice(first, excerpts), then)
    train(model, stream, excerpts + args.steps, args.peak, "clone")
