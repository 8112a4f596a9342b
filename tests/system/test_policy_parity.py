"""One policy, whatever the layout: one, two tensor-parallel, two pipeline or two data-parallel train ranks."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from megatron_trace.learning.rows import Row

VOCABULARY, TEMPERATURE = 100, 0.7
LAYOUTS = {"tensor2": (2, 1), "pipeline2": (1, 2), "data2": (1, 1)}
TIES = ("tied", "untied")


def make_policy(folder: Path, *, tied: bool) -> None:
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=128,
        initializer_range=0.2,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )
    model = Qwen3ForCausalLM(config).float()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    shapes = {"fc1.weight": (16, 64), "fc1.bias": (16,), "fc2.weight": (1, 16), "fc2.bias": (1,)}
    head = {f"predictor.{name}": 0.3 * torch.randn(shape) for name, shape in shapes.items()}
    save_file(head, folder / "predictor.safetensors")


def make_rows() -> list[Row]:
    random = np.random.default_rng(2)
    rows = []
    for length in (5, 9, 12, 17, 18, 23, 25, 28, 30, 31, 6):
        learn = random.random(length) < 0.6
        learn[:3] = False
        predict = random.random(length) < 0.2
        predict[2] = True
        values = random.normal(size=(2, length)).astype(np.float32)
        target = random.random(length).astype(np.float32)
        rows.append(
            Row(
                tokens=random.integers(0, VOCABULARY - 2, length),
                learn=learn,
                # Some trees hold no contrast: their rows teach only the predictor.
                advantage=np.where(learn & (length % 3 > 0), values[0], 0),
                sampler_logprob=np.where(learn, values[1] - 5, 0),
                predict=predict,
                target=np.where(predict, target, 0),
            )
        )
    return rows


def settings(model: Path, tensor: int, pipeline: int) -> list[str]:
    return [
        f"model.path={model}",
        "precision.train=float32",
        f"parallel.tensor={tensor}",
        f"parallel.pipeline={pipeline}",
        f"rollout.temperature={TEMPERATURE}",
        "learning.predictor_hidden=16",
        "learning.learning_rate=1e-3",
        "learning.predictor_learning_rate=1e-2",
        "learning.weight_decay=0.1",
        "learning.warmup_steps=1",
        "learning.updates_per_step=2",
        "learning.micro_batch_tokens=64",
        "run.seed=5",
    ]


def launch(folder: Path, ranks: int, runs: dict[str, list[str]]) -> None:
    job = folder / f"job{ranks}.pickle"
    job.write_bytes(pickle.dumps({"rows": make_rows(), "runs": runs, "folder": folder}))
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [*torchrun, str(Path(__file__).with_name("policy_ranks.py")), str(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    for tie in TIES:
        make_policy(folder / f"model-{tie}", tied=tie == "tied")
    launch(folder, 1, {f"one-{tie}": settings(folder / f"model-{tie}", 1, 1) for tie in TIES})
    launch(
        folder,
        2,
        {
            f"{layout}-{tie}": settings(folder / f"model-{tie}", *sizes)
            for layout, sizes in LAYOUTS.items()
            for tie in TIES
        },
    )
    return folder


def seen(folder: Path, layout: str, tie: str) -> dict:
    return pickle.loads((folder / f"{layout}-{tie}.pickle").read_bytes())


@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_takes_the_same_training_steps(folder: Path, layout: str, tie: str) -> None:
    one, other = seen(folder, "one", tie), seen(folder, layout, tie)
    for expected, metrics in zip(one["updates"], other["updates"], strict=True):
        assert metrics.keys() == expected.keys()
        for name in expected.keys() - {"padding"}:
            assert metrics[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
    for name, tensor in one["end"].items():
        torch.testing.assert_close(other["end"][name], tensor, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("tie", TIES)
def test_training_changes_policy_and_predictor(folder: Path, tie: str) -> None:
    one = seen(folder, "one", tie)
    for name, before in one["start"]:
        assert not torch.equal(before, one["end"][name]), name


@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("layout", ["one", *LAYOUTS])
def test_logprobs_and_predictions_are_those_of_transformers(folder: Path, layout: str, tie: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder / f"model-{tie}", dtype=torch.float32)
    head = load_file(folder / f"model-{tie}" / "predictor.safetensors")
    other = seen(folder, layout, tie)
    for row, logprobs, predictions in zip(make_rows(), other["logprobs"], other["predictions"], strict=True):
        tokens = torch.from_numpy(row.tokens)
        with torch.no_grad():
            output = model(tokens[None], output_hidden_states=True)
        expected = (
            (output.logits[0, :, :-2] / TEMPERATURE).log_softmax(-1)[:-1].gather(1, tokens[1:, None])[:, 0]
        )
        np.testing.assert_allclose(logprobs[1:], np.where(row.learn[1:], expected, 0), atol=1e-4)
        inner = output.hidden_states[-1][0] @ head["predictor.fc1.weight"].T + head["predictor.fc1.bias"]
        inner = torch.nn.functional.gelu(inner, approximate="tanh")
        logit = (inner @ head["predictor.fc2.weight"].T + head["predictor.fc2.bias"])[:, 0]
        np.testing.assert_allclose(predictions, np.where(row.predict, torch.sigmoid(logit), 0), atol=1e-4)


@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("layout", ["one", *LAYOUTS])
def test_export_returns_the_loaded_bits(folder: Path, layout: str, tie: str) -> None:
    for file in ("model.safetensors", "predictor.safetensors"):
        source, saved = (
            load_file(f / file) for f in (folder / f"model-{tie}", folder / f"{layout}-{tie}-start")
        )
        assert saved.keys() == source.keys() - ({"lm_head.weight"} if tie == "tied" else set())
        for name, tensor in saved.items():
            assert torch.equal(tensor, source[name]), name
    assert (folder / f"{layout}-{tie}-start" / "chat_template.jinja").exists()


@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize("layout", ["one", *LAYOUTS])
def test_weight_sync_announces_what_it_sends(folder: Path, layout: str, tie: str) -> None:
    other = seen(folder, layout, tie)
    assert other["metadata"] == [(name, t.dtype, tuple(t.shape)) for name, t in other["start"]]
    sent = dict(other["start"])
    assert len(sent) == len(other["start"])
    assert {"lm_head.weight", "predictor.fc2.bias"} <= sent.keys()
    if tie == "tied":
        assert torch.equal(other["end"]["lm_head.weight"], other["end"]["model.embed_tokens.weight"])


@pytest.mark.parametrize("tie", TIES)
def test_a_trained_policy_loads_in_transformers(folder: Path, tie: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder / f"tensor2-{tie}")
    end = seen(folder, "tensor2", tie)["end"]
    assert json.loads((folder / f"tensor2-{tie}" / "config.json").read_text())["dtype"] == "float32"
    for name, parameter in model.state_dict().items():
        assert torch.equal(parameter, end[name]), name
