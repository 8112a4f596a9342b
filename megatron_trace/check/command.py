"""From the command line to a checked `Config`; every mistake is one line."""

import argparse
import dataclasses
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from megatron_trace.check.devices import check_devices
from megatron_trace.check.help import settings_help
from megatron_trace.check.layout import check_layout
from megatron_trace.check.learning import check_learning
from megatron_trace.check.limits import check_limits
from megatron_trace.check.loggers import check_loggers
from megatron_trace.check.model import check_model, read_model_config
from megatron_trace.check.plugins import check_environment, check_estimator, check_strategy
from megatron_trace.check.results import check_run_directory, check_run_name
from megatron_trace.check.shards import check_shards
from megatron_trace.check.weights import check_weights
from megatron_trace.config import Config, SettingError, all_settings, check_bounds
from megatron_trace.config.error import one_line
from megatron_trace.config.flatten import flatten
from megatron_trace.config.moved import ABSENT, given_value, plain_data, refuse_moved
from megatron_trace.config.setting import NamedSetting
from megatron_trace.models.folders import is_checkpoint

ON_THIS_MACHINE = (
    check_devices,
    check_loggers,
    check_shards,
    check_run_directory,
)
"""Checks that another machine may answer otherwise."""


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
        description=(
            "Train a language-model agent with TRACE. Settings are overridden as "
            "section.name=value."
        ),
        add_help=False,
    )
    # argparse would print its help before it has read which plug-in files the settings name.
    parser.add_argument("-h", "--help", action="store_true", help="show all settings and options")
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file with the settings that differ from the defaults"
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--replay",
        metavar="DIR",
        type=Path,
        help="train on the saved trees of run DIR, without a fleet",
    )
    modes.add_argument(
        "--rollout-only", action="store_true", help="sample and save trees, train nothing"
    )
    modes.add_argument(
        "--dry-run", action="store_true", help="check everything and plan the memory, start nothing"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="section.name=value", help="settings, after the file's"
    )
    options = parser.parse_args(argv)
    config = load_config(options.config, options.overrides)
    if options.help:
        print(parser.format_help(), settings_help(config), sep="\n")
        raise SystemExit(0)
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
        SettingError: the file is missing or no YAML mapping, a key is unknown, or a value has the
            wrong type.
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
            raise SettingError(
                "--config", file, "is not YAML: " + " ".join(str(error).split())
            ) from error
        except UnicodeDecodeError as error:
            raise SettingError("--config", file, "is not UTF-8 text; save it as UTF-8") from error
        except OmegaConfBaseException as error:
            raise SettingError("--config", file, f"cannot be read: {one_line(error)}") from error
        if not isinstance(loaded, DictConfig):
            raise SettingError("--config", file, "must hold sections such as `run:`")
        layers.append(loaded)
    for override in overrides:
        if not override.partition("=")[0] or "=" not in override:
            raise SettingError("override", override, "write it as section.name=value")
        name, value = override.split("=", 1)
        try:
            layers.append(OmegaConf.from_dotlist([override]))
        except yaml.YAMLError:
            raise SettingError(name, value, "is not YAML; close its brackets and quotes") from None
        except OmegaConfBaseException as error:
            raise SettingError(name, value, f"cannot be read: {one_line(error)}") from None
    merged = OmegaConf.structured(Config)
    for layer in layers:
        # Before merging: OmegaConf would call an old name unknown, or take a section for a value.
        refuse_moved(layer)
        _refuse_missing(layer)
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            _explain(error, layer)
        except TypeError:
            _explain_container(layer)
            raise
    try:
        config = cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        name = error.full_key or ""
        raise SettingError(
            name, flatten(plain_data(merged)).get(name), f"has no value: {one_line(error)}"
        ) from None
    # OmegaConf accepts a mapping as a value of `dict[str, str]`.
    for key, pattern in config.data.heldout.items():
        if not isinstance(pattern, str):
            raise SettingError(f"data.heldout.{key}", pattern, "must be of type str")
    # Workers import the environment's file, and Ray may have started them in another folder.
    if config.environment.name.endswith(".py"):
        config.environment.name = str(Path(config.environment.name).absolute())
    return config


def _refuse_missing(layer: DictConfig) -> None:
    """Refuse `???`, OmegaConf's mark of a missing value: merging keeps the default without it."""
    for name, value in flatten(plain_data(layer)).items():
        if value == "???":
            raise SettingError(name, value, "must be set")


