"""What bringing the weights to the fleet takes of a train GPU."""

from megatron_trace.config import Config, Precision, WeightBackend
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.machines import GIB
from megatron_trace.plan.shape import Shape

PACKED_BUFFER = GIB
"""vLLM packs tensors into buffers of this size. A larger tensor has a buffer for itself."""

PACKED_BUFFERS = 2
"""Buffers that vLLM holds at once."""


def transfer_bytes(shape: Shape, layout: Layout, config: Config, stage: int) -> int:
    """Bytes on a GPU of pipeline stage `stage` at the peak of a transfer; between two steps.

    Every rank gathers the largest tensor, the table of the vocabulary, and joins its shards into a
    second copy. With `nccl` rank 0, of the first stage, packs it besides.
    """
    width = 4 if config.precision.train is Precision.float32 else 2
    largest = width * shape.padded_vocabulary * shape.hidden
    gathered = (2 if layout.tensor > 1 else 1) * largest
    if config.rollout.weight_backend is WeightBackend.nccl and stage == 0:
        return gathered + PACKED_BUFFERS * max(PACKED_BUFFER, largest)
    return gathered
