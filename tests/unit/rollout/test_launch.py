"""What an engine's process is started with."""

import pytest

from megatron_trace.config import Config
from megatron_trace.rollout.vllm.launch import engine_environment

READY = "VLLM_ENGINE_READY_TIMEOUT_S"


def test_an_engine_on_a_gpu_may_take_almost_as_long_as_a_run_may_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(READY, raising=False)
    hang_s = Config().stop.hang_s
    assert hang_s is not None
    assert 600 < int(engine_environment(Config(), gpu=True)[READY]) < hang_s
    monkeypatch.setenv(READY, "60")
    assert engine_environment(Config(), gpu=True)[READY] == "60"
