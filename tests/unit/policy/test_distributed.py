"""How the train ranks join."""

from typing import Any

import pytest
from torch import distributed

from megatron_trace.config import ParallelConfig
from megatron_trace.policy import cpu_adapter
from megatron_trace.policy import distributed as ranks


@pytest.mark.parametrize("launched", [True, False])
def test_ranks_wait_an_hour_for_the_slowest(
    launched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(cpu_adapter, "install", lambda: True)
    monkeypatch.setattr(ranks, "_lay_out", lambda *_: None)
    monkeypatch.setattr(distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(distributed, "init_process_group", lambda _, **given: asked.update(given))
    if launched:
        monkeypatch.setenv("RANK", "0")
    else:
        monkeypatch.delenv("RANK", raising=False)
    ranks.start(ParallelConfig(), seed=0)
    assert asked["timeout"].total_seconds() == 3600
