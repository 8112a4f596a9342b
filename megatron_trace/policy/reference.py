"""The reference policy: the start policy's weights in host memory, put in the policy's place for a forward pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from megatron_trace.policy.precision import plain

Copy = list[list[Tensor]]
"""The parameters of every part of a rank's model, in order."""


def copy_weights(chunks: Sequence[Any]) -> Copy:
    """A copy in host memory of this rank's weights."""
    return [[plain(parameter).to("cpu", copy=True) for parameter in chunk.parameters()] for chunk in chunks]


@contextmanager
def swapped_weights(chunks: Sequence[Any], reference: Copy) -> Iterator[None]:
    """While it lasts the model has the weights of `reference`."""
    own = copy_weights(chunks)
    try:
        _put(chunks, reference)
        yield
    finally:
        _put(chunks, own)


@torch.no_grad()
def _put(chunks: Sequence[Any], weights: Copy) -> None:
    for chunk, copies in zip(chunks, weights, strict=True):
        for parameter, copy in zip(chunk.parameters(), copies, strict=True):
            parameter.copy_(copy.to(parameter.device))
