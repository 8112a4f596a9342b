"""What a layer saves for the backward pass: Korthikanti et al., arXiv 2205.05198, for this
project's layers.

Their formula, 34 s·b·h bytes a layer, is for LayerNorm, GELU, full attention heads and dropout. The
layers here have RMSNorm, SwiGLU, grouped queries with normalised heads, attention that keeps no
score matrix, no dropout, and packed sequences (b = 1, s the tokens of the micro-batch). Their
output layer sees only learned tokens.

Elements per token of a layer (h hidden, q and k the widths of all query and key heads, f of the
MLP):

    Transformer Engine's layers       4h + 3q + 2k + 2rk + 3f     (5f without a fused SwiGLU)
    this project's on the CPU         6h + 6q + 3k + 2rk + 5f     (in float32; norms are computed in it for bf16 too)

r is the number of keys that attention gathers for a token (`reach`): path tokens over computed
tokens. Where nothing is gathered, Transformer Engine gets copies, r = 1, and PyTorch's attention
saves k in place of 2rk.

Both also save 4·head_width elements of cosines and sines, and a float32 for every normalised vector
and attention head.
"""

from dataclasses import dataclass

from megatron_trace.config import Config, Precision, Recompute
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.reach import Reach
from megatron_trace.plan.shape import Shape


@dataclass(frozen=True)
class Kernels:
    """Which implementation computes the layers.

    Attributes:
        transformer_engine: Transformer Engine's modules; otherwise this project's.
        fused_swiglu: the MLP's activation and gate are one function, which saves only its input.
    """

    transformer_engine: bool = True
    fused_swiglu: bool = True

    @classmethod
    def of(cls, config: Config, gpu: str) -> "Kernels":
        """The kernels that the policy uses on the `gpu` of that name in `machines.GPUS`."""
        on_gpu = gpu != "cpu"
        low_precision = config.precision.train is not Precision.float32
        return cls(transformer_engine=on_gpu and low_precision, fused_swiglu=on_gpu)


@dataclass(frozen=True)
class Widths:
    """Bytes of an element.

    Attributes:
        value: in the policy's dtype.
        product: of the input that a matrix product saves.
    """

    value: int
    product: int


def widths(config: Config) -> Widths:
    """Bytes of an element in `config.precision`."""
    if config.precision.train is Precision.float32:
        return Widths(4, 4)
    return Widths(2, 1 if config.precision.train is Precision.fp8 else 2)


def sequence_split(layout: Layout) -> int:
    """Ranks that norms and residuals are split among."""
    return layout.tensor if layout.sequence else 1


def norm_bytes(shape: Shape, layout: Layout, config: Config, kernels: Kernels) -> float:
    """Bytes per token of a norm over the hidden states: its input, its output for the matrix
    product, a deviation.

    PyTorch's norm on the CPU also keeps the normalised input, and both in float32.
    """
    width = widths(config)
    inner = width.value if kernels.transformer_engine else 8
    return (shape.hidden * (inner + width.product) + 4) / sequence_split(layout)


def attention_bytes(
    shape: Shape, layout: Layout, config: Config, kernels: Kernels, reach: Reach
) -> float:
    """Bytes that a layer's norm and attention save per token of this context-parallel rank's
    sequence.
    """
    width = widths(config)
    elements = attention_elements(shape, config, kernels, reach)
    # In FP8 the attention's output is saved twice: as it is, and as the next product's input.
    twice = kernels.transformer_engine and width.product < width.value
    inner = elements * width.value + shape.query_width * width.product * twice
    if shape.qk_norm:
        inner += 4 * (shape.heads + shape.kv_heads)
        if not kernels.transformer_engine:
            key_width = 4 if width.value == 4 else 8
            inner += 8 * shape.query_width + key_width * shape.key_width
    # Cosines and sines are the same for all heads, so tensor parallelism does not divide them.
    rotary = 4 * shape.head_width * width.value
    norm = norm_bytes(shape, layout, config, kernels)
    inner = (inner + 4 * shape.heads) / layout.tensor
    return norm + inner + rotary


