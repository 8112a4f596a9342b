"""Make the start policy of function_calling: a small Qwen3 that calls one function.

    python tools/build_bfcl.py --out data/bfcl
    python tools/make_function_calling_policy.py --seed 0 --out examples/function_calling/start_policy

Its demonstrations are BFCL's answers to tasks of three other categories than the one that is
trained on afterwards, `simple_python`; nothing of a held-out family is among them. In most of them
function, arguments and values have other names. So the policy learns to copy a value from the
question to where the function's description wants it. It understands little of a question, and that
is left to reinforcement learning.

It begins from GeoHop's policy, which can copy names.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cloning import Episode, arguments, batches, begin_from, need, new_model, save, train
from cloning_chat import call, demonstration
from cloning_tokenizer import CHAT_TEMPLATE, QWEN3_TAGS, train_tokenizer
from geo_hop_demonstrator import Invent, names_from_tokens
from make_start_policy import SIZE
from transformers import Qwen3ForCausalLM

from megatron_trace.data.tasks import Task, load_tasks
from megatron_trace.envs.bfcl.schemas import tool_name, tools_of
from megatron_trace.envs.bfcl.tasks import docs_at_first
from megatron_trace.models.chat import TextCodec
from megatron_trace.models.messages import Message
from megatron_trace.models.renderer import make_renderer

DATA = Path("data/bfcl")
OLDER = Path(__file__).parents[1] / "examples/geo_hop/competent_policy"
CATEGORIES = ("multiple", "live_simple", "live_multiple")
"""What is shown. Of several functions only the right one is."""

VOCABULARY = 3_072
LONGEST = 384
"""Tokens of a demonstration; longer ones are left out."""

ROUNDS = 4
"""Series of steps, each with its own optimizer, warm-up and cosine. A round begins from the float16
weights of the one before.
"""

RENAMED = 0.8
"""Share of demonstrations with other names."""

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n"
    "{% for tool in tools %}{{ tool.function.name | tojson }}\n"
    "{% for name, schema in tool.function.parameters.properties.items() %}"
    "{{ name | tojson }} {{ schema.type }}"
    "{% if name not in tool.function.parameters.required %} optional{% endif %}:"
    " {{ schema.description }}\n"
    "{% endfor %}{% endfor %}<|im_end|>\n{% endif %}" + CHAT_TEMPLATE
)
"""Tells of tools in fewer tokens than their JSON schemas have."""

Value = str | int | float | bool


@dataclass(frozen=True)
class Shown:
    """A demonstration.

    Attributes:
        question: the user's message.
        doc: of the function, as BFCL has it.
        arguments: of the right call.
    """

    question: str
    doc: Mapping[str, Any]
    arguments: Mapping[str, Value]

    def messages(self) -> list[Message]:
        """The prompt."""
        return [{"role": "user", "content": self.question}]

    def call(self) -> str:
        """What the policy says. A text begins with a space: so it is the tokens of the question."""
        values = {
            name: f" {value}" if isinstance(value, str) else value
            for name, value in self.arguments.items()
        }
        return call(tool_name(self.doc["name"]), **values)


def shown(task: Task) -> Shown | None:
    """The right answer of a task of one call; None if a value is none of `Value`, or in a dialogue."""
    (truth,) = task["ground_truth"][:1]
    ((function, accepted),) = truth.items()
    (doc,) = (doc for doc in docs_at_first(task) if doc["name"] == function)
    if len(task["question"][0]) > 1:
        return None
    question = task["question"][0][0]["content"]
    arguments = {}
    # In the order of the function's docs: shards sort keys.
    for name in (name for name in doc["parameters"]["properties"] if name in accepted):
        values = accepted[name]
        told = [value for value in values if value != "" and is_told(value, question)]
        if not told and ("" in values or not values):
            # May be left out, and the question does not tell it.
            continue
        arguments[name] = (told or values)[0]
    if not all(isinstance(value, Value) for value in arguments.values()):
        return None
    return Shown(question, doc, arguments)


def is_told(value: object, question: str) -> bool:
    """Whether a question holds a value as a text."""
    return pattern(value).search(question) is not None


def pattern(value: object) -> re.Pattern[str]:
    """Finds a value in a text."""
    return re.compile(rf"(?<!\w){re.escape(str(value))}(?!\w)", re.IGNORECASE)


def renamed(one: Shown, rng: random.Random, invent: Invent) -> Shown:
    """The same demonstration with other names of function and arguments, and other values."""
    question, arguments = one.question, dict(one.arguments)
    for name, value in one.arguments.items():
        if isinstance(value, bool) or not is_told(value, question):
            continue
        other = other_value(value, rng, invent)
        question = str(other).join(pattern(value).split(question))
        arguments[name] = other
    doc = json.loads(json.dumps(one.doc)) | {"name": code_name(rng, invent)}
    schema = doc["parameters"]
    new = {
        name: code_name(rng, invent) if rng.random() < 0.3 else name
        for name in schema["properties"]
    }
    if len(set(new.values())) == len(new):
        schema["properties"] = {new[name]: value for name, value in schema["properties"].items()}
        schema["required"] = [new[name] for name in schema.get("required", [])]
        arguments = {new[name]: value for name, value in arguments.items()}
    return Shown(question, doc, arguments)


def other_value(value: Value, rng: random.Random, invent: Invent) -> Value:
    """A value of the same kind."""
    if isinstance(value, str):
        return invent(rng)
    digits = rng.choice((1, 2, 2, 3, 4))
    number = rng.randrange(10 ** (digits - 1), 10**digits)
    return number if isinstance(value, int) else number + rng.randrange(1, 10) / 10


def code_name(rng: random.Random, invent: Invent) -> str:
    """A name such as functions have."""
    return "_".join(re.findall("[a-z]+", invent(rng).lower()))


def texts(one: Shown) -> Iterator[str]:
    """What the tokenizer is trained on."""
    yield one.question
    yield re.sub("|".join(QWEN3_TAGS), "", one.call())
    yield f'"{tool_name(one.doc["name"])}"'
    for name, schema in one.doc["parameters"]["properties"].items():
        yield f'"{name}" {schema["type"]} optional: {schema.get("description", name)}'


def make_policy(args: argparse.Namespace) -> None:
    """Train the tokenizer and the policy."""
    rng = random.Random(f"{args.seed}/demonstrations")
    tasks = [task for name in CATEGORIES for task in load_tasks(f"{DATA}/train_{name}-*.tar")]
    every = [one for task in tasks if (one := shown(task))]
    roles = ["system\n", "user\n", "assistant\n"] * len(every)
    said = [text for one in every for text in texts(one)]
    tokenizer = train_tokenizer([*said, *roles], QWEN3_TAGS, VOCABULARY, TEMPLATE)
    invent = names_from_tokens(list(tokenizer.get_vocab()))
    codec = TextCodec(tokenizer)
    renderer = make_renderer(codec, "template")

    def draw() -> Episode:
        while True:
            one = rng.choice(every)
            if rng.random() < RENAMED:
                one = renamed(one, rng, invent)
            prompt = renderer.prompt_ids(one.messages(), tools_of([one.doc]))
            episode = demonstration(renderer, codec, prompt, [one.call()], lambda _: None)
            if len(episode[0]) <= LONGEST:
                return episode

    model = new_model(tokenizer, SIZE, args.seed)
    begin_from(model, tokenizer, OLDER, (), args.seed)
    for number in range(ROUNDS):
        if number > 0:
            rng.seed(f"{args.seed}/demonstrations/{number}")
            model = Qwen3ForCausalLM.from_pretrained(args.out, dtype=torch.float32)
        train(model, batches(draw, args.tokens_per_batch, rng), args.steps, args.peak, "clone")
        save(model, tokenizer, args.out)


def main() -> None:
    """Parse the command line and make the policy."""
    args = arguments(
        __doc__,
        Path("examples/function_calling/start_policy"),
        noise=None,
        steps=1_000,
        peak=1e-3,
        tokens=2_048,
    )
    need(DATA, "build_bfcl")
    torch.set_num_threads(args.threads)
    make_policy(args)


if __name__ == "__main__":
    main()
