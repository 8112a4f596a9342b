"""Trainer and fleet together: after every update the engine samples with the trainer's weights.

NCCL refuses two ranks on one GPU. So for it the train rank has the first GPU and the engine others.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gpu_checks.check import Context, Skip, Wrong, require
from gpu_checks.engine import TOLERANCE, models
from gpu_checks.sample_engine import engine_settings
from gpu_checks.training import Numbers, at, forget_policies, scored, scores
from megatron_trace.envs import Environment, StepResult
from megatron_trace.learning import rows_from_trees
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.ranks import RankGroup
from megatron_trace.rollout.failures import Failure
from megatron_trace.rollout.fleet import Fleet
from megatron_trace.rollout.types import RolloutRequest
from megatron_trace.training.trainer import Trainer
from megatron_trace.tree import ROOT, RolloutTree

VERSIONS, TASKS, ROLLOUTS = 3, 6, 4
MOVED = 4
"""Times the tolerance by which an update must change the policy: else old weights would pass."""


class OneTurn(Environment):
    """Episodes of one turn."""

    stop = ()

    def __init__(self) -> None: ...

    def reset(self, task: Mapping[str, Any]) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"Task {task['id']}. " * 8}]

    def step(self, action: str) -> StepResult:
        return StepResult("", done=True, reward=float(len(action) % 2), malformed=False)

    def snapshot(self) -> dict[str, Any]:
        return {}

    def restore(self, snapshot: Mapping[str, Any]) -> None: ...


def environments() -> Callable[[], OneTurn]:
    """What makes the episodes of a worker."""
    return OneTurn


def weights_by_object_store(context: Context) -> str:
    """Through Ray's object store, to an engine on the same GPU."""
    return versions(context, "ray", engines=0)


def weights_by_nccl(context: Context) -> str:
    """By NCCL, to an engine on the second GPU."""
    return versions(context, "nccl", engines=1)


def versions(context: Context, backend: str, engines: int, ranks: int = 1) -> str:
    """Compare trainer and engine for each of some versions of the policy.

    Args:
        backend: rollout.weight_backend.
        engines: number of the first GPU that the engine has.
        ranks: GPUs of the engine.

    Raises:
        Skip: there are fewer GPUs.
        Wrong: trainer and engine do not agree.
    """
    need_gpus(context, backend, engines + ranks)
    config = engine_settings(
        models(context)[0],
        context.device,
        f"rollout.weight_backend={backend}",
        f"rollout.tensor_parallel={ranks}",
        "learning.optimizer.learning_rate=1e-3",
        "learning.optimizer.warmup_steps=0",
    )
    group = RankGroup(Policy(config))
    show_ray(context, list(range(engines, engines + ranks)))
    fleet = Fleet(config, config.model.path, environments=environments)
    trainer, most, text = Trainer(config, group), TOLERANCE[context.device], ""
    for version in range(VERSIONS):
        trainer.push(fleet, version)
        trees = sample(fleet, version)
        rows = rows_from_trees(trees)
        found = Numbers(
            at([row.sampler_logprob for row in rows], rows, "learn"),
            np.array([tree.turns[ROOT].prediction for tree in trees], np.float32),
            updates=[],
        )
        before = scored(group.policy, rows)
        text = f"off by {scores(before, found, most)}"
        group.call(Policy.update, rows)
        after = scored(group.policy, rows)
        moved = float(np.abs(after.logprobs - before.logprobs).mean())
        text += f"; an update changes log-probabilities by {moved:.1g} nats"
        require(moved > MOVED * most.nats, f"{text}: too little to notice old weights")
    fleet.close()
    group.stop()
    forget_policies()
    return f"{VERSIONS} versions; the last is {text}"


def sample(fleet: Fleet, version: int) -> list[RolloutTree]:
    """A tree of some rollouts for each task."""
    trees = []
    for opened in fleet.open_trees([{"id": f"{number}"} for number in range(TASKS)]):
        if isinstance(opened, Failure):
            raise Wrong(f"no episode began: {opened}")
        trees.append(opened)
    owners = [tree for tree in trees for _ in range(ROLLOUTS)]
    requests = [
        RolloutRequest(f"{version}/{number}", tree.history_ids(ROOT), {}, str(tree.task["id"]))
        for number, tree in enumerate(owners)
    ]
    for tree, rollout in zip(owners, fleet.sample(requests), strict=True):
        tree.graft(ROOT, rollout.turns)
    return trees


def need_gpus(context: Context, backend: str, count: int) -> None:
    """Skip the check where there are fewer GPUs."""
    if context.device == "cpu":
        if backend == "nccl":
            raise Skip("needs CUDA devices")
        return
    found = torch.cuda.device_count()
    if found < count:
        raise Skip(f"needs {count} GPUs, found {found}")


def show_ray(context: Context, chosen: Sequence[int]) -> None:
    """Let Ray see the GPUs of these numbers alone; this process has read the variable before."""
    if context.device == "cpu":
        return
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else [str(n) for n in range(torch.cuda.device_count())]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[number] for number in chosen)
