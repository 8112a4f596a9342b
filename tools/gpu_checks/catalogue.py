"""All checks, in the order in which they run. Plain data: nothing is imported before it runs."""

from collections.abc import Iterator

from gpu_checks.check import Check, Group

TORCH = ("torch",)
POLICY = ("torch", "numpy", "omegaconf", "safetensors", "transformers", "megatron.core")
FP8 = (*POLICY, "transformer_engine")
ENGINE = (*POLICY, "vllm", "ray")

GROUPS = (
    Group(
        "machine",
        (
            Check("versions", "machine.versions"),
            Check("C compiler", "machine.compiler"),
            Check("host memory", "machine.host_memory"),
            Check("driver", "machine.driver", TORCH),
            Check("devices", "machine.devices", TORCH),
        ),
    ),
    Group(
        "torch",
        (
            Check("matrix products", "kernels.matrices", TORCH),
            Check("packed attention", "kernels.packed_attention", TORCH),
            Check("matrix rates", "rates.products", TORCH),
            Check("copy rates", "rates.copies", TORCH),
        ),
    ),
    Group(
        "policy",
        (
            Check("numbers on the CPU", "cpu_numbers.cpu_numbers", POLICY),
            Check("float32", "policy.float32", POLICY),
            Check("optimizer step", "policy.optimizer_step", POLICY),
            Check("bf16", "policy.bf16", POLICY),
            Check("bf16, Transformer Engine", "policy.engine_layers", FP8),
            Check("packed rows", "policy.packed_rows", POLICY),
            Check("checkpoint", "policy.checkpoint", POLICY),
            Check("FP8 tensorwise", "policy.tensorwise", FP8),
            Check("FP8 blockwise", "policy.blockwise", FP8),
            Check("FP8 delayed", "policy.delayed", FP8),
            Check("FP8 MXFP8", "policy.mxfp8", FP8),
            Check("FP8 checkpoint", "policy.fp8_checkpoint", FP8),
        ),
    ),
    Group(
        "speed",
        (
            Check("train step, bf16", "speed.bf16", POLICY),
            Check("train step, FP8", "speed.fp8", FP8),
        ),
    ),
    Group(
        "engine",
        (
            Check("engine", "engine.sampling", ENGINE, 180),
            Check("layerwise reload", "engine.layerwise_reload", ENGINE),
        ),
    ),
)


def all_checks() -> Iterator[Check]:
    """Every check of every group."""
    for group in GROUPS:
        yield from group.checks
