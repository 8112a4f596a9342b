"""Log-probability and entropy over a vocabulary that is split over tensor-parallel ranks."""

from typing import Any

import torch
from torch import Tensor, distributed

CHUNK = 1024
"""Tokens whose float32 softmax is held at a time."""

# Stands for the largest logit where a rank holds only padding; -inf would make NaNs.
LOWEST = -1e30


class VocabParallelLogprob(torch.autograd.Function):
    """log softmax(logits / temperature)[target] and entropy, over a vocabulary split by rank.

    Only three numbers a token are sent between the ranks. The backward pass recomputes the softmax
    from the logits, so no float32 copy of the logits is kept.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        temperature: float,
        start: int,
        vocabulary: int,
        group: Any,
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        """See `vocab_parallel_logprob`."""
        local = target - start
        here = (local >= 0) & (local < logits.shape[1])
        # The clamp only keeps the index valid; `here` removes what is picked for other ranks'
        # tokens.
        column = local.clamp(0, logits.shape[1] - 1)[:, None]
        picked = logits.gather(1, column).squeeze(1).float() / temperature
        real = min(max(vocabulary - start, 0), logits.shape[1])
        own_largest = torch.full_like(picked, LOWEST)
        # [n, 3]: Σ exp, Σ exp·logit, and the target's logit from the rank that holds it.
        zeros = torch.zeros_like(picked)
        sums = torch.stack([zeros, zeros, picked * here], dim=1)
        for start_row in range(0, len(logits) if real else 0, CHUNK):
            rows = slice(start_row, start_row + CHUNK)
            # Columns that only pad the vocabulary take no part in the softmax.
            scaled = logits[rows, :real].float() / temperature
            own_largest[rows] = scaled.amax(dim=1)
            weight = (scaled - own_largest[rows, None]).exp()
            sums[rows, 0], sums[rows, 1] = weight.sum(1), (weight * scaled).sum(1)
        largest = own_largest.clone()
        _reduce(largest, group, distributed.ReduceOp.MAX)
        # The ranks' sums are relative to their own largest logit, and are made comparable before
        # they are added.
        sums[:, :2] *= (own_largest - largest).exp()[:, None]
        _reduce(sums, group, distributed.ReduceOp.SUM)
        log_total = largest + sums[:, 0].log()
        entropy = log_total - sums[:, 1] / sums[:, 0]
        ctx.save_for_backward(logits, log_total, local, here, entropy)
        ctx.temperature, ctx.real, ctx.entropy_gradient = temperature, real, entropy_gradient
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy)
        return sums[:, 2] - log_total, entropy

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, gradient: Tensor, entropy_gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        """((onehot − p)·g − p·(log p + H)·h) / temperature, on this rank's slice.

        p is the softmax, H its entropy, g and h are the gradients of log-probability and entropy.
        """
        logits, log_total, local, here, entropy = ctx.saved_tensors
        scale = gradient / ctx.temperature
        result = torch.zeros_like(logits)
        for start_row in range(0, len(logits), CHUNK):
            rows = slice(start_row, start_row + CHUNK)
            slope = logits[rows, : ctx.real].float() / ctx.temperature - log_total[rows, None]
            if ctx.entropy_gradient:
                softmax = slope.exp()
                entropy_scale = entropy_gradient[rows, None] / ctx.temperature
                slope.add_(entropy[rows, None]).mul_(entropy_scale).add_(scale[rows, None])
                slope.mul_(softmax).neg_()
            else:
                slope.exp_().mul_(-scale[rows, None])
            holders = torch.nonzero(here[rows]).squeeze(1)
            slope[holders, local[rows][holders]] += scale[rows][holders]
            result[rows, : ctx.real] = slope.to(logits.dtype)
        return result, None, None, None, None, None, None


def vocab_parallel_logprob(
    logits: Tensor,
    target: Tensor,
    *,
    temperature: float,
    start: int,
    vocabulary: int,
    group: Any = None,
    with_entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target token and entropy of each distribution, in nats.

    Args:
        logits: this rank's slice of the vocabulary [n, slice].
        target: token ids in the whole vocabulary, int64 [n].
        temperature: divides the logits, as in the sampler.
        start: id of the slice's first token.
        vocabulary: number of real tokens; ids from there on are padding.
        group: the tensor-parallel process group; None when the slice is the whole vocabulary.
        with_entropy_gradient: the entropy has a gradient as well, for an entropy bonus.

    Returns:
        logprob [n] with gradient and entropy [n], float32, the same on every rank of the group.
    """
    return VocabParallelLogprob.apply(
        logits, target, temperature, start, vocabulary, group, with_entropy_gradient
    )


def _reduce(values: Tensor, group: Any, operation: Any) -> None:
    if group is not None and group.size() > 1:
        distributed.all_reduce(values, op=operation, group=group)
