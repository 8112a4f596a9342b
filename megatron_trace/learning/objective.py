"""The loss of a micro-batch, put together from its terms as `learning` asks."""

import torch
from torch import Tensor

from megatron_trace.config import Importance, LearningConfig, Ratio
from megatron_trace.learning.diagnostics import token_sums
from megatron_trace.learning.losses import clipped_surrogate, reference_divergence
from megatron_trace.learning.ratios import (
    drifted,
    masked_importance,
    mean_ratio,
    token_ratio,
    truncated_importance,
)
from megatron_trace.learning.tokens import TokenData

Sums = dict[str, Tensor]


def objective(
    learning: LearningConfig,
    tokens: TokenData,
    logprob: Tensor,
    entropy: Tensor,
) -> tuple[Tensor, Sums]:
    """This micro-batch's share of the policy's loss, to be summed over micro-batches and data-parallel ranks.

    L = Σ_t weight_t·(−w_t·surrogate_t + reference_kl·KL_t − entropy_bonus·H_t)

    with w the importance weight, 0 where sequence masking leaves the token out (docs/optimisation.md).

    Args:
        logprob: of the learned tokens under the current policy, with gradient [n].
        entropy: of the current policy there, in nats [n]; with gradient where `learning.entropy_bonus` is not 0.

    Returns:
        the loss, a scalar, and sums for `diagnostics.token_metrics`: those of `diagnostics.token_sums`, and
        policy_loss (weighted: the surrogate's part of the loss).

    Raises:
        ValueError: `learning.reference_kl` is set and there are no reference log-probabilities, or
            `learning.entropy_bonus` and the entropy has no gradient.
    """
    old = logprob.detach() if tokens.old_logprob is None else tokens.old_logprob
    ratio = _ratio(learning, tokens, logprob, old)
    masked = _masked(learning, tokens, logprob, old)
    surrogate = clipped_surrogate(
        ratio,
        tokens.advantage,
        clip_low=learning.clip_low,
        clip_high=learning.clip_high,
        dual_clip=learning.dual_clip,
    )
    gain = torch.where(masked, 0.0, _importance(learning, old, tokens.sampler_logprob)) * surrogate
    loss = policy = -(tokens.weight * gain).sum()
    sums = token_sums(learning, tokens, logprob, old, ratio, entropy, masked)
    if learning.reference_kl:
        if tokens.reference_logprob is None:
            raise ValueError("learning.reference_kl needs the reference policy's log-probabilities")
        divergence = reference_divergence(logprob, tokens.reference_logprob)
        loss = loss + learning.reference_kl * (tokens.weight * divergence).sum()
        sums["kl_reference"] = divergence.detach().sum()
    if learning.entropy_bonus:
        if logprob.requires_grad and not entropy.requires_grad:
            raise ValueError("learning.entropy_bonus needs an entropy with gradient")
        loss = loss - learning.entropy_bonus * (tokens.weight * entropy).sum()
    sums["policy_loss"] = policy.detach()
    return loss, sums


def _ratio(learning: LearningConfig, tokens: TokenData, logprob: Tensor, old: Tensor) -> Tensor:
    match learning.ratio:
        case Ratio.token:
            return token_ratio(logprob, old)
        case Ratio.turn:
            return mean_ratio(logprob, old, tokens.turn, tokens.turns)
        case Ratio.sequence:
            return mean_ratio(logprob, old, tokens.sequence, tokens.sequences)


def _masked(learning: LearningConfig, tokens: TokenData, logprob: Tensor, old: Tensor) -> Tensor:
    if learning.sequence_mask is None:
        return torch.zeros_like(tokens.advantage, dtype=torch.bool)
    return drifted(
        logprob, old, tokens.advantage, tokens.sequence, tokens.sequences, learning.sequence_mask
    )


def _importance(learning: LearningConfig, old: Tensor, sampler: Tensor) -> Tensor:
    match learning.importance:
        case Importance.none:
            return torch.ones_like(old)
        case Importance.truncate:
            return truncated_importance(old, sampler, learning.importance_cap)
        case Importance.mask:
            return masked_importance(
                old, sampler, learning.importance_floor, learning.importance_cap
            )
