"""Held-out success: one rollout for each task of each held-out set, at the temperature of training."""

from collections.abc import Mapping, Sequence
from itertools import compress, islice
from typing import Any

import numpy as np

from megatron_trace.rollout.failures import Attempts
from megatron_trace.rollout.sampling import Progress, Sampler
from megatron_trace.rollout.types import RolloutRequest
from megatron_trace.tree import ROOT, RolloutTree

MEAN = "mean"
"""Key of the success over the tasks of all sets."""


def evaluate(
    sampler: Sampler,
    heldout: Mapping[str, Sequence[dict[str, Any]]],
    progress: Progress,
    most_failed: float | None = None,
) -> dict[str, Any]:
    """Success of the current policy. What fails by an error of the environment is left out.

    Args:
        most_failed: `stop.failed`.

    Returns:
        The keys of an evaluation row of `metrics.jsonl`: `evaluation`, the success by set and its
        mean over all tasks; `evaluation_tasks`, the number of tasks in it;
        `evaluation_standard_error`, that of the mean; `evaluation_failed`, the tasks left out;
        `events`, what is to be told of them.

    Raises:
        UnhealthyRun: too many failed, or all.
    """
    tasks = [task for tasks in heldout.values() for task in tasks]
    progress.phase("evaluation", len(tasks))
    attempts = Attempts()
    set_names, requests = [], []
    opened = iter(sampler.open_trees(tasks))
    for name, set_tasks in heldout.items():
        for tree in attempts.opened(islice(opened, len(set_tasks))):
            set_names.append(name)
            requests.append(_request(name, tree))
    rollouts = sampler.sample(requests, on_done=lambda *_: progress.advance())
    ended = [attempts.ended(rollout.failure) for rollout in rollouts]
    attempts.check(most_failed)
    rewards = np.array([rollout.turns[-1].reward for rollout in compress(rollouts, ended)])
    of_set = np.array(list(compress(set_names, ended)))
    # A set of which all tasks failed has no success.
    success = {name: float(rewards[of_set == name].mean()) for name in heldout if name in of_set}
    return {
        "evaluation": success | {MEAN: float(rewards.mean())},
        "evaluation_tasks": len(rewards),
        "evaluation_standard_error": float(rewards.std() / np.sqrt(len(rewards))),
        "evaluation_failed": sum(attempts.counts().values()),
        "events": attempts.tell(),
    }


def _request(name: str, tree: RolloutTree) -> RolloutRequest:
    """The rollout on a task of the held-out set `name`."""
    root, task_id = tree.turns[ROOT], str(tree.task["id"])
    # Without the step in it, the name seeds the same rollout at every evaluation: two policies
    # differ by what they learned and not by their luck.
    rollout_name = f"evaluation/{name}/{task_id}"
    return RolloutRequest(rollout_name, root.observation_ids, root.state or {}, tree=task_id)
