"""Make the start policy of text_game: a small Qwen3 that clones a player who errs at times.

    python tools/make_text_game_policy.py --out examples/text_game/start_policy --seed 0

It learns from the games of `data/text_game/train.jsonl`, which docs/environments/text_games.md says
how to build. The player follows a game's walkthrough. At the rate `--noise` it gives a turn away. In
most demonstrations the things have other names, so that the policy learns to read names and not to
know games by heart.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import torch
from cloning import Batch, Episode, Size, arguments, batches, new_model, save, train
from cloning_chat import demonstration
from cloning_tokenizer import CHAT_TEMPLATE, train_tokenizer
from text_game_demonstrator import Names, Play, names_in, played, renamed, standing_still, texts

from megatron_trace.config import EnvironmentConfig
from megatron_trace.data.tasks import Task, load_tasks
from megatron_trace.envs import make_environments
from megatron_trace.models.chat import TextCodec
from megatron_trace.models.messages import Message
from megatron_trace.models.renderer import make_renderer

SIZE = Size(hidden=64, layers=2)
"""0.2 M parameters: a smaller model learns to copy in less time."""

GAMES = "data/text_game/train.jsonl"
MAX_TURNS = 4
"""Of an episode, as in the CPU configuration."""

VOCABULARY = 1_024
PLAYS = 3
"""Of each game."""

RENAMED = 0.8
"""Share of demonstrations whose things have other names."""


def plays_of(tasks: Sequence[Task], noise: float, rng: random.Random) -> list[tuple[Play, Names]]:
    """Every game, played `PLAYS` times."""
    options = {"text_game": {"instruction": ""}}
    new_episode = make_environments(EnvironmentConfig("text_game", MAX_TURNS, options))
    others = standing_still(tasks)
    plays = []
    for task in tasks:
        names = names_in(task["game"])
        plays += [(played(new_episode(), task, others, noise, rng), names) for _ in range(PLAYS)]
    return plays


def name_pool(plays: Sequence[tuple[Play, Names]]) -> dict[str, list[str]]:
    """Kind -> names of all games."""
    pairs = {pair for _, names in plays for pair in names.items()}
    kinds = sorted({kind for _, kind in pairs})
    return {kind: sorted(name for name, own in pairs if own == kind) for kind in kinds}


def make_policy(args: argparse.Namespace) -> None:
    """Train the tokenizer and the policy."""
    rng = random.Random(f"{args.seed}/demonstrations")
    tasks = load_tasks(GAMES)
    right, wrong = plays_of(tasks, 0.0, rng), plays_of(tasks, args.noise, rng)
    pool = name_pool(right)
    said = chain.from_iterable(texts(play) for play, _ in right + wrong)
    names = [f" {name}" for kind in pool.values() for name in kind]
    # What is there so often is merged first: a word of a name is one token.
    often = [*names, "user\n", "assistant\n"] * 300
    tokenizer = train_tokenizer([*said, *often], [], VOCABULARY, CHAT_TEMPLATE)
    codec = TextCodec(tokenizer)
    renderer = make_renderer(codec, "template")
    model = new_model(tokenizer, SIZE, args.seed)

    def draw(plays: Sequence[tuple[Play, Names]]) -> Episode:
        play, names = rng.choice(plays)
        if rng.random() < RENAMED:
            play = renamed(play, names, pool, rng)
        prompt = renderer.prompt_ids([user(play.prompt)])
        answers = answers_of(play)
        commands = [command for command, _ in play.turns]
        return demonstration(renderer, codec, prompt, commands, lambda _: next(answers))

    def stream(plays: Sequence[tuple[Play, Names]]) -> Iterator[Batch]:
        return batches(lambda: draw(plays), args.tokens_per_batch, rng)

    # Errors are learnt last: among them a policy learns to copy much later.
    train(model, stream(right), args.steps, args.peak, "copy", last=1.0)
    train(model, stream(wrong), args.steps // 4, args.peak / 2, "err")
    save(model, tokenizer, args.out)


def user(text: str) -> Message:
    """A message of the game."""
    return {"role": "user", "content": text}


def answers_of(play: Play) -> Iterator[list[Message] | None]:
    """The game's message after each command; None after the last one."""
    for _, observed in play.turns[:-1]:
        yield [user(observed)]
    yield None


if __name__ == "__main__":
    args = arguments(
        __doc__,
        Path("examples/text_game/start_policy"),
        noise=0.2,
        steps=1_600,
        peak=6e-3,
        tokens=1_024,
    )
    torch.set_num_threads(args.threads)
    make_policy(args)
