"""Rows packed into one sequence teach what they teach one by one in `transformers`."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.system.parity import TEMPERATURE, launch, settings
from tests.system.test_policy_parity import ROWS, make_policy

PACKINGS = {"few rows together": 32, "all rows together": 512}
IMPORTANCE_CAP = 2.0
BF16 = ("tree", "rows")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packing")
    make_policy(folder / "model", tied=True)
    once = (
        "learning.batching.updates_per_step=1",
        f"learning.loss.importance_cap={IMPORTANCE_CAP}",
    )
    runs = {
        name: settings(folder / "model", *once, f"learning.batching.micro_batch_tokens={tokens}")
        for name, tokens in PACKINGS.items()
    }
    for pack in BF16:
        layout = ("precision.train=bf16", f"learning.batching.pack={pack}")
        runs[f"bf16 {pack}"] = settings(folder / "model", *once, *layout)
    launch(folder, 1, runs, ROWS)
    return folder


@pytest.fixture(scope="module")
def unpacked(folder: Path) -> tuple[float, float]:
    """Loss and gradient norm of TRACE's objective in float64, a row at a time."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float64)
    learned, total = sum(int(row.learn.sum()) for row in ROWS), 0.0
    for row in ROWS:
        tokens, learn = torch.from_numpy(row.tokens), torch.from_numpy(row.learn)[1:]
        logits = model(tokens[None]).logits[0, :-1] / TEMPERATURE
        logprob = logits.log_softmax(-1).gather(1, tokens[1:, None])[:, 0][learn]
        sampler = torch.from_numpy(row.sampler_logprob)[1:][learn]
        importance = (logprob.detach() - sampler).exp().clamp(max=IMPORTANCE_CAP)
        loss = -(importance * torch.from_numpy(row.advantage)[1:][learn] * logprob).sum() / learned
        loss.backward()
        # The loss itself is that of the ratio, which is 1, not of its logarithm.
        total -= float((importance * torch.from_numpy(row.advantage)[1:][learn]).sum()) / learned
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    return total, float(norm)


@pytest.mark.parametrize("name", PACKINGS)
def test_packed_rows_give_the_gradient_of_rows_one_by_one(
    folder: Path, unpacked: tuple[float, float], name: str
) -> None:
    seen = pickle.loads((folder / f"{name}.pickle").read_bytes())
    first = seen["updates"][0]
    assert first["policy_loss"] == pytest.approx(unpacked[0], rel=1e-4)
    assert first["gradient_norm"] == pytest.approx(unpacked[1], rel=1e-4)
    assert np.linalg.norm(seen["gradient"]) == pytest.approx(unpacked[1], rel=1e-4)


def test_packed_tightly_or_not_the_weights_end_the_same(folder: Path) -> None:
    few, every = (
        pickle.loads((folder / f"{name}.pickle").read_bytes())["end"] for name in PACKINGS
    )
    for name, tensor in few.items():
        torch.testing.assert_close(every[name], tensor, rtol=1e-4, atol=1e-4, msg=name)


def test_trees_in_bf16_are_as_exact_as_rows_in_bf16(folder: Path) -> None:
    def gradient(name: str) -> np.ndarray:
        return pickle.loads((folder / f"{name}.pickle").read_bytes())["gradient"]

    exact = gradient("all rows together")
    tree, rows = (
        np.linalg.norm(gradient(f"bf16 {pack}") - exact) / np.linalg.norm(exact) for pack in BF16
    )
    # bf16 has 8 bits; the model is four layers deep.
    assert 1e-4 < rows < 0.05
    assert tree < 1.5 * rows
