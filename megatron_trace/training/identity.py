"""What must be the same to continue a run: model, tasks, and every setting that shapes learning."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron_trace.allocation import advantage_settings
from megatron_trace.config import Config
from megatron_trace.config.flatten import differences, flat_settings, flatten
from megatron_trace.envs import ENVIRONMENTS

LOCATIONS = ("data.", "model.path")
"""Settings that say where data and model are. They may move; their content must be the same."""

FREE = (
    *LOCATIONS,
    "run.name", "run.directory", "run.steps", "run.save_trees", "run.loggers",
    "parallel.", "recompute.", "evaluation.", "checkpoint.", "stop.",
    "environment.step_timeout_s", "environment.task_timeout_s", "environment.retries",
    "rollout.workers", "rollout.tensor_parallel", "rollout.concurrency", "rollout.memory", "rollout.cpu_cache_gib",
    "rollout.block_size", "rollout.eager", "rollout.weight_backend", "rollout.max_restarts", "rollout.ray_address",
    "learning.batching.micro_batch_tokens", "learning.batching.pack", "learning.batching.merge",
)  # fmt: skip
"""Settings that may change: where things are, and how the work is distributed."""

PLUGINS = ("allocation.strategy", "learning.advantage.name", "environment.name")
"""Settings that may name a FILE.py."""

IGNORED = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")
"""Keys of config.json that say nothing about the model."""


def identity(
    config: Config, model: Mapping[str, Any], contents: Mapping[str, Any]
) -> dict[str, Any]:
    """Dotted names of everything that must be the same, with their values.

    Args:
        model: the start policy's config.json.
        contents: what files hold: tasks, weights, and what the environment reads.
    """
    free = ("model.", *FREE)
    options = _free_options(config)
    values = {}
    for name, value in flat_settings(config).items():
        if not name.startswith(free) and name not in options:
            values[name] = _file_content(value) if name in PLUGINS else value
    # Null means the strategy's own. A later version may give the strategy another.
    named = advantage_settings(config.allocation, config.learning.advantage).name
    values["learning.advantage.name"] = _file_content(named)
    described = {key: value for key, value in model.items() if key not in IGNORED}
    values |= flatten({"model.config": described})
    return {**values, **contents}


def _file_content(name: str | None) -> str | None:
    """A plug-in's name; for FILE.py its stem and a hash of its text, which hold wherever it lies."""
    if name is None or not name.endswith(".py"):
        return name
    digest = hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16]
    return f"{Path(name).name} with SHA-256 {digest}"


def _free_options(config: Config) -> list[str]:
    """Options of the environment that only say where something is, or how it is done."""
    environment = config.environment
    options = ENVIRONMENTS.settings(environment.name, environment.options)
    return [one.name for one in options if one.free]


def check_same(checkpoint: Path, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to continue another run.

    Args:
        stored: `identity` in the checkpoint.
        now: `identity` of this run.

    Raises:
        OtherRun: they differ; the message lists the names with both values.
    """
    lines = []
    for one in differences(stored, now, absent="absent"):
        lines.append(f"  {one.name}: {one.first!r} in the checkpoint, {one.second!r} now")
    if lines:
        raise OtherRun(
            "\n".join(
                [
                    f"{checkpoint} belongs to another model or configuration:",
                    *lines,
                    "set them back to continue it, choose another run.name, or set checkpoint.resume=false to move "
                    "it aside and start from the beginning",
                ]
            )
        )


class OtherRun(ValueError):
    """A checkpoint is of another model or configuration."""
