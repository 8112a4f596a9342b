"""The terms of the loss against loops written out in float64."""

import math

import pytest
import torch

from megatron_trace.learning.losses import (
    clipped_surrogate,
    k3,
    predictor_loss,
    reference_divergence,
)
from megatron_trace.learning.ratios import token_ratio
from tests.unit.learning.micro_batches import policy_of, tokens_of

LOW, HIGH = 0.2, 0.28


@pytest.mark.parametrize("dual_clip", [None, 1.5])
def test_the_surrogate_is_clipped_on_both_sides(dual_clip: float | None) -> None:
    tokens = tokens_of()
    assert tokens.old_logprob is not None
    current = policy_of(tokens)
    ratio = token_ratio(current, tokens.old_logprob)
    found = clipped_surrogate(
        ratio, tokens.advantage, clip_low=LOW, clip_high=HIGH, dual_clip=dual_clip
    )
    (gradient,) = torch.autograd.grad(found.sum(), current)
    bounded = 0
    for rho, a, value, slope in zip(
        *(values.tolist() for values in (ratio, tokens.advantage, found, gradient)), strict=True
    ):
        expected, learns = rho * a, True
        if (a > 0 and rho > 1 + HIGH) or (a < 0 and rho < 1 - LOW):
            expected, learns = (1 + HIGH if a > 0 else 1 - LOW) * a, False
        if dual_clip is not None and a < 0 and rho > dual_clip:
            expected, learns, bounded = dual_clip * a, False, bounded + 1
        assert value == pytest.approx(expected, rel=1e-12)
        assert slope == pytest.approx(rho * a if learns else 0.0, rel=1e-12)
    assert bool(bounded) is (dual_clip is not None)


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
        (2.9, -1.0, True),
        (3.1, -1.0, False),
    ],
)
def test_only_ratios_past_a_clip_in_the_advantage_s_direction_stop_learning(
    ratio: float, advantage: float, learns: bool
) -> None:
    current = torch.tensor([math.log(ratio)], requires_grad=True)
    signed = torch.tensor([advantage])
    clipped_surrogate(current.exp(), signed, clip_low=LOW, clip_high=HIGH, dual_clip=3.0).backward()
    assert current.grad is not None
    assert current.grad.item() == pytest.approx(advantage * ratio if learns else 0.0)


def test_the_reference_divergence_is_the_k3_estimate_with_its_gradient() -> None:
    tokens = tokens_of()
    assert tokens.reference_logprob is not None
    current = policy_of(tokens)
    found = reference_divergence(current, tokens.reference_logprob)
    (gradient,) = torch.autograd.grad(found.sum(), current)
    for c, r, value, slope in zip(
        *(values.tolist() for values in (current, tokens.reference_logprob, found, gradient)),
        strict=True,
    ):
        ratio = math.exp(r) / math.exp(c)
        assert value == pytest.approx(ratio - math.log(ratio) - 1, rel=1e-9, abs=1e-12)
        assert slope == pytest.approx(1 - ratio, rel=1e-9, abs=1e-12)


def test_k3_of_samples_estimates_the_kl_divergence() -> None:
    earlier, later = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.4, 0.4, 0.2]).double()
    exact = (earlier * (earlier / later).log()).sum()
    torch.testing.assert_close((earlier * k3((later / earlier).log())).sum(), exact)
    samples = reference_divergence(earlier.log(), later.log())
    torch.testing.assert_close((earlier * samples).sum(), exact)


def test_predictor_loss_is_the_squared_error() -> None:
    logits, targets = [0.3, -2.0, 5.0], [1.0, 0.0, 0.25]
    expected = sum((1 / (1 + math.exp(-z)) - y) ** 2 for z, y in zip(logits, targets, strict=True))
    loss = predictor_loss(
        torch.tensor(logits, dtype=torch.float64), torch.tensor(targets, dtype=torch.float64)
    )
    assert loss.item() == pytest.approx(expected, rel=1e-12)
