"""The terms of the loss, a short function each: pure functions of per-token tensors.

Each returns its term for each of the n learned tokens, [n]; `objective` weights the terms and adds
them up. Only the predictor's is a sum, over m anchors.
"""

import torch
from torch import Tensor

from megatron_trace.learning.ratios import log_ratio


def clipped_surrogate(
    ratio: Tensor,
    advantage: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> Tensor:
    """min(ρA, clip(ρ, 1 − clip_low, 1 + clip_high)·A) of every token, to be maximised [n].

    PPO (arXiv 1707.06347, eq. 7) with two separate bounds, as in DAPO (arXiv 2503.14476, eq. 10).
    With `dual_clip` c, it is at least c·A where A < 0 (arXiv 1912.09729): this bounds what is
    learned from a bad token that has become likely.

    Args:
        ratio: ρ, with the gradient [n].
        advantage: A [n].
    """
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    surrogate = torch.minimum(ratio * advantage, clipped * advantage)
    if dual_clip is None:
        return surrogate
    return torch.where(advantage < 0, torch.maximum(surrogate, dual_clip * advantage), surrogate)


def k3(log_ratios: Tensor) -> Tensor:
    """Estimate exp(x) − 1 − x ≥ 0 of KL(earlier ‖ later) at each token, x = later − earlier.

    The tokens are sampled from `earlier`. Source: J. Schulman, "Approximating KL divergence"
    (2020), the estimator k3. Shape [n].
    """
    return torch.expm1(log_ratios) - log_ratios


def reference_divergence(current: Tensor, reference: Tensor) -> Tensor:
    """GRPO's estimate of KL(π ‖ π_reference) at every token [n], with the gradient of `current`.

    Source: arXiv 2402.03300, eq. 4.
    """
    return k3(log_ratio(reference, current))


def predictor_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Squared error Σ (σ(logit) − target)² over the m anchors, a scalar."""
    return (torch.sigmoid(logit) - target).square().sum()
