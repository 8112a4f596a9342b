"""How long ranks wait for what they send each other, from bytes and the speed of their links."""

from megatron_trace.config import Config, Precision, Recompute
from megatron_trace.plan.assumptions import Assumptions, Workload
from megatron_trace.plan.held import parameters
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.machines import Cluster
from megatron_trace.plan.shape import Shape


def communication_time(
    shape: Shape,
    layout: Layout,
    config: Config,
    cluster: Cluster,
    work: Workload,
    assumptions: Assumptions,
) -> float:
    """Seconds of what ranks send each other; nothing is taken as hidden but half of an overlapped gradient exchange.

    Tensor parallelism moves the hidden states four times through each layer's forward pass and as often back, context
    parallelism keys and values, expert parallelism the tokens of the chosen experts there and back, a pipeline the
    hidden states between its parts, and every update the gradients (float32) and weights.
    """
    width = 4 if config.precision.train is Precision.float32 else 2
    share = assumptions.link_utilisation
    passes = (
        work.epochs * (3 if config.recompute.granularity is Recompute.full else 2) + work.passes
    )
    tokens = passes * width * work.trained / (layout.data * layout.context)
    layers, block = shape.layers / layout.pipeline, layout.tensor * layout.context
    moved = (
        (layout.tensor, 4.0 * layers * shape.hidden * _away(layout.tensor)),
        (block, 2.0 * layers * shape.key / layout.tensor * (layout.context - 1)),
        (layout.world, layout.interleave * shape.hidden / layout.tensor * (layout.pipeline > 1)),
    )
    seconds = sum(tokens * size / (cluster.speed_between(ranks) * share) for ranks, size in moved)
    if shape.experts:
        sent = 2.0 * layers * shape.hidden * shape.chosen / layout.tensor * _away(layout.expert)
        speed = cluster.speed_between(max(block, layout.expert * layout.expert_tensor))
        seconds += tokens * sent / (speed * share)
    return seconds + exchange_time(shape, layout, config, cluster, work, assumptions)


def exchange_time(
    shape: Shape,
    layout: Layout,
    config: Config,
    cluster: Cluster,
    work: Workload,
    assumptions: Assumptions,
) -> float:
    """Seconds in which all updates reduce their gradients and gather the weights."""
    width = 4 if config.precision.train is Precision.float32 else 2
    counts = [parameters(shape, layout, stage, 0) for stage in range(layout.pipeline)]
    dense, experts = max(count.dense for count in counts), max(count.experts for count in counts)
    sent = (4 + width) * (dense * _away(layout.shards) + experts * _away(layout.expert_shards))
    speed = cluster.speed_between(layout.tensor * layout.shards) * assumptions.link_utilisation
    overlapped = 0.5 if config.parallel.overlap_grad_reduce else 1.0
    return config.learning.batching.updates_per_step * work.epochs * overlapped * sent / speed


def weight_time(
    shape: Shape, layout: Layout, config: Config, cluster: Cluster, assumptions: Assumptions
) -> float:
    """Seconds to gather all weights on rank 0 and send them to all engines, one tensor after the other."""
    size = shape.weights * (4 if config.precision.train is Precision.float32 else 2)
    share = assumptions.link_utilisation
    parts = layout.tensor * layout.pipeline
    gather = size * _away(parts) / (cluster.speed_between(layout.world // layout.data) * share)
    return gather + size / (cluster.speed_between(cluster.gpus) * share)


def _away(size: int) -> float:
    """Share of what a group of `size` ranks exchanges that comes from others."""
    return (size - 1) / size
