"""Weights, gradients and optimizer state of one train rank, by arithmetic; `build` counts real
modules instead.
"""

from dataclasses import dataclass

from megatron_trace.config import Config, FP8Recipe, Precision
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.shape import Shape

BLACKWELL = (10, 0)
"""The lowest CUDA compute capability whose FP8 matrix products take any layout of their inputs."""


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of one rank.

    Attributes:
        dense: all but the experts' and the predictor's, in the policy's dtype.
        experts: those of the experts, in the policy's dtype.
        predictor: those of the predictor's head, float32 in every precision.
        matrices: those of `dense` and `experts` that lie in the layers' matrices, which FP8
            training computes with.
    """

    dense: int
    experts: int
    predictor: int
    matrices: int


@dataclass(frozen=True)
class ModelState:
    """Bytes of what a train rank holds all the time."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """Bytes of all three."""
        return self.weights + self.gradients + self.optimizer


def parameter_counts(shape: Shape, layout: Layout, stage: int) -> ParameterCounts:
    """Parameters of a rank of pipeline stage `stage`."""
    tensor = layout.tensor
    # Norms and the router are whole on every tensor-parallel rank; matrices and biases are divided.
    vectors = 2 * shape.hidden + (2 * shape.head_width if shape.qk_norm else 0)
    vectors += (shape.query_width + 2 * shape.key_width) // tensor if shape.qkv_bias else 0
    attention = shape.attention_weights // tensor
    dense = experts = matrices = 0
    for part in layout.layers(stage, shape.layers):
        for layer in part:
            dense += attention + vectors
            matrices += attention
            if shape.moe_layers[layer]:
                experts += shape.mlp_weights(layer) // (layout.expert * layout.expert_tensor)
                dense += shape.hidden * shape.experts
            else:
                mlp = shape.mlp_weights(layer) // tensor
                dense += mlp
                matrices += mlp
    table = shape.padded_vocabulary // tensor * shape.hidden
    first, last = stage == 0, stage == layout.pipeline - 1
    if first:
        dense += table
    if last:
        # With a pipeline, a tied table is held twice: by the first stage and by the last.
        dense += shape.hidden + (0 if shape.tied_embeddings and first else table)
    predictor = shape.hidden + 1 if last else 0
    return ParameterCounts(dense, experts, predictor, matrices + experts)


def model_state(count: ParameterCounts, config: Config, layout: Layout) -> ModelState:
    """Bytes of `count` parameters under Megatron's distributed optimizer.

    Weights in the policy's dtype, gradients in float32. Each rank owns a share of the parameters:
    for these it holds two float32 moments and, where the weights are not float32, a float32 copy.
    In bf16 that is 18 bytes a parameter on one rank and 6 + 12/d bytes on d ranks. The predictor is
    not sharded. The first rank of the last stage holds what is known of its n weights, in float64:
    their mean, the prior's diagonal, and the precision with n² entries.
    """
    exact = config.precision.train is Precision.float32
    width, state = (4, 8) if exact else (2, 12)
    # Experts are shared by other ranks than the rest: expert parallelism takes the place of data
    # parallelism for them.
    dense = state * count.dense // layout.optimizer_shards
    experts = state * count.experts // layout.expert_shards
    return ModelState(
        weights=width * (count.dense + count.experts) + 4 * count.predictor,
        gradients=4 * (count.dense + count.experts),
        optimizer=dense + experts + predictor_bytes(count.predictor),
    )


def predictor_bytes(weights: int) -> int:
    """Bytes of what is known of the predictor's weights."""
    return 8 * weights * (weights + 2)


def fp8_change(matrices: int, config: Config, layers: int, capability: tuple[int, int]) -> int:
    """Bytes that FP8 adds to a rank's weights; negative where the weights are kept in FP8.

    Transformer Engine keeps an FP8 copy of every matrix for a step. It keeps a transposed copy for
    the backward pass too, on GPUs whose matrix products need one (Hopper), and for recipes whose
    scales go along rows and columns. With `precision.fp8_param_gather` the copies take the place of
    the bf16 weights.

    Args:
        matrices: parameters of the rank's matrices.
        layers: of the whole model. The first and last ones may stay bf16; they count as spread
            evenly over the stages.
        capability: CUDA compute capability of the GPU.
    """
    precision = config.precision
    if precision.train is not Precision.fp8:
        return 0
    in_bf16 = min(precision.fp8_first_layers_bf16 + precision.fp8_last_layers_bf16, layers)
    share = 1.0 - in_bf16 / layers
    two_way = (FP8Recipe.blockwise, FP8Recipe.mxfp8)
    transposed = capability < BLACKWELL or precision.fp8_recipe in two_way
    scales = 1 / 32 if precision.fp8_recipe is FP8Recipe.mxfp8 else 0.0
    # mxfp8 has a scale of one byte for every 32 entries.
    copies = (2 if transposed else 1) * (1.0 + scales)
    replaced = 2.0 if precision.fp8_param_gather else 0.0
    return round(matrices * share * (copies - replaced))
