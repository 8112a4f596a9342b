"""Start what a run needs or continue it from its newest checkpoint, turn the wheel, leave the results behind."""

import fcntl
import os
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from megatron_trace.allocation import Allocator
from megatron_trace.check.command import Command
from megatron_trace.config import Config
from megatron_trace.data.tasks import load_tasks
from megatron_trace.models.folders import hf_assets_dir
from megatron_trace.policy.hf import read_config
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.precision import parameter_dtype
from megatron_trace.policy.ranks import RankGroup
from megatron_trace.report.history import decoder
from megatron_trace.report.loggers import start_loggers
from megatron_trace.report.metrics import MetricsWriter, read_metrics
from megatron_trace.report.progress import RunProgress, summary_table
from megatron_trace.report.run_page import write_report
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.supervise.guard import Guard
from megatron_trace.supervise.health import UnhealthyRun
from megatron_trace.supervise.stop import Stop, Stopped
from megatron_trace.training import loop
from megatron_trace.training.checkpoints import (
    Checkpoints,
    RunState,
    complete,
    newest_whole,
    read_state,
)
from megatron_trace.training.identity import OtherRun, check_same, identity
from megatron_trace.training.session import Session, reached_end
from megatron_trace.training.trainer import Trainer

CLAIM_S = 20.0
"""How long a run waits for another of its name to end."""


def run(command: Command, guard: Guard, stop: Stop) -> None:
    """Do what the command line asked for; every train rank calls it.

    Raises:
        UnhealthyRun: a threshold of `stop` was crossed; the results up to there are kept.
        Stopped: the run was asked to end; it can be continued.
        OtherRun: the newest checkpoint of the run's name is of another model or configuration.
    """
    config, leader = command.config, os.environ.get("RANK", "0") == "0"
    if command.rollout_only:
        if leader:
            lead(command, None, guard, stop)
        return
    refuse_other_run(command)  # on every rank, and before anything expensive starts
    if is_finished(config):
        if leader:
            print(
                f"{run_folder(config)} is finished: it has all {config.run.steps} steps. Raise run.steps to go on, "
                "or start anew with another run.name or checkpoint.resume=false."
            )
        return
    ranks = RankGroup(Policy(config))
    if not leader:
        ranks.follow()
        return
    try:
        lead(command, Trainer(config, ranks), guard, stop)
    except (UnhealthyRun, Stopped, OtherRun):  # no rank is in the middle of anything
        ranks.stop()
        raise
    ranks.stop()


def lead(command: Command, trainer: Trainer | None, guard: Guard, stop: Stop) -> None:
    """Rank 0's part of `run`."""
    config, console = command.config, Console()
    run_dir, model = run_folder(config), hf_assets_dir(Path(config.model.path))
    tasks = training_tasks(command)
    same = identity_of(command, tasks)
    notes: list[str] = []
    claim(run_dir)
    state = None if trainer is None else resume(config, trainer, same, notes)
    if state is None:
        if any(run_dir.iterdir()):
            move_aside(run_dir)
            claim(run_dir)
        state = RunState(identity=same)
    prepare_folder(config, state)
    checkpoints = None
    if trainer is not None and config.checkpoint.every:
        dtype = parameter_dtype(config.precision)
        checkpoints = Checkpoints(run_dir / "checkpoints", config.checkpoint, trainer, model, dtype)
    reason: Exception | None = None
    loggers = start_loggers(config, run_dir, done=state.step)
    with (
        MetricsWriter(run_dir, done=state.step, loggers=loggers) as writer,
        RunProgress(
            config.run.steps, done=state.step, console=console, beat=guard.beat
        ) as progress,
    ):
        evaluated = {row["step"] for row in read_metrics(run_dir) if "evaluation" in row}
        session = Session(
            config, run_dir, state, writer, progress, stop, guard, checkpoints, evaluated
        )
        for note in notes:
            session.note(note)
        try:
            if command.replay is not None:
                assert trainer is not None
                loop.replay(session, command.replay, trainer)
            else:
                train_with_fleet(session, trainer, tasks)
        except (UnhealthyRun, Stopped) as error:  # what was learned up to here is worth a look
            reason = error
        session.finish()
        progress.phase("saving")
        if trainer is not None and not isinstance(reason, Stopped):
            trainer.save(run_dir / "policy")
        write_report(run_dir, decode=decoder(run_dir))
    console.print(summary_table(run_dir))
    if reason is not None:
        raise reason


