"""What is written down of a step: its trees, its metrics, its evaluation."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from megatron_trace.config import DataConfig
from megatron_trace.config.sources import train_sources
from megatron_trace.data.tasks import Tasks
from megatron_trace.report.metrics import calibration_bins, tree_metrics
from megatron_trace.rollout.evaluation import evaluate
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.rollout.sampling import StepCost
from megatron_trace.training.run_folder import trees_file
from megatron_trace.training.session import Session
from megatron_trace.tree import RolloutTree, save_trees


def record_sampling(
    session: Session, step: int, trees: Sequence[RolloutTree], cost: StepCost
) -> dict[str, Any]:
    """Save the trees of `step` if `run.save_trees` is set; returns the metrics of its sampling."""
    if session.config.run.save_trees:
        with session.can_do_without(f"the trees of step {step}"):
            save_trees(trees_file(session.run_dir, step), trees)
    for line in cost.attempts.tell():
        session.note(line)
    row = sampling_metrics(step, trees, cost) | source_shares(session.config.data, trees)
    session.steps_without_contrast += 1
    if row["mixed_share"] > 0:
        session.steps_without_contrast = 0
    # Once at first, then ever more seldom: it is no fault of the run's, but easily overlooked.
    if session.steps_without_contrast in (1, 10, 100, 1_000):
        session.note(without_contrast(row, session.steps_without_contrast))
    return row


def without_contrast(row: Mapping[str, Any], steps: int) -> str:
    """What is told when no tree held both a success and a failure for `steps` steps in a row."""
    which = "this step" if steps == 1 else f"the last {steps} steps"
    success, malformed = row.get("success_rate", 0.0), row["malformed_share"]
    return (
        f"no tree of {which} holds both a success and a failure, so there is nothing to compare "
        f"(success {success:.2f}, malformed turns {malformed:.0%}); look at the trees with "
        "tools/view_trees.py"
    )


def sampling_metrics(step: int, trees: Sequence[RolloutTree], cost: StepCost) -> dict[str, Any]:
    """The beginning of a step's row of metrics: which policy sampled, what, and how fast.

    Args:
        cost: what sampling cost, and nothing after it: the rates are per second of sampling.
    """
    row: dict[str, Any] = {"step": step, "policy_version": step - 1}
    row |= tree_metrics(trees) | cost.predictor | cost.attempts.counts()
    row["calibration"] = calibration_bins(trees)
    seconds = sum(cost.seconds.values())
    # A replay spends nothing on sampling.
    if seconds:
        row["rollouts_per_s"] = (row["bare_rollouts"] + row["continuations"]) / seconds
        row["prefix_cache_share"] = cost.cached_tokens / max(cost.prompt_tokens, 1)
        row["prefix_cache_hits"] = cost.cached_tokens / max(cost.known_tokens, 1)
    if waited := cost.engine_s + cost.environment_s:
        row["environment_share"] = cost.environment_s / waited
    return row


def source_shares(data: DataConfig, trees: Sequence[RolloutTree]) -> dict[str, float]:
    """`tasks/NAME` -> share of the trees whose task is of a source of `data.train`.

    Empty where `data.train` itself names files. The id of a task begins with its source's prefix.
    """
    ids = [str(tree.task["id"]) for tree in trees]
    sources = [source for source in train_sources(data) if source.name]
    if not ids:
        return {}
    return {
        f"tasks/{source.name}": sum(one.startswith(source.prefix) for one in ids) / len(ids)
        for source in sources
    }


def record_evaluation(session: Session, fleet: Fleet, heldout: Mapping[str, Tasks]) -> None:
    """Evaluate where `evaluation.every` or the run's end asks for it, and write the results down.

    Args:
        heldout: name -> held-out tasks.
    """
    step, every = session.state.step, session.config.evaluation.every
    due = every > 0 and (step % every == 0 or session.at_end())
    # A run that is continued from a step may have evaluated it before it was interrupted.
    if not heldout or not due or step in session.evaluated:
        return
    begin = time.perf_counter()
    row = {"step": step} | evaluate(
        fleet, heldout, session, session.config.evaluation.rollouts, session.config.stop.failed
    )
    for line in row.pop("events"):
        session.note(line)
    row["time/evaluation"] = time.perf_counter() - begin
    session.write(row)
