"""Log-probability and entropy of a padded vocabulary against log_softmax."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from megatron_trace.policy import vocab_parallel
from megatron_trace.policy.vocab_parallel import vocab_parallel_logprob


def reference(
    logits: Tensor, target: Tensor, temperature: float, real: int
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies by log_softmax over the real part of the vocabulary."""
    logprobs = (logits[:, :real] / temperature).log_softmax(-1)
    return logprobs.gather(1, target[:, None]).squeeze(1), -(logprobs.exp() * logprobs).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("real", [10, 16])
def test_logprob_entropy_and_gradient_are_those_of_log_softmax(
    temperature: float, real: int
) -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 16, requires_grad=True)
    target, upstream = torch.randint(0, real, (6,)), torch.randn(6)
    logprob, entropy = vocab_parallel_logprob(
        logits, target, temperature=temperature, start=0, vocabulary=real
    )
    (gradient,) = torch.autograd.grad((logprob * upstream).sum(), logits)

    picked, exact = reference(logits, target, temperature, real)
    (expected,) = torch.autograd.grad((picked * upstream).sum(), logits)
    torch.testing.assert_close(logprob, picked)
    torch.testing.assert_close(entropy, exact)
    torch.testing.assert_close(gradient, expected)
    assert not entropy.requires_grad


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("real", [10, 16])
def test_the_entropy_s_gradient_adds_to_the_log_probability_s(
    temperature: float, real: int
) -> None:
    torch.manual_seed(0)
    logits = (3 * torch.randn(6, 16)).requires_grad_()
    target, up_logprob, up_entropy = torch.randint(0, real, (6,)), torch.randn(6), torch.randn(6)
    found = vocab_parallel_logprob(
        logits,
        target,
        temperature=temperature,
        start=0,
        vocabulary=real,
        with_entropy_gradient=True,
    )
    exact = reference(logits.double(), target, temperature, real)
    for upstream in (
        (up_logprob, up_entropy),
        (0 * up_logprob, up_entropy),
        (up_logprob, 0 * up_entropy),
    ):
        (gradient,) = torch.autograd.grad(found, logits, upstream, retain_graph=True)
        doubles = [values.double() for values in upstream]
        (expected,) = torch.autograd.grad(exact, logits, doubles, retain_graph=True)
        torch.testing.assert_close(gradient, expected)


def test_a_distribution_without_doubt_has_finite_gradients() -> None:
    logits = torch.tensor([[0.0, 300.0, -300.0]], requires_grad=True)
    found = vocab_parallel_logprob(
        logits,
        torch.tensor([1]),
        temperature=1.0,
        start=0,
        vocabulary=3,
        with_entropy_gradient=True,
    )
    (gradient,) = torch.autograd.grad(found, logits, [torch.ones(1), torch.ones(1)])
    assert gradient.tolist() == [[0.0, 0.0, 0.0]]


class Meeting:
    """Two threads in place of two tensor-parallel ranks, and their reductions."""

    def __init__(self, ranks: int) -> None:
        self.barrier = threading.Barrier(ranks, timeout=30)
        self.values: list[Tensor] = [torch.zeros(0)] * ranks

    def reduce(self, values: Tensor, rank: int, operation: Any) -> None:
        """As all_reduce."""
        self.values[rank] = values.clone()
        self.barrier.wait()
        together = torch.stack(self.values)
        self.barrier.wait()
        values.copy_(together.amax(0) if operation is distributed.ReduceOp.MAX else together.sum(0))


@pytest.mark.parametrize("real", [5, 8, 13, 16])
def test_every_rank_has_the_gradient_of_its_own_slice(
    real: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    whole, target = torch.randn(6, 16, requires_grad=True), torch.randint(0, real, (6,))
    upstream = (torch.randn(6), torch.randn(6))
    exact = reference(whole, target, 0.7, real)
    (expected,) = torch.autograd.grad(exact, whole, upstream)

    meeting = Meeting(2)
    monkeypatch.setattr(vocab_parallel, "_reduce", meeting.reduce)
    monkeypatch.setattr(vocab_parallel, "CHUNK", 4)
    results: dict[int, tuple[tuple[Tensor, Tensor], Tensor]] = {}

    def compute(rank: int) -> None:
        own = whole.detach()[:, 8 * rank : 8 * rank + 8].clone().requires_grad_()
        found = vocab_parallel_logprob(
            own,
            target,
            temperature=0.7,
            start=8 * rank,
            vocabulary=real,
            group=rank,
            with_entropy_gradient=True,
        )
        results[rank] = found, torch.autograd.grad(found, own, upstream)[0]

    ranks = [threading.Thread(target=compute, args=(rank,)) for rank in range(2)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join()
    for rank in range(2):
        values, gradient = results[rank]
        for value, known in zip(values, exact, strict=True):
            torch.testing.assert_close(value, known)
        torch.testing.assert_close(gradient, expected[:, 8 * rank : 8 * rank + 8])


def test_no_tokens_give_no_logprobs() -> None:
    for with_entropy_gradient in (False, True):
        logits = torch.zeros(0, 8, requires_grad=True)
        logprob, entropy = vocab_parallel_logprob(
            logits,
            torch.zeros(0, dtype=torch.long),
            temperature=1.0,
            start=0,
            vocabulary=8,
            with_entropy_gradient=with_entropy_gradient,
        )
        (logprob.sum() + entropy.sum()).backward()
        assert logprob.shape == (0,)
