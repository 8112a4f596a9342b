"""A version's weights in Ray's object store, where they stay for workers that are restarted."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from megatron_trace.rollout.fingerprint import MODULUS, fingerprint

CHUNK_BYTES = 256 << 20
"""Tensors are sent together until they reach this size."""


@dataclass
class Chunk:
    """Some tensors as bytes.

    Attributes:
        names: HF names.
        dtypes: torch's dtype names, e.g. "bfloat16".
        shapes: the tensors' shapes.
        data: their bytes, uint8.
    """

    names: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    shapes: list[list[int]] = field(default_factory=list)
    data: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Append a tensor that lies on the CPU."""
        self.names.append(name)
        self.dtypes.append(str(tensor.dtype).removeprefix("torch."))
        self.shapes.append(list(tensor.shape))
        self.data.append(tensor.reshape(-1).view(torch.uint8).numpy())

    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(array.nbytes for array in self.data)


@dataclass(frozen=True)
class WeightUpdate:
    """One version's weights.

    Attributes:
        version: policy version.
        chunks: object references of `Chunk`s, in order.
        fingerprint: of all tensors.
    """

    version: int
    chunks: list[Any]
    fingerprint: int


def put_weights(
    weights: Iterable[tuple[str, torch.Tensor]], version: int, dtype: torch.dtype
) -> WeightUpdate:
    """Put a version's full tensors into the object store.

    Args:
        weights: HF names and tensors, `predictor.*` and, tied or not, `lm_head.weight` included.
        version: policy version.
        dtype: the engines' dtype; all tensors but the predictor's are cast to it.
    """
    chunks: list[Any] = []
    chunk = Chunk()
    total = 0
    for name, tensor in weights:
        # The predictor is float32 on both sides, whatever the policy's dtype.
        sent_dtype = torch.float32 if name.startswith("predictor.") else dtype
        tensor = tensor.detach().to(device="cpu", dtype=sent_dtype).contiguous()
        total = (total + fingerprint(name, tensor)) % MODULUS
        chunk.add(name, tensor)
        # Sent as soon as it is full: the driver never holds all weights outside the store.
        if chunk.size() >= CHUNK_BYTES:
            chunks.append(ray.put(chunk))
            chunk = Chunk()
    chunks.append(ray.put(chunk))
    return WeightUpdate(version, chunks, total)
