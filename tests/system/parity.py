"""What the tests share that compare a policy in several layouts with `transformers`: a head, rows,
a launcher.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.special import expit
from transformers import AutoModelForCausalLM, PreTrainedModel

from megatron_trace.learning.rows import Row
from megatron_trace.models.predictor import FILE
from megatron_trace.models.predictor import shapes as head_shapes
from megatron_trace.tree import ROOT

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
    # With larger weights predictions are nearly 0 or 1, and hardly differ.
    head = {name: torch.randn(shape) / hidden**0.5 for name, shape in head_shapes(hidden).items()}
    save_file(head, folder / FILE)


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
                    rollout=len(rows),
                    tree=number,
                )
            )
    return rows


def settings(model: Path, *layout: str) -> list[str]:
    return [
        f"model.path={model}",
        "precision.train=float32",
        f"rollout.temperature={TEMPERATURE}",
        "learning.optimizer.learning_rate=1e-3",
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


def run_model(folder: Path, rows: Sequence[Row]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For every row what `transformers` says: logits, and final hidden states."""
    # Its other implementation of experts asks for widths that are multiples of 16 bytes.
    options = (
        {"experts_implementation": "eager"} if "moe" in (folder / "config.json").read_text() else {}
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    for row in rows:
        with torch.no_grad():
            output = model(torch.from_numpy(row.tokens)[None], output_hidden_states=True)
        yield output.logits[0], output.hidden_states[-1][0]


def head_of(tensors: Mapping[str, torch.Tensor]) -> np.ndarray:
    """The predictor's weights in float64, the last of them its bias."""
    weight, bias = tensors["predictor.weight"], tensors["predictor.bias"]
    return torch.cat([weight[0], bias]).double().numpy()


def expected(folder: Path, rows: Sequence[Row]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For every row what `transformers` says: log-probabilities where it learns, predictions where
    it predicts.
    """
    head = head_of(load_file(folder / FILE))
    for row, (logits, hidden) in zip(rows, run_model(folder, rows), strict=True):
        after = torch.from_numpy(row.tokens)[1:, None]
        logprob = (logits[:-1] / TEMPERATURE).log_softmax(-1).gather(1, after)[:, 0]
        logit = hidden.double().numpy() @ head[:-1] + head[-1]
        learned = np.concatenate([[0.0], np.where(row.learn[1:], logprob, 0)])
        yield learned, np.where(row.predict, expit(logit), 0)


def expected_head(folder: Path, rows: Sequence[Row], steps: int) -> np.ndarray:
    """What `head_of` a predictor is that has learned from the start policy's states `steps` times,
    with the default settings; see the formulas of learning/read_out.py.
    """
    states = zip(rows, run_model(folder, rows), strict=True)
    hidden = np.concatenate([hidden.double().numpy()[row.predict] for row, (_, hidden) in states])
    x = np.hstack([hidden, np.ones((len(hidden), 1))])
    s = np.concatenate([row.target[row.predict] for row in rows]).astype(np.float64)
    root = np.concatenate([row.turn[row.predict] == ROOT for row in rows])
    c = np.where(root, len(rows) / root.sum(), len(rows) / (~root).sum())

    def information(w: np.ndarray, margin: float = 0.0) -> np.ndarray:
        chance = np.clip(expit(x @ w), margin, 1 - margin)
        return (x.T * (c * chance * (1 - chance))) @ x

    mean = head_of(load_file(folder / FILE))
    square = (hidden**2).mean(0)
    square = np.maximum(square, 1e-3 * square.mean())
    ridge = np.diag(np.append(len(square) * square, 1.0)) / 32**2
    precision = ridge + 10 * information(mean, 0.05)
    for _ in range(steps):
        start, before = mean, precision
        for _ in range(50):
            slope = before @ (mean - start) + x.T @ (c * (expit(x @ mean) - s))
            mean = mean - np.linalg.solve(before + information(mean), slope)
        assert np.abs(slope).max() < 1e-9, "Newton's method has not converged"
        precision = 0.95 * (before + information(mean)) + 0.05 * ridge
    return mean


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
    for file in ("model.safetensors", FILE):
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
