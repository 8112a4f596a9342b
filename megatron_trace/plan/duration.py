"""How long each phase of a step may take, from stated peaks and assumed shares of them. Nothing here was measured."""

import math
from dataclasses import dataclass

from megatron_trace.config import Config, Precision
from megatron_trace.plan.assumptions import Assumptions, Workload
from megatron_trace.plan.engine import EngineMemory
from megatron_trace.plan.exchange import communication_time, weight_time
from megatron_trace.plan.flops import token_flops, training_flops
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.machines import Cluster
from megatron_trace.plan.shape import Shape


@dataclass(frozen=True)
class Durations:
    """Seconds of one step, in the order in which it goes through them.

    Attributes:
        prefill, decode: of sampling, on the engines.
        compute, communicate, bubble: of learning: matrix products, waiting for other ranks, waiting for the pipeline.
        weights: from the train ranks to the engines.
    """

    prefill: float
    decode: float
    compute: float
    communicate: float
    bubble: float
    weights: float

    @property
    def sampling(self) -> float:
        """Both stages of sampling."""
        return self.prefill + self.decode

    @property
    def learning(self) -> float:
        """All updates."""
        return self.compute + self.communicate + self.bubble

    @property
    def step(self) -> float:
        """A whole step: sample, learn, send weights, one after the other."""
        return self.sampling + self.learning + self.weights


def micro_batches(
    config: Config, layout: Layout, work: Workload, assumptions: Assumptions, *, updates: int = 1
) -> int:
    """Micro-batches of each data-parallel rank in one of `updates` equal parts of a pass over the step's rows."""
    room = config.learning.batching.micro_batch_tokens * assumptions.packing_fullness
    count = max(math.ceil(work.trained / updates / (room * layout.data)), 1)
    unit = layout.pipeline if layout.interleave > 1 else 1
    return -(-count // unit) * unit


def durations(
    shape: Shape,
    layout: Layout,
    config: Config,
    cluster: Cluster,
    work: Workload,
    engine: EngineMemory,
    assumptions: Assumptions,
) -> Durations:
    """Seconds of each phase."""
    prefill, decode = sampling_time(shape, config, cluster, work, engine, assumptions)
    compute = compute_time(shape, layout, config, cluster, work, assumptions)
    count = micro_batches(
        config, layout, work, assumptions, updates=config.learning.batching.updates_per_step
    )
    return Durations(
        prefill=prefill,
        decode=decode,
        compute=compute,
        communicate=communication_time(shape, layout, config, cluster, work, assumptions),
        bubble=compute * (layout.pipeline - 1) / (layout.interleave * count),
        weights=weight_time(shape, layout, config, cluster, assumptions),
    )


def sampling_time(
    shape: Shape,
    config: Config,
    cluster: Cluster,
    work: Workload,
    engine: EngineMemory,
    assumptions: Assumptions,
) -> tuple[float, float]:
    """Seconds of prompts and observations, and of sampling, which reads all weights and live histories per token."""
    rollout, gpu = config.rollout, cluster.gpu
    if engine.live < 1:
        return math.inf, math.inf
    flops = gpu.flops * assumptions.prefill_utilisation * rollout.tensor_parallel
    prefill = work.prefilled * token_flops(shape, work.history) / (flops * rollout.workers)
    rollouts = work.bare_rollouts + work.continuations
    live = max(min(engine.live, rollouts / rollout.workers) * assumptions.decode_fullness, 1.0)
    experts = shape.experts and min(1.0, live * shape.chosen / shape.experts)
    idle = sum(shape.mlp_weights(layer) for layer, sparse in enumerate(shape.sparse) if sparse) * (
        1 - experts
    )
    width = 4 if config.precision.rollout == "float32" else 2
    read = engine.weights - (width * idle / rollout.tensor_parallel if shape.experts else 0.0)
    read += live * engine.token * work.history / 2.0
    each = read / (gpu.bandwidth * assumptions.decode_utilisation)
    each = (
        max(each, live * token_flops(shape, work.history) / flops)
        + assumptions.decode_overhead_ms / 1e3
    )
    each += (
        2 * shape.layers * assumptions.collective_us / 1e6 if rollout.tensor_parallel > 1 else 0.0
    )
    return prefill, work.sampled / (rollout.workers * live) * each


def compute_time(
    shape: Shape,
    layout: Layout,
    config: Config,
    cluster: Cluster,
    work: Workload,
    assumptions: Assumptions,
) -> float:
    """Seconds of all passes' matrix products and attention, with no waiting."""
    peak = cluster.gpu.flops
    if config.precision.train is Precision.fp8:
        # Attention, the output layer and what is not a matrix product stay as they were.
        peak *= 1.0 + 0.5 * (cluster.gpu.fp8_flops / cluster.gpu.flops - 1.0)
    head = 2.0 * shape.hidden * shape.vocabulary
    forward = work.trained * token_flops(shape, work.history) + work.learned * head
    flops = work.epochs * training_flops(shape, config, work) + work.passes * forward
    return flops / (layout.world * peak * assumptions.train_utilisation)
