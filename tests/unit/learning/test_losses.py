"""The tensor losses against loops written out in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from megatron_trace.learning.losses import (
    k3,
    policy_loss,
    predictor_loss,
    token_metrics,
    token_sums,
    truncated_importance,
)

LOW, HIGH, CAP = 0.2, 0.28, 2.0


@pytest.fixture
def tokens() -> dict[str, Tensor]:
    random = np.random.default_rng(0)
    old = -random.exponential(2.0, 200)
    columns = {
        "current": old + random.normal(0, 0.3, 200),
        "old": old,
        "sampler": old + random.normal(0, 0.6, 200),
        "advantage": random.normal(0, 1, 200),
        "entropy": random.random(200),
    }
    return {name: torch.from_numpy(values) for name, values in columns.items()}


def test_policy_loss_is_the_clipped_sum(tokens: dict[str, Tensor]) -> None:
    expected = 0.0
    for current, old, sampler, advantage in zip(
        *(tokens[name].tolist() for name in ("current", "old", "sampler", "advantage")), strict=True
    ):
        weight = min(math.exp(old - sampler), CAP)
        ratio = math.exp(current - old)
        clipped = min(max(ratio, 1 - LOW), 1 + HIGH)
        expected -= weight * min(ratio * advantage, clipped * advantage)
    weight = truncated_importance(tokens["old"], tokens["sampler"], CAP)
    loss = policy_loss(
        tokens["current"], tokens["old"], tokens["advantage"], weight, clip_low=LOW, clip_high=HIGH
    )
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("ratio", "advantage", "learns"),
    [
        (1.0, 1.0, True),
        (1.27, 1.0, True),
        (1.29, 1.0, False),
        (1.29, -1.0, True),
        (0.81, -1.0, True),
        (0.79, -1.0, False),
        (0.79, 1.0, True),
    ],
)
def test_only_ratios_past_the_clip_in_the_advantage_s_direction_stop_learning(
    ratio: float, advantage: float, learns: bool
) -> None:
    current = torch.tensor([math.log(ratio)], requires_grad=True)
    one = torch.ones(1)
    policy_loss(current, torch.zeros(1), advantage * one, 0.5 * one, clip_low=LOW, clip_high=HIGH).backward()
    assert current.grad is not None
    assert current.grad.item() == pytest.approx(-0.5 * advantage * ratio if learns else 0.0)


def test_on_policy_the_gradient_is_the_weighted_advantage(tokens: dict[str, Tensor]) -> None:
    current = tokens["current"].clone().requires_grad_()
    weight = truncated_importance(current.detach(), tokens["sampler"], CAP)
    loss = policy_loss(current, current.detach(), tokens["advantage"], weight, clip_low=LOW, clip_high=HIGH)
    loss.backward()
    torch.testing.assert_close(current.grad, -weight * tokens["advantage"])


def test_predictor_loss_is_the_squared_error() -> None:
    logits, targets = [0.3, -2.0, 5.0], [1.0, 0.0, 0.25]
    expected = sum((1 / (1 + math.exp(-z)) - y) ** 2 for z, y in zip(logits, targets, strict=True))
    loss = predictor_loss(
        torch.tensor(logits, dtype=torch.float64), torch.tensor(targets, dtype=torch.float64)
    )
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_metrics_are_those_of_a_loop(tokens: dict[str, Tensor]) -> None:
    sums = token_sums(**tokens, clip_low=LOW, clip_high=HIGH, cap=CAP)
    metrics = token_metrics({name: value.item() for name, value in sums.items()}, 200)
    rows = list(
        zip(
            *(tokens[name].tolist() for name in ("current", "old", "sampler", "advantage", "entropy")),
            strict=True,
        )
    )

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    weights = [math.exp(o - s) for _, o, s, _, _ in rows]
    expected = {
        "logprob_gap": mean([abs(o - s) for _, o, s, _, _ in rows]),
        "kl": mean([math.exp(c - o) - 1 - (c - o) for c, o, _, _, _ in rows]),
        "kl_sampler": mean([math.exp(o - s) - 1 - (o - s) for _, o, s, _, _ in rows]),
        "clip_low_fraction": mean([float(math.exp(c - o) < 1 - LOW and a < 0) for c, o, _, a, _ in rows]),
        "clip_high_fraction": mean([float(math.exp(c - o) > 1 + HIGH and a > 0) for c, o, _, a, _ in rows]),
        "importance_truncated": mean([float(w > CAP) for w in weights]),
        "entropy": mean([e for *_, e in rows]),
        "effective_sample_size": sum(weights) ** 2 / (200 * sum(w * w for w in weights)),
    }
    assert expected["clip_low_fraction"] > 0 and expected["importance_truncated"] > 0
    assert metrics == pytest.approx(expected, rel=1e-12)


def test_k3_of_samples_estimates_the_kl_divergence() -> None:
    earlier, later = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.4, 0.4, 0.2]).double()
    exact = (earlier * (earlier / later).log()).sum()
    torch.testing.assert_close((earlier * k3((later / earlier).log())).sum(), exact)


def test_without_tokens_the_metrics_are_finite() -> None:
    none = torch.zeros(0)
    sums = token_sums(none, none, none, none, none, clip_low=LOW, clip_high=HIGH, cap=CAP)
    metrics = token_metrics({name: value.item() for name, value in sums.items()}, 0)
    assert metrics["effective_sample_size"] == 1.0
    assert all(math.isfinite(value) for value in metrics.values())
