"""From the command line to a checked `Config`; every mistake is one line."""

import argparse
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from megatron_trace.check.devices import check_devices
from megatron_trace.check.help import settings_help
from megatron_trace.check.launcher import check_launcher
from megatron_trace.check.layout import check_layout
from megatron_trace.check.learning import check_learning
from megatron_trace.check.limits import check_limits
from megatron_trace.check.load import load_config
from megatron_trace.check.loggers import check_loggers
from megatron_trace.check.model import check_model, read_model_config
from megatron_trace.check.names import check_source_names
from megatron_trace.check.plugins import (
    check_environment,
    check_estimator,
    check_maps,
    check_strategy,
)
from megatron_trace.check.results import check_run_directory, check_run_name
from megatron_trace.check.shards import check_shards
from megatron_trace.check.shared_gpus import check_shared_gpus
from megatron_trace.check.space import check_space
from megatron_trace.check.vocabulary import check_vocabulary
from megatron_trace.check.weights import check_weights
from megatron_trace.config import Config, SettingError, check_bounds
from megatron_trace.models.folders import is_checkpoint

Check = Callable[[Config], None]

ON_THIS_MACHINE: tuple[Check, ...] = (
    check_devices,
    check_launcher,
    check_loggers,
    check_shards,
    check_run_directory,
)
"""Checks that another machine may answer otherwise."""

NEEDED_FOR_TASKS = {check_shards, check_weights, check_vocabulary}
"""What must pass before tasks can be checked: their prompts are counted by the model's tokenizer."""


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
    # Plain parsing refuses settings on both sides of an option.
    options = parser.parse_intermixed_args(argv)
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
    if not (options.replay or options.rollout_only):
        check_shared_gpus(config)
    if options.rollout_only and is_checkpoint(Path(config.model.path)):
        remedy = "rollouts alone need a HF folder; make one with tools/convert_megatron_to_hf.py"
        raise SettingError("model.path", config.model.path, remedy)
    check_weights(config)
    check_vocabulary(config)
    if not options.rollout_only:
        check_space(config)
    return Command(config, options.replay, options.rollout_only)


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
    check_source_names(config)
    check_learning(config)
    check_strategy(config)
    check_estimator(config)
    check_model(config)
    check_environment(config)
    check_maps(config)


def problems_here(config: Config) -> dict[Check, str]:
    """What this machine lacks for the run: GPUs, data, weights, folders; by the check that says so.

    The settings have passed `check_settings`, so another machine may still run them.
    """
    machine = (*ON_THIS_MACHINE, check_shared_gpus, check_weights, check_vocabulary, check_space)
    problems = {check: _problem(check, config) for check in machine}
    return {check: problem for check, problem in problems.items() if problem}


def _problem(check: Check, config: Config) -> str:
    try:
        check(config)
    except SettingError as error:
        return str(error)
    return ""
