"""Make the start policy of examples/environment: a small Qwen3 that clones a buyer who errs at times.

    python tools/make_shop_policy.py --seed 0 --out examples/environment/start_policy

The buyer looks both prices up, calculates, and says the total. At the rate `--noise` it guesses the
total instead of calculating, and at the same rate it writes a wrong number into its calculation. So
the policy learns how tools are called, and reinforcement learning has something left to do.

It begins from Countdown's policy, which can copy numbers.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from cloning import Size, arguments, begin_from, new_model, save
from cloning_chat import call
from cloning_tools import Demonstrator, Exchange, Played, chat_tokenizer, clone

from megatron_trace.config import EnvironmentConfig
from megatron_trace.data.tasks import Task
from megatron_trace.envs import make_environments

SIZE = Size(hidden=128, layers=4)
"""0.9 M parameters."""

OLDER = Path(__file__).parents[1] / "examples/countdown/start_policy"
"""Of the same size, and can copy numbers."""

EXCERPTS = 300
"""Steps on single turns, before those on whole episodes."""

SHOP = Path(__file__).parents[1] / "examples/environment/shop.py"
ITEMS = ["pen", "cup", "map", "hat", "box"]
HIGHEST_PRICE, HIGHEST_COUNT = 12, 9
HIGHEST_TOTAL = 2 * HIGHEST_PRICE * HIGHEST_COUNT


def draw_task(rng: random.Random) -> Task:
    """A task as those of tasks.jsonl, with other prices."""
    prices = {item: rng.randint(2, HIGHEST_PRICE) for item in ITEMS}
    first, second = rng.sample(ITEMS, 2)
    one, two = rng.randint(2, HIGHEST_COUNT), rng.randint(2, HIGHEST_COUNT)
    question = f"What do {one} {plural(first)} and {two} {plural(second)} cost?"
    answer = one * prices[first] + two * prices[second]
    return {
        "id": "drawn",
        "question": question,
        "prices": prices,
        "answer": answer,
        "basket": [[one, first], [two, second]],
    }


def plural(item: str) -> str:
    """As the questions write it."""
    return f"{item}es" if item.endswith("x") else f"{item}s"


def turns(task: Task, noise: float, rng: random.Random) -> Iterator[str]:
    """What the buyer says, turn by turn."""
    yield "\n".join(call("price", item=item) for _, item in task["basket"])
    if rng.random() < noise:
        yield str(rng.randint(8, HIGHEST_TOTAL))
        return
    terms = [[count, task["prices"][item]] for count, item in task["basket"]]
    if rng.random() < noise:
        # One of the four numbers is misread.
        terms[rng.randrange(2)][rng.randrange(2)] = rng.randint(2, HIGHEST_PRICE)
    yield call("multiply_and_add", terms=terms)
    yield str(sum(count * price for count, price in terms))


def make_policy(args: argparse.Namespace) -> None:
    """Make the tokenizer, train the policy."""
    rng = random.Random(f"{args.seed}/demonstrations")
    new_episode = make_environments(EnvironmentConfig(str(SHOP), max_turns=4))
    numbers = [str(number) for number in range(HIGHEST_TOTAL + 1)]
    words = [f" {plural(item)} {item}" for item in ITEMS]
    said = turns(draw_task(rng), 0.0, rng)
    first = draw_task(rng)
    tokenizer = chat_tokenizer(new_episode(), first, [*numbers, *words, *ITEMS, *said])
    shown = Demonstrator(tokenizer)

    def draw() -> Played:
        task = draw_task(rng)
        return shown.play(new_episode(), task, turns(task, args.noise, rng))

    model = new_model(tokenizer, SIZE, args.seed)
    begin_from(model, tokenizer, OLDER, numbers, args.seed)
    clone(model, draw, Exchange(tokenizer, numbers), args, EXCERPTS, rng)
    save(model, tokenizer, args.out)


def main() -> None:
    """Parse the command line and make the policy."""
    args = arguments(
        __doc__,
        Path("examples/environment/start_policy"),
        noise=0.3,
        steps=300,
        peak=2e-3,
        tokens=1_024,
    )
    torch.set_num_threads(args.threads)
    make_policy(args)


if __name__ == "__main__":
    main()
