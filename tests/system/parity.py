"""What the tests share that compare a policy in several layouts with `transformers`: a head, rows,
a launcher.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from megatron_trace.learning.rows import Row

TEMPERATURE = 0.7

OF_LAYOUT = {"padding", "computed_tokens", "tree_reuse"}
"""Metrics of what a layout computes; all others are the same in every layout."""


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Save `model`, its norms and biases no longer trivial, with a chat template and a predictor."""
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    hidden = model.config.hidden_size
    shapes = {
        "fc1.weight": (16, hidden),
        "fc1.bias": (16,),
        "fc2.weight": (1, 16),
        "fc2.bias": (1,),
    }
    head = {f"predictor.{name}": 0.3 * torch.randn(shape) for name, shape in shapes.items()}
    save_file(head, folder / "predictor.safetensors")


TREES: list[list[tuple[int, int]]] = [
    [(5, 0)],
    [(9, 0), (12, 9), (17, 6), (18, 17), (17, 17)],
    [(23, 0), (25, 23), (25, 4), (28, 20), (30, 3)],
    [(31, 0), (32, 31), (6, 5)],
    [(7, 0), (20, 1), (26, 12)],
]
"""For each row its length, and the tokens that it takes from some earlier row of its tree: none,
nearly all, all."""


def make_rows(vocabulary: int) -> list[Row]:
    """The rows of `TREES`. Rows learn from tokens that they share, as if those were sampled several
    times, each time with another advantage.
    """
    random = np.random.default_rng(2)
    rows: list[Row] = []
    for number, tree in enumerate(TREES):
        first, turns = len(rows), 0
        for length, taken in tree:
            fits = [row for row in rows[first:] if len(row.tokens) >= taken]
            source = fits[random.integers(len(fits))] if taken else None
            tokens = random.integers(0, vocabulary, length)
            turn = turns + np.arange(length) // 4
            if source is not None:
                tokens[:taken], turn[:taken] = source.tokens[:taken], source.turn[:taken]
            turns = int(turn.max()) + 1
            learn = random.random(length) < 0.6
            learn[:3] = False
            predict = random.random(length) < 0.2
            predict[2] = True
            values = random.normal(size=(2, length)).astype(np.float32)
            target = random.random(length).astype(np.float32)
            rows.append(
                Row(
                    tokens=tokens,
                    learn=learn,
                    # Some trees hold no contrast: their rows teach only the predictor.
                    advantage=np.where(learn & (number % 3 > 0), values[0], 0),
                    sampler_logprob=np.where(learn, values[1] - 5, 0),
                    predict=predict,
                    target=np.where(predict, target, 0),
                    turn=turn,
                    tree=number,
                )
            )
    return rows


def settings(model: Path, *layout: str) -> list[str]:
    return [
        f"model.path={model}",
        "precision.train=float32",
        f"rollout.temperature={TEMPERATURE}",
        "learning.predictor.hidden=16",
        "learning.optimizer.learning_rate=1e-3",
        "learning.predictor.learning_rate=1e-2",
        "learning.optimizer.weight_decay=0.1",
        "learning.optimizer.warmup_steps=1",
        "learning.batching.updates_per_step=2",
        "learning.batching.micro_batch_tokens=64",
        "rollout.max_history_tokens=32",
        "run.seed=5",
        *layout,
    ]


def launch(folder: Path, ranks: int, runs: dict[str, list[str]], rows: Sequence[Row]) -> None:
    """Have `ranks` processes do `runs` one after the other; see policy_ranks.py for what they leave
    in `folder`.
    """
    job = folder / f"job{ranks}.pickle"
    job.write_bytes(pickle.dumps({"rows": list(rows), "runs": runs, "folder": folder}))
    root = Path(__file__).parents[2]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": str(root),
    }
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
    ]
    command = [*torchrun, str(Path(__file__).with_name("policy_ranks.py")), str(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr.split("torch.distributed.elastic")[0][-4000:]


def expected(folder: Path, rows: Sequence[Row]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For every row what `transformers` says: log-probabilities where it learns, predictions where
    it predicts.
    """
    # Its other implementation of experts asks for widths that are multiples of 16 bytes.
    options = (
        {"experts_implementation": "eager"} if "moe" in (folder / "config.json").read_text() else {}
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    head = load_file(folder / "predictor.safetensors")
    for row in rows:
        tokens = torch.from_numpy(row.tokens)
        with torch.no_grad():
            output = model(tokens[None], output_hidden_states=True)
        logprob = (
            (output.logits[0, :-1] / TEMPERATURE).log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
        )
        inner = (
            output.hidden_states[-1][0] @ head["predictor.fc1.weight"].T
            + head["predictor.fc1.bias"]
        )
        inner = torch.nn.functional.gelu(inner, approximate="tanh")
        logit = (inner @ head["predictor.fc2.weight"].T + head["predictor.fc2.bias"])[:, 0]
        learned = np.concatenate([[0.0], np.where(row.learn[1:], logprob, 0)])
        yield learned, np.where(row.predict, torch.sigmoid(logit), 0)


def assert_speaks_like_transformers(
    seen: dict[str, Any], folder: Path, rows: Sequence[Row]
) -> None:
    """What a run of policy_ranks.py scored before it trained is what `transformers` says of the
    start policy.
    """
    found = zip(seen["logprobs"], seen["predictions"], strict=True)
    for (logprobs, predictions), right in zip(found, expected(folder, rows), strict=True):
        np.testing.assert_allclose(logprobs, right[0], atol=1e-4)
        np.testing.assert_allclose(predictions, right[1], atol=1e-4)


def assert_same_bits(source: Path, saved: Path, *, without: Sequence[str] = ()) -> None:
    """An export holds the tensors of `source`, bit for bit, except those named."""
    for file in ("model.safetensors", "predictor.safetensors"):
        before, after = load_file(source / file), load_file(saved / file)
        assert after.keys() == before.keys() - set(without)
        for name, tensor in after.items():
            assert torch.equal(tensor, before[name]), name


def assert_same_training(
    one: dict[str, Any], other: dict[str, Any], *, close: float = 1e-4
) -> None:
    """Two runs of policy_ranks.py have the same metrics and end with the same weights.

    The weights may differ by twice as much: Adam divides a gradient by its size, so where it is
    nearly 0 its rounding shows.
    """
    for reference, metrics in zip(one["updates"], other["updates"], strict=True):
        assert metrics.keys() == reference.keys()
        for name in reference.keys() - OF_LAYOUT:
            difference = abs(metrics[name] - reference[name])
            assert difference <= max(close * abs(reference[name]), 1e-6), name
    for name, tensor in one["end"].items():
        most = 2 * close
        torch.testing.assert_close(other["end"][name], tensor, rtol=most, atol=most, msg=name)
