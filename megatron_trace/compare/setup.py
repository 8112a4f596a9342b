"""What all cells of a comparison share, and from it the settings of each."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from megatron_trace.allocation import make_strategy
from megatron_trace.check.command import check_config, load_config
from megatron_trace.check.learning import check_estimator, check_learning
from megatron_trace.check.numbers import check_numbers
from megatron_trace.check.weights import check_weights
from megatron_trace.compare.agreement import DEFAULT, check_agreement, check_kind
from megatron_trace.compare.grid import Cell, Variant
from megatron_trace.compare.record import Record, read_records
from megatron_trace.config import BudgetUnit, Config, SettingError
from megatron_trace.config.flatten import differences, flat_settings
from megatron_trace.training.identity import FREE, LOCATIONS

SPARE_STEPS = 4
"""A run may take this many times the steps that its total pays for, where a strategy does not spend whole budgets."""

COUNTED = ("run.steps", "evaluation.", *LOCATIONS)
"""Settings that a continued run may change, and a result may not."""

STRATEGY_HASH = "allocation.strategy.sha256"
"""Recorded where the strategy is a file: the beginning of its content's hash."""


@dataclass(frozen=True)
class Setup:
    """The common part of a comparison.

    Attributes:
        config: YAML file of the runs.
        overrides: dotted settings for all cells, after the file's.
        total: sampling budget of a whole run, in allocation.unit; None: what the file's steps cost.
        out: folder of runs and logs.
        results: folder of the records.
        world: knobs of the simulated world; None on the real stack.
        ranks: train ranks of a run.
        keep: leave checkpoints and policies of finished runs where they are.
        repeats: steps that are measured with the policy held still (simulated).
        step_size: learning rate of the simulated policy.
    """

    config: str
    out: Path
    results: Path
    overrides: tuple[str, ...] = ()
    total: int | None = None
    world: dict[str, Any] | None = field(default=None, hash=False)
    ranks: int = 1
    keep: bool = False
    repeats: int = 100
    step_size: float = 0.05

    @property
    def runs(self) -> Path:
        """Folder of the runs."""
        return self.out / "runs"


def cell_overrides(cell: Cell, setup: Setup) -> list[str]:
    """The dotted settings of a cell's run, after those of the configuration file.

    Raises:
        SettingError: the file or the common overrides cannot be read, or the total is no whole number of budgets.
    """
    common = common_config(setup)
    total = setup.total or common.allocation.budget * common.run.steps
    if total % cell.budget:
        raise SettingError(
            "--total", total, f"is no multiple of the budget of a step ({cell.budget})"
        )
    steps = total // cell.budget
    every = max(1, round(common.evaluation.every * common.allocation.budget / cell.budget))
    in_rollouts = common.allocation.unit is BudgetUnit.rollouts
    length = (
        [f"run.rollouts={total}", f"run.steps={SPARE_STEPS * steps}"]
        if in_rollouts
        else [f"run.steps={steps}"]
    )
    return [
        "run.save_trees=false",
        "run.loggers=[]",
        "checkpoint.keep_last=1",
        *setup.overrides,
        f"evaluation.every={every if common.evaluation.every else 0}",
        *cell.variant.overrides,
        f"run.directory={setup.runs}",
        f"run.name={cell.name}",
        f"run.seed={cell.seed}",
        f"allocation.budget={cell.budget}",
        *length,
    ]


@cache
def common_config(setup: Setup) -> Config:
    """The settings of the file with those for all cells.

    Raises:
        SettingError: one is unknown or of the wrong type.
    """
    return load_config(setup.config, setup.overrides)


@cache
def cell_config(cell: Cell, setup: Setup) -> Config:
    """All settings of a cell.

    Raises:
        SettingError: one is unknown or of the wrong type.
    """
    return load_config(setup.config, cell_overrides(cell, setup))


