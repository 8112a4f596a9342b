"""How long ranks wait for what they send each other, from bytes and the speed of their links."""

from megatron_trace.config import Config, Precision, Recompute
from megatron_trace.plan.assumptions import Assumptions
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.machines import Cluster
from megatron_trace.plan.model_state import parameter_counts
from megatron_trace.plan.shape import Shape
from megatron_trace.plan.workload import Workload


def communication_time(
    shape: Shape,
    layout: Layout,
    config: Config,
    cluster: Cluster,
    work: Workload,
    assumptions: Assumptions,
) -> float:
    """Seconds of all exchanges of a step. Only half of an overlapped gradient exchange is taken as
    hidden.
    """
    passes = activation_passes(config, work)
    # Every pass moves these tokens' hidden states, keys and values through a rank.
    moved = passes * dtype_bytes(config) * work.computed / (layout.data * layout.context)
    seconds = 0.0
    for ranks, size in layer_exchanges(shape, layout):
        speed = cluster.speed_between(ranks) * assumptions.link_utilisation
        seconds += moved * size / speed
    return seconds + gradient_exchange_time(shape, layout, config, cluster, work, assumptions)


def activation_passes(config: Config, work: Workload) -> int:
    """How often a step's rows pass through the layers' exchanges.

    A training pass counts as two (forward and backward), with full recomputation as three.
    """
    per_epoch = 3 if config.recompute.granularity is Recompute.full else 2
    return work.epochs * per_epoch + work.passes


def layer_exchanges(shape: Shape, layout: Layout) -> list[tuple[int, float]]:
    """What one rank receives in a pass: (ranks of the group, elements per token) of each kind of
    exchange.

    Tensor parallelism moves the hidden states four times through each layer. Context parallelism
    moves keys and values, a pipeline the hidden states between its parts, and expert parallelism
    the tokens of the chosen experts there and back.
    """
    # A ring passes every part but a rank's own through each rank.
    layers = shape.layers / layout.pipeline
    block = layout.tensor * layout.context
    hidden = 4.0 * layers * shape.hidden * remote_share(layout.tensor)
    keys = 2.0 * layers * shape.key_width / layout.tensor * (layout.context - 1)
    parts = layout.interleave * shape.hidden / layout.tensor * (layout.pipeline > 1)
    exchanges = [(layout.tensor, hidden), (block, keys), (layout.world, parts)]
    if shape.experts:
        chosen = 2.0 * layers * shape.hidden * shape.experts_per_token / layout.tensor
        group = max(block, layout.expert * layout.expert_tensor)
        exchanges.append((group, chosen * remote_share(layout.expert)))
    return exchanges


def gradient_exchange_time(
    shape: Shape,
    layout: Layout,
    config: Config,
    cluster: Cluster,
    work: Workload,
    assumptions: Assumptions,
) -> float:
    """Seconds in which all updates of a step reduce their gradients (float32) and gather the
    weights.
    """
    counts = [parameter_counts(shape, layout, stage) for stage in range(layout.pipeline)]
    # The stage with the most parameters decides, since all stages exchange at the same time.
    dense = max(count.dense for count in counts)
    experts = max(count.experts for count in counts)
    received = dense * remote_share(layout.optimizer_shards)
    received += experts * remote_share(layout.expert_shards)
    sent = (4 + dtype_bytes(config)) * received
    group = layout.tensor * layout.optimizer_shards
    speed = cluster.speed_between(group) * assumptions.link_utilisation
    # How much of the exchange the backward pass hides is not known before a run; half of it is
    # assumed.
    overlapped = 0.5 if config.parallel.overlap_grad_reduce else 1.0
    return config.learning.batching.updates_per_step * work.epochs * overlapped * sent / speed


def weight_sync_time(
    shape: Shape, layout: Layout, config: Config, cluster: Cluster, assumptions: Assumptions
) -> float:
    """Seconds to gather all weights on rank 0 and send them to all engines, one tensor after the
    other.
    """
    size = shape.weights * dtype_bytes(config)
    utilisation = assumptions.link_utilisation
    replica = cluster.speed_between(layout.world // layout.data) * utilisation
    gather = size * remote_share(layout.tensor * layout.pipeline) / replica
    return gather + size / (cluster.speed_between(cluster.gpus) * utilisation)


def dtype_bytes(config: Config) -> int:
    """Bytes of a weight or activation that is sent."""
    return 4 if config.precision.train is Precision.float32 else 2


def remote_share(size: int) -> float:
    """Share of what a rank gathers in a group of `size` ranks that comes from other ranks."""
    return (size - 1) / size
