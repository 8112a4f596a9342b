"""FLOPs of the policy's passes."""

from megatron_trace.config import Config, Recompute
from megatron_trace.plan.shape import Shape
from megatron_trace.plan.workload import Workload


def token_flops(shape: Shape, history: float) -> float:
    """FLOPs of one token's forward pass through the layers.

    Two for each weight that the token meets. In attention a token at depth t meets t keys and
    values: 4·t·q, with q the width of all query heads; over a history of l tokens that is 2·l·q on
    average.
    """
    return 2.0 * shape.active_weights + attention_flops(shape, history)


def attention_flops(shape: Shape, history: float) -> float:
    """Mean FLOPs of one token's attention scores and values in all layers, forward."""
    return 2.0 * history * shape.query_width * shape.layers


def output_flops(shape: Shape) -> float:
    """FLOPs of one token's forward pass through the output layer."""
    return 2.0 * shape.hidden * shape.padded_vocabulary


def training_flops(shape: Shape, config: Config, work: Workload) -> float:
    """FLOPs of one training pass over the step's rows.

    Forward once, backward twice as much, and what is recomputed. The output layer sees learned
    tokens alone.
    """
    layers = token_flops(shape, work.history)
    recomputed = recomputed_flops(shape, config, work.history)
    # Two products in the backward pass: for the gradient of the input and for that of the weight.
    trained = work.trained * (3.0 * layers + recomputed)
    learned = work.learned * 3.0 * output_flops(shape)
    return trained + learned


def recomputed_flops(shape: Shape, config: Config, history: float) -> float:
    """FLOPs per token that recomputation repeats."""
    layers = token_flops(shape, history)
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
            attention = 2.0 * shape.attention_weights + 2.0 * history * shape.query_width
            again += layers - shape.layers * attention
        if "core_attn" in settings.modules:
            again += attention_flops(shape, history)
    return again
