"""Where every train rank stands, and which layers it holds: Megatron's order of ranks, without starting any."""

import math
from dataclasses import dataclass

from megatron_trace.config import Config, SettingError
from megatron_trace.models.layout import sequence_parallel
from megatron_trace.plan.machines import Cluster


@dataclass(frozen=True)
class Coordinates:
    """A train rank's place in each kind of parallelism."""

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
        """Of `world` train ranks, which the parallel sizes' products divide."""
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
    def shards(self) -> int:
        """Ranks over which the optimizer state of all but the experts is sharded: data- and context-parallel ones."""
        return self.data * self.context

    @property
    def expert_shards(self) -> int:
        """Ranks over which that of the experts is sharded."""
        return self.world // (self.expert_tensor * self.expert * self.pipeline)

    def coordinates(self, rank: int) -> Coordinates:
        """Of train rank `rank`: tensor-parallel ranks are neighbours, then come context, data and pipeline."""
        rest, tensor = divmod(rank, self.tensor)
        rest, context = divmod(rest, self.context)
        pipeline, data = divmod(rest, self.data)
        expert = rank // self.expert_tensor % self.expert
        return Coordinates(tensor, context, data, pipeline, expert)

    def tensor_crosses_nodes(self, gpus_per_node: int) -> bool:
        """Whether tensor-parallel ranks of one group stand on several nodes."""
        starts = range(0, self.world, self.tensor)
        return any(
            start // gpus_per_node != (start + self.tensor - 1) // gpus_per_node for start in starts
        )

    def layers(self, stage: int, total: int) -> list[range]:
        """Layers of each part of the model on pipeline stage `stage`, counted from 0."""
        size = total // (self.pipeline * self.interleave)
        starts = [(chunk * self.pipeline + stage) * size for chunk in range(self.interleave)]
        return [range(start, start + size) for start in starts]

    def in_flight(self, stage: int, micro_batches: int) -> int:
        """Parts' micro-batches whose activations a stage holds at most: 1F1B, or the interleaved schedule."""
        if self.interleave == 1:
            return min(self.pipeline - stage, micro_batches)
        warm_up = 2 * (self.pipeline - stage - 1) + (self.interleave - 1) * self.pipeline
        return min(warm_up + 1, micro_batches * self.interleave)


def train_gpus(config: Config, cluster: Cluster) -> int:
    """GPUs that are left for the train ranks when the fleet has taken its own.

    Raises:
        SettingError: none is left.
    """
    fleet = config.rollout.workers * config.rollout.tensor_parallel
    if fleet >= cluster.gpus:
        remedy = (
            f"with rollout.tensor_parallel = {config.rollout.tensor_parallel} takes {fleet} of the cluster's "
            f"{cluster.gpus} GPUs and leaves none to train"
        )
        raise SettingError("rollout.workers", config.rollout.workers, remedy)
    return cluster.gpus - fleet


def check_engines(config: Config, cluster: Cluster, world: int) -> None:
    """Refuse engines that do not stand within a node each, beside `world` train ranks on the first GPUs.

    Raises:
        SettingError: they do not.
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
    """Engines of `size` GPUs, each within a node, for which `world` train ranks on the first GPUs leave room."""
    each = cluster.gpus_per_node
    return sum(
        min(each, max(0, end - world)) // size for end in range(each, cluster.gpus + 1, each)
    )


def smallest_world(config: Config) -> int:
    """Fewest train ranks that the parallel sizes take."""
    parallel = config.parallel
    experts = (parallel.expert_tensor or parallel.tensor) * parallel.expert * parallel.pipeline
    return math.lcm(parallel.tensor * parallel.context * parallel.pipeline, experts)
