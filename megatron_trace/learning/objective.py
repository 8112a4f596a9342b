"""The loss of a micro-batch, put together from its terms as `learning` asks."""

import torch
from torch import Tensor

from megatron_trace.config import Importance, LossConfig, Ratio
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
    settings: LossConfig,
    tokens: TokenData,
    logprob: Tensor,
    entropy: Tensor,
) -> tuple[Tensor, Sums]:
    """This micro-batch's share of the policy's loss, to be summed over micro-batches and data-parallel ranks.

    L = Σ_t weight_t·(−w_t·surrogate_t + reference_kl·KL_t − entropy_bonus·H_t)

    with w the importance weight, 0 where sequence masking leaves the token out (docs/optimisation.md).

    Args:
        logprob: of the learned tokens under the current policy, with gradient [n].
        entropy: of the current policy there, in nats [n]; with gradient where `learning.loss.entropy_bonus` is not 0.

    Returns:
        the loss, a scalar, and sums for `diagnostics.token_metrics`: those of `diagnostics.token_sums`, and
        policy_loss (weighted: the surrogate's part of the loss).

    Raises:
        ValueError: `learning.loss.reference_kl` is set and there are no reference log-probabilities, or
            `learning.loss.entropy_bonus` and the entropy has no gradient.
    """
    old = logprob.detach() if tokens.old_logprob is None else tokens.old_logprob
    ratio = _ratio(settings, tokens, logprob, old)
    masked = _masked(settings, tokens, logprob, old)
    surrogate = clipped_surrogate(
        ratio,
        tokens.advantage,
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
        dual_clip=settings.dual_clip,
    )
    gain = torch.where(masked, 0.0, _importance(settings, old, tokens.sampler_logprob)) * surrogate
    loss = policy = -(tokens.weight * gain).sum()
    sums = token_sums(settings, tokens, logprob, old, ratio, entropy, masked)
    if settings.reference_kl:
        if tokens.reference_logprob is None:
            raise ValueError(
                "learning.loss.reference_kl needs the reference policy's log-probabilities"
            )
        divergence = reference_divergence(logprob, tokens.reference_logprob)
        loss = loss + settings.reference_kl * (tokens.weight * divergence).sum()
        sums["kl_reference"] = divergence.detach().sum()
    if settings.entropy_bonus:
        if logprob.requires_grad and not entropy.requires_grad:
            raise ValueError("learning.loss.entropy_bonus needs an entropy with gradient")
        loss = loss - settings.entropy_bonus * (tokens.weight * entropy).sum()
    sums["policy_loss"] = policy.detach()
    return loss, sums


def _ratio(settings: LossConfig, tokens: TokenData, logprob: Tensor, old: Tensor) -> Tensor:
    match settings.ratio:
        case Ratio.token:
            return token_ratio(logprob, old)
        case Ratio.turn:
            return mean_ratio(logprob, old, tokens.turn, tokens.turns)
        case Ratio.sequence:
            return mean_ratio(logprob, old, tokens.sequence, tokens.sequences)


def _masked(settings: LossConfig, tokens: TokenData, logprob: Tensor, old: Tensor) -> Tensor:
    if settings.sequence_mask is None:
        return torch.zeros_like(tokens.advantage, dtype=torch.bool)
    return drifted(
        logprob, old, tokens.advantage, tokens.sequence, tokens.sequences, settings.sequence_mask
    )


def _importance(settings: LossConfig, old: Tensor, sampler: Tensor) -> Tensor:
    match settings.importance:
        case Importance.none:
            return torch.ones_like(old)
        case Importance.truncate:
            return truncated_importance(old, sampler, settings.importance_cap)
        case Importance.mask:
            return masked_importance(
                old, sampler, settings.importance_floor, settings.importance_cap
            )
