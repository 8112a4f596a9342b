"""Causal attention through PyTorch's fused kernel, where Transformer Engine is not there."""

from typing import Any

import torch
from megatron.core.transformer.module import MegatronModule
from torch import Tensor


class FusedAttention(MegatronModule):
    """Takes the place of Megatron's `DotProductAttention`, which materialises every [s, s] score matrix."""

    def __init__(
        self, config: Any, layer_number: int, attn_mask_type: Any, attention_type: str, **_: Any
    ) -> None:
        super().__init__(config=config)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
    ) -> Tensor:
        """Attention output [s, b, heads·head_dim] from query [s, b, heads, head_dim] and key, value [s, b, groups, …].

        Rows are padded on the right, so causality alone keeps the padding out and `attention_mask` is not used.
        """
        heads, groups = query.shape[2], key.shape[2]
        query, key, value = (tensor.permute(1, 2, 0, 3) for tensor in (query, key, value))
        mixed = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=heads != groups
        )
        return mixed.permute(2, 0, 1, 3).flatten(2)