def check_cells(cells: Sequence[Cell], setup: Setup) -> None:
    """Refuse a grid of which a cell cannot work, or meets a run or a result of other settings, its own or beside it.

    Raises:
        SettingError: at the first cell; its name stands before the setting's where the setting is the cell's own.
    """
    kind = "real" if setup.world is None else "simulated"
    records = read_records(setup.results)
    check_kind(setup.results, records, kind)
    done = {record.name: record for record in records}
    planned: dict[tuple[Variant, int], Record] = {}
    for cell in cells:
        begun = has_begun(cell, setup)
        if (cell.variant, cell.budget) in planned and cell.name not in done and not begun:
            continue  # seeds differ in nothing that could be wrong
        config = cell_config(cell, setup)
        try:
            _check_config(config, setup)
        except SettingError as error:
            raise CellError(cell, error) from None
        now = settings_of(config, setup)
        if cell.name in done:
            _check_same(result_path(cell, setup), done[cell.name].settings, now)
        elif begun:
            _check_run(cell, setup, now)
        own = Record(kind, cell.variant.name, cell.budget, cell.seed, settings=now)
        planned.setdefault((cell.variant, cell.budget), own)
    check_agreement(setup.results, [*planned.values(), *records])


def _check_config(config: Config, setup: Setup) -> None:
    if setup.world is None:
        check_config(config, world_size=setup.ranks)
        check_weights(config)
    else:
        check_numbers(config)
        check_learning(config)
        check_estimator(config, make_strategy(config.allocation).advantage)


class CellError(SettingError):
    """A setting of one cell that cannot work."""

    def __init__(self, cell: Cell, error: SettingError) -> None:
        ValueError.__init__(self, f"{cell.name}: {error}")


def result_path(cell: Cell, setup: Setup) -> Path:
    """Where a cell's record lies once it is finished."""
    return setup.results / f"{cell.name}.json"


def has_begun(cell: Cell, setup: Setup) -> bool:
    """Whether a run of the cell's name would go on from a checkpoint, or pass for finished."""
    run_dir = setup.runs / cell.name
    return (
        setup.world is None
        and (run_dir / "config.yaml").exists()
        and (run_dir / "checkpoints").exists()
    )


def strategy_file(cell: Cell, setup: Setup) -> Path:
    """Where the hash of a cell's strategy lies from its start, if the strategy is a file."""
    return setup.out / "logs" / f"{cell.name}.strategy"


def settings_of(config: Config, setup: Setup) -> dict[str, Any]:
    """The strategy, and the settings that shape a cell's result where they differ from the defaults, by dotted name."""
    ours, defaults = _counted_settings(config), _counted_settings(Config())
    differing = {name: value for name, value in ours.items() if value != defaults.get(name)}
    differing["allocation.strategy"] = strategy = config.allocation.strategy
    if strategy.endswith(".py") and Path(strategy).is_file():
        differing[STRATEGY_HASH] = hashlib.sha256(Path(strategy).read_bytes()).hexdigest()[:16]
    if config.run.rollouts is not None:
        differing.pop("run.steps", None)  # no more than a bound
    if setup.world is not None:
        from megatron_trace.simulate.config import WorldConfig

        usual = {knob.name: knob.default for knob in fields(WorldConfig)}
        knobs = {name: value for name, value in setup.world.items() if value != usual[name]}
        differing |= {f"world.{name}": value for name, value in knobs.items()}
        differing |= {"simulate.repeats": setup.repeats, "simulate.step_size": setup.step_size}
    return json.loads(json.dumps(differing))


def _counted_settings(config: Config) -> dict[str, Any]:
    free = tuple(name for name in FREE if name not in COUNTED)
    return {
        name: value for name, value in flat_settings(config).items() if not name.startswith(free)
    }


def _check_same(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    if found := _other(then, now):
        remedy = f"was made with another {found}; choose another --results, or remove the file"
        raise SettingError("--results", str(path), remedy)


def _other(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The first setting that differs, with both values, in words; nothing where all are the same."""
    for found in differences(then, now, absent=DEFAULT):
        return f"{found.name} ({found.first} there, {found.second} now)"
    return ""


def _check_run(cell: Cell, setup: Setup, now: dict[str, Any]) -> None:
    """Refuse to go on with what a run of other settings left: the program itself would let some of them pass."""
    run_dir, strategy = setup.runs / cell.name, strategy_file(cell, setup)
    remedy = "choose another --out, or remove that folder"
    try:
        then = settings_of(load_config(str(run_dir / "config.yaml")), setup)
    except SettingError as error:
        raise SettingError(
            "--out", str(run_dir), f"holds a run of unknown settings ({error}); {remedy}"
        ) from None
    if STRATEGY_HASH in then and strategy.exists():
        then[STRATEGY_HASH] = strategy.read_text(encoding="utf-8")
    if found := _other(then, now):
        raise SettingError("--out", str(run_dir), f"holds a run with another {found}; {remedy}")
