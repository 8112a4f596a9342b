"""The metrics of an update against loops written out in float64."""

import math
from typing import Any

import pytest
import torch

from megatron_trace.config import Importance, LossConfig, Ratio
from megatron_trace.learning.diagnostics import predictor_sums, token_metrics
from megatron_trace.learning.objective import objective
from tests.unit.learning.micro_batches import policy_of, tokens_of


def measured(**settings: Any) -> tuple[dict[str, float], list[tuple[float, ...]]]:
    """The metrics, and for every token its current, old, sampler, reference log-probability,
    advantage, entropy.
    """
    tokens = tokens_of()
    current, entropy = policy_of(tokens), torch.rand(len(tokens.advantage), dtype=torch.float64)
    _, sums = objective(LossConfig(**settings), tokens, current, entropy)
    columns = (current, tokens.old_logprob, tokens.sampler_logprob, tokens.reference_logprob)
    listed = [
        column.tolist() for column in (*columns, tokens.advantage, entropy) if column is not None
    ]
    rows = list(zip(*listed, strict=True))
    return token_metrics({name: value.item() for name, value in sums.items()}, len(rows)), rows


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_metrics_are_those_of_a_loop() -> None:
    metrics, rows = measured(dual_clip=1.5, reference_kl=0.1)
    weights = [math.exp(o - s) for _, o, s, *_ in rows]
    expected = {
        "logprob_gap": mean([abs(o - s) for _, o, s, *_ in rows]),
        "kl": mean([math.exp(c - o) - 1 - (c - o) for c, o, *_ in rows]),
        "kl_sampler": mean([math.exp(o - s) - 1 - (o - s) for _, o, s, *_ in rows]),
        "kl_reference": mean([math.exp(r - c) - 1 - (r - c) for c, _, _, r, *_ in rows]),
        "clip_low_fraction": mean(
            [float(math.exp(c - o) < 0.8 and a < 0) for c, o, _, _, a, _ in rows]
        ),
        "clip_high_fraction": mean(
            [float(math.exp(c - o) > 1.28 and a > 0) for c, o, _, _, a, _ in rows]
        ),
        "dual_clip_fraction": mean(
            [float(math.exp(c - o) > 1.5 and a < 0) for c, o, _, _, a, _ in rows]
        ),
        "importance_truncated": mean([float(w > 2.0) for w in weights]),
        "entropy": mean([e for *_, e in rows]),
        "effective_sample_size": sum(weights) ** 2 / (len(rows) * sum(w * w for w in weights)),
    }
    assert all(expected.values())
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert set(metrics) == {*expected, "policy_loss"}


def test_what_is_left_out_is_counted() -> None:
    metrics, rows = measured(
        importance=Importance.mask, importance_floor=0.5, sequence_mask=0.1, ratio=Ratio.sequence
    )
    weights = [math.exp(o - s) for _, o, s, *_ in rows]
    assert metrics["importance_masked"] == pytest.approx(
        mean([float(not 0.5 <= w <= 2.0) for w in weights])
    )
    assert 0 < metrics["sequence_masked"] < 1
    assert "importance_truncated" not in metrics


def test_the_policy_loss_is_the_mean_over_updates() -> None:
    sums = {"policy_loss": 3.0, "weight": 0.0, "weight_squared": 0.0}
    assert token_metrics(sums, tokens=100, updates=2)["policy_loss"] == 1.5


def test_the_predictor_is_measured_over_its_anchors() -> None:
    sums = predictor_sums(torch.tensor([0.0, math.log(3.0)]), torch.tensor([1.0, 0.5]))
    assert sums["predictor_loss"].item() == pytest.approx(0.5**2 + 0.25**2)
    assert sums["prediction"].item() == pytest.approx(0.5 + 0.75)
