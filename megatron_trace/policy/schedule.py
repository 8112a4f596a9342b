"""One pass over rows through Megatron's pipeline schedule: forward, and backward if planned."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from megatron_trace.learning.batches import Batch, LossInputs, make_batches
from megatron_trace.learning.packing import Pass
from megatron_trace.learning.rows import Row
from megatron_trace.policy.model import Scores

Result = TypeVar("Result")


def run_pass(
    chunks: Sequence[Any],
    rows: Sequence[Row],
    planned: Pass,
    inputs: LossInputs,
    loss: Callable[[Batch, Scores], tuple[Tensor, Result]],
    device: torch.device,
) -> list[Result]:
    """Run a pass over `rows` through all pipeline stages. Collective over all train ranks.

    Args:
        chunks: this rank's parts of the model in their data-parallel wrappers.
        loss: returns the scalar to minimise, and something to keep. Gradients are summed over
            micro-batches and data-parallel ranks, and divided by nothing.

    Returns:
        for each micro-batch what `loss` returned to keep; empty on ranks before the last stage.
    """
    batches = [batch.to(device) for batch in make_batches(rows, planned, inputs)]
    with torch.set_grad_enabled(planned.backward):
        return _forward_backward(chunks, batches, loss, forward_only=not planned.backward)


def _forward_backward(
    chunks: Sequence[Any],
    batches: Sequence[Batch],
    loss: Callable[[Batch, Scores], tuple[Tensor, Any]],
    *,
    forward_only: bool,
) -> list[Any]:
    def forward_step(iterator: Iterator[Batch], stage: Any) -> tuple[Any, Callable]:
        batch = next(iterator)
        return stage(batch), partial(finish, batch)

    def finish(batch: Batch, scores: Scores) -> tuple[Tensor, Tensor, Any]:
        total, kept = loss(batch, scores)
        # Megatron divides the loss by the number of tokens that is returned here. The weights in
        # the loss already divide by the whole update's tokens, so it must see 0 and leave the sum
        # as it is.
        no_tokens = torch.zeros((), dtype=torch.int, device=total.device)
        return total, no_tokens, kept

    # With virtual pipeline stages Megatron wants a list of model chunks, and an iterator for each.
    several = len(chunks) > 1
    return get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=[iter(batches) for _ in chunks] if several else iter(batches),
        model=list(chunks) if several else chunks[0],
        num_microbatches=len(batches),
        # Only pipelines use it, and there all micro-batches have the same length.
        seq_length=batches[0].tokens.shape[1],
        micro_batch_size=1,
        forward_only=forward_only,
    )
