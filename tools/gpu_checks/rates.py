"""How fast this machine multiplies matrices and copies memory. Needs PyTorch alone."""

import time
from collections.abc import Callable

import torch

from gpu_checks.check import Context

REPEATS, MOST_S = 30, 3.0
"""A rate is measured so often, or for so long."""
MATRIX = {"cuda": 8192, "cpu": 1024}
"""Width of matrices whose products reach nearly all of what the device can."""
COPIED = {"cuda": 1 << 30, "cpu": 1 << 25}
"""Bytes of a copy, more than caches hold."""


def matrix_rate(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of the fastest of several products of square matrices."""
    size = MATRIX[device]
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / fastest(lambda: left @ right, device)


def fastest(work: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of some runs. Other work on the machine can only slow a run down."""
    best, deadline = float("inf"), time.perf_counter() + MOST_S
    for _ in range(REPEATS):
        begin = time.perf_counter()
        if begin >= deadline:
            break
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return best


def matrix_rates(context: Context) -> str:
    """Rates of float32 and bf16 products, beside what the maker states."""
    exact = matrix_rate(torch.float32, context.device)
    half = matrix_rate(torch.bfloat16, context.device)
    return (
        f"float32 {exact / 1e12:.3g} TFLOP/s, bf16 {half / 1e12:.3g} TFLOP/s"
        f"{_share(half, 'flops', context.device)}"
    )


def copy_rates(context: Context) -> str:
    """Bytes/s of copies within the device and from the host to it."""
    size = COPIED[context.device]
    source = torch.empty(size, dtype=torch.uint8, device=context.device)
    target = torch.empty_like(source)
    # Every byte is read and written.
    within = 2 * size / fastest(lambda: target.copy_(source), context.device)
    text = f"within {within / 1e9:.0f} GB/s{_share(within, 'bandwidth', context.device)}"
    if context.device == "cuda":
        host = torch.empty(size, dtype=torch.uint8).pin_memory()
        across = size / fastest(lambda: target.copy_(host), context.device)
        text += f", from pinned host memory {across / 1e9:.1f} GB/s"
    return text


def peak(quantity: str, device: str) -> float:
    """The maker's `quantity` of this GPU (see plan/machines.py); 0 where it is not known."""
    from megatron_trace.plan.machines import BOARDS

    if device == "cpu":
        return 0.0
    name = torch.cuda.get_device_name().lower()
    known = [board for board in BOARDS if board.name.split("-")[0] in name]
    return getattr(known[0], quantity) if known else 0.0


def _share(measured: float, quantity: str, device: str) -> str:
    stated = peak(quantity, device)
    return f" ({measured / stated:.0%} of the maker's)" if stated else ""
