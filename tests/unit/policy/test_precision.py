"""FP8 is refused where it cannot run, in words."""

import pytest
import torch

from megatron_trace.config import FP8Recipe, Precision, PrecisionConfig
from megatron_trace.policy import precision


def gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], *, engine: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(precision.importlib.util, "find_spec", lambda name: object() if engine else None)


@pytest.mark.parametrize("kind", [Precision.float32, Precision.bf16])
def test_other_precisions_need_nothing(kind: Precision) -> None:
    precision.check_precision(PrecisionConfig(train=kind))


def test_fp8_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="this machine has no CUDA device"):
        precision.check_precision(PrecisionConfig(train=Precision.fp8))


@pytest.mark.parametrize(
    ("capability", "engine", "recipe", "message"),
    [
        ((8, 0), True, "delayed", r"this one has 8\.0; use precision\.train=bf16"),
        ((9, 0), False, "delayed", "needs Transformer Engine"),
        ((9, 0), True, "mxfp8", "needs a Blackwell"),
    ],
)
def test_fp8_says_what_is_missing(
    capability: tuple[int, int], engine: bool, recipe: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch, capability, engine=engine)
    with pytest.raises(ValueError, match=message):
        precision.check_precision(PrecisionConfig(train=Precision.fp8, fp8_recipe=FP8Recipe(recipe)))


def test_fp8_runs_on_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, (9, 0), engine=True)
    precision.check_precision(PrecisionConfig(train=Precision.fp8))
