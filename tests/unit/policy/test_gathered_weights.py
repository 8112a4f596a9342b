"""What is true when `Optimizer.gather_weights` returns."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megatron_trace.policy import cpu_adapter


@pytest.mark.parametrize("overlap", [False, True])
def test_all_weights_are_there_on_every_stream(
    monkeypatch: pytest.MonkeyPatch, overlap: bool
) -> None:
    cpu_adapter.install()
    from megatron_trace.policy.optimizer import Optimizer

    log: list[str] = []
    stream = SimpleNamespace(synchronize=lambda: log.append("wait"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    chunk = SimpleNamespace(
        ddp_config=SimpleNamespace(overlap_param_gather=overlap),
        start_param_sync=lambda force_sync: log.append("gather"),
    )
    optimizer: Any = SimpleNamespace(_chunks=[chunk])
    Optimizer.gather_weights(optimizer)
    assert log == (["gather", "wait"] if overlap else ["wait"])
