"""Attention over packed rows with PyTorch's fused kernel, without Transformer Engine."""

from collections.abc import Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from megatron_trace.policy.context import gathered_order, own_tokens


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
        queries = _by_row(query, own_lengths)
        keys, values = _by_row(key, lengths), _by_row(value, lengths)
        # One kernel call for each row: none computes scores between rows, which a mask over the
        # whole sequence would compute and throw away.
        mixed = [_attend(*row) for row in zip(queries, keys, values, positions, strict=True)]
        return torch.cat(mixed, dim=2).permute(2, 0, 1, 3).flatten(2)


def _by_row(tensor: Tensor, lengths: Tensor) -> Sequence[Tensor]:
    """[s, 1, heads, head_dim] -> for each row [1, heads, tokens, head_dim]."""
    return tensor.permute(1, 2, 0, 3).split(lengths.tolist(), dim=2)


def _attend(query: Tensor, key: Tensor, value: Tensor, position: Tensor | None) -> Tensor:
    """Causal attention within one row.

    Args:
        position: of each query among the keys; None: every key has its query.
    """
    mask = None
    if position is not None:
        mask = torch.arange(key.shape[2], device=key.device) <= position[:, None]
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=query.shape[1] != key.shape[1],
    )
