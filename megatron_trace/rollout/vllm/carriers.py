"""Two carriers, tokens that only the sampler has, bring the predictor's logit and the entropy.

An inference engine returns log-probabilities of tokens, so that is how both travel. For a
vocabulary of V tokens, `with_carriers` appends two logits to each row:

    logit[V] = base - 60 T,    logit[V + 1] = logit[V] + T * predictor's logit

T is the temperature of sampling. The base is the row's maximum or, if entropies are needed, the
mean logit under the policy. Neither carrier has probability mass: at most e^-40 of the likeliest
token's. So none is ever sampled, and the log-probabilities of the V tokens stay what they were.

The sampler divides by T. So the predictor's logit is the difference of the carriers'
log-probabilities. With p the softmax of logits / T and Z its denominator, the first of them is

    log p[V] = (sum_v p_v logit_v) / T - 60 - log Z = -H - 60
    as H = -sum_v p_v (logit_v / T - log Z)

Greedy sampling (T = 0) does not scale the logits; there T counts as 1.
"""

import math
from collections.abc import Sequence

import torch

CARRIERS = 2
"""Tokens that the sampler has beside the model's."""

GAP = 60.0
"""How far, in logits divided by the temperature, the first carrier lies below the base."""

LARGEST_LOGIT = 20.0
"""The predictor's logit is clamped to this size, so that its carrier never gets probability mass."""

CHUNK_ELEMENTS = 1 << 24
"""Logits of which the mean is taken at once: 64 MiB in float32."""


def with_carriers(
    logits: torch.Tensor, predicted: torch.Tensor, temperature: float, *, entropies: bool
) -> torch.Tensor:
    """The logits and, after them, those of the two carriers.

    Args:
        logits: of the model's vocabulary [tokens, V].
        predicted: the predictor's logits [tokens].
        temperature: that of sampling.
        entropies: whether the first carrier brings the entropy.

    Returns:
        float32 [tokens, V + 2].
    """
    tokens, vocabulary = logits.shape
    # Float32, as bfloat16 could not resolve the predictor's logit 60 below the base.
    whole = logits.new_empty(tokens, vocabulary + CARRIERS, dtype=torch.float32)
    real = whole[:, :vocabulary].copy_(logits)
    base = mean_logit(real, temperature) if entropies else real.amax(dim=-1)
    unit = temperature or 1.0
    first = base - GAP * unit
    whole[:, vocabulary] = first
    whole[:, vocabulary + 1] = first + unit * predicted.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
    return whole


def mean_logit(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """sum_v softmax(logits / temperature)_v logits_v: [tokens, vocabulary] -> [tokens]."""
    # Some rows at a time: the probabilities of a whole batch would take as much memory as its
    # logits, which the engine has not set aside.
    rows_at_once = max(1, CHUNK_ELEMENTS // logits.shape[1])
    means = []
    for rows in logits.split(rows_at_once):
        scaled = rows if temperature in (0.0, 1.0) else rows / temperature
        means.append(scaled.softmax(dim=-1).mul_(rows).sum(dim=-1))
    return torch.cat(means)


def read_prediction(first: float, second: float) -> float:
    """Success probability from the carriers' log-probabilities at a turn's first token."""
    return 1.0 / (1.0 + math.exp(first - second))


def read_entropies(first: Sequence[float]) -> list[float]:
    """Entropy, in nats, at every token, from the first carrier's log-probabilities."""
    # Rounding may give a value just below 0.
    return [max(0.0, -GAP - logprob) for logprob in first]
