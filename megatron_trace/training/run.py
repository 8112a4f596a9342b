"""Start what a run needs, turn the wheel, leave the results behind."""

import os
from pathlib import Path

from omegaconf import OmegaConf
from rich.console import Console

from megatron_trace.config import Config
from megatron_trace.config_check import Command
from megatron_trace.data.tasks import load_tasks
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.ranks import RankGroup
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.training import loop
from megatron_trace.training.health import UnhealthyRun
from megatron_trace.training.history import decoder
from megatron_trace.training.metrics import MetricsWriter
from megatron_trace.training.progress import RunProgress, summary_table
from megatron_trace.training.report import write_report
from megatron_trace.training.trainer import Trainer


def run(command: Command) -> None:
    """Do what the command line asked for; every train rank calls it.

    Raises:
        UnhealthyRun: a threshold of `stop` was crossed; the results up to there are kept.
    """
    leader = os.environ.get("RANK", "0") == "0"
    if command.rollout_only:
        if leader:
            lead(command, None)
        return
    ranks = RankGroup(Policy(command.config))
    if not leader:
        ranks.follow()
        return
    lead(command, Trainer(command.config, ranks))
    ranks.stop()


def lead(command: Command, trainer: Trainer | None) -> None:
    """Rank 0's part of `run`."""
    config = command.config
    run_dir = new_run_dir(config)
    OmegaConf.save(OmegaConf.structured(config), run_dir / "config.yaml")
    console, stopped = Console(), None
    with MetricsWriter(run_dir) as writer, RunProgress(config.run.steps, console=console) as progress:
        try:
            if command.replay is not None:
                assert trainer is not None
                loop.replay(config, command.replay, trainer, writer, progress)
            else:
                train_with_fleet(config, run_dir, trainer, writer, progress)
        except UnhealthyRun as error:  # what was learned up to here is worth a look
            stopped = error
        progress.phase("saving")
        if trainer is not None:
            trainer.save(run_dir / "policy")
        write_report(run_dir, decode=decoder(run_dir))
    console.print(summary_table(run_dir))
    if stopped is not None:
        raise stopped


def train_with_fleet(
    config: Config,
    run_dir: Path,
    trainer: Trainer | None,
    writer: MetricsWriter,
    progress: RunProgress,
) -> None:
    """Sample and, given a `trainer`, train."""
    tasks = load_tasks(config.data.train)
    heldout = {name: load_tasks(s)[: config.evaluation.tasks] for name, s in config.data.heldout.items()}
    progress.phase("starting the fleet")
    fleet = Fleet(config, config.model.path, resync=None if trainer is None else trainer.resync)
    try:
        fleet.wait()
        loop.train(config, run_dir, fleet, trainer, tasks, heldout, writer, progress)
    finally:
        fleet.close()


def new_run_dir(config: Config) -> Path:
    """An empty folder for the run; an earlier run of the name is moved aside, to <name>.1, <name>.2, ..."""
    run_dir = Path(config.run.directory) / config.run.name
    if run_dir.exists():
        number = 1
        while (aside := run_dir.with_name(f"{run_dir.name}.{number}")).exists():
            number += 1
        run_dir.rename(aside)
    run_dir.mkdir(parents=True)
    return run_dir
