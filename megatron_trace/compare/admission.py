"""Before a grid starts: every trial can work, and fits the runs and results already there."""

from collections.abc import Sequence
from typing import Any

from megatron_trace.check.command import check_config
from megatron_trace.check.learning import check_learning
from megatron_trace.check.load import load_config
from megatron_trace.check.plugins import check_estimator, check_strategy
from megatron_trace.check.weights import check_weights
from megatron_trace.compare.agreement import DEFAULT, check_agreement, check_kind
from megatron_trace.compare.grid import Trial, Variant
from megatron_trace.compare.record import Record, read_records
from megatron_trace.compare.recorded_settings import STRATEGY_HASH, recorded_settings
from megatron_trace.compare.sweep import Sweep, trial_config
from megatron_trace.config import Config, SettingError, check_bounds
from megatron_trace.config.flatten import differences


class TrialError(SettingError):
    """A setting of one trial that cannot work."""

    def __init__(self, trial: Trial, error: SettingError) -> None:
        name, value, remedy = error.args
        super().__init__(f"{trial.name}: {name}", value, remedy)


def check_trials(trials: Sequence[Trial], sweep: Sweep) -> None:
    """Refuse a grid with a trial that cannot work, or that meets a run or result of other settings.

    Raises:
        SettingError: at the first such trial; its name stands before the setting's where the
            setting is the trial's.
    """
    records = read_records(sweep.results)
    check_kind(sweep.results, records, sweep.kind)
    finished = {record.name: record for record in records}
    planned: dict[tuple[Variant, int], Record] = {}
    for trial in trials:
        there = trial.name in finished or has_begun(trial, sweep)
        # Seeds differ in nothing that could be wrong, and a check on the real stack reads files:
        # the first one stands for all. A seed with a result or a run is looked at, since these may
        # be of other settings.
        if (trial.variant, trial.budget) in planned and not there:
            continue
        config = trial_config(trial, sweep)
        try:
            _check_config(config, sweep)
        except SettingError as error:
            raise TrialError(trial, error) from None
        now = recorded_settings(config, sweep)
        if trial.name in finished:
            _check_result(trial, sweep, finished[trial.name].settings, now)
        elif there:
            _check_unfinished_run(trial, sweep, now)
        own = Record(sweep.kind, trial.variant.name, trial.budget, trial.seed, settings=now)
        planned.setdefault((trial.variant, trial.budget), own)
    check_agreement(sweep.results, [*planned.values(), *records])


def has_begun(trial: Trial, sweep: Sweep) -> bool:
    """Whether a run of the trial's name would continue from a checkpoint, or pass for finished."""
    run_dir = sweep.run_dir(trial)
    left = (run_dir / "config.yaml").exists() and (run_dir / "checkpoints").exists()
    return sweep.world is None and left


def _check_config(config: Config, sweep: Sweep) -> None:
    if sweep.world is None:
        check_config(config, world_size=sweep.ranks)
        check_weights(config)
    else:
        check_bounds(config)
        check_learning(config)
        check_strategy(config)
        check_estimator(config)


def _check_result(trial: Trial, sweep: Sweep, then: dict[str, Any], now: dict[str, Any]) -> None:
    if found := _first_difference(then, now):
        remedy = f"was made with another {found}; choose another --results, or remove the file"
        raise SettingError("--results", str(sweep.result_file(trial)), remedy)


def _check_unfinished_run(trial: Trial, sweep: Sweep, now: dict[str, Any]) -> None:
    """Refuse to continue a run of other settings: the program itself lets some of them change."""
    run_dir = sweep.run_dir(trial)
    remedy = "choose another --out, or remove that folder"
    try:
        then = recorded_settings(load_config(str(run_dir / "config.yaml")), sweep)
    except SettingError as error:
        reason = f"holds a run of unknown settings ({error}); {remedy}"
        raise SettingError("--out", str(run_dir), reason) from None
    # A strategy's file may have been edited since: what counts is its content when the run started.
    strategy = sweep.log_file(trial, "strategy")
    if STRATEGY_HASH in then and strategy.exists():
        then[STRATEGY_HASH] = strategy.read_text(encoding="utf-8")
    if found := _first_difference(then, now):
        raise SettingError("--out", str(run_dir), f"holds a run with another {found}; {remedy}")


def _first_difference(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The first setting that differs, with both values, in words; nothing if all are the same."""
    for found in differences(then, now, absent=DEFAULT):
        return f"{found.name} ({found.first} there, {found.second} now)"
    return ""
