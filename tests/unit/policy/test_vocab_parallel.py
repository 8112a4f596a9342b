"""Log-probability and entropy of a padded vocabulary against log_softmax."""

import pytest
import torch

from megatron_trace.policy.vocab_parallel import vocab_parallel_logprob


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("real", [10, 16])
def test_logprob_entropy_and_gradient_are_those_of_log_softmax(temperature: float, real: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 16, requires_grad=True)
    target, upstream = torch.randint(0, real, (6,)), torch.randn(6)
    logprob, entropy = vocab_parallel_logprob(
        logits, target, temperature=temperature, start=0, vocabulary=real
    )
    (gradient,) = torch.autograd.grad((logprob * upstream).sum(), logits)

    reference = (logits[:, :real] / temperature).log_softmax(-1)
    picked = reference.gather(1, target[:, None]).squeeze(1)
    (expected,) = torch.autograd.grad((picked * upstream).sum(), logits)
    torch.testing.assert_close(logprob, picked)
    torch.testing.assert_close(entropy, -(reference.exp() * reference).sum(-1))
    torch.testing.assert_close(gradient, expected)
    assert not entropy.requires_grad


def test_no_tokens_give_no_logprobs() -> None:
    logits = torch.zeros(0, 8, requires_grad=True)
    logprob, _ = vocab_parallel_logprob(
        logits, torch.zeros(0, dtype=torch.long), temperature=1.0, start=0, vocabulary=8
    )
    logprob.sum().backward()
    assert logprob.shape == (0,)
