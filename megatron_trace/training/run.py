"""A run from its start, or from its newest checkpoint, to its results."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from megatron_trace.allocation import Allocator
from megatron_trace.check.command import Command
from megatron_trace.config import Config
from megatron_trace.models.folders import hf_assets_dir
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.precision import parameter_dtype
from megatron_trace.policy.ranks import RankGroup
from megatron_trace.policy.shared_work import SharedWork
from megatron_trace.report.loggers import start_loggers
from megatron_trace.report.metrics_file import MetricsWriter, read_metrics
from megatron_trace.report.progress import RunProgress
from megatron_trace.report.run_summary import summary_table
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.supervise.guard import Guard, train_rank
from megatron_trace.supervise.stop import Stop
from megatron_trace.training import loop
from megatron_trace.training.checkpoints import Checkpoints
from megatron_trace.training.identity import check_same
from megatron_trace.training.inputs import RunInputs
from megatron_trace.training.results import Unsaved, save_results
from megatron_trace.training.resume import is_finished, newest_state, resume
from megatron_trace.training.run_folder import claim, move_aside, prepare_folder, run_folder
from megatron_trace.training.run_state import RunState
from megatron_trace.training.session import Session
from megatron_trace.training.trainer import Trainer


def run(command: Command, guard: Guard, stop: Stop) -> None:
    """Do what the command line asked for; every train rank calls it.

    Raises:
        UnhealthyRun: a threshold of `stop` was crossed; the results up to there are kept.
        Unsaved: all steps are taken, but something could not be saved.
        Stopped: the run was asked to end; it can be continued.
        OtherRun: the newest checkpoint of the run's name is of another model or configuration.
        SettingError: a task cannot be played; Ray cannot be joined, or lacks what the fleet needs.
    """
    config, leader = command.config, train_rank() == 0
    if command.rollout_only:
        if leader:
            inputs = RunInputs(command)
            inputs.check()
            lead(command, inputs, None, guard, stop)
        return
    # Before the model and the fleet are made: they take minutes and all memory.
    work = SharedWork()
    if not leader:
        if work.follow():
            RankGroup(Policy(config)).follow()
        return
    # Only rank 0 hands out tasks; the others check their parts and keep nothing.
    inputs = RunInputs(command, work.map)
    go_on = is_to_be_run(config, inputs)
    work.end(go_on=go_on)
    if not go_on:
        return
    ranks = RankGroup(Policy(config))
    try:
        lead(command, inputs, Trainer(config, ranks), guard, stop)
    finally:
        # After an error of a call a rank may be inside a collective that never ends. The guard has
        # to kill it then.
        if ranks.come_to_rest():
            ranks.stop()


def is_to_be_run(config: Config, inputs: RunInputs) -> bool:
    """Check what the run trains on. Whether steps or results are left; says so if none are.

    Raises:
        OtherRun: the newest checkpoint of the run's name is of another model or configuration.
        SettingError: a task cannot be played.
    """
    if newest := newest_state(config):
        path, state = newest
        check_same(path, state.identity, inputs.identity)
        if is_finished(config, state):
            print(
                f"{run_folder(config)} is finished: it has all {config.run.steps} steps. Raise "
                "run.steps to continue it, or start over with another run.name or "
                "checkpoint.resume=false."
            )
            return False
    inputs.check()
    return True


def lead(
    command: Command, inputs: RunInputs, trainer: Trainer | None, guard: Guard, stop: Stop
) -> None:
    """Rank 0's part of `run`; without a `trainer` only the rollouts of each step."""
    config, console = command.config, Console()
    run_dir = run_folder(config)
    notes = inputs.notes()
    state = start_state(config, inputs, trainer, notes)
    prepare_folder(config, state.step)
    loggers = start_loggers(config, run_dir, done=state.step)
    reason: Exception | None = None
    with (
        MetricsWriter(run_dir, done=state.step, loggers=loggers) as writer,
        RunProgress(
            config.run.steps, done=state.step, console=console, beat=guard.beat
        ) as progress,
    ):
        session = Session(
            config=config,
            run_dir=run_dir,
            state=state,
            writer=writer,
            progress=progress,
            stop=stop,
            guard=guard,
            checkpoints=None if trainer is None else make_checkpoints(config, trainer),
            evaluated={row["step"] for row in read_metrics(run_dir) if "evaluation" in row},
        )
        for note in notes:
            session.note(note)
        try:
            take_steps(command, session, trainer, inputs)
        except Exception as error:
            # Whatever it was: what was learned up to here is saved and reported first.
            reason = error
        try:
            save_results(session, trainer, reason)
        except Unsaved as error:
            reason = error
    if session.state.step:
        console.print(summary_table(run_dir))
    if reason is not None:
        raise reason


def start_state(
    config: Config, inputs: RunInputs, trainer: Trainer | None, notes: list[str]
) -> RunState:
    """Claim the run's folder; returns the state of its newest checkpoint, or that of a new run.

    Args:
        notes: gets a line for each checkpoint that is damaged or loaded.

    Raises:
        OtherRun: the folder is in use, or no checkpoint in it can be continued by this run.
    """
    # Before anything is moved: tasks that cannot be read must not cost an earlier run its place.
    new = RunState(identity=inputs.identity)
    run_dir = run_folder(config)
    claim(run_dir)
    state = None if trainer is None else resume(config, trainer, inputs, notes)
    if state is not None:
        return state
    if any(run_dir.iterdir()):
        # The lock moves with the folder, so the new one has to be claimed as well.
        move_aside(run_dir)
        claim(run_dir)
    return new


def make_checkpoints(config: Config, trainer: Trainer) -> Checkpoints | None:
    """The checkpoints of the run, if there shall be any."""
    if not config.checkpoint.every:
        return None
    model, dtype = hf_assets_dir(Path(config.model.path)), parameter_dtype(config.precision)
    folder = run_folder(config) / "checkpoints"
    return Checkpoints(folder, config.checkpoint, trainer, model, dtype)


def take_steps(
    command: Command, session: Session, trainer: Trainer | None, inputs: RunInputs
) -> None:
    """Take the steps that are left: train, replay, or only sample."""
    config = command.config
    if command.replay is not None:
        assert trainer is not None
        loop.replay(session, command.replay, trainer)
        return
    tasks, heldout = inputs.tasks, inputs.evaluation_tasks
    allocator = Allocator(config.allocation, config.run.seed)
    allocator.restore(session.state.allocation)
    with running_fleet(session, allocator) as fleet:
        if trainer is None:
            loop.collect_rollouts(session, fleet, allocator, tasks)
        else:
            loop.train(session, fleet, allocator, trainer, tasks, heldout)


@contextmanager
def running_fleet(session: Session, allocator: Allocator) -> Iterator[Fleet]:
    """A fleet that is ready to sample, watched by the guard."""
    config = session.config
    session.progress.phase("starting the fleet")
    # A checkpoint's assets hold no weights; the fleet gets them from the trainer before it samples.
    model = str(hf_assets_dir(Path(config.model.path)))
    fleet = Fleet(config, model, requires=allocator.requires)
    try:
        session.stop.wakes(fleet.interrupt)
        with session.guard.watching(fleet.vital_processes()):
            fleet.wait()
            yield fleet
    except Exception:
        # Save first: closing the fleet takes time, of which a run that was stopped has little, and
        # may fail after an error.
        session.finish()
        raise
    finally:
        fleet.close()
