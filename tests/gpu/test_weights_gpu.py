"""Weights reach engines on GPUs: trainer and sampler agree on every version.

The checks are those of tools/check_gpu.py. Each test has its own process: it chooses what Ray sees.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.system.test_sampler_trainer import ROOT

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
GPUS = torch.cuda.device_count()


def run(work: Path, backend: str, *, engines: int, ranks: int = 1) -> None:
    """Compare trainer and engine, which has `ranks` GPUs from number `engines` on."""
    program = (
        "from pathlib import Path\n"
        "from gpu_checks import check, weights\n"
        f"context = check.Context('cuda', Path({str(work)!r}))\n"
        f"print(weights.versions(context, {backend!r}, {engines}, {ranks}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'tools'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_weights_by_the_object_store_on_one_gpu(tmp_path: Path) -> None:
    run(tmp_path, "ray", engines=0)


@pytest.mark.skipif(GPUS < 2, reason=f"needs two GPUs, found {GPUS}")
def test_weights_by_nccl_to_one_gpu(tmp_path: Path) -> None:
    run(tmp_path, "nccl", engines=1)


@pytest.mark.skipif(GPUS < 3, reason=f"needs three GPUs, found {GPUS}")
def test_weights_by_nccl_to_an_engine_of_two_gpus(tmp_path: Path) -> None:
    run(tmp_path, "nccl", engines=1, ranks=2)