def train_with_fleet(session: Session, trainer: Trainer | None, tasks: loop.Tasks) -> None:
    """Sample and, given a `trainer`, train."""
    config = session.config
    heldout = {
        name: load_tasks(s)[: config.evaluation.tasks] for name, s in config.data.heldout.items()
    }
    session.progress.phase("starting the fleet")
    model = str(
        hf_assets_dir(Path(config.model.path))
    )  # without weights in a checkpoint, but they are pushed
    allocator = Allocator(config.allocation, config.run.seed)
    fleet = Fleet(config, model, needs=allocator.needs)
    try:
        session.stop.wakes(fleet.interrupt)
        with session.guard.watching(fleet.vital_processes()):
            fleet.wait()
            loop.train(session, fleet, allocator, trainer, tasks, heldout)
    except Stopped:
        session.finish()  # first: closing takes some of the time that is left
        raise
    finally:
        fleet.close()


def training_tasks(command: Command) -> loop.Tasks:
    """What the run trains on; trees that are replayed bring their own tasks."""
    return [] if command.replay else load_tasks(command.config.data.train)


def identity_of(command: Command, tasks: loop.Tasks) -> dict[str, Any]:
    """What must be the same where this run is continued."""
    model = read_config(hf_assets_dir(Path(command.config.model.path)))
    return identity(command.config, model, tasks) | {"--replay": command.replay is not None}


def refuse_other_run(command: Command) -> None:
    """Look at the newest checkpoint's settings, whether or not it is whole.

    Raises:
        OtherRun: it is of another model or configuration.
    """
    folder = run_folder(command.config) / "checkpoints"
    steps = complete(folder)
    if not command.config.checkpoint.resume or not steps:
        return
    path = folder / f"step_{steps[-1]:05d}"
    try:
        state = read_state(path)
    except (OSError, ValueError, TypeError):
        return  # damaged, as will be seen
    check_same(path, state.identity, identity_of(command, training_tasks(command)))


def resume(
    config: Config, trainer: Trainer, same: dict[str, Any], notes: list[str]
) -> RunState | None:
    """Load the newest checkpoint that is whole; None where there never was one, or none is wanted.

    Raises:
        OtherRun: it is of another model or configuration, or all are damaged.
    """
    folder = run_folder(config) / "checkpoints"
    if not config.checkpoint.resume:
        return None
    found = newest_whole(folder, trainer.verify_checkpoint, notes.append)
    if found is None and list(
        folder.glob("*.damaged-*")
    ):  # not what anybody wants to lose without a word
        raise OtherRun(
            "\n".join([*notes, f"{folder} holds no checkpoint that is whole"])
            + "; set checkpoint.resume=false to move the run aside and start anew"
        )
    if found is None:
        return None
    path, state = found
    check_same(path, state.identity, same)
    trainer.load_checkpoint(path, state.updates)
    notes.append(f"continued from {path}")
    return state


def is_finished(config: Config) -> bool:
    """Whether a run of this name has taken all its steps and left all its results."""
    run_dir = run_folder(config)
    folder = run_dir / "checkpoints"
    steps = complete(folder)
    results = [run_dir / name for name in ("policy", "report.html")]
    return (
        config.checkpoint.resume
        and bool(steps)
        and reached_end(config.run, read_state(folder / f"step_{steps[-1]:05d}"))
        and all(result.exists() for result in results)
    )


def run_folder(config: Config) -> Path:
    """Where the run's results go."""
    return Path(config.run.directory) / config.run.name


def claim(run_dir: Path) -> None:
    """Hold the run's folder for as long as this process lives; what a killed run left of itself gets time to end.

    Raises:
        OtherRun: a run of this name is going on.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run_dir, os.O_RDONLY)
    end = time.monotonic() + CLAIM_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise OtherRun(f"a run is going on in {run_dir}; choose another run.name") from None
            time.sleep(0.5)
        except OSError:  # a file system without locks
            return


def prepare_folder(config: Config, state: RunState) -> None:
    """Make the run's folder, with its settings and without the trees of steps that are taken anew."""
    run_dir = run_folder(config)
    OmegaConf.save(OmegaConf.structured(config), run_dir / "config.yaml")
    for file in (run_dir / "trees").glob("step_*"):
        if int(file.name.removeprefix("step_").split(".")[0]) > state.step:
            file.unlink()


def move_aside(run_dir: Path) -> None:
    """Rename an earlier run's folder to <name>.1, <name>.2, ..."""
    number = 1
    while (aside := run_dir.with_name(f"{run_dir.name}.{number}")).exists():
        number += 1
    run_dir.rename(aside)
