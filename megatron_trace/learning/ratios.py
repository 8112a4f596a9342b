"""Ratios between policies, and what is left out because of them; on per-token tensors.

Three policies meet: the *sampler* drew the tokens, *old* is the trainer before its first update on
them, and *current* is being updated. Sampler and old differ by arithmetic (vLLM, Megatron) and
staleness; old and current differ by the updates between them.

All tensors hold one value for each of the n learned tokens of a micro-batch, [n]; `sequence` [n]
numbers the sequence of each token, out of `sequences`. A sequence is what one rollout sampled
itself, in one history; a group is a sequence or a turn of one.
"""

import torch
from torch import Tensor

from megatron_trace.config import Importance, LossConfig, Ratio
from megatron_trace.learning.tokens import TokenData

LARGEST_LOG_RATIO = 20.0
"""Bound of log-ratios: a larger one means that something is broken. Keeps metrics finite."""


def policy_ratio(settings: LossConfig, tokens: TokenData, logprob: Tensor, old: Tensor) -> Tensor:
    """Current to old policy of each token, its turn or its sequence (`learning.loss.ratio`) [n]."""
    match settings.ratio:
        case Ratio.token:
            return token_ratio(logprob, old)
        case Ratio.turn:
            return mean_ratio(logprob, old, tokens.turn, tokens.turns)
        case Ratio.sequence:
            return mean_ratio(logprob, old, tokens.sequence, tokens.sequences)


def sequence_masked(
    settings: LossConfig, tokens: TokenData, logprob: Tensor, old: Tensor
) -> Tensor:
    """Tokens that `learning.loss.sequence_mask` leaves out, bool [n]."""
    if settings.sequence_mask is None:
        return torch.zeros_like(tokens.advantage, dtype=torch.bool)
    return drifted(
        logprob, old, tokens.advantage, tokens.sequence, tokens.sequences, settings.sequence_mask
    )


def importance_weight(settings: LossConfig, old: Tensor, sampler: Tensor) -> Tensor:
    """Old policy to sampler as `learning.loss.importance` asks, without gradient [n]."""
    match settings.importance:
        case Importance.none:
            return torch.ones_like(old)
        case Importance.truncate:
            return truncated_importance(old, sampler, settings.importance_cap)
        case Importance.mask:
            return masked_importance(
                old, sampler, settings.importance_floor, settings.importance_cap
            )


def log_ratio(later: Tensor, earlier: Tensor) -> Tensor:
    """`later - earlier` log-probabilities [n], bounded to ±20 so that exp() stays finite."""
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

    Over sequences this is GSPO (arXiv 2507.18071) in the form with an advantage for each token, eq.
    13 and 14: s_t = sg[s]·π(t)/sg[π(t)] has the value of the sequence and the gradient of the
    token. Where all advantages of a sequence are equal, the gradient is that of s itself (eq. 5 and
    7). Over turns, which have one advantage each, it is the ratio of AT²PO (arXiv 2601.04767).
    """
    # sg is the stop-gradient: the detached mean gives the value, the last two terms only the
    # gradient.
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
    """Tokens that sequence masking leaves out, bool [n]: A < 0 in sequences that have drifted.

    A sequence has drifted when mean(log π_old − log π) over its tokens exceeds `threshold`, in
    nats. Such a rollout is bad and no longer likely. Learning from it would only push it further
    away (ARLArena, arXiv 2602.21534; DeepSeek-V3.2, arXiv 2512.02556).
    """
    drift = group_mean(log_ratio(old, current).detach(), sequence, sequences)
    return (advantage < 0) & (drift > threshold)
