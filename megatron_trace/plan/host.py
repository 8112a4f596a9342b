"""Memory that a checkpoint takes on the node that holds most of it, outside the GPUs."""

from megatron_trace.config import Config, Precision
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.model_state import parameter_counts, predictor_bytes
from megatron_trace.plan.shape import Shape

STATE_BYTES = 12
"""Bytes of a parameter's optimizer state: weight and two moments, in float32."""


def checkpoint_host_bytes(shape: Shape, layout: Layout, config: Config, each: int) -> int:
    """Bytes of host memory that a checkpoint takes on the fullest of the nodes of `each` GPUs.

    The first data-parallel ranks of each pipeline stage gather the stage's optimizer state, and
    they stand on the stage's first node. Megatron copies the state once more for its writers, and
    the weights with it.
    """
    width = 4 if config.precision.train is Precision.float32 else 2
    nodes: dict[int, int] = {}
    for stage in range(layout.pipeline):
        count = parameter_counts(shape, layout, stage)
        parameters = count.dense * layout.tensor
        parameters += count.experts * layout.expert * layout.expert_tensor
        node = stage * (layout.world // layout.pipeline) // each
        held = parameters * (2 * STATE_BYTES + width) + predictor_bytes(count.predictor)
        nodes[node] = nodes.get(node, 0) + held
    return max(nodes.values())
