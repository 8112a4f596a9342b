"""The policy and predictor losses and what is measured beside them: pure functions of per-token tensors.

Every function takes the n learned tokens (or m anchors) as flat tensors and returns a SUM over them; the
caller divides by a global count, so the loss does not depend on how tokens are spread over ranks.

Three policies meet: the *sampler* drew the tokens, *old* is the trainer before its first update on them, and
*current* is being updated. Sampler and old differ by arithmetic (vLLM, Megatron) and staleness.
"""

import torch
from torch import Tensor

# exp() of a log-ratio beyond this says "broken", whatever its value; bounding it keeps the metrics finite.
LARGEST_LOG_RATIO = 20.0


def log_ratio(later: Tensor, earlier: Tensor) -> Tensor:
    """`later - earlier` log-probabilities [n], bounded to ±20 so that its exponential stays finite."""
    return (later - earlier).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)


def truncated_importance(old: Tensor, sampler: Tensor, cap: float) -> Tensor:
    """Weights min(π_old/π_sampler, cap) [n], without gradient (truncated importance sampling)."""
    return log_ratio(old, sampler).exp().clamp(max=cap).detach()


def policy_loss(
    current: Tensor,
    old: Tensor,
    advantage: Tensor,
    importance: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """Clipped token-level policy gradient, −Σ w·min(ρA, clip(ρ, 1−clip_low, 1+clip_high)A), ρ = π/π_old.

    PPO's loss (arXiv 1707.06347) with the two bounds apart, as in DAPO (arXiv 2503.14476).

    Args:
        current: log-probabilities with gradient [n]; the others carry none.
        old: log-probabilities before the first update [n].
        advantage: [n].
        importance: weights w of `truncated_importance` [n].

    Returns:
        the sum over tokens, a scalar.
    """
    ratio = log_ratio(current, old).exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return -(importance * torch.minimum(ratio * advantage, clipped * advantage)).sum()


def predictor_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Squared error Σ (σ(logit) − target)² over the m anchors, a scalar."""
    return (torch.sigmoid(logit) - target).square().sum()


def k3(log_ratios: Tensor) -> Tensor:
    """Per-token estimate exp(x) − 1 − x ≥ 0 of KL(earlier ‖ later), x = later − earlier on earlier's samples.

    Source: J. Schulman, "Approximating KL divergence" (2020), the estimator k3. Shape [n].
    """
    return torch.expm1(log_ratios) - log_ratios


@torch.no_grad()
def token_sums(
    current: Tensor,
    old: Tensor,
    sampler: Tensor,
    advantage: Tensor,
    entropy: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    cap: float,
) -> dict[str, Tensor]:
    """Sums over the n tokens from which `token_metrics` makes the diagnostics; every value is a scalar."""
    update, drift = log_ratio(current, old), log_ratio(old, sampler)
    weight = drift.exp()
    return {
        "logprob_gap": (old - sampler).abs().sum(),
        "kl": k3(update).sum(),
        "kl_sampler": k3(drift).sum(),
        "clip_low_fraction": ((update.exp() < 1.0 - clip_low) & (advantage < 0)).sum().to(weight.dtype),
        "clip_high_fraction": ((update.exp() > 1.0 + clip_high) & (advantage > 0)).sum().to(weight.dtype),
        "importance_truncated": (weight > cap).sum().to(weight.dtype),
        "entropy": entropy.sum(),
        "weight": weight.sum(),
        "weight_squared": weight.square().sum(),
    }


def token_metrics(sums: dict[str, float], tokens: int) -> dict[str, float]:
    """Means over `tokens` tokens from the totals of `token_sums`.

    Returns:
        logprob_gap: mean |Δ log-probability| between trainer and sampler, in nats.
        kl, kl_sampler: of the updates so far, and of trainer against sampler, in nats per token.
        clip_low_fraction, clip_high_fraction: shares of tokens whose gradient the clip removes.
        importance_truncated: share of tokens whose weight exceeds the cap.
        effective_sample_size: (Σw)²/(n·Σw²) of the untruncated weights, in (0, 1]; 1 on policy.
        entropy: of the policy at the tokens, in nats.
    """
    count = max(tokens, 1)
    means = {name: total / count for name, total in sums.items() if not name.startswith("weight")}
    squared = count * sums["weight_squared"]
    means["effective_sample_size"] = sums["weight"] ** 2 / squared if squared > 0 else 1.0
    return means
