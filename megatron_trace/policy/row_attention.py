"""Causal attention within each row of a packed sequence, with PyTorch's fused kernel."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attend_by_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    own_lengths: Tensor,
    lengths: Tensor,
    positions: Sequence[Tensor | None],
) -> Tensor:
    """Attention output [s, 1, heads·head_dim] from query, key, value [s, 1, ·, head_dim].

    Args:
        own_lengths: queries of each row, int [b].
        lengths: keys and values of each row, int [b].
        positions: for each row the position of each query among the keys; None: every key has its
            query.
    """
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
