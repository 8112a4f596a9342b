"""Ratios between policies against loops written out in float64."""

import math

import pytest
import torch
from torch import Tensor

from megatron_trace.learning.ratios import (
    drifted,
    group_mean,
    log_ratio,
    masked_importance,
    mean_ratio,
    token_ratio,
    truncated_importance,
)
from megatron_trace.learning.tokens import TokenData
from tests.unit.learning.micro_batches import LENGTHS, policy_of, tokens_of


@pytest.fixture
def tokens() -> TokenData:
    return tokens_of()


@pytest.fixture
def old(tokens: TokenData) -> Tensor:
    assert tokens.old_logprob is not None
    return tokens.old_logprob


def per_sequence(values: Tensor) -> list[list[float]]:
    """The values of every sequence."""
    numbers, start, parts = values.tolist(), 0, []
    for length in LENGTHS:
        parts.append(numbers[start : start + length])
        start += length
    return parts


def close(found: Tensor, expected: list[float]) -> None:
    assert found.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_a_broken_log_ratio_stays_finite() -> None:
    far = torch.tensor([0.0, -1000.0])
    assert log_ratio(far, far.flip(0)).exp().isfinite().all()


def test_the_mean_of_a_sequence_reaches_all_its_tokens(tokens: TokenData, old: Tensor) -> None:
    expected = [sum(part) / len(part) for part in per_sequence(old) for _ in part]
    close(group_mean(old, tokens.sequence, tokens.sequences), expected)


def test_token_ratio_is_that_of_the_probabilities(tokens: TokenData, old: Tensor) -> None:
    current = policy_of(tokens)
    expected = [
        math.exp(c) / math.exp(o) for c, o in zip(current.tolist(), old.tolist(), strict=True)
    ]
    close(token_ratio(current, old), expected)


def geometric_means(current: Tensor, old: Tensor, group: Tensor) -> list[float]:
    """(π(y)/π_old(y))^(1/|y|) of every token's group y."""
    new, before, found = current.tolist(), old.tolist(), []
    for number in group.tolist():
        members = [t for t, other in enumerate(group.tolist()) if other == number]
        product = math.prod(math.exp(new[t]) / math.exp(before[t]) for t in members)
        found.append(product ** (1 / len(members)))
    return found


@pytest.mark.parametrize("of", ["sequence", "turn"])
def test_mean_ratio_is_the_geometric_mean_with_each_token_s_own_gradient(
    of: str, tokens: TokenData, old: Tensor
) -> None:
    current, group = policy_of(tokens), getattr(tokens, of)
    ratio = mean_ratio(current, old, group, getattr(tokens, of + "s"))
    expected = geometric_means(current, old, group)
    close(ratio, expected)
    upstream = torch.randn_like(ratio)
    (gradient,) = torch.autograd.grad(ratio, current, upstream)
    # s_t = sg[s]·π/sg[π]: only token t moves it, by s.
    close(gradient, [s * u for s, u in zip(expected, upstream.tolist(), strict=True)])


def test_with_one_advantage_a_sequence_the_gradient_is_that_of_the_geometric_mean_itself(
    tokens: TokenData, old: Tensor
) -> None:
    current = policy_of(tokens)
    advantage = torch.randn(tokens.sequences, dtype=torch.float64)
    ratio = mean_ratio(current, old, tokens.sequence, tokens.sequences)
    share = torch.tensor(
        [1 / length for length in LENGTHS for _ in range(length)], dtype=torch.float64
    )
    (gradient,) = torch.autograd.grad((share * ratio * advantage[tokens.sequence]).sum(), current)
    sums = torch.zeros(tokens.sequences, dtype=torch.float64).index_add(
        0, tokens.sequence, current - old
    )
    lengths = torch.tensor(LENGTHS).clamp(min=1)
    (expected,) = torch.autograd.grad(((sums / lengths).exp() * advantage).sum(), current)
    torch.testing.assert_close(gradient, expected)


def test_importance_weights_are_truncated_or_masked(tokens: TokenData, old: Tensor) -> None:
    weights = [
        math.exp(o - s) for o, s in zip(old.tolist(), tokens.sampler_logprob.tolist(), strict=True)
    ]
    assert min(weights) < 0.5 and max(weights) > 2.0
    close(
        truncated_importance(old, tokens.sampler_logprob, 2.0),
        [min(weight, 2.0) for weight in weights],
    )
    kept = [weight if 0.5 <= weight <= 2.0 else 0.0 for weight in weights]
    close(masked_importance(old, tokens.sampler_logprob, 0.5, 2.0), kept)


def test_importance_weights_carry_no_gradient(tokens: TokenData) -> None:
    current = policy_of(tokens)
    assert not truncated_importance(current, tokens.sampler_logprob, 2.0).requires_grad
    assert not masked_importance(current, tokens.sampler_logprob, 0.5, 2.0).requires_grad


def test_only_negative_advantages_of_drifted_sequences_are_left_out(
    tokens: TokenData, old: Tensor
) -> None:
    current, threshold = policy_of(tokens), 0.1
    expected = []
    parts = zip(*map(per_sequence, (current, old, tokens.advantage)), strict=True)
    for new, before, advantages in parts:
        gaps = [o - c for c, o in zip(new, before, strict=True)]
        expected += [a < 0 and sum(gaps) / len(gaps) > threshold for a in advantages]
    assert 0 < sum(expected) < sum(a < 0 for a in tokens.advantage.tolist())
    found = drifted(current, old, tokens.advantage, tokens.sequence, tokens.sequences, threshold)
    assert found.tolist() == expected and not found.requires_grad


def test_without_tokens_there_are_no_ratios() -> None:
    none = torch.zeros(0)
    for sequences in (0, 1):
        assert mean_ratio(none, none, none.long(), sequences).shape == (0,)
        assert drifted(none, none, none, none.long(), sequences, 0.1).shape == (0,)
