"""The numbers of PyTorch's own kernels, against float64. Needs PyTorch alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpu_checks.check import Context, Skip, require
from megatron_trace.learning.runs import paths
from megatron_trace.policy.span_kernels import (
    attend_by_span,
    attend_by_transformer_engine,
    gather_paths,
    transformer_engine_attention,
)
from megatron_trace.policy.spans import described, spans_of

STARTS = [0, 1, 18, 218, 347, 411]
SHARED = [0, 0, 0, 150, 200]
"""A packed tree: where each run begins, and what it shares with the row before."""
HEADS, KEY_HEADS, WIDTH = 8, 2, 64

# Root mean square of the error over that of the result. float32 rounds each of 512 products to
# 6e-8 of it; TF32, which must be off, to 5e-4. bf16 rounds the result to 2e-3 of it.
PRODUCT = {torch.float32: 1e-5, torch.bfloat16: 5e-3}
# Attention rounds scores, weights and result, and its backward pass repeats that.
ATTENTION = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def matrix_products(context: Context) -> str:
    """Products of float32 and bf16 matrices."""
    generator = torch.Generator().manual_seed(0)
    pair = torch.randn(2, 512, 512, generator=generator)
    texts = []
    for dtype, most in PRODUCT.items():
        left, right = pair.to(dtype)
        exact = left.double() @ right.double()
        found = left.to(context.device) @ right.to(context.device)
        texts.append(_compare(_name(dtype), found, exact, most))
    return ", ".join(texts)


def packed_attention(context: Context) -> str:
    """Attention of packed trees, forward and backward, with grouped key heads."""
    return ", ".join(_packed_attention(context, dtype, attend) for dtype in ATTENTION)


def _packed_attention(
    context: Context, dtype: torch.dtype, attention: Callable[..., Tensor]
) -> str:
    """How far result and gradients of `attention` are from the formula's in float64.

    Raises:
        Wrong: further than rounding explains.
    """
    generator = torch.Generator().manual_seed(0)
    tokens, most = STARTS[-1], ATTENTION[dtype]
    heads = (HEADS, KEY_HEADS, KEY_HEADS)
    inputs = [
        torch.randn(tokens, 1, count, WIDTH, generator=generator).to(dtype) for count in heads
    ]
    weights = torch.randn(tokens, 1, HEADS * WIDTH, generator=generator).to(dtype)
    exact = _with_gradients(reference, [tensor.double() for tensor in inputs], weights.double())
    on_device = [tensor.to(context.device) for tensor in inputs]
    found = _with_gradients(attention, on_device, weights.to(context.device))
    names = ("result", "query", "key", "value")
    errors = [relative_error(one, other) for one, other in zip(found, exact, strict=True)]
    worst = max(range(4), key=errors.__getitem__)
    text = f"{_name(dtype)} {errors[worst]:.1e} off float64's ({names[worst]})"
    require(errors[worst] <= most, f"{text}; at most {most:.0e} is right")
    return text


def attention_transformer_engine(context: Context) -> str:
    """The same by Transformer Engine's kernel, in bf16: more keys than queries."""
    if context.device == "cpu":
        raise Skip("needs a CUDA device")
    engine = transformer_engine_attention(HEADS, KEY_HEADS, WIDTH)
    return _packed_attention(context, torch.bfloat16, partial(attend, engine=engine))


def attend(query: Tensor, key: Tensor, value: Tensor, engine: Any = None) -> Tensor:
    """What the policy does with packed trees, by Transformer Engine's `engine` if there is one."""
    spans = spans_of(described(STARTS, SHARED), 0, 1, query.device)
    keys, values = gather_paths(key, spans), gather_paths(value, spans)
    query = query.squeeze(1)
    if engine is None:
        mixed = attend_by_span(query, keys, values, spans)
    else:
        mixed = attend_by_transformer_engine(engine, query, keys, values, spans)
    return mixed.flatten(1).unsqueeze(1)


def reference(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same by the formula: softmax(q·kᵀ / √width)·v over the earlier tokens of each path."""
    repeat = HEADS // KEY_HEADS
    key, value = key.repeat_interleave(repeat, dim=2), value.repeat_interleave(repeat, dim=2)
    rows = []
    for start, shared, path in zip(STARTS, SHARED, paths(STARTS, SHARED), strict=False):
        q, k, v = query[start : path[-1] + 1], key[path], value[path]
        scores = torch.einsum("qbhw,kbhw->bhqk", q, k) / WIDTH**0.5
        later = torch.ones(len(q), len(k), dtype=torch.bool).triu(1 + shared)
        weights = scores.masked_fill(later, float("-inf")).softmax(-1)
        rows.append(torch.einsum("bhqk,kbhw->qbhw", weights, v).flatten(2))
    return torch.cat(rows)


def _with_gradients(
    attention: Callable[..., Tensor], inputs: list[Tensor], weights: Tensor
) -> list[Tensor]:
    """The result, and the gradients of its sum weighted by `weights`."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    result = attention(*leaves)
    (result * weights).sum().backward()
    return [result.detach(), *(leaf.grad for leaf in leaves)]


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Root mean square of the error over that of `exact`."""
    error = found.detach().to("cpu", torch.float64) - exact
    return float(error.norm() / exact.norm())


def _compare(name: str, found: Tensor, exact: Tensor, most: float) -> str:
    error = relative_error(found, exact)
    require(error <= most, f"{name} {error:.1e} off float64's; at most {most:.0e} is right")
    return f"{name} {error:.1e} off float64's"


def _name(dtype: torch.dtype) -> str:
    return {torch.float32: "float32", torch.bfloat16: "bf16"}[dtype]
