"""The whole loss of a micro-batch against one loop, and what must not change it."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from megatron_trace.config import Importance, LossConfig, Ratio
from megatron_trace.learning.diagnostics import token_metrics
from megatron_trace.learning.objective import objective
from megatron_trace.learning.tokens import TokenData
from tests.unit.learning.micro_batches import LENGTHS, policy_of, tokens_of

SETTINGS: dict[str, dict[str, Any]] = {
    "trace": {},
    "on the sampler's word": {"importance": Importance.none},
    "masked importance": {"importance": Importance.mask, "importance_floor": 0.5},
    "dual clip": {"dual_clip": 1.4},
    "reference": {"reference_kl": 0.05},
    "entropy": {"entropy_bonus": 0.01},
    "gspo": {"ratio": Ratio.sequence, "clip_low": 0.02, "clip_high": 0.03},
    "at2po": {"ratio": Ratio.turn, "clip_low": 0.003, "clip_high": 0.004},
    "sampo": {"ratio": Ratio.sequence, "clip_high": 0.03, "sequence_mask": 0.1},
    "all": {
        "ratio": Ratio.sequence,
        "sequence_mask": 0.05,
        "dual_clip": 1.1,
        "importance": Importance.mask,
        "importance_floor": 0.4,
        "reference_kl": 0.2,
        "entropy_bonus": 0.3,
    },
}

each_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def inputs(tokens: TokenData) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies, with gradient."""
    entropy = np.random.default_rng(2).random(len(tokens.advantage))
    return policy_of(tokens), torch.from_numpy(entropy).requires_grad_()


def mean_change(current: list[float], old: list[float], group: list[int], t: int) -> float:
    """Mean of log π/π_old over the group of token t."""
    members = [u for u, number in enumerate(group) if number == group[t]]
    return sum(current[u] - old[u] for u in members) / len(members)


def written_out(
    settings: LossConfig, tokens: TokenData, current: list[float], entropy: list[float]
) -> float:
    """The loss by its formulas (docs/optimisation.md), a token at a time."""
    old = current if tokens.old_logprob is None else tokens.old_logprob.tolist()
    sequence, turn, total = tokens.sequence.tolist(), tokens.turn.tolist(), 0.0
    for t, (advantage, weight) in enumerate(
        zip(tokens.advantage.tolist(), tokens.weight.tolist(), strict=True)
    ):
        change = {
            Ratio.token: current[t] - old[t],
            Ratio.turn: mean_change(current, old, turn, t),
            Ratio.sequence: mean_change(current, old, sequence, t),
        }
        drift, ratio = change[Ratio.sequence], math.exp(change[settings.ratio])
        clipped = min(max(ratio, 1 - settings.clip_low), 1 + settings.clip_high)
        surrogate = min(ratio * advantage, clipped * advantage)
        if settings.dual_clip is not None and advantage < 0:
            surrogate = max(surrogate, settings.dual_clip * advantage)
        importance = math.exp(old[t] - tokens.sampler_logprob[t].item())
        if settings.importance is Importance.none:
            importance = 1.0
        elif settings.importance is Importance.truncate:
            importance = min(importance, settings.importance_cap)
        elif not settings.importance_floor <= importance <= settings.importance_cap:
            importance = 0.0
        if settings.sequence_mask is not None and advantage < 0 and -drift > settings.sequence_mask:
            importance = 0.0
        total -= weight * importance * surrogate
        if settings.reference_kl and tokens.reference_logprob is not None:
            x = tokens.reference_logprob[t].item() - current[t]
            total += weight * settings.reference_kl * (math.exp(x) - x - 1)
        total -= weight * settings.entropy_bonus * entropy[t]
    return total


@each_setting
def test_the_loss_is_the_one_written_out(settings: dict[str, Any]) -> None:
    learning, tokens = LossConfig(**settings), tokens_of()
    values = inputs(tokens)
    loss, _ = objective(learning, tokens, *values)
    expected = written_out(learning, tokens, values[0].tolist(), values[1].tolist())
    assert loss.item() == pytest.approx(expected, rel=1e-11)


@each_setting
def test_each_setting_changes_the_loss(settings: dict[str, Any]) -> None:
    tokens = tokens_of()
    default, _ = objective(LossConfig(), tokens, *inputs(tokens))
    for name, value in settings.items():
        others = {key: setting for key, setting in settings.items() if key != name}
        changed, _ = objective(LossConfig(**settings), tokens, *inputs(tokens))
        without, _ = objective(LossConfig(**others), tokens, *inputs(tokens))
        assert changed.item() != without.item(), f"{name}={value} is without effect"
        assert changed.item() != default.item()


TOKENWISE = {name: settings for name, settings in SETTINGS.items() if "ratio" not in settings}


@pytest.mark.parametrize("settings", TOKENWISE.values(), ids=TOKENWISE)
def test_the_gradient_is_the_slope_of_the_loss(settings: dict[str, Any]) -> None:
    learning, tokens = LossConfig(**settings), tokens_of([4, 6], seed=3)
    values = inputs(tokens)
    loss, _ = objective(learning, tokens, *values)
    gradients = torch.autograd.grad(loss, values, allow_unused=True, materialize_grads=True)
    step = 1e-6
    for kind, gradient in enumerate(gradients):
        for t in range(len(gradient)):
            sides = []
            for sign in (1, -1):
                moved = [value.tolist() for value in values]
                moved[kind][t] += sign * step
                sides.append(written_out(learning, tokens, moved[0], moved[1]))
            slope = (sides[0] - sides[1]) / (2 * step)
            assert gradient[t].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("ratio", Ratio)
