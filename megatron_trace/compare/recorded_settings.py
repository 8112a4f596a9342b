"""The settings that a record keeps: those that shape a trial's result."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from megatron_trace.compare.sweep import Sweep
from megatron_trace.config import Config
from megatron_trace.config.flatten import flat_settings
from megatron_trace.training.identity import FREE, LOCATIONS

COUNTED = ("run.steps", "evaluation.", *LOCATIONS)
"""Settings that a continued run may change, and a result may not."""

STRATEGY_HASH = "allocation.strategy.sha256"
"""Recorded where the strategy is a file: the beginning of its content's hash."""


def recorded_settings(config: Config, sweep: Sweep) -> dict[str, Any]:
    """By dotted name, the strategy and the settings that differ from the defaults.

    Settings that only say where a run lies or how its work is spread are left out.
    """
    defaults = _counted_settings(Config())
    recorded: dict[str, Any] = {}
    for name, value in _counted_settings(config).items():
        if value != defaults.get(name):
            recorded[name] = value
    strategy = config.allocation.strategy
    recorded["allocation.strategy"] = strategy
    if strategy.endswith(".py") and Path(strategy).is_file():
        recorded[STRATEGY_HASH] = hashlib.sha256(Path(strategy).read_bytes()).hexdigest()[:16]
    # With a total in rollouts, run.steps is only an upper bound: it says nothing about the result.
    if config.run.rollouts is not None:
        recorded.pop("run.steps", None)
    if sweep.world is not None:
        recorded |= _simulation_settings(sweep.world, sweep)
    # Settings are compared with those of a JSON file, where a tuple is a list.
    return json.loads(json.dumps(recorded))


def _counted_settings(config: Config) -> dict[str, Any]:
    free = tuple(name for name in FREE if name not in COUNTED)
    return {
        name: value for name, value in flat_settings(config).items() if not name.startswith(free)
    }


def _simulation_settings(world: dict[str, Any], sweep: Sweep) -> dict[str, Any]:
    from megatron_trace.simulate.config import WorldConfig

    defaults = {knob.name: knob.default for knob in fields(WorldConfig)}
    found = {f"world.{name}": value for name, value in world.items() if value != defaults[name]}
    return found | {"simulate.repeats": sweep.repeats, "simulate.step_size": sweep.step_size}
