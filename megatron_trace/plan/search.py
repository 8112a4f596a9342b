"""The best layouts of a cluster: every combination that passes a run's own checks and fits, by estimated step time."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from megatron_trace.architecture import number_of_experts, sparse_layers
from megatron_trace.check import SettingError
from megatron_trace.check.parallel import check_parallel
from megatron_trace.check.precision import check_precision
from megatron_trace.check.recompute import check_recompute
from megatron_trace.config import Config, Recompute
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.layout import train_gpus
from megatron_trace.plan.machines import Cluster
from megatron_trace.plan.planner import Plan, make_plan

SIZES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Found:
    """What a search saw.

    Attributes:
        best: plans that fit, the shortest step first.
        tried, refused, too_large: layouts, those that a check refused, and those that do not fit.
    """

    best: list[Plan]
    tried: int
    refused: int
    too_large: int


def search(
    config: Config, hf: dict[str, Any], cluster: Cluster, assumptions: Assumptions, *, keep: int = 10
) -> Found:
    """Try all layouts of `config` on `cluster`, by arithmetic alone."""
    plans: list[Plan] = []
    tried = refused = 0
    for candidate in candidates(config, hf, cluster):
        tried += 1
        try:
            check_parallel(candidate, hf, train_gpus(candidate, cluster))
            check_precision(candidate, hf)
            check_recompute(candidate, hf)
        except SettingError:
            refused += 1
            continue
        plans.append(make_plan(candidate, hf, cluster, assumptions, exact=False))
    fitting = [plan for plan in plans if plan.fits]
    fitting.sort(key=lambda plan: (plan.seconds.step, _fullest(plan)))
    return Found(fitting[:keep], tried, refused, len(plans) - len(fitting))


def candidates(config: Config, hf: dict[str, Any], cluster: Cluster) -> Iterator[Config]:
    """Combinations of all sizes that a search varies; most are refused by the checks."""
    within = [size for size in SIZES if size <= cluster.gpus_per_node]
    experts = SIZES if number_of_experts(hf) else (1,)
    expert_tensors = (1, None) if number_of_experts(hf) else (None,)
    for fleet, width in itertools.product(fleets(cluster), within):
        if fleet % width:
            continue
        rollout = replace(config.rollout, workers=fleet // width, tensor_parallel=width)
        for tensor, pipeline, interleave, context, expert, expert_tensor in itertools.product(
            within, SIZES[:4], (1, 2, 4), (1, 2, 4), experts, expert_tensors
        ):
            if tensor * pipeline * context > cluster.gpus or (interleave > 1 and pipeline == 1):
                continue
            parallel = replace(
                config.parallel,
                tensor=tensor,
                sequence=None,
                pipeline=pipeline,
                interleave=interleave,
                context=context,
                expert=expert,
                expert_tensor=expert_tensor,
            )
            for recompute in recomputations(config, hf):
                yield replace(config, rollout=rollout, parallel=parallel, recompute=recompute)


def fleets(cluster: Cluster) -> list[int]:
    """Numbers of GPUs for the engines: whole nodes, or shares of the only one."""
    if cluster.nodes > 1:
        return [nodes * cluster.gpus_per_node for nodes in range(1, cluster.nodes)]
    return list(range(1, cluster.gpus_per_node))


def recomputations(config: Config, hf: dict[str, Any]) -> list[Any]:
    """None, the MLPs (or experts), and everything."""
    sparse = sparse_layers(hf)
    modules = [name for name, there in (("mlp", not all(sparse)), ("moe", any(sparse))) if there]
    return [
        replace(config.recompute, granularity=Recompute.none),
        replace(config.recompute, granularity=Recompute.selective, modules=modules),
        replace(config.recompute, granularity=Recompute.full, method="uniform", layers=1),
    ]


def overrides(plan: Plan) -> str:
    """The settings of a plan that a search varies, to paste behind a command."""
    parallel, rollout, recompute = plan.config.parallel, plan.config.rollout, plan.config.recompute
    settings = {
        "parallel.tensor": parallel.tensor,
        "parallel.pipeline": parallel.pipeline,
        "parallel.interleave": parallel.interleave,
        "parallel.context": parallel.context,
        "parallel.expert": parallel.expert,
        "parallel.expert_tensor": "null" if parallel.expert_tensor is None else parallel.expert_tensor,
        "recompute.granularity": recompute.granularity.value,
        "rollout.workers": rollout.workers,
        "rollout.tensor_parallel": rollout.tensor_parallel,
    }
    if recompute.granularity is Recompute.selective:
        settings["recompute.modules"] = "[" + ",".join(recompute.modules) + "]"
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _fullest(plan: Plan) -> int:
    return max(stage.total for stage in plan.stages)
