"""How long each phase of a step may take, from stated peaks and assumed shares of them. Nothing
here was measured.
"""

import math
from dataclasses import dataclass

from megatron_trace.config import Config, Precision
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.communication import communication_time, weight_sync_time
from megatron_trace.plan.engine import EngineMemory, rollout_bytes
from megatron_trace.plan.flops import output_flops, token_flops, training_flops
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.machines import Cluster
from megatron_trace.plan.shape import Shape
from megatron_trace.plan.workload import Workload


@dataclass(frozen=True)
class Durations:
    """Seconds of one step's phases, in their order.

    Attributes:
        prefill, decode: of sampling, on the engines.
        compute, communicate, bubble: of learning: matrix products, waiting for other ranks, waiting
            for the pipeline.
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
        """Seconds of both stages of sampling."""
        return self.prefill + self.decode

    @property
    def learning(self) -> float:
        """Seconds of all updates."""
        return self.compute + self.communicate + self.bubble

    @property
    def step(self) -> float:
        """Seconds of a whole step: sample, learn, send weights, one after the other."""
        return self.sampling + self.learning + self.weights


def micro_batches(
    config: Config, layout: Layout, work: Workload, assumptions: Assumptions, *, updates: int = 1
) -> int:
    """Micro-batches of each data-parallel rank in one of `updates` equal parts of a pass over the
    step's rows.
    """
    room = config.learning.batching.micro_batch_tokens * assumptions.packing_fullness
    count = max(math.ceil(work.computed / updates / (room * layout.data)), 1)
    # Megatron's interleaved schedule takes multiples of the pipeline's size.
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
    prefill = decode = math.inf
    if engine.live >= 1:
        prefill = prefill_time(shape, config, cluster, work, assumptions)
        decode = decode_time(shape, config, cluster, work, engine, assumptions)
    compute = compute_time(shape, layout, config, cluster, work, assumptions)
    updates = config.learning.batching.updates_per_step
    count = micro_batches(config, layout, work, assumptions, updates=updates)
    return Durations(
        prefill=prefill,
        decode=decode,
        compute=compute,
        communicate=communication_time(shape, layout, config, cluster, work, assumptions),
        bubble=compute * (layout.pipeline - 1) / (layout.interleave * count),
        weights=weight_sync_time(shape, layout, config, cluster, assumptions),
    )


def prefill_time(
    shape: Shape, config: Config, cluster: Cluster, work: Workload, assumptions: Assumptions
) -> float:
    """Seconds in which the engines compute prompts and observations."""
    flops = prefill_flops_per_second(config, cluster, assumptions)
    return (
        work.prefilled * token_flops(shape, work.history / 2.0) / (flops * config.rollout.workers)
    )


def prefill_flops_per_second(config: Config, cluster: Cluster, assumptions: Assumptions) -> float:
    """FLOP/s that the GPUs of one engine reach together on prompts."""
    return cluster.gpu.flops * assumptions.prefill_utilisation * config.rollout.tensor_parallel


def decode_time(
    shape: Shape,
    config: Config,
    cluster: Cluster,
    work: Workload,
    engine: EngineMemory,
    assumptions: Assumptions,
) -> float:
    """Seconds in which the engines sample."""
    workers = config.rollout.workers
    rollouts = work.bare_rollouts + work.continuations
    # Towards the end of a phase few rollouts are left, so the mean is below what an engine holds.
    live = max(min(engine.live, rollouts / workers) * assumptions.decode_fullness, 1.0)
    each = decode_step_time(shape, config, cluster, work, engine, assumptions, live)
    return work.sampled / (workers * live) * each


def decode_step_time(
    shape: Shape,
    config: Config,
    cluster: Cluster,
    work: Workload,
    engine: EngineMemory,
    assumptions: Assumptions,
    live: float,
) -> float:
    """Seconds in which an engine samples one token for each of `live` rollouts.

    Decoding is bound by memory or by arithmetic, whichever takes longer.
    """
    size = config.rollout.tensor_parallel
    # A live rollout's history grows from nothing to its whole length: half of it on average.
    read = engine.weights - idle_expert_bytes(shape, config, live)
    read += live * engine.token * work.history / 2.0
    memory = read / (cluster.gpu.bandwidth * assumptions.decode_utilisation)
    flops = prefill_flops_per_second(config, cluster, assumptions)
    arithmetic = live * token_flops(shape, work.history / 2.0) / flops
    seconds = max(memory, arithmetic) + assumptions.decode_overhead_ms / 1e3
    if size > 1:
        # Two all-reduces for each layer: after attention and after the MLP.
        seconds += 2 * shape.layers * assumptions.collective_us / 1e6
    return seconds


def idle_expert_bytes(shape: Shape, config: Config, live: float) -> float:
    """Bytes of a GPU's experts that `live` tokens do not choose, and a decoding step need not read."""
    if not shape.experts:
        return 0.0
    used = min(1.0, live * shape.experts_per_token / shape.experts)
    layers = [layer for layer, is_moe in enumerate(shape.moe_layers) if is_moe]
    idle = sum(shape.mlp_weights(layer) for layer in layers) * (1 - used)
    return rollout_bytes(config) * idle / config.rollout.tensor_parallel


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
        # Attention, the output layer and what is not a matrix product stay as they were, so only
        # half of the gain is counted.
        peak *= 1.0 + 0.5 * (cluster.gpu.fp8_flops / cluster.gpu.flops - 1.0)
    layers = work.computed * token_flops(shape, work.depth)
    forward = layers + work.learned * output_flops(shape)
    flops = work.epochs * training_flops(shape, config, work) + work.passes * forward
    return flops / (layout.world * peak * assumptions.train_utilisation)
