"""A fingerprint of weights, by which an engine proves that it holds what was sent."""

import zlib

import torch

MODULUS = 1 << 64
"""The fingerprints of a version's tensors are added modulo this."""

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(name: str, tensor: torch.Tensor) -> int:
    """Fingerprint of one named tensor; those of a version's tensors are added, modulo `MODULUS`.

    The sender and every engine compute it of what they hold. A sum has no order, so neither side
    needs to hold two tensors at once or to know which comes next.

    Args:
        name: HF name of the tensor.
        tensor: tensor of any shape, dtype and device.
    """
    # Sums of the bits as integers are exact, so they are equal on every device, which sums of
    # floats are not. Along both rows and columns they notice values that changed places, and no
    # temporary is larger than a row or a column.
    shape = tensor.shape if tensor.ndim else (1,)
    bits = tensor.detach().contiguous().view(shape).view(_INTEGERS[tensor.element_size()])
    matrix = bits.reshape(-1, bits.shape[-1])
    header = f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
    value = zlib.crc32(header)
    for axis in (0, 1):
        sums = matrix.sum(dim=axis, dtype=torch.int64)
        value = zlib.crc32(sums.cpu().numpy().tobytes(), value)
    return (zlib.crc32(header, value) << 32) | value
