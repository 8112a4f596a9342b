"""`Sweep`: what all trials of a comparison share, and from it the settings of each run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from megatron_trace.check.load import load_config
from megatron_trace.compare.grid import Trial
from megatron_trace.config import BudgetUnit, Config, SettingError

SPARE_STEPS = 4
"""A run may take this many times the steps that its total pays for.

Some strategies leave part of a step's budget unspent, and then need more steps.
"""


@dataclass(frozen=True)
class Sweep:
    """The common part of a comparison.

    Attributes:
        config: YAML file of the runs.
        overrides: dotted settings for all trials, after the file's.
        total: sampling budget of a whole run, in allocation.unit; None: what the file's steps cost.
        out: folder of runs and logs.
        results: folder of the records.
        world: settings of the simulated world; None on the real stack.
        ranks: train ranks of a run.
        keep: leave checkpoints and policies of finished runs where they are.
        repeats: number of simulated steps that measure the start policy.
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
    def kind(self) -> str:
        """Of its records: `real` or `simulated`."""
        return "real" if self.world is None else "simulated"

    def run_dir(self, trial: Trial) -> Path:
        """Folder of a trial's run."""
        return self.out / "runs" / trial.name

    def log_file(self, trial: Trial, suffix: str) -> Path:
        """A file beside the runs: the trial's `log`, its `exit` code, or the hash of its `strategy`
        file.
        """
        return self.out / "logs" / f"{trial.name}.{suffix}"

    def result_file(self, trial: Trial) -> Path:
        """Where a trial's record lies once the trial is finished."""
        return self.results / f"{trial.name}.json"


def trial_overrides(trial: Trial, sweep: Sweep) -> list[str]:
    """The dotted settings of a trial's run, after those of the configuration file.

    Raises:
        SettingError: the file or the common overrides cannot be read, or the total is no multiple
            of the budget.
    """
    common = common_config(sweep)
    # Later settings win. A user may change what the comparison prefers (the first lines). A variant
    # may change what is common. Nobody may change what makes this trial the one that its name says
    # (the last lines).
    return [
        "run.save_trees=false",
        "run.loggers=[]",
        "checkpoint.keep_last=1",
        *sweep.overrides,
        f"evaluation.every={_evaluation_interval(common, trial.budget)}",
        *trial.variant.overrides,
        f"run.directory={sweep.run_dir(trial).parent}",
        f"run.name={trial.name}",
        f"run.seed={trial.seed}",
        f"allocation.budget={trial.budget}",
        *_length_overrides(common, trial.budget, sweep.total),
    ]


def _evaluation_interval(common: Config, budget: int) -> int:
    """Steps between evaluations: about as many rollouts for every budget. 0: never."""
    if not common.evaluation.every:
        return 0
    return max(1, round(common.evaluation.every * common.allocation.budget / budget))


def _length_overrides(common: Config, budget: int, total: int | None) -> Sequence[str]:
    total = total or common.allocation.budget * common.run.steps
    if total % budget:
        raise SettingError("--total", total, f"is no multiple of the budget of a step ({budget})")
    steps = total // budget
    if common.allocation.unit is BudgetUnit.rollouts:
        return f"run.rollouts={total}", f"run.steps={SPARE_STEPS * steps}"
    return (f"run.steps={steps}",)


@cache
def common_config(sweep: Sweep) -> Config:
    """The settings of the file with those for all trials.

    Raises:
        SettingError: one is unknown or of the wrong type.
    """
    return load_config(sweep.config, sweep.overrides)


@cache
def trial_config(trial: Trial, sweep: Sweep) -> Config:
    """All settings of a trial.

    Raises:
        SettingError: one is unknown or of the wrong type.
    """
    return load_config(sweep.config, trial_overrides(trial, sweep))
