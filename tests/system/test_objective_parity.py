"""Every optimisation setting does the same on several train ranks as on one, in float32 and,
nearly, in bf16.
"""

import pickle
from pathlib import Path

import pytest
import torch

from tests.system.parity import assert_same_training, launch, settings
from tests.system.test_policy_parity import ROWS, make_policy

OBJECTIVES = {
    "gspo": [
        *(
            "learning.loss.ratio=sequence",
            "learning.loss.aggregation=sequence",
            "learning.loss.sequence_mask=0.001",
        ),
        *(
            "learning.loss.clip_low=0.0003",
            "learning.loss.clip_high=0.0004",
            "learning.batching.epochs=2",
        ),
    ],
    "regularised": [
        *(
            "learning.loss.reference_kl=0.3",
            "learning.loss.entropy_bonus=0.2",
            "learning.loss.dual_clip=3",
        ),
        *(
            "learning.loss.aggregation=dr_grpo",
            "learning.loss.dr_grpo_tokens=30",
            "learning.loss.importance=mask",
        ),
    ],
}
LAYOUTS = {
    "context2": ["parallel.context=2"],
    "interleaved": ["parallel.pipeline=2", "parallel.interleave=2"],
}
MORE = {"tensor2": ["parallel.tensor=2"], "data2": []}
BF16 = [
    "precision.train=bf16",
    "learning.batching.updates_per_step=1",
    "learning.optimizer.learning_rate=3e-4",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objectives")
    make_policy(folder / "model", tied=True)
    model = folder / "model"
    plain = {"float32": settings(model, *BF16[1:]), "bf16": settings(model, *BF16)}
    launch(
        folder,
        1,
        plain | {name: settings(model, *terms) for name, terms in OBJECTIVES.items()},
        ROWS,
    )
    launch(folder, 2, spread(model, OBJECTIVES, LAYOUTS), ROWS)
    return folder


def spread(
    model: Path, objectives: dict[str, list[str]], layouts: dict[str, list[str]]
) -> dict[str, list[str]]:
    return {
        f"{name}-{layout}": settings(model, *terms, *sizes)
        for name, terms in objectives.items()
        for layout, sizes in layouts.items()
    }


@pytest.fixture(scope="module")
def more(folder: Path) -> Path:
    bf16 = spread(folder / "model", {"bf16": BF16}, LAYOUTS | MORE)
    launch(folder, 2, spread(folder / "model", OBJECTIVES, MORE) | bf16, ROWS)
    return folder


def seen(folder: Path, name: str) -> dict:
    return pickle.loads((folder / f"{name}.pickle").read_bytes())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_the_same_in_every_layout(folder: Path, name: str, layout: str) -> None:
    assert_same_training(seen(folder, name), seen(folder, f"{name}-{layout}"), close=3e-4)


def test_bf16_trains_nearly_like_float32(folder: Path) -> None:
    assert_bf16_is_near(folder, "bf16")


@pytest.mark.slow
@pytest.mark.parametrize("layout", MORE)
def test_so_it_is_in_more_layouts(more: Path, layout: str) -> None:
    for name in OBJECTIVES:
        assert_same_training(seen(more, name), seen(more, f"{name}-{layout}"), close=3e-4)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS | MORE)
def test_bf16_trains_so_in_every_layout(more: Path, layout: str) -> None:
    assert_bf16_is_near(more, f"bf16-{layout}")


def assert_bf16_is_near(folder: Path, name: str) -> None:
    """The first update's losses, and the way that the weights went: no closer, as Adam's first
    steps are signs.
    """
    exact, found = seen(folder, "float32"), seen(folder, name)
    for metric in ("policy_loss", "predictor_loss", "gradient_norm"):
        reference = exact["updates"][0][metric]
        assert found["updates"][0][metric] == pytest.approx(reference, rel=0.05, abs=0.01), metric
    start = dict(exact["start"])
    names = [name for name in start if "predictor" not in name]
    ways = [
        torch.cat([(run["end"][name].float() - start[name]).flatten() for name in names])
        for run in (exact, found)
    ]
    assert torch.cosine_similarity(*ways, dim=0) > 0.3
    assert {tensor.dtype for key, tensor in found["end"].items() if "predictor" not in key} == {
        torch.bfloat16
    }
