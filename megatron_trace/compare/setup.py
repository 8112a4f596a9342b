"""What all cells of a comparison share, and from it the settings of each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from megatron_trace.allocation import make_strategy
from megatron_trace.check import SettingError
from megatron_trace.check.learning import check_estimator, check_learning
from megatron_trace.check.numbers import check_numbers
from megatron_trace.check.weights import check_weights
from megatron_trace.compare.grid import Cell, Variant
from megatron_trace.compare.record import Record, read_record
from megatron_trace.config import BudgetUnit, Config
from megatron_trace.config_check import check_config, load_config
from megatron_trace.training.identity import FREE, flatten

SPARE_STEPS = 4
"""A run may take this many times the steps that its total pays for, where a strategy does not spend whole budgets."""

COUNTED = ("run.steps", "evaluation.", "model.path")
"""Settings that a continued run may change, and a result may not."""


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
        raise SettingError("--total", total, f"is no multiple of the budget of a step ({cell.budget})")
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
        f"evaluation.every={every if common.evaluation.every else 0}",
        *setup.overrides,
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
    """Refuse a grid of which a cell cannot work, or has a result of other settings.

    Raises:
        SettingError: at the first cell; its name stands before the setting's.
    """
    checked: set[tuple[Variant, int]] = set()
    for cell in cells:
        path = result_path(cell, setup)
        if (cell.variant, cell.budget) in checked and not path.exists():
            continue  # seeds differ in nothing that could be wrong
        checked.add((cell.variant, cell.budget))
        config = cell_config(cell, setup)
        try:
            if setup.world is None:
                check_config(config, world_size=setup.ranks)
                check_weights(config)
            else:
                check_numbers(config)
                check_learning(config)
                check_estimator(config, make_strategy(config.allocation).advantage)
        except SettingError as error:
            raise CellError(cell, error) from None
        if path.exists():
            _check_same(path, read_record(path), settings_of(config, setup))


class CellError(SettingError):
    """A setting of one cell that cannot work."""

    def __init__(self, cell: Cell, error: SettingError) -> None:
        ValueError.__init__(self, f"{cell.name}: {error}")


def result_path(cell: Cell, setup: Setup) -> Path:
    """Where a cell's record lies once it is finished."""
    return setup.results / f"{cell.name}.json"


def settings_of(config: Config, setup: Setup) -> dict[str, Any]:
    """The strategy, and the settings that shape a cell's result where they differ from the defaults, by dotted name."""
    ours, defaults = _flat(config), _flat(Config())
    differing = {name: value for name, value in ours.items() if value != defaults.get(name)}
    differing["allocation.strategy"] = config.allocation.strategy
    if config.run.rollouts is not None:
        differing.pop("run.steps", None)  # no more than a bound
    if setup.world is not None:
        differing |= {f"world.{name}": value for name, value in setup.world.items()}
        differing |= {"simulate.repeats": setup.repeats, "simulate.step_size": setup.step_size}
    return json.loads(json.dumps(differing))


def _flat(config: Config) -> dict[str, Any]:
    tree = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True))
    free = tuple(name for name in FREE if name not in COUNTED)
    return {name: value for name, value in flatten(tree).items() if not name.startswith(free)}


def _check_same(path: Path, record: Record, now: dict[str, Any]) -> None:
    then = record.settings
    differing = [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]
    if differing:
        name = differing[0]
        values = f"{then.get(name, 'the default')} there, {now.get(name, 'the default')} now"
        remedy = f"was made with another {name} ({values}); choose another --results, or remove the file"
        raise SettingError("--results", str(path), remedy)
