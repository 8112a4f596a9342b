"""What must be the same where a run is continued: its model, its tasks, and every setting that shapes learning."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_trace.config import Config
from megatron_trace.config.flatten import differences, flat_settings, flatten

LOCATIONS = ("data.", "model.path", "environment.options.corpus")
"""Settings that say where things are. A continued run may find them elsewhere: their content counts."""

FREE = (
    *LOCATIONS,
    "run.name", "run.directory", "run.steps", "run.save_trees", "run.loggers",
    "parallel.", "recompute.", "evaluation.", "checkpoint.", "stop.",
    "rollout.workers", "rollout.tensor_parallel", "rollout.concurrency", "rollout.memory", "rollout.cpu_cache_gib",
    "rollout.block_size", "rollout.eager", "rollout.weight_backend", "rollout.max_restarts", "rollout.ray_address",
    "learning.batching.micro_batch_tokens",
)  # fmt: skip
"""Settings that may change: where things are and how the work is spread. Data and model count by their content."""

IGNORED = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")
"""Keys of config.json that say nothing about the model."""


def identity(
    config: Config, model: Mapping[str, Any], tasks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Dotted names with their values.

    Args:
        model: the start policy's config.json.
        tasks: of training; their order and ids count.
    """
    settings = {
        name: value
        for name, value in flat_settings(config).items()
        if not name.startswith("model.")
    }
    described = {key: value for key, value in model.items() if key not in IGNORED}
    settings |= flatten({"model.config": described})
    flat = {name: value for name, value in settings.items() if not name.startswith(FREE)}
    ids = json.dumps([task["id"] for task in tasks]).encode()
    return flat | {
        "data.train": f"{len(tasks)} tasks, ids with SHA-256 {hashlib.sha256(ids).hexdigest()[:16]}"
    }


def check_same(checkpoint: Path, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to continue another run.

    Raises:
        OtherRun: model, tasks or settings differ; the message lists the keys with both values.
    """
    differing = [
        f"  {one.name}: {one.first!r} in the checkpoint, {one.second!r} now"
        for one in differences(stored, now, absent="absent")
    ]
    if differing:
        raise OtherRun(
            f"{checkpoint} belongs to another model or configuration:\n"
            + "\n".join(differing)
            + "\n"
            "set them back to continue it, choose another run.name, or set checkpoint.resume=false "
            "to move it aside and start anew"
        )


class OtherRun(ValueError):
    """A checkpoint is of another model or configuration."""
