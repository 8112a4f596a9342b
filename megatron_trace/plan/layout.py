"""Where every train rank stands, and which layers it holds: Megatron's order of ranks, without
starting any.
"""

import math
from dataclasses import dataclass

from megatron_trace.config import Config, SettingError
from megatron_trace.models.layout import sequence_parallel
from megatron_trace.plan.machines import Cluster


@dataclass(frozen=True)
class Coordinates:
    """A train rank's index in each kind of parallelism."""

    tensor: int
    context: int
    data: int
    pipeline: int
    expert: int


@dataclass(frozen=True)
class Layout:
    """Parallel sizes of `world` train ranks; see `ParallelConfig`."""

    world: int
    tensor: int
    sequence: bool
    pipeline: int
    interleave: int
    context: int
    expert: int
    expert_tensor: int

    @classmethod
    def of(cls, config: Config, world: int) -> "Layout":
        """The layout of `world` train ranks; the products of the parallel sizes must divide it."""
        parallel = config.parallel
        return cls(
            world=world,
            tensor=parallel.tensor,
            sequence=sequence_parallel(parallel),
            pipeline=parallel.pipeline,
            interleave=parallel.interleave,
            context=parallel.context,
            expert=parallel.expert,
            expert_tensor=parallel.expert_tensor or parallel.tensor,
        )

    @property
    def data(self) -> int:
        """Data-parallel size."""
        return self.world // (self.tensor * self.context * self.pipeline)

    @property
    def optimizer_shards(self) -> int:
        """Ranks that share the optimizer state of all parameters but the experts': data- and
        context-parallel ones.
        """
        return self.data * self.context

    @property
    def expert_shards(self) -> int:
        """Ranks that share the optimizer state of the experts."""
        return self.world // (self.expert_tensor * self.expert * self.pipeline)

    def coordinates(self, rank: int) -> Coordinates:
        """The indices of train rank `rank`."""
        # Megatron's order "tp-cp-ep-dp-pp": tensor-parallel ranks are neighbours, pipeline stages
        # lie furthest apart.
        rest, tensor = divmod(rank, self.tensor)
        rest, context = divmod(rest, self.context)
        pipeline, data = divmod(rest, self.data)
        expert = rank // self.expert_tensor % self.expert
        return Coordinates(tensor, context, data, pipeline, expert)

    def tensor_crosses_nodes(self, gpus_per_node: int) -> bool:
        """Whether the ranks of a tensor-parallel group stand on several nodes."""
        for first in range(0, self.world, self.tensor):
            last = first + self.tensor - 1
            if first // gpus_per_node != last // gpus_per_node:
                return True
        return False

    def layers(self, stage: int, total: int) -> list[range]:
        """Layers of each part of the model on pipeline stage `stage`, counted from 0."""
        # Interleaved, a stage holds every pipeline-th part of the model, not one block of layers.
        size = total // (self.pipeline * self.interleave)
        starts = [(part * self.pipeline + stage) * size for part in range(self.interleave)]
        return [range(start, start + size) for start in starts]

    def in_flight(self, stage: int, micro_batches: int) -> int:
        """The most (part, micro-batch) pairs whose activations a stage holds at once.

        Both of Megatron's schedules run forward passes first: 1F1B one for each later stage, the
        interleaved one more, so that every stage has work while the first micro-batch passes
        through all parts.
        """
        if self.interleave == 1:
            return min(self.pipeline - stage, micro_batches)
        later_stages = self.pipeline - stage - 1
        warm_up = 2 * later_stages + (self.interleave - 1) * self.pipeline
        return min(warm_up + 1, micro_batches * self.interleave)


def train_gpus(config: Config, cluster: Cluster) -> int:
    """GPUs that the fleet leaves for the train ranks.

    Raises:
        SettingError: the fleet leaves none.
    """
    size = config.rollout.tensor_parallel
    fleet = config.rollout.workers * size
    if fleet >= cluster.gpus:
        remedy = (
            f"with rollout.tensor_parallel = {size} takes {fleet} of the cluster's "
            f"{cluster.gpus} GPUs and leaves none to train"
        )
        raise SettingError("rollout.workers", config.rollout.workers, remedy)
    return cluster.gpus - fleet


def check_engines(config: Config, cluster: Cluster, world: int) -> None:
    """Refuse engines that do not stand within a node each, beside `world` train ranks on the first
    GPUs.

    Raises:
        SettingError: an engine is larger than a node, or there are more engines than places.
    """
    size, each = config.rollout.tensor_parallel, cluster.gpus_per_node
    if size > each:
        remedy = (
            f"is more than the {each} GPUs of a node, and an engine stands within one; lower it"
        )
        raise SettingError("rollout.tensor_parallel", size, remedy)
    places = engine_places(size, cluster, world)
    if config.rollout.workers > places:
        remedy = (
            f"the {cluster.nodes} nodes of {each} GPUs have whole places for {places} engines of "
            f"rollout.tensor_parallel = {size} beside {world} train ranks"
        )
        raise SettingError("rollout.workers", config.rollout.workers, remedy)


def engine_places(size: int, cluster: Cluster, world: int) -> int:
    """Engines of `size` GPUs, each within a node, for which `world` train ranks on the first GPUs
    leave room.
    """
    each = cluster.gpus_per_node
    # Train ranks may end within a node. Its free GPUs count only as whole engines.
    places = 0
    for end in range(each, cluster.gpus + 1, each):
        free = min(each, max(0, end - world))
        places += free // size
    return places


def smallest_world(config: Config) -> int:
    """The fewest train ranks that the parallel sizes allow."""
    parallel = config.parallel
    experts = (parallel.expert_tensor or parallel.tensor) * parallel.expert * parallel.pipeline
    return math.lcm(parallel.tensor * parallel.context * parallel.pipeline, experts)
