"""The reference policy: the start policy's weights in host memory, swapped in for a pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from megatron_trace.policy.precision import plain


class Reference:
    """Copies of this rank's weights in host memory: the reference's, and room for the policy's."""

    def __init__(self, chunks: Sequence[Any]) -> None:
        """The weights that `chunks`, this rank's parts of the model, have now."""
        self._parameters = [parameter for chunk in chunks for parameter in chunk.parameters()]
        self._reference = [_on_host(parameter) for parameter in self._parameters]
        self._own = [_on_host(parameter) for parameter in self._parameters]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this context the model has the reference's weights."""
        # A copy, and not a second model: GPU memory holds the policy once, with its optimizer.
        for copy, parameter in zip(self._own, self._parameters, strict=True):
            copy.copy_(plain(parameter))
        try:
            _put(self._reference, self._parameters)
            yield
        finally:
            _put(self._own, self._parameters)


def _on_host(parameter: Tensor) -> Tensor:
    copy = plain(parameter).to("cpu", copy=True)
    return copy.pin_memory() if parameter.is_cuda else copy


@torch.no_grad()
def _put(copies: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
    for copy, parameter in zip(copies, parameters, strict=True):
        parameter.copy_(copy.to(parameter.device))
