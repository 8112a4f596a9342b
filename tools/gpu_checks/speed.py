"""Tokens per second and MFU of a train step, with layers of Qwen3-8B's shape."""

import json
import statistics
import time
from collections.abc import Sequence

import torch
from bench_train_rows import model_flops

from gpu_checks.check import Context
from gpu_checks.model import SPEED, make_model
from gpu_checks.policy import fp8_settings
from gpu_checks.rates import matrix_rate, peak
from gpu_checks.training import forget_policies, make_rows, settings
from megatron_trace.learning.rows import Row
from megatron_trace.policy.policy import Policy

ROWS = {"cuda": [2048] * 16, "cpu": [128] * 4}
"""Tokens of each row of a step."""
STEPS = 3


def bf16(context: Context) -> str:
    """A train step in bf16."""
    return train_step(context, "precision.train=bf16")


def fp8(context: Context) -> str:
    """A train step in FP8, one scale for each tensor."""
    return train_step(context, *fp8_settings(context, "tensorwise"))


def train_step(context: Context, *changed: str) -> str:
    """Rates of a train step. MFU is of bf16's rate, in FP8 too."""
    shape = SPEED[context.device]
    folder = make_model(context.work / "speed_model", shape, dtype=torch.bfloat16)
    rows = make_rows(shape.vocabulary, ROWS[context.device])
    longest = f"rollout.max_history_tokens={max(ROWS[context.device])}"
    tokens = f"learning.batching.micro_batch_tokens={4 * max(ROWS[context.device])}"
    policy = Policy(settings(folder, longest, tokens, *changed))
    # The first step chooses kernels and fills caches.
    policy.update(rows)
    seconds = statistics.median(_step(policy, rows, context.device) for _ in range(STEPS))
    del policy
    forget_policies()
    rate = model_flops(json.loads((folder / "config.json").read_text()), rows) / seconds
    # A CPU multiplies bf16 more slowly than float32.
    dtype = torch.bfloat16 if context.device == "cuda" else torch.float32
    measured = matrix_rate(dtype, context.device)
    text = (
        f"{sum(ROWS[context.device]) / seconds:,.0f} tokens/s, {rate / 1e12:.3g} TFLOP/s: MFU "
        f"{rate / measured:.0%} of the measured matrix rate"
    )
    stated = peak("flops", context.device)
    text += f", {rate / stated:.0%} of the maker's" if stated else ""
    if context.device == "cuda":
        text += f", {torch.cuda.max_memory_allocated() / 1e9:.0f} GB"
    return text


def _step(policy: Policy, rows: Sequence[Row], device: str) -> float:
    begin = time.perf_counter()
    policy.update(rows)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin
