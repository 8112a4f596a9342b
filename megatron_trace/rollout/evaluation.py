"""Held-out tasks, played at the temperature of training: what each task's rollouts came to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from megatron_trace.rollout.failures import Attempts
from megatron_trace.rollout.sampling import Progress, Sampler
from megatron_trace.rollout.scores import pass_at
from megatron_trace.rollout.types import RolloutRequest, SampledRollout
from megatron_trace.tree import ROOT, RolloutTree
from megatron_trace.tree.predictions import Outcomes, scores

MEAN = "mean"
"""Key of the success over the tasks of all sets."""


@dataclass
class Item:
    """A task of a set, and its rollouts that came to their end.

    Attributes:
        set_name: of the held-out set.
        prediction: success of the task as predicted at the end of its prompt; None: there was none.
        failed: rollouts that an error of the environment ended.
    """

    set_name: str
    task: Mapping[str, Any]
    prediction: float | None
    rollouts: list[SampledRollout] = field(default_factory=list)
    failed: int = 0

    @property
    def rewards(self) -> list[float]:
        """Terminal rewards."""
        return [rollout.turns[-1].reward for rollout in self.rollouts]


def play(
    sampler: Sampler,
    heldout: Mapping[str, Sequence[dict[str, Any]]],
    progress: Progress,
    rollouts: int = 1,
    most_failed: float | None = None,
) -> tuple[list[Item], Attempts]:
    """Play every task of every set.

    Args:
        rollouts: of each task.
        most_failed: `stop.failed`.

    Returns:
        The tasks on which an episode began, and what failed.

    Raises:
        UnhealthyRun: too many failed, or all.
    """
    tasks = [task for tasks in heldout.values() for task in tasks]
    progress.phase("evaluation", len(tasks) * rollouts)
    attempts = Attempts()
    items: list[Item] = []
    requests: list[RolloutRequest] = []
    opened = iter(sampler.open_trees(tasks))
    for name, set_tasks in heldout.items():
        for tree in attempts.opened(islice(opened, len(set_tasks))):
            items.append(Item(name, tree.task, tree.turns[ROOT].prediction))
            requests += [_request(name, tree, number) for number in range(rollouts)]
    sampled = sampler.sample(requests, on_done=lambda *_: progress.advance())
    for number, rollout in enumerate(sampled):
        item = items[number // rollouts]
        if attempts.ended(rollout.failure):
            item.rollouts.append(rollout)
        else:
            item.failed += 1
    attempts.check(most_failed)
    return items, attempts


def evaluate(
    sampler: Sampler,
    heldout: Mapping[str, Sequence[dict[str, Any]]],
    progress: Progress,
    rollouts: int = 1,
    most_failed: float | None = None,
) -> dict[str, Any]:
    """Success of the current policy. What fails by an error of the environment is left out.

    Args:
        rollouts: of each task; a task's success is their mean reward.
        most_failed: `stop.failed`.

    Returns:
        The keys of an evaluation row of `metrics.jsonl`: `evaluation`, the success by set and its
        mean over all tasks; `evaluation_tasks`, the number of tasks in it;
        `evaluation_standard_error`, that of the mean; `evaluation_failed`, the tasks and rollouts
        left out; `evaluation_pass`, pass@k of all tasks for k up to `rollouts`, where that is more
        than one; `evaluation_parts`, the mean of each part of the rewards; `evaluation_predictor`,
        `scores` of the predictions at the ends of the prompts; `events`, what is to be told of what
        failed.

    Raises:
        UnhealthyRun: too many failed, or all.
    """
    items, attempts = play(sampler, heldout, progress, rollouts, most_failed)
    played = [item for item in items if item.rollouts]
    success = np.array([np.mean(item.rewards) for item in played])
    of_set = np.array([item.set_name for item in played])
    # A set of which all tasks failed has no success.
    by_set = {name: float(success[of_set == name].mean()) for name in heldout if name in of_set}
    row: dict[str, Any] = {
        "evaluation": by_set | {MEAN: float(success.mean())},
        "evaluation_tasks": len(played),
        "evaluation_standard_error": float(success.std() / np.sqrt(len(played))),
        "evaluation_failed": sum(attempts.counts().values()),
        "events": attempts.tell(),
    }
    if rollouts > 1:
        row["evaluation_pass"] = pass_at([item.rewards for item in played], rollouts)
    if parts := mean_parts(played):
        row["evaluation_parts"] = parts
    if predictor := scores(predictions(played)):
        row["evaluation_predictor"] = predictor
    return row


def predictions(items: Sequence[Item]) -> Outcomes:
    """What was predicted of the tasks, and what came of them.

    No allocator chose them, unlike the tasks of a training step.
    """
    rows = [
        (item.prediction, float(np.mean(item.rewards)), float(len(item.rewards)))
        for item in items
        if item.prediction is not None
    ]
    return Outcomes(*np.array(rows, dtype=np.float64).reshape(-1, 3).T)


def mean_parts(items: Sequence[Item]) -> dict[str, float]:
    """Mean over all rollouts of each part of the reward, by name; 0 where a rollout lacks it."""
    ends = [rollout.turns[-1].parts for item in items for rollout in item.rollouts]
    names = sorted({name for parts in ends for name in parts})
    return {name: float(np.mean([parts.get(name, 0.0) for parts in ends])) for name in names}


def _request(name: str, tree: RolloutTree, number: int) -> RolloutRequest:
    """A rollout on a task of the held-out set `name`."""
    root, task_id = tree.turns[ROOT], str(tree.task["id"])
    # Without the step in it, the name seeds the same rollout at every evaluation: two policies
    # differ by what they learned and not by their luck.
    rollout_name = f"evaluation/{name}/{task_id}" + (f"/{number}" if number else "")
    return RolloutRequest(rollout_name, root.observation_ids, root.state or {}, tree=task_id)
