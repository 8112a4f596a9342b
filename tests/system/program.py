"""Starts the program as a user does, on a small budget."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEPS = 3
SMALL = [
    f"run.steps={STEPS}",
    "allocation.budget=24",
    "allocation.pool=24",
    "rollout.concurrency=32",
    "evaluation.tasks=4",
    "checkpoint.every=1",
    "checkpoint.keep_last=9",
    "checkpoint.export_hf_every=2",
]


def launch(run_dir: Path, *arguments: str, ranks: int = 1) -> subprocess.Popen[str]:
    """A run whose results go to `run_dir`; stdout and stderr are one pipe."""
    torchrun = [Path(sys.executable).with_name("torchrun"), "--nproc-per-node", str(ranks)]
    place = [f"run.directory={run_dir.parent}", f"run.name={run_dir.name}"]
    return subprocess.Popen(
        [
            *torchrun,
            "pretrain_trace.py",
            "--config",
            "configs/geo_hop_cpu.yaml",
            *SMALL,
            *place,
            *arguments,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(run_dir: Path, *arguments: str, ranks: int = 1) -> str:
    """Run to the end; returns what was printed."""
    process = launch(run_dir, *arguments, ranks=ranks)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output[-4000:]
    return output
