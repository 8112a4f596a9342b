"""The layouts that a search tries: powers of two up to 16, whole nodes for the fleet, three kinds
of recomputation.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from megatron_trace.config import Config, ParallelConfig, Recompute, RecomputeConfig, RolloutConfig
from megatron_trace.models.architecture import number_of_experts, sparse_layers
from megatron_trace.plan.machines import Cluster

PARALLEL_SIZES = (1, 2, 4, 8, 16)


def candidates(config: Config, hf: dict[str, Any], cluster: Cluster) -> Iterator[Config]:
    """Combinations of all sizes that a search varies; the checks refuse most of them.

    Tensor parallelism stays within a node; pipeline is at most 8, interleave and context are at
    most 4.
    """
    for rollout in rollout_candidates(config, cluster):
        for parallel in parallel_candidates(config, hf, cluster):
            for recompute in recomputations(config, hf):
                yield replace(config, rollout=rollout, parallel=parallel, recompute=recompute)


def rollout_candidates(config: Config, cluster: Cluster) -> Iterator[RolloutConfig]:
    """Every fleet, cut into engines of every size that divides it."""
    for fleet, size in itertools.product(fleets(cluster), sizes_within_node(cluster)):
        if fleet % size == 0:
            yield replace(config.rollout, workers=fleet // size, tensor_parallel=size)


def parallel_candidates(
    config: Config, hf: dict[str, Any], cluster: Cluster
) -> Iterator[ParallelConfig]:
    """Every combination of parallel sizes for which the cluster has enough GPUs."""
    experts = PARALLEL_SIZES if number_of_experts(hf) else (1,)
    expert_tensors = (1, None) if number_of_experts(hf) else (None,)
    for tensor, pipeline, interleave, context, expert, expert_tensor in itertools.product(
        sizes_within_node(cluster),
        PARALLEL_SIZES[:4],
        (1, 2, 4),
        (1, 2, 4),
        experts,
        expert_tensors,
    ):
        # Refused here and not by the checks, which would count them as layouts that were tried.
        if tensor * pipeline * context > cluster.gpus or (interleave > 1 and pipeline == 1):
            continue
        yield replace(
            config.parallel,
            tensor=tensor,
            # null, whatever `config` says: it follows from the tensor-parallel size, which varies
            # here.
            sequence=None,
            pipeline=pipeline,
            interleave=interleave,
            context=context,
            expert=expert,
            expert_tensor=expert_tensor,
        )


def sizes_within_node(cluster: Cluster) -> list[int]:
    """Parallel sizes that do not cross nodes."""
    return [size for size in PARALLEL_SIZES if size <= cluster.gpus_per_node]


def fleets(cluster: Cluster) -> list[int]:
    """Numbers of GPUs for the engines: whole nodes, or a part of the only node."""
    if cluster.nodes > 1:
        return [nodes * cluster.gpus_per_node for nodes in range(1, cluster.nodes)]
    return list(range(1, cluster.gpus_per_node))


def recomputations(config: Config, hf: dict[str, Any]) -> list[RecomputeConfig]:
    """Nothing, the MLPs (or experts), and everything."""
    sparse = sparse_layers(hf)
    modules = []
    if not all(sparse):
        modules.append("mlp")
    if any(sparse):
        modules.append("moe")
    return [
        replace(config.recompute, granularity=Recompute.none),
        replace(config.recompute, granularity=Recompute.selective, modules=modules),
        replace(config.recompute, granularity=Recompute.full, method="uniform", layers=1),
    ]
