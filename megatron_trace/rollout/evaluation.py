"""Held-out success: one rollout for each task of each held-out set, at the temperature of training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from megatron_trace.rollout.sampling import Progress, Sampler
from megatron_trace.rollout.types import RolloutRequest
from megatron_trace.tree import ROOT

MEAN = "mean"
"""Key of the success over the tasks of all sets."""


def evaluate(
    sampler: Sampler, heldout: Mapping[str, Sequence[dict[str, Any]]], progress: Progress
) -> dict[str, Any]:
    """Success of the current policy.

    Returns:
        The keys of an evaluation row of `metrics.jsonl`: `evaluation`, the success by set and its
        mean over all tasks; `evaluation_tasks`, their number; `evaluation_standard_error`, that of
        the mean.
    """
    set_names = [name for name, tasks in heldout.items() for _ in tasks]
    tasks = [task for tasks in heldout.values() for task in tasks]
    progress.phase("evaluation", len(tasks))
    requests = []
    for name, tree in zip(set_names, sampler.open_trees(tasks), strict=True):
        root, task_id = tree.turns[ROOT], tree.task["id"]
        # Without the step in it, the name seeds the same rollout at every evaluation: two policies
        # differ by what they learned and not by their luck.
        rollout_name = f"evaluation/{name}/{task_id}"
        requests.append(
            RolloutRequest(rollout_name, root.observation_ids, root.state or {}, tree=task_id)
        )
    rollouts = sampler.sample(requests, on_done=lambda *_: progress.advance())
    rewards = np.array([rollout.turns[-1].reward for rollout in rollouts])
    of_set = np.array(set_names)
    success = {name: float(rewards[of_set == name].mean()) for name in heldout}
    return {
        "evaluation": success | {MEAN: float(rewards.mean())},
        "evaluation_tasks": len(tasks),
        "evaluation_standard_error": float(rewards.std() / np.sqrt(len(rewards))),
    }
