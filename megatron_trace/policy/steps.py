"""Forward and backward passes over micro-batches through Megatron's pipeline schedule."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from megatron_trace.config import LearningConfig
from megatron_trace.learning.batches import Batch
from megatron_trace.learning.losses import policy_loss, predictor_loss, token_sums, truncated_importance
from megatron_trace.policy.model import Scores

LossFunction = Callable[[Batch, Scores], tuple[Tensor, Any]]


def run_schedule(
    model: Any, batches: Sequence[Batch], loss: LossFunction, *, forward_only: bool
) -> list[Any]:
    """Run `batches` through all pipeline stages and, unless `forward_only`, the gradients back.

    Args:
        model: this rank's model in its data-parallel wrapper.
        batches: this data-parallel rank's micro-batches; every rank has equally many.
        loss: gives the scalar to minimise, which is summed over micro-batches and data-parallel ranks as it is,
            and something to hand back.

    Returns:
        for each micro-batch what `loss` handed back; on the last stage only, elsewhere nothing.
    """

    def forward_step(iterator: Iterator[Batch], stage: Any) -> tuple[Any, Callable]:
        batch = next(iterator)
        return stage(batch), partial(finish, batch)

    def finish(batch: Batch, scores: Scores) -> tuple[Tensor, Tensor, Any]:
        total, result = loss(batch, scores)
        # No tokens reported: Megatron then leaves the sum undivided.
        return total, torch.zeros((), dtype=torch.int, device=total.device), result

    longest = max(batch.tokens.shape[1] for batch in batches)
    return get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=iter(batches),
        model=[model],
        num_microbatches=len(batches),
        seq_length=longest,
        micro_batch_size=1,
        forward_only=forward_only,
    )


def training_loss(
    learning: LearningConfig, tokens: int, anchors: int, batch: Batch, scores: Scores
) -> tuple[Tensor, dict[str, Tensor]]:
    """This micro-batch's share of the update's loss, and its sums for the metrics.

    Args:
        tokens, anchors: of the whole update over all ranks, by which the two losses are divided.
    """
    old = scores.logprob.detach() if batch.old_logprob is None else batch.old_logprob
    policy = policy_loss(
        scores.logprob,
        old,
        batch.advantage,
        truncated_importance(old, batch.sampler_logprob, learning.importance_cap),
        clip_low=learning.clip_low,
        clip_high=learning.clip_high,
    )
    predictor = predictor_loss(scores.prediction, batch.target)
    sums = token_sums(
        scores.logprob.detach(),
        old,
        batch.sampler_logprob,
        batch.advantage,
        scores.entropy,
        clip_low=learning.clip_low,
        clip_high=learning.clip_high,
        cap=learning.importance_cap,
    )
    sums |= {
        "policy_loss": policy.detach(),
        "predictor_loss": predictor.detach(),
        "prediction": torch.sigmoid(scores.prediction.detach()).sum(),
    }
    loss = policy / max(tokens, 1) + learning.predictor_weight * predictor / max(anchors, 1)
    return loss, sums


def keep_scores(batch: Batch, scores: Scores) -> tuple[Tensor, tuple[Batch, Tensor, Tensor]]:
    """For forward passes: nothing to minimise, and the batch with its log-probabilities and logits."""
    return torch.zeros((), device=scores.logprob.device), (batch, scores.logprob, scores.prediction)
