"""vLLM's attention on the CPU with cache blocks of 16 tokens, on the processors that can.

Only whole blocks are served from the prefix cache, so a prompt loses half a block on average. vLLM
0.32 admits multiples of 32 alone, though its kernel `vec16` for x86 takes multiples of 16. It is as
fast in float32. The kernels for bf16 with AMX, and those of other processors, need 32.
"""

import platform

from vllm.v1.attention.backend import MultipleOf
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

from megatron_trace.config import SettingError

LEAST = 16 if platform.machine().lower() in ("x86_64", "amd64") else 32
"""Every block size on this processor is a multiple of this one."""


class SmallBlocks(CPUAttentionBackend):
    """`CPUAttentionBackend` that admits all block sizes of its kernels."""

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: object = None) -> list[int | MultipleOf]:
        """Multiples of `LEAST`."""
        return [MultipleOf(LEAST)]


def cpu_block_size(asked: int | None, dtype: str) -> int:
    """Tokens of a cache block: `rollout.block_size`, or the least that costs no speed.

    Args:
        asked: the setting; None leaves the choice to this function.
        dtype: `precision.rollout`.

    Raises:
        SettingError: no kernel takes blocks of that size.
    """
    if asked is None:
        return LEAST if dtype == "float32" else 32
    if asked % LEAST:
        remedy = f"must be a multiple of {LEAST} on this CPU"
        raise SettingError("rollout.block_size", asked, remedy)
    return asked
