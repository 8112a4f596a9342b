"""All checks, in the order in which they run. Plain data: nothing is imported before it runs."""

from collections.abc import Iterator

from gpu_checks.check import Check, Group

TORCH = ("torch",)
POLICY = ("torch", "numpy", "omegaconf", "safetensors", "transformers", "megatron.core")
FP8 = (*POLICY, "transformer_engine")
ENGINE = (*POLICY, "vllm", "ray")
START_S = 240.0
"""For checks that start an engine."""


def checks(
    module: str, needs: tuple[str, ...], *names: str, limit_s: float = 120.0
) -> tuple[Check, ...]:
    """Checks of one module with the same needs."""
    return tuple(Check(name, module, needs, limit_s) for name in names)


GROUPS = (
    Group(
        "machine",
        checks("machine", (), "versions", "C compiler", "host memory")
        + checks("machine", TORCH, "driver", "devices"),
    ),
    Group(
        "torch",
        checks("kernels", TORCH, "matrix products", "packed attention")
        + checks("rates", TORCH, "matrix rates", "copy rates"),
    ),
    Group(
        "policy",
        checks("cpu_numbers", POLICY, "numbers on the CPU")
        + checks("policy", POLICY, "float32", "optimizer step", "bf16")
        + checks("policy", FP8, "bf16, Transformer Engine")
        + checks("policy", POLICY, "packed rows", "packed trees", "checkpoint")
        + checks("policy", FP8, "FP8 tensorwise", "FP8 blockwise", "FP8 delayed", "FP8 MXFP8")
        + checks("policy", FP8, "FP8 packed trees", "FP8 checkpoint"),
    ),
    Group("kernels", checks("kernels", FP8, "attention, Transformer Engine")),
    Group(
        "speed",
        checks("speed", POLICY, "train step, bf16")
        + checks("speed", FP8, "train step, FP8")
        + checks("speed", POLICY, "train step, trees"),
    ),
    Group(
        "engine",
        checks("engine", ENGINE, "engine", "layerwise reload", limit_s=START_S),
    ),
    # A process each: both choose which GPUs Ray sees.
    Group("object store", checks("weights", ENGINE, "weights by object store", limit_s=START_S)),
    Group("NCCL", checks("weights", ENGINE, "weights by NCCL", limit_s=START_S)),
)


def all_checks() -> Iterator[Check]:
    """Every check of every group."""
    for group in GROUPS:
        yield from group.checks
