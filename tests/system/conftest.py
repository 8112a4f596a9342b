"""Tiny random policies, made on the spot, and an environment whose answer is a letter."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from megatron_trace.envs import Environment, Reply, StepResult
from tests.system.program import finish

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file

STOP = ("</search>", "</answer>")


class LetterEnvironment(Environment):
    """Every turn but the last brings the number of turns; tasks are told apart by their letter."""

    stop = STOP

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, str]]:
        self.state = {"letter": task["letter"], "turns": 0, "seen": ""}
        return [
            {
                "role": "user",
                "content": f"Which letter is {task['letter']} ? " + "Think well . " * 8,
            }
        ]

    def step(self, action: str) -> StepResult:
        self.state["turns"] += 1
        self.state["seen"] += action
        if self.state["turns"] == 3:
            return StepResult(
                "", done=True, reward=float(len(self.state["seen"]) % 2), malformed=False
            )
        observation = f"\n[{self.state['turns']} {len(self.state['seen'])}]\n"
        return StepResult(observation, done=False, reward=0.0, malformed=False)

    def snapshot(self) -> dict[str, Any]:
        return dict(self.state)

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        self.state = dict(snapshot)


def letter_environments() -> Callable[[], LetterEnvironment]:
    return LetterEnvironment


class LetterChat(LetterEnvironment):
    """The same as a chat."""

    chat = True
    stop = ()

    def step(self, action: Reply) -> StepResult:
        return super().step(action.text + action.thought)


def letter_chats() -> Callable[[], LetterChat]:
    return LetterChat


def make_tokenizer(added: Sequence[str] = STOP) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(list(added))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n"
    )
    return fast


def make_policy(
    folder: Path,
    *,
    tied: bool,
    vocabulary: int = 512,
    family: type[PreTrainedConfig] = Qwen3Config,
    added: Sequence[str] = STOP,
    **special: Any,
) -> Path:
    """A random policy, a Qwen3 unless `family` says otherwise, whose stop tokens are likely enough
    to end turns. Its tokenizer has the tokens `added`.
    """
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
    }
    config = family(vocab_size=vocabulary, tie_word_embeddings=tied, **sizes | special)
    model = AutoModelForCausalLM.from_config(config)
    tokenizer = make_tokenizer(added)
    config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def finish_once(run_dir: Path, *arguments: str, ranks: int = 1) -> Path:
    """Run to the end, in one of the test processes; the others wait for it."""
    with FileLock(f"{run_dir}.lock"):
        if not (run_dir / "finished").exists():
            finish(run_dir, *arguments, ranks=ranks)
    return run_dir


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A run of three steps on two data-parallel ranks, which nobody disturbed."""
    folder = tmp_path_factory.getbasetemp()
    # The folder of a test process of pytest-xdist is in the one that all of them share.
    if hasattr(request.config, "workerinput"):
        folder = folder.parent
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    return finish_once(runs / "trained", ranks=2)


@pytest.fixture(scope="session")
def replayed(trained: Path) -> Path:
    """The training steps of `trained` on its trees, by one rank."""
    return finish_once(trained.with_name("replayed"), "--replay", str(trained))
