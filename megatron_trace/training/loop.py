"""The training loop: plan roots, sample, plan prefixes, sample, learn, push weights.

TRACE (arXiv 2606.11119) a line at a time; everything it calls is in the rooms beside it.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_trace.allocation import make_strategy
from megatron_trace.config import Config
from megatron_trace.data.tasks import task_stream
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.training.evaluation import evaluate
from megatron_trace.training.health import check_health
from megatron_trace.training.metrics import MetricsWriter, calibration_bins, tree_metrics
from megatron_trace.training.progress import RunProgress
from megatron_trace.training.sampling import Spending, sample_trees
from megatron_trace.training.trainer import Trainer
from megatron_trace.tree import RolloutTree, load_trees, save_trees

Tasks = Sequence[dict[str, Any]]


def train(
    config: Config,
    run_dir: Path,
    fleet: Fleet,
    trainer: Trainer | None,
    tasks: Tasks,
    heldout: Mapping[str, Tasks],
    writer: MetricsWriter,
    progress: RunProgress,
) -> None:
    """Take `run.steps` steps; without a `trainer` only the rollouts of each.

    Raises:
        UnhealthyRun: a threshold of `stop` was crossed.
    """
    strategy = make_strategy(config.allocation)
    stream = task_stream(tasks, config.run.seed)
    if trainer is not None:
        trainer.push(fleet, version=0)
        report_evaluation(config, 0, fleet, heldout, writer, progress)
    for step in range(1, config.run.steps + 1):
        candidates = [next(stream) for _ in range(strategy.candidates)]
        trees, spending = sample_trees(fleet, strategy, candidates, f"step {step}", progress)
        if config.run.save_trees:
            save_trees(trees_file(run_dir, step), trees)
        row = {"step": step, "policy_version": step - 1} | sampling_metrics(trees, spending)
        if trainer is not None:
            with spending.phase("learning", progress):
                row |= trainer.learn(trees)
            with spending.phase("weights", progress):
                trainer.push(fleet, version=step)
        row |= {f"time/{name}": seconds for name, seconds in spending.seconds.items()}
        row["events"] = fleet.take_events()
        writer.write(row)
        progress.step_done(row)
        if trainer is not None:
            check_health(row, config.stop)
            report_evaluation(config, step, fleet, heldout, writer, progress)


def replay(
    config: Config, replay_dir: Path, trainer: Trainer, writer: MetricsWriter, progress: RunProgress
) -> None:
    """Take the training step of every saved step of `replay_dir`, without a fleet."""
    for step in range(1, config.run.steps + 1):
        if not (file := trees_file(replay_dir, step)).exists():
            progress.message(f"{replay_dir} holds {step - 1} steps; replay ends here")
            return
        trees, spending = load_trees(file), Spending()
        row = {"step": step, "policy_version": step - 1} | sampling_metrics(trees, spending)
        with spending.phase("learning", progress):
            row |= trainer.learn(trees)
        row |= {f"time/{name}": seconds for name, seconds in spending.seconds.items()}
        writer.write(row)
        progress.step_done(row)
        check_health(row, config.stop)


def report_evaluation(
    config: Config,
    step: int,
    fleet: Fleet,
    heldout: Mapping[str, Tasks],
    writer: MetricsWriter,
    progress: RunProgress,
) -> None:
    """Evaluate where `evaluation.every` or the run's end asks for it, and write it down."""
    every = config.evaluation.every
    if not heldout or every == 0 or (step % every and step != config.run.steps):
        return
    begin = time.perf_counter()
    row = {"step": step} | evaluate(fleet, heldout, progress)
    row["time/evaluation"] = time.perf_counter() - begin
    writer.write(row)
    progress.step_done(row)


def sampling_metrics(trees: Sequence[RolloutTree], spending: Spending) -> dict[str, Any]:
    """What a step's trees and their sampling say."""
    metrics: dict[str, Any] = dict(tree_metrics(trees)) | {"calibration": calibration_bins(trees)}
    seconds = sum(spending.seconds.values())
    if seconds:
        metrics["rollouts_per_s"] = (metrics["bare_rollouts"] + metrics["continuations"]) / seconds
        metrics["prefix_cache_share"] = spending.cached_tokens / max(spending.prompt_tokens, 1)
    return metrics


def trees_file(run_dir: Path, step: int) -> Path:
    """Where a step's trees are kept."""
    return run_dir / "trees" / f"step_{step:05d}.jsonl.gz"
