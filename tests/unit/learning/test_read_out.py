"""What the predictor learns, against scipy's minimum of the formulas in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

from megatron_trace.config import PredictorConfig
from megatron_trace.learning import read_out
from megatron_trace.learning.read_out import ReadOut, balanced, learned, unknown

Floats = NDArray[np.float64]
Anchors = tuple[Tensor, Tensor, Tensor]

HIDDEN = 5
STD, FORGETTING = 8.0, 0.05


def anchors(seed: int, m: int = 40, scale: float = 1.0) -> Anchors:
    """Hidden states, fractions of successes and counts, of m anchors of one true read-out."""
    generator = torch.Generator().manual_seed(seed)
    hidden = scale * (torch.randn(m, HIDDEN, generator=generator) + 0.5)
    truth = torch.linspace(-1.0, 1.0, HIDDEN) / scale
    chance = torch.sigmoid(hidden @ truth - 0.4)
    target = torch.binomial(torch.full((m,), 4.0), chance, generator=generator) / 4.0
    return hidden, target, 0.2 + 2.0 * torch.rand(m, generator=generator)


def start(weights: list[float] | None = None) -> ReadOut:
    """Before the first step, of a head with these weights, the last of them the bias."""
    given = torch.tensor(weights or [0.0] * (HIDDEN + 1))
    return unknown(given[None, :-1], given[-1:])


def learn(known: ReadOut, step: Anchors, forgetting: float = FORGETTING) -> ReadOut:
    return learned(known, *step, PredictorConfig(prior_std=STD, forgetting=forgetting))


def columns(step: Anchors) -> tuple[Floats, Floats, Floats]:
    """x, s and c of a step."""
    hidden, target, count = (tensor.double().numpy() for tensor in step)
    return np.hstack([hidden, np.ones((len(hidden), 1))]), target, count


def information(step: Anchors, weights: Floats, margin: float = 0.0) -> Floats:
    x, _, c = columns(step)
    chance = np.clip(expit(x @ weights), margin, 1.0 - margin)
    return np.einsum("i,ij,ik->jk", c * chance * (1 - chance), x, x)


def most_likely(step: Anchors, mean: Floats, precision: Floats) -> tuple[Floats, float]:
    """Where the first formula of the module is least, and its value there."""
    x, s, c = columns(step)

    def loss(w: Floats) -> float:
        off, z = w - mean, x @ w
        return 0.5 * off @ precision @ off + c @ (np.logaddexp(0.0, z) - s * z)

    found = minimize(
        loss,
        mean,
        jac=lambda w: precision @ (w - mean) + x.T @ (c * (expit(x @ w) - s)),
        hess=lambda w: precision + information(step, w),
        method="trust-exact",
        options={"gtol": 1e-12 * (1.0 + np.abs(precision).max()), "maxiter": 1000},
    )
    return found.x, found.fun


def reference(
    known: tuple[Floats, Floats, Floats] | Floats, step: Anchors, forgetting: float
) -> tuple[Floats, Floats, Floats]:
    """Mean, precision and floor after a step; `known` is those before it, or a head's weights."""
    if isinstance(known, tuple):
        mean, precision, floor = known
    else:
        square = np.mean(columns(step)[0][:, :-1] ** 2, axis=0)
        square = np.maximum(square, max(1e-3 * square.mean(), 1e-12))
        mean, floor = known, np.append(HIDDEN * square, 1.0) / STD**2
        precision = np.diag(floor)
        if mean.any():
            precision = precision + 10.0 * information(step, mean, margin=0.05)
    found, _ = most_likely(step, mean, precision)
    precision = precision + information(step, found)
    return found, (1 - forgetting) * precision + forgetting * np.diag(floor), floor


def assert_close(known: ReadOut, right: tuple[Floats, Floats, Floats], close: float = 1e-5) -> None:
    for tensor, value in zip(known, right, strict=True):
        assert tensor.dtype == torch.float64
        scale = np.abs(value).max()
        np.testing.assert_allclose(tensor.numpy(), value, rtol=close, atol=close * scale)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    m=st.integers(1, 60),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    taught=st.booleans(),
    forgetting=st.sampled_from([0.0, 0.05, 0.9]),
)
def test_several_steps_are_those_of_the_formulas(
    seed: int, m: int, scale: float, taught: bool, forgetting: float
) -> None:
    weights = [0.5 / scale, 0.0, -0.3 / scale, 0.2 / scale, 0.0, 0.7] if taught else None
    known = start(weights)
    right: tuple[Floats, Floats, Floats] | Floats = known.mean.numpy()
    for number in range(3):
        step = anchors(seed + number, m, scale)
        known = learn(known, step, forgetting)
        right = reference(right, step, forgetting)
        assert_close(known, right, close=1e-4)


