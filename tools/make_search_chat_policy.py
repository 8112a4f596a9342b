"""Make the start policy of search_chat: a small Qwen3 that searches GeoHop by calls of a tool.

    python tools/make_search_chat_policy.py --seed 0 --out examples/geo_hop/chat_policy

It begins from the start policy of search_qa, which can copy names and searches in plain text. The
demonstrations are those of that policy's noisy demonstrator, written as a chat. It stops too early
or too late at the rate `--noise`, so reinforcement learning has something to undo.
"""

import argparse
import random
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from cloning import Episode, arguments, batches, begin_from, need, new_model, save, train
from cloning_chat import call, demonstration
from cloning_tokenizer import (
    CHAT_TEMPLATE,
    QWEN3_TAGS,
    Segment,
    train_tokenizer,
    with_tool_answers,
)
from geo_hop_demonstrator import VOCABULARY, names_from_tokens, rename
from make_start_policy import PHASES, SIZE, Demonstrations

from megatron_trace.envs.builtin.search_chat import SearchChat
from megatron_trace.models.chat import TextCodec
from megatron_trace.models.messages import Message
from megatron_trace.models.renderer import make_renderer

DATA = Path("data/geo_hop")
OLDER = Path(__file__).parents[1] / "examples/geo_hop/start_policy"
RENAMED = 0.7
"""Share of demonstrations with invented names, so that names are copied and not guessed."""

TOKENIZER_EPISODES = 4_000

TEMPLATE = "{% if tools %}<|im_start|>system\nsearch<|im_end|>\n{% endif %}" + with_tool_answers(
    CHAT_TEMPLATE
)
"""The one tool is named. Its schema would be longer than a turn, and is always the same."""


def turn(action: str) -> str:
    """What the policy says in place of an action of search_qa."""
    thought, tag, query = action.partition("<search>")
    if not tag:
        return action
    # The space before a name stays: with it the name is the same tokens as in a document.
    return thought + call("search", query=query.removesuffix("</search>"))


def found(observation: str) -> Message:
    """The tool's answer in place of an observation of search_qa."""
    (text,) = re.findall("<information> (.*) </information>", observation, re.DOTALL)
    return {"role": "tool", "content": text, "name": "search", "tool_call_id": "call_0"}


def texts(segments: Sequence[Segment]) -> Iterator[str]:
    """All that is said in an episode, without tags: what the tokenizer is trained on."""
    tags = re.compile("|".join(map(re.escape, QWEN3_TAGS)))
    for segment in segments:
        if segment.kind == "action":
            yield tags.sub("", turn(segment.text))
        elif segment.kind == "observation":
            yield found(segment.text)["content"]
        else:
            yield segment.text


def make_policy(args: argparse.Namespace) -> None:
    """Train the tokenizer and the policy."""
    rng = random.Random(f"{args.seed}/demonstrations")
    shown = Demonstrations.read(DATA, PHASES["noisy"])
    demonstrator = shown.demonstrator(args.noise)

    def played() -> list[Segment]:
        (tasks,) = rng.choices(shown.by_hops, shown.phase.hop_weights)
        return demonstrator.play(rng.choice(tasks), rng)

    said = [text for _ in range(TOKENIZER_EPISODES) for text in texts(played())]
    roles = ["system\nsearch", "user\n", "assistant\n"] * TOKENIZER_EPISODES
    tokenizer = train_tokenizer([*said, *roles], QWEN3_TAGS, VOCABULARY, TEMPLATE)
    invent = names_from_tokens(list(tokenizer.get_vocab()))
    codec = TextCodec(tokenizer)
    renderer = make_renderer(codec, "template")
    tools = SearchChat(SearchChat.Options(), max_turns=1).tools

    def draw() -> Episode:
        segments = played()
        if rng.random() < RENAMED:
            segments = rename(segments, shown.world, rng, invent)
        question, *rest = segments
        observations = (found(segment.text) for segment in rest if segment.kind == "observation")
        turns = [turn(segment.text) for segment in rest if segment.kind == "action"]
        prompt = renderer.prompt_ids([{"role": "user", "content": question.text}], tools)

        def answer(_: object) -> Sequence[Message] | None:
            return list(islice(observations, 1)) or None

        return demonstration(renderer, codec, prompt, turns, answer)

    model = new_model(tokenizer, SIZE, args.seed)
    begin_from(model, tokenizer, OLDER, (), args.seed)
    train(model, batches(draw, args.tokens_per_batch, rng), args.steps, args.peak, "clone")
    save(model, tokenizer, args.out)


def main() -> None:
    """Parse the command line and make the policy."""
    args = arguments(
        __doc__,
        Path("examples/geo_hop/chat_policy"),
        noise=0.33,
        steps=500,
        peak=5e-4,
        tokens=2_048,
    )
    need(DATA, "build_geo_hop")
    torch.set_num_threads(args.threads)
    make_policy(args)


if __name__ == "__main__":
    main()
