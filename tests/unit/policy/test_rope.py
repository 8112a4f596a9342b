"""Rotary positions are computed where the tokens are."""

import torch

from megatron_trace.policy.rope import RotaryByPosition


def test_frequencies_made_on_the_cpu_follow_the_positions_to_their_device() -> None:
    rotary = RotaryByPosition(torch.ones(4))
    # A device without hardware. torch refuses a product of tensors on two devices there as well.
    rotary.position = torch.arange(3, device="meta")
    angles = rotary(0)
    assert angles.device.type == "meta"
    assert angles.shape == (3, 1, 1, 8)


def test_angles_stay_float32_in_a_bf16_model() -> None:
    rotary = RotaryByPosition(torch.full((4,), 1.0 / 3)).to(torch.bfloat16)
    rotary.position = torch.tensor([3])
    torch.testing.assert_close(rotary(0), torch.ones(1, 1, 1, 8), rtol=1e-7, atol=0)
