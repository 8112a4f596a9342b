"""Attention over packed rows as a module of Megatron's, without Transformer Engine."""

from collections.abc import Sequence
from typing import Any

from megatron.core import parallel_state
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule
from torch import Tensor

from megatron_trace.policy.context import gathered_order, own_tokens
from megatron_trace.policy.row_attention import attend_by_row


class PackedAttention(MegatronModule):
    """Replaces Megatron's `DotProductAttention`, which materialises every [s, s] score matrix.

    With context parallelism every rank gathers all keys and values and attends from its own
    queries.
    """

    def __init__(
        self, config: Any, layer_number: int, attn_mask_type: Any, attention_type: str, **_: Any
    ) -> None:
        super().__init__(config=config)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **_: Any
    ) -> Tensor:
        """Attention output [s, 1, heads·head_dim] from query, key, value [s, 1, ·, head_dim].

        Args:
            attention_mask: not a mask but `Batch.starts`, int32 [b + 1]; Megatron passes it through
                unchanged.
        """
        starts, size = attention_mask, self.config.context_parallel_size
        lengths = starts.diff()
        own_lengths = lengths // size
        positions: Sequence[Tensor | None] = [None] * len(lengths)
        if size > 1:
            order = gathered_order(starts, size)
            group = parallel_state.get_context_parallel_group()
            key = gather_from_sequence_parallel_region(key, group=group)[order]
            value = gather_from_sequence_parallel_region(value, group=group)[order]
            own = own_tokens(starts, parallel_state.get_context_parallel_rank(), size)
            in_row = own - starts[:-1].repeat_interleave(own_lengths)
            positions = in_row.split(own_lengths.tolist())
        return attend_by_row(query, key, value, own_lengths, lengths, positions)
