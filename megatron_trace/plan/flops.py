"""FLOPs of the policy's passes."""

from megatron_trace.config import Config, Recompute
from megatron_trace.plan.shape import Shape
from megatron_trace.plan.workload import Workload


def token_flops(shape: Shape, depth: float) -> float:
    """FLOPs of the forward pass of a token at `depth` through the layers.

    Two for each weight that the token meets. In attention a token at depth t meets t keys and
    values: 4·t·q, with q the width of all query heads.
    """
    return 2.0 * shape.active_weights + attention_flops(shape, depth)


def attention_flops(shape: Shape, depth: float) -> float:
    """FLOPs of a token's attention scores and values in all layers, forward."""
    return 4.0 * depth * shape.query_width * shape.layers


def output_flops(shape: Shape) -> float:
    """FLOPs of one token's forward pass through the output layer."""
    return 2.0 * shape.hidden * shape.padded_vocabulary


def training_flops(shape: Shape, config: Config, work: Workload) -> float:
    """FLOPs of one training pass over what is computed of the step's rows.

    Forward once, backward twice as much, and what is recomputed. The output layer sees learned
    tokens alone.
    """
    layers = token_flops(shape, work.depth)
    recomputed = recomputed_flops(shape, config, work.depth)
    # Two products in the backward pass: for the gradient of the input and for that of the weight.
    trained = work.computed * (3.0 * layers + recomputed)
    learned = work.learned * 3.0 * output_flops(shape)
    return trained + learned


def recomputed_flops(shape: Shape, config: Config, depth: float) -> float:
    """FLOPs of a token at `depth` that recomputation repeats."""
    layers = token_flops(shape, depth)
    settings = config.recompute
    if settings.granularity is Recompute.full:
        share = 1.0
        if settings.method == "block":
            # `recompute.layers` counts the layers of each part of the model.
            parts = config.parallel.pipeline * config.parallel.interleave
            share = min(1.0, settings.layers * parts / shape.layers)
        return share * layers
    again = 0.0
    if settings.granularity is Recompute.selective:
        # Recomputing the MLPs repeats everything but attention.
        if "mlp" in settings.modules or "moe" in settings.modules:
            attention = 2.0 * shape.attention_weights * shape.layers
            again += layers - attention - attention_flops(shape, depth)
        if "core_attn" in settings.modules:
            again += attention_flops(shape, depth)
    return again
