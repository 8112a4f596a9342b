"""The policy's checks of tools/check_gpu.py: what they let pass, and what they do not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gpu_checks import policy
from gpu_checks.check import Context, Skip, Wrong
from gpu_checks.training import BF16, Numbers, compare, make_trees
from safetensors.torch import save_file

from megatron_trace.config import Pack
from megatron_trace.learning.runs import trees_of

EXACT = Numbers(
    logprobs=np.array([-1.0, -2.0], np.float32),
    predictions=np.array([0.3, 0.6], np.float32),
    updates=[{"policy_loss": 0.5, "predictor_loss": 0.2, "gradient_norm": 2.0}] * 2,
)


def second_update(**changed: float) -> Numbers:
    return replace(EXACT, updates=[EXACT.updates[0], EXACT.updates[1] | changed])


def test_numbers_within_the_tolerance_pass() -> None:
    found = replace(EXACT, logprobs=EXACT.logprobs + 0.01, predictions=EXACT.predictions - 0.01)
    text = compare(EXACT, found, BF16)
    assert "log-probabilities 1.0e-02 nats, predictions 1.0e-02" in text
    assert "gradient norm 0.00%" in text


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (replace(EXACT, logprobs=EXACT.logprobs + 0.1), "log-probabilities"),
        (replace(EXACT, logprobs=EXACT.logprobs * np.float32("nan")), "log-probabilities"),
        (replace(EXACT, predictions=EXACT.predictions + 0.1), "predictions"),
        (second_update(policy_loss=0.6), "policy loss"),
        (second_update(policy_loss=float("nan")), "policy loss"),
        (second_update(predictor_loss=float("nan")), "predictor loss"),
        (second_update(gradient_norm=2.2), "gradient norm"),
        (second_update(gradient_norm=float("inf")), "gradient norm"),
    ],
)
def test_numbers_beyond_the_tolerance_and_no_numbers_fail(found: Numbers, name: str) -> None:
    with pytest.raises(Wrong, match=name):
        compare(EXACT, found, BF16)


@pytest.mark.parametrize(("off", "passes"), [(0.01, True), (0.2, False)])
def test_weights_may_end_a_little_beside_the_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: float, passes: bool
) -> None:
    monkeypatch.setattr(policy, "reference", lambda context: EXACT)
    monkeypatch.setattr(policy, "numbers", lambda context, *changed: EXACT)
    for folder, value in (("model", 1.0), ("cpu_end", 3.0), ("float32_end", 3.0 + 2 * off)):
        (tmp_path / folder).mkdir()
        save_file({"w": torch.full((4,), value)}, tmp_path / folder / "model.safetensors")
    if passes:
        assert "1.0%" in policy.optimizer_step(Context("cpu", tmp_path))
    else:
        with pytest.raises(Wrong, match=r"20\.0%"):
            policy.optimizer_step(Context("cpu", tmp_path))


def test_trees_are_compared_with_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def train(config, rows, end=None):
        seen[config.learning.batching.pack] = rows
        computed = 4.0 if config.learning.batching.pack is Pack.tree else 10.0
        return _computing(computed)

    monkeypatch.setattr(policy, "reference", lambda context: EXACT)
    monkeypatch.setattr(policy, "train", train)
    text = policy.packed_trees(Context("cpu", tmp_path))
    assert text.startswith("40% of the tokens computed")
    assert seen[Pack.tree] is seen[Pack.rows]


def _computing(tokens: float) -> Numbers:
    return replace(
        EXACT, updates=[update | {"computed_tokens": tokens} for update in EXACT.updates]
    )


def test_fp8_is_skipped_where_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Skip, match="needs a Hopper or newer GPU"):
        policy.fp8_packed_trees(Context("cpu", tmp_path))


def test_made_up_trees_share_their_prompts_and_first_turns() -> None:
    rows = make_trees(500, trees=2, prompt=30, leaves=4, turn=10)
    assert [len(row.tokens) for row in rows] == [50] * 8
    for merge in (True, False):
        trees = trees_of(rows, range(8), Pack.tree, merge=merge)
        assert [sum(run.tokens for run in tree) for tree in trees] == [30 + 2 * 10 + 4 * 10] * 2
