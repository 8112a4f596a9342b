"""A version's weights in Ray's object store: what the driver sends and keeps for restarted workers."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray

MODULUS = 1 << 64
CHUNK_BYTES = 256 << 20
"""Tensors are sent together until they reach this size."""

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(name: str, tensor: torch.Tensor) -> int:
    """Fingerprint of one named tensor; those of a version add up (modulo `MODULUS`) in any order.

    Integer sums of the bits along rows and columns, then CRC-32: exact, so equal on every device, and no temporary
    is larger than a row and a column.

    Args:
        name: HF name of the tensor.
        tensor: tensor of any shape, dtype and device.
    """
    bits = tensor.detach().contiguous().view(-1 if tensor.ndim == 0 else tensor.shape)
    bits = bits.view(_INTEGERS[tensor.element_size()])
    matrix = bits.reshape(-1, bits.shape[-1])
    header = f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
    value = zlib.crc32(header)
    for axis in (0, 1):
        value = zlib.crc32(matrix.sum(dim=axis, dtype=torch.int64).cpu().numpy().tobytes(), value)
    return (zlib.crc32(header, value) << 32) | value


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
        dtype: the fleet's dtype; all but the predictor's tensors are cast to it.
    """
    chunk, chunks, total = Chunk(), [], 0
    for name, tensor in weights:
        tensor = tensor.detach().to(
            device="cpu", dtype=torch.float32 if name.startswith("predictor.") else dtype
        )
        tensor = tensor.contiguous()
        total = (total + fingerprint(name, tensor)) % MODULUS
        chunk.add(name, tensor)
        if chunk.size() >= CHUNK_BYTES:
            chunks.append(ray.put(chunk))
            chunk = Chunk()
    chunks.append(ray.put(chunk))
    return WeightUpdate(version, chunks, total)
