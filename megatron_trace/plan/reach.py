"""What the tokens of a micro-batch attend to: the keys and values that a rank gathers for them."""

from dataclasses import dataclass

from megatron_trace.config import Config
from megatron_trace.plan.layout import Layout
from megatron_trace.plan.workload import Workload


@dataclass(frozen=True)
class Reach:
    """Means over the tokens that a context-parallel rank computes.

    Attributes:
        keys: keys gathered for a token; 1: none are, since each row sees its own tokens.
    """

    keys: float = 1.0


def reach(config: Config, layout: Layout, work: Workload) -> Reach:
    """The reach of a full micro-batch.

    A micro-batch of T tokens on c context-parallel ranks is cut into 2c chunks. Its paths have
    reuse · T keys. Each of the 2c - 1 cuts divides a run, and the second part sees the path of the
    first part again: as many keys as the cut is deep. Each rank has a share 1 / c of both.
    """
    cuts = 2 * layout.context - 1 if layout.context > 1 else 0
    keys = work.reuse + cuts * work.depth / config.learning.batching.micro_batch_tokens
    return Reach(keys)
