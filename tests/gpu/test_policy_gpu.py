"""The policy on a GPU: bf16 and FP8 train on nearly the loss of float32."""

from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs CUDA", allow_module_level=True)

from transformers import Qwen3Config, Qwen3ForCausalLM

from megatron_trace.config import Config, Precision
from megatron_trace.learning.rows import Row
from megatron_trace.policy.policy import Policy
from megatron_trace.policy.precision import has_transformer_engine

HOPPER = torch.cuda.get_device_capability() >= (9, 0) and has_transformer_engine()
# Loosest relative deviation from float32 of losses and gradient norm, and of log-probabilities in nats.
TOLERANCE = {Precision.bf16: (0.02, 0.05), Precision.fp8: (0.1, 0.3)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu") / "model"
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def make_rows() -> list[Row]:
    random = np.random.default_rng(0)
    rows = []
    for length in random.integers(40, 200, 24):
        learn = random.random(length) < 0.6
        learn[:8] = False
        predict = random.random(length) < 0.05
        noise = random.normal(size=(2, length)).astype(np.float32)
        rows.append(
            Row(
                tokens=random.integers(0, 2048, length),
                learn=learn,
                advantage=np.where(learn, noise[0], 0),
                sampler_logprob=np.where(learn, 0.1 * noise[1] - 7.6, 0),
                predict=predict,
                target=np.where(predict, 0.8, 0).astype(np.float32),
            )
        )
    return rows


def train(folder: Path, precision: Precision) -> tuple[list[np.ndarray], dict[str, float], dict[str, float]]:
    config = Config()
    config.model.path = str(folder)
    config.precision.train = precision
    config.learning.learning_rate = 1e-4
    config.learning.micro_batch_tokens = 1024
    policy, rows = Policy(config), make_rows()
    return policy.logprobs(rows), policy.update(rows), policy.update(rows)


@pytest.mark.parametrize(
    "precision",
    [
        Precision.bf16,
        pytest.param(
            Precision.fp8, marks=pytest.mark.skipif(not HOPPER, reason="needs Hopper and Transformer Engine")
        ),
    ],
)
def test_training_is_close_to_float32(folder: Path, precision: Precision) -> None:
    exact_logprobs, *exact = train(folder, Precision.float32)
    logprobs, *metrics = train(folder, precision)
    relative, nats = TOLERANCE[precision]
    assert np.abs(np.concatenate(logprobs) - np.concatenate(exact_logprobs)).mean() < nats
    for expected, found in zip(exact, metrics, strict=True):
        assert found["policy_loss"] == pytest.approx(expected["policy_loss"], rel=relative, abs=0.01)
        assert found["predictor_loss"] == pytest.approx(expected["predictor_loss"], rel=relative)
        assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=relative)


@pytest.mark.skipif(HOPPER, reason="this GPU has FP8")
def test_fp8_is_refused_in_words(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"precision\.train=fp8 needs"):
        train(folder, Precision.fp8)
