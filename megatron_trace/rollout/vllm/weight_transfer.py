"""The engine's end of weights that come through Ray's object store: a backend of vLLM's transfer.

The driver puts a version's tensors into the store once (`weights.put_weights`). Every worker maps
the chunks without a copy and hands them to its engine's process, where `RayWeightTransferEngine`
loads them by vLLM's layerwise reload.
"""

from dataclasses import dataclass

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)


@dataclass
class RayInitInfo(WeightTransferInitInfo):
    """Empty: the two ends need no agreement beforehand."""


@dataclass
class RayUpdateInfo(WeightTransferUpdateInfo):
    """The tensors of a `weights.Chunk`, in its fields; tensor i has the bytes `data[i]`."""

    names: list[str]
    dtypes: list[str]
    shapes: list[list[int]]
    data: list[bytes]


class RayWeightTransferEngine(WeightTransferEngine[RayInitInfo, RayUpdateInfo]):
    """The receiving side, in vLLM's worker process; registered as backend `ray`."""

    init_info_cls = RayInitInfo
    update_info_cls = RayUpdateInfo

    def init_transfer_engine(self, init_info: RayInitInfo) -> None:
        """Nothing to set up."""

    def start_weight_update(self) -> None:
        """Make the layers ready to be loaded."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: RayUpdateInfo) -> None:
        """Load one chunk."""
        self.model.load_weights(
            (name, _tensor(dtype, shape, data).to(self.device))
            for name, dtype, shape, data in zip(
                update_info.names,
                update_info.dtypes,
                update_info.shapes,
                update_info.data,
                strict=True,
            )
        )

    def finish_weight_update(self) -> None:
        """Finish the layers that vLLM leaves to the end of an update, attention among them."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing to release."""


def _tensor(dtype: str, shape: list[int], data: bytes) -> torch.Tensor:
    # A copy, because torch wants memory that it may write to, which `bytes` is not.
    return torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype)).reshape(shape)
