"""vLLM and Megatron say the same of the same tokens, before training and after several weight
updates.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, Qwen2Config, Qwen3Config, Qwen3MoeConfig

from megatron_trace.models.predictor import FILE, shapes
from tests.system.conftest import make_policy

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "precision.train=float32",
    "precision.rollout=float32",
    "rollout.weight_backend=ray",
    "rollout.max_turn_tokens=12",
    "rollout.max_history_tokens=512",
    "rollout.concurrency=16",
    "rollout.cpu_cache_gib=1",
    "learning.optimizer.learning_rate=0.001",
    "allocation.budget=24",
    "allocation.strategy=trace_paper",
    "allocation.bare_share=0.6667",
    "allocation.options.trace_paper.floor=2",
]


def add_predictor(model: Path) -> None:
    """A random head: one that starts at 0.5 everywhere would agree with any other."""
    generator = torch.Generator().manual_seed(3)
    # With larger weights its predictions are nearly 0 or 1, and hardly differ.
    head = {name: torch.randn(shape, generator=generator) / 8 for name, shape in shapes(64).items()}
    save_file(head, model / FILE)


EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2}
CASES = [
    (Qwen3Config, True, "parallel.tensor=2", {}),
    (Qwen3Config, False, "parallel.pipeline=2", {}),
    (
        Qwen2Config,
        True,
        "parallel.tensor=2",
        {
            "num_attention_heads": 2,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 900.0,
                "factor": 4.0,
                "original_max_position_embeddings": 128,
                "attention_factor": 1.3,
            },
        },
    ),
    (
        LlamaConfig,
        False,
        "parallel.pipeline=2",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 700.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    (
        Qwen3MoeConfig,
        False,
        "parallel.expert=2",
        EXPERTS | {"moe_intermediate_size": 32, "norm_topk_prob": True},
    ),
    (
        Qwen3MoeConfig,  # vLLM pads the experts' width on the CPU
        True,
        "parallel.expert=2",
        EXPERTS | {"moe_intermediate_size": 40, "norm_topk_prob": False, "mlp_only_layers": [0]},
    ),
]


@pytest.mark.parametrize(
    ("family", "tied", "layout", "special"),
    [CASES[0], *(pytest.param(*c, marks=pytest.mark.slow) for c in CASES[1:])],
)
def test_sampler_and_trainer_agree_on_every_version(
    tmp_path, family, tied, layout, special
) -> None:
    # Odd, so no layout divides the vocabulary.
    model = make_policy(tmp_path / "model", tied=tied, vocabulary=261, family=family, **special)
    compare(tmp_path, model, layout)


@pytest.mark.slow
def test_they_agree_where_thoughts_are_stripped_from_later_prompts(tmp_path) -> None:
    tags = ("<think>", "</think>")
    model = make_policy(tmp_path / "model", tied=True, vocabulary=261, added=tags)
    settings = ("environment.thoughts=strip", "rollout.max_turn_tokens=80")
    versions = compare(tmp_path, model, *settings)
    assert all(seen["new_histories"] > 5 for seen in versions)


def compare(tmp_path: Path, model: Path, *settings: str) -> list[dict[str, float]]:
    """What `coupled.py` sees of every version, in which sampler and trainer agree."""
    out = tmp_path / "seen.json"
    add_predictor(model)
    torchrun = [Path(sys.executable).with_name("torchrun"), "--nproc-per-node", "2"]
    result = subprocess.run(
        [*torchrun, "tests/system/coupled.py", str(out), str(model), *SETTINGS, *settings],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    versions = json.loads(out.read_text())
    assert len(versions) == 4
    for seen in versions:
        assert seen["logprob_gap"] < 1e-4
        assert seen["prediction_gap"] < 1e-4
    # Predictions that all are the same would agree by accident.
    assert max(seen["prediction_spread"] for seen in versions) > 0.01
    return versions
