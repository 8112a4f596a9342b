"""A checkpoint holds all that training needs, whatever layout wrote it and whatever layout reads
it.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from tests.system.parity import OF_LAYOUT, make_rows, save_model, settings

VOCABULARY = 101
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "norm_topk_prob": True,
}

FOUR = ["parallel.tensor=2", "parallel.pipeline=2", "parallel.interleave=2"]
CONTEXT = ["parallel.context=2", "precision.train=bf16"]

Runs = dict[str, tuple[list[str], Path | None]]


def launch(folder: Path, ranks: int, runs: Runs) -> None:
    job = folder / f"job-{'-'.join(runs)}.pickle"
    job.write_bytes(pickle.dumps({"rows": make_rows(VOCABULARY), "runs": runs, "folder": folder}))
    root = Path(__file__).parents[2]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": str(root),
    }
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
    ]
    command = [*torchrun, str(Path(__file__).with_name("checkpoint_ranks.py")), str(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]


def result(folder: Path, name: str) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    problem, metrics, weights = pickle.loads((folder / f"{name}.pickle").read_bytes())
    assert problem == ""
    return metrics, weights


def assert_same_bits(folder: Path, one: str, other: str) -> None:
    (metrics, weights), (metrics2, weights2) = result(folder, one), result(folder, other)
    assert metrics == metrics2
    assert all(torch.equal(weights[name], weights2[name]) for name in weights)


def assert_close(folder: Path, one: str, other: str) -> None:
    (metrics, weights), (metrics2, weights2) = result(folder, one), result(folder, other)
    for name in metrics.keys() - OF_LAYOUT:
        assert metrics2[name] == pytest.approx(metrics[name], rel=1e-4, abs=1e-6), name
    for name, tensor in weights.items():
        torch.testing.assert_close(weights2[name], tensor, rtol=1e-4, atol=1e-4, msg=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one` trained and saved by one rank; `four` by four ranks with four parts of the model, as
    was `four-from-one` after it loaded.
    """
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(1)
    save_model(Qwen3ForCausalLM(Qwen3Config(**SHAPE)).float(), folder / "model")
    one = settings(folder / "model")
    four = settings(folder / "model", *FOUR)
    launch(folder, 1, {"one": (one, None), "one-from-one": (one, folder / "one.checkpoint")})
    launch(folder, 4, {"four": (four, None), "four-from-one": (four, folder / "one.checkpoint")})
    return folder


def test_going_on_from_a_checkpoint_is_going_on(folder: Path) -> None:
    assert_same_bits(folder, "one", "one-from-one")


@pytest.mark.slow
def test_what_is_trained_while_it_is_written_does_not_reach_it(folder: Path) -> None:
    # `one` took its second update meanwhile, and still `one-from-one` had to take it.
    assert_same_bits(folder, "one", "one-from-one")
    launch(folder, 1, {"again": (settings(folder / "model"), folder / "one-from-one.checkpoint")})
    assert_same_bits(folder, "one", "again")


def test_more_ranks_go_on_from_the_checkpoint_of_one(folder: Path) -> None:
    assert_close(folder, "one", "four-from-one")


@pytest.mark.slow
def test_one_rank_goes_on_from_the_checkpoint_of_four(folder: Path) -> None:
    launch(folder, 1, {"one-from-four": (settings(folder / "model"), folder / "four.checkpoint")})
    assert_close(folder, "four", "one-from-four")


@pytest.mark.slow
def test_data_parallel_ranks_go_on_from_tensor_and_pipeline_parallel_ones_and_back(
    folder: Path,
) -> None:
    data = settings(folder / "model")
    launch(folder, 2, {"data": (data, None), "data-from-four": (data, folder / "four.checkpoint")})
    assert_close(folder, "four", "data-from-four")
    four = settings(folder / "model", *FOUR)
    launch(folder, 4, {"four-from-data": (four, folder / "data.checkpoint")})
    assert_close(folder, "data", "four-from-data")


@pytest.mark.slow
def test_context_parallel_ranks_go_on_in_bf16_with_their_float32_weights(folder: Path) -> None:
    spread = settings(folder / "model", *CONTEXT)
    launch(
        folder, 2, {"bf16": (spread, None), "bf16-from-bf16": (spread, folder / "bf16.checkpoint")}
    )
    assert_same_bits(folder, "bf16", "bf16-from-bf16")


@pytest.mark.slow
def test_experts_spread_over_ranks_go_on_where_they_are_not_spread_and_back(folder: Path) -> None:
    torch.manual_seed(2)
    save_model(Qwen3MoeForCausalLM(Qwen3MoeConfig(**SHAPE, **EXPERTS)).float(), folder / "moe")
    one, spread = settings(folder / "moe"), settings(folder / "moe", "parallel.expert=2")
    launch(folder, 1, {"moe": (one, None), "moe-from-moe": (one, folder / "moe.checkpoint")})
    launch(
        folder,
        2,
        {"spread": (spread, None), "spread-from-moe": (spread, folder / "moe.checkpoint")},
    )
    launch(folder, 1, {"moe-from-spread": (one, folder / "spread.checkpoint")})
    assert_same_bits(folder, "moe", "moe-from-moe")
    assert_close(folder, "moe", "spread-from-moe")
    assert_close(folder, "spread", "moe-from-spread")
