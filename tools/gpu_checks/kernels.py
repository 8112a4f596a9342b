"""The numbers of PyTorch's own kernels, against float64. Needs PyTorch alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from gpu_checks.check import Context, require
from megatron_trace.learning.runs import paths
from megatron_trace.policy.span_kernels import attend_by_span, gather_paths
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


def matrices(context: Context) -> str:
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
    generator = torch.Generator().manual_seed(0)
    tokens = STARTS[-1]
    heads = (HEADS, KEY_HEADS, KEY_HEADS)
    inputs = [torch.randn(tokens, 1, count, WIDTH, generator=generator) for count in heads]
    weights = torch.randn(tokens, 1, HEADS * WIDTH, generator=generator)
    texts = []
    for dtype, most in ATTENTION.items():
        given = [tensor.to(dtype) for tensor in inputs]
        exact = _with_gradients(reference, [tensor.double() for tensor in given], weights.double())
        on_device = [tensor.to(context.device) for tensor in given]
        found = _with_gradients(attend, on_device, weights.to(context.device, dtype))
        names = ("result", "query", "key", "value")
        errors = [relative_error(one, other) for one, other in zip(found, exact, strict=True)]
        worst = max(range(4), key=errors.__getitem__)
        text = f"{_name(dtype)} {errors[worst]:.1e} ({names[worst]})"
        require(errors[worst] <= most, f"{text} off float64's; at most {most:.0e} is right")
        texts.append(text)
    return f"off float64's: {', '.join(texts)}"


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What the policy does with packed trees where it does not use Transformer Engine."""
    spans = spans_of(described(STARTS, SHARED), 0, 1, query.device)
    keys, values = gather_paths(key, spans), gather_paths(value, spans)
    return attend_by_span(query.squeeze(1), keys, values, spans).flatten(1).unsqueeze(1)


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
