"""Activations of a train GPU: of all its layers and micro-batches in flight, and of the output
layer.
"""

from dataclasses import dataclass

from megatron_trace.config import Config, Recompute
from megatron_trace.plan.layer_bytes import Kernels, kept_bytes, sequence_split, widths
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.reach import Reach
from megatron_trace.plan.shape import Shape

OUTPUT_CHUNK = 1024
"""Tokens whose float32 softmax is held at a time (`policy.vocab_parallel.CHUNK`)."""


@dataclass(frozen=True)
class Activations:
    """Bytes at the peak of a backward pass.

    Attributes:
        layers: saved by the layers of all micro-batches in flight.
        output: saved by the final norm and the output layer; 0 before the last stage.
        working: the largest temporaries: gradients of the logits, or of a layer.
    """

    layers: int
    output: int
    working: int

    @property
    def total(self) -> int:
        """Bytes of all three."""
        return self.layers + self.output + self.working


def activations(
    shape: Shape,
    layout: Layout,
    config: Config,
    stage: int,
    *,
    micro_batches: int,
    learned_share: float = 1.0,
    reach: Reach | None = None,
    kernels: Kernels | None = None,
    recomputed: bool = True,
) -> Activations:
    """Activations of a rank of pipeline stage `stage` for full micro-batches.

    Args:
        micro_batches: number of them in one update on this rank.
        learned_share: share of a micro-batch's tokens that the policy learns from; 1 is the upper
            bound.
        reach: what attention gathers; None: nothing.
        recomputed: True: at the peak, with what recomputation brings back at a time. False: at the
            end of the forward pass.
    """
    kernels, reach = kernels or Kernels(), reach or Reach()
    tokens = config.learning.batching.micro_batch_tokens / layout.context
    saved, again = _saved_by_layers(shape, layout, config, kernels, reach, stage)
    # What is in flight waits for its backward pass. Recomputation works on one micro-batch at a
    # time.
    in_flight = layout.in_flight(stage, micro_batches)
    layers = tokens * (saved * in_flight + (again if recomputed else 0.0))
    output = 0.0
    working = tokens * _layer_temporaries(shape, layout, config, reach)
    if stage == layout.pipeline - 1:
        learned = tokens * learned_share
        output = _saved_by_output(shape, layout, config, kernels, tokens, learned)
        working = max(working, _output_temporaries(shape, layout, config, learned))
    return Activations(round(layers), round(output), round(working))


def _saved_by_layers(
    shape: Shape, layout: Layout, config: Config, kernels: Kernels, reach: Reach, stage: int
) -> tuple[float, float]:
    """Bytes per token that a stage's model part saves on average, and the most that are recomputed
    at a time.
    """
    saved, again = [], 0.0
    for part in layout.layers(stage, shape.layers):
        kept, extra = _saved_by_part(shape, layout, config, kernels, reach, part)
        saved.append(kept)
        again = max(again, extra)
    return sum(saved) / len(saved), again


def _saved_by_part(
    shape: Shape, layout: Layout, config: Config, kernels: Kernels, reach: Reach, layers: range
) -> tuple[float, float]:
    """Bytes per token that a part of the model keeps, and those that recomputation brings back at a
    time.
    """
    each = [kept_bytes(shape, layout, config, kernels, layer, reach) for layer in layers]
    whole = [kept for kept, _ in each]
    settings = config.recompute
    if settings.granularity is not Recompute.full:
        return sum(whole), max((extra for _, extra in each), default=0.0)
    # Full recomputation keeps only the hidden states that enter a chunk of layers.
    entry = shape.hidden * widths(config).value / sequence_split(layout)
    size = min(settings.layers, len(whole))
    if settings.method == "block":
        # The first layers are recomputed one by one; the others keep everything.
        kept = size * entry + sum(whole[size:])
        return kept, max(whole[:size], default=0.0)
    # A chunk is recomputed as a whole before its backward pass, so all its layers are there at
    # once.
    chunks = [whole[start : start + size] for start in range(0, len(whole), size)]
    return len(chunks) * entry, max(sum(chunk) for chunk in chunks)


def _saved_by_output(
    shape: Shape, layout: Layout, config: Config, kernels: Kernels, tokens: float, learned: float
) -> float:
    """Bytes of the final norm, and of the logits of `learned` tokens."""
    width = widths(config).value
    norm_width = width if kernels.transformer_engine else 8
    normed = tokens * (shape.hidden * norm_width + 4) / sequence_split(layout)
    gathered = tokens * shape.hidden * width if layout.sequence else 0.0
    logits = shape.padded_vocabulary / layout.tensor
    return normed + gathered + learned * width * (shape.hidden + logits)


def _output_temporaries(shape: Shape, layout: Layout, config: Config, learned: float) -> float:
    """Bytes of the logits' gradient and of the softmax of a chunk and its gradient."""
    logits = shape.padded_vocabulary / layout.tensor
    # The softmax is computed in float32, and chunk by chunk, since over all tokens it would be the
    # peak.
    softmax = 2 * 4 * min(OUTPUT_CHUNK, learned) * logits
    return learned * widths(config).value * logits + softmax


def _layer_temporaries(shape: Shape, layout: Layout, config: Config, reach: Reach) -> float:
    """Bytes per token of a layer's largest gradients, and of the sequence gathered for a matrix
    product.
    """
    width = widths(config).value
    inner = shape.ffn_width
    if any(shape.moe_layers):
        inner = shape.experts_per_token * shape.expert_ffn_width
    gathered = 2 * shape.hidden if layout.sequence else 0
    product = width * (3 * max(inner / layout.tensor, shape.hidden) + gathered)
    # Gradients of the gathered keys and values, which are added up in float32 one after the other.
    attention = reach.keys * shape.key_width / layout.tensor * (2 * width + 4)
    return max(product, attention)
