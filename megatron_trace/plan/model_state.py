"""Weights, gradients and optimizer state of one train rank, by arithmetic; `build` counts real modules instead."""

from dataclasses import dataclass

from megatron_trace.config import Config, FP8Recipe, Precision
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.shape import Shape


@dataclass(frozen=True)
class Parameters:
    """Parameters of one rank.

    Attributes:
        dense: all but the experts, in the policy's dtype.
        experts: those of the experts.
        predictor: those of the predictor's head, float32 in every precision.
        matrices: of `dense` and `experts`, the layers' matrices, which FP8 training computes with.
    """

    dense: int
    experts: int
    predictor: int
    matrices: int


@dataclass(frozen=True)
class Held:
    """Bytes of what a train rank holds all the time."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer


def parameters(shape: Shape, layout: Layout, stage: int, predictor_hidden: int) -> Parameters:
    """Parameters of a rank of pipeline stage `stage`."""
    tensor = layout.tensor
    vectors = 2 * shape.hidden + (2 * shape.head if shape.norm_heads else 0)
    vectors += (shape.query + 2 * shape.key) // tensor if shape.bias else 0
    dense = experts = matrices = 0
    for layer in (layer for part in layout.layers(stage, shape.layers) for layer in part):
        attention = shape.attention_weights // tensor
        if shape.sparse[layer]:
            experts += shape.mlp_weights(layer) // (layout.expert * layout.expert_tensor)
            dense += attention + vectors + shape.hidden * shape.experts
            matrices += attention
        else:
            mlp = shape.mlp_weights(layer) // tensor
            dense += attention + mlp + vectors
            matrices += attention + mlp
    table = shape.vocabulary // tensor * shape.hidden
    first, last = stage == 0, stage == layout.pipeline - 1
    if first:
        dense += table
    if last:  # a tied table is there twice, unless both ends are on one stage
        dense += shape.hidden + (0 if shape.tied and first else table)
    predictor = (shape.hidden + 2) * predictor_hidden + 1 if last else 0
    return Parameters(dense, experts, predictor, matrices + experts)


def held(count: Parameters, config: Config, layout: Layout) -> Held:
    """Bytes of `count` parameters under Megatron's distributed optimizer.

    Weights in the policy's dtype, gradients in float32, and of the rank's share of them two float32 moments and, where
    the weights are not float32, a float32 copy: 18 bytes a parameter in bf16 on one rank, 6 + 12/d on d. The predictor
    is not shared out: 20 bytes a parameter on every rank, as what predicts is an average beside what learns.
    """
    exact = config.precision.train is Precision.float32
    width, state = (4, 8) if exact else (2, 12)
    return Held(
        weights=width * (count.dense + count.experts) + 4 * count.predictor,
        gradients=4 * (count.dense + count.experts + count.predictor),
        optimizer=state * count.dense // layout.shards
        + state * count.experts // layout.expert_shards
        + 12 * count.predictor,
    )


def fp8_change(matrices: int, config: Config, layers: int, capability: tuple[int, int]) -> int:
    """Bytes that FP8 adds to a rank's weights; negative where they are kept in FP8.

    Transformer Engine keeps an FP8 copy of every matrix for a step, and a transposed one for the backward pass where
    matrix products take no other (Hopper) or the scales go along rows and columns (mxfp8). With
    `precision.fp8_param_gather` these take the bf16 weights' place.

    Args:
        matrices: parameters of the rank's matrices.
        layers: of the whole model; the first and last ones may stay bf16, and count as spread evenly over the stages.
    """
    precision = config.precision
    if precision.train is not Precision.fp8:
        return 0
    share = (
        1.0 - min(precision.fp8_first_layers_bf16 + precision.fp8_last_layers_bf16, layers) / layers
    )
    transposed = capability < (10, 0) or precision.fp8_recipe in (
        FP8Recipe.blockwise,
        FP8Recipe.mxfp8,
    )
    scales = 1 / 32 if precision.fp8_recipe is FP8Recipe.mxfp8 else 0.0
    copies = (2 if transposed else 1) * (1.0 + scales)
    return round(matrices * share * (copies - (2.0 if precision.fp8_param_gather else 0.0)))
