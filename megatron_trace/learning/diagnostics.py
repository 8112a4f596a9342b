"""Diagnostics beside the loss: sums over tokens, and their means over micro-batches and ranks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from megatron_trace.config import Importance, LossConfig
from megatron_trace.learning.losses import k3, predictor_loss
from megatron_trace.learning.ratios import log_ratio
from megatron_trace.learning.rows import Row
from megatron_trace.learning.tokens import TokenData


@torch.no_grad()
def token_sums(
    settings: LossConfig,
    tokens: TokenData,
    logprob: Tensor,
    old: Tensor,
    ratio: Tensor,
    entropy: Tensor,
    masked: Tensor,
) -> dict[str, Tensor]:
    """Sums over the n tokens, scalars, from which `token_metrics` computes the diagnostics.

    The names depend on the settings alone.

    Args:
        logprob: of the tokens under the current policy [n].
        old: under the trainer before the first update [n].
        ratio: current to old, as it is clipped [n].
        entropy: of the current policy, in nats [n].
        masked: tokens that sequence masking leaves out, bool [n].
    """
    # Names must not depend on the tokens: ranks add up their sums by name, dummies' sums included.
    update, drift = log_ratio(logprob, old), log_ratio(old, tokens.sampler_logprob)
    weight, negative = drift.exp(), tokens.advantage < 0
    sums = {
        "logprob_gap": (old - tokens.sampler_logprob).abs(),
        "kl": k3(update),
        "kl_sampler": k3(drift),
        "clip_low_fraction": (ratio < 1.0 - settings.clip_low) & negative,
        "clip_high_fraction": (ratio > 1.0 + settings.clip_high) & (tokens.advantage > 0),
        "entropy": entropy,
        "weight": weight,
        "weight_squared": weight.square(),
    }
    if settings.dual_clip is not None:
        sums["dual_clip_fraction"] = (ratio > settings.dual_clip) & negative
    if settings.sequence_mask is not None:
        sums["sequence_masked"] = masked
    if settings.importance is Importance.truncate:
        sums["importance_truncated"] = weight > settings.importance_cap
    if settings.importance is Importance.mask:
        sums["importance_masked"] = (weight > settings.importance_cap) | (
            weight < settings.importance_floor
        )
    return {name: values.sum(dtype=weight.dtype) for name, values in sums.items()}


@torch.no_grad()
def predictor_sums(logit: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Sums over the m anchors, from [m]: predictor_loss (the squared error) and prediction."""
    return {
        "predictor_loss": predictor_loss(logit, target),
        "prediction": torch.sigmoid(logit).sum(),
    }


def token_metrics(sums: dict[str, float], tokens: int, updates: int = 1) -> dict[str, float]:
    """Means from the totals of `objective`'s sums.

    Args:
        tokens: learned tokens of all updates.
        updates: number of updates.

    Returns:
        logprob_gap: mean |Δ log-probability| between trainer and sampler, in nats.
        kl, kl_sampler: of the updates so far, and of trainer against sampler, in nats per token.
        kl_reference: of the policy against the reference, in nats per token.
        clip_low_fraction, clip_high_fraction, dual_clip_fraction: shares of tokens whose gradient
            the clip removes.
        importance_truncated: share of tokens whose weight exceeds the cap.
        importance_masked, sequence_masked: shares of tokens left out.
        effective_sample_size: (Σw)²/(n·Σw²) of the untruncated weights, in (0, 1]; 1 on policy.
        entropy: of the policy at the tokens, in nats.
        policy_loss: mean over the updates.
    """
    count = max(tokens, 1)
    means = {name: total / count for name, total in sums.items() if not name.startswith("weight")}
    squared = count * sums["weight_squared"]
    means["effective_sample_size"] = sums["weight"] ** 2 / squared if squared > 0 else 1.0
    if "policy_loss" in sums:
        means["policy_loss"] = sums["policy_loss"] / max(updates, 1)
    return means


def step_metrics(
    rows: Sequence[Row], sums: Sequence[dict[str, float]], epochs: int
) -> dict[str, float]:
    """The metrics of a training step on `rows`.

    Args:
        sums: of each update, over all micro-batches and ranks: those of `objective` and
            `predictor_sums`, and the tokens that were computed: computed with padding, filled
            without.
        epochs: passes over the rows.

    Returns:
        see `Policy.update`.
    """
    totals = {name: sum(part[name] for part in sums) for name in sums[0]}
    path_tokens = epochs * sum(len(row.tokens) for row in rows)
    tokens = sum(int(row.learn.sum()) for row in rows)
    anchors = sum(int(row.predict.sum()) for row in rows)
    computed, filled = totals.pop("computed"), totals.pop("filled")
    predictor = {
        name: totals.pop(name) / max(epochs * anchors, 1)
        for name in ("predictor_loss", "prediction")
    }
    counts = {
        "learned_tokens": float(tokens),
        "predicted_anchors": float(anchors),
        "updates": float(len(sums)),
        "path_tokens": float(path_tokens),
        "computed_tokens": float(computed),
        "tree_reuse": path_tokens / filled,
        "padding": 1.0 - filled / computed,
    }
    return token_metrics(totals, epochs * tokens, len(sums)) | predictor | counts
