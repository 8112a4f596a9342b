"""The policy on GPUs: bf16 and FP8 train on nearly the loss of float32, in every layout there are
GPUs for.
"""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gpu_checks import training
from omegaconf import OmegaConf
from transformers import Qwen3Config, Qwen3ForCausalLM

from megatron_trace.check.devices import check_devices
from megatron_trace.config import Config, SettingError
from megatron_trace.learning.rows import Row
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.precision import has_transformer_engine
from tests.system.parity import launch, save_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
HOPPER = has_transformer_engine() and torch.cuda.get_device_capability() >= (9, 0)
NEEDS_HOPPER = pytest.mark.skipif(not HOPPER, reason="needs Hopper or newer and Transformer Engine")
NEEDS_TWO = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
VOCABULARY = 2048
BF16 = ["precision.train=bf16"]
FP8 = ["precision.train=fp8", "precision.fp8_recipe=tensorwise"]
CASES = {
    "bf16": BF16,
    "bf16 recomputed": [
        *BF16,
        "recompute.granularity=selective",
        "recompute.modules=[core_attn,layernorm,mlp]",
    ],
    "bf16 overlapped": [
        *BF16,
        "parallel.overlap_grad_reduce=true",
        "parallel.overlap_param_gather=true",
    ],
    "fp8 tensorwise": FP8,
    "fp8 e4m3": [*FP8, "precision.fp8_format=e4m3"],
    "fp8 delayed": ["precision.train=fp8", "precision.fp8_recipe=delayed"],
    "fp8 blockwise": ["precision.train=fp8", "precision.fp8_recipe=blockwise"],
    "fp8 between": [*FP8, "precision.fp8_first_layers_bf16=1", "precision.fp8_last_layers_bf16=1"],
    "fp8 weights": [*FP8, "precision.fp8_param_gather=true"],
    "fp8 recomputed": [*FP8, "recompute.granularity=full"],
}
LAYOUTS = {
    "tensor2": ["parallel.tensor=2"],
    "pipeline2": ["parallel.pipeline=2"],
    "interleaved": ["parallel.pipeline=2", "parallel.interleave=2"],
    "context2": ["parallel.context=2"],
    "data2": [],
}
# Loosest relative deviation from float32 of losses and gradient norm, and of log-probabilities in
# nats.
TOLERANCE = {"float32": (2e-3, 1e-4), "bf16": (0.02, 0.05), "fp8": (0.1, 0.3)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu") / "model"
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    save_model(Qwen3ForCausalLM(config), folder)
    return folder


def make_rows() -> list[Row]:
    """Rows of trees, and rows of many lengths that share nothing."""
    trees = training.make_trees(VOCABULARY, trees=3, prompt=80, leaves=4, turn=40)
    lengths = np.random.default_rng(0).integers(40, 200, 10).tolist()
    alone = training.make_rows(VOCABULARY, lengths)
    return [*trees, *(replace(row, tree=row.tree + 3) for row in alone)]


def settings(folder: Path, *changed: str) -> list[str]:
    return [
        f"model.path={folder}",
        "learning.optimizer.learning_rate=1e-4",
        "learning.batching.micro_batch_tokens=1024",
        "rollout.max_history_tokens=256",
        *changed,
    ]


def configured(folder: Path, *changed: str) -> Config:
    given = OmegaConf.from_dotlist(settings(folder, *changed))
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), given))


def train(folder: Path, *changed: str) -> tuple[list[np.ndarray], list[dict[str, float]]]:
    policy, rows = Policy(configured(folder, *changed)), make_rows()
    return policy.logprobs(rows), [policy.update(rows), policy.update(rows)]


def assert_near(
    precision: str,
    exact: tuple[list[np.ndarray], list[dict[str, float]]],
    found: tuple[list[np.ndarray], list[dict[str, float]]],
) -> None:
    relative, nats = TOLERANCE[precision]
    assert np.abs(np.concatenate(found[0]) - np.concatenate(exact[0])).mean() < nats
    for reference, metrics in zip(exact[1], found[1], strict=True):
        assert metrics["policy_loss"] == pytest.approx(
            reference["policy_loss"], rel=relative, abs=0.01
        )
        assert metrics["predictor_loss"] == pytest.approx(reference["predictor_loss"], rel=relative)
        assert metrics["gradient_norm"] == pytest.approx(reference["gradient_norm"], rel=relative)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=NEEDS_HOPPER if "fp8" in n else ()) for n in CASES]
)
def test_training_is_close_to_float32(folder: Path, name: str) -> None:
    exact = train(folder, "precision.train=float32")
    assert_near(name.split()[0], exact, train(folder, *CASES[name]))


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(["precision.train=float32"], id="float32"),
        pytest.param(BF16, id="bf16"),
        pytest.param(FP8, id="fp8", marks=NEEDS_HOPPER),
    ],
)
def test_packed_trees_learn_as_their_rows_do(folder: Path, chosen: list[str]) -> None:
    alone = train(folder, *chosen, "learning.batching.pack=rows")
    together = train(folder, *chosen, "learning.batching.pack=tree")
    shares = [seen[1][0]["computed_tokens"] for seen in (together, alone)]
    assert shares[0] < 0.8 * shares[1]
    assert_near(chosen[0].removeprefix("precision.train="), alone, together)


@NEEDS_TWO
@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp8", marks=NEEDS_HOPPER)])
def test_two_gpus_train_close_to_float32_on_one(
    folder: Path, tmp_path: Path, precision: str
) -> None:
    (tmp_path / "model").symlink_to(folder)
    chosen = FP8 if precision == "fp8" else BF16
    runs = {name: settings(tmp_path / "model", *chosen, *sizes) for name, sizes in LAYOUTS.items()}
    launch(tmp_path, 2, runs, make_rows())
    exact = train(folder, "precision.train=float32")
    for name in LAYOUTS:
        seen = pickle.loads((tmp_path / f"{name}.pickle").read_bytes())
        assert_near(precision, exact, (seen["logprobs"], seen["updates"]))


@pytest.mark.skipif(HOPPER, reason="this GPU has FP8")
def test_fp8_is_refused_in_words(folder: Path) -> None:
    with pytest.raises(SettingError, match=r"precision\.train = 'fp8': needs"):
        check_devices(configured(folder, *FP8))
