"""Ratios between policies, and what is left out because of them: pure functions of per-token tensors.

Three policies meet: the *sampler* drew the tokens, *old* is the trainer before its first update on them, and
*current* is being updated. Sampler and old differ by arithmetic (vLLM, Megatron) and staleness, old and current by
the updates between them.

All tensors speak of the n learned tokens of a micro-batch, [n]; `sequence` [n] numbers the sequence of each, out of
`sequences`. A sequence is what one rollout sampled itself; a group is a sequence or a turn of one.
"""

import torch
from torch import Tensor

# exp() of a log-ratio beyond this says "broken", whatever its value; bounding it keeps the metrics finite.
LARGEST_LOG_RATIO = 20.0


def log_ratio(later: Tensor, earlier: Tensor) -> Tensor:
    """`later - earlier` log-probabilities [n], bounded to ±20 so that its exponential stays finite."""
    return (later - earlier).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)


def group_mean(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """For every token the mean of `values` over its group, a sequence or a turn [n]."""
    total = values.new_zeros(groups).index_add(0, group, values)
    count = values.new_zeros(groups).index_add(0, group, torch.ones_like(values))
    return (total / count.clamp(min=1.0))[group]


def token_ratio(current: Tensor, old: Tensor) -> Tensor:
    """ρ_t = π(t) / π_old(t) of every token [n], with the gradient of `current`."""
    return log_ratio(current, old).exp()


def mean_ratio(current: Tensor, old: Tensor, group: Tensor, groups: int) -> Tensor:
    """s = exp(mean over the group of log π/π_old), given to each of its tokens [n].

    Over sequences it is GSPO (arXiv 2507.18071) in the form with an advantage for each token, eq. 13 and 14:
    s_t = sg[s]·π(t)/sg[π(t)] has the value of the sequence and the gradient of the token. Where a sequence's advantages
    are equal the gradient is that of s itself (eq. 5 and 7). Over turns, of which each has one advantage, it is the
    ratio of AT²PO (arXiv 2601.04767).
    """
    mean = group_mean(log_ratio(current, old).detach(), group, groups)
    return (mean + current - current.detach()).exp()


def truncated_importance(old: Tensor, sampler: Tensor, cap: float) -> Tensor:
    """Weights min(π_old/π_sampler, cap) [n], without gradient (truncated importance sampling)."""
    return log_ratio(old, sampler).exp().clamp(max=cap).detach()


def masked_importance(old: Tensor, sampler: Tensor, floor: float, cap: float) -> Tensor:
    """Weights π_old/π_sampler [n] where within [floor, cap] and 0 elsewhere, without gradient.

    The mask of IcePop (arXiv 2510.18855), which drops tokens on which trainer and sampler disagree.
    """
    weight = log_ratio(old, sampler).exp().detach()
    return torch.where((weight >= floor) & (weight <= cap), weight, 0.0)


def drifted(
    current: Tensor,
    old: Tensor,
    advantage: Tensor,
    sequence: Tensor,
    sequences: int,
    threshold: float,
) -> Tensor:
    """Tokens that sequence masking leaves out, bool [n]: those with A < 0 in sequences that have drifted.

    Drifted is where mean(log π_old − log π) over the sequence exceeds `threshold`, in nats. Such a rollout is bad and
    no longer likely: learning from it only pushes it further away (ARLArena, arXiv 2602.21534; DeepSeek-V3.2, arXiv
    2512.02556).
    """
    drift = group_mean(log_ratio(old, current).detach(), sequence, sequences)
    return (advantage < 0) & (drift > threshold)
