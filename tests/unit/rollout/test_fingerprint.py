"""The fingerprint notices what must not happen to weights on their way."""

import pytest
import torch

from megatron_trace.rollout.fingerprint import MODULUS, fingerprint


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6, 4), (24,), (2, 3, 4), ()])
def test_one_bit_changes_the_fingerprint(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape, dtype=dtype)
    before = fingerprint("w", tensor)
    assert fingerprint("w", tensor.clone()) == before and 0 <= before < MODULUS
    tensor.view(-1)[-1] *= -1
    assert fingerprint("w", tensor) != before


def test_order_shape_and_name_count() -> None:
    tensor = torch.arange(24.0).reshape(6, 4)
    others = [
        fingerprint("v", tensor),
        fingerprint("w", tensor.reshape(4, 6)),
        fingerprint("w", tensor.flip(0)),
        fingerprint("w", tensor.flip(1)),
        fingerprint("w", tensor.t().contiguous().reshape(6, 4)),
    ]
    assert fingerprint("w", tensor) not in others and len(set(others)) == len(others)
