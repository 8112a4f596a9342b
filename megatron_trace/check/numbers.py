"""Numbers that no run can work with, whatever else is set."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from megatron_trace.config import Config, SettingError

POSITIVE = [
    "environment.max_turns", "run.rollouts", "allocation.budget", "allocation.expected_tokens", "allocation.pool",
    "rollout.workers", "rollout.tensor_parallel",
    "rollout.temperature", "rollout.max_turn_tokens", "rollout.max_history_tokens", "rollout.concurrency",
    "rollout.cpu_cache_gib", "rollout.block_size", "run.steps", "learning.learning_rate",
    "learning.predictor_learning_rate", "learning.predictor_hidden", "learning.predictor_epochs",
    "learning.predictor_batch", "learning.gradient_clip",
    "learning.clip_low", "learning.clip_high", "learning.importance_cap", "learning.updates_per_step",
    "learning.micro_batch_tokens", "evaluation.tasks", "checkpoint.keep_last", "stop.grace_s",
]  # fmt: skip
NOT_NEGATIVE = [
    "run.seed", "allocation.prior_rollouts", "rollout.max_restarts", "learning.weight_decay",
    "learning.warmup_steps", "stop.logprob_gap", "stop.kl",
    "stop.gradient_norm", "stop.malformed", "stop.entropy_below", "evaluation.every", "checkpoint.every",
    "checkpoint.keep_every", "checkpoint.export_hf_every",
]  # fmt: skip


def check_numbers(config: Config) -> None:
    """Refuse numbers that are not finite, have the wrong sign, or lie outside their bounds.

    Raises:
        SettingError: at the first that does.
    """
    settings = dict(_settings(config))
    for name, value in settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingError(name, value, "must be a finite number")
    for name in POSITIVE:
        if settings[name] is not None and settings[name] <= 0:
            raise SettingError(name, settings[name], "must be positive")
    for name in NOT_NEGATIVE:
        if settings[name] is not None and settings[name] < 0:
            raise SettingError(name, settings[name], "must not be negative")
    _check_bounds(config)


def _settings(config: Config) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every setting."""
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        for field in dataclasses.fields(values):
            yield f"{section.name}.{field.name}", getattr(values, field.name)


def _check_bounds(config: Config) -> None:
    stop, rollout = config.stop, config.rollout
    if stop.hang_s is not None and stop.hang_s <= 0:
        raise SettingError("stop.hang_s", stop.hang_s, "must be positive, or null to wait for ever")
    limit, grace = stop.time_limit_min, stop.grace_s
    if limit is not None and 60 * limit <= grace:
        raise SettingError(
            "stop.time_limit_min", limit, f"must be longer than stop.grace_s ({grace:g} s)"
        )
    if not 0.0 < rollout.memory <= 1.0:
        raise SettingError(
            "rollout.memory", rollout.memory, "must be a share, above 0 and at most 1"
        )
    if rollout.max_turn_tokens > rollout.max_history_tokens:
        remedy = f"must be at most rollout.max_history_tokens ({rollout.max_history_tokens}), which hold the turn"
        raise SettingError("rollout.max_turn_tokens", rollout.max_turn_tokens, remedy)
    average = config.learning.predictor_average
    if not 0.0 <= average < 1.0:
        raise SettingError(
            "learning.predictor_average", average, "must be a share, from 0 to below 1"
        )
    if config.learning.clip_low >= 1.0:
        raise SettingError("learning.clip_low", config.learning.clip_low, "must be below 1")
    if config.precision.rollout not in ("float32", "bfloat16", "float16"):
        remedy = "must be float32, bfloat16 or float16"
        raise SettingError("precision.rollout", config.precision.rollout, remedy)
