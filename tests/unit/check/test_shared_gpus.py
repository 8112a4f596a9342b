"""Engines and train ranks share no GPU by accident."""

from typing import Any

import pytest
import torch

from megatron_trace.check.shared_gpus import check_shared_gpus
from megatron_trace.config import SettingError, WeightBackend
from tests.unit.check.models import settings


@pytest.mark.parametrize(
    ("gpus", "changed", "message"),
    [
        (8, {}, r"ray_address = None: would put engines on the train ranks' GPUs \(8 are visible"),
        (1, {"rollout__weight_backend": WeightBackend.nccl}, "cannot send from a GPU to itself"),
        (1, {}, None),
        (8, {"rollout__ray_address": "auto"}, None),
        (0, {}, None),
    ],
)
def test_they_share_one_gpu_at_most(
    gpus: int, changed: dict[str, Any], message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    config = settings(**changed)
    if message is None:
        check_shared_gpus(config)
    else:
        with pytest.raises(SettingError, match=message):
            check_shared_gpus(config)
