"""Weights reach engines on GPUs: trainer and sampler agree on every version.

NCCL refuses two ranks on one GPU, so the train rank has the first GPU and the engine the others.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.system.conftest import make_policy
from tests.system.test_sampler_trainer import ROOT, SETTINGS, add_predictor

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
GPUS = torch.cuda.device_count()
BF16 = [
    "precision.train=bf16",
    "precision.rollout=bfloat16",
    "rollout.memory=0.3",
    "rollout.block_size=null",
]
# Mean over all sampled tokens in nats, and over all anchors; both sides round to bf16.
LOGPROB, PREDICTION = 0.1, 0.02


def versions(
    folder: Path, engine_gpus: str, *changed: str, tensor_parallel: int = 1
) -> list[dict[str, float]]:
    """What coupled.py says of each version, with the train rank on GPU 0."""
    model, out = make_policy(folder / "model", tied=True), folder / "seen.json"
    add_predictor(model)
    given = [*SETTINGS, *BF16, f"rollout.tensor_parallel={tensor_parallel}", *changed]
    environment = {
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "0",
        "ENGINE_GPUS": engine_gpus,
    }
    result = subprocess.run(
        [sys.executable, "tests/system/coupled.py", str(out), str(model), *given],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(out.read_text())


def assert_agree(seen: list[dict[str, float]]) -> None:
    assert len(seen) == 4
    for version in seen:
        assert version["logprob_gap"] < LOGPROB
        assert version["prediction_gap"] < PREDICTION
    assert max(version["prediction_spread"] for version in seen) > 0.01


def test_weights_by_the_object_store_on_one_gpu(tmp_path: Path) -> None:
    assert_agree(versions(tmp_path, "0"))


@pytest.mark.skipif(GPUS < 2, reason=f"needs two GPUs, found {GPUS}")
def test_weights_by_nccl_to_one_gpu(tmp_path: Path) -> None:
    assert_agree(versions(tmp_path, "1", "rollout.weight_backend=nccl"))


@pytest.mark.skipif(GPUS < 3, reason=f"needs three GPUs, found {GPUS}")
def test_weights_by_nccl_to_an_engine_of_two_gpus(tmp_path: Path) -> None:
    nccl = "rollout.weight_backend=nccl"
    assert_agree(versions(tmp_path, "1,2", nccl, tensor_parallel=2))
