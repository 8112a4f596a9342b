"""Rotary position embeddings as `transformers` computes them, put into Megatron's.

Implementations read `rope_scaling` differently. So the frequencies, and YaRN's factor on cosine and
sine, are taken from `transformers` itself, which also reads both notations of config.json.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn


def rotary_frequencies(hf: dict[str, Any]) -> tuple[Tensor, float]:
    """Frequencies, float32 [head_dim / 2], and the factor of cosine and sine.

    Args:
        hf: config.json, which `check_architecture` has accepted.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[hf["model_type"]].from_dict(hf)
    parameters = config.rope_parameters
    if parameters["rope_type"] != "default":
        return ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, torch.device("cpu"))
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 1.0 / parameters["rope_theta"] ** (torch.arange(0, width, 2).float() / width), 1.0


class RotaryByPosition(nn.Module):
    """Replaces Megatron's `RotaryEmbedding`, which counts from the sequence's begin.

    Here a token is rotated by its position in its path.
    """

    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        self.inv_freq = frequencies
        self.position: Tensor
        """Position of each token in its path, [s]; set before every pass."""

    def get_rotary_seq_len(self, *_: Any) -> int:
        """What Megatron hands back to `forward`, which needs none."""
        return 0

    def forward(self, length: int, **_: Any) -> Tensor:
        """Angles [s, 1, 1, head_dim]."""
        # No buffer, or a cast of the model to bf16 would round it; so the model does not move it.
        if self.inv_freq.device != self.position.device:
            self.inv_freq = self.inv_freq.to(self.position.device)
        angles = torch.outer(self.position.float(), self.inv_freq)
        return torch.cat([angles, angles], dim=-1)[:, None, None, :]


def scale_rotation(config: Any, factor: float) -> None:
    """Make a model that is built from Megatron's `config` multiply cosine and sine by `factor`.

    Megatron's attention has no setting for the factor. It computes the factor from its settings for
    YaRN: 1 + 0.1·m·ln(scale), divided by the same with `yarn_mscale_all_dim` for m. With scale = e,
    m = 10·(factor − 1) and `yarn_mscale_all_dim` = 0 the result is `factor`.
    """
    if factor != 1.0:
        config.yarn_rotary_scaling_factor = math.e
        config.yarn_mscale, config.yarn_mscale_all_dim = 10.0 * (factor - 1.0), 0.0