def test_on_policy_the_gradient_is_the_weighted_advantage(ratio: Ratio) -> None:
    tokens = replace(tokens_of(), old_logprob=None)
    logprob, entropy = inputs(tokens_of())
    loss, _ = objective(LossConfig(ratio=ratio), tokens, logprob, entropy)
    (gradient,) = torch.autograd.grad(loss, logprob)
    importance = (logprob.detach() - tokens.sampler_logprob).exp().clamp(max=2.0)
    torch.testing.assert_close(gradient, -tokens.weight * importance * tokens.advantage)


def test_a_clipped_sequence_stops_learning_as_a_whole() -> None:
    settings = LossConfig(ratio=Ratio.sequence, importance=Importance.none)
    tokens = replace(tokens_of([3, 4]), advantage=torch.ones(7, dtype=torch.float64))
    assert tokens.old_logprob is not None
    # The sequences' means are 0.3 and 0.2.
    gaps = torch.tensor([0.1, 0.9, -0.1, 0.1, 0.6, -0.1, 0.2], dtype=torch.float64)
    logprob = (tokens.old_logprob + gaps).requires_grad_()
    loss, _ = objective(settings, tokens, logprob, inputs(tokens)[1])
    (gradient,) = torch.autograd.grad(loss, logprob)
    assert gradient[:3].tolist() == [0.0] * 3  # exp(0.3) > 1.28
    torch.testing.assert_close(gradient[3:], -math.exp(0.2) * tokens.weight[3:])


def part(tokens: TokenData, numbers: list[int]) -> tuple[TokenData, Tensor]:
    """The micro-batch of some of the rows, and which tokens it holds."""
    chosen = torch.tensor(
        [
            t
            for row in numbers
            for t, number in enumerate(tokens.sequence.tolist())
            if number == row
        ],
        dtype=torch.long,
    )
    place = {row: number for number, row in enumerate(numbers)}
    listed = {
        name: value[chosen]
        for name, value in vars(tokens).items()
        if isinstance(value, Tensor) and name != "target"
    }
    listed["sequence"] = torch.tensor(
        [place[row] for row in listed["sequence"].tolist()], dtype=torch.long
    )
    return replace(tokens, **listed, sequences=len(numbers), target=tokens.target[:0]), chosen


@given(
    st.permutations(range(len(LENGTHS))),
    st.lists(st.integers(0, len(LENGTHS)), max_size=4),
    st.sampled_from(list(SETTINGS)),
)
def test_it_does_not_matter_how_rows_are_dealt_into_micro_batches(
    order: list[int], cuts: list[int], name: str
) -> None:
    learning, tokens = LossConfig(**SETTINGS[name]), tokens_of(anchors=0)
    logprob, entropy = inputs(tokens)
    whole, sums = objective(learning, tokens, logprob, entropy)
    (expected,) = torch.autograd.grad(whole, logprob)
    total, totals = torch.zeros((), dtype=torch.float64), dict.fromkeys(sums, 0.0)
    bounds = [0, *sorted(cuts), len(order)]  # parts may be empty: dummies
    for first, last in pairwise(bounds):
        piece, chosen = part(tokens, order[first:last])
        loss, piece_sums = objective(learning, piece, logprob[chosen], entropy[chosen])
        total = total + loss
        totals = {key: totals[key] + piece_sums[key].item() for key in totals}
    (gradient,) = torch.autograd.grad(total, logprob)
    torch.testing.assert_close(total, whole.detach() + 0 * total)
    torch.testing.assert_close(gradient, expected)
    assert totals == pytest.approx(
        {key: value.item() for key, value in sums.items()}, rel=1e-9, abs=1e-12
    )


@each_setting
def test_a_dummy_has_no_loss_and_a_gradient_of_zeros(settings: dict[str, Any]) -> None:
    empty = tokens_of([], anchors=0)
    for tokens in (empty, replace(empty, old_logprob=None), replace(empty, sequences=1)):
        parameter = torch.ones(3, requires_grad=True)
        nothing = torch.zeros(0, 3) @ parameter
        loss, sums = objective(LossConfig(**settings), tokens, nothing, nothing)
        (gradient,) = torch.autograd.grad(loss, parameter)
        assert loss.item() == 0.0 and gradient.tolist() == [0.0] * 3
        assert all(value.item() == 0.0 for value in sums.values())
        metrics = token_metrics({name: value.item() for name, value in sums.items()}, 0)
        assert all(math.isfinite(value) for value in metrics.values())


def test_an_entropy_bonus_that_would_teach_nothing_is_named() -> None:
    logprob, entropy = inputs(tokens := tokens_of())
    with pytest.raises(ValueError, match=r"learning\.loss\.entropy_bonus"):
        objective(LossConfig(entropy_bonus=0.1), tokens, logprob, entropy.detach())


def test_a_missing_reference_is_named() -> None:
    tokens = replace(tokens_of(), reference_logprob=None)
    with pytest.raises(ValueError, match=r"learning\.loss\.reference_kl"):
        objective(LossConfig(reference_kl=0.1), tokens, *inputs(tokens))
