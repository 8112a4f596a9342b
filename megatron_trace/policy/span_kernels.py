"""Causal attention of spans of queries over their paths of keys, with stock kernels.

A span's queries are the last tokens of its path: query i of n sees all but the last n − 1 − i keys.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from megatron_trace.policy.spans import Spans


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
    # One kernel call for each span: none computes scores between rows, which a mask over the whole
    # sequence would compute and throw away.
    mixed = [_attend(*span) for span in zip(queries, keys, values, strict=True)]
    return torch.cat(mixed, dim=1).transpose(0, 1)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[heads, tokens, head_dim] from the same; PyTorch's `is_causal` means the first keys, so a
    span that does not see its own tokens alone needs a mask.
    """
    tokens, seen = query.shape[1], key.shape[1]
    mask = None
    if 1 < tokens < seen:
        mask = torch.ones(tokens, seen, dtype=torch.bool, device=key.device).tril(seen - tokens)
    return scaled_dot_product_attention(
        query[None],
        key[None],
        value[None],
        attn_mask=mask,
        is_causal=tokens == seen,
        enable_gqa=query.shape[0] != key.shape[0],
    )[0]


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
