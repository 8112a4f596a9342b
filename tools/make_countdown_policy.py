"""Make Countdown's start policy: a small Qwen3 that clones a solver which errs at times.

    python tools/make_countdown_policy.py --out examples/countdown/start_policy --seed 0

Its tasks are drawn as those of build_countdown.py, endlessly, and without the numbers that the same
seed holds out there. In each turn the demonstrator does an operation after which the target can
still be reached, or, at the rate `--noise`, any legal one. So the policy learns the format and some
of the arithmetic, and reinforcement learning has something left to do.
"""

import argparse
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from build_countdown import is_heldout
from cloning import Episode, Size, arguments, batches, new_model, save, train
from cloning_tokenizer import Segment, encode, train_tokenizer, without_tags

from megatron_trace.data.tasks import Task
from megatron_trace.envs.builtin.countdown import Countdown
from megatron_trace.envs.countdown_rules import Operation, after, legal_operations, random_value

SIZE = Size(hidden=128, layers=4)
"""0.9 M parameters."""

VOCABULARY = 512
TAGS = ["<op>", "</op>", "<numbers>", "</numbers>", "<error>", "</error>"]

MAX_TURNS = 5
"""Of an episode, as in the CPU configuration."""

LARGEST = 20
LOWEST_TARGET, HIGHEST_TARGET = 10, 100
"""Of numbers and targets, as in build_countdown.py."""

TOKENIZER_EPISODES = 4_000


def draw_task(seed: int, rng: random.Random) -> Task:
    """A task of 3 or 4 numbers that can be solved, and that is not held out.

    Args:
        seed: of build_countdown.py.
    """
    while True:
        numbers = tuple(sorted(rng.choices(range(1, LARGEST + 1), k=rng.choice((3, 4)))))
        if is_heldout(numbers, seed):
            continue
        left = list(numbers)
        # What random play meets can be reached.
        while len(left) > 1:
            left = list(after(rng.choice(legal_operations(left)), left))
            made = [n for n in left if LOWEST_TARGET <= n <= HIGHEST_TARGET and n not in numbers]
            # Not always the first: some targets shall need more operations.
            if made and rng.random() < 0.5:
                return {"id": "", "numbers": list(numbers), "target": rng.choice(made)}


def winning(numbers: list[int], target: int) -> list[Operation]:
    """The legal operations after which the target can still be reached."""
    ways = []
    for operation in legal_operations(numbers):
        left = after(operation, numbers)
        if random_value(left, target, len(left) - 1) > 0:
            ways.append(operation)
    return ways


def play(task: Task, noise: float, rng: random.Random) -> Iterator[Segment]:
    """One demonstration.

    Args:
        noise: how often a turn's operation is any legal one.
    """
    episode = Countdown(Countdown.Options(instruction=""), MAX_TURNS)
    (prompt,) = episode.reset(task)
    yield Segment("question", prompt["content"], learn=False)
    while True:
        numbers = episode.snapshot()["numbers"]
        legal = legal_operations(numbers)
        ways = legal if rng.random() < noise else winning(numbers, task["target"]) or legal
        action = written(rng.choice(ways), rng)
        yield Segment("action", action, learn=True)
        result = episode.step(action)
        if result.done:
            return
        yield Segment("observation", str(result.observation), learn=False)


def written(operation: Operation, rng: random.Random) -> str:
    """The action of an operation; a sum or a product in either order."""
    left, sign, right = operation
    if sign in "+*" and rng.random() < 0.5:
        left, right = right, left
    # The space makes a number the same token here as in a prompt.
    return f"<op> {left} {sign} {right}</op>"


def make_policy(args: argparse.Namespace) -> None:
    """Train the tokenizer and the policy."""
    rng = random.Random(f"{args.seed}/demonstrations")

    def demonstration() -> list[Segment]:
        return list(play(draw_task(args.seed, rng), args.noise, rng))

    shown = (demonstration() for _ in range(TOKENIZER_EPISODES))
    tokenizer = train_tokenizer(without_tags(shown, TAGS), TAGS, VOCABULARY)
    model = new_model(tokenizer, SIZE, args.seed)
    draw: Callable[[], Episode] = lambda: encode(tokenizer, demonstration())  # noqa: E731
    train(model, batches(draw, args.tokens_per_batch, rng), args.steps, args.peak, "clone")
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    args = arguments(
        __doc__,
        Path("examples/countdown/start_policy"),
        noise=0.3,
        steps=1_600,
        peak=2e-3,
        tokens=2_048,
    )
    torch.set_num_threads(args.threads)
    make_policy(args)
