"""Every model family, in odd shapes, says and learns the same as in `transformers`, whatever the
layout.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from tests.system.parity import (
    assert_same_bits,
    assert_same_training,
    assert_speaks_like_transformers,
    launch,
    make_rows,
    save_model,
    settings,
)

VOCABULARY = 509
# Without the fourth, one of two data-parallel ranks has a dummy micro-batch while the other learns.
ROWS = [row for number, row in enumerate(make_rows(VOCABULARY)) if number != 3]
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "hidden_size": 66,
    "intermediate_size": 50,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "rms_norm_eps": 1e-5,
}
EXPERTS: dict[str, Any] = {
    "head_dim": 18,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 22,
    "router_aux_loss_coef": 0.5,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 700.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 900.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}

FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    # Neither hidden_size / heads nor a power of two is the width of a head.
    "qwen3": lambda: Qwen3Config(
        **SHAPE, head_dim=20, tie_word_embeddings=True, rope_parameters=LINEAR
    ),
    # hidden_size / heads is, and config.json does not say so.
    "qwen2": lambda: Qwen2Config(**SHAPE | {"hidden_size": 72}, rope_parameters=YARN),
    "llama": lambda: LlamaConfig(
        **SHAPE, head_dim=14, tie_word_embeddings=True, rope_parameters=LLAMA3
    ),
    "moe": lambda: Qwen3MoeConfig(**SHAPE, **EXPERTS, norm_topk_prob=True),
    "moe-mixed": lambda: Qwen3MoeConfig(
        **SHAPE, **EXPERTS, norm_topk_prob=False, mlp_only_layers=[0], rope_parameters=YARN
    ),
}
SPARSE = ("moe", "moe-mixed")
TWO: dict[str, list[str]] = {
    "tensor2": ["parallel.tensor=2"],
    "pipeline2": ["parallel.pipeline=2"],
    "expert2": ["parallel.expert=2"],
    "tensor2-expert2-whole": ["parallel.tensor=2", "parallel.expert=2", "parallel.expert_tensor=1"],
}
FOUR: dict[str, list[str]] = {
    "tensor2-pipeline2": ["parallel.tensor=2", "parallel.pipeline=2"],
    "tensor2-expert2": ["parallel.tensor=2", "parallel.expert=2"],
    "pipeline2-expert2": ["parallel.pipeline=2", "parallel.expert=2"],
    "data4-expert2": ["parallel.expert=2"],
    "context2-expert2": ["parallel.context=2", "parallel.expert=2", "recompute.granularity=full"],
}


def cases(layouts: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Layout and family; only experts can be spread over expert-parallel ranks."""
    return [
        (layout, family)
        for family in FAMILIES
        for layout, sizes in layouts.items()
        if family in SPARSE or not any("expert=" in size for size in sizes)
    ]


def make_model(name: str, folder: Path) -> None:
    torch.manual_seed(3)
    config = FAMILIES[name]()
    save_model(AutoModelForCausalLM.from_config(config).float(), folder)


def run(folder: Path, ranks: int, layouts: dict[str, list[str]]) -> None:
    runs = {
        f"{layout}-{family}": settings(folder / family, *layouts[layout])
        for layout, family in cases(layouts)
    }
    launch(folder, ranks, runs, ROWS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        make_model(family, folder / family)
    run(folder, 1, {"one": []})
    run(folder, 2, TWO)
    return folder


@pytest.fixture(scope="module")
def wide(folder: Path) -> Path:
    run(folder, 4, FOUR)
    return folder


def seen(folder: Path, layout: str, family: str) -> dict[str, Any]:
    return pickle.loads((folder / f"{layout}-{family}.pickle").read_bytes())


def check(folder: Path, layout: str, family: str) -> None:
    found = seen(folder, layout, family)
    assert_speaks_like_transformers(found, folder / family, ROWS)
    assert_same_bits(folder / family, folder / f"{layout}-{family}-start")
    assert found["metadata"] == [(name, t.dtype, tuple(t.shape)) for name, t in found["start"]]
    assert_same_training(seen(folder, "one", family), found)


@pytest.mark.parametrize(("layout", "family"), [*cases({"one": []}), *cases(TWO)])
def test_a_family_is_the_same_on_one_and_two_ranks(folder: Path, layout: str, family: str) -> None:
    check(folder, layout, family)


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "family"), cases(FOUR))
def test_a_family_is_the_same_on_four_ranks(wide: Path, layout: str, family: str) -> None:
    check(wide, layout, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_reaches_every_tensor(folder: Path, family: str) -> None:
    one = seen(folder, "one", family)
    for name, before in one["start"]:
        assert not torch.equal(before, one["end"][name]), name
