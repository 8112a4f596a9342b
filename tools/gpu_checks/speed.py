"""Tokens per second and MFU of a train step, with layers of Qwen3-8B's shape."""

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from bench_train_rows import model_flops

from gpu_checks.check import Context
from gpu_checks.model import SPEED, make_model
from gpu_checks.policy import fp8_settings
from gpu_checks.rates import matrix_rate, peak
from gpu_checks.training import forget_policies, make_rows, make_trees, settings
from megatron_trace.learning.rows import Row
from megatron_trace.policy.policy import Policy

ROWS = {"cuda": [2048] * 16, "cpu": [128] * 4}
"""Tokens of each row of a step."""
TREES = {
    "cuda": {"trees": 2, "prompt": 2000, "leaves": 16, "turn": 128},
    "cpu": {"trees": 1, "prompt": 200, "leaves": 4, "turn": 20},
}
"""Trees whose rows have nearly all tokens in common."""
STEPS = 3


def train_step_bf16(context: Context) -> str:
    """A train step in bf16."""
    return train_step(context, "precision.train=bf16")


def train_step_fp8(context: Context) -> str:
    """A train step in FP8, one scale for each tensor."""
    return train_step(context, *fp8_settings(context, "tensorwise"))


def train_step_trees(context: Context) -> str:
    """A train step in bf16 on packed trees, against one on the same rows."""
    trees = make_trees(SPEED[context.device].vocabulary, **TREES[context.device])
    seconds, computed = [], []
    for pack in ("tree", "rows"):
        chosen = ("precision.train=bf16", f"learning.batching.pack={pack}")
        took, metrics = timed_steps(context, trees, *chosen)
        seconds.append(took)
        computed.append(metrics["computed_tokens"])
    tokens = sum(len(row.tokens) for row in trees)
    return (
        f"{tokens / seconds[0]:,.0f} tokens of rows per second; {computed[0] / computed[1]:.1%} of "
        f"the rows' tokens computed in {seconds[0] / seconds[1]:.1%} of their time"
    )


def train_step(context: Context, *changed: str) -> str:
    """Rates of a train step. MFU is of bf16's rate, in FP8 too."""
    rows = make_rows(SPEED[context.device].vocabulary, ROWS[context.device])
    seconds, _ = timed_steps(context, rows, *changed)
    folder = speed_model(context)
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


def speed_model(context: Context) -> Path:
    """Folder of the model whose steps are timed."""
    shape = SPEED[context.device]
    return make_model(context.work / "speed_model", shape, dtype=torch.bfloat16)


def timed_steps(
    context: Context, rows: Sequence[Row], *changed: str
) -> tuple[float, dict[str, float]]:
    """The median of the seconds of some train steps, and the metrics of the first."""
    longest = max(len(row.tokens) for row in rows)
    sizes = (
        f"rollout.max_history_tokens={longest}",
        f"learning.batching.micro_batch_tokens={4 * longest}",
    )
    policy = Policy(settings(speed_model(context), *sizes, *changed))
    # The first step chooses kernels and fills caches.
    metrics = policy.update(rows)
    seconds = statistics.median(_step(policy, rows, context.device) for _ in range(STEPS))
    del policy
    forget_policies()
    return seconds, metrics


def _step(policy: Policy, rows: Sequence[Row], device: str) -> float:
    begin = time.perf_counter()
    policy.update(rows)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin
