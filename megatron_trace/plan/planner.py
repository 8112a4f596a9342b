"""A whole plan of one configuration on one cluster."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from megatron_trace.config import Config, FP8Recipe, Precision, SettingError
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.capacity import Capacity, capacity
from megatron_trace.plan.duration import Durations, durations, micro_batches
from megatron_trace.plan.engine import EngineMemory, engine_memory
from megatron_trace.plan.host import checkpoint_host_bytes
from megatron_trace.plan.layer_bytes import Kernels
from megatron_trace.plan.layout import Layout, check_engines, train_gpus
from megatron_trace.plan.machines import Cluster, Gpu
from megatron_trace.plan.memory import StageMemory, counted_stages, stage_memory
from megatron_trace.plan.model_state import BLACKWELL
from megatron_trace.plan.reach import reach
from megatron_trace.plan.shape import Shape
from megatron_trace.plan.workload import Workload, workload


@dataclass(frozen=True)
class Plan:
    """What `config` does on `cluster`.

    Attributes:
        work: what a step samples and learns from.
        micro_batches: of each data-parallel rank in one optimizer update.
        stages: memory of a train GPU of every pipeline stage, in bytes.
        engine: memory of a GPU of the fleet, in bytes.
        checkpoint_host: memory outside the GPUs that a checkpoint takes on a train node, in bytes.
        seconds: of one step's phases.
        capacity: how well the fleet and the train ranks match.
    """

    config: Config
    cluster: Cluster
    shape: Shape
    layout: Layout
    work: Workload
    micro_batches: int
    stages: list[StageMemory]
    engine: EngineMemory
    checkpoint_host: int
    seconds: Durations
    capacity: Capacity

    @property
    def fits(self) -> bool:
        """Whether every GPU has room for what it is to hold."""
        return all(stage.fits for stage in self.stages) and self.engine.fits

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for a JSON file: bytes, seconds and tokens."""
        return {
            "fits": self.fits,
            "cluster": dataclasses.asdict(self.cluster),
            "layout": dataclasses.asdict(self.layout) | {"data": self.layout.data},
            "workload": dataclasses.asdict(self.work),
            "micro_batches": self.micro_batches,
            "stages": [dataclasses.asdict(stage) | {"total": stage.total} for stage in self.stages],
            "engine": dataclasses.asdict(self.engine),
            "checkpoint_host": self.checkpoint_host,
            "seconds": dataclasses.asdict(self.seconds) | {"step": self.seconds.step},
            "capacity": dataclasses.asdict(self.capacity),
        }


def check_gpu(config: Config, gpu: Gpu) -> None:
    """Refuse an arithmetic that `gpu` does not have.

    Raises:
        SettingError: FP8, or its recipe, needs another GPU.
    """
    precision = config.precision
    if precision.train is not Precision.fp8:
        return
    if not gpu.fp8_flops:
        raise SettingError("precision.train", precision.train, f"{gpu.name} has no FP8; use bf16")
    if precision.fp8_recipe is FP8Recipe.mxfp8 and gpu.capability < BLACKWELL:
        remedy = f"needs Blackwell, which {gpu.name} is not; use blockwise"
        raise SettingError("precision.fp8_recipe", precision.fp8_recipe, remedy)


def make_plan(
    config: Config,
    hf: dict[str, Any],
    cluster: Cluster,
    assumptions: Assumptions,
    *,
    exact: bool = True,
    world: int | None = None,
) -> Plan:
    """Plan the model that `hf` (config.json) describes.

    Args:
        exact: build every pipeline stage of the real model (seconds) rather than count its
            parameters.
        world: train ranks; None for all GPUs that the fleet leaves.

    Raises:
        SettingError: no GPU is left to train, an engine has no place, or the GPUs lack the
            arithmetic of `config.precision`.
    """
    # First what the GPUs cannot compute: its message names the setting to change, whatever the
    # layout.
    check_gpu(config, cluster.gpu)
    world = train_gpus(config, cluster) if world is None else world
    check_engines(config, cluster, world)
    shape, layout = Shape.of(hf), Layout.of(config, world)
    # A stage's activations depend on the micro-batches in flight, so the workload comes before
    # memory.
    work = workload(config, assumptions)
    updates = config.learning.batching.updates_per_step
    count = micro_batches(config, layout, work, assumptions, updates=updates)
    if exact:
        # Imports Megatron, which takes seconds. A search plans thousands of layouts without it.
        from megatron_trace.plan.build import built_stages

        states = built_stages(hf, config, world)
    else:
        states = counted_stages(shape, layout, config)
    engine = engine_memory(shape, config, cluster.gpu, assumptions)
    stages = stage_memory(
        shape,
        layout,
        config,
        cluster.gpu,
        assumptions,
        stages=states,
        micro_batches=count,
        reach=reach(config, layout, work),
        kernels=Kernels.of(config, cluster.gpu.name),
    )
    seconds = durations(shape, layout, config, cluster, work, engine, assumptions)
    return Plan(
        config=config,
        cluster=cluster,
        shape=shape,
        layout=layout,
        work=work,
        micro_batches=count,
        stages=stages,
        engine=engine,
        checkpoint_host=checkpoint_host_bytes(shape, layout, config, cluster.gpus_per_node),
        seconds=seconds,
        capacity=capacity(config, seconds),
    )
