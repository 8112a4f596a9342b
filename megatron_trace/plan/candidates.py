"""The layouts that a search tries: powers of two up to 16, whole nodes for the fleet, three kinds of recomputation."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from megatron_trace.config import Config, Recompute, RecomputeConfig
from megatron_trace.models.architecture import number_of_experts, sparse_layers
from megatron_trace.plan.machines import Cluster

SIZES = (1, 2, 4, 8, 16)


def candidates(config: Config, hf: dict[str, Any], cluster: Cluster) -> Iterator[Config]:
    """Combinations of all sizes that a search varies; most are refused by the checks.

    Tensor parallelism stays within a node; pipeline is at most 8, interleave and context are at most 4.
    """
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


def recomputations(config: Config, hf: dict[str, Any]) -> list[RecomputeConfig]:
    """None, the MLPs (or experts), and everything."""
    sparse = sparse_layers(hf)
    modules = [name for name, there in (("mlp", not all(sparse)), ("moe", any(sparse))) if there]
    return [
        replace(config.recompute, granularity=Recompute.none),
        replace(config.recompute, granularity=Recompute.selective, modules=modules),
        replace(config.recompute, granularity=Recompute.full, method="uniform", layers=1),
    ]
