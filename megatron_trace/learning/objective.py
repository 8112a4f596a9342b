"""The loss of a micro-batch, put together from its terms as `learning.loss` asks."""

import torch
from torch import Tensor

from megatron_trace.config import LossConfig
from megatron_trace.learning.diagnostics import token_sums
from megatron_trace.learning.losses import clipped_surrogate, reference_divergence
from megatron_trace.learning.ratios import importance_weight, policy_ratio, sequence_masked
from megatron_trace.learning.tokens import TokenData

Sums = dict[str, Tensor]


def objective(
    settings: LossConfig,
    tokens: TokenData,
    logprob: Tensor,
    entropy: Tensor,
) -> tuple[Tensor, Sums]:
    """This micro-batch's share of the policy's loss, to be summed over micro-batches and ranks.

    L = Σ_t weight_t·(−w_t·surrogate_t + reference_kl·KL_t − entropy_bonus·H_t)

    with w the importance weight, 0 where sequence masking leaves the token out
    (docs/optimisation.md).

    Args:
        logprob: of the learned tokens under the current policy, with gradient [n].
        entropy: of the current policy there, in nats [n]; with gradient where
            `learning.loss.entropy_bonus` is not 0.

    Returns:
        the loss, a scalar, and sums for `diagnostics.token_metrics`: those of
        `diagnostics.token_sums`, policy_loss (the weighted surrogate's part of the loss) and, with
        a reference, kl_reference.

    Raises:
        ValueError: `learning.loss.reference_kl` is set and there are no reference
            log-probabilities, or `learning.loss.entropy_bonus` and the entropy has no gradient.
    """
    # With one update a step the old policy is the current one. The ratio is 1 then, but its
    # gradient must be that of log π, so old is a detached copy.
    old = logprob.detach() if tokens.old_logprob is None else tokens.old_logprob
    ratio = policy_ratio(settings, tokens, logprob, old)
    masked = sequence_masked(settings, tokens, logprob, old)
    importance = importance_weight(settings, old, tokens.sampler_logprob)
    surrogate = clipped_surrogate(
        ratio,
        tokens.advantage,
        clip_low=settings.clip_low,
        clip_high=settings.clip_high,
        dual_clip=settings.dual_clip,
    )
    gain = torch.where(masked, 0.0, importance) * surrogate
    loss = policy = -(tokens.weight * gain).sum()
    kept: Sums = {"policy_loss": policy.detach()}
    if settings.reference_kl:
        if tokens.reference_logprob is None:
            raise ValueError(
                "learning.loss.reference_kl needs the reference policy's log-probabilities"
            )
        divergence = reference_divergence(logprob, tokens.reference_logprob)
        loss = loss + settings.reference_kl * (tokens.weight * divergence).sum()
        kept["kl_reference"] = divergence.detach().sum()
    if settings.entropy_bonus:
        if logprob.requires_grad and not entropy.requires_grad:
            raise ValueError("learning.loss.entropy_bonus needs an entropy with gradient")
        loss = loss - settings.entropy_bonus * (tokens.weight * entropy).sum()
    return loss, kept | token_sums(settings, tokens, logprob, old, ratio, entropy, masked)
