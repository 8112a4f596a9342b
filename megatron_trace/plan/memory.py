"""Memory of every train GPU, stage by stage, and whether it fits."""

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_trace.config import Config
from megatron_trace.plan.activations import activations
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.held import Held, fp8_change, held, parameters
from megatron_trace.plan.layer_bytes import Kernels
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.machines import GIB, Gpu
from megatron_trace.plan.shape import Shape

CPU_RESERVE = 490 * 2**20
"""Python, PyTorch and Megatron in a train rank on the CPU, as measured."""


@dataclass(frozen=True)
class StageMemory:
    """Bytes of a train GPU of one pipeline stage; all GPUs of a stage hold the same.

    Attributes:
        activations: at the peak, with the output layer's and temporaries; see there.
        reserve: what the plan does not count.
        capacity: of the GPU.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    reserve: int
    capacity: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.reserve

    @property
    def fits(self) -> bool:
        """Whether it is no more than the GPU has."""
        return self.total <= self.capacity


def counted_stages(shape: Shape, layout: Layout, config: Config) -> list[Held]:
    """What a rank of every pipeline stage holds, by arithmetic: fast, and without Megatron's padding."""
    width = config.learning.predictor.hidden
    return [
        held(parameters(shape, layout, stage, width), config, layout)
        for stage in range(layout.pipeline)
    ]


def stage_memory(
    shape: Shape,
    layout: Layout,
    config: Config,
    gpu: Gpu,
    assumptions: Assumptions,
    *,
    stages: Sequence[Held],
    micro_batches: int,
    kernels: Kernels | None = None,
) -> list[StageMemory]:
    """Memory of a GPU of every pipeline stage.

    Args:
        stages: what each holds all the time, from `build.built_stages` or `counted_stages`.
        micro_batches: of one update on one rank.
    """
    memories = []
    for stage, kept in enumerate(stages):
        count = parameters(shape, layout, stage, config.learning.predictor.hidden)
        acts = activations(
            shape, layout, config, stage, micro_batches=micro_batches, kernels=kernels
        )
        memories.append(
            StageMemory(
                weights=kept.weights
                + fp8_change(count.matrices, config, shape.layers, gpu.capability),
                gradients=kept.gradients,
                optimizer=kept.optimizer,
                activations=acts.total,
                reserve=CPU_RESERVE
                if gpu.name == "cpu"
                else round(assumptions.train_reserve_gib * GIB),
                capacity=gpu.memory,
            )
        )
    return memories
