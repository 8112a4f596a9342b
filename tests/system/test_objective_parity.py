"""Every optimisation setting does the same on several train ranks as on one, in float32 and, nearly, in bf16."""

import pickle
from pathlib import Path

import pytest
import torch

from tests.system.parity import assert_same_training, launch, settings
from tests.system.test_policy_parity import ROWS, make_policy

OBJECTIVES = {
    "gspo": [
        *("learning.ratio=sequence", "learning.aggregation=sequence", "learning.sequence_mask=0.001"),
        *("learning.clip_low=0.0003", "learning.clip_high=0.0004", "learning.epochs=2"),
    ],
    "regularised": [
        *("learning.reference_kl=0.3", "learning.entropy_bonus=0.2", "learning.dual_clip=3"),
        *("learning.aggregation=dr_grpo", "learning.dr_grpo_tokens=30", "learning.importance=mask"),
    ],
}
LAYOUTS = {
    "context2": ["parallel.context=2"],
    "tensor2": ["parallel.tensor=2"],
    "interleaved": ["parallel.pipeline=2", "parallel.interleave=2"],
    "data2": [],
}
BF16 = ["precision.train=bf16", "learning.learning_rate=1e-5", "learning.updates_per_step=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objectives")
    make_policy(folder / "model", tied=True)
    model = folder / "model"
    plain = {"float32": settings(model, *BF16[1:]), "bf16": settings(model, *BF16)}
    launch(folder, 1, plain | {name: settings(model, *terms) for name, terms in OBJECTIVES.items()}, ROWS)
    spread = {
        f"{name}-{layout}": settings(model, *terms, *sizes)
        for name, terms in (OBJECTIVES | {"bf16": BF16}).items()
        for layout, sizes in LAYOUTS.items()
    }
    launch(folder, 2, spread, ROWS)
    return folder


def seen(folder: Path, name: str) -> dict:
    return pickle.loads((folder / f"{name}.pickle").read_bytes())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_the_same_in_every_layout(folder: Path, name: str, layout: str) -> None:
    assert_same_training(seen(folder, name), seen(folder, f"{name}-{layout}"), close=3e-4)


@pytest.mark.parametrize("name", ["bf16", *(f"bf16-{layout}" for layout in LAYOUTS)])
def test_bf16_trains_nearly_like_float32(folder: Path, name: str) -> None:
    exact, found = seen(folder, "float32"), seen(folder, name)
    for reference, metrics in zip(exact["updates"], found["updates"], strict=True):
        assert metrics["policy_loss"] == pytest.approx(reference["policy_loss"], rel=0.05, abs=0.01)
        assert metrics["predictor_loss"] == pytest.approx(reference["predictor_loss"], rel=0.05)
        assert metrics["gradient_norm"] == pytest.approx(reference["gradient_norm"], rel=0.05)
    assert {tensor.dtype for key, tensor in found["end"].items() if "predictor" not in key} == {
        torch.bfloat16
    }
