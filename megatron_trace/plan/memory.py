"""Memory of every train GPU, stage by stage, and whether it fits."""

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_trace.config import Config
from megatron_trace.plan.activations import activations
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.layer_bytes import Kernels
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.machines import GIB, Gpu
from megatron_trace.plan.model_state import (
    ModelState,
    fp8_change,
    model_state,
    parameter_counts,
)
from megatron_trace.plan.reach import Reach
from megatron_trace.plan.shape import Shape
from megatron_trace.plan.transfer import transfer_bytes

CPU_RESERVE = 490 * 2**20
"""Bytes of Python, PyTorch and Megatron in a train rank on the CPU, as measured."""


@dataclass(frozen=True)
class StageMemory:
    """Bytes of a train GPU of one pipeline stage: of the one that holds most.

    Attributes:
        activations: at the peak of a backward pass, with the output layer's and temporaries.
        transfer: of tensors on their way to the fleet, when there are no activations.
        reserve: what the plan does not count.
        capacity: memory of the GPU.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    transfer: int
    reserve: int
    capacity: int

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return self.weights + self.gradients + self.optimizer + self.temporary + self.reserve

    @property
    def temporary(self) -> int:
        """Bytes of what comes and goes: activations, and between two steps a transfer."""
        return max(self.activations, self.transfer)

    @property
    def fits(self) -> bool:
        """Whether the GPU has room for the total."""
        return self.total <= self.capacity


def counted_stages(shape: Shape, layout: Layout, config: Config) -> list[ModelState]:
    """What a rank of every pipeline stage holds, by arithmetic: fast, but without Megatron's
    padding.
    """
    states = []
    for stage in range(layout.pipeline):
        count = parameter_counts(shape, layout, stage)
        states.append(model_state(count, config, layout))
    return states


def stage_memory(
    shape: Shape,
    layout: Layout,
    config: Config,
    gpu: Gpu,
    assumptions: Assumptions,
    *,
    stages: Sequence[ModelState],
    micro_batches: int,
    reach: Reach,
    kernels: Kernels,
) -> list[StageMemory]:
    """Memory of a GPU of every pipeline stage.

    Args:
        stages: what each stage's ranks hold all the time, from `build.built_stages` or
            `counted_stages`.
        micro_batches: of one update on one rank.
        reach: what attention gathers.
    """
    # What was measured on the CPU has the transfer in it.
    reserve, on_cpu = CPU_RESERVE, gpu.name == "cpu"
    if not on_cpu:
        reserve = round(assumptions.train_reserve_gib * GIB)
    # A pipeline's first stage has the most micro-batches in flight, its last stage the logits and
    # the predictor. So any stage can be the one that does not fit.
    memories = []
    for stage, state in enumerate(stages):
        count = parameter_counts(shape, layout, stage)
        copies = fp8_change(count.matrices, config, shape.layers, gpu.capability)
        saved = activations(
            shape,
            layout,
            config,
            stage,
            micro_batches=micro_batches,
            reach=reach,
            kernels=kernels,
        )
        memories.append(
            StageMemory(
                weights=state.weights + copies,
                gradients=state.gradients,
                optimizer=state.optimizer,
                activations=saved.total,
                transfer=0 if on_cpu else transfer_bytes(shape, layout, config, stage),
                reserve=reserve,
                capacity=gpu.memory,
            )
        )
    return memories
