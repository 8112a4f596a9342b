"""Held-out success: one rollout for each task of each held-out set, at the temperature of training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from megatron_trace.rollout.sampling import Sampler, Watcher
from megatron_trace.rollout.types import RolloutRequest
from megatron_trace.tree import ROOT

MEAN = "mean"


def evaluate(
    sampler: Sampler, heldout: Mapping[str, Sequence[dict[str, Any]]], watcher: Watcher
) -> dict[str, Any]:
    """Success of the current policy.

    The same names seed the same task's rollout at every evaluation, so that two policies differ by what they
    learned and not by their luck.

    Returns:
        the keys of an evaluation row of `metrics.jsonl`: success by set and the mean over all tasks, the
        number of tasks, and the standard error of the mean.
    """
    tasks = [(name, task) for name, tasks in heldout.items() for task in tasks]
    watcher.phase("evaluation", len(tasks))
    roots = [tree.turns[ROOT] for tree in sampler.open_trees([task for _, task in tasks])]
    requests = [
        RolloutRequest(
            f"evaluation/{name}/{task['id']}",
            root.observation_ids,
            root.state or {},
            tree=task["id"],
        )
        for (name, task), root in zip(tasks, roots, strict=True)
    ]
    rollouts = sampler.sample(requests, on_done=lambda *_: watcher.advance())
    rewards = np.array([rollout.turns[-1].reward for rollout in rollouts])
    of_set = np.array([name for name, _ in tasks])
    success = {name: float(rewards[of_set == name].mean()) for name in heldout}
    return {
        "evaluation": success | {MEAN: float(rewards.mean())},
        "evaluation_tasks": len(tasks),
        "evaluation_standard_error": float(rewards.std() / np.sqrt(len(rewards))),
    }
