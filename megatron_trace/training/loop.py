"""The training loop: plan roots, sample, plan prefixes, sample, learn, push weights.

TRACE (arXiv 2606.11119) a line at a time; everything it calls is in the rooms beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from megatron_trace.allocation import Allocator
from megatron_trace.config import SettingError
from megatron_trace.data.mixture import WeightedTasks, mixed_stream
from megatron_trace.data.tasks import Tasks
from megatron_trace.files.problems import BadData
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.rollout.sampling import StepCost, StepSampling, sample_trees
from megatron_trace.supervise.health import check_health
from megatron_trace.training.records import (
    record_evaluation,
    record_sampling,
    sampling_metrics,
    source_shares,
)
from megatron_trace.training.run_folder import trees_file
from megatron_trace.training.session import Session
from megatron_trace.training.trainer import Trainer
from megatron_trace.tree import load_trees


def train(
    session: Session,
    fleet: Fleet,
    allocator: Allocator,
    trainer: Trainer,
    tasks: Sequence[WeightedTasks],
    heldout: Mapping[str, Tasks],
) -> None:
    """Take the steps from `session.state` to the run's end.

    Raises:
        UnhealthyRun: a threshold of `stop` was crossed.
        Stopped: the run was asked to end.
    """
    config = session.config
    stream = mixed_stream(tasks, config.run.seed, start=session.state.tasks_taken)
    # The fleet was started with the weights of `model.path`, or with none if that is a checkpoint.
    # A continued run has others by now.
    trainer.push(fleet, version=session.state.step)
    record_evaluation(session, fleet, heldout)
    while not session.at_end():
        step = session.state.step + 1
        candidates = [next(stream) for _ in range(allocator.candidates())]
        sampling = StepSampling(fleet, allocator, candidates, f"step {step}", session)
        sampling.sample_roots()
        sampling.sample_prefixes()
        trees, cost = sampling.finish()
        row = record_sampling(session, step, trees, cost)
        cost.attempts.check(config.stop.failed)
        state = session.state.after(len(candidates), trees, allocator.state())
        with cost.phase("learning", session):
            row |= trainer.learn(trees)
        # The weights are those of this step from here on, whatever happens to the fleet: a
        # checkpoint must say so, and the step gets its row.
        session.state = replace(state, updates=trainer.updates())
        try:
            with cost.phase("weights", session):
                trainer.push(fleet, version=step)
            with cost.phase("checkpoint", session):
                session.keep(trainer)
        finally:
            session.write(row | cost.times() | {"events": fleet.take_events()})
        # Checked last: the row and the checkpoint of a sick step are what its user will look at.
        check_health(row, config.stop)
        record_evaluation(session, fleet, heldout)
        session.stop.check()


def collect_rollouts(
    session: Session, fleet: Fleet, allocator: Allocator, tasks: Sequence[WeightedTasks]
) -> None:
    """Sample every step and train nothing (`--rollout-only`), with the weights of `model.path`.

    Raises:
        UnhealthyRun: too much failed in the environment.
        Stopped: the run was asked to end.
    """
    stream = mixed_stream(tasks, session.config.run.seed)
    while not session.at_end():
        step = session.state.step + 1
        candidates = [next(stream) for _ in range(allocator.candidates())]
        trees, cost = sample_trees(fleet, allocator, candidates, f"step {step}", session)
        row = record_sampling(session, step, trees, cost)
        cost.attempts.check(session.config.stop.failed)
        session.state = session.state.after(len(candidates), trees, allocator.state())
        session.write(row | cost.times() | {"events": fleet.take_events()})
        session.stop.check()


def replay(session: Session, replay_dir: Path, trainer: Trainer) -> None:
    """Take the training step of every saved step of `replay_dir`, without a fleet.

    Raises:
        UnhealthyRun: a threshold of `stop` was crossed.
        Stopped: the run was asked to end.
        SettingError: a step's trees cannot be read.
    """
    config = session.config
    for step in range(session.state.step + 1, config.run.steps + 1):
        file = trees_file(replay_dir, step)
        if not file.exists():
            session.progress.message(f"{replay_dir} holds {step - 1} steps; replay ends here")
            return
        try:
            trees, cost = load_trees(file), StepCost()
        except BadData as error:
            raise SettingError("--replay", str(replay_dir), str(error)) from None
        row = sampling_metrics(step, trees, cost) | source_shares(config.data, trees)
        with cost.phase("learning", session):
            row |= trainer.learn(trees)
        with cost.phase("checkpoint", session):
            session.state = replace(session.state, step=step, updates=trainer.updates())
            session.keep(trainer)
        row |= cost.times()
        session.write(row)
        check_health(row, config.stop)
        session.stop.check()
