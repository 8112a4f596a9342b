"""From the command line to a checked `Config`: every mistake is one line, before anything expensive starts."""

import argparse
import dataclasses
import difflib
import glob
import json
import os
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml
from braceexpand import braceexpand
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from megatron_trace.architecture import ARCHITECTURES, check_architecture
from megatron_trace.check import SettingError
from megatron_trace.check.devices import check_devices
from megatron_trace.check.layout import check_layout
from megatron_trace.check.learning import check_learning
from megatron_trace.check.loggers import check_loggers
from megatron_trace.check.weights import check_weights
from megatron_trace.config import Config
from megatron_trace.folders import companions, is_checkpoint


@dataclasses.dataclass(frozen=True)
class Command:
    """What the command line asked for.

    Attributes:
        replay: folder of a run whose saved trees are trained on, without a fleet; None to sample.
        rollout_only: sample and save trees, train nothing.
        dry_run: only check and plan; nothing is checked yet but the settings' names and types.
    """

    config: Config
    replay: Path | None
    rollout_only: bool
    dry_run: bool = False


def parse_command(argv: Sequence[str]) -> Command:
    """Read `--config FILE`, the dotted overrides and the modes; checks every setting.

    Raises:
        SettingError: a setting is unknown, of the wrong type, or cannot work.
        SystemExit: `--help`, or an unknown option.
    """
    parser = argparse.ArgumentParser(
        prog="pretrain_trace.py",
        description="Train a language-model agent with TRACE. Settings are overridden as section.name=value.",
        epilog="settings (default: meaning)\n" + "\n".join(_help_lines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file with the settings that differ from the defaults"
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--replay", metavar="DIR", type=Path, help="train on the saved trees of run DIR, without a fleet"
    )
    modes.add_argument("--rollout-only", action="store_true", help="sample and save trees, train nothing")
    modes.add_argument(
        "--dry-run", action="store_true", help="check everything and plan the memory, start nothing"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="section.name=value", help="settings, after the file's"
    )
    options = parser.parse_args(argv)
    config = load_config(options.config, options.overrides)
    if options.dry_run:
        return Command(config, None, rollout_only=False, dry_run=True)
    check_config(config, world_size=int(os.environ.get("WORLD_SIZE", "1")))
    if options.replay and not list(options.replay.glob("trees/step_*.jsonl.gz")):
        raise SettingError(
            "--replay", str(options.replay), "holds no trees/step_*.jsonl.gz; name a run's folder"
        )
    if options.rollout_only and is_checkpoint(Path(config.model.path)):
        remedy = "rollouts alone need a HF folder; make one with tools/convert_megatron_to_hf.py"
        raise SettingError("model.path", config.model.path, remedy)
    check_weights(config)
    return Command(config, options.replay, options.rollout_only)


def load_config(file: str | None, overrides: Sequence[str] = ()) -> Config:
    """Defaults, then `file`, then `overrides`.

    Raises:
        SettingError: the file is missing or no YAML mapping, a key is unknown, or a value has the wrong type.
    """
    layers: list[DictConfig] = []
    if file is not None:
        try:
            loaded = OmegaConf.load(file)
        except OSError as error:
            raise SettingError(
                "--config", file, f"cannot be read ({error.strerror}); name a YAML file"
            ) from error
        except yaml.YAMLError as error:
            raise SettingError("--config", file, "is not YAML: " + " ".join(str(error).split())) from error
        if not isinstance(loaded, DictConfig):
            raise SettingError("--config", file, "must hold sections such as `run:`")
        layers.append(loaded)
    for override in overrides:
        if "=" not in override:
            raise SettingError("override", override, "write it as section.name=value")
        layers.append(OmegaConf.from_dotlist([override]))
    merged = OmegaConf.structured(Config)
    for layer in layers:
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            _explain(error, layer)
    return cast(Config, OmegaConf.to_object(merged))


def _explain(error: OmegaConfBaseException, layer: DictConfig) -> NoReturn:
    name = error.full_key or ""
    value = OmegaConf.select(layer, name, throw_on_missing=False) if name else None
    while isinstance(value, DictConfig) and len(value) and name not in _settings():  # an unknown section
        key = next(iter(value))
        name, value = f"{name}.{key}", value[key]
    if isinstance(error, ConfigKeyError) or name not in _settings():
        close = difflib.get_close_matches(name, list(_settings()), n=1, cutoff=0.5)
        remedy = f"no such setting; did you mean {close[0]}?" if close else "no such setting; see --help"
        raise SettingError(name, value, remedy) from None
    kind = _settings()[name].type
    choices = (
        f" (one of {', '.join(k.value for k in kind)})"
        if isinstance(kind, type) and issubclass(kind, Enum)
        else ""
    )
    raise SettingError(name, value, f"must be of type {_type_name(kind)}{choices}") from None


def _settings() -> dict[str, dataclasses.Field]:
    """Dotted name -> field of every setting."""
    return {
        f"{section.name}.{field.name}": field
        for section in dataclasses.fields(Config)
        for field in dataclasses.fields(cast(Any, section.type))
    }


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _help_lines() -> Iterator[str]:
    for name, field in _settings().items():
        default = (
            field.default if field.default is not dataclasses.MISSING else cast(Any, field.default_factory)()
        )
        shown = default.value if isinstance(default, Enum) else default
        yield f"  {name} = {'' if shown == '' else shown}"
        yield textwrap.fill(field.metadata["meaning"], 100, initial_indent=" " * 6, subsequent_indent=" " * 6)


def find_shards(pattern: str) -> list[str]:
    """Files of a WebDataset pattern: braces, then globs, sorted."""
    return sorted(path for part in braceexpand(pattern) for path in glob.glob(part))


def check_config(config: Config, *, world_size: int) -> None:
    """Refuse what cannot work.

    Raises:
        SettingError: at the first setting that cannot.
    """
    check_settings(config, world_size=world_size)
    check_devices(config)
    _check_shards(config)
    _check_run_directory(config)


def check_settings(config: Config, *, world_size: int) -> None:
    """Refuse what cannot work on any machine; of the model only its config.json is read.

    Raises:
        SettingError: at the first setting that cannot.
    """
    _check_numbers(config)
    check_learning(config)
    check_loggers(config)
    _check_allocation(config)
    _check_model(config)
    check_layout(config, read_model_config(config.model.path), world_size)


def problems_here(config: Config) -> list[str]:
    """What stands in the way of a run on this machine, which another may not have: GPUs, data, weights, folders."""
    problems = []
    for check in (check_devices, check_weights, _check_shards, _check_run_directory):
        try:
            check(config)
        except SettingError as error:
            problems.append(str(error))
    return problems


def _check_numbers(config: Config) -> None:
    positive = [
        "run.steps", "parallel.tensor", "parallel.pipeline", "parallel.expert", "environment.max_turns",
        "allocation.budget", "rollout.workers", "rollout.tensor_parallel", "rollout.temperature",
        "rollout.max_turn_tokens", "rollout.max_history_tokens", "rollout.concurrency",
        "rollout.cpu_cache_gib", "learning.learning_rate",
        "learning.predictor_learning_rate", "learning.predictor_hidden", "learning.gradient_clip",
        "learning.clip_low", "learning.clip_high", "learning.importance_cap", "learning.updates_per_step",
        "learning.micro_batch_tokens", "evaluation.tasks", "checkpoint.keep_last", "stop.grace_s",
    ]  # fmt: skip
    not_negative = [
        "learning.weight_decay",
        "learning.predictor_weight",
        "learning.warmup_steps",
        "evaluation.every",
        "checkpoint.every",
        "checkpoint.keep_every",
        "checkpoint.export_hf_every",
    ]
    for name in positive + not_negative:
        value = _get(config, name)
        if value < 0 or (value == 0 and name in positive):
            raise SettingError(
                name, value, "must be positive" if name in positive else "must not be negative"
            )
    if config.stop.hang_s is not None and config.stop.hang_s <= 0:
        raise SettingError("stop.hang_s", config.stop.hang_s, "must be positive, or null to wait for ever")
    limit, grace = config.stop.time_limit_min, config.stop.grace_s
    if limit is not None and 60 * limit <= grace:
        raise SettingError("stop.time_limit_min", limit, f"must be longer than stop.grace_s ({grace:g} s)")
    if not 0.0 < config.rollout.memory <= 1.0:
        raise SettingError("rollout.memory", config.rollout.memory, "must be a share, above 0 and at most 1")
    if config.learning.clip_low >= 1.0:
        raise SettingError("learning.clip_low", config.learning.clip_low, "must be below 1")
    if config.precision.rollout not in ("float32", "bfloat16", "float16"):
        raise SettingError(
            "precision.rollout", config.precision.rollout, "must be float32, bfloat16 or float16"
        )


def _get(config: Config, name: str) -> Any:
    section, key = name.split(".")
    return getattr(getattr(config, section), key)


def _check_allocation(config: Config) -> None:
    settings = config.allocation
    if settings.strategy not in ("trace", "uniform"):
        raise SettingError("allocation.strategy", settings.strategy, "must be trace or uniform")
    if settings.strategy == "uniform":
        if settings.group < 2:
            raise SettingError(
                "allocation.group", settings.group, "must be at least 2: one rollout has no contrast"
            )
        if settings.budget % settings.group:
            remedy = f"must be a multiple of allocation.group ({settings.group}) so that it is spent exactly"
            raise SettingError("allocation.budget", settings.budget, remedy)
        return
    floor, bare = max(2, settings.floor), settings.bare_rollouts
    if bare < floor:
        raise SettingError(
            "allocation.bare_rollouts",
            bare,
            f"is below allocation.floor ({floor}): raise it, or lower the floor",
        )
    if settings.budget < bare:
        remedy = f"must be at least allocation.bare_rollouts ({bare})"
        raise SettingError("allocation.budget", settings.budget, remedy)
    if settings.root_cap is not None and settings.root_cap < floor:
        raise SettingError(
            "allocation.root_cap", settings.root_cap, f"must be at least allocation.floor ({floor})"
        )
    if settings.prefix_cap is not None and settings.prefix_cap < 1:
        raise SettingError(
            "allocation.prefix_cap", settings.prefix_cap, "must be at least 1, or null for no cap"
        )
    fewest = 1 if settings.root_cap is None else -(-bare // settings.root_cap)
    if settings.pool < fewest or fewest * floor > bare:
        remedy = (
            f"{bare} bare rollouts cannot be split over it with floor {floor} and cap {settings.root_cap}"
        )
        raise SettingError("allocation.pool", settings.pool, remedy)


def read_model_config(path: str) -> dict[str, Any]:
    """The `config.json` of `model.path`, a HF folder or a checkpoint.

    Raises:
        SettingError: there is none, or it is no JSON.
    """
    file = companions(Path(path)) / "config.json"
    try:
        return json.loads(file.read_text())
    except OSError:
        raise SettingError(
            "model.path", path, "must be a HF model folder or a checkpoint; it has no config.json"
        ) from None
    except json.JSONDecodeError:
        raise SettingError(
            "model.path", path, "its config.json is not JSON; fetch the folder again"
        ) from None


def _check_model(config: Config) -> None:
    model = read_model_config(config.model.path)
    architectures = model.get("architectures") or ["none"]
    if architectures[0] not in ARCHITECTURES:
        remedy = f"holds a {architectures[0]}; supported is {', '.join(ARCHITECTURES)}"
        raise SettingError("model.path", config.model.path, remedy)
    try:
        check_architecture(model)
    except ValueError as error:
        raise SettingError("model.path", config.model.path, str(error)) from None
    longest = model["max_position_embeddings"]
    if config.rollout.max_history_tokens > longest:
        remedy = f"is more than the model's {longest} positions; lower it"
        raise SettingError("rollout.max_history_tokens", config.rollout.max_history_tokens, remedy)


def _check_run_directory(config: Config) -> None:
    directory = Path(config.run.directory)
    if not config.run.name or "/" in config.run.name:
        raise SettingError("run.name", config.run.name, "must be the name of a folder, without a slash")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for folder in (directory, directory / config.run.name, directory / config.run.name / "checkpoints"):
            if folder.exists():
                with tempfile.TemporaryFile(dir=folder):
                    pass
    except OSError as error:
        remedy = f"results cannot be written there ({error.strerror}); choose a folder that is writable"
        raise SettingError("run.directory", config.run.directory, remedy) from None


def _check_shards(config: Config) -> None:
    patterns = {"data.train": config.data.train}
    patterns |= {f"data.heldout.{name}": pattern for name, pattern in config.data.heldout.items()}
    if corpus := config.environment.options.get("corpus"):
        patterns["environment.options.corpus"] = corpus
    for name, pattern in patterns.items():
        parts = list(braceexpand(pattern)) if pattern else []
        missing = [part for part in parts if not glob.glob(part)]
        if not parts or missing:
            remedy = f"no such shard: {missing[0]}" if missing else "must name WebDataset shards"
            raise SettingError(
                name, pattern, f"{remedy}; build them with tools/build_geo_hop.py or correct the path"
            )
