"""What a layer saves for the backward pass: Korthikanti et al., arXiv 2205.05198, for this project's layers.

Theirs is 34 s·b·h bytes a layer for LayerNorm, GELU, full attention heads and dropout. Here: RMSNorm, SwiGLU, grouped
queries with normalised heads, attention that keeps no score matrix, no dropout, packed sequences (b = 1, s the tokens
of the micro-batch), and an output layer that sees only learned tokens.

Per token of a layer, in elements (h hidden, q and k the widths of all query and key heads, f of the MLP):

    Transformer Engine's layers       4h + 3q + 3k + 3f           (5f without a fused SwiGLU)
    this project's on the CPU         6h + 6q + 4k + 5f           (in float32; its norms are so in bf16 too)

Both also save 4·head elements of cosines and sines, and a float32 for every normalised vector and attention head.
"""

from dataclasses import dataclass

from megatron_trace.config import Config, Precision, Recompute
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.shape import Shape


@dataclass(frozen=True)
class Kernels:
    """Which implementation computes the layers.

    Attributes:
        engine: Transformer Engine's modules; otherwise this project's.
        fused_swiglu: the MLP's activation and gate are one function, which saves its input alone.
    """

    engine: bool = True
    fused_swiglu: bool = True

    @classmethod
    def of(cls, config: Config, gpu: str) -> "Kernels":
        """Those that the policy takes on a `gpu` of that name in `machines.GPUS`."""
        on_gpu = gpu != "cpu"
        return cls(
            engine=on_gpu and config.precision.train is not Precision.float32, fused_swiglu=on_gpu
        )


@dataclass(frozen=True)
class Widths:
    """Bytes of an element: of the policy's dtype, and of what a matrix product saves of its input."""

    value: int
    product: int


def widths(config: Config) -> Widths:
    """Of `config.precision`."""
    if config.precision.train is Precision.float32:
        return Widths(4, 4)
    return Widths(2, 1 if config.precision.train is Precision.fp8 else 2)


def norm_bytes(shape: Shape, layout: Layout, config: Config, kernels: Kernels) -> float:
    """Bytes per token of a norm over the hidden states: its input, its output for the matrix product, a deviation.

    PyTorch's norm on the CPU also keeps the normalised input, and both in float32.
    """
    width = widths(config)
    inner = width.value if kernels.engine else 8
    return (shape.hidden * (inner + width.product) + 4) / along_of(layout)


def attention_bytes(shape: Shape, layout: Layout, config: Config, kernels: Kernels) -> float:
    """Bytes that a layer's norm and attention save per token of this context-parallel rank's sequence."""
    width = widths(config)
    query, key, heads = (
        shape.query / layout.tensor,
        shape.key / layout.tensor,
        shape.heads / layout.tensor,
    )
    if kernels.engine:
        quantised = query * width.product if width.product < width.value else 0.0
        inner = width.value * 3 * (query + key) + quantised
    else:
        inner = width.value * (4 * query + 3 * key)
        if shape.norm_heads:
            inner += 8 * query + (4 if width.value == 4 else 8) * key
    vectors = 4 * (heads + shape.groups / layout.tensor) if shape.norm_heads else 0.0
    rotary = 4 * shape.head * width.value
    return norm_bytes(shape, layout, config, kernels) + inner + 4 * heads + vectors + rotary


def mlp_bytes(shape: Shape, layout: Layout, config: Config, kernels: Kernels, layer: int) -> float:
    """Bytes that a layer's second norm and MLP, or experts, save per token of the sequence."""
    width, along = widths(config), along_of(layout)
    norm = norm_bytes(shape, layout, config, kernels)
    wide = 2 if kernels.fused_swiglu else 4
    if not shape.sparse[layer]:
        return norm + shape.ffn / layout.tensor * (wide * width.value + width.product)
    router = 3 * 4 * shape.experts / along
    # Balanced: as many tokens come as go, and those that share an expert see each other's.
    come = shape.chosen * layout.expert_tensor / layout.tensor
    inner = shape.expert_ffn / layout.expert_tensor
    wide += 0 if kernels.fused_swiglu else 1  # the experts' weights are multiplied in
    return (
        norm
        + router
        + come * (shape.hidden * width.product + inner * (wide * width.value + width.product))
    )


def along_of(layout: Layout) -> int:
    """Ranks among which norms and residuals are split."""
    return layout.tensor if layout.sequence else 1


def kept_bytes(
    shape: Shape, layout: Layout, config: Config, kernels: Kernels, layer: int
) -> tuple[float, float]:
    """Bytes per token that a layer saves, and those of them that selective recomputation brings back for a while."""
    width, along = widths(config), along_of(layout)
    attention = attention_bytes(shape, layout, config, kernels)
    mlp = mlp_bytes(shape, layout, config, kernels, layer)
    total = attention + mlp
    if config.recompute.granularity is not Recompute.selective:
        return total, 0.0
    modules, normed = config.recompute.modules, shape.hidden * width.product / along
    fused = (
        kernels.engine and not shape.sparse[layer]
    )  # there the norm is a part of the matrix product
    kept = total
    if "core_attn" in modules:
        kept -= (
            4 * shape.heads + (0 if kernels.engine else width.value * shape.query)
        ) / layout.tensor
    if "layernorm" in modules:
        own = norm_bytes(shape, layout, config, kernels) - shape.hidden * width.value / along
        kept -= own * (not kernels.engine) + own * (not fused)
    if ("moe" if shape.sparse[layer] else "mlp") in modules:
        kept -= mlp - norm_bytes(shape, layout, config, kernels) + (normed if fused else 0.0)
    elif "moe_act" in modules and shape.sparse[layer]:
        come = shape.chosen * layout.expert_tensor / layout.tensor
        inner = shape.expert_ffn / layout.expert_tensor
        wide = 0 if kernels.fused_swiglu else 3
        kept -= come * inner * (wide * width.value + width.product)
    return kept, total - kept