@pytest.mark.parametrize("m", [1, 20, 400])
def test_the_loss_is_the_least_to_nine_digits(m: int) -> None:
    step, zero = anchors(0, m), np.zeros(HIDDEN + 1)
    found, _, floor = (tensor.numpy() for tensor in learn(start(), step))
    _, value = most_likely(step, zero, np.diag(floor))
    x, s, c = columns(step)
    z = x @ found
    loss = 0.5 * found @ (floor * found) + c @ (np.logaddexp(0.0, z) - s * z)
    assert loss <= value + 1e-9 * (1.0 + abs(value))


def test_what_was_learned_before_is_not_lost() -> None:
    """Two steps tell nearly as much as both of them at once."""
    one, other = anchors(1, m=400), anchors(2, m=400)
    both = tuple(torch.cat(parts) for parts in zip(one, other, strict=True))
    first = learn(start(), one, forgetting=0.0)
    after = learn(first, other, forgetting=0.0)
    together = learn(start(), both, forgetting=0.0)
    gap = (after.mean - together.mean).norm()
    assert gap < 0.1 * (first.mean - together.mean).norm()
    assert gap < 0.02 * together.mean.norm()
    torch.testing.assert_close(after.precision, together.precision, rtol=0.05, atol=1.0)


@pytest.mark.parametrize("forgetting", [0.0, 0.05, 0.5])
def test_a_share_of_the_precision_is_forgotten_and_nothing_of_the_mean(forgetting: float) -> None:
    first = learn(start(), anchors(3))
    kept, all_of_it = learn(first, anchors(4), forgetting), learn(first, anchors(4), 0.0)
    right = (1.0 - forgetting) * all_of_it.precision + forgetting * torch.diag(first.floor)
    assert torch.equal(kept.precision, right)
    assert torch.equal(kept.mean, all_of_it.mean)
    assert torch.equal(kept.floor, first.floor)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0])
def test_before_anything_is_learned_a_logit_has_the_set_deviation(scale: float) -> None:
    one, other = anchors(5, m=4000, scale=scale), anchors(6, scale=3.0)
    known = learn(start(), one)
    variance = (one[0].double().square() / known.floor[:-1]).sum(1).mean()
    assert variance.sqrt().item() == pytest.approx(STD)
    assert known.floor[-1] ** -0.5 == pytest.approx(STD)
    assert torch.equal(learn(known, other).floor, known.floor)


@pytest.mark.parametrize("copies", [2, 16])
def test_a_wider_policy_that_says_the_same_predicts_the_same(copies: int) -> None:
    hidden, target, count = anchors(7, m=20)
    empty = unknown(torch.zeros(1, HIDDEN), torch.zeros(1))
    wide = unknown(torch.zeros(1, copies * HIDDEN), torch.zeros(1))
    settings_ = PredictorConfig(prior_std=STD)
    narrow = learned(empty, hidden, target, count, settings_)
    known = learned(wide, hidden.repeat(1, copies), target, count, settings_)
    logits = hidden.double() @ narrow.mean[:-1] + narrow.mean[-1]
    others = hidden.repeat(1, copies).double() @ known.mean[:-1] + known.mean[-1]
    torch.testing.assert_close(others, logits, rtol=1e-5, atol=1e-5)


def test_a_hidden_number_that_is_0_at_first_gets_no_huge_weight_later() -> None:
    hidden, target, count = anchors(18)
    hidden[:, 2] = 0.0
    first = learn(start(), (hidden, target, count))
    again = hidden.clone()
    again[0, 2] = 1e-3
    assert learn(first, (again, target, count)).mean[2].abs() < 1.0


def test_a_head_that_is_certain_is_not_taken_for_one_that_knows_nothing() -> None:
    hidden, _, count = anchors(19)
    weights = [60.0, -60.0, 60.0, 60.0, -60.0, 0.0]
    logits = hidden @ torch.tensor(weights[:-1])
    after = learn(start(weights), (hidden, torch.sigmoid(logits).round(), count)).mean
    torch.testing.assert_close(after, start(weights).mean, rtol=0.05, atol=1.0)
    against = learn(start(weights), (hidden, 1 - torch.sigmoid(logits).round(), count)).mean
    assert against.norm() > 0.5 * start(weights).mean.norm()


@pytest.mark.parametrize("width", [1e-3, 1.0, 1e3])
def test_anchors_that_can_be_told_apart_give_finite_weights(width: float) -> None:
    hidden = width * anchors(8)[0]
    target = (hidden[:, 0] > 0).float()
    known = start()
    for _ in range(30):
        known = learn(known, (hidden, target, torch.ones(40)), forgetting=0.2)
        logits = hidden.double() @ known.mean[:-1] + known.mean[-1]
        assert all(tensor.isfinite().all() for tensor in known)
        assert ((logits > 0) == (target > 0.5)).double().mean() > 0.9
        assert logits.abs().max() < 100.0
        torch.linalg.cholesky(known.precision)


