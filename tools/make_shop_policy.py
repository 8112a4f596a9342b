"""Make the start policy of examples/environment: a small Qwen3 that clones a buyer who errs at times.

    python tools/make_shop_policy.py --seed 0 --out examples/environment/start_policy

The buyer looks both prices up, calculates, and says the total. At the rate `--noise` it writes a
wrong number into its calculation, or guesses the total. So the policy learns how tools are called,
and reinforcement learning has something left to do.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from cloning import Episode, Size, arguments, batches, new_model, save, train
from cloning_chat import call, demonstration
from cloning_tokenizer import train_chat_tokenizer
from transformers import PreTrainedTokenizerFast

from megatron_trace.config import EnvironmentConfig
from megatron_trace.data.tasks import Task
from megatron_trace.envs import Environment, make_environments
from megatron_trace.models.chat import TextCodec
from megatron_trace.models.messages import Message, Reply
from megatron_trace.models.renderer import make_renderer

SIZE = Size(hidden=128, layers=4)
"""0.9 M parameters."""

VOCABULARY = 640
SHOP = Path(__file__).parents[1] / "examples/environment/shop.py"
ITEMS = ["pen", "cup", "map", "hat", "box"]
TOKENIZER_EPISODES = 2_000


def draw_task(rng: random.Random) -> Task:
    """A task as those of tasks.jsonl, with other prices."""
    prices = {item: rng.randint(2, 12) for item in ITEMS}
    first, second = rng.sample(ITEMS, 2)
    one, two = rng.randint(2, 9), rng.randint(2, 9)
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
    terms = [[count, task["prices"][item]] for count, item in task["basket"]]
    total = sum(count * price for count, price in terms)
    if rng.random() < noise:
        # One of the four numbers is misread.
        terms[rng.randrange(2)][rng.randrange(2)] = rng.randint(2, 12)
        total = sum(count * price for count, price in terms)
    yield call("multiply_and_add", terms=terms)
    yield str(total if rng.random() >= noise else rng.randint(8, 200))


def train_tokenizer(
    episode: Environment, noise: float, rng: random.Random
) -> PreTrainedTokenizerFast:
    """A tokenizer for the shop's prompts and turns."""
    said = []
    for _ in range(TOKENIZER_EPISODES):
        task = draw_task(rng)
        said += [episode.reset(task)[0]["content"], *turns(task, noise, rng)]
    # What the family writes around the schemas is known only with a tokenizer: a first one is
    # trained for it.
    first = TextCodec(train_chat_tokenizer([*said, json.dumps(list(episode.tools))], VOCABULARY))
    prompt = make_renderer(first, "qwen3").prompt_ids(episode.reset(task), episode.tools)
    # The prompt is long, but always the same.
    return train_chat_tokenizer([*said, *[first.decode(prompt)] * 500], VOCABULARY)


def make_policy(args: argparse.Namespace) -> None:
    """Train the tokenizer and the policy."""
    rng = random.Random(f"{args.seed}/demonstrations")
    new_episode = make_environments(EnvironmentConfig(str(SHOP), max_turns=4))
    tokenizer = train_tokenizer(new_episode(), args.noise, rng)
    codec = TextCodec(tokenizer)
    renderer = make_renderer(codec, "qwen3")
    model = new_model(tokenizer, SIZE, args.seed)

    def draw() -> Episode:
        task, episode = draw_task(rng), new_episode()
        prompt = renderer.prompt_ids(episode.reset(task), episode.tools)

        def answer(reply: Reply) -> Sequence[Message] | None:
            result = episode.step(reply)
            # A shop answers with messages.
            return None if result.done else result.observation  # type: ignore[return-value]

        return demonstration(renderer, codec, prompt, turns(task, args.noise, rng), answer)

    train(model, batches(draw, args.tokens_per_batch, rng), args.steps, args.peak, "clone")
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    args = arguments(
        __doc__,
        Path("examples/environment/start_policy"),
        noise=0.2,
        steps=800,
        peak=3e-3,
        tokens=4_096,
    )
    torch.set_num_threads(args.threads)
    make_policy(args)
