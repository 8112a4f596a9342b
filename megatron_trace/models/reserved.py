"""Two reserved tokens, the last rows of the vocabulary, carry the predictor's logit and the entropy through vLLM.

vLLM returns log-probabilities of tokens, so what else is to come back travels as such:

    logit[-2] = base - 60,    logit[-1] = logit[-2] + predictor's logit

with the row's maximum as base or, where entropies are needed, the mean logit under the policy. Neither token carries
probability mass, so the sampled token and its log-probability stay what they were. The predictor's logit is the two
log-probabilities' difference. At temperature T, p the softmax of logits / T and Z its denominator, the first is

    log p[-2] = (sum_v p_v logit_v - 60) / T - log Z = -H - 60 / T,    as    H = -sum_v p_v (logit_v / T - log Z)

Greedy sampling (T = 0) does not scale the logits; there T counts as 1.
"""

import math
from collections.abc import Sequence

import torch

RESERVED_ROWS = 2
"""The last rows of the vocabulary, which the policy gives no probability mass."""

GAP = 60.0
"""How far, in logits, the reserved tokens lie below the base."""

LARGEST_LOGIT = 20.0
"""The predictor's logit is clamped to this size, so that it cannot reach up to tokens that matter."""

CHUNK_ELEMENTS = 1 << 24
"""Logits of which the mean is taken at once: 64 MiB in float32."""


def write_reserved(
    logits: torch.Tensor, predicted: torch.Tensor, temperature: float | None = None
) -> None:
    """Fill the reserved rows, in place.

    Args:
        logits: float32 [tokens, vocabulary]; bfloat16 could not resolve a difference 60 below the base.
        predicted: the predictor's logits [tokens].
        temperature: that of sampling, where entropies are needed; else None.
    """
    real = logits[:, :-2]
    base = real.amax(dim=-1) if temperature is None else mean_logit(real, temperature)
    logits[:, -2] = base - GAP
    logits[:, -1] = logits[:, -2] + predicted.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)


def mean_logit(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """sum_v softmax(logits / temperature)_v logits_v: [tokens, vocabulary] -> [tokens], some rows at a time."""
    means = [
        (rows if temperature in (0.0, 1.0) else rows / temperature)
        .softmax(dim=-1)
        .mul_(rows)
        .sum(dim=-1)
        for rows in logits.split(max(1, CHUNK_ELEMENTS // logits.shape[1]))
    ]
    return torch.cat(means)


def read_prediction(first: float, second: float, temperature: float) -> float:
    """Success probability from the reserved tokens' log-probabilities at a turn's first token."""
    logit = (second - first) * (temperature or 1.0)
    return 1.0 / (1.0 + math.exp(-logit))


def read_entropies(first: Sequence[float], temperature: float) -> list[float]:
    """Entropy, in nats, at every token, from the first reserved token's log-probabilities."""
    gap = GAP / (temperature or 1.0)
    return [max(0.0, -gap - logprob) for logprob in first]
