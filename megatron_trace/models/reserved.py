"""Two reserved tokens, the last rows of the vocabulary, carry the predictor's logit and the
entropy.

An inference engine returns log-probabilities of tokens, so that is how both travel:

    logit[-2] = base - 60,    logit[-1] = logit[-2] + predictor's logit

The base is the row's maximum or, if entropies are needed, the mean logit under the policy. Neither
token carries probability mass, so the sampled token and its log-probability stay what they were.
The predictor's logit is the difference of the two log-probabilities. At temperature T, with p the
softmax of logits / T and Z its denominator, the first is

    log p[-2] = (sum_v p_v logit_v - 60) / T - log Z = -H - 60 / T
    as H = -sum_v p_v (logit_v / T - log Z)

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
"""The predictor's logit is clamped to this size, so that its token never gets probability mass."""

CHUNK_ELEMENTS = 1 << 24
"""Logits of which the mean is taken at once: 64 MiB in float32."""


def write_reserved(
    logits: torch.Tensor, predicted: torch.Tensor, temperature: float | None = None
) -> None:
    """Fill the reserved rows, in place.

    Args:
        logits: float32 [tokens, vocabulary].
        predicted: the predictor's logits [tokens].
        temperature: that of sampling, if entropies are needed; else None.
    """
    # Float32, as bfloat16 could not resolve the predictor's logit 60 below the base.
    real = logits[:, :-RESERVED_ROWS]
    base = real.amax(dim=-1) if temperature is None else mean_logit(real, temperature)
    logits[:, -2] = base - GAP
    logits[:, -1] = logits[:, -2] + predicted.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)


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


def read_prediction(first: float, second: float, temperature: float) -> float:
    """Success probability from the reserved tokens' log-probabilities at a turn's first token."""
    logit = (second - first) * (temperature or 1.0)
    return 1.0 / (1.0 + math.exp(-logit))


def read_entropies(first: Sequence[float], temperature: float) -> list[float]:
    """Entropy, in nats, at every token, from the first reserved token's log-probabilities."""
    gap = GAP / (temperature or 1.0)
    # Rounding may give a value just below 0.
    return [max(0.0, -gap - logprob) for logprob in first]
