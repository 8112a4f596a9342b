"""Attention over packed rows through PyTorch's fused kernel, where Transformer Engine is not there."""

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.transformer.module import MegatronModule
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from megatron_trace.policy.context import gathered_order, own_tokens


class PackedAttention(MegatronModule):
    """Takes the place of Megatron's `DotProductAttention`, which materialises every [s, s] score matrix.

    With context parallelism every rank gathers all keys and values and attends from its own queries.
    """

    def __init__(
        self, config: Any, layer_number: int, attn_mask_type: Any, attention_type: str, **_: Any
    ) -> None:
        super().__init__(config=config)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **_: Any
    ) -> Tensor:
        """Attention output [s, 1, heads·head_dim] from query [s, 1, heads, head_dim] and key, value [s, 1, groups, …].

        Args:
            attention_mask: not a mask but, for a lack of another way to here, `Batch.starts`, int32 [b + 1].
        """
        starts, size = attention_mask, self.config.context_parallel_size
        rows = [(starts.diff() // size).tolist(), starts.diff().tolist()]
        bounds: list[Tensor | None] = [None] * len(rows[1])
        if size > 1:
            order = gathered_order(starts, size)
            group = parallel_state.get_context_parallel_group()
            key, value = (
                gather_from_sequence_parallel_region(t, group=group)[order] for t in (key, value)
            )
            own = own_tokens(starts, parallel_state.get_context_parallel_rank(), size)
            bounds = list(
                (own - starts[:-1].repeat_interleave(starts.diff() // size)).split(rows[0])
            )
        # [1, heads, tokens, head_dim], a row at a time.
        queries = query.permute(1, 2, 0, 3).split(rows[0], dim=2)
        keys, values = (tensor.permute(1, 2, 0, 3).split(rows[1], dim=2) for tensor in (key, value))
        grouped = query.shape[2] != key.shape[2]
        mixed = [
            scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=None
                if last is None
                else torch.arange(k.shape[2], device=k.device) <= last[:, None],
                is_causal=last is None,
                enable_gqa=grouped,
            )
            for q, k, v, last in zip(queries, keys, values, bounds, strict=True)
        ]
        return torch.cat(mixed, dim=2).permute(2, 0, 1, 3).flatten(2)
