"""Causal attention of spans of queries over their paths of keys, with stock kernels.

A span's queries are the last tokens of its path: query i of n sees all but the last n − 1 − i keys.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from megatron_trace.policy.spans import Spans

BLOCK = 256
"""Queries of one call of PyTorch's kernel where a mask is needed. The kernel also computes what the
mask hides, so a block that is much longer computes more in vain.
"""


def gather_paths(tensor: Tensor, spans: Spans) -> Tensor:
    """Keys or values of each span's path, [keys of all spans, heads, head_dim].

    Args:
        tensor: of all tokens, [s, 1, heads, head_dim].
    """
    if spans.path is None:
        return tensor.squeeze(1)
    return _Gather.apply(tensor.flatten(1), spans.path).unflatten(1, tensor.shape[2:])


class _Gather(torch.autograd.Function):
    """Lines of a matrix by index. The gradients of a line that is taken many times, as a prompt's
    is, are added up in float32 and in a fixed order, which indexing would not do.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, index: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(index)
        ctx.lines = len(matrix)
        return matrix.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (index,) = ctx.saved_tensors
        exact = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        # The backward pass of an embedding, which is the same sum, in one stock kernel.
        total = torch.ops.aten.embedding_dense_backward(exact, index, ctx.lines, -1, False)
        return total.to(gradient.dtype), None


def attend_by_span(query: Tensor, key: Tensor, value: Tensor, spans: Spans) -> Tensor:
    """Attention output [queries, heads, head_dim], by PyTorch's kernel, one span at a time.

    Args:
        query: [queries of all spans, heads, head_dim].
        key, value: [keys of all spans, ·, head_dim].
    """
    queries = query.transpose(0, 1).split(spans.queries, dim=1)
    keys = key.transpose(0, 1).split(spans.keys, dim=1)
    values = value.transpose(0, 1).split(spans.keys, dim=1)
    longest = max(spans.keys)
    # One kernel call for each span: none computes scores between rows, which a mask over the whole
    # sequence would compute and throw away.
    mixed: list[Tensor] = []
    for span in zip(queries, keys, values, strict=True):
        mixed += _attend(*span, longest)
    return torch.cat(mixed, dim=1).transpose(0, 1)


def _attend(query: Tensor, key: Tensor, value: Tensor, longest: int) -> Iterator[Tensor]:
    """Attention output of a span, block after block, [heads, tokens, head_dim] each.

    Args:
        query, key, value: [·, tokens, head_dim].
        longest: keys of the longest path of the micro-batch.
    """
    grouped = query.shape[0] != key.shape[0]
    attend = partial(scaled_dot_product_attention, enable_gqa=grouped)
    tokens, seen = query.shape[1], key.shape[1]
    if tokens == seen:
        yield attend(query[None], key[None], value[None], is_causal=True)[0]
        return
    # PyTorch's `is_causal` means the first keys, so a span that begins within its path needs a
    # mask.
    mask = _causal_mask(BLOCK, longest, query.dtype, query.device)
    for start in range(0, tokens, BLOCK):
        block = query[:, start : start + BLOCK]
        end = seen - tokens + start + block.shape[1]
        hidden = mask[-block.shape[1] :, -end:]
        if hidden.is_cuda:
            # Kernels on a GPU refuse a mask that does not begin at an aligned address.
            hidden = hidden.contiguous()
        yield attend(block[None], key[None, :, :end], value[None, :, :end], attn_mask=hidden)[0]


@lru_cache(maxsize=1)
def _causal_mask(queries: int, keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What is added to the scores, [queries, keys]: 0 where a query sees a key, else −∞.

    The last n rows and m columns are the mask of n queries over m keys. So one tensor serves all
    spans of a micro-batch in all layers; a mask of each would be saved for the backward pass.
    """
    whole = torch.full((queries, keys), -torch.inf, dtype=dtype, device=device)
    return whole.triu(keys - queries + 1)


def transformer_engine_attention(heads: int, key_heads: int, width: int) -> Any:
    """Transformer Engine's attention for `attend_by_transformer_engine`."""
    from transformer_engine.pytorch import DotProductAttention

    return DotProductAttention(
        num_attention_heads=heads,
        kv_channels=width,
        num_gqa_groups=key_heads,
        attention_dropout=0.0,
        qkv_format="thd",
        attn_mask_type="padding_causal_bottom_right",
    )


def attend_by_transformer_engine(
    attention: Any, query: Tensor, key: Tensor, value: Tensor, spans: Spans
) -> Tensor:
    """As `attend_by_span`, by one call of Transformer Engine's kernel; 16-bit tensors on a GPU."""
    mixed = attention(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        cu_seqlens_q=spans.query_bounds,
        cu_seqlens_kv=spans.key_bounds,
        max_seqlen_q=max(spans.queries),
        max_seqlen_kv=max(spans.keys),
    )
    return mixed.view(query.shape)