def attention_elements(
    shape: Shape, config: Config, kernels: Kernels, reach: Reach, *, recomputed: bool = False
) -> float:
    """Elements per token that all heads save from their projection to the product after attention,
    norms left out.

    No implementation keeps the scores: s² elements for each head would be most of a layer.

    Args:
        recomputed: core attention is recomputed, so that its inputs are kept and not what it
            gathers.
    """
    query, key = shape.query_width, shape.key_width
    in_place = recomputed or (reach.keys == 1.0 and not kernels.transformer_engine)
    # PyTorch's norm casts bf16 first, and saves what it has cast.
    normed = shape.qk_norm and (kernels.transformer_engine or widths(config).value == 4)
    # Queries after RoPE, and the input of the product after attention.
    elements = 2.0 * query
    if in_place or normed:
        # Queries, keys and values are one block, which stays if a part of it is saved.
        elements += query + 2 * key
    # Attention saves keys after RoPE, and values in that block. Or it saves copies of both, one for
    # each key of a path. Transformer Engine's attention always gets copies.
    elements += key if in_place else 2 * reach.keys * key
    if not (kernels.transformer_engine or recomputed):
        # PyTorch's kernel has its output in another order than the product its input.
        elements += query
    return elements


def mlp_bytes(shape: Shape, layout: Layout, config: Config, kernels: Kernels, layer: int) -> float:
    """Bytes that a layer's second norm and MLP, or experts, save per token of the sequence."""
    width = widths(config)
    norm = norm_bytes(shape, layout, config, kernels)
    elements = 2 if kernels.fused_swiglu else 4
    if not shape.moe_layers[layer]:
        bytes_wide = elements * width.value + width.product
        return norm + shape.ffn_width / layout.tensor * bytes_wide
    # The router computes in float32.
    router = 3 * 4 * shape.experts / sequence_split(layout)
    # The experts' activation is also multiplied by the router's weights; a fused SwiGLU includes
    # that.
    elements += 0 if kernels.fused_swiglu else 1
    received, inner = expert_tokens(shape, layout)
    bytes_wide = elements * width.value + width.product
    saved = shape.hidden * width.product + inner * bytes_wide
    return norm + router + received * saved


def expert_tokens(shape: Shape, layout: Layout) -> tuple[float, float]:
    """What a rank's experts compute per token of its sequence: tokens received, and the width of
    each.

    Experts are taken as balanced: a rank receives as many tokens as it sends. Ranks that share an
    expert receive each other's tokens.
    """
    received = shape.experts_per_token * layout.expert_tensor / layout.tensor
    return received, shape.expert_ffn_width / layout.expert_tensor


def kept_bytes(
    shape: Shape, layout: Layout, config: Config, kernels: Kernels, layer: int, reach: Reach
) -> tuple[float, float]:
    """Bytes per token that a layer saves, and those that selective recomputation brings back for a
    while.

    Args:
        reach: what attention gathers.
    """
    attention = attention_bytes(shape, layout, config, kernels, reach)
    mlp = mlp_bytes(shape, layout, config, kernels, layer)
    total = attention + mlp
    if config.recompute.granularity is not Recompute.selective:
        return total, 0.0
    width, norm = widths(config), norm_bytes(shape, layout, config, kernels)
    modules, is_moe = config.recompute.modules, shape.moe_layers[layer]
    # Transformer Engine computes the norm and the matrix product after it as one, unless experts
    # follow.
    fused = kernels.transformer_engine and not is_moe
    kept = total
    if "core_attn" in modules:
        spared = attention_elements(shape, config, kernels, reach)
        spared -= attention_elements(shape, config, kernels, reach, recomputed=True)
        kept -= (4 * shape.heads + width.value * spared) / layout.tensor
    if "layernorm" in modules:
        # A norm's input stays. A norm that is fused with its matrix product saves nothing to spare.
        own = norm - shape.hidden * width.value / sequence_split(layout)
        kept -= own * (not kernels.transformer_engine) + own * (not fused)
    if ("moe" if is_moe else "mlp") in modules:
        # A norm that is one with its matrix product is recomputed with it, so its output is not
        # kept either.
        normed = shape.hidden * width.product / sequence_split(layout)
        kept -= mlp - norm + (normed if fused else 0.0)
    elif "moe_act" in modules and is_moe:
        received, inner = expert_tokens(shape, layout)
        elements = 0 if kernels.fused_swiglu else 3
        kept -= received * inner * (elements * width.value + width.product)
    return kept, total - kept