def _explain_container(layer: DictConfig) -> None:
    """Refuse a list where a setting is a mapping, or a mapping where it is a list."""
    layer_data = plain_data(layer)
    for name, one in _settings().items():
        given = given_value(layer_data, name)
        wrong = list if isinstance(one.value, dict) else dict
        if isinstance(one.value, dict | list) and isinstance(given, wrong):
            raise SettingError(name, given, f"must be {one.type_words()}") from None


def _explain(error: OmegaConfBaseException, layer: DictConfig) -> NoReturn:
    """Raise OmegaConf's error as one line about the setting that `layer` gave."""
    layer_data = plain_data(layer)
    for section in _sections():
        given = given_value(layer_data, section)
        if given is not ABSENT and not isinstance(given, dict):
            remedy = f"is a section; write {section}.name=value"
            raise SettingError(section, given, remedy) from None
    known = _settings()
    name = error.full_key or ""
    value = OmegaConf.select(layer, name, throw_on_resolution_failure=False) if name else None
    holder = name.partition("[")[0] if "[" in name else name.rpartition(".")[0]
    if holder in known and not isinstance(error, ConfigKeyError):
        raise SettingError(name, value, f"{holder} must be {known[holder].type_words()}") from None
    # OmegaConf names the unknown section; the user looks for the first key below.
    value = plain_data(value) if isinstance(value, DictConfig) else value
    while isinstance(value, dict) and value and name not in known:
        key = next(iter(value))
        name, value = f"{name}.{key}", value[key]
    if isinstance(error, ConfigKeyError) or name not in known:
        close = _closest(name, list(known))
        remedy = (
            f"no such setting; did you mean {close}?" if close else "no such setting; see --help"
        )
        raise SettingError(name, value, remedy) from None
    raise SettingError(name, value, f"must be {known[name].type_words()}") from None


def _closest(name: str, known: Sequence[str]) -> str | None:
    """The known setting that a user most likely meant: by its whole name, or by its last part."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    last = name.rpartition(".")[2]
    # A setting may have been looked for in the wrong section, `learning.clip_hihg`. Then whole
    # names are far apart, and only the last part says what was meant.
    by_last = {known_name.rpartition(".")[2]: known_name for known_name in reversed(known)}
    same = difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.8)
    if same and not close:
        return by_last[same[0]]
    if same and difflib.SequenceMatcher(None, last, close[0].rpartition(".")[2]).ratio() < 0.8:
        return by_last[same[0]]
    return close[0] if close else None


def _settings() -> dict[str, NamedSetting]:
    """Every setting by its dotted name."""
    return {one.name: one for one in all_settings(Config())}


def _sections() -> list[str]:
    """Dotted names of all sections, outer ones first."""
    names = {name.rpartition(".")[0] for name in _settings()}
    outer = {name.partition(".")[0] for name in names}
    return sorted(names | outer, key=lambda name: (name.count("."), name))


def check_config(config: Config, *, world_size: int) -> None:
    """Refuse what cannot work.

    Raises:
        SettingError: at the first setting that cannot.
    """
    check_settings(config, world_size=world_size)
    for check in ON_THIS_MACHINE:
        check(config)


def check_settings(config: Config, *, world_size: int) -> None:
    """Refuse what cannot work on any machine; of the model only its config.json is read.

    Raises:
        SettingError: at the first setting that cannot.
    """
    check_apart_from_layout(config)
    check_layout(config, read_model_config(config.model.path), world_size)


def check_apart_from_layout(config: Config) -> None:
    """The checks of `check_settings` whose result depends on no layout of train ranks.

    Raises:
        SettingError: at the first setting that cannot work.
    """
    check_bounds(config)
    check_limits(config)
    check_run_name(config)
    check_learning(config)
    check_strategy(config)
    check_estimator(config)
    check_model(config)
    check_environment(config)


def problems_here(config: Config) -> list[str]:
    """What this machine lacks for the run: GPUs, data, weights, folders.

    The settings have passed `check_settings`, so another machine may still run them.
    """
    problems = []
    for check in (*ON_THIS_MACHINE, check_weights):
        try:
            check(config)
        except SettingError as error:
            problems.append(str(error))
    return problems
