"""FLOPs of the policy's passes."""

from megatron_trace.config import Config, Recompute
from megatron_trace.plan.assumptions import Workload
from megatron_trace.plan.shape import Shape


def token_flops(shape: Shape, history: float) -> float:
    """FLOPs of one token's forward pass through the layers: two for each weight that it meets, and attention.

    A token at depth t meets t keys and values: 4·t·q. Over a history of l tokens that is 2·l·q on average.
    """
    return 2.0 * shape.active_weights + 2.0 * history * shape.query * shape.layers


def training_flops(shape: Shape, config: Config, work: Workload) -> float:
    """FLOPs of one training pass over the step's rows: a forward pass, twice that back, and what is recomputed."""
    layers = token_flops(shape, work.history)
    settings = config.recompute
    again = 0.0
    if settings.granularity is Recompute.full:
        share = 1.0
        if settings.method == "block":
            parts = config.parallel.pipeline * config.parallel.interleave
            share = min(1.0, settings.layers * parts / shape.layers)
        again = share * layers
    elif settings.granularity is Recompute.selective:
        if "mlp" in settings.modules or "moe" in settings.modules:
            again += layers - shape.layers * (
                2.0 * shape.attention_weights + 2.0 * work.history * shape.query
            )
        if "core_attn" in settings.modules:
            again += 2.0 * work.history * shape.query * shape.layers
    head = 2.0 * shape.hidden * shape.vocabulary
    return work.trained * (3.0 * layers + again) + work.learned * 3.0 * head
