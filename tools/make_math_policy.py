"""Make the start policy of math_python: a small Qwen3 that clones a calculator who errs at times.

    python tools/make_math_policy.py --out examples/math_python/start_policy --seed 0

Its tasks are those of `build_reasoning_gym.py --families chain_sum` with SETTINGS: sums of
three numbers of two digits. The demonstrator writes the sum as a call of the tool, reads what it
printed, and says that. At the rate `--noise` it guesses without a call or writes a wrong number into
it, and at the same rate it says another number than it has read. So the policy learns how the tool
is used, and reinforcement learning has something left to do.
"""

import argparse
import random
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from build_reasoning_gym import entries
from cloning import Batch, Episode, Size, arguments, batches, new_model, save, train
from cloning_chat import call, demonstration
from cloning_tokenizer import (
    CHAT_TEMPLATE,
    QWEN3_TAGS,
    train_tokenizer,
    with_tool_answers,
)
from transformers import PreTrainedTokenizerFast

from megatron_trace.envs.builtin.math_python import MathPython
from megatron_trace.models.chat import TextCodec
from megatron_trace.models.messages import Message, Reply
from megatron_trace.models.renderer import make_renderer

SIZE = Size(hidden=64, layers=2)
"""0.1 M parameters: a smaller model learns to copy in less time."""

VOCABULARY = 352
FAMILY = "chain_sum"
SETTINGS = {"min_terms": 3, "max_terms": 3, "min_digits": 2, "max_digits": 2}
"""Of the family, as in docs/environments/math.md."""

HELDOUT = 128
"""Tasks that build_reasoning_gym.py holds out under the same seed."""

LOWEST, HIGHEST = -188, 297
"""Of all sums."""

TEMPLATE = "{% if tools %}<|im_start|>system\npython<|im_end|>\n{% endif %}" + with_tool_answers(
    CHAT_TEMPLATE
)
"""The one tool is named. Its schema would be longer than all the rest, and is always the same."""

TOKENIZER_EPISODES = 500


def questions(seed: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Questions that are not held out, endlessly, with their sums.

    Args:
        seed: of build_reasoning_gym.py.
    """
    import reasoning_gym

    # The first ones, of as many as it takes: some questions recur.
    drawn = entries(FAMILY, 100 * HELDOUT, seed, SETTINGS)
    heldout = {entry["question"] for entry in islice(drawn, HELDOUT)}
    tasks = reasoning_gym.create_dataset(FAMILY, size=2**31, seed=0, **SETTINGS)
    while True:
        entry = tasks[rng.randrange(2**31)]
        if entry["question"] not in heldout:
            yield entry["question"], entry["metadata"]["expression"]


def turns(sum_: str, noise: float, rng: random.Random) -> Iterator[str]:
    """What the demonstrator says: a call, then what it printed."""
    if rng.random() < noise:
        if rng.random() < 0.5:
            yield boxed(rng.randint(LOWEST, HIGHEST))
            return
        sum_ = re.sub(r"\d+$", str(rng.randint(10, 99)), sum_)
    # The spaces make the sum the same tokens here as in a question.
    yield call("python", code=f"print( {sum_} )")
    yield boxed(rng.randint(LOWEST, HIGHEST) if rng.random() < noise else value(sum_))


def boxed(number: int) -> str:
    r"""An answer, such as \boxed{7}."""
    return rf"\boxed{{{number}}}"


def value(sum_: str) -> int:
    """What the tool prints for a sum, such as `12 + 30 - 7`."""
    return sum(int(sign + number) for sign, number in re.findall(r"([+-]?) ?(\d+)", sum_))


def train_own_tokenizer(seed: int, noise: float, rng: random.Random) -> PreTrainedTokenizerFast:
    """A tokenizer that joins no digits: a policy learns to copy ten tokens sooner than hundreds."""
    said: list[str] = []
    for question, sum_ in islice(questions(seed, rng), TOKENIZER_EPISODES):
        said += [question, *turns(sum_, noise, rng), "system\npython", "user\n", "assistant\n"]
    tag = re.compile("|".join(map(re.escape, [*QWEN3_TAGS, *"0123456789"])))
    plain = (tag.sub("", text) for text in said)
    return train_tokenizer(plain, QWEN3_TAGS, VOCABULARY, TEMPLATE)


def printed(reply: Reply) -> list[Message] | None:
    """The tool's answer to a call, as the sandbox gives it; None to a reply without one."""
    if not reply.calls:
        return None
    output = str(value(reply.calls[0].arguments["code"]))
    return [{"role": "tool", "content": output, "name": "python", "tool_call_id": "call_0"}]


def make_policy(args: argparse.Namespace) -> None:
    """Train the tokenizer and the policy."""
    rng = random.Random(f"{args.seed}/demonstrations")
    tokenizer = train_own_tokenizer(args.seed, args.noise, rng)
    codec = TextCodec(tokenizer)
    renderer = make_renderer(codec, "template")
    episode = MathPython(MathPython.Options(instruction=""), max_turns=2)
    tasks = questions(args.seed, rng)
    model = new_model(tokenizer, SIZE, args.seed)

    def draw(noise: float) -> Episode:
        question, sum_ = next(tasks)
        prompt = renderer.prompt_ids(episode.reset({"question": question}), episode.tools)
        said = turns(sum_, noise, rng)
        return demonstration(renderer, codec, prompt, said, printed)

    def stream(noise: float) -> Iterator[Batch]:
        return batches(lambda: draw(noise), args.tokens_per_batch, rng)

    # Errors are learnt last: among them a policy learns to copy much later.
    train(model, stream(0.0), args.steps, args.peak, "copy", last=1.0)
    train(model, stream(args.noise), args.steps // 4, args.peak / 4, "err")
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    args = arguments(
        __doc__,
        Path("examples/math_python/start_policy"),
        noise=0.3,
        steps=1_400,
        peak=6e-3,
        tokens=1_024,
    )
    torch.set_num_threads(args.threads)
    make_policy(args)
