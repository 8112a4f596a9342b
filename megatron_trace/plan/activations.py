"""Activations of a train GPU: those of all its layers and micro-batches in flight, and those of the output layer."""

from dataclasses import dataclass

from megatron_trace.config import Config, Recompute
from megatron_trace.plan.layer_bytes import Kernels, along_of, kept_bytes, widths
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.shape import Shape

OUTPUT_CHUNK = 1024
"""Tokens whose float32 softmax is held at a time (`policy.vocab_parallel.CHUNK`)."""


@dataclass(frozen=True)
class Activations:
    """Bytes at the peak of a backward pass.

    Attributes:
        layers: saved by the layers of all micro-batches in flight.
        output: saved by the final norm and the output layer; last stage only.
        working: the largest temporaries: the logits' gradients, or those of a layer.
    """

    layers: int
    output: int
    working: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.layers + self.output + self.working


def activations(
    shape: Shape,
    layout: Layout,
    config: Config,
    stage: int,
    *,
    micro_batches: int,
    learned_share: float = 1.0,
    kernels: Kernels | None = None,
    recomputed: bool = True,
) -> Activations:
    """Activations of a rank of pipeline stage `stage` for full micro-batches.

    Args:
        micro_batches: of one update on this rank.
        learned_share: share of a micro-batch's tokens that the policy learns from; 1 is the most there can be.
        recomputed: with what recomputation brings back at a time, as at the peak; False: as the forward pass ends.
    """
    kernels = kernels or Kernels()
    width, along = widths(config), along_of(layout)
    tokens = config.learning.batching.micro_batch_tokens / layout.context
    entry = shape.hidden * width.value / along
    parts = layout.layers(stage, shape.layers)
    saved, again = [], 0.0
    for part in parts:
        bytes_of_part, extra = _part(shape, layout, config, kernels, part, entry)
        saved.append(bytes_of_part)
        again = max(again, extra)
    flying = layout.in_flight(stage, micro_batches)
    layers = tokens * (sum(saved) / len(saved) * flying + (again if recomputed else 0.0))
    output, working = 0.0, tokens * width.value * _layer_temporaries(shape, layout)
    if stage == layout.pipeline - 1:
        learned, logits = tokens * learned_share, shape.vocabulary / layout.tensor
        normed = tokens * (shape.hidden * (width.value if kernels.engine else 8) + 4) / along
        gathered = tokens * shape.hidden * width.value if layout.sequence else 0.0
        output = normed + gathered + learned * width.value * (shape.hidden + logits)
        softmax = 2 * 4 * min(OUTPUT_CHUNK, learned) * logits
        working = max(working, learned * width.value * logits + softmax)
    return Activations(round(layers), round(output), round(working))


def _layer_temporaries(shape: Shape, layout: Layout) -> float:
    """Elements per token of the largest gradients of a layer, and of the sequence gathered for a matrix product."""
    inner = shape.chosen * shape.expert_ffn if any(shape.sparse) else shape.ffn
    return 3 * max(inner / layout.tensor, shape.hidden) + (
        2 * shape.hidden if layout.sequence else 0
    )


def _part(
    shape: Shape, layout: Layout, config: Config, kernels: Kernels, layers: range, entry: float
) -> tuple[float, float]:
    """Bytes per token that a part of the model keeps, and those that recomputation brings back at a time."""
    each = [kept_bytes(shape, layout, config, kernels, layer) for layer in layers]
    settings = config.recompute
    if settings.granularity is not Recompute.full:
        return sum(kept for kept, _ in each), max((extra for _, extra in each), default=0.0)
    whole = [kept for kept, _ in each]
    if settings.method == "block":
        first = min(settings.layers, len(whole))
        return first * entry + sum(whole[first:]), max(whole[:first], default=0.0)
    size = min(settings.layers, len(whole))
    chunks = [whole[start : start + size] for start in range(0, len(whole), size)]
    return len(chunks) * entry, max(sum(chunk) for chunk in chunks)
