"""The training loop: plan roots, sample, plan prefixes, sample, learn, push weights.

TRACE (arXiv 2606.11119) a line at a time; everything it calls is in the rooms beside it.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_trace.allocation import Allocator
from megatron_trace.data.tasks import task_stream
from megatron_trace.report.metrics import calibration_bins, tree_metrics
from megatron_trace.rollout.evaluation import evaluate
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.rollout.sampling import Spending, sample_trees
from megatron_trace.supervise.health import check_health
from megatron_trace.training.checkpoints import RunState
from megatron_trace.training.session import Session
from megatron_trace.training.trainer import Trainer
from megatron_trace.tree import RolloutTree, load_trees, save_trees

Tasks = Sequence[dict[str, Any]]


def train(
    session: Session,
    fleet: Fleet,
    allocator: Allocator,
    trainer: Trainer | None,
    tasks: Tasks,
    heldout: Mapping[str, Tasks],
) -> None:
    """Take the steps from `session.state` to the run's end; without a `trainer` only the rollouts of each.

    Raises:
        UnhealthyRun: a threshold of `stop` was crossed.
        Stopped: the run was asked to end.
    """
    config, state = session.config, session.state
    allocator.restore(state.allocation)
    stream = task_stream(tasks, config.run.seed, start=state.tasks_taken)
    if trainer is not None:
        trainer.push(fleet, version=state.step)
        report_evaluation(session, state.step, fleet, heldout)
    while not session.at_end():
        step = session.state.step + 1
        candidates = [next(stream) for _ in range(allocator.candidates())]
        trees, spending = sample_trees(fleet, allocator, candidates, f"step {step}", session)
        if config.run.save_trees:
            save_trees(trees_file(session.run_dir, step), trees)
        row = {"step": step, "policy_version": step - 1} | sampling_metrics(trees, spending)
        reached = RunState(
            step,
            tasks_taken=session.state.tasks_taken + len(candidates),
            rollouts=session.state.rollouts + sum(len(tree.rollouts) for tree in trees),
            allocation=allocator.state(),
            identity=state.identity,
        )
        if trainer is not None:
            with spending.phase("learning", session):
                row |= trainer.learn(trees)
            with spending.phase("weights", session):
                trainer.push(fleet, version=step)
            reached.updates = trainer.updates()
            with spending.phase("checkpoint", session):
                session.keep(reached, trainer)
        else:
            session.state = reached
        row |= {f"time/{name}": seconds for name, seconds in spending.seconds.items()}
        session.write(row | {"events": fleet.take_events()})
        if trainer is not None:
            check_health(row, config.stop)
            report_evaluation(session, step, fleet, heldout)
        session.stop.check()


def replay(session: Session, replay_dir: Path, trainer: Trainer) -> None:
    """Take the training step of every saved step of `replay_dir`, without a fleet.

    Raises:
        UnhealthyRun: a threshold of `stop` was crossed.
        Stopped: the run was asked to end.
    """
    config, state = session.config, session.state
    for step in range(state.step + 1, config.run.steps + 1):
        if not (file := trees_file(replay_dir, step)).exists():
            session.progress.message(f"{replay_dir} holds {step - 1} steps; replay ends here")
            return
        trees, spending = load_trees(file), Spending()
        row = {"step": step, "policy_version": step - 1} | sampling_metrics(trees, spending)
        with spending.phase("learning", session):
            row |= trainer.learn(trees)
        with spending.phase("checkpoint", session):
            session.keep(RunState(step, trainer.updates(), identity=state.identity), trainer)
        row |= {f"time/{name}": seconds for name, seconds in spending.seconds.items()}
        session.write(row)
        check_health(row, config.stop)
        session.stop.check()


def report_evaluation(
    session: Session, step: int, fleet: Fleet, heldout: Mapping[str, Tasks]
) -> None:
    """Evaluate where `evaluation.every` or the run's end asks for it, and write it down."""
    every = session.config.evaluation.every
    if (
        not heldout
        or every == 0
        or (step % every and not session.at_end())
        or step in session.evaluated
    ):
        return
    begin = time.perf_counter()
    row = {"step": step} | evaluate(fleet, heldout, session)
    row["time/evaluation"] = time.perf_counter() - begin
    session.write(row)


def sampling_metrics(trees: Sequence[RolloutTree], spending: Spending) -> dict[str, Any]:
    """What a step's trees and their sampling say."""
    metrics: dict[str, Any] = tree_metrics(trees) | spending.predictor
    metrics["calibration"] = calibration_bins(trees)
    seconds = sum(spending.seconds.values())
    if seconds:
        metrics["rollouts_per_s"] = (metrics["bare_rollouts"] + metrics["continuations"]) / seconds
        metrics["prefix_cache_share"] = spending.cached_tokens / max(spending.prompt_tokens, 1)
    return metrics


def trees_file(run_dir: Path, step: int) -> Path:
    """Where a step's trees are kept."""
    return run_dir / "trees" / f"step_{step:05d}.jsonl.gz"
