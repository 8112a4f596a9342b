"""Micro-batches of made-up numbers for tests, in float64."""

import numpy as np
import torch
from torch import Tensor

from megatron_trace.learning.tokens import TokenData

LENGTHS = [5, 1, 40, 17, 0, 9]
"""Learned tokens of the rows; one row learns nothing."""

TURN = 7
"""Learned tokens of a turn; a row's last has the rest."""


def tokens_of(lengths: list[int] = LENGTHS, seed: int = 0, anchors: int = 7) -> TokenData:
    """Tokens whose old policy is near the sampler and far enough from it that every bound is
    crossed.
    """
    random = np.random.default_rng(seed)
    count = sum(lengths)
    old = -random.exponential(2.0, count)
    columns = {
        "advantage": random.normal(0, 1, count) * (random.random(count) < 0.9),
        "sampler_logprob": old + random.normal(0, 0.6, count),
        "old_logprob": old,
        "reference_logprob": old + random.normal(0, 0.5, count),
        "weight": np.repeat(random.random(len(lengths)), lengths),
        "target": random.random(anchors),
    }
    sizes = [min(TURN, length - start) for length in lengths for start in range(0, length, TURN)]
    return TokenData(
        **{name: torch.from_numpy(values) for name, values in columns.items()},
        sequence=torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)),
        sequences=len(lengths),
        turn=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.long)),
        turns=len(sizes),
    )


def policy_of(tokens: TokenData, seed: int = 1) -> Tensor:
    """Log-probabilities of an updated policy [n], with gradient; rows have become likelier, stayed
    or become rarer.
    """
    random = np.random.default_rng(seed)
    assert tokens.old_logprob is not None
    noise = random.normal(0, 0.3, len(tokens.advantage))
    drift = np.array([0.3, 0.0, -0.3])[tokens.sequence.numpy() % 3]
    return (tokens.old_logprob + torch.from_numpy(noise + drift)).requires_grad_()
