"""Block sizes on the CPU."""

import pytest

from megatron_trace.config import SettingError
from megatron_trace.rollout.vllm import cpu_attention
from megatron_trace.rollout.vllm.cpu_attention import SmallBlocks, cpu_block_size


def test_small_blocks_only_where_they_cost_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_attention, "LEAST", 16)
    assert (cpu_block_size(None, "float32"), cpu_block_size(None, "bfloat16")) == (16, 32)
    assert cpu_block_size(48, "bfloat16") == 48
    assert SmallBlocks.supports_block_size(16)
    monkeypatch.setattr(cpu_attention, "LEAST", 32)
    assert cpu_block_size(None, "float32") == 32
    assert not SmallBlocks.supports_block_size(16)
    with pytest.raises(SettingError, match="block_size = 16: must be a multiple of 32 on this CPU"):
        cpu_block_size(16, "float32")
