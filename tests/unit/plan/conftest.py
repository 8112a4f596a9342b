"""The shipped models' descriptions, configurations without a file, and small policies."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.check.load import load_config
from megatron_trace.config import Config
from tests.unit.plan.a_step import TOKENS

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shipped configs name their files from the repository's root; and nobody is a train rank."""
    monkeypatch.chdir(ROOT)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    yield


@pytest.fixture
def model() -> Callable[[str], dict[str, Any]]:
    """config.json of a shipped model."""
    return lambda name: json.loads((ROOT / "models" / name / "config.json").read_text())


@pytest.fixture
def settings() -> Callable[..., Config]:
    """The defaults with overrides, for Qwen3-14B unless said otherwise."""
    return lambda *overrides: load_config(None, ["model.path=models/Qwen3-14B", *overrides])


@pytest.fixture
def start_policy() -> Iterator[Any]:
    """Makes the policy of configs/geo_hop_cpu.yaml with overrides."""
    from megatron_trace.policy.distributed import stop
    from megatron_trace.policy.policy import Policy

    def make(*overrides: str) -> tuple[Any, Any]:
        config = load_config(
            "configs/geo_hop_cpu.yaml",
            [f"learning.batching.micro_batch_tokens={TOKENS}", *overrides],
        )
        return config, Policy(config)

    yield make
    stop()


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """Folder of a small model that does not normalise its heads."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    described = LlamaConfig(
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        vocab_size=2048,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rms_norm_eps=1e-6,
    )
    AutoModelForCausalLM.from_config(described).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def sparse_model(tmp_path: Path) -> Path:
    """Folder of a small model with experts."""
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    sizes = {
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "vocab_size": 2048,
    }
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    experts = {
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 96,
        "norm_topk_prob": True,
    }
    described = Qwen3MoeConfig(**sizes, **heads, **experts, max_position_embeddings=1024)
    AutoModelForCausalLM.from_config(described).save_pretrained(tmp_path)
    return tmp_path
