"""RMSNorm where Transformer Engine is not there."""

from typing import Any

import torch


class TorchRMSNorm(torch.nn.RMSNorm):
    """PyTorch's RMSNorm. Megatron's own wrapper of it refuses sequence parallelism, which needs only this mark: every
    tensor-parallel rank sees a part of the tokens, so the weight's gradients must be summed over them."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