@pytest.mark.parametrize("dead", ["a hidden number", "everything"])
def test_hidden_states_that_are_0_do_no_harm(dead: str) -> None:
    hidden, target, count = anchors(9)
    hidden[:, 2 if dead == "a hidden number" else slice(None)] = 0.0
    known = learn(learn(start(), (hidden, target, count)), (hidden, target, count))
    assert known.mean[2] == 0.0
    assert all(tensor.isfinite().all() for tensor in known)
    # All that is left is the bias.
    if dead == "everything":
        mean = float((count * target).sum() / count.sum())
        assert torch.sigmoid(known.mean[-1]).item() == pytest.approx(mean, abs=0.01)


def test_a_count_is_so_many_anchors() -> None:
    hidden, target, _ = anchors(10, m=20)
    count = torch.tensor([1.0, 3.0] * 10)
    times = count.long()
    first = learn(start(), anchors(11))
    counted = learn(first, (hidden, target, count))
    repeated = learn(
        first,
        (hidden.repeat_interleave(times, 0), target.repeat_interleave(times), torch.ones(40)),
    )
    torch.testing.assert_close(counted.mean, repeated.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(counted.precision, repeated.precision, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(range(24)), taught=st.booleans())
def test_the_order_of_the_anchors_does_not_matter(order: list[int], taught: bool) -> None:
    step = anchors(12, m=24)
    before = start([0.3] * (HIDDEN + 1) if taught else None)
    one, other = learn(before, step), learn(before, tuple(part[order] for part in step))
    for found, again in zip(one, other, strict=True):
        torch.testing.assert_close(again, found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_chunks_do_not_matter(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = [start([0.2] * (HIDDEN + 1))]
    right += [learn(right[0], anchors(13))]
    right += [learn(right[1], anchors(14))]
    monkeypatch.setattr(read_out, "CHUNK", chunk)
    for number in (0, 1):
        found = learn(right[number], anchors(13 + number))
        for tensor, value in zip(found, right[number + 1], strict=True):
            torch.testing.assert_close(tensor, value, rtol=1e-9, atol=1e-9)


def test_a_head_that_comes_with_the_policy_is_hard_to_change_from_the_first_step_on() -> None:
    """It counts as learned from ten steps like the first: one that contradicts it moves it less
    than a head that knows nothing, and another ten times as long.
    """
    hidden, _, count = anchors(15)
    weights = torch.tensor([0.5, -0.4, 0.3, 0.6, -0.5, 0.2])
    against = torch.sigmoid(-(hidden @ weights[:-1] + weights[-1]))
    taught, naive = start(weights.tolist()), start()
    moved = (learn(taught, (hidden, against, count)).mean - taught.mean).norm()
    freely = (learn(naive, (hidden, against, count)).mean - naive.mean).norm()
    assert 0.0 < moved < 0.5 * freely
    # Newton's first step, for a small contradiction: an eleventh of the way, less the ridge's part.
    near = torch.sigmoid(hidden @ (1.01 * weights[:-1]) + 1.01 * weights[-1])
    way = learn(taught, (hidden, near, count)).mean - taught.mean
    right = 0.01 * weights.double() / 11.0
    assert (way - right).norm() < 0.2 * right.norm()


def test_of_a_heads_weights_nothing_is_known_before_a_step() -> None:
    weight, bias = torch.randn(1, HIDDEN), torch.randn(1)
    known = unknown(weight, bias)
    assert known.mean.tolist() == [*weight[0].tolist(), bias.item()]
    assert known.precision.shape == (HIDDEN + 1, HIDDEN + 1)
    assert not known.precision.any() and not known.floor.any()
    assert {tensor.dtype for tensor in known} == {torch.float64}


def test_arguments_stay_as_they_were() -> None:
    known, step = learn(start(), anchors(16)), anchors(17)
    before = [tensor.clone() for tensor in (*known, *step)]
    learn(known, step)
    assert all(map(torch.equal, (*known, *step), before))


@given(root=st.lists(st.booleans(), min_size=1, max_size=50), rollouts=st.integers(1, 500))
def test_roots_and_prefixes_count_as_the_rollouts_each(root: list[bool], rollouts: int) -> None:
    chosen = torch.tensor(root)
    count = balanced(chosen, rollouts)
    for kind in (count[chosen], count[~chosen]):
        assert kind.sum().item() == pytest.approx(rollouts if len(kind) else 0.0)
        assert len(set(kind.tolist())) <= 1
