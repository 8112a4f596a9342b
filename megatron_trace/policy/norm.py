"""RMSNorm for machines without Transformer Engine."""

from typing import Any

import torch


class TorchRMSNorm(torch.nn.RMSNorm):
    """PyTorch's RMSNorm. Megatron's wrapper of it refuses sequence parallelism."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps)
        # Sequence parallelism needs only this mark: every tensor-parallel rank sees a part of the
        # tokens, so Megatron must sum the weight's gradients over these ranks.
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
